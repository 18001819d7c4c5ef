"""A full disk, a store that cannot be written to, a path with spaces: one clear error, nothing lost, on when fixed."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from dmseg.config.compose import compose_settings
from dmseg.config.settings import LauncherSettings
from dmseg.launch import launch
from dmseg.runs.plan import plan_folds
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore

ADVICE = "make it writable, or choose another folder"
INLINE, TWO = LauncherSettings("inline"), LauncherSettings("local", 2)


def nothing(run):
    return []


def planned(overrides, *folds):
    settings = compose_settings([*overrides, "device=cpu"])
    return plan_folds(settings, prepare_task(settings), folds)


def carried_out(runs, launcher):
    return [outcome for _, outcome in sorted((o.run.settings.fold, o) for o in launch(runs, launcher, nothing))]


def kinds(outcomes):
    return [outcome.kind for outcome in outcomes]


def files(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def mounted(folder, *options):
    """A file system in memory; skips where only root may mount one."""
    folder.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        yield lambda *options: subprocess.run(["mount", "-o", ",".join(["remount", *options]), str(folder)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("launcher", [INLINE, TWO], ids=["inline", "local"])
def test_a_full_disk_loses_nothing_and_the_next_call_goes_on(small_run, tmp_path, launcher):
    disk = tmp_path / "small disk"
    overrides = [*small_run, f"paths.results='{disk / 'results'}'", "checkpoint.steps=1"]
    runs = planned(overrides, 0, 1, 2)
    with mounted(disk, "size=20m") as remount:
        assert kinds(carried_out(runs[:1], launcher)) == ["done"]
        store = RunStore(disk / "results")
        before = files(store.folder(runs[0].run_id))
        (disk / "other things").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - 40_000))
        done, outcome = carried_out(runs, launcher)
        assert kinds([done, outcome]) == ["done", "unwritable"], "said once, and the third run is not begun"
        assert "No space left on device" in outcome.error
        assert str(disk / "results") in outcome.error
        assert len(outcome.error.splitlines()) == 1
        assert files(store.folder(runs[0].run_id)) == before
        assert store.run_ids() == [runs[0].run_id]
        assert not list(store.runs.glob(".*"))
        remount("size=99m")
        assert kinds(carried_out(runs, launcher)) == ["done"] * 3
        assert all(store.damage(run.run_id, every_file=True) == [] for run in runs)
        assert files(store.folder(runs[0].run_id)) == before


@pytest.mark.parametrize("launcher", [INLINE, TWO], ids=["inline", "local"])
def test_a_read_only_store_is_one_clear_error(small_run, tmp_path, launcher):
    disk = tmp_path / "disk"
    runs = planned([*small_run, f"paths.results='{disk / 'results'}'"], 0, 1)
    with mounted(disk, "size=99m") as remount:
        assert kinds(carried_out(runs[:1], launcher)) == ["done"]
        remount("ro")
        outcomes = carried_out(runs, launcher)
        assert kinds(outcomes) == ["done", "unwritable"]
        expected = f"results folder {disk / 'results'} cannot be written to: Read-only file system; "
        expected += ADVICE
        assert outcomes[1].error == expected
        remount("rw")
        assert kinds(carried_out(runs, launcher)) == ["done"] * 2


def test_a_folder_that_may_not_be_written_to_is_the_same(small_run, tmp_path):
    results = tmp_path / "results"
    results.mkdir(mode=0o500)
    if os.access(results, os.W_OK):  # as root, unless without the capability: setpriv --bounding-set=-dac_override
        pytest.skip("this user may write everywhere")
    (outcome,) = carried_out(planned(small_run, 0), INLINE)
    assert outcome.error == f"results folder {results} cannot be written to: Permission denied; {ADVICE}"
    results.chmod(0o700)
    assert kinds(carried_out(planned(small_run, 0), INLINE)) == ["done"]


@pytest.mark.parametrize("launcher", [INLINE, TWO], ids=["inline", "local"])
def test_paths_may_have_spaces_and_other_letters(small_run, tmp_path, launcher):
    results = tmp_path / "Ergebnisse für (alle) $1 [neu]"
    runs = planned([*small_run, f"paths.results='{results}'"], 0, 1)
    assert kinds(carried_out(runs, launcher)) == ["done"] * 2
    assert RunStore(Path(results)).run_ids() == sorted(run.run_id for run in runs)
