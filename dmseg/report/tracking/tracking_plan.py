"""Which trackers the runs of a command use, decided once before the first run, and what each tracker already has."""

import hashlib
import importlib.util
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dmseg.config.settings import TrackerSettings
from dmseg.errors import UserError
from dmseg.files.atomic import write_whole
from dmseg.files.regular import read_regular
from dmseg.report.tracking.journal import Journal, journal_path
from dmseg.report.tracking.mlflow_tracker import MlflowTracker
from dmseg.report.tracking.mlflow_tracker import destination as mlflow_destination
from dmseg.report.tracking.observer import TrackingObserver
from dmseg.report.tracking.run_report import run_metadata, run_report
from dmseg.report.tracking.tracker import RunMetadata, SafeTracker
from dmseg.report.tracking.wandb_files import Agent, WandbFile, current_agent, files_of
from dmseg.report.tracking.wandb_online import WandbOnline, give_up
from dmseg.report.tracking.wandb_sender import connection_fault, server
from dmseg.runs.plan import PlannedRun
from dmseg.runs.seal import DONE
from dmseg.runs.store import RunStore

log = logging.getLogger(__name__)

PACKAGES = {"offline": "wandb", "online": "wandb", "mlflow": "mlflow"}
INSTALL = {"wandb": "pip install wandb", "mlflow": "pip install 'dmseg[mlflow]'"}


@dataclass(frozen=True)
class Tracking:
    """The trackers of a command's runs; picklable, as runs may be trained in other processes.

    Attributes:
        offline: whether runs with ``online`` are only recorded on this machine.
        teachers: ids of the runs that are trained to teach others.
        tables: names of the tables that each run is trained for, by run id.
        agent: the run of a sweep agent of wandb, if one has started this process.
        agents_run: id of the run that takes the agent's id; None if there is none, or several that could.
    """

    offline: bool = False
    teachers: frozenset[str] = frozenset()
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    agent: Agent | None = None
    agents_run: str | None = None

    def observer(self, run: PlannedRun) -> TrackingObserver | None:
        """The observer that follows a run for its trackers; None if it has none."""
        names = self.trackers(run)
        if not names and not run.settings.evaluate.every:
            return None
        store, settings = RunStore(run.results), run.settings.wandb
        return TrackingObserver(
            run,
            self.metadata(run),
            [self.make(name, run.results, settings, run.run_id) for name in names if name != "jsonl"],
            partial(run_report, store, run.run_id, run.evaluation_id, may_show(run)),
            partial(self.note, run),
        )

    def note(self, run: PlannedRun, tracker: str) -> None:
        """Records that a tracker has a finished run completely."""
        settings = run.settings.wandb
        digest = run_digest(RunStore(run.results), run.run_id, settings)
        remember(run.results, destination(tracker, settings, run.results), run.run_id, digest)

    def wandb_id(self, record_id: str) -> str:
        """The id of a record in wandb: its own, or the one that a sweep agent has chosen for it."""
        return self.agent.run_id if self.agent and record_id == self.agents_run else record_id

    def trackers(self, run: PlannedRun) -> list[str]:
        """Names of a run's trackers."""
        return self.usable(run.settings.tracker)

    def usable(self, names: Iterable[str]) -> list[str]:
        """The trackers to use for a setting; ``offline`` for ``online`` if nothing can be sent."""
        return ["offline" if name == "online" and self.offline else name for name in names if name != "disabled"]

    def metadata(self, run: PlannedRun) -> RunMetadata:
        """Metadata of a run."""
        return run_metadata(
            run.run_id,
            run.experiment_id,
            asdict(run.settings),
            phantom=run.settings.data.phantom is not None,
            job_type="teacher" if run.run_id in self.teachers else "train",
            tables=self.tables.get(run.run_id, ()),
            tags=run.settings.wandb.tags,
            notes=run.settings.wandb.notes,
        )

    def make(self, name: str, results: Path, settings: TrackerSettings, record_id: str = "") -> SafeTracker:
        """Creates a tracker for the record with this id."""
        agent = self.agent if record_id and record_id == self.agents_run else None
        file = WandbFile(results, settings.project, settings.entity, agent)
        makers: dict[str, Callable[[], SafeTracker]] = {
            "jsonl": lambda: SafeTracker(name, Journal(results)),
            "offline": lambda: SafeTracker(name, file),
            "online": lambda: SafeTracker(name, WandbOnline(file)),
            "mlflow": lambda: SafeTracker(name, MlflowTracker(results, settings.project)),
        }
        return makers[name]()


