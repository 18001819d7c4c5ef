"""Code that changes changes ids: revisions of dmseg's own components, the source of those from outside."""

import importlib
import json
import sys

import numpy as np
import pytest

from dmseg.config import code_version as module
from dmseg.config import components
from dmseg.config.code_version import code_version, revision
from dmseg.config.compose import compose_settings
from dmseg.config.resources import resource
from dmseg.data.folds import Split
from dmseg.errors import UserError
from dmseg.runs import identity as identity_module
from dmseg.runs.digests import identifier
from dmseg.runs.identity import evaluation_identity, run_identity
from dmseg.runs.sources import prepare_task

SPLIT = Split(("a", "b", "c"), ("d",))
FUSION = "import numpy as np\nimport my_helper\ndef mean(annotations):\n    return my_helper.mean(annotations)\n"
HELPER = "def mean(annotations): return annotations.mean(axis=0)\n"
ADAPTER = """
from dmseg.data.adapters.lidc import LidcAdapter

class Mine(LidcAdapter):
    def read_case(self, task, files):
        return super().read_case(task, files)
"""


def run_id(*overrides):
    settings = compose_settings(["task=prostate-1", "model.weights=null", *overrides])
    return identifier(run_identity(settings, "fp32", "0" * 64, SPLIT))


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """Writes modules of a user's own, and has them imported anew, as another process would."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(components, "MODULES", set())

    def write(**files):
        for name, text in files.items():
            components.MODULES.add(name.partition("__")[0])
            path = tmp_path.joinpath(*name.replace("INIT", "__init__").split("__", 1)).with_suffix(".py")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        forget()

    def forget():
        for name in [name for name in sys.modules if name.startswith(("my_", "mylab"))]:
            del sys.modules[name]
        importlib.invalidate_caches()

    yield write
    forget()


TARGETS = [
    "dmseg.labels.fusion.weighted",
    "dmseg.losses.DiceSemimetricLoss",  # named by a package that only imports it
    "dmseg.methods.mrnet.MRNetMethod",
    "dmseg.data.adapters.lidc.LidcAdapter",
    "dmseg.models.build.build_model",
]


@pytest.mark.parametrize("target", TARGETS)
def test_a_revision_is_read_from_the_source(monkeypatch, target):
    assert code_version(target) == 1
    module._declared_revision.cache_clear()
    parse, name = module.ast.parse, target.rpartition(".")[2]

    def raised(source):
        lines = source.decode().splitlines()
        place = next((i for i, line in enumerate(lines) if line.startswith((f"def {name}(", f"class {name}"))), None)
        if place is not None:
            lines.insert(place, "@revision(3)")
        return parse("\n".join(lines))

    monkeypatch.setattr(module.ast, "parse", raised)
    assert code_version(target) == 3
    assert code_version("dmseg.losses.JaccardMetricLoss") == 1
    monkeypatch.undo()
    module._declared_revision.cache_clear()


def test_the_decorator_marks_a_component_and_changes_nothing_else():
    @revision(2)
    def fusion(annotations):
        return annotations

    assert fusion.revision == 2
    assert fusion(1) == 1


def test_every_component_of_the_configuration_has_the_first_revision():
    for path in resource("configs").glob("*/*.yaml"):
        for line in path.read_text().splitlines():
            if "_target_:" in line:
                assert code_version(line.split("_target_:")[1].split("#")[0].strip()) == 1


@pytest.mark.parametrize(
    ("raised", "overrides", "counts"),
    [
        ("dmseg.labels.fusion.majority", [], True),
        ("dmseg.labels.fusion.majority", ["labels=uniform"], False),
        ("dmseg.labels.fusion.majority", ["method=multi_head"], False),
        ("dmseg.losses.DiceSemimetricLoss", [], True),
        ("dmseg.losses.DiceSemimetricLoss", ["loss=ce"], False),
        ("dmseg.losses.DiceSemimetricLoss", ["method=mrnet"], False),
        ("dmseg.methods.mrnet.MRNetMethod", ["method=mrnet"], True),
        ("dmseg.methods.base.Method", [], True),
        ("dmseg.models.build.build_model", ["method=softseg"], True),
        ("dmseg.labels.fusion.uniform", [], False),
    ],
)
def test_a_raised_revision_changes_the_ids_of_the_runs_that_use_it(monkeypatch, raised, overrides, counts):
    before = run_id(*overrides)
    monkeypatch.setattr(identity_module, "code_version", lambda target: 2 if target == raised else 1)
    assert (run_id(*overrides) != before) == counts


def test_a_raised_revision_of_the_reference_scores_again(monkeypatch):
    evaluate = compose_settings([]).evaluate
    before = identifier(evaluation_identity(evaluate))
    monkeypatch.setattr(identity_module, "code_version", lambda target: 2)
    assert identifier(evaluation_identity(evaluate)) != before


def test_an_edited_fusion_from_outside_names_another_run(outside):
    mine = "labels._target_=my_fusion.mean"
    outside(my_fusion=FUSION, my_helper=HELPER)
    first = run_id(mine)
    assert run_id(mine) == first != run_id("labels=uniform")
    assert run_id("evaluate.reference._target_=my_fusion.mean") == run_id()
    for text in (FUSION + "# changed\n", FUSION.replace("mean(axis", "sum(axis")):
        outside(my_fusion=text)
    assert run_id(mine) == first
    outside(my_fusion=FUSION + "# changed\n")
    assert run_id(mine) != first
    outside(my_fusion=FUSION, my_helper=HELPER.replace("axis=0", "axis=0, dtype='float32'"))
    assert run_id(mine) != first, "what it imports from its folder counts"
    outside(my_helper=HELPER)
    assert run_id(mine) == first
    outside(my_fusion=FUSION.replace("\n", "\r\n"), my_helper=HELPER.replace("\n", "\r\n").encode())
    assert run_id(mine) == first, "line endings do not"
    outside(my_unrelated="x = 1\n")
    assert run_id(mine) == first


def test_packages_base_classes_and_names_that_lead_on(outside):
    lab = {
        "mylab__INIT": "from mylab.losses import Loss\n",
        "mylab__losses": "from .base import Base\nclass Loss(Base):\n    pass\n",
        "mylab__base": "from . import numbers\nclass Base:\n    pass\n",
        "mylab__numbers": "two = 2\n",
        "my_base": "class Root:\n    pass\n",
    }
    outside(**lab)
    direct, through = "mylab.losses.Loss", "mylab.Loss"
    seen = {code_version(direct)}
    for name in ("mylab__losses", "mylab__base", "mylab__numbers"):
        before = code_version(direct), code_version(through)
        outside(**{name: lab[name] + "# changed\n"})
        after = code_version(direct), code_version(through)
        assert before[0] != after[0]
        assert before[1] != after[1]
        seen.add(after[0])
    assert len(seen) == 4
    before = code_version(direct)
    outside(my_base=lab["my_base"] + "# changed\n")
    assert code_version(direct) == before


def test_the_place_of_a_module_does_not_count(outside, tmp_path, monkeypatch):
    outside(my_fusion=FUSION, my_helper=HELPER)
    here = code_version("my_fusion.mean")
    there = tmp_path / "elsewhere"
    there.mkdir()
    for name in ("my_fusion", "my_helper"):
        (tmp_path / f"{name}.py").rename(there / f"{name}.py")
    monkeypatch.syspath_prepend(there)
    outside()
    assert code_version("my_fusion.mean") == here


def test_libraries_do_not_count_and_mistakes_are_named(outside):
    assert code_version("torch.nn.CrossEntropyLoss") == 1
    outside(my_fusion=FUSION, my_helper=HELPER)
    with pytest.raises(UserError, match=r"there is no component 'my_fusion\.nope'"):
        code_version("my_fusion.nope")
    with pytest.raises(UserError, match="is not allowed as a component"):
        code_version("os.system")
    components.MODULES.add("my_made")
    sys.modules["my_made"] = type(sys)("my_made")
    sys.modules["my_made"].fusion = lambda annotations: annotations
    with pytest.raises(UserError, match=r"component 'my_made\.fusion' has no source file"):
        code_version("my_made.fusion")


def test_an_edited_adapter_prepares_again_in_the_same_place(outside, tmp_path, lidc_tree):
    outside(my_adapter=ADAPTER)
    settings = compose_settings(
        [
            "data=lidc",
            "data._target_=my_adapter.Mine",
            f"data.root='{lidc_tree}'",
            "data.size=32",
            f"paths.prepared='{tmp_path / 'prepared'}'",
        ]
    )
    said: list[str] = []

    def prepared():
        return prepare_task(settings, said.append)

    first = prepared()
    assert json.loads((first.folder / "manifest.json").read_text())["options"]["code"].startswith("sha256:")
    dark = np.array(first.images)
    assert prepared().digest == first.digest
    assert len(said) == 1
    outside(
        my_adapter=ADAPTER.replace(
            "return super().read_case(task, files)",
            "import dataclasses\n        case = super().read_case(task, files)\n"
            "        return dataclasses.replace(case, window=case.window * 2)",
        )
    )
    second = prepared()
    assert len(said) == 2
    assert second.folder == first.folder
    assert second.digest != first.digest
    assert np.array(second.images).mean() < dark.mean()
