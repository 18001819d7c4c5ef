"""The typed and checked form of a configuration, and the allowed values of keys with fixed choices.

Uses the standard library only.
"""

from dataclasses import dataclass

from dmseg.config.settings.machine import (
    CheckpointSettings,
    JobSettings,
    LauncherSettings,
    PathSettings,
    TrackerSettings,
)
from dmseg.config.settings.procedure import (
    AgreementSettings,
    EvaluateSettings,
    FoldSettings,
    OptimSettings,
    TrainSettings,
)
from dmseg.config.settings.study import (
    DataSettings,
    DistillSettings,
    KdeSettings,
    LabelSettings,
    LossSettings,
    LossTerm,
    MethodSettings,
    ModelSettings,
    SmoothingSettings,
    TeacherSettings,
)

__all__ = [
    "AgreementSettings",
    "CheckpointSettings",
    "DataSettings",
    "DistillSettings",
    "EvaluateSettings",
    "FoldSettings",
    "JobSettings",
    "KdeSettings",
    "LabelSettings",
    "LauncherSettings",
    "LossSettings",
    "LossTerm",
    "MethodSettings",
    "ModelSettings",
    "OptimSettings",
    "PathSettings",
    "Settings",
    "SmoothingSettings",
    "TeacherSettings",
    "TrackerSettings",
    "TrainSettings",
]


@dataclass(frozen=True)
class Settings:
    """All settings of one run: its training and its evaluation."""

    task: str | None
    fold: int
    seed: int
    precision: str
    device: str
    graph: str
    threads: int | None
    workers: int
    profile: str
    protocol: str
    tracker: list[str]
    data: DataSettings
    method: MethodSettings
    labels: LabelSettings
    model: ModelSettings
    loss: LossSettings
    optim: OptimSettings
    train: TrainSettings
    folds: FoldSettings
    evaluate: EvaluateSettings
    checkpoint: CheckpointSettings
    launcher: LauncherSettings
    agreement: AgreementSettings
    paths: PathSettings
    wandb: TrackerSettings
    distill: DistillSettings | None = None


CHOICES = {
    "precision": ("fp32", "tf32", "bf16", "auto"),
    "graph": ("auto", "never"),
    "evaluate.empty": ("skip", "one", "zero"),
    "evaluate.ties": ("background", "foreground"),
    "launcher.kind": ("auto", "inline", "local", "slurm"),
    "folds.kind": ("contiguous", "shuffled"),
    "labels.interpolation": ("nearest", "linear", "rater"),
    "labels.smoothing.kind": ("boundary", "uniform", "svls"),
    "distill.calibrate": ("inner", "train"),
    "model.decoder": ("library", "release"),
    "model.initialization": ("library", "kaiming"),
    "distill.teacher.model.decoder": ("library", "release"),
    "distill.teacher.model.initialization": ("library", "kaiming"),
    "distill.classes": ("all", "present", "foreground"),
    "distill.kde.keys": ("batch", "image"),
}
TRACKERS = ("disabled", "offline", "online", "jsonl", "mlflow")
"""Values of ``tracker``, which may also be a list of several."""
