"""Checks each setting on its own: choices and ranges; `consistency` checks several together."""

import re
from collections.abc import Mapping
from typing import Any

from dmseg.config.allowed import CHOICES, TRACKERS
from dmseg.config.consistency import check_together
from dmseg.errors import UserError, check_choice, shown
from dmseg.limits import MAX_LEVELS
from dmseg.metrics.named import check_metrics

DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?", re.ASCII)
RANGES: dict[str, tuple[float, float]] = {
    "fold": (0, 1_000_000),
    "seed": (0, 2**63 - 1),
    "folds.seed": (0, 2**63 - 1),
    "data.size": (8, 4096),
    "train.epochs": (1, 1_000_000),
    "train.min_steps": (0, 1_000_000_000),
    "train.batch_size": (2, 4096),
    "train.flip": (0, 1),
    "train.crop": (0.05, 1),
    "evaluate.crop": (0.05, 1),
    "evaluate.bins": (1, MAX_LEVELS),
    "evaluate.batch_size": (1, 4096),
    "evaluate.every": (0, 1_000_000),
    "evaluate.boundary": (1, 100),
    "evaluate.tolerance": (0, 1000),
    "agreement.disjoint": (0, 1),
    "distill.label_weight": (0, 100),
    "distill.teacher_weight": (0, 100),
    "distill.temperature": (0.01, 100),
    "distill.kde.bandwidth": (0, 10),
    "distill.kde.n_key": (1, 1_000_000),
    "distill.kde.boundary": (1, 4095),
    **{
        f"{where}{key}": bounds
        for where in ("", "distill.teacher.")
        for key, bounds in (
            ("labels.smoothing.epsilon", (0, 1)),
            ("labels.smoothing.kernel", (1, 4095)),
            ("labels.options.disjoint_weight", (0, 1)),
            ("model.head_kernel", (1, 31)),
            ("model.head_dropout", (0, 0.99)),
            ("model.auxiliary.weight", (0, 0.99)),
            ("model.auxiliary.channels", (1, 65_536)),
        )
    },
    "optim.lr": (0, 100),
    "optim.decoder_lr_factor": (0, 10_000),
    "optim.momentum": (0, 1),
    "optim.weight_decay": (0, 10),
    "optim.poly_power": (0, 100),
    "optim.warmup": (0, 0.99),
    "checkpoint.minutes": (0, 1e6),
    "checkpoint.steps": (1, 1_000_000_000),
    "workers": (1, 256),
    "launcher.workers": (1, 256),
    "launcher.job.runs": (1, 10_000),
    "launcher.job.minutes": (5, 1_000_000),
    "launcher.job.requeues": (0, 1_000_000),
    "launcher.job.parallel": (1, 10_000),
    "launcher.job.cpus": (1, 1024),
    "launcher.job.gpus": (0, 1024),
    "launcher.job.memory_gb": (0.1, 1_000_000),
    "threads": (1, 1024),
}


def check_values(node: Mapping[str, Any]) -> None:
    """Checks each value of typed settings on its own, and then that they fit each other.

    Args:
        node: plain settings (`dataclasses.asdict`).

    Raises:
        UserError: if a value is out of range or not one of its choices, or settings do not fit each other.
    """
    for key, choices in CHOICES.items():
        value = _lookup(node, key)
        if value is not None:
            check_choice(key, value, choices)
    for key, (low, high) in RANGES.items():
        value = _lookup(node, key)
        if value is not None and (not isinstance(value, int | float) or not low <= value <= high):
            raise UserError(f"{key.replace('.options', '')} is {shown(value)}, but must lie between {low} and {high}")
    if not node["optim"]["lr"]:
        raise UserError("optim.lr is 0, which trains nothing; give a learning rate above 0")
    if not DEVICE.fullmatch(node["device"]):
        raise UserError(f"device is {shown(node['device'])}, but may be auto, cpu, cuda or cuda:N")
    trackers = node["tracker"]
    if not trackers:
        raise UserError("tracker is empty; tracker=disabled turns tracking off")
    for name in trackers:
        if name not in TRACKERS:
            raise UserError(f"tracker is {shown(name)}, but may be {', '.join(TRACKERS)}, or a list of them")
    for first, second in (("disabled", "any other"), ("offline", "online")):
        if first in trackers and len(trackers) > 1 and (second in trackers or first == "disabled"):
            raise UserError(f"tracker is {shown(trackers)}, but {first} excludes {second}; leave one out")
    if len(set(trackers)) < len(trackers):
        raise UserError(f"tracker is {shown(trackers)}, but names one twice")
    for name, folder in node["paths"].items():
        if not folder:
            raise UserError(f"paths.{name} is empty; name a folder, or leave it out")
    scale = node["train"]["scale"]
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise UserError(f"train.scale is {shown(scale)}, but must be [smallest, largest], both above 0")
    check_metrics(node["evaluate"]["metrics"])
    spacing = node["evaluate"]["spacing"]
    if spacing is not None and not (len(spacing) in (2, 3) and all(0 < size < 1000 for size in spacing)):
        said = "[row, column] or [row, column, slice] in mm, each above 0 and below 1000"
        raise UserError(f"evaluate.spacing is {shown(spacing)}, but must be null or {said}")
    check_together(node)


def _lookup(node: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401
    """The value of a dotted key; None if one of its groups is None."""
    group, _, rest = key.partition(".")
    value = node.get(group)
    return _lookup(value, rest) if rest and value is not None else value
