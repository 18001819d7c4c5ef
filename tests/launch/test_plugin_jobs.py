"""Plugins reach the processes that carry runs out: workers and Slurm jobs load the same source, or say why not."""

import os
import pickle
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest

from dmseg.cli.extensions import use_extensions
from dmseg.config.compose import compose_settings
from dmseg.launch import launch, slurm
from dmseg.report.run_observers import silent
from dmseg.report.tracking.tracking_plan import Tracking
from dmseg.runs.plan import plan_run
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore

LOSS = """
import torch

class Mine(torch.nn.Module):
    def __init__(self, **unused):  # options of the loss that it replaces
        super().__init__()

    def forward(self, input, target):
        return (input.softmax(1) - target).square().mean()
"""


@pytest.fixture
def planned(tmp_path, small_run, monkeypatch):
    """Plans two runs with a loss of a user's own; their launcher is named by the call."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "my_job_loss.py").write_text(LOSS)
    monkeypatch.chdir(tmp_path / "home")

    def plan(named, *words):
        loss = ["loss.terms.region={_target_: my_job_loss.Mine, weight: 0.5}", "train.epochs=1"]
        rest = use_extensions("train", [f"plugins={named}", *small_run, *loss, *words])
        runs = []
        for fold in (0, 1):
            settings = compose_settings([*rest, f"fold={fold}"])
            runs.append(plan_run(settings, prepare_task(settings)))
        monkeypatch.chdir(tmp_path)  # where a plugin that is named by a relative path is not
        return runs

    yield plan
    use_extensions("train", [])
    sys.modules.pop("my_job_loss", None)


def assert_done(outcomes, runs):
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert all(RunStore(run.results).is_done(run.run_id) for run in runs)
    assert all(run.identity["code"]["loss"].startswith("sha256:") for run in runs)


@pytest.mark.slow
@pytest.mark.parametrize("named", ["my_job_loss.py", "my_job_loss"])
def test_worker_processes_load_them(planned, named):
    runs = planned(named, "workers=2", "launcher=local")
    assert_done(list(launch(runs, runs[0].settings.launcher, partial(silent, tracking=Tracking()))), runs)


@pytest.mark.slow
def test_a_worker_process_refuses_other_source(planned, tmp_path, monkeypatch):
    runs = planned("my_job_loss.py", "workers=2", "launcher=local")
    launched = launch(runs, runs[0].settings.launcher, partial(silent, tracking=Tracking()))
    check = "dmseg.launch.check_plugins_unchanged"
    monkeypatch.setattr(check, lambda: (tmp_path / "home" / "my_job_loss.py").write_text(LOSS + "\n"))
    for outcome in launched:
        assert outcome.kind == "misused"
        assert "my_job_loss.py has changed since the command started; run the command again" in outcome.error
    assert not any(RunStore(run.results).is_done(run.run_id) for run in runs)


class Cluster:
    """Carries jobs out as Slurm would: each is unpickled in a process of its own, in another folder."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0

    @contextmanager
    def batch(self):
        yield

    def submit(self, batch):
        batch.outcomes.mkdir(parents=True, exist_ok=True)
        self.count += 1
        job = self.folder / f"job-{self.count}"
        job.write_bytes(pickle.dumps(batch))
        code = f"import pickle; pickle.load(open({str(job)!r}, 'rb'))()"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=self.folder, env=dict(os.environ))
        return SimpleNamespace(job_id=f"{self.count}_0")


@pytest.mark.slow
def test_slurm_jobs_load_them(planned, tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="launcher=slurm needs submitit: pip install 'dmseg[slurm]'")
    monkeypatch.setattr(slurm, "_submitit_executor", lambda settings, folder: Cluster(tmp_path))
    runs = planned("my_job_loss.py", "launcher=slurm", "launcher.job.runs=2")
    assert_done(list(launch(runs, runs[0].settings.launcher, partial(silent, tracking=Tracking()))), runs)
