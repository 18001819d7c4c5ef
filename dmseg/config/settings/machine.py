"""Settings that change no number: where things lie, how a training is kept, where many are carried out."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CheckpointSettings:
    """How often the state of a training is kept, so that a killed one goes on from there.

    Attributes:
        minutes: at least so many minutes apart; None for never by time.
        steps: every so many steps; None for never by steps.
    """

    minutes: float | None
    steps: int | None


@dataclass(frozen=True)
class JobSettings:
    """Jobs of a cluster.

    Attributes:
        runs: runs of one job, one after another.
        minutes: time limit of a job.
        requeues: how many time limits a job may meet before it gives up; it goes on from its last checkpoint each time.
        parallel: jobs of one array that run side by side.
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
    """Where many runs are carried out; nothing here changes a number.

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
        data: where raw data and phantoms lie by default.
        prepared: where prepared stores are written.
        results: where runs and tables are written.
    """

    data: str
    prepared: str
    results: str


@dataclass(frozen=True)
class TrackerSettings:
    """What trackers record.

    Attributes:
        project: name of the project in wandb, and of the experiment in MLflow.
        entity: user or team in wandb, None for the default.
        tags: further tags of each run.
        notes: notes on each run, or None.
        images: whether trackers get images of real data; they always get those of phantoms.
    """

    project: str
    entity: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    images: bool = False
