"""MLflow: one MLflow run for each run, found again by its tag ``dmseg.id``."""

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dmseg.errors import UserError
from dmseg.report.tracking.tracker import Report, RunMetadata

ID = "dmseg.id"
"""Tag that holds the id of a run."""
NAME = re.compile(r"[^\w\-. /]")
"""Characters that MLflow does not accept in names."""
LONGEST = 6000
"""Maximum length of a parameter."""
QUICK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
"""Settings with which a failing server costs a second, not minutes."""


def destination(results: Path) -> str:
    """Where runs are recorded: ``MLFLOW_TRACKING_URI``, or a database in the results folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(results / 'tracking' / 'mlflow.db').absolute()}"


class MlflowTracker:
    """Records runs in MLflow.

    Args:
        results: the results folder.
        project: name of the experiment in MLflow.
    """

    def __init__(self, results: Path, project: str) -> None:
        self._results, self._project = results, project
        self._client: Any = None
        self._run_id = ""
        self._last = -1
        self.delivered = True

    def begin(self, metadata: RunMetadata) -> None:
        """Starts an MLflow run, or continues the one with the same id after its last step."""
        mlflow = import_mlflow()
        (self._results / "tracking").mkdir(parents=True, exist_ok=True)
        with _quick():
            self._client = client = mlflow.MlflowClient(destination(self._results))
            known = client.get_experiment_by_name(self._project)
            if known is not None:
                experiment = str(known.experiment_id)
            else:
                place = None
                if not os.environ.get("MLFLOW_TRACKING_URI"):
                    place = (self._results / "tracking" / "mlflow").absolute().as_uri()
                experiment = str(client.create_experiment(self._project, artifact_location=place))
            found = client.search_runs([experiment], f"tags.`{ID}` = '{metadata.id}'", max_results=1)
            tags = {
                ID: metadata.id,
                "group": metadata.group,
                "job_type": metadata.job_type,
                "tags": ", ".join(metadata.tags),
            }
            if metadata.notes:
                tags["mlflow.note.content"] = metadata.notes
            if found:
                self._run_id = found[0].info.run_id
                client.update_run(self._run_id, status="RUNNING", name=metadata.name)
                steps = client.get_metric_history(self._run_id, "epoch")
                self._last = max((metric.step for metric in steps), default=-1)
            else:
                self._run_id = client.create_run(experiment, run_name=metadata.name).info.run_id
                self._last = -1
            from mlflow.entities import Param, RunTag

            earlier = {} if not found else found[0].data.params
            params = {NAME.sub("_", key): str(value)[:LONGEST] for key, value in metadata.config.items()}
            new = [Param(key, value) for key, value in params.items() if key not in earlier]
            for start in range(0, len(new), 100):
                client.log_batch(self._run_id, params=new[start : start + 100])
            client.log_batch(self._run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the numbers of a step; steps that were recorded before an interruption are left out."""
        if step <= self._last and "epoch" in values:
            return
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        with _quick():
            metrics = [Metric(key, float(value), now, step) for key, value in values.items()]
            self._client.log_batch(self._run_id, metrics)

    def show(self, report: Report) -> None:
        """Adds scores, tables, curves, panels and files."""
        client, run_id = self._client, self._run_id
        with _quick():
            for name, value in report.scores.items():
                client.log_metric(run_id, f"final/{name.rpartition('/')[2]}", float(value))
            for name, rows in report.tables.items():
                client.log_dict(
                    run_id, {"columns": list(rows.columns), "data": [list(row) for row in rows.rows]}, f"{name}.json"
                )
            for name, curves in report.curves.items():
                lines = {title: {"x": list(x), "y": list(y)} for title, (x, y) in curves.lines.items()}
                node = {"title": curves.title, "x_title": curves.x_title, "lines": lines}
                client.log_dict(run_id, node, f"{name}.json")
            for overlay in report.overlays:
                client.log_image(run_id, overlay.panel, f"predictions/{NAME.sub('_', overlay.case)}.png")
            for path in report.files:
                client.log_artifact(run_id, str(path))

    def end(self, finished: bool) -> None:
        """Closes the MLflow run."""
        if self._client is not None and self._run_id:
            with _quick():
                self._client.set_terminated(self._run_id, "FINISHED" if finished else "FAILED")
        self._client, self._run_id = None, ""


@contextmanager
def _quick() -> Iterator[None]:
    """Short time limits for MLflow's server, and no log messages other than errors."""
    before = {name: os.environ.get(name) for name in QUICK}
    os.environ.update(QUICK)
    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def import_mlflow() -> Any:  # noqa: ANN401
    """The package MLflow.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import mlflow
    except ImportError:
        raise UserError("tracker=mlflow needs MLflow, which is not installed; pip install 'dmseg[mlflow]'") from None
    return mlflow
