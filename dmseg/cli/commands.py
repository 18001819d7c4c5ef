"""The commands that prepare data and train: prepare, train, cv."""

import logging
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace

import pandas as pd
from rich.console import Console
from rich.logging import RichHandler

from dmseg.cli.words import take_seeds
from dmseg.config.compose import compose_settings
from dmseg.config.overrides import parse_override
from dmseg.config.settings import Settings
from dmseg.errors import UserError
from dmseg.launch import Outcome, is_inline, launch
from dmseg.report.progress import ManyProgress
from dmseg.report.run_observers import silent, verbose
from dmseg.runs.lease import RunLocked
from dmseg.runs.plan import PlannedRun, distinct, plan_folds, plan_run
from dmseg.runs.run_files import mean_scores
from dmseg.runs.sources import count_target_slices, prepare_task, prepare_tasks
from dmseg.runs.status import is_complete
from dmseg.runs.stopping import received
from dmseg.runs.store import RunStore
from dmseg.text import printable, printable_lines, score_text

err = Console(stderr=True, highlight=False, soft_wrap=True)


def prepare(argv: Sequence[str]) -> int:
    """Prepares one task, or all of a data set."""
    set_up_logging()
    settings = compose_settings(argv)
    if settings.data.labels_only:
        return _count_slices(settings)
    for prepared in prepare_tasks(settings, notify, complete=True):
        counts = f"{len(prepared.cases)} cases, {len(prepared.images)} slices"
        print(printable(f"{settings.data.name}/{prepared.task.name}: {counts}, {prepared.folder}"))
    return 0


def _count_slices(settings: Settings) -> int:
    """Prints how many slices show the target, in total and in each fold."""
    counts, folds = count_target_slices(settings.data, settings.task, settings.folds, settings.workers)
    for title, part in ((settings.data.name, counts), *((f"fold {index}", fold) for index, fold in enumerate(folds))):
        slices, hit = sum(item.n_slices for item in part), sum(item.n_target for item in part)
        cases = sum(item.n_target > 0 for item in part)
        print(f"{title}: {hit} of {slices} slices hold the target, in {cases} of {len(part)} cases")
    return 0


def train(argv: Sequence[str]) -> int:
    """Trains one run."""
    set_up_logging()
    settings = compose_settings(argv)
    run = plan_run(settings, prepare_task(settings.data, settings.paths, settings.task, notify, settings.workers))
    status = run_all(distinct([run]), settings)
    if status == 0:
        _print_scores([run])
    return status


def cv(argv: Sequence[str]) -> int:
    """Trains all folds of one configuration, under one or several seeds, and prints their pooled scores."""
    set_up_logging()
    seeds, argv = take_seeds(argv)
    if fold := next((word for word in argv if parse_override(word).key_or_group == "fold"), None):
        raise UserError(f"cv trains all folds; leave {fold} out, or use 'dmseg train {fold}'")
    settings = compose_settings(argv)
    data = prepare_task(settings.data, settings.paths, settings.task, notify, settings.workers)
    runs = [run for seed in seeds or (settings.seed,) for run in plan_folds(replace(settings, seed=seed), data)]
    status = run_all(distinct(runs), settings)
    if status == 0:
        _print_scores(runs)
    return status


def run_all(runs: Sequence[PlannedRun], settings: Settings) -> int:
    """Trains and scores the runs that are not done, and reports those that fail.

    Args:
        runs: the runs, each once, including teachers.
        settings: choose the launcher.

    Returns:
        The exit status.

    Raises:
        KeyboardInterrupt: if a signal asked to stop; its message states what is kept.
    """
    _set_damaged_aside(runs)
    missing = [run for run in runs if not _is_over(run)]
    several = len(runs) > 1
    if several:
        notify(f"{len(runs)} runs, {len(runs) - len(missing)} done before, {len(missing)} to do")
    here = is_inline(settings.launcher, missing)
    progress = ManyProgress(err, len(missing), bar=not here)
    outcomes: list[Outcome] = []
    with progress.shown(), closing(launch(missing, settings.launcher, verbose if here else silent)) as launched:
        for outcome in launched:
            outcomes.append(outcome)
            if outcome.kind != "stopped" or received() is None:
                _report_failure(outcome)
                if several:
                    progress.advance(outcome.run.title)
        if received() is not None:
            raise KeyboardInterrupt(_what_is_kept(runs, missing, outcomes))
    left = len(missing) - sum(outcome.kind == "done" for outcome in outcomes)
    if left and several:
        notify(f"{left} of {len(missing)} runs are not done; finished runs are kept, run the same command to resume")
    return max((outcome.status for outcome in outcomes), default=0)


