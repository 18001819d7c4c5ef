"""Settings that numbers depend on: data, labels, network, loss, training, evaluation."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class DataSettings:
    """A data set: where it lies and how it is prepared.

    Attributes:
        name: short name of the data set, used for folders and titles.
        target: dotted name of the adapter.
        root: folder of the raw files.
        size: edge of the square that every slice is resized to, in pixels.
        options: further options of the adapter.
        phantom: options of the phantom that is made where `root` has none (with its `_target_`), or None for real data.
        labels_only: volumes only: ``dmseg prepare`` counts slices from the labels alone, and nothing is stored.
    """

    name: str
    target: str
    root: str
    size: int
    options: dict[str, Any]
    phantom: dict[str, Any] | None = None
    labels_only: bool = False


@dataclass(frozen=True)
class SmoothingSettings:
    """Label smoothing of the augmented crop.

    Attributes:
        kind: ``boundary`` (pixels at the contour only), ``uniform`` (all pixels) or ``svls`` (in proportion to the
            classes nearby).
        epsilon: weight of the uniform distribution, in [0, 1]; None for ``svls``.
        kernel: odd edge of the neighbourhood that makes a pixel a boundary pixel, or that ``svls`` averages; None for
            ``uniform``.
        sigma: standard deviation of the Gaussian of ``svls`` in pixels; None for the others.
    """

    kind: str
    epsilon: float | None = None
    kernel: int | None = None
    sigma: float | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `dmseg.labels.smoothing.smooth`, or of `svls` there."""
        names = {"boundary": ("epsilon", "kernel"), "uniform": ("epsilon",), "svls": ("sigma", "kernel")}
        return {name: getattr(self, name) for name in names[self.kind]}


@dataclass(frozen=True)
class LabelSettings:
    """A fusion strategy: how the annotations of a case become the label that is trained on.

    Attributes:
        name: short name, for titles only.
        target: dotted name of the fusion function.
        options: its options.
        interpolation: how augmentation resamples labels: ``nearest`` (the fused label's nearest pixel), ``linear`` (the
            fused label, bilinearly) or ``rater`` (each rater's mask bilinearly, cut at 0.5, then fused).
        smoothing: label smoothing, or None.
    """

    name: str
    target: str
    options: dict[str, Any]
    interpolation: str
    smoothing: SmoothingSettings | None = None


@dataclass(frozen=True)
class MethodSettings:
    """How a network is made, trained and asked for predictions.

    Attributes:
        name: short name, for titles only.
        target: dotted name of the method.
        options: its options.
        unused: groups and dotted keys of settings that it does not read; they are no part of its runs' ids.
    """

    name: str
    target: str
    options: dict[str, Any]
    unused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class AuxiliarySettings:
    """A second head, on the encoder's last but one feature map, that has a part in training only.

    Attributes:
        weight: its share of the cross-entropy, in [0, 1); the main head has the rest. 0 for no such head.
        channels: channels of the head.
    """

    weight: float = 0.0
    channels: int = 64


