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
        decay_norm_and_bias: whether one-dimensional parameters (normalisation, bias) are decayed too.
        poly_power: exponent of the poly schedule.
        warmup: share of all iterations with a linear warm-up, in [0, 1).
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
    """How long and on what a network is trained.

    Attributes:
        epochs: passes over the training cases.
        min_steps: least number of optimiser steps; where the epochs give fewer, further epochs are added.
        batch_size: slices in a batch; the last incomplete batch of an epoch is dropped.
        scale: smallest and largest isotropic scale of the augmentation.
        flip: probability of a left-right flip.
        crop: edge of the random crop as a share of the slice's; 1 takes crops of the slice's own size.
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
        count: number of folds; None for 5, or for as many as `file` has.
        seed: seed of the shuffled kind; None for contiguous.
        file: JSON file with the training and validation cases of each fold, as nnU-Net's ``splits_final.json``;
            then `kind` and `seed` have no effect.
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
        reference: dotted name (`_target_`) and options of the fusion that BDice compares with.
        empty: rule for masks that are empty on both sides: ``skip``, ``one`` or ``zero``.
        bins: number of confidence bins of the ECE.
        batch_size: slices in a batch.
        save_predictions: whether foreground probabilities are kept.
        crop: edge of the centre crop that is scored, as a share of the slice's; what lies outside is never looked at.
        ged: whether the generalised energy distance of the predictor's samples to the raters is computed too.
        ties: what a tie of an even number of raters is in the majority vote: ``background`` or ``foreground``.
        boundary: pixels on each side of a contour that belong to the boundary band of `ece_boundary`.
        metrics: further metrics (`dmseg.metrics.named`).
        tolerance: of NSD, in mm.
        spacing: distance of rows, of columns and, for volumes, of slices as prepared, in mm, in place of what the files
            state; None for theirs.
        pack: whether pictures of a few cases are kept.
        add_packs: whether a run that was stored without them is scored again to add them.
        every: epochs between two validations during a training, which trackers show and nothing else uses; 0 for none,
            None for ten in a training that has a tracker.
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
        disjoint: what a rater without any overlap counts, 0 or 1.
    """

    disjoint: float
