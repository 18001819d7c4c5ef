"""The kind of a label, and the settings that depend on it: its interpolation and the classes of the region loss."""

from collections.abc import Mapping
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
    labels = part.labels
    # the file of the default labels sets ties, even if labels._target_ is changed to a function without it
    if labels.options.get("ties") == TIES[0] and "ties" not in argument_names(resolve(labels.target, "labels")):
        options = {name: value for name, value in labels.options.items() if name != "ties"}
        labels = replace(labels, options=options)
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
