"""Carries out many runs somewhere: in this process, in worker processes, or as Slurm jobs.

One run that fails does not stop the others; a launcher only says where runs are carried out (`schedule.Executor`).
"""

from collections.abc import Generator, Sequence

from dmseg.config.plugins import check_plugins_unchanged, plugins_in_use
from dmseg.config.settings import LauncherSettings
from dmseg.errors import UserError
from dmseg.launch.local import Inline, Local
from dmseg.launch.outcome import MakeObservers, Outcome, TryRun, WithPlugins, try_run
from dmseg.launch.scheduler import Executor, schedule
from dmseg.runs.plan import PlannedRun
from dmseg.runs.stopping import is_urgent, stopping_gently

__all__ = ["Outcome", "is_inline", "launch", "try_run"]


def launch(
    runs: Sequence[PlannedRun], launcher: LauncherSettings, observers: MakeObservers, try_one: TryRun = try_run
) -> Generator[Outcome]:
    """Carries out runs and yields each one's outcome as soon as it is known, teachers before their students.

    On Ctrl-C, SIGTERM or SIGHUP no further run begins, those under way keep their state, and the rest are left out. A
    second signal raises KeyboardInterrupt.

    Args:
        runs: the runs, each once.
        launcher: where they are carried out.
        observers: makes each run's observers; must be picklable unless runs are carried out in this process.
        try_one: what is done with a run; likewise.

    Raises:
        UserError: if the launcher cannot be used here, or a plugin has changed since it was loaded.
    """
    if not runs:
        return
    check_plugins_unchanged()
    if plugins := plugins_in_use():
        try_one = WithPlugins(plugins, try_one)
    with stopping_gently():
        executor = _executor(runs, launcher, observers, try_one)
        try:
            yield from schedule(runs, executor)
        except BaseException:
            if is_urgent():
                executor.kill()
            else:
                executor.ask_to_stop()
            raise
        finally:
            executor.close()


def is_inline(launcher: LauncherSettings, runs: Sequence[PlannedRun] | None = None) -> bool:
    """Whether runs are carried out in this process, one after another.

    Args:
        launcher: where runs are carried out.
        runs: the runs, each once; where none of them can be trained beside another, ``auto`` needs no worker processes.
    """
    if launcher.kind != "auto":
        return launcher.kind == "inline"
    return launcher.workers == 1 or (runs is not None and _is_chain(runs))


def _is_chain(runs: Sequence[PlannedRun]) -> bool:
    """Whether each run but the last one teaches another: a student, what calibrates its teacher, and the teacher."""
    teachers = {run.teacher.run_id for run in runs if run.teacher is not None}
    return sum(run.run_id not in teachers for run in runs) <= 1


def _executor(
    runs: Sequence[PlannedRun], launcher: LauncherSettings, observers: MakeObservers, try_one: TryRun
) -> Executor:
    if is_inline(launcher, runs):
        return Inline(observers, try_one)
    if launcher.kind != "slurm":
        return Local(runs, launcher.workers, observers, try_one)
    if launcher.job is None:
        raise UserError("launcher.kind is slurm, but nothing is said of its jobs; write launcher=slurm")
    from dmseg.launch.slurm import Slurm

    return Slurm(launcher.job, runs[0].results / "slurm", observers, try_one)
