"""Batches of the training data of one fold."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from dmseg.config.settings import LabelSettings, TrainSettings
from dmseg.data.augment import Views, draw_views, fuse_resampled, resample, sampling_grid
from dmseg.data.training_slices import TrainingData
from dmseg.errors import UserError
from dmseg.labels.smoothing import smooth, svls

TOGETHER = 2**17
"""Several small batches are made at once: as many as have about this many intensities (C, H, W) in total."""
READ_AHEAD = 3
"""Number of batches that are read ahead."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Batch:
    """The input of one training step.

    Attributes:
        image: (B, C, H, W) float32 in [-1, 1]; padding is -1.
        target: (B, 2, H, W) float32, background and foreground, summing to 1.
        mask: (B, H, W) bool, False in the padding.
        raters: (B, R, H, W) float32, annotation of each rater, 0 or 1; only for methods that need it.
        present: (B, R) bool, which raters annotated the case; only for methods that need it.
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

    def split(self, size: int) -> list["Batch"]:
        """Splits the batch into batches of `size` samples, which share its memory."""
        parts = {name: value.split(size) for name, value in vars(self).items() if value is not None}
        return [Batch(**dict(zip(parts, values, strict=True))) for values in zip(*parts.values(), strict=True)]


def send(values: Tensor, device: torch.device) -> Tensor:
    """Copies values of host memory to a device in one copy; a copy to a GPU is asynchronous."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


