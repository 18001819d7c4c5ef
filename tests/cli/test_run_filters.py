"""Filters of runs that choose nothing, and advice on damaged runs in a folder of its own."""

import shlex

import pytest
from conftest import store_run

from dmseg.cli.main import main
from dmseg.config.compose import compose_settings
from dmseg.runs.plan import plan_run
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore


@pytest.fixture
def store(small_run):
    for labels in ("majority", "uniform"):
        settings = compose_settings([*small_run, f"labels={labels}"])
        run = plan_run(settings, prepare_task(settings))
        rows = [{"case": case, "dice": 0.5, "bdice": 0.5, "ece": 0.1} for case in run.split.validation]
        store_run(run, rows)
    return RunStore(run.results)


def runs(store, *words):
    return main(["runs", *words, f"paths.results={store.results}"])


@pytest.mark.parametrize(
    ("word", "count"), [("labels=[uniform,majority]", 2), ("labels=[uniform]", 1), ("fold=[0]", 1), ("seed=00", 2)]
)
def test_lists_in_brackets_and_numbers_choose(store, word, count, capfd):
    assert runs(store, "verify", word if word != "fold=[0]" else "labels='uniform'", "fold=[0]") == 0
    assert f"{count} run{'' if count == 1 else 's'} verified: all files match" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("status=Done", "status is 'Done', but must be done, damaged, running, failed or interrupted"),
        ("fold=x", "fold is 'x', but must be a whole number"),
        ("fold=0-1", "fold is '0-1', but must be a whole number"),
        ("seed=", "seed is '', but must be a whole number"),
    ],
)
@pytest.mark.parametrize("action", ["list", "verify", "prune"])
def test_values_that_no_run_can_have_are_refused(store, action, word, said, capfd):
    assert runs(store, action, word) == 2
    assert said in capfd.readouterr().err


def test_filters_that_choose_nothing_say_why(store, capfd):
    assert runs(store, "list", "labels=foo") == 0
    assert "0 runs (no run has labels=foo; there are majority, uniform)" in capfd.readouterr().out
    assert runs(store, "prune", "seed=[3]") == 0
    assert "(no run has seed=[3]; there are 0)" in capfd.readouterr().out
    assert runs(store, "verify", "labels=foo") == 2
    assert "no run was verified: no run has labels=foo; there are majority, uniform" in capfd.readouterr().err
    place = [f"paths.results={store.results}"]
    assert main(["track", "tracker=jsonl", "labels=foo", *place]) == 0
    assert "no run has labels=foo; there are majority, uniform" in capfd.readouterr().err
    assert main(["runs", "list", "paths.results="]) == 2


def test_advice_on_damage_names_the_results_folder(store, capfd):
    run_id = store.run_ids()[0]
    (store.folder(run_id) / "manifest.json").unlink()
    with pytest.raises(Exception, match="is missing; run 'dmseg runs verify aside=true") as caught:
        store.read_json(run_id, "manifest.json")
    words = str(caught.value).partition("run 'dmseg ")[2].partition("' to set")[0]
    assert main(shlex.split(words)) == 1
    assert (store.results / "damaged" / f"{run_id}-1").is_dir()
