"""The loss of a configuration: converts the terms from their form in YAML files to the fields of the settings."""

import re
from collections.abc import Mapping
from typing import Any

from dmseg.config.renamed import translate_stored_loss
from dmseg.config.typed import check_group
from dmseg.errors import UserError, shown

HISTORY = ("epoch", "step", "lr", "loss")
"""Columns of a run's history besides those of the loss terms."""
NAME = re.compile(r"[A-Za-z]\w{0,59}", re.ASCII)


def gather_loss(parent: Mapping[str, Any]) -> dict[str, Any]:
    """Splits each term of the loss into its weight, its target and its options.

    Args:
        parent: a composed configuration, or a teacher.

    Raises:
        UserError: if the loss or a term is not a mapping, or a term has an invalid name, no weight or no target.
    """
    loss = translate_stored_loss(check_group(parent, "loss", "one of the files in configs/loss"))
    terms: dict[str, Any] = {}
    for name, term in check_terms(loss).items():
        where = f"loss.terms.{name}"
        if not isinstance(term, Mapping):
            raise UserError(
                f"{where} is {shown(term)}, but must be a mapping: weight, _target_ and the options of the loss; "
                "weight: 0 switches a term off"
            )
        if "_target_" not in term:
            raise UserError(f"{where} has no _target_; set it to the dotted name of a loss")
        if "weight" not in term:
            raise UserError(f"{where} has no weight; set it to a number, 0 switches the term off")
        options = {key: value for key, value in term.items() if key not in ("_target_", "weight")}
        terms[name] = {"weight": term["weight"], "target": term["_target_"], "options": options}
    return {**loss, "terms": terms}


def restore_loss(parent: Mapping[str, Any]) -> dict[str, Any]:
    """The loss of stored settings; the form of an earlier version is translated.

    Args:
        parent: stored settings, or a teacher's.

    Raises:
        UserError: see `gather_loss`.
    """
    loss = check_group(parent, "loss", "a mapping")
    if "terms" not in loss:
        return gather_loss(parent)
    check_terms(loss)
    return dict(loss)


def check_terms(loss: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the terms of a loss by name.

    Raises:
        UserError: if they are missing, or a name cannot be a column of the history.
    """
    if "terms" not in loss:
        raise UserError("key 'loss.terms' is missing")
    terms = loss["terms"]
    if not isinstance(terms, Mapping):
        raise UserError(f"loss.terms is {shown(terms)}, but must be a mapping from names to terms")
    for name in terms:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(
                f"loss.terms has the name {shown(name)}, but a name must be a letter, then letters, digits or _"
            )
        if name in HISTORY:
            raise UserError(f"loss.terms has the name '{name}', which is a column of history.csv; choose another name")
    return terms
