"""Training data of one fold as tensors, and batches of it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dmseg.config.settings import LabelSettings, TrainSettings
from dmseg.data.augment import draw_views, fuse_resampled, resample, sampling_grid
from dmseg.data.labels import case_votes, fuse_training_cases, select_cases
from dmseg.data.prepared import PreparedCase, PreparedTask
from dmseg.errors import UserError
from dmseg.labels.fusion import Fusion, Votes, is_soft
from dmseg.labels.smoothing import smooth, svls
from dmseg.labels.trial import gives_soft_labels


@dataclass(frozen=True)
class Batch:
    """The input of one training step.

    Attributes:
        image: (B, C, H, W) float32 in [-1, 1]; padding is -1.
        target: (B, 2, H, W) float32, background and foreground, summing to 1.
        mask: (B, H, W) bool, False in the padding.
        raters: (B, R, H, W) float32, annotation of each rater, 0 or 1; only for methods that ask for it.
        present: (B, R) bool, which raters annotated the case; only for methods that ask for it.
    """

    image: Tensor
    target: Tensor
    mask: Tensor
    raters: Tensor | None = None
    present: Tensor | None = None

    @property
    def annotations(self) -> tuple[Tensor, Tensor]:
        """`raters` and `present`, for methods that need them.

        Raises:
            ValueError: if the batch does not carry them.
        """
        if self.raters is None or self.present is None:
            raise ValueError("this batch has no annotations of individual raters; load them with raters=True")
        return self.raters, self.present


@dataclass(frozen=True)
class TrainingData:
    """Slices and fused labels of the training cases.

    Attributes:
        images: (N, C, H, W) uint8 or int16, as prepared.
        labels: (N, V, H, W), V candidates per slice; uint8 for hard labels, float32 for soft ones.
        case_index: (N,) position of each slice's case.
        n_candidates: (cases,) number of candidates of each case, at most V.
        raters: (N, R, H, W) uint8, annotations of all raters, blank for absent ones; None unless a method asks for them
            or labels are interpolated rater by rater.
        present: (N, R) bool, which raters annotated the slice's case; None unless a method asks for it.
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


def network_input(images: Tensor, stored: torch.dtype) -> Tensor:
    """Maps prepared intensities, 0 to the largest value of their stored type, to float32 in [-1, 1]."""
    return images.float() / (torch.iinfo(stored).max / 2) - 1.0


