"""The commands that prepare data and train: prepare, train, cv."""

from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from functools import partial

import pandas as pd

from dmseg.cli import output
from dmseg.cli.messages import complain, err, notify, set_up_logging
from dmseg.cli.words import take_seeds
from dmseg.config.compose import compose_settings
from dmseg.config.overrides import parse_override, unused_overrides
from dmseg.config.settings import Settings
from dmseg.errors import UserError, some
from dmseg.launch import Outcome, is_inline, launch
from dmseg.report.live_view import LiveView
from dmseg.report.run_observers import silent, verbose
from dmseg.report.tracking.tracking_plan import plan_tracking
from dmseg.report.tracking.update import finish_sending, update_agent, update_runs
from dmseg.runs.lease import RunLocked
from dmseg.runs.plan import PlannedRun, distinct, plan_folds, plan_run
from dmseg.runs.records import mean_scores
from dmseg.runs.run_scores import read_scores
from dmseg.runs.salvage import refuse_lost_weights
from dmseg.runs.sources import count_target_slices, prepare_task, prepare_tasks, say_without_slices
from dmseg.runs.status import is_complete, is_to_be_scored
from dmseg.runs.stopping import received
from dmseg.runs.store import RunStore
from dmseg.text import counted, printable, score_text, with_count


def prepare(argv: Sequence[str]) -> int:
    """Prepares one task, or all of a data set."""
    set_up_logging()
    settings = compose_settings(argv)
    if settings.data.labels_only:  # prints how many slices show the target, in total and in each fold
        data = settings.data
        total, folds = count_target_slices(data, settings.task, settings.folds, settings.workers)
        for title, part in ((data.name, total), *((f"fold {index}", fold) for index, fold in enumerate(folds))):
            slices, hit = sum(item.n_slices for item in part), sum(item.n_target for item in part)
            cases = sum(item.n_target > 0 for item in part)
            print(f"{title}: {hit} of {slices} slices contain the target, in {cases} of {len(part)} cases")
        return 0
    for prepared in prepare_tasks(settings, notify, complete=True):
        counts = f"{counted(len(prepared.cases), 'case')}, {counted(len(prepared.images), 'slice')}"
        title = f"{settings.data.name}/{prepared.task.name}"
        print(printable(f"{title}: {counts}, {prepared.folder}"))
        if prepared.without_slices:
            notify(
                f"{title}: {say_without_slices(prepared)}; they count in folds, but are neither trained on nor scored"
            )
    return 0


def train(argv: Sequence[str]) -> int:
    """Trains one run."""
    set_up_logging()
    settings = _compose(argv)
    run = plan_run(settings, prepare_task(settings, notify))
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
    settings = _compose(argv)
    data = prepare_task(settings, notify)
    runs = [run for seed in seeds or (settings.seed,) for run in plan_folds(replace(settings, seed=seed), data)]
    status = run_all(distinct(runs), settings)
    if status == 0:
        update_agent(runs, _print_scores(runs))
    return status


def _compose(argv: Sequence[str]) -> Settings:
    settings = compose_settings(argv)
    for line in unused_overrides(argv, settings.method):
        notify(line)
    return settings


