"""Training data of one fold: slices and fused labels as tensors, on the device if there is room."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dmseg.data.labels import case_votes, fuse_training_cases, select_cases
from dmseg.data.prepared import PreparedTask
from dmseg.errors import UserError
from dmseg.labels.fusion import Fusion, Votes, is_soft
from dmseg.labels.trial import gives_soft_labels

RESIDENT_SHARE = 0.5
"""Largest share of a device's free memory that training data may take; the rest is for the network."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Slices and fused labels of the training cases.

    Attributes:
        images: (N, C, H, W) uint8 or int16, as prepared.
        labels: (N, V, H, W), V candidates per slice; uint8 for hard labels, float32 for soft ones.
        case_index: (N,) position of each slice's case.
        n_candidates: (cases,) number of candidates of each case, at most V.
        raters: (N, R, H, W) uint8, annotations of all raters, blank for absent ones; None unless a method needs them
            or labels are interpolated rater by rater.
        present: (N, R) bool, which raters annotated the slice's case; None unless a method needs it.
        weights: (N, R) float64, weight of each rater in the label, 0 for absent ones; None unless labels are
            interpolated rater by rater.
        threshold: (N,) float64, smallest sum of weights of a foreground pixel; None for soft labels, and unless labels
            are interpolated rater by rater.
    """

    images: Tensor
    labels: Tensor
    case_index: Tensor
    n_candidates: Tensor
    raters: Tensor | None = None
    present: Tensor | None = None
    weights: Tensor | None = None
    threshold: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def n_bytes(self) -> int:
        """Memory of all arrays, in bytes."""
        return sum(value.nbytes for value in vars(self).values() if value is not None)

    def to(self, device: torch.device) -> "TrainingData":
        """The data on a device; the numbers that only the host needs stay in its memory."""
        host = ("case_index", "n_candidates")
        found = {name: value for name, value in vars(self).items() if value is not None and name not in host}
        return replace(self, **{name: value.to(device) for name, value in found.items()})


def place(data: TrainingData, device: torch.device, free: int | None = None) -> TrainingData:
    """Moves the data to a device, unless they would take more than `RESIDENT_SHARE` of its free memory.

    Args:
        data: the training data, in host memory.
        device: where training runs.
        free: free memory of the device in bytes; None to query the device.
    """
    if free is None:
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else data.n_bytes * 2
    if data.n_bytes <= RESIDENT_SHARE * free:
        return data.to(device)
    size, room = (f"{value / 2**30:.1f} GiB" for value in (data.n_bytes, free))
    log.info(
        "the training data (%s) stay in host memory, because only %s of %s are free; batches are read ahead",
        size,
        room,
        device,
    )
    return data


def load_training(
    prepared: PreparedTask,
    ids: Sequence[str],
    fusion: Fusion,
    raters: bool = False,
    votes: Callable[..., Votes] | None = None,
) -> TrainingData:
    """Loads the training cases of a fold and fuses their annotations; no other case is read.

    All tensors are in host memory (`place`).

    Cases for which the fusion has no label, such as those that a chosen rater did not annotate, are left out.

    Args:
        prepared: the store.
        ids: training cases.
        fusion: fusion strategy with its options bound.
        raters: whether to load the annotations of individual raters as well.
        votes: the fusion's `Votes`, to interpolate labels rater by rater; None to interpolate fused labels.

    Raises:
        UserError: if the fusion does not return labels, or its votes do not reproduce its labels.
    """
    cases, fused = fuse_training_cases(prepared, select_cases(prepared, ids), fusion)
    if is_soft(fused[0]) != gives_soft_labels(fusion):
        kind = "soft" if is_soft(fused[0]) else "hard"
        raise UserError(f"case {cases[0].case}: the fusion returns a {kind} label, but the other kind on small masks")
    n_slices = sum(case.n_slices for case in cases)
    labels = np.zeros((n_slices, max(map(len, fused)), *fused[0].shape[2:]), dtype=fused[0].dtype)
    position = 0
    for label in fused:
        labels[position : position + label.shape[1], : len(label)] = np.moveaxis(label, 0, 1)
        position += label.shape[1]
    images = np.concatenate([prepared.images[case.span] for case in cases])
    arrays = {"images": images, "labels": labels}
    if raters or votes is not None:
        arrays["raters"] = np.concatenate([prepared.annotation_arrays[case.span] for case in cases])
    counts, by_case = [case.n_slices for case in cases], (len(cases), len(prepared.task.raters))
    if raters:
        present = np.zeros(by_case, dtype=bool)
        for row, case in zip(present, cases, strict=True):
            row[list(case.raters)] = True
        arrays["present"] = np.repeat(present, counts, axis=0)
    if votes is not None:
        weights, found = np.zeros(by_case), case_votes(prepared, cases, fused, votes)
        for row, case, own in zip(weights, cases, found, strict=True):
            row[list(case.raters)] = own.weights
        arrays["weights"] = np.repeat(weights, counts, axis=0)
        if thresholds := [own.threshold for own in found if own.threshold is not None]:
            arrays["threshold"] = np.repeat(np.array(thresholds, dtype=np.float64), counts, axis=0)
    return TrainingData(
        case_index=torch.repeat_interleave(torch.arange(len(cases)), torch.tensor(counts)),
        n_candidates=torch.tensor([len(label) for label in fused]),
        **{name: torch.from_numpy(values) for name, values in arrays.items()},
    )
