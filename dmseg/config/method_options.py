"""Checks of the methods' options. Does not import torch, so that planning can use it."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from dmseg.errors import UserError, check_choice, cut, shown
from dmseg.limits import DROPOUT_SITES, MRNET_BLOCKS

WIDTHS = ("bottleneck", "encoder", "context", "detail", "perception")


def check_options(target: str, options: Mapping[str, Any]) -> None:
    """Checks the options of a method of this package; other methods check their own.

    Args:
        target: dotted name of the method.
        options: as configured.

    Raises:
        UserError: if an option is unknown or missing, or lies outside its range.
    """
    check = CHECKS.get(target)
    if check is None:
        return
    try:
        inspect.signature(check).bind(**options)
    except TypeError as error:
        known = ", ".join(inspect.signature(check).parameters) or "no options"
        raise UserError(f"the options of 'method' do not fit {target}: {error}; it takes {known}") from None
    check(**options)


def check_plain() -> None:
    """Plain training has no options."""


def check_raters(anonymous_raters: str = "error") -> None:
    """Checks the option of methods that distinguish raters."""
    check_choice("method.anonymous_raters", anonymous_raters, ("error", "position"))


def check_dropout(sites: Sequence[str], rate: float, passes: int) -> None:
    """Checks the options of Monte-Carlo dropout."""
    known = ", ".join(DROPOUT_SITES)
    if not isinstance(sites, list | tuple) or not sites:
        raise UserError(f"method.sites is {shown(sites)}, but must be a list of some of {known}")
    for site in sites:
        if site not in DROPOUT_SITES or sites.count(site) > 1:
            raise UserError(f"method.sites has {shown(site)}, but may only contain {known}, each at most once")
    if not 0 <= _number("method.rate", rate) < 1:
        raise UserError(f"method.rate is {rate}, but must lie in [0, 1)")
    _whole("method.passes", passes)


def check_softseg(
    maximum: str, theta: float, alpha: float, omega: float, epsilon: float, reduction: str, adam: Mapping[str, float]
) -> None:
    """Checks the options of SoftSeg."""
    check_choice("method.maximum", maximum, ("image", "batch"))
    check_choice("method.reduction", reduction, ("mean", "sum"))
    for name, value, low in (("theta", theta, 0), ("alpha", alpha, 2), ("omega", omega, 0), ("epsilon", epsilon, 0)):
        if _number(f"method.{name}", value) <= low:
            raise UserError(f"method.{name} is {value}, but must be more than {low}")
    check_adam(adam)


def check_mrnet(
    anonymous_raters: str, adam: Mapping[str, float], consistency: float, widths: Mapping[str, Any]
) -> None:
    """Checks the options of MRNet."""
    check_raters(anonymous_raters)
    check_adam(adam)
    if not 0 <= _number("method.consistency", consistency) < 1:
        raise UserError(f"method.consistency is {consistency}, but must lie in [0, 1)")
    if not isinstance(widths, Mapping) or set(widths) != set(WIDTHS):
        found = ", ".join(map(str, widths)) if isinstance(widths, Mapping) else widths
        raise UserError(f"method.widths has {cut(str(found))}, but must have {', '.join(WIDTHS)}")
    encoder = widths["encoder"]
    if not isinstance(encoder, list | tuple):
        raise UserError(f"method.widths.encoder is {shown(encoder)}, but must be a list of {len(MRNET_BLOCKS)} numbers")
    if len(encoder) != len(MRNET_BLOCKS):
        raise UserError(f"method.widths.encoder has {len(encoder)} numbers, but there are {len(MRNET_BLOCKS)} blocks")
    for width in encoder:
        _whole("method.widths.encoder", width)
    for name in WIDTHS:
        if name != "encoder":
            _whole(f"method.widths.{name}", widths[name])


def check_adam(options: Mapping[str, float]) -> None:
    """Checks ``lr``, above 0, and ``weight_decay``, at least 0, of Adam."""
    if not isinstance(options, Mapping) or set(options) != {"lr", "weight_decay"}:
        found = ", ".join(map(str, options)) or "nothing" if isinstance(options, Mapping) else options
        raise UserError(f"method.adam has {cut(str(found))}, but must have lr and weight_decay")
    if (
        _number("method.adam.lr", options["lr"]) <= 0
        or _number("method.adam.weight_decay", options["weight_decay"]) < 0
    ):
        raise UserError(f"method.adam is {dict(options)}; lr must be above 0 and weight_decay at least 0")


def _number(key: str, value: object) -> float:
    """Returns a finite number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):  # an integer that is too large for a float
            if math.isfinite(value):
                return value
    raise UserError(f"{key} is {shown(value)}, but must be a finite number")


def _whole(key: str, value: object) -> None:
    """Checks a whole number from 1 to 100000."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100_000:
        raise UserError(f"{key} is {shown(value)}, but must be a whole number from 1 to 100000")


CHECKS: dict[str, Callable[..., None]] = {
    "dmseg.methods.base.Method": check_plain,
    "dmseg.methods.mc_dropout.MCDropout": check_dropout,
    "dmseg.methods.multi_head.MultiHead": check_raters,
    "dmseg.methods.mrnet.MRNetMethod": check_mrnet,
    "dmseg.methods.softseg.SoftSeg": check_softseg,
}