def run_all(runs: Sequence[PlannedRun], settings: Settings, tables: Mapping[str, tuple[str, ...]] | None = None) -> int:
    """Trains and scores the runs that are not done, and reports those that fail.

    Args:
        runs: the runs, each once, including teachers.
        settings: choose the launcher.
        tables: names of the tables that each run is trained for, by run id, for trackers.

    Returns:
        The exit status.

    Raises:
        KeyboardInterrupt: if a signal asked to stop; its message states what is kept.
    """
    _set_damaged_aside(runs)
    missing = []
    for run in runs:
        if is_complete(run):
            RunStore(run.results).tidy(run.run_id)
        else:
            missing.append(run)
    if lost := refuse_lost_weights(runs, missing):
        notify(
            f"the weights of {counted(len(lost), 'run')} are missing; their scores are kept: "
            f"{some([run.run_id for run in lost])}"
        )
    several = len(runs) > 1
    if several:
        trained = sum(is_to_be_scored(run) for run in missing)
        only = f", {trained} of them only to score" if trained else ""
        notify(f"{counted(len(runs), 'run')}, {len(runs) - len(missing)} already done, {len(missing)} to run{only}")
    stored = {run.run_id for run in runs if RunStore(run.results).is_done(run.run_id)}
    tracking = plan_tracking(runs, tables, connect=bool(missing))
    alone = len(missing) == 1 and is_inline(settings.launcher, missing)  # a single run shows more detail
    observers = partial(verbose if alone and not output.is_quiet() else silent, tracking=tracking)
    view = nullcontext() if alone or output.is_quiet() else LiveView(err, missing).shown()
    outcomes: list[Outcome] = []
    with view as shown, closing(launch(missing, settings.launcher, observers)) as launched:
        for outcome in launched:
            outcomes.append(outcome)
            if outcome.kind != "stopped" or received() is None:
                _report_failure(outcome)
            if shown is not None:
                shown.ended(outcome)
        if received() is not None:
            raise KeyboardInterrupt(_what_is_kept(runs, missing, outcomes))
    done = {outcome.run.run_id for outcome in outcomes if outcome.kind == "done"}
    again = [run for run in runs if run.run_id in stored and run.run_id in done | {tracking.agents_run}]
    update_runs(again, tracking)
    finish_sending([run for run in runs if run.run_id in done | {tracking.agents_run}], tracking)
    left = len(missing) - sum(outcome.kind == "done" for outcome in outcomes)
    if left and several:
        complain(f"{left} of {len(missing)} runs are not done (finished runs are kept); run the same command to resume")
    return max((outcome.status for outcome in outcomes), default=0)


def _what_is_kept(runs: Sequence[PlannedRun], missing: Sequence[PlannedRun], outcomes: Sequence[Outcome]) -> str:
    """Describes what a stopped command has finished and kept."""
    done = len(runs) - len(missing) + sum(outcome.kind == "done" for outcome in outcomes)
    stopped = [outcome for outcome in outcomes if outcome.kind == "stopped"]
    if len(stopped) == 1:
        return f"{done} of {len(runs)} runs done, {stopped[0].run.title} {stopped[0].error}"
    states = f", {len(stopped)} with their state kept" if stopped else ""
    return f"{done} of {len(runs)} runs done{states}; run the same command to resume"


def _set_damaged_aside(runs: Sequence[PlannedRun]) -> None:
    """Moves damaged runs out of the way, except those that another process is working on."""
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
    complain(f"dmseg: {outcome.run.title} ({outcome.run.run_id}) {what}: {outcome.error}")
    if outcome.log is not None:
        is_message = outcome.tail.strip() == outcome.error.strip()
        complain(f"its log: {outcome.log}" if is_message else f"{outcome.tail}\nits log: {outcome.log}")


def _print_scores(runs: Sequence[PlannedRun]) -> dict[str, float]:
    """Prints the mean scores over the cases of all runs; of several seeds for each, and their mean. Returns them."""
    store = RunStore(runs[0].results)
    phantom = " (PHANTOM data)" if runs[0].settings.data.phantom is not None else ""
    for run in runs:
        print(printable(f"{run.run_id}  {run.title}{phantom}  {store.folder(run.run_id)}"))
    by_seed: dict[int, list[pd.DataFrame]] = {}
    for run in runs:
        by_seed.setdefault(run.settings.seed, []).append(read_scores(run))
    cases = {seed: pd.concat(frames) for seed, frames in by_seed.items()}
    means = {seed: mean_scores(of_seed) for seed, of_seed in cases.items()}
    for seed, of_seed in cases.items():
        title = f"seed {seed}, " if len(means) > 1 else ""
        scores = ((name, score_text(name, mean)) for name, mean in means[seed].items())
        shown = "  ".join(with_count(text, int(of_seed[name].count()), len(of_seed)) for name, text in scores)
        print(f"{title}mean over {counted(len(of_seed), 'case')}: {shown}")
    frame = pd.DataFrame(list(means.values()))
    if len(means) > 1:
        shown = "  ".join(score_text(str(name), frame[name].mean(), frame[name].std(ddof=1)) for name in frame)
        print(f"mean ± SD over {len(means)} seeds: {shown}")
    return {str(name): float(frame[name].mean()) for name in frame}
