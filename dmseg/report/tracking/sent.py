"""Remembers which runs and tables a tracker already has: ``<results>/tracking/sent/<destination>/<id>``.

Each file holds a digest of what was sent, so that a run that has been scored again since is sent again.
"""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from dmseg.config.settings import TrackerSettings
from dmseg.files.atomic import write_whole
from dmseg.files.regular import read_regular
from dmseg.report.tracking.journal import journal_path
from dmseg.report.tracking.mlflow_tracker import destination as mlflow_destination
from dmseg.report.tracking.wandb_files import files_of
from dmseg.report.tracking.wandb_sender import server
from dmseg.runs.seal import DONE
from dmseg.runs.store import RunStore


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
    """Whether a destination has a record with this content; records on this machine must still be there."""
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
    return results / "tracking" / "sent" / place / record_id


def _shown(settings: TrackerSettings) -> list[Any]:
    return [settings.images, list(settings.tags), settings.notes]


def _digest(node: Any) -> str:  # noqa: ANN401
    return hashlib.sha256(json.dumps(node, sort_keys=True).encode()).hexdigest()
