"""Region losses: one family, from the soft Dice loss to the compatible focal Tversky loss.

With the soft counts of `dmseg.losses.counts.confusion` of one class,

    score = (tp + s) / (tp + alpha fp + beta fn + s),    loss = (1 - score)^gamma,

and the losses of the paper differ in the definition of the overlap and in three numbers:

==============================  =====================  ============  ================================
loss                            overlap                alpha, beta   equation
==============================  =====================  ============  ================================
`SoftDiceLoss` (SDL)            classical              1/2, 1/2      1
`SoftJaccardLoss` (SJL)         classical              1, 1          2
`SoftTverskyLoss` (STL)         classical              free          21
`SoftFocalTverskyLoss`          classical              free          21 to the power gamma
`JaccardMetricLoss` (JML)       minimum (1), product   1, 1          3
`DiceSemimetricLoss` (DML)      minimum (1), product   1/2, 1/2      4
`CompatibleTverskyLoss`         minimum                free          23
`CompatibleFocalTverskyLoss`    minimum                free          29
==============================  =====================  ============  ================================

The classical losses are wrong for soft labels: their minimum is not at the label (Section 2.1). The others agree with
them if prediction or label is hard (Theorems 2 and 6), and are 0 exactly at the label.
"""

import inspect
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, Unpack

import torch
from torch import Tensor

from dmseg.errors import kind_of
from dmseg.losses._check import ClassWeights, as_class_weights, check_at_least, check_choice, check_flag
from dmseg.losses._fused import RequiredSums
from dmseg.losses.counts import OVERLAPS, Confusion, Overlap, PixelSumLoss, PixelSums, confusion, pixel_sums, sums_for

Reduction = Literal["batch", "image", "class"]
"""What counts are summed over and losses averaged over; see `RegionSetting`."""
Classes = Literal["all", "present", "foreground"]
"""Which classes are averaged; see `RegionSetting`."""
PRESENCE = 0.01
"""A class is present if its label exceeds this in any pixel (JDTLosses `jdt_loss.py`, ``threshold``)."""


@dataclass(frozen=True)
class RegionSetting:
    """The settings of a loss of the family.

    Attributes:
        overlap: definition of the overlap, see `dmseg.losses.counts.confusion`.
        alpha: weight of false positives, at least 0.
        beta: weight of false negatives, at least 0; not both are 0.
        gamma: power of each class's loss before the mean (Eq. 29), more than 0.
        smooth: s, at least 0, in pixels; it appears as 2 s in the usual form (2 tp + 2 s) / (sum x + sum y + 2 s) of
            the Dice score. Even for s = 0 the loss of an empty prediction for an empty label is 0.
        reduction: ``batch`` sums the counts over the batch before the ratio, then averages the classes; ``image``
            averages the classes of each image, then the images; ``class`` averages the images for each class, then the
            classes (mIoUD, mIoUI and mIoUC of JDTLosses).
        classes: ``all``; ``present``, those whose label exceeds `PRESENCE` in the pixels that are reduced over; or
            ``foreground``, all but the first (or the only channel). The mean of no classes is 0.
        log_loss: whether to use -log(score) instead of 1 - score.
        class_weights: factors of the classes' losses before the mean, one for each channel, at least 0; a sequence, a
            tensor, an array, or a mapping from class indices. None for 1.

    Raises:
        TypeError: if an attribute has the wrong type.
        ValueError: if an attribute lies outside its range.
    """

    overlap: Overlap = "minimum"
    alpha: float = 0.5
    beta: float = 0.5
    gamma: float = 1.0
    smooth: float = 1.0
    reduction: Reduction = "batch"
    classes: Classes = "all"
    log_loss: bool = False
    class_weights: ClassWeights | None = None

    def __post_init__(self) -> None:
        """Checks the attributes and converts numbers to floats and class weights to a tuple of floats."""
        check_choice("overlap", self.overlap, OVERLAPS)
        check_choice("reduction", self.reduction, ("batch", "image", "class"))
        check_choice("classes", self.classes, ("all", "present", "foreground"))
        for name in ("alpha", "beta", "smooth", "gamma"):
            number = check_at_least(name, getattr(self, name), 0, strictly=name == "gamma")
            object.__setattr__(self, name, number)
        check_at_least("alpha + beta", self.alpha + self.beta, 0, strictly=True)
        check_flag("log_loss", self.log_loss)
        weights = as_class_weights(self.class_weights)
        if weights is not None and self.classes == "foreground" and not any(weights[1:] or weights):
            raise ValueError(f"class_weights is {list(weights)}, but only the foreground counts; give it a weight")
        object.__setattr__(self, "class_weights", weights)

    @property
    def required(self) -> RequiredSums:
        """The sums over pixels that `loss_from_sums` needs."""
        return sums_for(self.overlap)._replace(peak=self.classes == "present")


