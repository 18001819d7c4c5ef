"""Settings that do not change results: folders, checkpoints, launchers and trackers."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CheckpointSettings:
    """How often the state of a training is saved, from which an interrupted one resumes.

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
