"""Records stored runs and tables again, after they were scored again or written."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dmseg.config.settings import Settings
from dmseg.errors import UserError, first_line
from dmseg.report.tracking.stored import record_run, record_table, table_files, table_record
from dmseg.report.tracking.tracker import Report, RunMetadata
from dmseg.report.tracking.tracking_plan import (
    Tracking,
    check_packages,
    destination,
    files_digest,
    may_show,
    plan_tracking,
    remember,
)
from dmseg.report.tracking.wandb_files import current_agent, files_of
from dmseg.report.tracking.wandb_online import WandbOnline, give_up
from dmseg.report.tracking.wandb_sender import is_sent, wait_until_sent
from dmseg.runs.digests import identifier
from dmseg.runs.plan import PlannedRun
from dmseg.runs.store import RunStore
from dmseg.text import printable

log = logging.getLogger(__name__)


def update_runs(runs: Iterable[PlannedRun], tracking: Tracking) -> None:
    """Records finished runs again, with the evaluation that their settings name."""
    for run in runs:
        store, settings = RunStore(run.results), run.settings.wandb
        for name in tracking.trackers(run):
            tracker = tracking.make(name, run.results, settings, run.run_id)
            try:
                record_run(store, run.run_id, tracking.metadata(run), tracker, may_show(run), run.evaluation_id)
            except (UserError, OSError, ValueError) as error:
                log.warning("tracker=%s could not record run %s: %s", name, run.run_id, first_line(error))
                continue
            if tracker.delivered:
                tracking.note(run, name)


def finish_sending(runs: Iterable[PlannedRun], tracking: Tracking) -> None:
    """Waits for runs that are still being sent, as long as the server answers; logs once if some cannot be sent."""
    online = [run for run in runs if "online" in tracking.trackers(run)]
    if not online or WandbOnline.gave_up:
        return
    folders = {run.run_id: files_of(run.results, tracking.wandb_id(run.run_id)) for run in online}
    if fault := wait_until_sent([path for own in folders.values() for path in own]):
        give_up(fault)
    for run in online:
        if folders[run.run_id] and all(map(is_sent, folders[run.run_id])):
            tracking.note(run, "online")


def update_table(path: Path, settings: Settings) -> None:
    """Records a table, or the table of a sweep, that has just been written.

    Args:
        path: its CSV file.
        settings: name the trackers.
    """
    names = [name for name in settings.tracker if name != "disabled"]
    if not names:
        return
    check_packages(names)
    tracking, results = plan_tracking([], connect="online" in names), path.parent.parent
    try:
        metadata, report = table_record(path, settings.wandb)
    except (OSError, ValueError) as error:
        log.warning("trackers could not record %s: %s", printable(str(path)), first_line(error))
        return
    for name in tracking.usable(names):
        tracker = tracking.make(name, results, settings.wandb)
        record_table(metadata, report, tracker)
        if tracker.delivered:
            digest = files_digest(table_files(path), settings.wandb)
            remember(results, destination(name, settings.wandb, results), metadata.id, digest)


def update_agent(runs: Sequence[PlannedRun], scores: Mapping[str, float]) -> None:
    """Records the pooled scores of all folds under the id that a sweep agent of wandb has chosen, if one has.

    Args:
        runs: the folds of one configuration.
        scores: their pooled scores.
    """
    settings = runs[0].settings
    names = [name for name in settings.tracker if name in ("offline", "online")]
    if current_agent() is None or not names or len(runs) == 1:
        return
    tracking = plan_tracking([], connect="online" in names)
    first = tracking.metadata(runs[0])
    record_id = identifier({"experiment": runs[0].experiment_id, "seeds": sorted({run.settings.seed for run in runs})})
    config = {**first.config, "runs": [run.run_id for run in runs]}
    name = f"{first.name.partition(' · fold ')[0]} · {len(runs)} runs"
    metadata = RunMetadata(record_id, name, first.group, "sweep", first.tags, first.notes, config)
    tracking = Tracking(tracking.offline, agent=tracking.agent, agents_run=record_id)
    pooled = {f"validation/{name}": value for name, value in scores.items()}
    for name in tracking.usable(names):
        tracker = tracking.make(name, runs[0].results, settings.wandb, record_id)
        tracker.begin(metadata)
        tracker.log(0, {"epoch": 0, **pooled})
        tracker.show(Report(scores=pooled))
        tracker.end(finished=True)