def may_show(run: PlannedRun) -> bool:
    """Whether trackers may receive images of a run's cases: phantoms always, real data with ``wandb.images=true``."""
    return run.settings.data.phantom is not None or run.settings.wandb.images


def plan_tracking(
    runs: Sequence[PlannedRun], tables: Mapping[str, tuple[str, ...]] | None = None, connect: bool = True
) -> Tracking:
    """Checks the trackers of some runs before they start: packages, network and login, images.

    Args:
        runs: the runs, including teachers.
        tables: names of the tables that each run is trained for, by run id.
        connect: whether anything is going to be sent, if the trackers are online.

    Raises:
        UserError: if the package of a tracker is not installed.
    """
    names = {name for run in runs for name in run.settings.tracker} - {"disabled"}
    check_packages(names)
    agent = current_agent()
    teachers = frozenset(run.teacher.run_id for run in runs if run.teacher is not None)
    others = [run.run_id for run in runs if run.run_id not in teachers]
    offline = False
    if connect and ("online" in names or not runs):
        offline = WandbOnline.gave_up
        if not offline and (fault := connection_fault()):
            give_up(fault)
            offline = True
    if connect and names - {"jsonl"} and any(run.settings.evaluate.pack and not may_show(run) for run in runs):
        data = ", ".join(dict.fromkeys(run.settings.data.name for run in runs if not may_show(run)))
        log.info("trackers get no images of %s; wandb.images=true adds those of a few cases", data)
    return Tracking(offline, teachers, tables or {}, agent, others[0] if agent and len(others) == 1 else None)


def check_packages(trackers: Iterable[str]) -> None:
    """Checks that the packages of trackers are installed.

    Raises:
        UserError: if one is not.
    """
    for name in sorted(trackers):
        package = PACKAGES.get(name)
        if package is not None and importlib.util.find_spec(package) is None:
            raise UserError(f"tracker={name} needs {package}, which is not installed; {INSTALL[package]}")


def destination(tracker: str, settings: TrackerSettings, results: Path) -> str:
    """Name of a tracker's destination: the tracker, and a digest of server, user and project."""
    places: dict[str, list[Any]] = {
        "online": [server(), settings.entity, settings.project],
        "mlflow": [mlflow_destination(results), settings.project],
    }
    return f"{tracker}-{_digest(places[tracker])[:8]}" if tracker in places else tracker


def run_digest(store: RunStore, run_id: str, settings: TrackerSettings) -> str:
    """Digest of everything that is sent for a run."""
    folder = store.folder(run_id)
    seals = [place / DONE for place in (folder, *store.additions(run_id))]
    return _digest([[path.parent.name, path.read_text(encoding="utf-8")] for path in seals] + _shown(settings))


def files_digest(files: list[Path], settings: TrackerSettings) -> str:
    """Digest of some files of a table."""
    return _digest([[path.name, path.read_bytes().hex()] for path in files] + _shown(settings))


def is_remembered(results: Path, place: str, record_id: str, digest: str) -> bool:
    """Whether a destination has a record with this content; records on this machine must still exist."""
    if place == "offline" and not files_of(results, record_id):
        return False
    if place == "jsonl" and not journal_path(results, record_id).is_file():
        return False
    with suppress(OSError):
        return read_regular(_path(results, place, record_id), 1000) == digest.encode()
    return False


def remember(results: Path, place: str, record_id: str, digest: str) -> None:
    """Notes that a destination has a record with this content."""
    with suppress(OSError):  # then it is sent once more
        write_whole(_path(results, place, record_id), digest)


def _path(results: Path, place: str, record_id: str) -> Path:
    """The file that holds the digest of what a destination has, so that a run which was scored again is sent again."""
    return results / "tracking" / "sent" / place / record_id


def _shown(settings: TrackerSettings) -> list[Any]:
    return [settings.images, list(settings.tags), settings.notes]


def _digest(node: Any) -> str:  # noqa: ANN401
    return hashlib.sha256(json.dumps(node, sort_keys=True).encode()).hexdigest()
