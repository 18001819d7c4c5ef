"""Fuses the annotations of prepared cases, and checks the labels before they are used for training or scoring."""

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dmseg.activity import track
from dmseg.data.prepared import PreparedCase, PreparedTask
from dmseg.errors import UserError, some
from dmseg.labels.fusion import Annotations, Fusion, FusionWarning, NoLabelError, Votes, fuse, is_soft

log = logging.getLogger(__name__)


def select_cases(prepared: PreparedTask, ids: Sequence[str]) -> list[PreparedCase]:
    """Returns the cases with these ids, in the order of the ids."""
    by_id = {case.case: case for case in prepared.cases}
    return [by_id[case] for case in ids]


def rater_names(prepared: PreparedTask, case: PreparedCase) -> tuple[str, ...]:
    """Names of the raters who annotated a case."""
    names = prepared.task.raters
    return tuple(names[position] for position in case.raters)


def fuse_cases(prepared: PreparedTask, cases: Sequence[PreparedCase], fusion: Fusion) -> list[npt.NDArray[Any]]:
    """Fuses the annotations of each whole case.

    Returns:
        One array (V, n_slices, H, W) of V candidates for each case: uint8 for hard labels, float32 for soft ones.

    Raises:
        UserError: if the fusion does not return labels, or hard ones for some cases and soft ones for others, or has no
            label for a case.
    """
    _, fused, missing = _fuse(prepared, cases, fusion)
    for case, reason in missing.items():
        raise UserError(f"case {case} has no label: {reason}")
    return fused


def fuse_training_cases(
    prepared: PreparedTask, cases: Sequence[PreparedCase], fusion: Fusion
) -> tuple[list[PreparedCase], list[npt.NDArray[Any]]]:
    """Fuses the annotations of each case for which the fusion has a label, and logs which cases are left out.

    Returns:
        These cases, and for each of them the array that `fuse_cases` returns.

    Raises:
        UserError: if the fusion has no label for any case, or for the other reasons of `fuse_cases`.
    """
    kept, fused, missing = _fuse(prepared, track(cases, "fusing labels", len(cases), "cases"), fusion)
    if not kept:
        case, reason = next(iter(missing.items()))
        raise UserError(f"none of {len(cases)} training cases has a label; case {case}: {reason}")
    if missing:
        reason = next(iter(missing.values()))
        log.warning(
            "%d of %d training cases are left out: %s (%s)", len(missing), len(cases), reason, some(list(missing))
        )
    return kept, fused


def _fuse(
    prepared: PreparedTask, cases: Iterable[PreparedCase], fusion: Fusion
) -> tuple[list[PreparedCase], list[npt.NDArray[Any]], dict[str, str]]:
    """The cases with a label, their labels, and the reasons why others have none, by case."""
    kept, fused = list[PreparedCase](), list[npt.NDArray[Any]]()
    noted, missing = list[tuple[str, str]](), dict[str, str]()
    for case in cases:
        annotations = prepared.annotations(case)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FusionWarning)
            try:
                label = np.asarray(fuse(fusion, annotations, rater_names(prepared, case)))
            except NoLabelError as error:
                missing[case.case] = str(error)
                continue
        noted += [(case.case, str(warning.message)) for warning in caught]
        kept.append(case)
        fused.append(_checked_label(label, annotations, case.case))
        if fused[-1].dtype != fused[0].dtype:
            first, now = ("soft" if is_soft(item) else "hard" for item in (fused[0], fused[-1]))
            raise UserError(f"case {case.case}: the fusion returns a {now} label, but a {first} one for {kept[0].case}")
    if noted:
        log.info(
            "%d of %d cases: %s (%s)",
            len(noted),
            len(kept) + len(missing),
            noted[0][1],
            ", ".join(case for case, _ in noted),
        )
    return kept, fused, missing


def _checked_label(label: npt.NDArray[Any], annotations: Annotations, case: str) -> npt.NDArray[Any]:
    """Returns a fused label as candidates (V, n_slices, H, W), uint8 or float32.

    Raises:
        UserError: if it does not have the shape, dtype or range of a label.
    """
    spatial = annotations.shape[1:]
    if label.shape != spatial and (label.ndim != annotations.ndim or label.shape[1:] != spatial or not len(label)):
        raise UserError(
            f"case {case}: the fusion returns shape {label.shape}, but must return {spatial} or a stack of such labels"
        )
    try:
        soft = is_soft(label)
    except ValueError as error:
        raise UserError(f"case {case}: the fusion cannot be used: {error}") from None
    low, high = label.min(), label.max()
    if not (low >= 0 and high <= 1):  # NaN included
        kind = "soft labels must lie in [0, 1]" if soft else "hard labels must be 0 or 1"
        raise UserError(f"case {case}: the fusion returns values from {low} to {high}; {kind}")
    return label.reshape(-1, *spatial).astype(np.float32 if soft else np.uint8, copy=False)


def case_votes(
    prepared: PreparedTask,
    cases: Sequence[PreparedCase],
    fused: Sequence[npt.NDArray[Any]],
    votes: Callable[..., Votes],
) -> list[Votes]:
    """The votes of each case.

    Args:
        prepared: the store.
        cases: the cases.
        fused: their fused labels (`fuse_cases`).
        votes: the votes declared by the fusion (`declared_votes`).

    Raises:
        UserError: if the votes do not reproduce the fused label.
    """
    found = []
    for case, label in zip(cases, fused, strict=True):
        annotations = prepared.annotations(case)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FusionWarning)  # already reported when fusing
            own = fuse(votes, annotations, rater_names(prepared, case))
        same = len(label) == 1 and own.fit(annotations) and (own.threshold is None) == is_soft(label)
        if not same or not np.allclose(own.fuse(annotations), label[0], rtol=0, atol=1e-5):
            raise UserError(f"case {case.case}: the votes that the fusion declares do not reproduce its label")
        found.append(own)
    return found