@dataclass(frozen=True)
class Slices:
    """The stored slices of a batch before augmentation.

    Attributes:
        images: (B, C, H, W), as prepared.
        labels: (B, 1, H, W), the candidate drawn for each slice; None if labels are interpolated rater by rater.
        raters: (B, R, H, W) uint8; this and the others as in `TrainingData`.
        present: (B, R) bool.
        weights: (B, R) float64.
        threshold: (B,) float64.
    """

    images: Tensor
    labels: Tensor | None
    raters: Tensor | None
    present: Tensor | None
    weights: Tensor | None
    threshold: Tensor | None

    def to(self, device: torch.device) -> "Slices":
        """The slices on a device; copies from pinned memory are asynchronous."""
        return self._each(lambda value: value.to(device, non_blocking=True))

    def pinned(self) -> "Slices":
        """The slices in pinned memory."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Slices":
        found = {name: change(value) for name, value in vars(self).items() if value is not None}
        return replace(self, **found)


def network_input(images: Tensor, stored: torch.dtype) -> Tensor:
    """Maps prepared intensities, 0 to the largest value of their stored type, to float32 in [-1, 1]."""
    return images.float() / (torch.iinfo(stored).max / 2) - 1.0


def batches_per_epoch(n_slices: int, batch_size: int) -> int:
    """Number of complete batches.

    Raises:
        UserError: if there are fewer slices than one batch.
    """
    if n_slices < batch_size:
        remedy = f"reduce train.batch_size={batch_size}" if n_slices > 1 else "a batch needs at least two, so add cases"
        slices = f"{n_slices} training slice{'' if n_slices == 1 else 's'}"
        raise UserError(f"this fold has {slices}, fewer than one batch; {remedy}")
    return n_slices // batch_size


def gather(data: TrainingData, chosen: Tensor, candidate: Tensor, by_rater: bool) -> Slices:
    """The stored slices of a batch.

    Args:
        data: the training data.
        chosen: (B,) indices of slices, on the device of the data.
        candidate: (B,) candidate of each slice's label.
        by_rater: whether labels are interpolated rater by rater, so that fused labels are not needed.
    """

    def rows(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[chosen]

    return Slices(
        images=data.images[chosen],
        labels=None if by_rater else data.labels[chosen, candidate].unsqueeze(1),
        raters=rows(data.raters),
        present=rows(data.present),
        weights=rows(data.weights),
        threshold=rows(data.threshold),
    )


class BatchSource:
    """An endless source of training batches, with separate random streams for order, raters and augmentation.

    Order, candidates and views are drawn for a whole epoch and sent to the device in one copy. From then on a batch is
    made on the device alone, without copies in either direction. Several batches of small slices are made at once
    (`TOGETHER`), because launching operations takes longer than their arithmetic. Training data that stay in host
    memory (`place`) are read by a thread, `READ_AHEAD` batches ahead of training.

    It can stop between any two batches and later resume from its `state` with exactly the same batches.

    Args:
        data: the training data.
        labels: how labels are resampled and smoothed.
        train: batch size and augmentation.
        order: random stream for the order of slices; the same for all label strategies.
        rater: random stream for the candidate drawn for each case and epoch.
        augmentation: random stream for the views.
        device: device of the batches; None for that of the data.
    """

    def __init__(
        self,
        data: TrainingData,
        labels: LabelSettings,
        train: TrainSettings,
        order: torch.Generator,
        rater: torch.Generator,
        augmentation: torch.Generator,
        device: torch.device | None = None,
    ) -> None:
        self._data, self._labels, self._train = data, labels, train
        self._order, self._rater, self._augmentation = order, rater, augmentation
        self._device = data.images.device if device is None else device
        self.is_resident = self._device.type == data.images.device.type
        """Whether the data are on the device of the batches."""
        self._position = 0
        self._epoch_start: dict[str, Tensor] = {}
        self._views_start: tuple[int, Tensor] = 0, augmentation.get_state()
        self._rows = torch.empty(0)
        self._made: dict[int, Batch] = {}
        self._reader = None if self.is_resident else ReadAhead(self._read)

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

    def next(self) -> Batch:
        """Returns the next batch; the incomplete last batch of an epoch is dropped."""
        row = self.next_row()
        if self._reader is not None:
            return self._augmented(self._reader.next().to(self._device), _views(row))
        position = (self._position - 1) % self.steps_per_epoch
        if position not in self._made:
            together = max(1, TOGETHER // (self._train.batch_size * self._data.images[0].numel()))
            rows = self._rows[position : position + together]
            batches = self.batch(rows.flatten(0, 1)).split(rows.shape[1])
            self._made = dict(enumerate(batches, position))
        return self._made.pop(position)

    def next_row(self) -> Tensor:
        """Proceeds to the next batch and returns what was drawn for it, (B, 6) float64 on the device (`batch`)."""
        if self._position == 0:
            self._begin_epoch(0)
        row = self._rows[self._position]
        self._position = (self._position + 1) % self.steps_per_epoch
        return row

    def batch(self, row: Tensor) -> Batch:
        """Makes a batch of resident data from what was drawn for it.

        Args:
            row: (B, 6) float64: index of the slice, candidate, scale, offset of the row and of the column, flip.
        """
        chosen, candidate = row[:, 0].long(), row[:, 1].long()
        return self._augmented(gather(self._data, chosen, candidate, self._by_rater), _views(row))

    def state(self) -> dict[str, Any]:
        """State of the random streams and position in the epoch, for `load_state`."""
        if not self._position:
            return {"position": 0, **self._stream_states(), "augmentation": self._augmentation.get_state()}
        # the views of the whole epoch are drawn already; the state is that after the batches so far
        first, start = self._views_start
        again = torch.Generator()
        again.set_state(start)
        self._draw_views(self._position - first, again)
        return {"position": self._position, **self._epoch_start, "augmentation": again.get_state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Resumes from the state of an identical source."""
        self._order.set_state(state["order"])
        self._rater.set_state(state["rater"])
        self._augmentation.set_state(state["augmentation"])
        if state["position"]:
            self._begin_epoch(state["position"])
        self._position = state["position"]

    @property
    def _by_rater(self) -> bool:
        return self._labels.interpolation == "rater"

    def _stream_states(self) -> dict[str, Tensor]:
        return {"order": self._order.get_state(), "rater": self._rater.get_state()}

    def _draw_views(self, steps: int, generator: torch.Generator) -> Views:
        """Draws the views of several steps; the same as drawing them step by step."""
        scale = self._train.scale
        return draw_views(steps * self._train.batch_size, (scale[0], scale[1]), self._train.flip, generator)

    def _begin_epoch(self, first: int) -> None:
        """Draws an epoch: order and candidates of all batches, and the views from batch `first` on."""
        self._epoch_start = self._stream_states()
        self._views_start = first, self._augmentation.get_state()
        steps, size = self.steps_per_epoch, self._train.batch_size
        chosen = torch.randperm(len(self._data), generator=self._order)
        drawn = torch.rand(len(self._data.n_candidates), generator=self._rater)
        candidate = (drawn * self._data.n_candidates).long()[self._data.case_index]
        rows = torch.zeros(steps, size, 6, dtype=torch.float64)  # exact for indices and float32
        used = chosen[: steps * size].reshape(steps, size)
        rows[..., 0], rows[..., 1] = used, candidate[used]
        views = self._draw_views(steps - first, self._augmentation)
        drawn = torch.cat([views.scale[:, None], views.offset, views.flip[:, None]], dim=1)
        rows[first:, :, 2:] = drawn.reshape(-1, size, 4)
        self._rows, self._made = send(rows, self._device), {}
        if self._reader is not None:
            self._reader.begin(rows[first:])

    def _read(self, row: Tensor) -> Slices:
        """Reads the slices of a row from host memory, into pinned memory if they are sent to a GPU."""
        slices = gather(self._data, row[:, 0].long(), row[:, 1].long(), self._by_rater)
        return slices.pinned() if self._device.type == "cuda" else slices

    def _augmented(self, slices: Slices, views: Views) -> Batch:
        train, smoothing = self._train, self._labels.smoothing
        height, width = slices.images.shape[2:]
        grid, mask = sampling_grid(views, (height, width), self._device, train.crop)
        sampled = resample(slices.images.float(), grid, linear=True) * mask.unsqueeze(1)
        if slices.labels is not None:
            label = resample(slices.labels.float(), grid, linear=self._labels.interpolation == "linear")
        elif slices.raters is not None and slices.weights is not None:
            label = fuse_resampled(slices.raters, grid, slices.weights, slices.threshold)
        else:
            raise ValueError("the training data have no rater weights; load them with votes")
        if smoothing is not None and smoothing.kind == "svls":
            label = svls(label, **smoothing.arguments)  # before masking: padding repeats the border
        foreground = label * mask.unsqueeze(1)
        target = torch.cat([1.0 - foreground, foreground], dim=1)
        if smoothing is not None and smoothing.kind != "svls":
            target = smooth(target, mask, **smoothing.arguments)
        image = network_input(sampled, slices.images.dtype)
        if slices.raters is None or slices.present is None:
            return Batch(image, target, mask)
        masks = resample(slices.raters.float(), grid, linear=False) * mask.unsqueeze(1)
        return Batch(image, target, mask, masks, slices.present)


class ReadAhead(Generic[Item]):
    """Reads the batches of an epoch in a thread, `READ_AHEAD` of them ahead.

    Args:
        read: reads the slices of one batch.
    """

    def __init__(self, read: Callable[[Tensor], Item]) -> None:
        self._read = read
        self._pool = ThreadPoolExecutor(1, "read-ahead")
        self._coming: deque[Future[Item]] = deque()
        self._rest: Iterator[Tensor] = iter(())

    def begin(self, rows: Tensor) -> None:
        """Starts with other batches; those that were read ahead are discarded."""
        for item in self._coming:
            item.cancel()
        self._coming.clear()
        self._rest = iter(rows)
        for row in islice(self._rest, READ_AHEAD):
            self._coming.append(self._pool.submit(self._read, row))

    def next(self) -> Item:
        """Returns the next batch, or raises the error that reading it raised."""
        for row in islice(self._rest, 1):
            self._coming.append(self._pool.submit(self._read, row))
        return self._coming.popleft().result()


def _views(row: Tensor) -> Views:
    """The views of a batch from what was drawn for it."""
    return Views(row[:, 2].float(), row[:, 3:5].float(), row[:, 5] > 0)
