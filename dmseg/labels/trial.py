"""Trials of a fusion on a few small masks: which kind of label it returns, and whether its options fit a task."""

import warnings
from collections.abc import Sequence

import numpy as np

from dmseg.errors import UserError, cut, shown
from dmseg.labels.fusion import Fusion, NoLabelError, fuse, is_soft, named_raters

MAX_RATERS = 16
"""Largest number of raters that a fusion is tried with to find out which kind of label it returns."""


def gives_soft_labels(fusion: Fusion) -> bool:
    """Whether a fusion returns soft labels, determined by fusing a few small masks.

    A fusion may require a certain number of raters, so several numbers are tried until it accepts one. One with an
    argument ``raters`` gets None.

    Args:
        fusion: the fusion with its options bound.

    Raises:
        UserError: if the fusion says that an option is wrong.
        ValueError: if it accepts no number of raters up to `MAX_RATERS`, or returns another dtype.
    """
    edge = np.arange(8)
    refusals: list[Exception] = []
    for n_raters in (3, *range(1, MAX_RATERS + 1)):
        extents = 3 + np.arange(n_raters) % 3
        masks = np.array([np.multiply.outer(edge < extent, edge > 1)[np.newaxis] for extent in extents], dtype=np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                label = np.asarray(fuse(fusion, masks, None))
            except UserError:
                raise
            except Exception as error:
                refusals.append(error)
                continue
        return is_soft(label)
    said = cut(" ".join(str(refusals[0]).splitlines()[:1]))
    raise ValueError(f"it fails on small masks of 1 to {MAX_RATERS} raters ({type(refusals[0]).__name__}: {said})")


def try_fusion(
    fusion: Fusion, n_raters: int, where: str, *, candidates: bool = True, raters: Sequence[str] | None = None
) -> None:
    """Fuses a few pixels to detect mistakes before training.

    Args:
        fusion: the fusion with its options bound.
        n_raters: number of raters of the task; the last one marks different pixels from the others.
        where: the configuration node, for messages.
        candidates: whether it may return a stack of candidates; a reference for scoring must be a single label.
        raters: names of the task's raters; None where they are unknown.

    Raises:
        UserError: if it fails, does not return a label, or needs the name of a rater that its options lack or the task
            does not have.
    """
    named = named_raters(fusion)
    if named is not None and raters is not None:
        option, names = named
        known = f"the task's raters are {', '.join(raters)}"
        if not names:
            raise UserError(f"{where}.{option} is not set; {known}")
        for name in names:
            if name not in raters:
                raise UserError(f"{where}.{option} names {shown(name)}, but {known}")
    annotations = np.zeros((n_raters, 1, 2, 4), dtype=np.uint8)
    annotations[:-1, 0, 1, 2:] = 1
    annotations[-1, 0, 0, 0] = 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            label = np.asarray(fuse(fusion, annotations, raters))
            fits = bool(np.all((label >= 0) & (label <= 1)))
    except (NoLabelError, UserError) as error:
        raise UserError(f"{where}: {error}") from None
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{where} cannot fuse the masks of {n_raters} raters with these options: {cut(str(error), 300)}"
        ) from None
    if label.shape != annotations.shape[1:] and not (candidates and label.shape[1:] == annotations.shape[1:]):
        kind = "one label or a stack of candidates" if candidates else "one label"
        raise UserError(f"{where} turns annotations {annotations.shape} into {label.shape}, but must return {kind}")
    if not fits:
        raise UserError(f"{where} returns labels from {label.min():g} to {label.max():g}, but they must be in [0, 1]")
