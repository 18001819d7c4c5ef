"""Pictures of a few validation cases, to look at.

A picture shows one slice of a case: the image, each rater's mask, the reference label and the predicted probability,
all as uint8 and reduced in size. `Gallery` chooses the cases while they are scored.
"""

import math
import zlib
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

ROLES = ("fixed", "best", "median", "worst")
"""Why a case is shown: it is one of the first cases, the same for all networks, or has this Dice among the cases."""
FIXED = 2
"""Number of fixed cases: the first that any rater marked, or the first of all if there are none."""
LARGEST_EDGE = 192
"""Larger slices are reduced to this many pixels."""
MOST_CASES = 2000
"""Only the first cases are considered, at most this many."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One slice of a validation case.

    Attributes:
        case: id of the case.
        roles: some of `ROLES`, in their order.
        dice: the case's Dice in [0, 1], over all of its slices; NaN if it has none.
        slice: index of the slice in the case, from 0.
        n_slices: number of slices of the case.
        image: (H, W) uint8, the first channel, from the lowest to the highest intensity of the data's window.
        raters: (R, H, W) uint8, 0 or 1.
        reference: (H, W) uint8, the reference label; 255 is 1.
        probability: (H, W) uint8, the foreground probability; 255 is 1.
    """

    case: str
    roles: tuple[str, ...]
    dice: float
    slice: int
    n_slices: int
    image: Bytes
    raters: Bytes
    reference: Bytes
    probability: Bytes


def take_picture(
    case: str,
    images: npt.NDArray[Any],
    raters: npt.NDArray[np.bool_],
    reference: npt.NDArray[np.float32],
    probability: npt.NDArray[np.float32],
) -> Picture:
    """Takes the slice of a case with the most marked pixels, summed over raters; without any, the one in the middle.

    Args:
        case: id of the case.
        images: (S, C, H, W) uint8 or int16.
        raters: (R, S, H, W).
        reference: (S, H, W) in [0, 1].
        probability: (S, H, W) in [0, 1].
    """
    marked = raters.sum(axis=(0, 2, 3))
    chosen = int(marked.argmax()) if marked.any() else len(marked) // 2
    image = images[chosen, 0]
    return Picture(
        case,
        (),
        math.nan,
        chosen,
        len(marked),
        _as_bytes(image.astype(np.float32) / np.iinfo(image.dtype).max),
        (_reduced(raters[:, chosen].astype(np.float32), LARGEST_EDGE) >= 0.5).astype(np.uint8),
        _as_bytes(reference[chosen]),
        _as_bytes(probability[chosen]),
    )


def shrink(picture: Picture, edge: int) -> Picture:
    """The picture with edges of at most `edge` pixels: each pixel is the mean of those it covers."""

    def small(layer: Bytes) -> Bytes:
        return np.round(_reduced(layer.astype(np.float32), edge)).astype(np.uint8)

    raters = (_reduced(picture.raters.astype(np.float32), edge) >= 0.5).astype(np.uint8)
    layers = picture.image, picture.reference, picture.probability
    image, reference, probability = map(small, layers)
    return replace(picture, image=image, raters=raters, reference=reference, probability=probability)


class Gallery:
    """Collects a picture of each case while it is scored, and chooses some of them at the end.

    Pictures are kept compressed (some 20 kB each), since the median is known only when all cases are scored.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Picture, bytes]] = {}

    def add(
        self,
        case: str,
        images: npt.NDArray[Any],
        raters: npt.NDArray[np.bool_],
        reference: npt.NDArray[np.float32],
        probability: npt.NDArray[np.float32],
    ) -> None:
        """Takes a picture of a case (`take_picture`)."""
        if len(self._kept) < MOST_CASES:
            picture = take_picture(case, images, raters, reference, probability)
            layers = np.concatenate([picture.raters, [picture.image, picture.reference, picture.probability]])
            self._kept[case] = replace(picture, raters=layers[:0]), zlib.compress(layers.tobytes(), 1)

    def chosen(self, dice: dict[str, float]) -> list[Picture]:
        """The chosen pictures, in the order of `ROLES`; a case has only one picture, with all of its roles.

        Args:
            dice: Dice of all cases.
        """
        marked = (name for name in self._kept if self._picture(name).raters.any())
        fixed = list(islice(marked, FIXED)) or list(self._kept)[:FIXED]
        found = {name: self._picture(name) for name in fixed}
        scored = sorted((value, name) for name, value in dice.items() if name in self._kept and math.isfinite(value))
        roles: dict[str, list[str]] = {name: ["fixed"] for name in found}
        if scored:
            for role, (_, name) in zip(ROLES[1:], (scored[-1], scored[(len(scored) - 1) // 2], scored[0]), strict=True):
                roles.setdefault(name, []).append(role)
        return [
            replace(found.get(name) or self._picture(name), roles=tuple(own), dice=dice.get(name, math.nan))
            for name, own in roles.items()
        ]

    def _picture(self, case: str) -> Picture:
        picture, packed = self._kept[case]
        layers = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(-1, *picture.image.shape)
        return replace(picture, raters=layers[:-3])


def _as_bytes(values: npt.NDArray[np.float32]) -> Bytes:
    """Values in [0, 1] as 0 to 255, reduced to `LARGEST_EDGE`."""
    return np.round(255 * np.clip(_reduced(values, LARGEST_EDGE), 0, 1)).astype(np.uint8)


def _reduced(values: npt.NDArray[np.float32], edge: int) -> npt.NDArray[np.float32]:
    """Means (..., h, w) over the pixels of (..., H, W), so that no edge is longer than `edge`."""
    height, width = values.shape[-2:]
    longest = max(height, width)
    if longest <= edge or not values.size:
        return values
    shape = [max(1, round(extent * edge / longest)) for extent in (height, width)]
    starts = [np.arange(short) * extent // short for short, extent in zip(shape, (height, width), strict=True)]
    sums = np.add.reduceat(np.add.reduceat(values, starts[0], axis=-2), starts[1], axis=-1)
    sizes = [np.diff(start, append=extent) for start, extent in zip(starts, (height, width), strict=True)]
    return np.asarray(sums / np.outer(*sizes).astype(np.float32))
