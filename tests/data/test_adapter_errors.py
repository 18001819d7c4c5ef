"""Exceptions of an adapter's code: one message with the case and its files, and the traceback of that code alone."""

import gzip
import logging
from types import MappingProxyType

import numpy as np
import pytest

from dmseg.cli import output
from dmseg.cli.extensions import use_extensions
from dmseg.cli.main import main
from dmseg.data.case import About, Adapter, Case, CaseFiles, Slice, Task
from dmseg.data.prepared import PreparedTask, prepare
from dmseg.errors import AdapterError, MissingDataError, UserError
from dmseg.runs.sources import say_without_slices

ADAPTER = """
from dmseg.data.case import About, Adapter, Case, CaseFiles, Slice, Task
import numpy as np
from pathlib import Path

class Own(Adapter):
    about = About(None, "none", "nowhere")
    tasks = {"thing": Task("thing", "Thing", "things", ("ann",))}
    def __init__(self, root, lazy=False): self.root, self.lazy = Path(root), lazy
    def list_cases(self, task):
        return [CaseFiles(p.name, None, (p / "image.npy", p / "mask.npy")) for p in sorted(self.root.iterdir())]
    def read_case(self, task, files):
        slices = self.slices(files)
        return Case(files.case, (0,), np.array([[0.0, 255.0]]), slices if self.lazy else list(slices))
    def slices(self, files):
        image, mask = map(np.load, files.files)
        both = np.stack([image, mask])  # breaks here
        yield Slice(both[:1], both[1:])
"""
CONFIG = """
name: own
_target_: own_adapter.Own
root: ROOT
size: 16
epochs: 1
scale: [0.8, 1.25]
crop: 1.0
lazy: false
phantom: null
"""


@pytest.fixture
def own(tmp_path):
    """An adapter of one's own with six cases, of which the masks of two have another size; the words that choose it."""
    for number in range(6):
        folder = tmp_path / f"raw/c{number}"
        folder.mkdir(parents=True)
        np.save(folder / "image.npy", np.full((16, 16), 40 * number, np.uint8))
        np.save(folder / "mask.npy", np.eye(16, 12 if number in (2, 4) else 16, dtype=np.uint8))
    (tmp_path / "own_adapter.py").write_text(ADAPTER)
    (tmp_path / "configs/data").mkdir(parents=True)
    (tmp_path / "configs/data/own.yaml").write_text(CONFIG.replace("ROOT", str(tmp_path / "raw")))
    yield [
        f"plugins={tmp_path / 'own_adapter.py'}",
        f"--config-dir={tmp_path / 'configs'}",
        "data=own",
        f"paths.prepared={tmp_path / 'prepared'}",
        "threads=1",
    ]
    use_extensions("train", [])


