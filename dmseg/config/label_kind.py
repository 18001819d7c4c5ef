"""The kind of a label, and the settings that depend on it: its interpolation and the classes of the region loss."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeVar

from dmseg.config.components import bind, resolve
from dmseg.config.settings import LabelSettings, Settings, TeacherSettings
from dmseg.errors import UserError, shown
from dmseg.labels.arguments import argument_names
from dmseg.labels.fusion import TIES, declared_votes
from dmseg.labels.trial import gives_soft_labels

AUTO = "auto"
"""Value for the protocol's choice, which depends on the kind of the label."""

Kind = Literal["hard", "soft"]
Part = TypeVar("Part", Settings, TeacherSettings)

_RETIRED_OVERRIDE = re.compile(r"[+~]*(?:[\w.]+\.)?labels\.(soft|targets)(?:@[^=]*)?(?:=|$)")
_RETIRED_KEYS = ("soft", "targets")


def fused_kind(labels: LabelSettings) -> Kind:
    """Whether the fusion returns hard or soft labels, before any smoothing.

    Raises:
        UserError: if there is no such fusion, its options do not fit, or it does not return a label.
    """
    fusion = bind(labels.target, labels.options, where="labels")
    try:
        return "soft" if gives_soft_labels(fusion) else "hard"
    except UserError as error:
        raise UserError(f"labels: {error}") from None
    except ValueError as error:
        raise UserError(f"labels: {labels.target} cannot be used as a fusion: {error}") from None


def label_kind(labels: LabelSettings) -> Kind:
    """Whether the network is trained on hard labels (a hard fusion without smoothing) or soft ones."""
    return "soft" if labels.smoothing is not None else fused_kind(labels)


def settle_labels(part: Part, protocol: Mapping[str, Any]) -> Part:
    """Replaces `AUTO` in the labels and in the loss terms by the protocol's choice for this kind of label.

    Args:
        part: a run's settings or a teacher's.
        protocol: with ``classes`` and ``interpolation``, each for ``hard`` and ``soft`` labels.

    Raises:
        UserError: if the fusion cannot be used, or does not support the interpolation.
    """
    labels = _without_unused_ties(part.labels)
    fused = fused_kind(labels)
    smoothed = labels.smoothing is not None and fused == "hard"
    if labels.interpolation == AUTO:
        chosen = "nearest" if smoothed else str(protocol["interpolation"][fused])
        labels = replace(labels, interpolation=chosen)
    if smoothed and labels.interpolation != "nearest":
        raise UserError(
            f"labels.interpolation is {shown(labels.interpolation)}, but must be nearest where hard labels are smoothed"
        )
    if labels.interpolation == "rater" and declared_votes(bind(labels.target, labels.options, where="labels")) is None:
        raise UserError(
            f"labels.interpolation is 'rater', but {labels.target} declares no weights of raters; set nearest or linear"
        )
    classes = {"classes": protocol["classes"][label_kind(labels)]}
    terms = {
        name: replace(term, options=term.options | classes) if term.options.get("classes") == AUTO else term
        for name, term in part.loss.terms.items()
    }
    return replace(part, labels=labels, loss=replace(part.loss, terms=terms))


def _without_unused_ties(labels: LabelSettings) -> LabelSettings:
    """Drops ``ties`` with its default value if the function does not take it.

    The file of the default labels sets this key even if ``labels._target_`` is changed to another function.
    """
    if labels.options.get("ties") != TIES[0] or "ties" in argument_names(resolve(labels.target, "labels")):
        return labels
    return replace(labels, options={name: value for name, value in labels.options.items() if name != "ties"})


def refuse_retired_overrides(overrides: Iterable[str]) -> None:
    """Refuses overrides of ``labels.soft`` and ``labels.targets``, which were keys of earlier versions.

    Raises:
        UserError: if there is such an override.
    """
    for override in overrides:
        if found := _RETIRED_OVERRIDE.match(override):
            raise UserError(_retired(found[1]))


def refuse_retired_keys(labels: Mapping[str, Any]) -> None:
    """Like `refuse_retired_overrides`, for composed labels, whose file may still have these keys.

    Raises:
        UserError: if there is such a key.
    """
    for key in _RETIRED_KEYS:
        if key in labels:
            raise UserError(_retired(key))


def _retired(key: str) -> str:
    return (
        f"there is no key labels.{key}: whether labels are soft follows from what the fusion returns; "
        "set labels.interpolation to nearest, linear or rater for how they are resampled"
    )


def translate_labels(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Stored label settings in the current form; earlier versions stored ``soft`` instead of the interpolation."""
    rest = {key: value for key, value in labels.items() if key != "soft"}
    return rest if "soft" not in labels else {"interpolation": "linear" if labels["soft"] else "nearest", **rest}
