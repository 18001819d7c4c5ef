"""Own data whose raters or spacing change: what is trained or scored again, and what is not."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from dmseg.config.compose import compose_settings
from dmseg.data.adapters.decathlon import DecathlonAdapter
from dmseg.data.adapters.kits import KitsAdapter
from dmseg.data.adapters.lidc import TASK
from dmseg.data.adapters.lits import LitsAdapter
from dmseg.data.adapters.qubiq import TASKS
from dmseg.data.case import About, Adapter, Case, CaseFiles, Slice, Task
from dmseg.data.known_tasks import known_raters
from dmseg.data.prepared import PreparedTask, prepare
from dmseg.errors import UserError
from dmseg.runs.execute import execute
from dmseg.runs.plan import plan_folds, plan_run
from dmseg.runs.sources import prepare_task
from dmseg.runs.status import is_complete
from dmseg.runs.store import RunStore

SIZE = 32
NAMES = ("a", "b", "c")
ONE = ["labels=rater", "labels.rater=a"]
OF_A = ["evaluate.reference._target_=dmseg.labels.fusion.one_rater", "+evaluate.reference.rater=a"]
SURFACES = "evaluate.metrics=[hd95,nsd]"
WIDTHS = {"bottleneck": 16, "encoder": "[4,8,12,16,16]", "context": 12, "detail": 4, "perception": 4}
SMALL = ["method=mrnet", *(f"method.widths.{name}={value}" for name, value in WIDTHS.items())]


class Discs(Adapter):
    """Ten cases with discs that grow from mask to mask; `only` maps a rater's position to that rater's cases."""

    about = About(None, "", "")

    def __init__(self, raters=NAMES, title="Disc", only=None, spacing=None, contiguous=False, masks=3):
        self.raters, self.title, self.only = tuple(raters), title, only or {}
        self.spacing, self.contiguous, self.masks = spacing, contiguous, masks

    @property
    def tasks(self):
        return {"disc": Task("disc", self.title, "discs", self.raters)}

    def list_cases(self, task):
        return [CaseFiles(f"c{number}", None, ()) for number in range(10)]

    def read_case(self, task, files):
        number = int(files.case[1:])
        rng = np.random.default_rng(number)
        rows, columns = np.mgrid[:SIZE, :SIZE]
        distance = np.hypot(rows - 14 - number % 4, columns - 15)
        image = np.clip(rng.normal(60, 10, (SIZE, SIZE)) + 120 * (distance < 8), 0, 255).astype(np.float32)
        raters = tuple(rater for rater in range(self.masks) if number in self.only.get(rater, range(10)))
        masks = np.stack([distance < 6 + 2 * rater for rater in raters])
        slices = [Slice(image[None], masks)] * 2
        window = np.array([[0.0, 255.0]])
        return Case(files.case, raters, window, slices, spacing=self.spacing, contiguous=self.contiguous)


@pytest.fixture
def plan_of(tmp_path):
    """Plans a run on discs; the options of the data are those of `Discs`."""

    def planned(*overrides, fold=0, check=True, **options):
        words = [
            "data=lidc",
            f"data.size={SIZE}",
            "model=unet_tiny",
            "train.epochs=2",
            "train.batch_size=4",
            "threads=1",
        ]
        words += ["device=cpu", "optim.decoder_lr_factor=10", f"paths.results='{tmp_path / 'results'}'", *overrides]
        settings = compose_settings([*words, f"fold={fold}"])
        own = dataclasses.replace(settings.data, target="discs.Discs")
        adapter, folder = Discs(**options), tmp_path / "store"
        known = {key: str(value) for key, value in options.items() if key != "raters"}
        prepare(adapter, adapter.tasks["disc"], folder, SIZE, known)
        return plan_run(dataclasses.replace(settings, data=own), PreparedTask(folder), check)

    return planned


def folder(run):
    return RunStore(run.results).folder(run.run_id)


def weights(run):
    return (folder(run) / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("words", "by_order", "by_number"),
    [
        ([], False, False),
        (["labels=uniform"], False, False),
        (["labels=random"], False, False),
        (ONE, True, True),
        (["labels=rater_weights", "labels.weights={a:1,b:2}"], True, True),
        (["method=multi_head"], False, True),
        (SMALL, False, True),
        (["method=multi_head", *ONE], False, True),  # does not read the labels
        (["method=mc_dropout"], False, False),
        (["method=mc_dropout", *ONE], True, True),
        (["method=softseg"], False, False),
    ],
)
def test_raters_are_in_the_id_where_they_matter(words, by_order, by_number, plan_of):
    of_names = NAMES, NAMES[::-1], (*NAMES, "d"), (*NAMES, "d", "e")
    first, turned, more, most = runs = [plan_of(*words, raters=raters) for raters in of_names]
    assert all(run.identity["data"] == first.identity["data"] for run in runs)
    assert (turned.run_id != first.run_id, more.run_id != first.run_id) == (by_order, by_number)
    for key in ("run_id", "experiment_id"):
        assert (getattr(most, key) != getattr(more, key)) == by_number
    assert len({run.evaluation_id for run in runs}) == 1
    if not by_order:
        assert "raters" not in first.identity, "ids stay as they were"


def test_a_run_on_other_names_is_that_of_the_rater_who_has_the_name_now(plan_of):
    before = plan_of(*ONE)
    assert execute(before)
    after = plan_of(*ONE, raters=("c", "b", "a"))
    assert execute(after), "the stored run is that of another rater"
    third = plan_of("labels=rater", "labels.rater=c")
    execute(third)
    assert weights(after) == weights(third) != weights(before)


def test_a_reference_that_names_raters_is_scored_again(plan_of):
    first, turned = (plan_of(*OF_A, raters=raters) for raters in (NAMES, NAMES[::-1]))
    assert first.run_id == turned.run_id
    assert first.evaluation_id != turned.evaluation_id
    assert json.dumps(first.evaluation) != json.dumps(turned.evaluation)


def test_the_raters_of_known_data_sets_are_those_of_their_adapters(tmp_path):
    qubiq, lidc = "dmseg.data.adapters.qubiq.QubiqAdapter", "dmseg.data.adapters.lidc.LidcAdapter"
    assert {name: known_raters(qubiq, name) for name in TASKS} == {name: task.raters for name, task in TASKS.items()}
    assert known_raters(lidc, TASK.name) == TASK.raters
    for kind in (LitsAdapter, KitsAdapter):
        for name, task in kind(tmp_path).tasks.items():
            assert known_raters(f"{kind.__module__}.{kind.__qualname__}", name) == task.raters
    unread = DecathlonAdapter.unread_task
    assert known_raters("dmseg.data.adapters.decathlon.DecathlonAdapter", unread.name) == unread.raters
    assert known_raters("discs.Discs", "disc") is None


def test_the_ids_of_known_data_sets_do_not_name_raters(small_run):
    position = "method.anonymous_raters=position"
    for words in ([], ["method=multi_head", position], [*SMALL, position], ["labels=rater", "labels.rater=mask-0"]):
        more = ["labels.anonymous_raters=position"] if "labels=rater" in words else []
        settings = compose_settings([*small_run, *words, *more])
        run = plan_run(settings, prepare_task(settings))
        assert "raters" not in run.identity
        assert "raters" not in run.evaluation
        assert run.trained_raters is None


LATE = {"raters": (*NAMES, "d"), "masks": 4, "only": {3: (0,)}}
"""Rater d annotated the first case only, which fold 0 validates on."""


@pytest.mark.parametrize("method", [["method=multi_head"], SMALL])
def test_heads_that_no_case_trains_have_no_part_in_the_prediction(method, plan_of, caplog):
    run, other = (plan_of(*method, "train.epochs=1", fold=fold, **LATE) for fold in (0, 1))
    assert (run.trained_raters, other.trained_raters) == ((0, 1, 2), None)
    assert run.experiment_id == other.experiment_id
    torch.manual_seed(0)
    network = run.method.network(run.settings.model, 1, run.task)
    image = torch.randn(2, 1, SIZE, SIZE)
    stream = lambda name: torch.Generator()  # noqa: E731
    with torch.inference_mode():
        predictor = run.method.predictor(network, stream)
        before = predictor.probability(image), predictor.samples(image)
        if method == SMALL:
            (output,) = network(image, [torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0]).expand(2, 4)])
            expected = output.final.sigmoid()[:, 0]
            network.reconstruction.heads.bias[3] += 5
        else:
            logits = network(image)
            expected = torch.stack([logits[:, 2 * k : 2 * k + 2].softmax(1)[:, 1] for k in range(3)]).mean(0)
            network.segmentation_head[0].bias[6] += 5
        after = predictor.probability(image), predictor.samples(image)
    torch.testing.assert_close(before[0], expected)
    assert before[1].shape == (2, 3, SIZE, SIZE)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    execute(run)
    said = [line for line in caplog.messages if "leaves out" in line]
    assert said == ["disc: the prediction leaves out d, who annotated no training case of fold 0"]
    assert pd.read_csv(folder(run) / "cases.csv")["dice"].notna().all()


def test_a_head_without_data_does_not_change_what_the_others_score(plan_of):
    """A misspelt folder of one rater made the ECE 25 times as large."""
    words = ["method=multi_head", "train.min_steps=40"]
    scores = []
    for raters, trained in ((NAMES, None), ((*NAMES, "misspelt"), (0, 1, 2))):
        run = plan_of(*words, raters=raters)
        assert run.trained_raters == trained
        execute(run)
        scores.append(pd.read_csv(folder(run) / "cases.csv")[["dice", "bdice", "ece"]].mean())
    assert (scores[0] - scores[1]).abs().max() < 0.05


def test_a_single_rater_is_not_enough_for_a_method_that_tells_them_apart(plan_of):
    options = {"raters": ("a", "b"), "masks": 2, "only": {1: (0, 1)}}
    words = r"only rater a annotated training cases of fold 0 of task 'disc'.*how several raters differ"
    with pytest.raises(UserError, match=words):
        plan_of("method=multi_head", check=False, **options)
    assert plan_of("method=multi_head", fold=1, **options).trained_raters is None
    assert plan_of(**options).trained_raters is None


def test_a_corrected_spacing_is_scored_again_and_not_trained(plan_of):
    first = plan_of(SURFACES, "train.min_steps=30", spacing=(1.0, 1.0))
    assert execute(first)
    second = plan_of(SURFACES, "train.min_steps=30", spacing=(3.0, 3.0))
    assert (second.run_id, is_complete(second)) == (first.run_id, False)
    trained = weights(first)
    execute(second)
    store = RunStore(second.results)
    before, after = (store.read_cases(run.run_id, run.evaluation_id) for run in (first, second))
    assert weights(second) == trained
    assert after["hd95"].tolist() == pytest.approx((3 * before["hd95"]).tolist())
    assert (after["nsd"] < before["nsd"]).all()
    assert after["dice"].tolist() == before["dice"].tolist()
    assert store.damage(second.run_id) == []
    assert plan_of(SURFACES, "train.min_steps=30", spacing=(1.0, 1.0)).evaluation_id == first.evaluation_id


@pytest.mark.parametrize(
    ("words", "by_spacing", "by_position"),
    [
        ([], False, False),
        ([SURFACES], True, True),
        (["evaluate.metrics=[lesion_f1]"], False, True),
        ([SURFACES, "evaluate.spacing=[1,1]"], False, False),
        ([SURFACES, "evaluate.spacing=[1,1,1]"], False, True),
        (["evaluate.metrics=[hd95,lesion_f1]", "evaluate.spacing=[1,1]"], False, True),
    ],
)
def test_spacing_and_position_are_in_the_evaluations_id_where_they_matter(words, by_spacing, by_position, plan_of):
    first, wider, volume = (
        plan_of(*words, **options)
        for options in (
            {"spacing": (1.0, 1.0, 2.0)},
            {"spacing": (1.0, 1.5, 2.0)},
            {"spacing": (1.0, 1.0, 2.0), "contiguous": True},
        )
    )
    assert first.run_id == wider.run_id == volume.run_id
    changed = wider.evaluation_id != first.evaluation_id, volume.evaluation_id != first.evaluation_id
    assert changed == (by_spacing, by_position)


def test_the_spacing_counts_for_all_folds_alike(plan_of):
    runs = [plan_of(SURFACES, fold=fold, spacing=(1.0, 2.0)) for fold in (0, 1)]
    assert runs[0].evaluation_id == runs[1].evaluation_id
    settings, store = runs[0].settings, PreparedTask(runs[0].prepared_folder)
    assert {run.evaluation_id for run in plan_folds(settings, store)} == {runs[0].evaluation_id}


def test_a_store_follows_the_names_of_its_raters(tmp_path):
    """Where an adapter reads them from a file that is not one of a case's."""

    def again(**options):
        adapter = Discs(**options)
        return prepare(adapter, adapter.tasks["disc"], tmp_path / "store", SIZE, {})

    assert again()
    assert not again()
    assert again(raters=("c", "b", "a"))
    assert PreparedTask(tmp_path / "store").task.raters == ("c", "b", "a")
    assert not again(raters=("c", "b", "a"), title="Another title")
