"""The typed form of one configuration: what `configs/` composes to, checked. Standard library only."""

from dataclasses import dataclass

from dmseg.config.settings.agreement_settings import AgreementSettings
from dmseg.config.settings.machine import (
    CheckpointSettings,
    JobSettings,
    LauncherSettings,
    PathSettings,
    TrackerSettings,
)
from dmseg.config.settings.study import (
    DataSettings,
    DistillSettings,
    EvaluateSettings,
    FoldSettings,
    KdeSettings,
    LabelSettings,
    LossSettings,
    LossTerm,
    MethodSettings,
    ModelSettings,
    OptimSettings,
    SmoothingSettings,
    TeacherSettings,
    TrainSettings,
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
    """One run, whole: everything that a training and its evaluation need to know."""

    task: str | None
    fold: int
    seed: int
    precision: str
    device: str
    threads: int | None
    workers: int
    profile: str
    protocol: str
    tracker: str
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
