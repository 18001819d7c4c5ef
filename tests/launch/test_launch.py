"""Many runs: teachers first, failures told at once with their log, workers that die alone, two commands at a time."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dmseg.config.compose import compose_settings
from dmseg.config.settings import LauncherSettings
from dmseg.errors import UserError
from dmseg.launch import Outcome, is_inline, launch, try_run
from dmseg.launch.local import context, shares
from dmseg.runs.execute import execute
from dmseg.runs.plan import plan_folds
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore

INLINE, TWO = LauncherSettings("inline"), LauncherSettings("local", 2)


def nothing(run):
    return []


def folds(overrides, *numbers):
    settings = compose_settings(overrides)
    return plan_folds(settings, prepare_task(settings), numbers or None)


def store_of(run):
    return RunStore(Path(run.settings.paths.results))


def pretend(run, observers):
    """A training in no time."""
    assert run.teacher is None or store_of(run).is_done(run.teacher.run_id), "taught by nobody"
    store_of(run).write(run.run_id, lambda folder: None)
    return Outcome(run)


def take_time_over_teachers(run, observers):
    """The same, but who has no teacher takes longer."""
    time.sleep(0.3 if run.teacher is None else 0.0)
    return pretend(run, observers)


def misbehave(run, observers):
    """Each fold goes wrong in its own way, the last one not."""
    print("fold", run.settings.fold, "begins")
    os.write(2, b"a library says something\n")
    if run.settings.fold == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if run.settings.fold == 1:
        return Outcome(run, "misused", "the batch is too large")
    if run.settings.fold == 2:
        return try_run(replace(run, split=None), observers)
    return pretend(run, observers)


def carried_out(runs, try_one=pretend, launcher=INLINE):
    return {outcome.run.run_id: outcome for outcome in launch(runs, launcher, nothing, try_one)}


@pytest.mark.parametrize(
    ("overrides", "inline"),
    [
        ([], True),
        (["workers=3"], False),
        (["launcher=inline", "workers=3"], True),
        (["launcher=local"], False),
        (["launcher=slurm"], False),
    ],
)
def test_one_worker_is_this_process_unless_a_launcher_is_named(overrides, inline):
    launcher = compose_settings(overrides).launcher
    assert is_inline(launcher) is inline
    assert launcher.workers == (3 if overrides == ["workers=3"] else 1)


def test_a_launcher_does_not_change_what_a_run_is(small_run):
    ids = {folds([*small_run, f"launcher={kind}"], 0)[0].run_id for kind in ("auto", "inline", "local", "slurm")}
    assert len(ids) == 1


@pytest.mark.parametrize("launcher", [INLINE, TWO], ids=["inline", "local"])
def test_teachers_come_before_their_students(small_run, launcher):
    teacher, first, second, other = folds(small_run, 0, 1, 2, 3)
    students = [replace(first, teacher=teacher), replace(second, teacher=teacher)]
    outcomes = carried_out([*students, other, teacher], take_time_over_teachers, launcher)
    assert {outcome.kind for outcome in outcomes.values()} == {"done"}
    assert len(outcomes) == 4


def test_a_student_whose_teacher_failed_is_not_started_and_the_others_go_on(small_run):
    teacher, student, grandchild, other = folds(small_run, 0, 1, 2, 3)
    student = replace(student, teacher=teacher)
    grandchild = replace(grandchild, teacher=student)
    tried = []

    def fail_fold_0(run, observers):
        tried.append(run.settings.fold)
        return Outcome(run, "failed", "no luck") if run.settings.fold == 0 else pretend(run, observers)

    outcomes = carried_out([grandchild, student, teacher, other], fail_fold_0)
    assert {outcome.run.settings.fold: outcome.kind for outcome in outcomes.values()} == {
        0: "failed",
        1: "blocked",
        2: "blocked",
        3: "done",
    }
    assert set(tried) == {0, 3}
    assert f"its teacher {teacher.title} ({teacher.run_id}) is not done: no luck" in outcomes[student.run_id].error
    assert outcomes[student.run_id].status == 1


def test_a_teacher_done_before_counts_and_a_missing_one_is_an_error(small_run):
    teacher, student = folds(small_run, 0, 1)
    student = replace(student, teacher=teacher)
    outcome = carried_out([student])[student.run_id]
    assert outcome.kind == "blocked"
    assert "run the teacher first" in outcome.error
    pretend(teacher, nothing)
    assert carried_out([student])[student.run_id].kind == "done"


def test_each_failure_in_a_worker_has_its_log_and_takes_nobody_with_it(small_run):
    runs = folds(small_run)
    outcomes = carried_out(runs, misbehave, TWO)
    by_fold = [outcomes[run.run_id] for run in runs]
    assert [outcome.kind for outcome in by_fold] == ["failed", "misused", "failed", "done", "done"]
    assert [outcome.run.settings.threads for outcome in by_fold] == [1] * 5
    killed, misused, broken, *_ = by_fold
    assert "worker process died" in killed.error
    assert killed.tail.splitlines()[-2:] == ["a library says something", killed.error]
    assert misused.tail.splitlines() == ["fold 1 begins", "a library says something", "the batch is too large"]
    assert broken.error.startswith("AttributeError: 'NoneType'")
    assert broken.tail.splitlines()[-1] == broken.error
    assert "Traceback" in broken.log.read_text()
    assert all(outcome.log == store_of(outcome.run).log(outcome.run.run_id) for outcome in by_fold[:3])
    assert {path.stem for path in by_fold[0].log.parent.iterdir()} == {run.run_id for run in runs[:3]}, "no other logs"


def test_the_next_call_retries_what_failed_and_nothing_else(small_run, monkeypatch):
    runs = folds([*small_run, "train.epochs=1"], 0, 1)
    fit = "dmseg.runs.execute.fit"

    def broken(*arguments):
        raise RuntimeError("the machine is on fire")

    execute(runs[0], nothing)
    with monkeypatch.context() as patch:
        patch.setattr(fit, broken)
        outcomes = carried_out(runs, try_run)
        assert [outcomes[run.run_id].kind for run in runs] == ["done", "failed"]
    written = (store_of(runs[0]).folder(runs[0].run_id) / "DONE").stat().st_mtime_ns
    outcomes = carried_out(runs, try_run)
    assert [outcomes[run.run_id].kind for run in runs] == ["done", "done"]
    assert (store_of(runs[0]).folder(runs[0].run_id) / "DONE").stat().st_mtime_ns == written
    assert not store_of(runs[1]).log(runs[1].run_id).exists()


def test_what_a_process_left_that_died_when_its_run_was_done_goes_with_the_next_call(small_run):
    (run,) = folds([*small_run, "train.epochs=1"], 0)
    store = store_of(run)
    execute(run, nothing)
    left = [
        store.checkpoints(run.run_id) / "000000002" / "rest.pt",
        store.lease_file(run.run_id),
        store.log(run.run_id),
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"host": "gone", "pid": 1, "started": "1", "token": "x"}')
        os.utime(path, (0, 0))
    with store.working_on("b" * 16):
        assert not execute(run, nothing)
        assert store.lease_file("b" * 16).exists()
    assert not any(path.exists() for path in left)
    assert not store.checkpoints(run.run_id).exists()


def test_a_run_that_another_process_has_waits_while_the_others_go_on(small_run, monkeypatch):
    monkeypatch.setattr("dmseg.launch.scheduler.POLL", 0.05)
    held, free = folds([*small_run, "train.epochs=1"], 0, 1)
    other_process = store_of(held).working_on(held.run_id)
    other_process.__enter__()
    order = []
    for outcome in launch([held, free], INLINE, nothing):
        order.append(outcome.run)
        if outcome.run is free:
            other_process.__exit__(None, None, None)
    assert order == [free, held]


class Says:
    """Leaves a line for each run that is trained."""

    def __init__(self, file):
        self.file = file

    def __call__(self, run):
        with self.file.open("a") as file:
            file.write(f"{run.run_id}\n")
        return []


def command(runs, file):
    outcomes = list(launch(runs, INLINE, Says(file)))
    os._exit(0 if [outcome.kind for outcome in outcomes] == ["done"] * len(runs) else 1)


def test_two_commands_that_want_the_same_runs_train_each_once(small_run, tmp_path):
    runs = folds([*small_run, "device=cpu", "train.epochs=30"])
    wanted = {"one": [0, 1, 2], "other": [2, 1, 0, 3]}
    server = context()
    commands = [
        server.Process(target=command, args=([runs[fold] for fold in numbers], tmp_path / name))
        for name, numbers in wanted.items()
    ]
    for process in commands:
        process.start()
    for process in commands:
        process.join(120)
    assert [process.exitcode for process in commands] == [0, 0]
    trained = {name: (tmp_path / name).read_text().split() for name in wanted}
    assert sorted(run_id for ids in trained.values() for run_id in ids) == sorted(run.run_id for run in runs[:4])
    assert all(trained.values()), "both had something to do"


def test_workers_share_cores_and_devices():
    assert [share.cores for share in shares(2, [], range(5))] == [(0, 1), (2, 3, 4)]
    assert [share.cores for share in shares(3, [], range(2))] == [(0,), (0,), (1,)]
    assert [share.device for share in shares(5, ["0", "1"], range(8))] == ["0", "1", "0", "1", "0"]


def test_slurm_that_is_not_there_is_one_clear_message(small_run, monkeypatch):
    launcher = compose_settings(["launcher=slurm"]).launcher
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"needs (Slurm, but there is no command 'sbatch'|submitit)"):
        list(launch(folds(small_run, 0), launcher, nothing))


def test_no_runs_need_no_launcher():
    assert list(launch([], compose_settings(["launcher=slurm"]).launcher, nothing)) == []