@pytest.mark.parametrize(("lazy", "what"), [(False, "read_case"), (True, "reading the slice")])
@pytest.mark.parametrize("command", ["prepare", "train", "train -m seed=0,1"])
def test_a_command_names_case_and_files_and_shows_the_code(own, tmp_path, capfd, caplog, command, lazy, what):
    assert main([*command.split(), *own, f"data.lazy={lazy}"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    number, place = ", slice 0" if lazy else "", tmp_path / "raw/c2"
    lines = err[err.index("dmseg: ") :].splitlines()
    assert lines[0].startswith(f"dmseg: case c2{number} ({place}/image.npy, mask.npy): {what} failed: ValueError: all ")
    assert lines[1].startswith("own/thing: 2 of 6 cases cannot be read: c2, c4; fix them")
    (start,) = [index for index, line in enumerate(lines) if line.startswith("Traceback")]
    shown = "\n".join(lines[start:])
    assert "both = np.stack([image, mask])  # breaks here" in shown
    assert f'"{tmp_path / "own_adapter.py"}"' in lines[start + 1], "it begins with the adapter's code"
    assert "dmseg/data" not in shown
    assert lines[-1].startswith("ValueError: all input arrays")
    (other,) = [line for line in caplog.messages if line.startswith("case ")]
    assert other.startswith(f"case c4{number} ({tmp_path}/raw/c4/image.npy, mask.npy): {what} failed: ValueError")


def test_the_other_cases_are_kept_and_the_mended_ones_read(own, tmp_path, capfd):
    assert main(["prepare", *own]) == 2
    for number in (2, 4):
        np.save(tmp_path / f"raw/c{number}/mask.npy", np.eye(16, dtype=np.uint8))
    assert main(["prepare", *own]) == 0
    assert "own/thing: 6 cases, 6 slices" in capfd.readouterr().out


BROKEN = {
    "list_cases('thing')": ("def list_cases(self, task):\n", "def list_cases(self, task):\n        {}['folder']\n"),
    "tasks": ("    def __init__", "    @property\n    def tasks(self): return {}['folder']\n    def __init__"),
}
"""Where the adapter fails, and the change that makes it fail."""


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("command", ["prepare", "train", "train -m seed=0,1"])
def test_a_command_names_the_adapter_that_cannot_list_tasks_or_cases(own, tmp_path, capfd, command, what):
    plugin = tmp_path / "own_adapter.py"
    plugin.write_text(ADAPTER.replace(*BROKEN[what]))
    assert main([*command.split(), *own]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    lines = err[err.index("dmseg: ") :].splitlines()
    assert lines[0] == f"dmseg: adapter own_adapter.Own ({plugin}): {what} failed: KeyError: 'folder'"
    (start,) = [index for index, line in enumerate(lines) if line.startswith("Traceback")]
    assert f'"{plugin}"' in lines[start + 1], "it begins with the adapter's code"
    assert "dmseg/data" not in "\n".join(lines[start:])
    assert lines[-1] == "KeyError: 'folder'"


@pytest.mark.parametrize("what", BROKEN)
def test_the_status_names_the_adapter_and_shows_the_other_data_sets(own, tmp_path, capsys, what):
    plugin = tmp_path / "own_adapter.py"
    plugin.write_text(ADAPTER.replace(*BROKEN[what]))
    assert main(["data", "status", *own[:2]]) == 0
    out = capsys.readouterr().out
    assert f"adapter own_adapter.Own ({plugin}): {what} failed: KeyError: 'folder'" in out
    assert "qubiq" in out


WRONG = {
    "tasks": (
        "    tasks = {",
        "    tasks = None and {",
        "tasks is None; expected a mapping from names to Task objects",
    ),
    "a task": ('("thing", "Thing"', '("thing", 7', "task thing: title 7 and cohort 'things' must be text"),
    "no list": ("        return [Case", "        return None and [Case", "list_cases returns None; expected a list of"),
    "names": ("        return [Case", "        return ['a'] or [Case", "list_cases returns 'a'; expected CaseFiles"),
    "nothing": ("        return [Case", "        return [] and [Case", "list_cases returns no cases; check data.root"),
}
"""What is wrong with the adapter's answers, the change that makes it so, and the message."""


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("command", ["data status", "prepare", "train", "plan"])
def test_answers_that_are_no_tasks_or_cases_are_named(own, tmp_path, capsys, command, what):
    old, new, message = WRONG[what]
    assert old in ADAPTER
    (tmp_path / "own_adapter.py").write_text(ADAPTER.replace(old, new))
    words = own[:2] if command == "data status" else [*own, *(["table=2"] if command == "plan" else [])]
    status = main([*command.split(), *words])
    out, err = capsys.readouterr()
    if command == "data status":
        assert (status, err) == (0, "")
        assert message in " ".join(out.split())
        assert "qubiq" in out, "the other data sets are shown"
    else:
        assert status == 2
        assert message in err
        assert "Traceback" not in err


def lists(monkeypatch, fail):
    """Makes listing the cases of `Faulty` fail."""
    monkeypatch.setattr(Faulty, "list_cases", lambda self, task: fail())


def test_an_adapter_that_fails_while_its_list_is_read_is_named(tmp_path, monkeypatch):
    lists(monkeypatch, lambda: (CaseFiles(f"case{1 // number}", None, ()) for number in (1, 0)))
    place = rf"^adapter {__name__}.Faulty \({__file__}\): list_cases\('thing'\) failed: "
    with pytest.raises(AdapterError, match=f"{place}ZeroDivisionError: ") as caught:
        stored(faulty(tmp_path, None, False), tmp_path)
    assert "dmseg/data" not in caught.value.trace


def test_errors_of_the_system_and_of_the_user_in_a_list_have_no_traceback(tmp_path, monkeypatch):
    for fail, said in (
        (lambda: (tmp_path / "none").read_bytes(), r"Faulty .*: list_cases\('thing'\) failed \(\[Errno 2\].*none"),
        (lambda: (_ for _ in ()).throw(MissingDataError("there is none")), "^there is none$"),
    ):
        lists(monkeypatch, fail)
        with pytest.raises(UserError, match=said) as caught:
            stored(faulty(tmp_path, None, False), tmp_path)
        assert not isinstance(caught.value, AdapterError)


class Faulty(Adapter):
    """Three cases; reading the one named ``case1``, or its slices, calls `fail`."""

    about = About(None, "none", "nowhere")
    tasks = MappingProxyType({"thing": Task("thing", "Thing", "things", ("ann",))})

    def __init__(self, fail, lazy, skip=False):
        self.fail, self.lazy, self.skips_faulty = fail, lazy, skip

    def list_cases(self, task):
        return [CaseFiles(f"case{number}", None, self.files) for number in range(3)]

    def read_case(self, task, files):
        if files.case == "case1" and not self.lazy:
            self.fail()
        return Case(files.case, (0,), np.array([[0.0, 1.0]]), self.slices(files.case))

    def slices(self, case):
        for number in range(2):
            if case == "case1" and self.lazy and number == 1:
                self.fail()
            yield Slice(np.eye(16, dtype=np.float32)[None], np.eye(16, dtype=np.uint8)[None])


def faulty(tmp_path, *arguments, n_files=1, **options):
    adapter = Faulty(*arguments, **options)
    adapter.files = tuple(tmp_path / f"file{number}" for number in range(n_files))
    for path in adapter.files:
        path.touch()
    return adapter


def stored(adapter, tmp_path):
    prepare(adapter, adapter.tasks["thing"], tmp_path / "my data" / "store", 16, {})
    return PreparedTask(tmp_path / "my data" / "store")


def read_truncated():
    gzip.decompress(gzip.compress(bytes(1000))[:-10])


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    ("fail", "said"),
    [
        (read_truncated, "EOFError: Compressed file ended before the end-of-stream marker was reached"),
        (lambda: {}["spacing"], "KeyError: 'spacing'"),
        (lambda: [][3], "IndexError: list index out of range"),
        (lambda: next(iter([])), "(StopIteration|RuntimeError: generator raised StopIteration)"),
    ],
)
def test_any_exception_names_the_case(tmp_path, caplog, lazy, fail, said):
    place = rf"case case1{', slice 1' if lazy else ''} \({tmp_path}/file0\): .* failed: {said}\n"
    with pytest.raises(AdapterError, match=f"^{place}my data/thing: 1 of 3 cases cannot be read: case1; ") as caught:
        stored(faulty(tmp_path, fail, lazy), tmp_path)
    assert caplog.messages == [], "one fault is said once"
    assert "in fail" in caught.value.trace or "in <lambda>" in caught.value.trace or "read_tr" in caught.value.trace
    assert "dmseg/data" not in caught.value.trace


@pytest.mark.parametrize("lazy", [False, True])
def test_errors_of_the_system_and_of_the_user_have_no_traceback(tmp_path, lazy):
    for fail, said in (
        (lambda: (tmp_path / "none").read_bytes(), r"case1.*file0\) cannot be read \(\[Errno 2\] No such file.*none"),
        (lambda: gzip.decompress(b"no gzip file"), r"case1.*file0\) cannot be read \(Not a gzipped file"),
        (lambda: (_ for _ in ()).throw(UserError("mask is odd")), "^case case1: mask is odd"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            stored(faulty(tmp_path, fail, lazy), tmp_path)
        assert not isinstance(caught.value, AdapterError)


def test_only_expected_faults_are_skipped(tmp_path, caplog):
    with pytest.raises(AdapterError, match=r"1 of 3 cases cannot be read: case1"):
        stored(faulty(tmp_path, lambda: {}["x"], False, skip=True), tmp_path)
    with caplog.at_level(logging.WARNING):
        store = stored(faulty(tmp_path, lambda: gzip.decompress(b"no"), False, skip=True), tmp_path)
    assert [case.case for case in store.cases] == ["case0", "case2"]
    assert store.without_slices == ["case1"]
    assert say_without_slices(store) == "1 of 3 cases was skipped because of a fault (case1)"
    assert sum("case1" in line for line in caplog.messages) == 1


@pytest.mark.parametrize("skip", [False, True])
def test_an_unexpected_exception_comes_before_faulty_files(tmp_path, caplog, monkeypatch, skip):
    fails = {"case0": UserError("mask is odd"), "case1": KeyError("x"), "case2": KeyError("y")}
    monkeypatch.setattr(Faulty, "read_case", lambda self, task, files: (_ for _ in ()).throw(fails[files.case]))
    left = "2 of 3 cases cannot be read: case1, case2" if skip else "3 of 3 cases cannot be read: case0, case1, case2"
    with pytest.raises(AdapterError, match=rf"^case case1 .*KeyError: 'x'\nmy data/thing: {left};") as caught:
        stored(faulty(tmp_path, None, False, skip=skip), tmp_path)
    assert "KeyError: 'x'" in caught.value.trace
    levels = {record.getMessage()[:10]: record.levelname for record in caplog.records}
    assert levels == {"case case0": "WARNING" if skip else "ERROR", "case case2": "ERROR"}


def test_many_files_are_counted(tmp_path):
    names = ", ".join(f"file{number}" for number in range(1, 8))
    with pytest.raises(AdapterError, match=rf"case1 \({tmp_path}/file0, {names} and 12 more\): read_case failed"):
        stored(faulty(tmp_path, lambda: {}["x"], False, n_files=20), tmp_path)


def test_control_characters_of_a_traceback_are_escaped(capfd):
    output.print_trace("Traceback\n  \x1b[31mred")
    assert capfd.readouterr().err == "Traceback\n  \\x1b[31mred\n"
