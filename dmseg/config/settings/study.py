"""Settings that results depend on: data, labels, method, network, loss and distillation."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class DataSettings:
    """A data set: its folder and its preparation.

    Attributes:
        name: short name of the data set, used for folders and titles.
        target: dotted name of the adapter.
        root: folder of the raw files.
        size: edge length of the square that every slice is resized to, in pixels.
        options: further options of the adapter.
        phantom: `_target_` and options of the phantom that is generated in `root` if missing; None for real data.
        labels_only: for volumes: ``dmseg prepare`` only counts slices, from the labels alone, and stores nothing.
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
        kernel: odd edge length of the neighbourhood that defines boundary pixels, or that ``svls`` averages over; None
            for ``uniform``.
        sigma: standard deviation of the Gaussian of ``svls`` in pixels; None for other kinds.
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
    """A fusion strategy, which turns the annotations of a case into the label that the network is trained on.

    Attributes:
        name: short name, for titles only.
        target: dotted name of the fusion function.
        options: its options.
        interpolation: how augmentation resamples labels: ``nearest`` (the fused label's nearest pixel), ``linear`` (the
            fused label, bilinearly) or ``rater`` (each rater's mask bilinearly, thresholded at 0.5, then fused).
        smoothing: label smoothing, or None.
    """

    name: str
    target: str
    options: dict[str, Any]
    interpolation: str
    smoothing: SmoothingSettings | None = None


@dataclass(frozen=True)
class MethodSettings:
    """How a network is built, trained and used for prediction.

    Attributes:
        name: short name, for titles only.
        target: dotted name of the method.
        options: its options.
        unused: groups and dotted keys of settings that it does not use; they are not part of the ids of its runs.
    """

    name: str
    target: str
    options: dict[str, Any]
    unused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class AuxiliarySettings:
    """A second head on the second-to-last feature map of the encoder, used in training only.

    Attributes:
        weight: its share of the cross-entropy, in [0, 1); the main head has the rest. 0 for no auxiliary head.
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
        weights_sha256: required SHA-256 of the weights' file, in 64 hexadecimal digits; None accepts any file.
        encoder_options: keyword arguments of ``timm.create_model``.
        options: keyword arguments of the architecture; None for its default.
        decoder: ``library`` (segmentation-models-pytorch's), or ``release`` (the authors', for DeepLabV3Plus).
        head_kernel: odd edge length of the last convolution's kernel; None for that of the architecture.
        head_dropout: probability of dropping a channel before the last convolution, in [0, 1).
        initialization: ``library``, or ``kaiming`` (uniform Kaiming in the decoder, uniform Xavier in the heads).
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
        """The same without the auxiliary head, for methods that do not train it."""
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
        """Target, options and weight as text, in which equal numbers are equal (1 and 1.0)."""
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
        """Terms with a weight above 0, in the order of summation: ce, region, then the others by content."""
        distilled = {name: self.terms[name] for name in DISTILLED_TERMS if name in self.terms}
        return {name: term for name, term in distilled.items() if term.weight} | self.others

    @property
    def others(self) -> dict[str, LossTerm]:
        """The active terms other than ce and region."""
        named = {name: term for name, term in self.terms.items() if name not in DISTILLED_TERMS and term.weight}
        return dict(sorted(named.items(), key=lambda item: item[1].content))

    def with_weights(self, weights: Mapping[str, float]) -> "LossSettings":
        """The same terms with other weights; terms that are not named get weight 0."""
        terms = {name: replace(term, weight=weights.get(name, 0.0)) for name, term in self.terms.items()}
        return replace(self, terms=terms)


@dataclass(frozen=True)
class TeacherSettings:
    """Settings of a teacher; all others are those of its student.

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
        bandwidth: bandwidth h of the kernel; 0 for no recalibration.
        n_key: number of key pixels of a batch or an image.
        keys: whether keys are drawn from each ``batch`` or each ``image``.
        balanced: whether to draw the same number of keys from each class that is present.
        leave_one_out: whether a key is estimated from the other keys only.
        boundary: odd edge length of the neighbourhood that defines boundary pixels.
    """

    bandwidth: float
    n_key: int
    keys: str
    balanced: bool
    leave_one_out: bool
    boundary: int


@dataclass(frozen=True)
class DistillSettings:
    """Knowledge distillation: terms against a teacher in addition to the loss against the label.

    The terms ``ce`` and ``region`` are computed against both; all other terms are computed against the label only.

    Attributes:
        name: short name, for titles only.
        teacher: network, labels and loss of the teacher.
        label_weight: weight of the terms against the label.
        teacher_weight: weight of the terms against the teacher.
        label_ce: whether to use the cross-entropy against the label.
        label_region: whether to use the region loss against the label.
        teacher_ce: whether to use the cross-entropy against the teacher.
        teacher_region: whether to use the region loss against the teacher.
        renormalise: whether the remaining terms share the weight of those that are switched off.
        classes: classes of the region loss against the teacher.
        temperature: temperature of teacher and student in the cross-entropy, and of the teacher in the region loss.
        calibrate: cases on which the teacher's temperature is fitted: ``inner`` or ``train``; None for no fit.
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
        """Weights of the active terms by side and name (``label_ce``): that of the side times that of the term."""
        sides = {"label": self.label_weight, "teacher": self.teacher_weight}
        terms = {name: loss.terms[name].weight if name in loss.terms else 0.0 for name in DISTILLED_TERMS}
        every = {f"{side}_{name}": sides[side] * terms[name] for side in sides for name in terms}
        off = {name for name in every if not getattr(self, name)}
        every |= {f"label_{name}": self.label_weight * term.weight for name, term in loss.others.items()}
        kept = {name: weight for name, weight in every.items() if name not in off and weight}
        share = sum(every.values()) / sum(kept.values()) if self.renormalise and kept else 1.0
        return {name: weight * share for name, weight in kept.items()}

    def needs_teacher(self, loss: LossSettings) -> bool:
        """Whether any term against the teacher is active."""
        return any(name.startswith("teacher") for name in self.weights(loss))
