"""The typed and checked form of a configuration. Uses the standard library only."""

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
