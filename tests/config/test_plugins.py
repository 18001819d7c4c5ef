"""Plugins: found by file or name, used only where the command line says so, and the same code in every process."""

import importlib
import sys

import pytest

from dmseg.cli.extensions import use_extensions
from dmseg.cli.main import main
from dmseg.config import components
from dmseg.config.code_version import code_version
from dmseg.config.compose import compose_settings, restore_settings
from dmseg.config.plugins import check_plugins_unchanged, find_plugins, plugins_in_use, use_plugins
from dmseg.errors import UserError

FUSION = "def half(annotations, share=0.5):\n    return annotations.mean(axis=0) * share\n"
LABELS = "labels._target_=my_plugin.half"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A folder of one's own with a plugin in it; no plugin is left in use."""
    path = list(sys.path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_plugin.py").write_text(FUSION)
    yield tmp_path
    use_plugins(())
    use_extensions("train", [])
    for name in ("my_plugin", "my_package", "my_helper", "my_package.fusions"):
        sys.modules.pop(name, None)
    assert sys.path == path
    assert not components.MODULES


@pytest.mark.parametrize(
    "word",
    ["plugins=my_plugin.py", "plugins=[my_plugin.py]", "plugins=my_plugin", "plugins=[my_plugin]",
     "plugins=['my_plugin.py']", "plugins='my_plugin.py'", "plugins=./my_plugin.py"],
)  # fmt: skip
def test_a_plugin_is_named_by_file_or_by_module(word):
    rest = use_extensions("train", [LABELS, word, "fold=1"])
    assert rest == [LABELS, "fold=1"]
    settings = compose_settings(rest)
    assert settings.labels.target == "my_plugin.half"
    assert settings.labels.interpolation == "linear"  # as it returns floats


def test_a_path_may_hold_anything_and_lie_anywhere(home, monkeypatch):
    folder = home / "a folder, [of] mine"
    folder.mkdir()
    (home / "my_plugin.py").rename(folder / "my_plugin.py")
    use_extensions("train", [f"plugins='{folder}/my_plugin.py'"])
    assert code_version("my_plugin.half").startswith("sha256:")
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    use_extensions("train", [f"plugins=['../{folder.name}/my_plugin.py']"])
    assert [plugin.file for plugin in plugins_in_use()] == [(folder / "my_plugin.py").resolve()]


def test_a_file_may_be_spelled_in_several_ways(home, monkeypatch):
    (home / "other").mkdir()
    (home / "link").symlink_to(home)
    words = ["my_plugin.py", "other/../my_plugin.py", str(home / "link" / "my_plugin.py")]
    use_extensions("train", [f"plugins=[{','.join(words)}]"])
    assert [plugin.file for plugin in plugins_in_use()] == [home.resolve() / "my_plugin.py"]


def test_a_package_of_the_current_folder(home):
    (home / "my_package").mkdir()
    (home / "my_package" / "__init__.py").write_text("")
    (home / "my_package" / "fusions.py").write_text(FUSION)
    rest = use_extensions("train", ["plugins=[my_package]", "labels._target_=my_package.fusions.half"])
    assert compose_settings(rest).labels.target == "my_package.fusions.half"


def test_the_next_command_starts_without_plugins():
    use_extensions("train", ["plugins=my_plugin.py"])
    compose_settings([LABELS])
    use_extensions("train", [])
    with pytest.raises(UserError, match=r"is not allowed.*plugins=\[my_plugin\] or plugins=\[FOLDER/my_plugin.py\]"):
        compose_settings([LABELS])


def test_the_digest_follows_the_source_and_what_it_imports(home):
    def version():
        use_extensions("train", ["plugins=my_plugin.py"])
        return code_version("my_plugin.half")

    first = version()
    assert version() == first
    (home / "my_plugin.py").write_text(FUSION.replace("0.5", "0.4"))  # as long, and within the same second
    assert version() != first
    assert importlib.import_module("my_plugin").half.__defaults__ == (0.4,)
    (home / "my_plugin.py").write_text(f"import my_helper\n{FUSION}")
    (home / "my_helper.py").write_text("A = 1\n")
    second = version()
    sys.modules.pop("my_helper")
    (home / "my_helper.py").write_text("A = 2\n")
    assert version() not in (first, second)


def test_file_and_module_have_the_same_digest():
    digests = set()
    for word in ("plugins=my_plugin.py", "plugins=my_plugin"):
        use_extensions("train", [word])
        digests.add(code_version("my_plugin.half"))
    assert len(digests) == 1


def test_a_plugin_that_changes_is_not_used(home):
    use_plugins(find_plugins(["my_plugin.py"]))
    check_plugins_unchanged()
    (planned,) = plugins_in_use()
    (home / "my_plugin.py").write_text(FUSION.replace("0.5", "0.4"))
    with pytest.raises(UserError, match=r"my_plugin\.py has changed since the command started; run the command again"):
        check_plugins_unchanged()
    use_plugins([planned])  # this process has loaded it before the change
    use_plugins(())
    with pytest.raises(UserError, match="has changed since the command started"):  # another one would now load it
        use_plugins([planned])


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("broken", "def f(:", "SyntaxError"),
        ("broken", "x = 1\nraise RuntimeError('no licence')", "fails in line 2: RuntimeError: no licence"),
        ("broken", "import sys\nsys.exit(3)", "fails in line 2: SystemExit: 3"),
        ("broken", "import not_there", "fails in line 1: ModuleNotFoundError: No module named 'not_there'"),
        ("torch", FUSION, "name of a module of Python, dmseg or its libraries"),
        ("json", FUSION, "name of a module of Python, dmseg or its libraries"),
        ("dmseg", FUSION, "name of a module of Python, dmseg or its libraries"),
        ("rich", FUSION, "name of the installed module 'rich'"),
        ("_private", FUSION, "no name that Python can import"),
        ("with-hyphen", FUSION, "no name that Python can import"),
        ("__init__", FUSION, "must be a .py file; name a package by its dotted name"),
    ],
)  # fmt: skip
def test_plugins_that_cannot_be_used(name, source, said, home, capfd):
    (home / "mine").mkdir()
    (home / "mine" / f"{name}.py").write_text(source)
    assert main(["train", f"plugins=mine/{name}.py"]) == 2
    err = capfd.readouterr().err
    assert err.startswith("dmseg: plugin ")
    assert said in err
    assert f"{name}.py" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plugins=missing.py"], "missing.py does not exist"),
        (["plugins=mine/"], "is a folder"),
        (["plugins=mine"], "is a folder without __init__.py"),
        (["plugins=nothing_here"], "there is no module 'nothing_here'"),
        (["plugins=json"], "name of a module of Python"),
        (["plugins=torch.hub"], "name of a module of Python, dmseg or its libraries"),
        (["plugins=dmseg.losses"], "name of a module of Python, dmseg or its libraries"),
        (["plugins=[my_plugin.py,mine/my_plugin.py]"], "are both the module 'my_plugin'"),
        (["plugins=my_plugin.py", "plugins=my_plugin.py"], "plugins is given twice"),
        (["plugins=my_plugin.py,other.py"], "plugins cannot be swept"),
        (["-m", "plugins=choice(my_plugin.py,other.py)"], "plugins cannot be swept"),
        (["+plugins=my_plugin.py"], "write plugins=[FILE.py,MODULE]"),
        (["plugins="], "write plugins=[FILE.py,MODULE]"),
        (["plugins=[]"], "write plugins=[FILE.py,MODULE]"),
        (["~plugins"], "write plugins=[FILE.py,MODULE]"),
    ],
)
def test_arguments_that_name_no_plugin(words, said, home, capfd):
    (home / "mine").mkdir()
    (home / "mine" / "my_plugin.py").write_text(FUSION)
    assert main(["train", *words]) == 2
    err = capfd.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_module_that_an_installed_one_hides_is_refused(home):
    (home / "rich.py").write_text(FUSION)
    with pytest.raises(UserError, match=r"rich\.py has the name of the installed module 'rich'"):
        find_plugins(["rich"])


