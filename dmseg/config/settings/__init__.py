"""The typed and checked form of a configuration.

Uses the standard library only.
"""

from dataclasses import dataclass, field
from typing import Any

from dmseg.config.settings.study import DataSettings as DataSettings
from dmseg.config.settings.study import DistillSettings as DistillSettings
from dmseg.config.settings.study import KdeSettings as KdeSettings
from dmseg.config.settings.study import LabelSettings as LabelSettings
from dmseg.config.settings.study import LossSettings as LossSettings
from dmseg.config.settings.study import LossTerm as LossTerm
from dmseg.config.settings.study import MethodSettings as MethodSettings
from dmseg.config.settings.study import ModelSettings as ModelSettings
from dmseg.config.settings.study import SmoothingSettings as SmoothingSettings
from dmseg.config.settings.study import TeacherSettings as TeacherSettings


@dataclass(frozen=True)
class OptimSettings:
    """Stochastic gradient descent with a poly schedule.

    Attributes:
        lr: initial learning rate of the encoder.
        decoder_lr_factor: factor on `lr` for everything but the encoder.
        momentum: momentum.
        weight_decay: L2 penalty.
        decay_norm_and_bias: whether weight decay also applies to one-dimensional parameters (normalisation, bias).
        poly_power: exponent of the poly schedule.
        warmup: fraction of the iterations with a linear warm-up, in [0, 1).
    """

    lr: float
    decoder_lr_factor: float
    momentum: float
    weight_decay: float
    decay_norm_and_bias: bool
    poly_power: float
    warmup: float


@dataclass(frozen=True)
class TrainSettings:
    """Length of training, batches and augmentation.

    Attributes:
        epochs: passes over the training cases.
        min_steps: minimum number of optimiser steps; epochs are added if there would be fewer.
        batch_size: slices in a batch; the last incomplete batch of an epoch is dropped.
        scale: smallest and largest isotropic scale of the augmentation.
        flip: probability of a left-right flip.
        crop: edge length of the random crop as a fraction of the slice's; 1 takes crops of the size of the slice. Below
            1, it is rounded down to a multiple of 16 pixels (`dmseg.limits.crop_edge`).
    """

    epochs: int
    min_steps: int
    batch_size: int
    scale: list[float]
    flip: float
    crop: float = 1.0


@dataclass(frozen=True)
class FoldSettings:
    """How cases are split.

    Attributes:
        kind: ``contiguous`` blocks of the sorted ids, or ``shuffled``.
        count: number of folds; None for 5, or for the number of folds in `file`.
        seed: seed of the shuffled kind; None for contiguous.
        file: JSON file with the training and validation cases of each fold, like nnU-Net's ``splits_final.json``;
            `kind` and `seed` then have no effect.
        groups: CSV file with the columns ``case`` and ``group``; the cases of a group stay in one fold.
    """

    kind: str
    count: int | None
    seed: int | None = None
    file: str | None = None
    groups: str | None = None


@dataclass(frozen=True)
class EvaluateSettings:
    """How a trained network is scored.

    Attributes:
        reference: dotted name (`_target_`) and options of the fusion that is the reference of BDice.
        empty: score of two empty masks: ``skip``, ``one`` or ``zero``.
        bins: number of confidence bins of the ECE.
        batch_size: slices in a batch.
        save_predictions: whether to save foreground probabilities.
        crop: edge length of the centre crop to score, as a fraction of the slice's; pixels outside it are ignored.
            Below 1, it is rounded down to a multiple of 16 pixels (`dmseg.limits.crop_edge`).
        ged: whether to compute the generalised energy distance between the samples of the prediction and the raters.
        ties: what a tie counts as in the majority vote of the raters: ``background`` or ``foreground``.
        boundary: pixels on each side of a contour that belong to the boundary band of `ece_boundary`.
        metrics: additional metrics (`dmseg.metrics.named`).
        tolerance: tolerance of NSD in mm.
        spacing: distance in mm between rows, columns and (for volumes) slices as prepared, in place of the spacing in
            the files; None for that of the files.
        pack: whether to save pictures of a few cases.
        add_packs: whether to score runs that were stored without pictures again, to add them.
        every: epochs between two validations during training, which only trackers use; 0 for none, None for ten
            validations if there is a tracker.
    """

    reference: dict[str, Any]
    empty: str
    bins: int
    batch_size: int
    save_predictions: bool
    crop: float = 1.0
    ged: bool = False
    ties: str = "background"
    boundary: int = 2
    metrics: list[str] = field(default_factory=list)
    tolerance: float = 2.0
    spacing: list[float] | None = None
    pack: bool = True
    add_packs: bool = False
    every: int | None = None


@dataclass(frozen=True)
class AgreementSettings:
    """How raters are compared with the majority in Table 1.

    Attributes:
        disjoint: Dice of a rater without any overlap with the majority, 0 or 1.
    """

    disjoint: float


@dataclass(frozen=True)
class CheckpointSettings:
    """How often the state of a run is saved during training, so that an interrupted run can resume.

    Attributes:
        minutes: minutes between two checkpoints; None for no limit.
        steps: steps between two checkpoints; None for no limit.
    """

    minutes: float | None
    steps: int | None


@dataclass(frozen=True)
class JobSettings:
    """Jobs of a cluster.

    Attributes:
        runs: runs of one job, one after another.
        minutes: time limit of a job.
        requeues: how often a job that reaches its time limit is queued again; it resumes from its last checkpoint.
        parallel: jobs of one array that run at the same time.
        cpus: cores of a job.
        gpus: GPUs of a job.
        memory_gb: memory of a job, None for the cluster's default.
        partition: partition, None for the default.
        account: account, None for the default.
        qos: quality of service, None for the default.
        setup: shell commands before each job.
        parameters: further parameters of sbatch.
    """

    runs: int
    minutes: int
    requeues: int
    parallel: int
    cpus: int
    gpus: int
    memory_gb: float | None
    partition: str | None
    account: str | None
    qos: str | None
    setup: list[str]
    parameters: dict[str, Any]


@dataclass(frozen=True)
class LauncherSettings:
    """Where runs are trained; nothing here changes results.

    Attributes:
        kind: ``inline`` (this process), ``local`` (worker processes), ``slurm``, or ``auto``: inline for one worker,
            local for more.
        workers: worker processes of ``local``.
        job: jobs of ``slurm``.
    """

    kind: str
    workers: int = 1
    job: JobSettings | None = None


@dataclass(frozen=True)
class PathSettings:
    """Folders.

    Attributes:
        data: default folder of raw data and phantoms.
        prepared: folder of prepared stores.
        results: folder of runs and tables.
    """

    data: str
    prepared: str
    results: str


@dataclass(frozen=True)
class TrackerSettings:
    """Settings of trackers.

    Attributes:
        project: name of the wandb project and of the MLflow experiment.
        entity: user or team in wandb, None for the default.
        tags: additional tags of each run.
        notes: notes on each run, or None.
        images: whether trackers get images of real data; they always get those of phantoms.
    """

    project: str
    entity: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    images: bool = False


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

    @property
    def task_name(self) -> str | None:
        """The task without its data set: ``nodule`` for ``lidc/nodule``; None if it is not set."""
        return self.task and self.task.rpartition("/")[2]
