"""Weights & Biases: one file per run, in wandb's own format, written locally.

A run is always recorded by wandb's offline mode, which never waits for a network; `wandb_sender` sends the file. If a
run is resumed, scored again or sent later, its file is rewritten from the start and replaces the earlier one.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dmseg.errors import UserError
from dmseg.files.atomic import discard, writing
from dmseg.report.tracking.tracker import Report, RunMetadata
from dmseg.report.tracking.wandb_sender import CLOSED

KEPT_VARIABLES = re.compile(
    r"WANDB_(BASE_URL|API_KEY|ENTITY|IDENTITY_TOKEN_FILE|CREDENTIALS_FILE|(CACHE|CONFIG|DATA|ARTIFACT)_DIR"
    r"|X_.*|.*PROXY|INSECURE.*|CORE_.*|DEBUG|ERROR_REPORTING)|(?!WANDB_).*"
)
"""Environment variables that wandb may read; all others could rename, merge or switch off runs."""


@dataclass(frozen=True)
class Agent:
    """The run that a sweep agent of wandb has created for this process.

    Attributes:
        run_id: its id in wandb.
        sweep_id: id of the sweep.
        project: project of the sweep, or None.
        entity: user or team of the sweep, or None.
        parameters: values that the agent chose.
    """

    run_id: str
    sweep_id: str
    project: str | None = None
    entity: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


def current_agent(environment: Mapping[str, str] = os.environ) -> Agent | None:
    """The agent that has started this process, if any."""
    sweep, run_id = environment.get("WANDB_SWEEP_ID"), environment.get("WANDB_RUN_ID")
    if not sweep or not run_id:
        return None
    import yaml

    parameters = {}
    with suppress(OSError, ValueError, AttributeError, yaml.YAMLError):
        path = Path(environment.get("WANDB_SWEEP_PARAM_PATH") or os.devnull)
        node = yaml.safe_load(path.read_text(encoding="utf-8"))  # name: {value: ...}
        parameters = {
            str(key): item["value"] for key, item in node.items() if isinstance(item, dict) and "value" in item
        }
    place = environment.get("WANDB_PROJECT") or None, environment.get("WANDB_ENTITY") or None
    return Agent(run_id, sweep, *place, parameters)


@contextmanager
def own_environment() -> Iterator[None]:
    """Hides wandb's variables that could change what a run is, such as ``WANDB_RUN_ID`` and ``WANDB_RESUME``."""
    hidden = {name: value for name, value in os.environ.items() if not KEPT_VARIABLES.fullmatch(name)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


class WandbFile:
    """Records runs in wandb's files, below ``<results>/wandb``.

    Args:
        results: the results folder.
        project: project in wandb.
        entity: user or team in wandb, None for the default.
        agent: if given, the record takes the id of this run of a sweep.
    """

    def __init__(self, results: Path, project: str, entity: str | None, agent: Agent | None = None) -> None:
        self._results, self._project, self._entity, self._agent = results, project, entity, agent
        self._run: Any = None
        self._step = 0
        self.delivered = True
        self.folder: Path | None = None
        """Folder of the current file, or of the last one."""

    def begin(self, metadata: RunMetadata) -> None:
        """Opens a file; an earlier one of the same run is removed.

        Raises:
            UserError: if wandb is not installed.
        """
        wandb = import_wandb()
        settings: dict[str, Any] = {"silent": True, "console": "off", "disable_git": True, "x_save_requirements": False}
        project, entity, run_id, config = self._project, self._entity, metadata.id, dict(metadata.config)
        if self._agent is not None:
            run_id, settings["sweep_id"] = self._agent.run_id, self._agent.sweep_id
            project, entity = self._agent.project or project, self._agent.entity or entity
            config = {**self._agent.parameters, **config}
        with writing(self._results), own_environment():
            for earlier in files_of(self._results, run_id):
                discard(earlier)
            self._results.mkdir(parents=True, exist_ok=True)
            self._run = wandb.init(
                project=project,
                entity=entity,
                id=run_id,
                name=metadata.name,
                group=metadata.group,
                job_type=metadata.job_type,
                tags=list(metadata.tags),
                notes=metadata.notes,
                config=config,
                dir=self._results,
                mode="offline",
                reinit="create_new",
                settings=wandb.Settings(**settings),
            )
        self.folder = Path(self._run.dir).parent
        self._step = 0
        self._run.define_metric("epoch", hidden=True)
        for names in ("train/*", "validation/*"):
            self._run.define_metric(names, step_metric="epoch")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the numbers of a step."""
        self._step = max(step, self._step)
        self._run.log(dict(values), step=step)

    def show(self, report: Report) -> None:
        """Adds summary, tables, curves, overlays and files."""
        wandb = import_wandb()
        shown: dict[str, Any] = {
            name: wandb.Table(columns=list(rows.columns), data=[list(row) for row in rows.rows], allow_mixed_types=True)
            for name, rows in report.tables.items()
        }
        for name, curves in report.curves.items():
            lines = curves.lines.values()
            xs, ys = [list(x) for x, _ in lines], [list(y) for _, y in lines]
            titles = {"title": curves.title, "xname": curves.x_title}
            shown[name] = wandb.plot.line_series(xs, ys, keys=list(curves.lines), **titles)
        if report.overlays:
            shown["predictions/layers"], shown["predictions/panels"] = [], []
            for item in report.overlays:
                masks = {
                    name: {"mask_data": layer.mask, "class_labels": {0: "none", **layer.classes}}
                    for name, layer in item.layers.items()
                }
                shown["predictions/layers"].append(wandb.Image(item.image, caption=item.caption, masks=masks))
                shown["predictions/panels"].append(wandb.Image(item.panel, caption=item.caption))
        if shown:
            self._run.log(shown, step=self._step)
        self._run.summary.update(dict(report.scores))
        if report.files:
            artifact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", report.files[0].stem), type="table")
            for path in report.files:
                artifact.add_file(str(path))
            self._run.log_artifact(artifact)

    def end(self, finished: bool) -> None:
        """Closes the file and waits until it is complete; other wandb runs that are open in this process end, too.

        Raises:
            UserError: if wandb could not write it.
        """
        if self._run is not None:
            self._run.finish(exit_code=0 if finished else 1)
            self._run = None
            try:
                import_wandb().teardown()  # finish() returns before wandb's own process has written the last records
            except SystemExit as error:
                raise UserError(f"wandb's own process ended with status {error.code}") from None
        if self.folder is not None:
            (self.folder / CLOSED).touch()


def files_of(results: Path, run_id: str) -> list[Path]:
    """Folders of the offline files of a run."""
    return sorted(path for path in results.glob("wandb/offline-run-*") if path.name.split("-", 3)[3:] == [run_id])


def import_wandb() -> Any:  # noqa: ANN401
    """The package wandb.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import wandb
    except ImportError:
        raise UserError(
            "tracker=offline and tracker=online need wandb, which is not installed; pip install wandb"
        ) from None
    return wandb
