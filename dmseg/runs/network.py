"""The network of a run: before training, and with stored weights."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from dmseg.data.prepared import PreparedTask
from dmseg.runs.plan import PlannedRun
from dmseg.training.random_streams import stream_seed


def initial_model(run: PlannedRun, n_channels: int) -> nn.Module:
    """The untrained network of a run, which is the same for all label strategies."""
    torch.manual_seed(stream_seed(run.settings.seed, run.settings.fold, "initialisation"))
    return run.method.network(run.settings.model, n_channels, run.task)


def stored_network(
    run: PlannedRun, prepared: PreparedTask, weights: Mapping[str, Tensor], device: torch.device
) -> nn.Module:
    """The network of a run with stored weights."""
    model = untrained_network(run, prepared)
    model.load_state_dict(weights)
    return on_device(model, device)


def untrained_network(run: PlannedRun, prepared: PreparedTask) -> nn.Module:
    """The network of a run without pretrained weights, to load stored weights into."""
    return run.method.network(replace(run.settings.model, weights=None), prepared.n_channels, run.task)


def on_device(model: nn.Module, device: torch.device) -> nn.Module:
    """Moves a network to a device, in the memory format that it is trained in."""
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