def loss_from_sums(sums: PixelSums, setting: RegionSetting) -> Tensor:
    """Returns the region loss, a scalar, from sums over pixels.

    Args:
        sums: sums that include ``setting.required``.
        setting: settings of the loss.

    Raises:
        ValueError: if the number of class weights is not that of channels.
    """
    counts, peak = confusion(sums, setting.overlap), sums.peak
    if setting.reduction == "batch":
        counts = Confusion(*(count.sum(0, keepdim=True) for count in counts))
        peak = None if peak is None else torch.cat((peak, peak.new_zeros(1, peak.shape[1]))).amax(0, keepdim=True)
    losses = class_losses(counts, setting)
    weights: tuple[float, ...] | None = setting.class_weights  # type: ignore[assignment]
    if weights is not None:
        if len(weights) != losses.shape[1]:
            raise ValueError(
                f"class_weights has {len(weights)} entries for {losses.shape[1]} channels; give one per channel"
            )
        # each class by a Python number, so that none is copied to the device
        losses = torch.stack([weight * loss for weight, loss in zip(weights, losses.unbind(1), strict=True)], 1)
    active = torch.ones_like(losses, dtype=torch.bool) if peak is None else ~(peak <= PRESENCE)  # NaN counts
    if setting.classes == "foreground" and losses.shape[1] > 1:
        losses, active = losses[:, 1:], active[:, 1:]
    first, second = (0, 0) if setting.reduction == "class" else (1, 0)
    return _mean(*_mean(losses, active, first), second)[0]


def class_losses(counts: Confusion, setting: RegionSetting) -> Tensor:
    """Returns the loss of each entry of the counts, before class weights and means.

    1 - score is computed as (alpha fp + beta fn) / (tp + alpha fp + beta fn + s), which is accurate near 0. The
    gradient is defined as 0 where the denominator is 0 and, for gamma < 1, where the loss is 0.

    Args:
        counts: tensors of the same shape, at least 0.
        setting: alpha, beta, gamma, smooth and log_loss of the loss.
    """
    error = setting.alpha * counts.fp + setting.beta * counts.fn
    whole = counts.tp + error + setting.smooth
    empty = whole <= 0  # false for NaN, which is a loss of NaN
    whole = torch.where(empty, 1, whole)
    if setting.log_loss:
        score = torch.where(empty, 1, (counts.tp + setting.smooth) / whole)
        losses = -score.clamp_min(torch.finfo(score.dtype).tiny).log()
    else:
        losses = torch.where(empty, 0, error / whole)
    if setting.gamma == 1:
        return losses
    least = losses <= 0
    return torch.where(least, 0, torch.where(least, 1, losses) ** setting.gamma)


