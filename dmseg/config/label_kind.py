"""The kind of a label, and the settings that follow from it: its interpolation and the classes of the region loss."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeVar

from dmseg.config.components import bind, resolve
from dmseg.config.settings import LabelSettings, Settings, TeacherSettings
from dmseg.errors import UserError, shown
from dmseg.labels.fusion import TIES, argument_names, declared_votes
from dmseg.labels.trial import gives_soft_labels

AUTO = "auto"
"""Stands for the protocol's choice for the kind of the label."""

Kind = Literal["hard", "soft"]
Part = TypeVar("Part", Settings, TeacherSettings)

_RETIRED_OVERRIDE = re.compile(r"[+~]*(?:[\w.]+\.)?labels\.(soft|targets)(?:@[^=]*)?(?:=|$)")
_RETIRED_KEYS = ("soft", "targets")


def fused_kind(labels: LabelSettings) -> Kind:
    """Whether the fusion returns hard or soft labels; smoothing does not count.

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
    """Whether the label that is trained on is hard (a hard fusion without smoothing) or soft."""
    return "soft" if labels.smoothing is not None else fused_kind(labels)


def settle_labels(part: Part, protocol: Mapping[str, Any]) -> Part:
    """Replaces each `AUTO` of the labels and of the loss terms by the protocol's choice for the kind of the label.

    Args:
        part: a run's settings or a teacher's.
        protocol: with ``classes`` and ``interpolation``, each for ``hard`` and ``soft`` labels.

    Raises:
        UserError: if the fusion cannot be used, or cannot be interpolated in the way that the settings name.
    """
    labels = _without_unused_ties(part.labels)
    fused = fused_kind(labels)
    smoothed = labels.smoothing is not None and fused == "hard"
    if labels.interpolation == AUTO:
        chosen = "nearest" if smoothed else str(protocol["interpolation"][fused])
        labels = replace(labels, interpolation=chosen)
    _check_interpolation(labels, smoothed)
    classes = {"classes": protocol["classes"][label_kind(labels)]}
    terms = {
        name: replace(term, options=term.options | classes) if term.options.get("classes") == AUTO else term
        for name, term in part.loss.terms.items()
    }
    return replace(part, labels=labels, loss=replace(part.loss, terms=terms))


def _without_unused_ties(labels: LabelSettings) -> LabelSettings:
    """Leaves out ``ties`` at its default for a function that does not take it.

    The file of the default labels has this key, also where ``labels._target_`` names another function.
    """
    if labels.options.get("ties") != TIES[0] or "ties" in argument_names(resolve(labels.target, "labels")):
        return labels
    return replace(labels, options={name: value for name, value in labels.options.items() if name != "ties"})


def _check_interpolation(labels: LabelSettings, smoothed: bool) -> None:
    if smoothed and labels.interpolation != "nearest":
        raise UserError(
            f"labels.interpolation is {shown(labels.interpolation)}, but must be nearest where hard labels are smoothed"
        )
    declared = declared_votes(bind(labels.target, labels.options, where="labels"))
    if labels.interpolation == "rater" and declared is None:
        raise UserError(
            f"labels.interpolation is 'rater', but {labels.target} declares no weights of raters; set nearest or linear"
        )


def refuse_retired_overrides(overrides: Iterable[str]) -> None:
    """Refuses overrides of ``labels.soft`` and ``labels.targets``, which are keys of earlier versions.

    Raises:
        UserError: if there is one.
    """
    for override in overrides:
        if found := _RETIRED_OVERRIDE.match(override):
            raise UserError(_retired(found[1]))


def refuse_retired_keys(labels: Mapping[str, Any]) -> None:
    """The same for a composed node of labels, whose file may still have these keys.

    Raises:
        UserError: if there is one.
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
    """Stored label settings as they are written now; earlier ones have ``soft``, which chose the interpolation."""
    rest = {key: value for key, value in labels.items() if key != "soft"}
    return rest if "soft" not in labels else {"interpolation": "linear" if labels["soft"] else "nearest", **rest}
