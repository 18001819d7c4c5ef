"""Optimisers and learning-rate schedule."""

from collections.abc import Mapping

from torch import nn, optim

from dmseg.config.settings import OptimSettings
from dmseg.models.build import split_parameters


def poly_factor(iteration: int, total: int, power: float, warmup: float = 0.0) -> float:
    """Factor on the initial learning rate: (1 - t / T) ** power after a linear warm-up.

    Args:
        iteration: number of steps taken so far, 0 to total - 1.
        total: total number of steps.
        power: exponent (paper, section 3.2: 0.9).
        warmup: share of all steps in which the factor rises linearly from 1e-4 to 1 (JDTLosses: 0.01; the paper: none).
    """
    n_warmup = int(warmup * total)
    if iteration < n_warmup:
        return max(iteration / n_warmup, 1e-4)
    return float((1.0 - (iteration - n_warmup) / (total - n_warmup)) ** power)


def build_optimizer(model: nn.Module, settings: OptimSettings) -> optim.SGD:
    """Builds SGD with one parameter group for each learning rate and weight decay; fused on a GPU (`is_on_gpu`)."""
    encoder, rest = split_parameters(model)
    groups = []
    for named, lr in ((encoder, settings.lr), (rest, settings.lr * settings.decoder_lr_factor)):
        for decayed in (True, False):
            values = [value for _, value in named if (settings.decay_norm_and_bias or value.ndim > 1) is decayed]
            if values:
                groups.append({"params": values, "lr": lr, "weight_decay": settings.weight_decay if decayed else 0.0})
    return optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=is_on_gpu(model) or None)


def build_adam(model: nn.Module, options: Mapping[str, float]) -> optim.Adam:
    """Builds Adam with one learning rate for all parameters, for methods that were published with it; fused on a GPU.

    Args:
        model: the network.
        options: ``lr`` above 0 and ``weight_decay`` (L2) of at least 0; `dmseg.config.method_options` checks them.
    """
    gpu = is_on_gpu(model)
    lr, decay = options["lr"], options["weight_decay"]
    return optim.Adam(model.parameters(), lr=lr, weight_decay=decay, fused=gpu or None, capturable=gpu)


def is_on_gpu(model: nn.Module) -> bool:
    """Whether a network is on a GPU, where one fused kernel updates all parameters without waiting.

    On the CPU a fused update rounds differently from the plain one and saves 1 % of a step (``bench/loop.py``).
    """
    return next(model.parameters()).device.type == "cuda"


def build_schedule(optimizer: optim.Optimizer, settings: OptimSettings, total: int) -> optim.lr_scheduler.LambdaLR:
    """Builds the poly schedule, which is stepped once per iteration."""

    def factor(iteration: int) -> float:
        # after the last step, LambdaLR asks for iteration `total`, whose factor nobody uses and may be 0 / 0
        return poly_factor(iteration, max(total, iteration + 1), settings.poly_power, settings.warmup)

    return optim.lr_scheduler.LambdaLR(optimizer, factor)