def _what_is_kept(runs: Sequence[PlannedRun], missing: Sequence[PlannedRun], outcomes: Sequence[Outcome]) -> str:
    """Words for what a stopped command leaves behind."""
    done = len(runs) - len(missing) + sum(outcome.kind == "done" for outcome in outcomes)
    stopped = [outcome for outcome in outcomes if outcome.kind == "stopped"]
    if len(stopped) == 1:
        return f"{done} of {len(runs)} runs done, {stopped[0].run.title} {stopped[0].error}"
    states = f", {len(stopped)} with their state kept" if stopped else ""
    return f"{done} of {len(runs)} runs done{states}; run the same command to resume"


def _is_over(run: PlannedRun) -> bool:
    """Whether a run is complete; if so, leftovers of its training are removed."""
    if not is_complete(run):
        return False
    RunStore(run.results).tidy(run.run_id)
    return True


def _set_damaged_aside(runs: Sequence[PlannedRun]) -> None:
    """Sets damaged runs aside, except those that another process is working on."""
    for run in runs:
        store = RunStore(run.results)
        if not _is_damaged(store, run):
            continue
        with suppress(RunLocked), store.working_on(run.run_id):
            if _is_damaged(store, run):  # again: another process may have fixed it
                damage, place = store.damage(run.run_id), store.set_aside(run.run_id)
                notify("\n".join([*damage, f"{run.title} ({run.run_id}) is set aside in {place}"]))


def _is_damaged(store: RunStore, run: PlannedRun) -> bool:
    return store.is_done(run.run_id) and bool(store.damage(run.run_id))


def _report_failure(outcome: Outcome) -> None:
    if outcome.error is None:
        return
    what = {"stopped": "stopped", "blocked": "waits"}.get(outcome.kind, "failed")
    notify(f"dmseg: {outcome.run.title} ({outcome.run.run_id}) {what}: {outcome.error}")
    if outcome.log is not None:
        notify(f"{outcome.tail}\nits log: {outcome.log}")


def _print_scores(runs: Sequence[PlannedRun]) -> None:
    """Prints the mean scores over the cases of all runs; of several seeds for each, and their mean."""
    store = RunStore(runs[0].results)
    phantom = " (PHANTOM data)" if runs[0].settings.data.phantom is not None else ""
    for run in runs:
        print(printable(f"{run.run_id}  {run.title}{phantom}  {store.folder(run.run_id)}"))
    by_seed: dict[int, list[pd.DataFrame]] = {}
    for run in runs:
        by_seed.setdefault(run.settings.seed, []).append(store.read_cases(run.run_id, run.evaluation_id))
    means = {seed: mean_scores(pd.concat(frames)) for seed, frames in by_seed.items()}
    n_cases = sum(map(len, next(iter(by_seed.values()))))
    for seed, scores in means.items():
        title = f"seed {seed}, " if len(means) > 1 else ""
        shown = "  ".join(score_text(name, mean) for name, mean in scores.items())
        print(f"{title}mean over {n_cases} cases: {shown}")
    if len(means) > 1:
        frame = pd.DataFrame(list(means.values()))
        shown = "  ".join(score_text(str(name), frame[name].mean(), frame[name].std(ddof=1)) for name in frame)
        print(f"mean ± SD over {len(means)} seeds: {shown}")


def set_up_logging() -> None:
    """Sends log messages to standard error; of verbose libraries only errors."""
    handler = RichHandler(console=err, show_time=False, show_path=False, show_level=False, markup=False)
    handler.setFormatter(_PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for library in ("timm", "matplotlib", "PIL", "urllib3", "httpx", "huggingface_hub", "hydra"):
        logging.getLogger(library).setLevel(logging.ERROR)


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """The message, with control characters escaped."""
        return printable_lines(super().format(record))


def notify(text: str) -> None:
    """Prints a message on standard error."""
    err.print(printable_lines(text), markup=False)
    sys.stderr.flush()