@pytest.mark.parametrize("command", ["runs", "import-results"])
def test_commands_without_settings_have_no_plugins(command, capfd):
    assert main([command, "plugins=my_plugin.py"]) == 2
    assert f"dmseg {command} reads no configuration; leave plugins=my_plugin.py out" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["plugins=[my_plugin.py]", "+plugins=[my_plugin.py]", "+plugins.x=1", "++plugins=a"])
def test_only_the_command_line_names_plugins(text):
    with pytest.raises(UserError, match="plugins are named on the command line only"):
        compose_settings([text])


def test_stored_settings_name_no_plugins_and_need_theirs(tmp_path):
    import dataclasses

    use_extensions("train", ["plugins=my_plugin.py"])
    stored = dataclasses.asdict(compose_settings([LABELS]))
    assert restore_settings(stored, tmp_path).labels.target == "my_plugin.half"
    with pytest.raises(UserError, match="unknown key 'plugins'"):
        restore_settings({**stored, "plugins": ["my_plugin.py"]}, tmp_path)
    use_extensions("train", [])
    with pytest.raises(components.MissingPluginError) as caught:
        restore_settings(stored, tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert "plugins=[my_plugin] or plugins=[FOLDER/my_plugin.py]" in str(caught.value)


@pytest.mark.parametrize("target", ["os.system", "torch.load", "dmseg.files.atomic.checksum", "builtins.exec"])
def test_nothing_is_proposed_for_what_can_be_no_plugin(target):
    with pytest.raises(UserError) as caught:
        compose_settings([f"labels._target_={target}"])
    assert "plugins" not in str(caught.value)
