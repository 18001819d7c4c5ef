"""A table's runs on a real Slurm of one node; each of its jobs is disturbed in another way.

``make test-slurm`` runs this; elsewhere it is skipped, as it may install Slurm and takes minutes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from cluster import one_node_slurm, run, wait_for

from dmseg.cli.main import main
from dmseg.runs.store import RunStore

pytestmark = pytest.mark.skipif(
    os.environ.get("DMSEG_TEST_SLURM") != "1", reason="starts a Slurm on this machine; 'make test-slurm' does it"
)
pytest.importorskip("submitit", reason="launcher=slurm needs submitit: pip install 'dmseg[slurm]'")


@pytest.fixture
def slurm():
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: names of sockets are limited
    try:
        with one_node_slurm(folder) as environment:
            yield environment
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def say(*words):
    print(time.strftime("%H:%M:%S"), *words, flush=True)


class Jobs:
    """The jobs of this user, as Slurm tells."""

    def __init__(self, environment):
        self.environment = environment

    def shown(self):
        """State and number of restarts by name, of all jobs that Slurm remembers."""
        found = {}
        for line in run("scontrol", "-o", "show", "job", env=self.environment).splitlines():
            values = dict(word.split("=", 1) for word in line.split() if "=" in word)
            name = values["JobId"]
            if "ArrayJobId" in values:
                name = f"{values['ArrayJobId']}_{values['ArrayTaskId']}"
            if values["JobName"] == "dmseg":
                found[name] = (values["JobState"], int(values["Restarts"]))
        return found

    def requeued(self):
        return {name for name, (_, restarts) in self.shown().items() if restarts}

    def hurry(self):
        """Lets requeued jobs begin at once; Slurm would wait two minutes."""
        for name, (state, restarts) in self.shown().items():
            if restarts and state == "PENDING":
                run("scontrol", "update", f"jobid={name}", "starttime=now", env=self.environment)


def processes(store):
    """Process and run of each job, by the leases of the runs and the environment of their owners."""
    found = {}
    for lease in (store.results / "leases").glob("*.json"):
        pid = json.loads(lease.read_text())["pid"]
        words = Path(f"/proc/{pid}/environ").read_text().split("\0")
        values = dict(word.split("=", 1) for word in words if "=" in word)
        found[f"{values['SLURM_ARRAY_JOB_ID']}_{values['SLURM_ARRAY_TASK_ID']}"] = (pid, lease.stem)
    return found


def newcomer(store, known):
    """Process and run of a job that is not known yet, None where there is none."""
    return next((found for name, found in processes(store).items() if name not in known), None)


def test_jobs_of_a_table_are_disturbed_and_end_in_the_same_numbers(slurm, small_run, tmp_path, capfd):
    table = ["table=2", "fold=0", *small_run, "device=cpu", "train.epochs=400", "checkpoint.steps=20"]
    jobs_wanted = ["launcher=slurm", "launcher.job.gpus=0", "launcher.job.cpus=1", "launcher.job.memory_gb=null"]
    results, reference = tmp_path / "results of slurm", tmp_path / "reference"
    words = [sys.executable, "-m", "dmseg", "reproduce", *table, *jobs_wanted, f"paths.results='{results}'"]
    store, jobs = RunStore(results), Jobs(slurm)
    with capfd.disabled():
        command = subprocess.Popen(words, env=slurm, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        def checkpoints():
            return {path.parent.name for path in (results / "checkpoints").glob("*/[0-9]*")}

        wait_for(lambda: len(checkpoints()) >= 4 or command.poll() is not None, 180, lambda: str(jobs.shown()))
        assert command.poll() is None, command.communicate()
        say("running, with checkpoints:", jobs.shown())
        where = processes(store)
        run("sbatch", "--partition=urgent", "--output=/dev/null", "--wrap=sleep 1", env=slurm)
        preempted = wait_for(jobs.requeued, 60, lambda: str(jobs.shown()))
        assert len(preempted) == 1
        cancelled, requeued, warned = [name for name in sorted(where) if name not in preempted][:3]
        run("scancel", cancelled, env=slurm)
        run("scontrol", "requeue", requeued, env=slurm)
        run("scancel", "--signal=USR2", warned, env=slurm)
        say(f"pre-empted {preempted}, cancelled {cancelled}, requeued {requeued}, warned of its time limit {warned}")
        wait_for(lambda: {requeued, warned} <= jobs.requeued(), 60, lambda: str(jobs.shown()))
        jobs.hurry()
        pid, killed = wait_for(lambda: newcomer(store, where), 120, lambda: str(jobs.shown()))
        os.kill(pid, signal.SIGKILL)
        say(f"the last job's process {pid} is killed")
        while command.poll() is None:
            jobs.hurry()
            time.sleep(1)
        err = command.communicate()[1]
        say("first call:", err.strip().splitlines()[-12:])
    undone = {where[cancelled][1], killed}
    assert command.returncode in (1, 130), err
    assert {path.name for path in store.runs.glob("[!.]*")} == {run_id for _, run_id in where.values()} - undone
    assert f"Slurm job {cancelled} is CANCELLED" in err
    assert "ended as FAILED" in err
    with capfd.disabled():
        again = subprocess.run(words, env=slurm, capture_output=True, text=True, check=False, timeout=300)
        say("second call:", again.stderr.strip().splitlines()[-5:])
    assert again.returncode == 0, again.stderr
    assert "5 runs, 3 already done, 2 to run" in again.stderr
    assert "LIDC nodule" in again.stdout
    assert len(list((results / "slurm").iterdir())) == 1, "files of jobs are kept only where something went wrong"
    sessions = {run_id: len(store.read_json(run_id, "manifest.json")["sessions"]) for run_id in store.run_ids()}
    say("sessions of each run:", sessions)
    assert all(sessions[where[name][1]] > 1 for name in [cancelled, requeued, warned, *preempted])
    assert main(["reproduce", *table, "workers=2", f"paths.results='{reference}'"]) == 0
    undisturbed = RunStore(reference)
    for run_id in undisturbed.run_ids():
        for name in ("cases.csv", "weights.safetensors"):
            assert (store.folder(run_id) / name).read_bytes() == (undisturbed.folder(run_id) / name).read_bytes()