def load_training(
    prepared: PreparedTask,
    ids: Sequence[str],
    fusion: Fusion,
    device: torch.device,
    raters: bool = False,
    votes: Callable[..., Votes] | None = None,
) -> TrainingData:
    """Loads the training cases of a fold and fuses their annotations; no other case is read.

    Cases for which the fusion has no label, such as those that a chosen rater did not annotate, are left out.

    Args:
        prepared: the store.
        ids: training cases.
        fusion: fusion strategy with its options bound.
        device: device of the tensors.
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
    counts = [case.n_slices for case in cases]
    for name, values in _by_rater(prepared, cases, fused, raters, votes).items():
        arrays[name] = np.repeat(values, counts, axis=0)
    return TrainingData(
        case_index=torch.repeat_interleave(torch.arange(len(cases)), torch.tensor(counts)),
        n_candidates=torch.tensor([len(label) for label in fused]),
        **{name: torch.from_numpy(values).to(device) for name, values in arrays.items()},
    )


def _by_rater(
    prepared: PreparedTask,
    cases: Sequence[PreparedCase],
    fused: Sequence[npt.NDArray[Any]],
    raters: bool,
    votes: Callable[..., Votes] | None,
) -> dict[str, npt.NDArray[Any]]:
    """`present`, `weights` and `threshold` of `TrainingData` for each case, as far as they are needed."""
    shape = (len(cases), len(prepared.task.raters))
    arrays: dict[str, npt.NDArray[Any]] = {}
    if raters:
        arrays["present"] = np.zeros(shape, dtype=bool)
        for row, case in zip(arrays["present"], cases, strict=True):
            row[list(case.raters)] = True
    if votes is not None:
        arrays["weights"] = np.zeros(shape)
        found = case_votes(prepared, cases, fused, votes)
        for row, case, own in zip(arrays["weights"], cases, found, strict=True):
            row[list(case.raters)] = own.weights
        if thresholds := [own.threshold for own in found if own.threshold is not None]:
            arrays["threshold"] = np.array(thresholds, dtype=np.float64)
    return arrays


def batches_per_epoch(n_slices: int, batch_size: int) -> int:
    """Number of complete batches.

    Raises:
        UserError: if there are fewer slices than one batch.
    """
    if n_slices < batch_size:
        raise UserError(
            f"this fold has {n_slices} training slices, fewer than one batch; reduce train.batch_size={batch_size}"
        )
    return n_slices // batch_size


class BatchSource:
    """An endless source of training batches, with separate random streams for order, raters and augmentation.

    It can stop between any two batches and later resume from its `state` with exactly the same batches.

    Args:
        data: the training data.
        labels: how labels are resampled and smoothed.
        train: batch size and augmentation.
        order: random stream for the order of slices; the same for all label strategies.
        rater: random stream for the candidate drawn for each case and epoch.
        augmentation: random stream for the views.
    """

    def __init__(
        self,
        data: TrainingData,
        labels: LabelSettings,
        train: TrainSettings,
        order: torch.Generator,
        rater: torch.Generator,
        augmentation: torch.Generator,
    ) -> None:
        self._data, self._labels, self._train = data, labels, train
        self._order, self._rater, self._augmentation = order, rater, augmentation
        self._position = 0
        self._epoch_start: dict[str, Tensor] = {}
        self._chosen = self._candidate = torch.empty(0, dtype=torch.long)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch.

        Raises:
            UserError: if there are fewer slices than one batch.
        """
        return batches_per_epoch(len(self._data), self._train.batch_size)

    @property
    def epochs(self) -> int:
        """Number of epochs; more than configured if those give fewer steps than ``train.min_steps``."""
        return max(self._train.epochs, math.ceil(self._train.min_steps / self.steps_per_epoch))

    def epoch(self) -> Iterator[Batch]:
        """Yields the batches of one epoch, or the remaining ones if it was interrupted."""
        for _ in range(self.steps_per_epoch - self._position):
            yield self.next()

    def next(self) -> Batch:
        """Returns the next batch; the incomplete last batch of an epoch is dropped."""
        if self._position == 0:
            self._begin_epoch()
        size = self._train.batch_size
        chosen = self._chosen[self._position * size : (self._position + 1) * size]
        self._position = (self._position + 1) % self.steps_per_epoch
        return self._batch(chosen, self._candidate[chosen])

    def state(self) -> dict[str, Any]:
        """State of the random streams and position in the epoch, for `load_state`."""
        streams = self._epoch_start if self._position else self._stream_states()
        return {"position": self._position, **streams, "augmentation": self._augmentation.get_state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Resumes from the state of an identical source."""
        self._order.set_state(state["order"])
        self._rater.set_state(state["rater"])
        if state["position"]:
            self._begin_epoch()
        self._position = state["position"]
        self._augmentation.set_state(state["augmentation"])

    def _stream_states(self) -> dict[str, Tensor]:
        return {"order": self._order.get_state(), "rater": self._rater.get_state()}

    def _begin_epoch(self) -> None:
        self._epoch_start = self._stream_states()
        self._chosen = torch.randperm(len(self._data), generator=self._order)
        drawn = torch.rand(len(self._data.n_candidates), generator=self._rater)
        self._candidate = (drawn * self._data.n_candidates).long()[self._data.case_index]

    def _batch(self, chosen: Tensor, candidate: Tensor) -> Batch:
        device, train = self._data.images.device, self._train
        views = draw_views(len(chosen), (train.scale[0], train.scale[1]), train.flip, self._augmentation)
        chosen, candidate = chosen.to(device), candidate.to(device)
        image = self._data.images[chosen]
        grid, mask = sampling_grid(views, (image.shape[2], image.shape[3]), device, train.crop)
        sampled = resample(image.float(), grid, linear=True) * mask.unsqueeze(1)
        label, smoothing = self._label(chosen, candidate, grid), self._labels.smoothing
        if smoothing is not None and smoothing.kind == "svls":
            label = svls(label, **smoothing.arguments)  # before masking: padding repeats the border
        foreground = label * mask.unsqueeze(1)
        target = torch.cat([1.0 - foreground, foreground], dim=1)
        if smoothing is not None and smoothing.kind != "svls":
            target = smooth(target, mask, **smoothing.arguments)
        image = network_input(sampled, self._data.images.dtype)
        if self._data.raters is None or self._data.present is None:
            return Batch(image, target, mask)
        masks = resample(self._data.raters[chosen].float(), grid, linear=False) * mask.unsqueeze(1)
        return Batch(image, target, mask, masks, self._data.present[chosen])

    def _label(self, chosen: Tensor, candidate: Tensor, grid: Tensor) -> Tensor:
        """The foreground label at the grid's positions, (B, 1, h, w)."""
        data = self._data
        if self._labels.interpolation != "rater":
            label = data.labels[chosen, candidate].unsqueeze(1).float()
            return resample(label, grid, linear=self._labels.interpolation == "linear")
        if data.raters is None or data.weights is None:
            raise ValueError("the training data have no rater weights; load them with votes")
        threshold = None if data.threshold is None else data.threshold[chosen]
        return fuse_resampled(data.raters[chosen], grid, data.weights[chosen], threshold)
