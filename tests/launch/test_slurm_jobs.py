"""Slurm jobs seen from both ends, with Slurm's own part played by the test; tests/slurm has the real one."""

import os
import signal
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from dmseg.config.compose import compose_settings
from dmseg.launch import Outcome, launch, slurm
from dmseg.runs.execute import execute
from dmseg.runs.plan import plan_folds
from dmseg.runs.sources import prepare_task
from dmseg.runs.stopping import stopping_gently
from dmseg.runs.store import RunStore

pytest.importorskip("submitit", reason="launcher=slurm needs submitit: pip install 'dmseg[slurm]'")


def nothing(run):
    return []


def pretend(run, observers):
    RunStore(run.results).write(run.run_id, lambda folder: (folder / "cases.csv").write_text("case,dice\n"))
    return Outcome(run)


def fail_fold_1(run, observers):
    return Outcome(run, "misused", "the batch is too large") if run.settings.fold == 1 else pretend(run, observers)


class Cluster:
    """Takes jobs, carries out those it is told to when it is asked for the queue, and forgets them then."""

    def __init__(self, behaviour, states):
        self.behaviour, self.states = behaviour, states
        self.arrays, self.queue = [], {}

    @contextmanager
    def batch(self):
        self.arrays.append([])
        yield

    def submit(self, batch):
        batch.outcomes.mkdir(parents=True, exist_ok=True)
        name = f"{len(self.arrays)}_{len(self.arrays[-1])}"
        self.arrays[-1].append(batch)
        self.queue[name] = batch
        return SimpleNamespace(job_id=name)

    def queued(self):
        for name, batch in self.queue.items():
            self.behaviour(name, batch)
        self.queue = {}
        return set()

    def show(self, job):
        return f"JobId=7 JobState={self.states.get(job, 'COMPLETED')} Reason=None PreemptTime=None"


@pytest.fixture
def on_cluster(monkeypatch, small_run):
    """Launches folds under a cluster that behaves as told; returns it, and the outcomes by fold."""

    def go(folds, behaviour, try_one=pretend, states=(), words=()):
        cluster = Cluster(behaviour, dict(states))
        monkeypatch.setattr(slurm, "_submitit_executor", lambda settings, folder: cluster)
        monkeypatch.setattr(slurm, "_queued", cluster.queued)
        monkeypatch.setattr(slurm, "_show", cluster.show)
        monkeypatch.setattr(slurm, "LOOK", 0.0)
        monkeypatch.setattr("dmseg.launch.scheduler.POLL", 0.02)
        settings = compose_settings([*small_run, "launcher=slurm", *words])
        runs = plan_folds(settings, prepare_task(settings), folds)
        outcomes = {item.run.settings.fold: item for item in launch(runs, settings.launcher, nothing, try_one)}
        return cluster, outcomes

    return go


def run_now(name, batch):
    with stopping_gently():
        batch()


def test_runs_become_one_array_and_outcomes_come_back(on_cluster):
    cluster, outcomes = on_cluster(range(5), run_now, fail_fold_1, words=["launcher.job.runs=2", "launcher.job.cpus=3"])
    assert [[len(batch.runs) for batch in array] for array in cluster.arrays] == [[2, 2, 1]]
    assert {fold: item.kind for fold, item in outcomes.items()} == {
        0: "done",
        1: "misused",
        2: "done",
        3: "done",
        4: "done",
    }
    assert outcomes[1].error == outcomes[1].tail == "the batch is too large"
    assert outcomes[1].run.settings.threads == 1


def test_jobs_that_vanish_are_told_by_what_slurm_says_and_by_the_store(on_cluster):
    def vanish(name, batch):
        if name == "1_0":
            execute(batch.runs[0], nothing)  # and killed before the outcome was written
        if name == "1_2":
            (batch.outcomes.parent / f"{name}_0_log.err").write_text("slurmstepd: error: Detected 1 oom-kill event\n")

    states = {"1_0": "FAILED", "1_1": "CANCELLED", "1_2": "OUT_OF_MEMORY"}
    _, outcomes = on_cluster(range(3), vanish, states=states)
    complete, cancelled, dead = (outcomes[fold] for fold in range(3))
    assert complete.kind == "done"
    assert cancelled.kind == "stopped"
    assert "Slurm job 1_1 is CANCELLED; run the same command to start again" in cancelled.error
    assert dead.kind == "failed"
    assert "Slurm job 1_2 ended as OUT_OF_MEMORY" in dead.error
    assert dead.tail.splitlines() == ["slurmstepd: error: Detected 1 oom-kill event", dead.error]


@pytest.mark.parametrize(
    ("number", "preempted", "ends", "requeued"),
    [
        (signal.SIGUSR2, False, "stopped", True),
        (signal.SIGTERM, True, "stopped", True),
        (signal.SIGTERM, False, "stopped", False),
        (signal.SIGUSR2, False, "done", False),
    ],
    ids=["time limit", "pre-emption", "scancel", "time limit at the very end"],
)
def test_a_warning_reaches_submitit_once_the_run_has_stopped(
    small_run, tmp_path, monkeypatch, number, preempted, ends, requeued
):
    events = []

    def trained_until_warned(run, observers):
        events.append(f"begins {run.settings.fold}")
        os.kill(os.getpid(), number)
        events.append("keeps its state")
        return Outcome(run, ends)

    settings = compose_settings(small_run)
    folds = (0, 1) if ends == "stopped" else (0,)
    runs = plan_folds(settings, prepare_task(settings), folds)
    when = "2026-01-01T00:00:00" if preempted else "None"
    monkeypatch.setattr(slurm, "_show", lambda job: f"JobState=RUNNING PreemptTime={when}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    batch = slurm.RunGroup(tuple(runs), nothing, trained_until_warned, tmp_path / "outcomes")
    before = signal.signal(signal.SIGUSR2, lambda number, frame: events.append("requeued"))
    try:
        with stopping_gently():
            batch()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert events == ["begins 0", "keeps its state", *(["requeued"] if requeued else [])]
    assert (tmp_path / "outcomes").exists() == (ends == "done"), "a job that is requeued has not said its last word"
    assert batch.checkpoint().function is batch
