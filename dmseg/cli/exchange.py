"""The commands ``export-results`` and ``import-results``."""

from collections.abc import Sequence
from pathlib import Path

from dmseg.cli.messages import notify, set_up_logging
from dmseg.cli.tables import plan_all, split_tables
from dmseg.cli.words import is_true, take_seeds, take_words
from dmseg.errors import UserError, cut, some
from dmseg.files.atomic import write_whole
from dmseg.files.names import expand_home
from dmseg.runs.plan import PlannedRun, evaluation_passes
from dmseg.runs.seal import DamagedError
from dmseg.runs.store import RunStore
from dmseg.runs.transfer import export_runs, import_runs, tidy_scores
from dmseg.tables.exported import plan_file, plan_to_text
from dmseg.text import counted

READ_ME = """\
# Exported results

- `results.csv`: one row for each run and validation case (fractions), from the first evaluation of each run
- `runs/<run id>/`: `config.json`, `manifest.json`, `history.csv`, `cases.csv` and checksums (`DONE`) of each run
- `plans/tableN.json`: which runs each cell of a table is computed from

To write a table without data or training: `dmseg table table=N from=THIS_FOLDER`. To import the runs into a
results folder: `dmseg import-results from=THIS_FOLDER paths.results=FOLDER`.
"""


def export_results(argv: Sequence[str]) -> int:
    """Exports the finished runs of some tables, or of a whole store."""
    from dmseg.tables.render import frame_to_csv

    set_up_logging()
    given, rest = take_words(argv, ("to", "weights", "images"))
    if not given.get("to"):
        raise UserError("name the folder to export to: to=FOLDER")
    folder = Path(expand_home(given["to"], "to"))
    weights, images = is_true(given, "weights"), is_true(given, "images")
    if any(word.startswith(("table=", "tables=")) for word in rest):
        seeds, rest = take_seeds(rest)
        plans = plan_all(*split_tables(rest), seeds=seeds)
        passes = evaluation_passes(run for plan in plans.values() for run in plan.runs)
        scored = [run for part in passes for run in part]
        runs = {run.run_id: run for run in scored}
        unfinished = {run.run_id for run in scored if not _is_scored(run)}
        if unfinished:
            notify(f"{len(unfinished)} of {len(runs)} runs are not finished or not fully scored, and are left out")
        if runs and len(unfinished) == len(runs):
            folders = sorted({str(run.results) for run in scored})
            raise UserError(f"no run is finished in {some(folders)}, so nothing is exported")
        done = [(RunStore(run.results), run_id) for run_id, run in runs.items() if run_id not in unfinished]
        copied = export_runs(done, folder, weights, images)
        for plan in plans.values():
            write_whole(plan_file(folder, plan.spec), plan_to_text(plan))
    else:
        chosen, rest = take_words(rest, ("paths.results",))
        if rest or not chosen:
            raise UserError(
                "name what to export: tables=2 with its overrides, or paths.results=FOLDER for all runs of a folder"
            )
        store = RunStore(Path(expand_home(chosen["paths.results"], "paths.results")))
        if not store.run_ids():
            raise UserError(f"{store.runs} has no finished runs")
        copied = export_runs([(store, run_id) for run_id in store.run_ids()], folder, weights, images)
    exported = RunStore(folder)
    write_whole(folder / "results.csv", frame_to_csv(tidy_scores(exported)))
    write_whole(folder / "README.md", READ_ME)
    print(f"{folder}: {counted(len(exported.run_ids()), 'run')}, {copied.new} of them new")
    copied.check()
    return 0


def _is_scored(run: PlannedRun) -> bool:
    """Whether a run has the evaluation that a table needs; its damage is reported by `export_runs`."""
    store = RunStore(run.results)
    try:
        return store.has_evaluation(run.run_id, run.evaluation_id)
    except DamagedError:
        return store.is_done(run.run_id)


def import_results(argv: Sequence[str]) -> int:
    """Imports the runs of an export into a store."""
    given, rest = take_words(argv, ("from", "paths.results"))
    if rest:
        raise UserError(
            f"import-results takes from=FOLDER and paths.results=FOLDER, nothing else; leave '{cut(rest[0])}' out"
        )
    for name, what in (("from", "the folder of the export"), ("paths.results", "the results folder to import into")):
        if not given.get(name):
            raise UserError(f"{name}=FOLDER is missing: name {what}")
    source, results = (Path(expand_home(given[name], name)) for name in ("from", "paths.results"))
    copied = import_runs(source, RunStore(results))
    others = f"{len(copied.refused)} were refused" if copied.refused else "the rest were already there"
    print(f"{results}: {copied.new} of {copied.total} runs are new, {others}")
    copied.check()
    return 0