def _mean(values: Tensor, active: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Returns the mean of the active values along `dim`, 0 if there are none, and whether there are any."""
    number = active.sum(dim)
    return torch.where(active, values, 0).sum(dim) / number.clamp_min(1), number > 0


def region_loss(
    input: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    setting: RegionSetting = RegionSetting(),
    *,
    from_logits: bool = True,
    check_values: bool | None = None,
) -> Tensor:
    """Returns a region loss, a scalar in float32 or more; DML,1 by default.

    Args:
        input: (B, C, ...) logits (C = 1: sigmoid, else softmax) or probabilities in [0, 1].
        target: (B, ...) integer classes, or (B, C, ...) soft labels in [0, 1] that sum to 1 over the classes.
        mask: (B, ...) bool or 0 and 1, the pixels to keep; None keeps all.
        setting: settings of the loss.
        from_logits: whether `input` holds logits.
        check_values: whether to check values too, which synchronises the device; None checks them on the CPU only.

    Raises:
        TypeError: if a dtype does not fit, or `setting` is not a `RegionSetting`.
        ValueError: if a shape or a value does not fit, or the number of class weights is not that of channels.
    """
    if not isinstance(setting, RegionSetting):
        raise TypeError(f"setting is {kind_of(setting)}; give a RegionSetting, RegionSetting(overlap='minimum')")
    sums = pixel_sums(input, target, mask, setting.required, from_logits=from_logits, check_values=check_values)
    return loss_from_sums(sums, setting)


class FocalOptions(TypedDict, total=False):
    """Keyword arguments of all named losses, as documented in `RegionLoss`."""

    smooth: float
    reduction: Reduction
    classes: Classes
    log_loss: bool
    class_weights: ClassWeights | None
    from_logits: bool
    check_values: bool | None


class RegionOptions(FocalOptions, total=False):
    """Keyword arguments of the losses for which gamma is not a positional argument."""

    gamma: float


def _setting(name: str) -> Any:  # noqa: ANN401 (the type of the setting)
    """A property of `RegionLoss` for a field of its setting, which is replaced, and checked, when it is assigned."""

    def assign(loss: "RegionLoss", value: Any) -> None:  # noqa: ANN401
        loss.setting = replace(loss.setting, **{name: value})
        loss.required = loss.setting.required

    return property(lambda loss: getattr(loss.setting, name), assign, doc=f"`RegionSetting.{name}`")


class RegionLoss(PixelSumLoss):
    """A region loss with all settings free; the named losses below fix some of them.

    Call it with ``(input, target, mask=None)``, like `region_loss`. Settings can be read and assigned as attributes,
    for example ``loss.gamma = 0.75`` between epochs.

    Args:
        overlap: definition of the overlap, see `dmseg.losses.counts.confusion`.
        alpha: weight of false positives.
        beta: weight of false negatives.
        gamma: power of each class's loss before the mean.
        smooth: s of the score, in pixels.
        reduction: ``batch``, ``image`` or ``class``.
        classes: ``all``, ``present`` or ``foreground``.
        log_loss: whether to use -log(score) instead of 1 - score.
        class_weights: factors of the classes' losses.
        from_logits: whether the input holds logits.
        check_values: whether to check values; None checks them on the CPU only.

    Raises:
        ValueError: if a setting lies outside its range, see `RegionSetting`.
    """

    overlap, alpha, beta, gamma = map(_setting, ("overlap", "alpha", "beta", "gamma"))
    smooth, reduction, classes = map(_setting, ("smooth", "reduction", "classes"))
    log_loss, class_weights = map(_setting, ("log_loss", "class_weights"))

    def __init__(
        self,
        overlap: Overlap,
        alpha: float,
        beta: float,
        *,
        gamma: float = 1.0,
        smooth: float = 1.0,
        reduction: Reduction = "batch",
        classes: Classes = "all",
        log_loss: bool = False,
        class_weights: ClassWeights | None = None,
        from_logits: bool = True,
        check_values: bool | None = None,
    ) -> None:
        setting = RegionSetting(overlap, alpha, beta, gamma, smooth, reduction, classes, log_loss, class_weights)
        super().__init__(setting.required, from_logits=from_logits, check_values=check_values)
        self.setting = setting

    def __init_subclass__(cls) -> None:
        """Lists the ``**options`` of a named loss in its signature, for `help` and configuration checks."""
        super().__init_subclass__()
        shared = inspect.signature(RegionLoss.__init__).parameters.values()
        own = [p for p in inspect.signature(cls.__init__).parameters.values() if p.kind is not p.VAR_KEYWORD][1:]
        names = {parameter.name for parameter in own}
        options = [p for p in shared if p.kind is p.KEYWORD_ONLY and p.name not in names]
        setattr(cls, "__signature__", inspect.Signature(own + options))  # noqa: B010 (unknown to type checkers)

    def from_sums(self, sums: PixelSums) -> Tensor:
        """Returns the loss, a scalar, from sums over pixels."""
        return loss_from_sums(sums, self.setting)

    def extra_repr(self) -> str:
        """Returns the settings, for `print`."""
        return f"{self.setting}, from_logits={self.from_logits}, check_values={self.check_values}"


def _variant(variant: Literal[1, 2]) -> Overlap:
    """Returns the overlap of variant 1 or 2 of the metric and semimetric losses."""
    if variant not in (1, 2):
        raise ValueError(f"variant is {variant!r}; it must be 1 (tp of minima) or 2 (tp of products)")
    return "minimum" if variant == 1 else "product"


class SoftDiceLoss(RegionLoss):
    """SDL, 1 - 2 sum xy / (sum x + sum y) (Eq. 1). Wrong for soft labels: for y = 0.5 its minimum is at x = 1.

    Args:
        squared: whether to square in the denominator, 1 - 2 sum xy / (sum x^2 + sum y^2), the form of V-Net, whose
            minimum is at the label.
        **options: keywords of `RegionLoss`.
    """

    def __init__(self, *, squared: bool = False, **options: Unpack[RegionOptions]) -> None:
        check_flag("squared", squared)
        super().__init__("squared" if squared else "classical", 0.5, 0.5, **options)


class SoftJaccardLoss(RegionLoss):
    """SJL, 1 - sum xy / (sum x + sum y - sum xy) (Eq. 2). Wrong for soft labels, like `SoftDiceLoss`.

    Args:
        squared: whether to square in the denominator; the minimum is then at the label.
        **options: keywords of `RegionLoss`.
    """

    def __init__(self, *, squared: bool = False, **options: Unpack[RegionOptions]) -> None:
        check_flag("squared", squared)
        super().__init__("squared" if squared else "classical", 1.0, 1.0, **options)


class SoftTverskyLoss(RegionLoss):
    """STL (Eq. 21; Salehi et al. 2017). Wrong for soft labels, like `SoftDiceLoss`; use `CompatibleTverskyLoss`.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives.
        **options: keywords of `RegionLoss`.
    """

    def __init__(self, alpha: float, beta: float, **options: Unpack[RegionOptions]) -> None:
        super().__init__("classical", alpha, beta, **options)


class SoftFocalTverskyLoss(RegionLoss):
    """STL to the power gamma (Abraham and Khan 2019, who write the power as 1 / gamma). Wrong for soft labels.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives.
        gamma: the power; 0.75 is their 1 / gamma with gamma = 4/3.
        **options: keywords of `RegionLoss`.
    """

    def __init__(self, alpha: float, beta: float, gamma: float, **options: Unpack[FocalOptions]) -> None:
        super().__init__("classical", alpha, beta, gamma=gamma, **options)


class DiceSemimetricLoss(RegionLoss):
    """DML (Eq. 4): the Dice loss for soft labels, a semimetric (Theorem 1); equal to SDL for hard labels (Theorem 2).

    Args:
        variant: 1 for 1 - (|x+y| - |x-y|) / |x+y|, the paper's choice; 2 for 1 - 2 |xy| / (2 |xy| + |x-y|), never
            smaller (Theorem 3).
        **options: keywords of `RegionLoss`.

    Raises:
        ValueError: if a setting lies outside its range.
    """

    def __init__(self, variant: Literal[1, 2] = 1, **options: Unpack[RegionOptions]) -> None:
        super().__init__(_variant(variant), 0.5, 0.5, **options)


class JaccardMetricLoss(RegionLoss):
    """JML (Eq. 3): the Jaccard loss for soft labels, a metric; equal to SJL for hard labels.

    Args:
        variant: 1 for 1 - (|x+y| - |x-y|) / (|x+y| + |x-y|); 2 for 1 - |xy| / (|xy| + |x-y|).
        **options: keywords of `RegionLoss`.

    Raises:
        ValueError: if a setting lies outside its range.
    """

    def __init__(self, variant: Literal[1, 2] = 1, **options: Unpack[RegionOptions]) -> None:
        super().__init__(_variant(variant), 1.0, 1.0, **options)


class CompatibleTverskyLoss(RegionLoss):
    """CTL (Eq. 23): the Tversky loss for soft labels, 0 exactly at the label (Theorem 5); STL for hard (Theorem 6).

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives.
        **options: keywords of `RegionLoss`.
    """

    def __init__(self, alpha: float, beta: float, **options: Unpack[RegionOptions]) -> None:
        super().__init__("minimum", alpha, beta, **options)


class CompatibleFocalTverskyLoss(RegionLoss):
    """CFTL (Eq. 29): CTL to the power gamma, class by class.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives.
        gamma: values above 1 reduce the weight of small errors relative to large ones.
        **options: keywords of `RegionLoss`.
    """

    def __init__(self, alpha: float, beta: float, gamma: float, **options: Unpack[FocalOptions]) -> None:
        super().__init__("minimum", alpha, beta, gamma=gamma, **options)
