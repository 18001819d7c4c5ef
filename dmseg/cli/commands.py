"""The commands: each takes the words after its name and returns an exit status."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.logging import RichHandler

from dmseg.cli.sweep import is_sweep, sweep
from dmseg.errors import UserError
from dmseg.experiments.compose import compose_settings
from dmseg.experiments.launch import Outcome, attempt, launch
from dmseg.experiments.plan import PlannedRun, plan_folds, plan_run, plan_table
from dmseg.experiments.sources import prepare_task, task_names
from dmseg.experiments.store import RunStore
from dmseg.report.observers import quiet, talkative
from dmseg.report.progress import ManyProgress
from dmseg.settings import Settings, TrainSettings
from dmseg.tables.build import TableData, agreement_cells, collect_cases, comparison_cells, write_cases
from dmseg.tables.render import write_table
from dmseg.tables.spec import TableSpec, read_spec

SCORES = ("dice", "bdice", "ece")

err = Console(stderr=True, highlight=False, soft_wrap=True)


def prepare(words: Sequence[str]) -> int:
    """Prepares one task, or all of a data set."""
    _set_up_logging()
    settings = compose_settings(words)
    for name in task_names(settings.data, settings.task):
        prepared = prepare_task(settings.data, settings.paths, name, _say)
        counts = f"{len(prepared.cases)} cases, {len(prepared.images)} slices"
        print(f"{settings.data.name}/{name}: {counts}, {prepared.folder}")
    return 0


def train(words: Sequence[str]) -> int:
    """Trains one run, or a sweep with ``-m``."""
    _set_up_logging()
    if is_sweep(words):
        return sweep(words)
    settings = compose_settings(words)
    run = plan_run(settings, prepare_task(settings.data, settings.paths, settings.task, _say))
    outcome = attempt(run, talkative)
    _report_failure(outcome)
    if outcome.error is None:
        _print_scores([run])
    return outcome.status


def cv(words: Sequence[str]) -> int:
    """Trains all folds of one configuration and prints their pooled scores."""
    _set_up_logging()
    settings = compose_settings(words)
    runs = plan_folds(settings, prepare_task(settings.data, settings.paths, settings.task, _say))
    status = _launch(runs, settings)
    if status == 0:
        _print_scores(runs)
    return status


def reproduce(words: Sequence[str]) -> int:
    """Runs what is missing of a table, then writes it; or draws a figure."""
    if any(word.startswith("figure=") for word in words):
        return _figure(words)
    return _table(words, run_missing=True)


def table(words: Sequence[str]) -> int:
    """Writes a table from what is there."""
    return _table(words, run_missing=False)


def _table(words: Sequence[str], run_missing: bool) -> int:
    _set_up_logging()
    number, overrides = _split_name(words, "table")
    spec = read_spec(number)
    if spec.kind == "agreement":
        return _agreement(spec, overrides)
    plan = plan_table(overrides, spec.overrides, _say)
    store = RunStore(Path(plan.settings.paths.results))
    status = _launch(plan.runs, plan.settings) if run_missing else 0
    cases = collect_cases(plan, store)
    cells = comparison_cells(plan, spec, cases)
    reference = plan.settings.evaluate.reference["_target_"].rpartition(".")[2]
    models = sorted({run.settings.model.name for run in plan.runs})
    notes = (
        f"BDice reference: {reference} fusion of the raters. Both masks empty: {plan.settings.evaluate.empty}. "
        f"Network: {', '.join(models)}. {_length(plan.settings.train)}.",
    )
    folder = Path(plan.settings.paths.results) / "tables"
    _write(_table_data(spec, cells, plan.settings), folder, notes)
    write_cases(cases, folder, spec.number)
    return status


def _figure(words: Sequence[str]) -> int:
    from dmseg.report.figures import write_figure

    name, overrides = _split_name(words, "figure")
    for path in write_figure(name, Path(compose_settings(overrides).paths.results) / "figures"):
        print(path)
    return 0


def _length(train: TrainSettings) -> str:
    least = f", at least {train.min_steps} steps" if train.min_steps else ""
    return f"Epochs: {train.epochs}{least}"


def _agreement(spec: TableSpec, overrides: Sequence[str]) -> int:
    settings = compose_settings(overrides)
    stores = [
        prepare_task(settings.data, settings.paths, name, _say) for name in task_names(settings.data, settings.task)
    ]
    _write(
        _table_data(spec, agreement_cells(stores, settings.agreement.disjoint), settings),
        Path(settings.paths.results) / "tables",
        (),
    )
    return 0


def _table_data(spec: TableSpec, cells: pd.DataFrame, settings: Settings) -> TableData:
    data = settings.data
    return TableData(spec, cells, data.name, data.phantom is not None, settings.profile, settings.protocol)


def _write(table_data: TableData, folder: Path, notes: tuple[str, ...]) -> None:
    files = write_table(table_data, folder, notes)
    print(files[0].read_text(encoding="utf-8"))
    _say(f"written: {', '.join(str(path) for path in files)}")


def _split_name(words: Sequence[str], kind: str) -> tuple[str, list[str]]:
    """Takes ``table=N`` or ``figure=NAME`` out of the overrides."""
    named = [word for word in words if word.startswith(f"{kind}=")]
    if len(named) != 1:
        raise UserError(f"name one {kind}: {kind}=1")
    return named[0].removeprefix(f"{kind}="), [word for word in words if word not in named]


def _launch(runs: Sequence[PlannedRun], settings: Settings) -> int:
    """Carries out what is missing of some runs; returns the exit status."""
    store = RunStore(Path(settings.paths.results))
    keep = settings.evaluate.save_predictions
    _set_damaged_aside(runs, store)
    missing = [run for run in runs if not store.is_complete(run.run_id, run.evaluation_id, keep)]
    _say(f"{len(runs)} runs, {len(runs) - len(missing)} done before, {len(missing)} to do")
    workers = min(settings.workers, len(missing))
    progress = ManyProgress(err, len(missing), bar=workers > 1)
    statuses = [0]
    with progress.shown():
        for outcome in launch(missing, workers, quiet if workers > 1 else talkative):
            _report_failure(outcome)
            statuses.append(outcome.status)
            progress.advance(outcome.run.title)
    failed = sum(status > 0 for status in statuses)
    if failed:
        _say(f"{failed} of {len(missing)} runs failed; what is finished is kept, call again to go on")
    return max(statuses)


def _set_damaged_aside(runs: Sequence[PlannedRun], store: RunStore) -> None:
    for run in runs:
        if store.is_done(run.run_id) and (damage := store.damage(run.run_id)):
            _say("\n".join([*damage, f"{run.title} ({run.run_id}) is set aside in {store.set_aside(run.run_id)}"]))


def _report_failure(outcome: Outcome) -> None:
    if outcome.error is None:
        return
    what = "stopped" if outcome.kind == "stopped" else "failed"
    err.print(f"dmseg: {outcome.run.title} ({outcome.run.run_id}) {what}: {outcome.error}", markup=False)
    if outcome.log is not None:
        err.print(f"{outcome.tail}\nits log: {outcome.log}", markup=False)


def _print_scores(runs: Sequence[PlannedRun]) -> None:
    """Prints the means over the cases of some runs, pooled."""
    store = RunStore(Path(runs[0].settings.paths.results))
    cases = pd.concat([store.read_cases(run.run_id, run.evaluation_id) for run in runs])
    phantom = " (PHANTOM data)" if runs[0].settings.data.phantom is not None else ""
    for run in runs:
        print(f"{run.run_id}  {run.title}{phantom}  {store.folder(run.run_id)}")
    shown = "  ".join(f"{name} {100 * cases[name].mean():.2f} %" for name in SCORES)
    print(f"mean over {len(cases)} cases: {shown}")


def _set_up_logging() -> None:
    handler = RichHandler(console=err, show_time=False, show_path=False, show_level=False, markup=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    for noisy in ("timm", "matplotlib", "PIL", "urllib3", "httpx", "huggingface_hub", "hydra"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def _say(text: str) -> None:
    err.print(text, markup=False)
    sys.stderr.flush()
