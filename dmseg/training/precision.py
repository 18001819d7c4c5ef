"""The device and precision of a run, and how float32 is computed on CUDA: as IEEE float32, or with TensorFloat-32.

By default, PyTorch's convolutions on Ampere and later GPUs round their inputs to TF32, which has a 10-bit mantissa.
"""

import logging
import platform
from collections.abc import Iterator, Set
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import backends

from dmseg.config.allowed import ALLOWED
from dmseg.errors import UserError, check_choice

log = logging.getLogger(__name__)

_cudnn: Any = backends.cudnn
_matmuls: tuple[Any, Any] = backends.cuda.matmul, backends.mkldnn.matmul  # type: ignore[attr-defined]
_SWITCHES = (_cudnn.conv, _cudnn.rnn, *_matmuls)


@contextmanager
def float32_math(*, tf32: bool) -> Iterator[None]:
    """Sets how float32 is computed within the block, and restores PyTorch's settings afterwards.

    PyTorch has an older and a newer set of switches and raises an error if they disagree, so both are set.

    Args:
        tf32: whether convolutions and recurrent layers use TF32, as is PyTorch's default; matrix products never do.
    """
    before = [switch.fp32_precision for switch in _SWITCHES]
    try:
        older = _cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # the switches from before torch 2.9 cannot be read if they disagree with the newer ones
        older = None
    _cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision("highest")
    _cudnn.conv.fp32_precision = _cudnn.rnn.fp32_precision = "tf32" if tf32 else "ieee"
    _matmuls[0].fp32_precision = "ieee"
    try:
        yield
    finally:
        if older is not None:
            _cudnn.allow_tf32 = older[0]
            torch.set_float32_matmul_precision(older[1])
        for switch, value in zip(_SWITCHES, before, strict=True):
            switch.fp32_precision = value


def float32_modes() -> dict[str, str]:
    """How float32 is currently computed, by operation: ``ieee`` or ``tf32``."""
    names = "convolution", "rnn", "matmul"
    return {name: str(switch.fp32_precision) for name, switch in zip(names, _SWITCHES, strict=False)}


def describe_precision(precision: str) -> dict[str, Any]:
    """The precision of a run, and how training and scoring compute float32 on CUDA."""
    described: dict[str, Any] = {"name": precision}
    for stage, tf32 in (("training", precision == "tf32"), ("scoring", False)):
        with float32_math(tf32=tf32):
            described[stage] = float32_modes()
    return described


def check_precision(precision: str, device: torch.device) -> None:
    """Checks that the device supports a precision.

    Raises:
        UserError: if the precision is ``tf32`` and the device does not support it.
    """
    if precision == "tf32" and (device.type != "cuda" or not torch.cuda.is_tf32_supported()):
        raise UserError(
            f"precision=tf32 needs a CUDA device of compute capability 8, not '{device}'; set precision=fp32"
        )


def resolve_device(name: str) -> torch.device:
    """The device with a name; ``auto`` is the first CUDA device if there is one, else the CPU.

    Raises:
        UserError: if the device is unknown or not available.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise UserError(f"device '{name}' is unknown; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device '{name}' cannot be used; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device '{name}' is not available: torch finds no CUDA device; set device=cpu")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UserError(f"device '{name}' is not available: the CUDA devices are cuda:0 to cuda:{count - 1}")
    return device


def resolve_precision(name: str, device: str) -> str:
    """The precision with a name; ``auto`` is chosen from the hardware of this machine, and the log says why.

    Raises:
        UserError: if the precision is unknown.
    """
    check_choice("precision", name, ALLOWED["precision"])
    if name != "auto":
        return name
    if resolve_device(device).type == "cuda":
        major, minor = torch.cuda.get_device_capability()
        chosen, reason = ("bf16" if major >= 8 else "fp32"), f"the GPU has compute capability {major}.{minor}"
    else:
        chosen, reason = choose_on_cpu(cpu_flags())
    _log_choice(chosen, reason)
    return chosen


@cache
def _log_choice(chosen: str, reason: str) -> None:
    """Logs a choice once per process, however many runs are planned."""
    log.info("precision=auto is %s here: %s", chosen, reason)


def choose_on_cpu(flags: Set[str]) -> tuple[str, str]:
    """The faster precision of a CPU and the reason (``bench/loop.py`` measures them).

    Args:
        flags: its instruction sets, as in ``/proc/cpuinfo``.
    """
    if "amx_bf16" in flags:
        return "bf16", "the CPU has AMX"
    if "avx512_bf16" in flags:
        return "fp32", "the CPU has avx512_bf16 but no AMX, and without AMX bf16 is not faster for ResNets"
    return "fp32", "the CPU has neither AMX nor avx512_bf16, without which bf16 is slower"


def cpu_flags() -> frozenset[str]:
    """Instruction sets of this machine's CPU; empty where they are not known."""
    return frozenset(cpu_info().get("flags", "").split() if platform.system() == "Linux" else ())


def cpu_info() -> dict[str, str]:
    """The first value of each name in ``/proc/cpuinfo``; empty where there is no such file."""
    cpuinfo, found = Path("/proc/cpuinfo"), dict[str, str]()
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            name, colon, value = line.partition(":")
            if colon:
                found.setdefault(name.strip(), value.strip())
    return found
