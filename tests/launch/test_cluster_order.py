"""A table of the paper on a simulated cluster, with the real plan and scheduler: `bench/cluster.py` in small."""

import importlib.util
import sys
from pathlib import Path

import pytest

from dmseg.runs.store import RunStore

BENCH = Path(__file__).parents[2] / "bench"
SEEDS = range(3)


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCH)
        spec = importlib.util.spec_from_file_location("bench_cluster", BENCH / "cluster.py")
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "bench_cluster", module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def table(cluster, tmp_path_factory):
    return cluster.plan(tmp_path_factory.mktemp("cluster") / "results", "7")


def busy(begun, seconds, gpus):
    """Wall time if GPUs take runs in the order in which they began, when nothing goes wrong; teachers are awaited."""
    free, ends = [0.0] * gpus, {}
    for _, run in begun:
        gpu = min(range(gpus), key=free.__getitem__)
        start = max(free[gpu], ends[run.teacher.run_id] if run.teacher else 0.0)
        free[gpu] = ends[run.run_id] = start + seconds(run)
    return max(free)


@pytest.mark.parametrize(("gpus", "seed"), [(1, 0), *((8, seed) for seed in SEEDS)])
def test_all_runs_are_done_close_to_the_bound_despite_deaths_and_pre_emption(cluster, table, gpus, seed):
    found = cluster.simulate(table, gpus, seed, failures=0.05, pre_emptions=1 / 3600)
    store = RunStore(table[0].results)
    assert all(store.is_done(run.run_id) for run in table)
    assert found.ratio <= 1.1
    assert found.work > sum(map(cluster.seconds, table))  # something was repeated
    assert found.work - sum(map(cluster.seconds, table)) == pytest.approx(found.repeated)


@pytest.mark.parametrize("gpus", [1, 8, 200])
def test_a_student_begins_when_its_teacher_is_done(cluster, table, gpus):
    found = cluster.simulate(table, gpus, failures=0.2)
    taught = [(when, run) for when, run in found.begun if run.teacher]
    assert len({run.run_id for _, run in taught}) == 30
    assert all(when >= found.done[run.teacher.run_id] for when, run in taught)


def test_without_failures_the_time_is_that_of_the_order(cluster, table):
    found = cluster.simulate(table, 8, failures=0.0, pre_emptions=0.0)
    assert len(found.begun) == len(table)
    assert found.wall == pytest.approx(busy(found.begun, cluster.seconds, 8))
    assert found.work == pytest.approx(sum(map(cluster.seconds, table)))
    longest = max(cluster.seconds(run) + (cluster.seconds(run.teacher) if run.teacher else 0) for run in table)
    assert found.bound == pytest.approx(max(found.work / 8, longest))


def test_gpus_enough_for_all_take_as_long_as_the_longest_chain(cluster, table):
    found = cluster.simulate(table, len(table), failures=0.0, pre_emptions=0.0)
    assert found.ratio == pytest.approx(1.0)
