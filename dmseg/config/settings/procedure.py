"""Settings of the procedure: optimiser, training, folds and evaluation."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class OptimSettings:
    """Stochastic gradient descent with a poly schedule.

    Attributes:
        lr: initial learning rate of the encoder.
        decoder_lr_factor: factor on `lr` for everything but the encoder.
        momentum: momentum.
        weight_decay: L2 penalty.
        decay_norm_and_bias: whether weight decay also applies to one-dimensional parameters (normalisation, bias).
        poly_power: exponent of the poly schedule.
        warmup: fraction of the iterations with a linear warm-up, in [0, 1).
    """

    lr: float
    decoder_lr_factor: float
    momentum: float
    weight_decay: float
    decay_norm_and_bias: bool
    poly_power: float
    warmup: float


@dataclass(frozen=True)
class TrainSettings:
    """Length of the training, batches and augmentation.

    Attributes:
        epochs: passes over the training cases.
        min_steps: minimum number of optimiser steps; epochs are added if there would be fewer.
        batch_size: slices in a batch; the last incomplete batch of an epoch is dropped.
        scale: smallest and largest isotropic scale of the augmentation.
        flip: probability of a left-right flip.
        crop: edge of the random crop as a fraction of the slice's edge; 1 takes crops of the size of the slice.
    """

    epochs: int
    min_steps: int
    batch_size: int
    scale: list[float]
    flip: float
    crop: float = 1.0


@dataclass(frozen=True)
class FoldSettings:
    """How cases are split.

    Attributes:
        kind: ``contiguous`` blocks of the sorted ids, or ``shuffled``.
        count: number of folds; None for 5, or for the number of folds in `file`.
        seed: seed of the shuffled kind; None for contiguous.
        file: JSON file with the training and validation cases of each fold, like nnU-Net's ``splits_final.json``;
            `kind` and `seed` then have no effect.
        groups: CSV file with the columns ``case`` and ``group``; the cases of a group stay in one fold.
    """

    kind: str
    count: int | None
    seed: int | None = None
    file: str | None = None
    groups: str | None = None


@dataclass(frozen=True)
class EvaluateSettings:
    """How a trained network is scored.

    Attributes:
        reference: dotted name (`_target_`) and options of the fusion that is the reference of BDice.
        empty: score of two empty masks: ``skip``, ``one`` or ``zero``.
        bins: number of confidence bins of the ECE.
        batch_size: slices in a batch.
        save_predictions: whether to save foreground probabilities.
        crop: edge of the centre crop to score, as a fraction of the slice's edge; pixels outside it are ignored.
        ged: whether to compute the generalised energy distance between the samples of the prediction and the raters.
        ties: what a tie counts as in the majority vote of the raters: ``background`` or ``foreground``.
        boundary: pixels on each side of a contour that belong to the boundary band of `ece_boundary`.
        metrics: additional metrics (`dmseg.metrics.named`).
        tolerance: tolerance of NSD in mm.
        spacing: distance in mm between rows, columns and (for volumes) slices as prepared, in place of the spacing in
            the files; None for that of the files.
        pack: whether to save pictures of a few cases.
        add_packs: whether to score runs that were stored without pictures again, to add them.
        every: epochs between two validations during training, which only trackers use; 0 for none, None for ten
            validations if there is a tracker.
    """

    reference: dict[str, Any]
    empty: str
    bins: int
    batch_size: int
    save_predictions: bool
    crop: float = 1.0
    ged: bool = False
    ties: str = "background"
    boundary: int = 2
    metrics: list[str] = field(default_factory=list)
    tolerance: float = 2.0
    spacing: list[float] | None = None
    pack: bool = True
    add_packs: bool = False
    every: int | None = None


@dataclass(frozen=True)
class AgreementSettings:
    """How raters are compared with the majority in Table 1.

    Attributes:
        disjoint: Dice of a rater without any overlap with the majority, 0 or 1.
    """

    disjoint: float
