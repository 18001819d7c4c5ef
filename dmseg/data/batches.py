"""Training and evaluation data of one fold as tensors, and batches of them."""

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dmseg.data.augment import draw_views, resample, sampling_grid
from dmseg.data.prepared import PreparedCase, PreparedTask
from dmseg.errors import UserError
from dmseg.labels.fusion import FusionWarning
from dmseg.labels.smoothing import smooth
from dmseg.settings import LabelSettings, TrainSettings

Fusion = Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """What one step trains on.

    Attributes:
        image: (B, C, H, W) float32 in [-1, 1]; padding is -1.
        target: (B, 2, H, W) float32, background and foreground, summing to 1.
        mask: (B, H, W) bool, False in the padding.
    """

    image: Tensor
    target: Tensor
    mask: Tensor


@dataclass(frozen=True)
class TrainingData:
    """Slices and fused labels of the training cases.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N, V, H, W), V candidates a slice; uint8 for hard labels, float32 for soft ones.
        case_index: (N,) position of each slice's case.
        n_candidates: (cases,) how many of the V candidates each case has.
    """

    images: Tensor
    labels: Tensor
    case_index: Tensor
    n_candidates: Tensor

    def __len__(self) -> int:
        return len(self.images)


def network_input(images: Tensor) -> Tensor:
    """Maps prepared uint8 intensities to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1.0


def select_cases(prepared: PreparedTask, ids: Sequence[str]) -> list[PreparedCase]:
    """Returns the cases with these ids, in their order."""
    by_id = {case.case: case for case in prepared.cases}
    return [by_id[case] for case in ids]


def fuse_cases(prepared: PreparedTask, cases: Sequence[PreparedCase], fusion: Fusion) -> list[npt.NDArray[Any]]:
    """Fuses the annotations of each whole case.

    Returns:
        One array (V, n_slices, H, W) for each case, V candidates.
    """
    fused, noted = [], []
    for case in cases:
        annotations = prepared.annotations(case)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FusionWarning)
            label = fusion(annotations)
        noted += [(case.case, str(warning.message)) for warning in caught]
        fused.append(label if label.ndim == annotations.ndim else label[np.newaxis])
    if noted:
        log.info(
            "%d of %d cases: %s (%s)",
            len(noted),
            len(cases),
            noted[0][1],
            ", ".join(case for case, _ in noted),
        )
    return fused


def load_training(
    prepared: PreparedTask, ids: Sequence[str], fusion: Fusion, soft: bool, device: torch.device
) -> TrainingData:
    """Loads the training cases of a fold and fuses their annotations; no other case is read.

    Args:
        prepared: the store.
        ids: training cases.
        fusion: fusion strategy with its options bound.
        soft: whether its labels lie between 0 and 1.
        device: where training runs.
    """
    cases = select_cases(prepared, ids)
    fused = fuse_cases(prepared, cases, fusion)
    n_slices = sum(case.n_slices for case in cases)
    dtype = np.float32 if soft else np.uint8
    labels = np.zeros((n_slices, max(map(len, fused)), *fused[0].shape[2:]), dtype=dtype)
    position = 0
    for label in fused:
        labels[position : position + label.shape[1], : len(label)] = np.moveaxis(label, 0, 1)
        position += label.shape[1]
    images = np.concatenate([prepared.images[case.span] for case in cases])
    counts = torch.tensor([case.n_slices for case in cases])
    return TrainingData(
        torch.from_numpy(images).to(device),
        torch.from_numpy(labels).to(device),
        torch.repeat_interleave(torch.arange(len(cases)), counts),
        torch.tensor([len(label) for label in fused]),
    )


def batches_per_epoch(n_slices: int, batch_size: int) -> int:
    """Number of whole batches.

    Raises:
        UserError: if there are fewer slices than one batch.
    """
    if n_slices < batch_size:
        raise UserError(
            f"this fold has {n_slices} training slices, fewer than one batch; lower train.batch_size={batch_size}"
        )
    return n_slices // batch_size


@dataclass(frozen=True)
class BatchSource:
    """Endless order, rater draws and augmentation over the training data, each from its own stream.

    Attributes:
        data: the training data.
        labels: how labels are resampled and smoothed.
        train: batch size and augmentation.
        order: stream of the order of slices; the same for all label strategies.
        rater: stream of the candidate drawn for each case and epoch.
        augmentation: stream of the views.
    """

    data: TrainingData
    labels: LabelSettings
    train: TrainSettings
    order: torch.Generator
    rater: torch.Generator
    augmentation: torch.Generator

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch.

        Raises:
            UserError: if there are fewer slices than one batch.
        """
        return batches_per_epoch(len(self.data), self.train.batch_size)

    @property
    def epochs(self) -> int:
        """Number of epochs, raised where the configured ones give too few steps."""
        return max(self.train.epochs, math.ceil(self.train.min_steps / self.steps_per_epoch))

    def epoch(self) -> Iterator[Batch]:
        """Yields the batches of one pass over the data; the incomplete last batch is dropped."""
        size = self.train.batch_size
        order = torch.randperm(len(self.data), generator=self.order)
        drawn = torch.rand(len(self.data.n_candidates), generator=self.rater)
        candidate = (drawn * self.data.n_candidates).long()[self.data.case_index]
        for index in range(self.steps_per_epoch):
            chosen = order[index * size : (index + 1) * size]
            yield self._batch(chosen, candidate[chosen])

    def _batch(self, chosen: Tensor, candidate: Tensor) -> Batch:
        device = self.data.images.device
        views = draw_views(len(chosen), (self.train.scale[0], self.train.scale[1]), self.train.flip, self.augmentation)
        chosen, candidate = chosen.to(device), candidate.to(device)
        image, label = self.data.images[chosen], self.data.labels[chosen, candidate].unsqueeze(1)
        grid, mask = sampling_grid(views, (image.shape[2], image.shape[3]), device)
        sampled = resample(image.float(), grid, linear=True) * mask.unsqueeze(1)
        foreground = resample(label.float(), grid, linear=self.labels.soft) * mask.unsqueeze(1)
        target = torch.cat([1.0 - foreground, foreground], dim=1)
        if self.labels.smoothing is not None:
            target = smooth(target, mask, self.labels.smoothing)
        return Batch(network_input(sampled), target, mask)
