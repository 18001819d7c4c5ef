"""Evaluation: foreground probabilities of the validation cases and the scores of each case."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from dmseg.activity import activity
from dmseg.config.settings import EvaluateSettings
from dmseg.data.augment import centre_crop
from dmseg.data.batches import network_input
from dmseg.data.geometry import find_geometry
from dmseg.data.labels import fuse_cases, select_cases
from dmseg.data.parts import Intensities
from dmseg.data.prepared import PreparedCase, PreparedTask
from dmseg.files.names import check_name
from dmseg.labels.fusion import Fusion
from dmseg.metrics.agreement import majority_vote
from dmseg.metrics.energy_distance import shared_pixels, squared_ged
from dmseg.metrics.histogram import count_batch
from dmseg.metrics.levels import BDICE_LEVELS
from dmseg.metrics.named import MASK_METRICS, CaseMasks, mask_metrics
from dmseg.metrics.scores import EmptyRule, case_scores
from dmseg.training.precision import float32_math
from dmseg.training.predictor import Predictor

Array = npt.NDArray[np.float32]


@float32_math(tf32=False)
@torch.inference_mode()
def predict(predictor: Predictor, images: Intensities, device: torch.device, batch_size: int) -> Array:
    """Foreground probabilities, computed in float32 without TF32.

    Args:
        predictor: predicts probabilities.
        images: (N, C, H, W), as in the prepared store.
        device: device of its network.
        batch_size: number of slices in a batch.

    Returns:
        (N, H, W) float32 in [0, 1].
    """
    return np.concatenate([part.cpu().numpy() for part in _apply(predictor.probability, images, device, batch_size)])


def _apply(
    function: Callable[[Tensor], Tensor], images: Intensities, device: torch.device, batch_size: int
) -> Iterator[Tensor]:
    """Applies a function of a predictor to images batch by batch, in float32."""
    for start in range(0, len(images), batch_size):
        chunk = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
        image = network_input(chunk, chunk.dtype).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, enabled=False):
            yield function(image)


@float32_math(tf32=False)
@torch.inference_mode()
def energy_distances(
    predictor: Predictor,
    images: Intensities,
    prepared: PreparedTask,
    group: Sequence[PreparedCase],
    settings: EvaluateSettings,
    device: torch.device,
) -> list[float]:
    """Squared generalised energy distance between the samples for each case and the case's annotations.

    Args:
        predictor: predicts samples.
        images: (N, C, H, W), all slices of the cases, cropped.
        prepared: the store.
        group: the cases.
        settings: crop and batch size.
        device: device of the network.

    Returns:
        One distance in [0, 2] for each case.
    """
    raters = np.concatenate([centre_crop(prepared.annotation_arrays[case.span], settings.crop) for case in group])
    counts, n_samples, start = [], 0, 0
    for samples in _apply(predictor.samples, images, device, settings.batch_size):
        own = raters[start : start + len(samples)] != 0
        counts.append(shared_pixels(np.concatenate([samples.cpu().numpy(), own], axis=1)))
        n_samples, start = samples.shape[1], start + len(samples)
    found = []
    for case, shared in zip(group, _by_case(np.concatenate(counts), group), strict=True):
        present = [*range(n_samples), *(n_samples + rater for rater in case.raters)]
        found.append(squared_ged(shared.sum(axis=0)[np.ix_(present, present)], n_samples))
    return found


def evaluate(
    predictor: Predictor,
    prepared: PreparedTask,
    ids: Sequence[str],
    reference: Fusion,
    settings: EvaluateSettings,
    device: torch.device,
    take: Callable[[CaseMasks, Array, Intensities], None] = lambda masks, label, slices: None,
) -> pd.DataFrame:
    """Scores the validation cases of a fold.

    Args:
        predictor: predicts with the trained network.
        prepared: the store.
        ids: validation cases.
        reference: fusion whose result is the reference for BDice.
        settings: rules for empty masks and ties, bins, crop, batch size, and the scores to add.
        device: device of the network.
        take: called with the masks of each case, its reference label (S, H, W), and its slices (S, C, H, W).

    Returns:
        One row for each case: ``case, dice, bdice, ece, ...`` as fractions; with `settings.ged` also ``ged`` in [0, 2].
    """
    rows = []
    names = mask_metrics(settings.metrics)
    geometry = find_geometry(prepared, names, settings.spacing)
    with activity("scoring", len(ids), "cases") as advance:
        for group in _groups(select_cases(prepared, ids), settings.batch_size):
            images = np.concatenate([centre_crop(prepared.images[case.span], settings.crop) for case in group])
            probability = predict(predictor, images, device, settings.batch_size)
            fused = fuse_cases(prepared, group, reference)  # of whole cases
            labels = [centre_crop(label[0], settings.crop).astype(np.float32) for label in fused]
            masks = []
            for case, values in zip(group, _by_case(probability, group), strict=True):
                marked = centre_crop(prepared.annotations(case), settings.crop) != 0
                majority = majority_vote(marked, settings.ties)
                spacing = None if geometry.spacing is None else geometry.spacing[case.case]
                masks.append(
                    CaseMasks(
                        case.case,
                        values,
                        majority,
                        marked,
                        spacing,
                        geometry.volumes,
                        settings.tolerance,
                        settings.empty,
                    )
                )
            scores = _score(masks, np.concatenate(labels), group, settings)
            for item, label, slices in zip(masks, labels, _by_case(images, group), strict=True):
                take(item, label, slices)
            if settings.ged:
                distances = energy_distances(predictor, images, prepared, group, settings, device)
                scores = [row | {"ged": value} for row, value in zip(scores, distances, strict=True)]
            for row, item in zip(scores, masks, strict=True):
                row.update({name: MASK_METRICS[name](item) for name in names})
            rows += scores
            advance(len(group))
    return pd.DataFrame(rows)


def save_prediction(folder: Path, case: str, probability: Array) -> None:
    """Writes a case's probabilities (S, H, W) to ``<folder>/<case>.npy``, as (H, W) if there is only one slice."""
    check_name(case, "the id of a case")
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{case}.npy", probability[0] if len(probability) == 1 else probability)


def _score(
    masks: Sequence[CaseMasks], reference: Array, group: Sequence[PreparedCase], settings: EvaluateSettings
) -> list[dict[str, float | int | str]]:
    index = np.repeat(np.arange(len(group)), [case.n_slices for case in group])
    counts = count_batch(
        torch.from_numpy(np.concatenate([case.probability for case in masks])),
        torch.from_numpy(np.concatenate([case.majority for case in masks])),
        torch.from_numpy(reference),
        torch.from_numpy(index),
        len(group),
        levels=BDICE_LEVELS,
        n_bins=settings.bins,
    )
    return [
        {
            "case": case.case,
            **case_scores(count, cast(EmptyRule, settings.empty)),
            "n_slices": case.n_slices,
            "n_raters": len(case.raters),
        }
        for case, count in zip(group, counts, strict=True)
    ]


def _by_case(values: npt.NDArray[Any], group: Sequence[PreparedCase]) -> list[npt.NDArray[Any]]:
    return np.split(values, np.cumsum([case.n_slices for case in group])[:-1])


def _groups(cases: Sequence[PreparedCase], batch_size: int) -> Iterator[list[PreparedCase]]:
    """Groups of whole cases that together fill at least one batch, except for the last group."""
    group: list[PreparedCase] = []
    for case in cases:
        group.append(case)
        if sum(item.n_slices for item in group) >= batch_size:
            yield group
            group = []
    if group:
        yield group
