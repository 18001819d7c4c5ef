"""Weights & Biases as an observer: one wandb run for each run, grouped by experiment."""

from pathlib import Path
from typing import Any

from dmseg.config.settings import TrackerSettings
from dmseg.errors import UserError
from dmseg.files.atomic import writing
from dmseg.training.observers import EpochReport, RunInfo


class WandbTracker:
    """Logs configuration, losses and summary of one run.

    Args:
        mode: ``offline`` or ``online``.
        settings: project and entity.
        folder: wandb writes its files to ``wandb`` in this folder.
    """

    def __init__(self, mode: str, settings: TrackerSettings, folder: Path) -> None:
        self._mode = mode
        self._settings = settings
        self._folder = folder
        self._run: Any = None

    def started(self, info: RunInfo) -> None:
        """Opens the wandb run.

        Raises:
            UserError: if wandb is not installed, or cannot start a run.
        """
        try:
            import wandb
        except ImportError:
            raise UserError(f"tracker={self._mode} needs wandb, which is not installed; pip install wandb") from None
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                project=self._settings.project,
                entity=self._settings.entity,
                group=info.experiment_id,
                name=info.title,
                config={"run_id": info.run_id, **info.config},
                dir=self._folder,
                mode=self._mode,  # type: ignore[arg-type]
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off"),
            )
        except (wandb.errors.Error, OSError) as error:
            raise UserError(f"tracker={self._mode}: wandb cannot start a run ({error}); try tracker=offline") from None

    def stepped(self, step: int) -> None:
        """Does nothing: losses are logged once per epoch, so that the device need not be synchronised."""

    def epoch_ended(self, report: EpochReport) -> None:
        """Logs the epoch's mean losses and learning rate."""
        losses = {f"train/{name}": value for name, value in report.losses.items()}
        self._run.log({"epoch": report.epoch, "lr": report.lr, **losses}, step=report.step)

    def evaluated(self, summary: dict[str, float]) -> None:
        """Logs the means over the validation cases."""
        self._run.summary.update({f"validation/{name}": value for name, value in summary.items()})

    def ended(self, error: BaseException | None) -> None:
        """Closes the wandb run; marks it as failed after an error."""
        if self._run is not None:
            self._run.finish(exit_code=0 if error is None else 1)
            self._run = None
