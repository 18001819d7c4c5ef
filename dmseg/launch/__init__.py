"""Executes planned runs in this process, in worker processes, or as Slurm jobs.

A failed run does not stop the others. A launcher only determines where runs are executed (`scheduler.Executor`).
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
    """Executes runs, teachers before their students, and yields the outcome of each as soon as it is known.

    On Ctrl-C, SIGTERM or SIGHUP no further run starts and current runs save their state and stop. A second signal
    raises KeyboardInterrupt.

    Args:
        runs: the runs, each once.
        launcher: where to execute them.
        observers: creates the observers of a run; must be picklable unless runs are executed in this process.
        try_one: executes one run; likewise.

    Raises:
        UserError: if the launcher cannot be used here, or a plugin has changed since it was loaded.
    """
    if not runs:
        return
    check_plugins_unchanged()
    if plugins := plugins_in_use():
        try_one = WithPlugins(plugins, try_one)
    with stopping_gently():
        executor: Executor
        if is_inline(launcher, runs):
            executor = Inline(observers, try_one)
        elif launcher.kind != "slurm":
            executor = Local(runs, launcher.workers, observers, try_one)
        elif launcher.job is not None:
            from dmseg.launch.slurm import Slurm

            executor = Slurm(launcher.job, runs[0].results / "slurm", observers, try_one)
        else:
            raise UserError("launcher.kind=slurm needs the settings of launcher.job; use launcher=slurm")
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
    """Whether runs are executed in this process, one after another.

    Args:
        launcher: where to execute runs.
        runs: the runs, each once; if no two of them can be trained in parallel, ``auto`` needs no worker processes.
    """
    if launcher.kind != "auto":
        return launcher.kind == "inline"
    if launcher.workers == 1 or runs is None:
        return launcher.workers == 1
    teachers = {run.teacher.run_id for run in runs if run.teacher is not None}
    return sum(run.run_id not in teachers for run in runs) <= 1  # a chain of teachers and one last student