@dataclass(frozen=True)
class ModelSettings:
    """A network of segmentation-models-pytorch on a timm encoder.

    Attributes:
        name: short name, for titles only.
        architecture: class name in segmentation_models_pytorch (``Unet``, ``DeepLabV3Plus``).
        encoder: timm model name.
        weights: None, ``imagenet`` (timm's hub) or the path of a safetensors file.
        weights_sha256: SHA-256 that the weights' file must have, in 64 hexadecimal digits; None accepts any.
        encoder_options: keyword arguments of ``timm.create_model``.
        options: keyword arguments of the architecture; None stands for its own default.
        decoder: ``library`` (segmentation-models-pytorch's), or ``release`` (the authors', for DeepLabV3Plus).
        head_kernel: odd edge of the last convolution's kernel; None stands for the architecture's own.
        head_dropout: probability of dropping a channel before the last convolution, in [0, 1).
        initialization: of decoder and head: ``library``, or ``kaiming`` (uniform Kaiming and Xavier, biases of 0).
        auxiliary: the auxiliary head.
    """

    name: str
    architecture: str
    encoder: str
    weights: str | None = None
    weights_sha256: str | None = None
    encoder_options: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    decoder: str = "library"
    head_kernel: int | None = None
    head_dropout: float = 0.0
    initialization: str = "library"
    auxiliary: AuxiliarySettings = field(default_factory=AuxiliarySettings)

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `dmseg.models.build.build_model`."""
        names = ("architecture", "encoder", "weights", "options", "encoder_options")
        own = ("decoder", "head_kernel", "head_dropout", "initialization")
        auxiliary = {f"auxiliary_{name}": value for name, value in vars(self.auxiliary).items()}
        return {name: getattr(self, name) for name in (*names, *own)} | auxiliary

    @property
    def without_auxiliary(self) -> dict[str, Any]:
        """The same without the auxiliary head, for methods whose loss it has no part in."""
        return self.arguments | {"auxiliary_weight": 0.0}


DISTILLED_TERMS = ("ce", "region")
"""Names of the loss terms that distillation also computes against the teacher."""


@dataclass(frozen=True)
class LossTerm:
    """One term of the loss.

    Attributes:
        weight: its weight in the sum; 0 switches it off.
        target: dotted name of the loss, a `torch.nn.Module`.
        options: its options.
    """

    weight: float
    target: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """Target, options and weight as one text; equal numbers are written alike (1 and 1.0)."""
        text = json.dumps([self.target, self.options, self.weight])
        return json.dumps(json.loads(text, parse_int=float), sort_keys=True)


@dataclass(frozen=True)
class LossSettings:
    """A weighted sum of losses.

    Attributes:
        name: short name, for titles only.
        terms: the terms by name.
    """

    name: str
    terms: dict[str, LossTerm]

    @property
    def active(self) -> dict[str, LossTerm]:
        """Terms with a weight above 0, in the order of their sum: ce, region, then the others by content."""
        distilled = {name: self.terms[name] for name in DISTILLED_TERMS if name in self.terms}
        return {name: term for name, term in distilled.items() if term.weight} | self.others

    @property
    def others(self) -> dict[str, LossTerm]:
        """Those of them beside ce and region."""
        named = {name: term for name, term in self.terms.items() if name not in DISTILLED_TERMS and term.weight}
        return dict(sorted(named.items(), key=lambda item: item[1].content))

    def with_weights(self, weights: Mapping[str, float]) -> "LossSettings":
        """The same terms with other weights; a term that is not named gets 0."""
        terms = {name: replace(term, weight=weights.get(name, 0.0)) for name, term in self.terms.items()}
        return replace(self, terms=terms)


@dataclass(frozen=True)
class TeacherSettings:
    """What a teacher has of its own; the rest it shares with its student.

    Attributes:
        model: its network.
        labels: its labels.
        loss: its loss.
    """

    model: ModelSettings
    labels: LabelSettings
    loss: LossSettings


@dataclass(frozen=True)
class KdeSettings:
    """Recalibration of a teacher by the kernel estimate of Appendix E.

    Attributes:
        bandwidth: h; 0 for no recalibration.
        n_key: key pixels of a batch or an image.
        keys: drawn from each ``batch`` or each ``image``.
        balanced: as many keys of each class that is present.
        leave_one_out: a key is estimated from the other keys only.
        boundary: odd edge of the neighbourhood that makes a boundary pixel.
    """

    bandwidth: float
    n_key: int
    keys: str
    balanced: bool
    leave_one_out: bool
    boundary: int


@dataclass(frozen=True)
class DistillSettings:
    """Knowledge distillation: which terms there are beside the loss against the label.

    The terms ``ce`` and ``region`` of the loss stand on both sides; any other term stands on the label's side only.

    Attributes:
        name: short name, for titles only.
        teacher: network, labels and loss of the teacher.
        label_weight: weight of the terms against the label.
        teacher_weight: weight of the terms against the teacher.
        label_ce: whether there is a cross-entropy against the label.
        label_region: the same of the region loss.
        teacher_ce: whether there is a cross-entropy against the teacher.
        teacher_region: the same of the region loss.
        renormalise: whether the terms that are left share the weight of those that are off.
        classes: classes of the region loss against the teacher.
        temperature: of teacher and student in the cross-entropy against the teacher, of the teacher in the region loss.
        calibrate: on what the teacher's own temperature is fitted: None for no such, ``inner`` or ``train``.
        kde: recalibration of the teacher, or None.
    """

    name: str
    teacher: TeacherSettings
    label_weight: float
    teacher_weight: float
    label_ce: bool
    label_region: bool
    teacher_ce: bool
    teacher_region: bool
    renormalise: bool
    classes: str
    temperature: float
    calibrate: str | None = None
    kde: KdeSettings | None = None

    def weights(self, loss: LossSettings) -> dict[str, float]:
        """Weights of the terms that are on, by side and name (``label_ce``): the side's times the term's."""
        sides = {"label": self.label_weight, "teacher": self.teacher_weight}
        terms = {name: loss.terms[name].weight if name in loss.terms else 0.0 for name in DISTILLED_TERMS}
        every = {f"{side}_{name}": sides[side] * terms[name] for side in sides for name in terms}
        off = {name for name in every if not getattr(self, name)}
        every |= {f"label_{name}": self.label_weight * term.weight for name, term in loss.others.items()}
        kept = {name: weight for name, weight in every.items() if name not in off and weight}
        share = sum(every.values()) / sum(kept.values()) if self.renormalise and kept else 1.0
        return {name: weight * share for name, weight in kept.items()}

    def needs_teacher(self, loss: LossSettings) -> bool:
        """Whether any term against the teacher is on."""
        return any(name.startswith("teacher") for name in self.weights(loss))


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
