"""The fit loop: one network, one fold, stochastic gradient descent."""

import platform
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from dmseg.components import bind
from dmseg.data.batches import Batch, BatchSource
from dmseg.errors import UserError
from dmseg.losses import CompoundLoss, SoftCrossEntropyLoss
from dmseg.settings import LossSettings, OptimSettings
from dmseg.training.observers import EpochReport, Observers
from dmseg.training.schedule import build_optimizer, build_schedule

PRECISIONS = ("fp32", "bf16", "auto")


def resolve_device(name: str) -> torch.device:
    """``auto`` is the first CUDA device where there is one, else the CPU.

    Raises:
        UserError: if the device is unknown or absent.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise UserError(f"device '{name}' is unknown; it may be auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device '{name}' is not there: torch sees no CUDA; set device=cpu")
    return device


def resolve_precision(name: str, device: str) -> str:
    """``auto`` is bf16 where the hardware computes it natively, else fp32.

    Raises:
        UserError: if the precision is unknown.
    """
    if name not in PRECISIONS:
        raise UserError(f"precision is '{name}', but may be {', '.join(PRECISIONS)}")
    if name != "auto":
        return name
    if resolve_device(device).type == "cuda":
        return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp32"
    return "bf16" if _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if platform.system() == "Linux" and cpuinfo.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def build_loss(settings: LossSettings) -> CompoundLoss:
    """The weighted sum of soft cross-entropy and a region loss; terms of weight zero are left out.

    Raises:
        UserError: if an option does not fit the region loss, or both weights are zero.
    """
    options = dict(settings.region)
    target = options.pop("_target_")
    terms: dict[str, tuple[float, nn.Module]] = {}
    if settings.ce_weight:
        terms["ce"] = (settings.ce_weight, SoftCrossEntropyLoss(kl=settings.kl, check_values=False))
    if settings.region_weight:
        try:
            region = bind(target, options | {"check_values": False}, where="loss.region", n_positional=0)()
        except (TypeError, ValueError) as error:
            raise UserError(f"loss.region: {error}") from None
        terms["region"] = (settings.region_weight, region)
    if not terms:
        raise UserError("loss.ce_weight and loss.region_weight are both 0; give at least one a weight")
    return CompoundLoss(terms)


def fit(
    model: nn.Module,
    source: BatchSource,
    loss: CompoundLoss,
    settings: OptimSettings,
    precision: str,
    observers: Observers,
) -> None:
    """Trains a network in place.

    The forward pass runs in channels-last layout, under bf16 autocast if asked; the loss always in float32.

    Args:
        model: network on the device of the data, (B, C, H, W) to logits.
        source: batches of the training cases.
        loss: compound loss of logits, soft target and mask.
        settings: optimiser and schedule.
        precision: ``fp32`` or ``bf16``.
        observers: told of every step and epoch.

    Raises:
        UserError: if there are fewer slices than one batch, or the loss is not finite.
    """
    optimizer = build_optimizer(model, settings)
    schedule = build_schedule(optimizer, settings, source.steps_per_epoch * source.epochs)
    model.train()
    model.to(memory_format=torch.channels_last)
    for epoch in range(source.epochs):
        lr, losses = _epoch(model, source.epoch(), loss, optimizer, schedule, precision, observers)
        step = (epoch + 1) * source.steps_per_epoch
        report = EpochReport(epoch + 1, step, losses, lr)
        if not all(map(_is_finite, losses.values())):
            raise UserError(f"the loss is not finite after epoch {epoch + 1} ({asdict(report)}); lower optim.lr")
        observers.epoch_ended(report)


def _epoch(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: CompoundLoss,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    precision: str,
    observers: Observers,
) -> tuple[float, dict[str, float]]:
    """One pass; the device is waited for only once, at the end, when the mean losses are read."""
    history: list[Tensor] = []
    names: list[str] = []
    lr = 0.0
    for batch in batches:
        total, parts = _step(model, batch, loss, precision)
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        lr = float(schedule.get_last_lr()[0])
        schedule.step()
        names = ["loss", *parts]
        history.append(torch.stack([total.detach(), *parts.values()]))
        observers.stepped(len(history))
    return lr, dict(zip(names, torch.stack(history).mean(dim=0).tolist(), strict=True))


def _step(model: nn.Module, batch: Batch, loss: CompoundLoss, precision: str) -> tuple[Tensor, dict[str, Tensor]]:
    image = batch.image.contiguous(memory_format=torch.channels_last)
    with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        logits = model(image)
    return loss.forward_parts(logits.float(), batch.target, batch.mask)


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")
