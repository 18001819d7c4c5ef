"""Sums over pixels, directly from logits, with gradients in closed form.

Region losses and cross-entropy are functions of a few sums over the pixels of an image. `LogitSums` computes all
required sums from one softmax (or sigmoid). The step from the sums to the loss acts on tensors of shape (batch,
channels) and is left to autograd; `LogitSums.backward` receives the gradients with respect to the sums. With p the
probability and y the label of a pixel, and a prime for the gradient with respect to a sum:

=============  ===================  ================================
sum            over pixels          its derivative
=============  ===================  ================================
signed         p - y                by p: 1
absolute       abs(p - y)           by p: sign(p - y), 0 where p = y
squared        (p - y)^2            by p: 2 (p - y)
product        p y                  by p: y
cross-entropy  -sum_c y_c log p_c   by the logit of class c: p_c - y_c
=============  ===================  ================================

The first four make up ``slope = signed' + absolute' sign(p - y) + 2 squared' (p - y) + product' y``, the derivative
by p. Softmax takes it to ``p_c (slope_c - sum_k p_k slope_k)``, sigmoid to ``p (1 - p) slope``.

0 log 0 is 0: a class whose logit is minus infinity adds nothing where its label is 0, and an infinite loss where it is
not. Autograd can differentiate the gradient again, which takes more memory.

Two observations save memory and time. For two classes, the softmax of (z_0, z_1) is the sigmoid of z_1 - z_0, so only
the foreground channel is computed (except in volumes, see `dmseg.losses.counts.FOREGROUND_PIXELS`). And masked-out
pixels have p = y = 0, which removes them from every sum and makes all gradients above 0, so that `backward` needs no
mask.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class RequiredSums(NamedTuple):
    """The sums that a loss needs; those of the labels and of p - y are always computed.

    Attributes:
        absolute: of abs(p - y).
        squared: of (p - y)^2.
        product: of p y.
        cross_entropy: of -sum_c y_c log p_c.
        entropy: of -sum_c y_c log y_c.
        peak: the maximum of y instead of a sum.
    """

    absolute: bool = False
    squared: bool = False
    product: bool = False
    cross_entropy: bool = False
    entropy: bool = False
    peak: bool = False

    def union(self, other: "RequiredSums") -> "RequiredSums":
        """Returns the sums that either of two losses needs."""
        return RequiredSums(*(mine or theirs for mine, theirs in zip(self, other, strict=True)))


class DifferenceSums(NamedTuple):
    """Sums over the pixels of each image and channel, (B, C) each; None where not required."""

    signed: Tensor
    absolute: Tensor | None
    squared: Tensor | None
    product: Tensor | None


def sum_pixels(values: Tensor) -> Tensor:
    """Sums (B, C, ...) over the spatial dimensions.

    Returns:
        (B, C)
    """
    return values.sum(tuple(range(2, values.ndim)))


def difference_sums(difference: Tensor, prob: Tensor, label: Tensor, required: RequiredSums) -> DifferenceSums:
    """Sums p - y, and abs(p - y), (p - y)^2 and p y if required, over pixels; differentiable by autograd.

    Args:
        difference: (B, C, ...) p - y.
        prob: (B, C, ...) probabilities p, 0 where masked out.
        label: (B, C, ...) labels y, 0 where masked out.
        required: the sums to compute.
    """
    return DifferenceSums(
        sum_pixels(difference),
        sum_pixels(difference.abs()) if required.absolute else None,
        sum_pixels(difference.square()) if required.squared else None,
        sum_pixels(prob * label) if required.product else None,
    )


class LogitSums(torch.autograd.Function):
    """Sums over pixels from logits; the formulas are at the top of this file.

    The probabilities are also an output, so that autograd can differentiate the gradient again (`_plain_gradient`).
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        logits: Tensor, label: Tensor, mask: Tensor | None, required: RequiredSums
    ) -> tuple[Tensor | None, ...]:
        """Computes the sums.

        Args:
            logits: (B, C, ...) float32 or float64; C = 1 sigmoid, else softmax.
            label: (B, C, ...) labels of the same dtype, 0 where masked out; (B, 1, ...), the foreground, for C = 2.
            mask: (B, 1, ...) bool, False where masked out, or None.
            required: the sums to compute.

        Returns:
            The fields of `DifferenceSums` with as many channels as `label`; the cross-entropy (B,) or None; and p and
            p - y, of the shape of `label`.
        """
        if label.shape[1] == 1:
            prob, cross_entropy = _sigmoid(logits, label, mask, required.cross_entropy)
        else:
            log_prob, cross_entropy = _masked(torch.log_softmax(logits, 1), mask), None
            if required.cross_entropy:
                cross_entropy = -sum_pixels((log_prob * label).nansum(1, keepdim=True)).sum(1)
            prob = log_prob.exp_()
        difference = prob - label
        sums = difference_sums(difference, prob, label, required)
        if cross_entropy is not None:  # propagates NaN, which nansum ignores and the sum of p - y does not
            cross_entropy = cross_entropy + 0 * sums.signed.sum(1)
        return *sums, cross_entropy, prob, difference

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:  # noqa: ANN401
        """Saves what `backward` needs."""
        logits, label, _, required = inputs
        *_, prob, difference = output
        ctx.mark_non_differentiable(difference)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(prob, difference, label if required.product else None)
        ctx.is_difference = logits.shape[1] == 2 and label.shape[1] == 1

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Returns the gradient of the logits, and None for the other arguments of `forward`."""
        prob, difference, label = ctx.saved_tensors
        *sums, cross_entropy, by_prob, _ = grads
        if torch.is_grad_enabled() or by_prob is not None:
            grad = _plain_gradient(prob, difference, label, sums, cross_entropy, by_prob)
        else:
            grad = _gradient(prob, difference, label, sums, cross_entropy)
        if ctx.is_difference:  # from the foreground's gradient, which is that of the difference of the logits
            signs = torch.arange(-1, 2, 2, dtype=grad.dtype, device=grad.device)
            grad = grad * _over_pixels(signs.unsqueeze(0), grad)
        return grad, None, None, None


def _gradient(
    prob: Tensor, difference: Tensor, label: Tensor | None, sums: Sequence[Tensor | None], cross_entropy: Tensor | None
) -> Tensor:
    """Returns the gradient of the logits, or for two classes that of the foreground logit, computed in place.

    Args:
        prob: (B, C, ...) p.
        difference: (B, C, ...) p - y.
        label: (B, C, ...) y, or None if the sum of p y is not required.
        sums: gradients (B, C) of the fields of `DifferenceSums`, None for 0.
        cross_entropy: gradient (B,) of the cross-entropy, None for 0.
    """
    if cross_entropy is not None and all(grad is None for grad in sums):
        return difference * _over_pixels(cross_entropy.unsqueeze(1), difference)
    signed, absolute, squared, product = sums
    grad = difference.sign().mul_(0 if absolute is None else _over_pixels(absolute, difference))  # the slope
    if signed is not None:
        grad.add_(_over_pixels(signed, difference))
    if squared is not None:
        grad.addcmul_(difference, _over_pixels(squared, difference), value=2)
    if product is not None and label is not None:
        grad.addcmul_(label, _over_pixels(product, difference))
    if prob.shape[1] == 1:
        torch.ops.aten.sigmoid_backward.grad_input(grad, prob, grad_input=grad)
    else:
        grad = torch.ops.aten._softmax_backward_data(grad, prob, 1, prob.dtype)
    if cross_entropy is not None:
        grad.addcmul_(difference, _over_pixels(cross_entropy.unsqueeze(1), difference))
    return grad


def _plain_gradient(
    prob: Tensor,
    difference: Tensor,
    label: Tensor | None,
    sums: Sequence[Tensor | None],
    cross_entropy: Tensor | None,
    by_prob: Tensor | None,
) -> Tensor:
    """Returns the same gradient, differentiable by autograd, for gradient penalties and `torch.func.grad`.

    Args:
        prob: (B, C, ...) p, as for `_gradient`.
        difference: (B, C, ...) p - y.
        label: (B, C, ...) y, or None.
        sums: gradients of the sums.
        cross_entropy: gradient of the cross-entropy.
        by_prob: (B, C, ...) gradient of the probabilities themselves, which only second derivatives have.
    """
    difference = difference + (prob - prob.detach())  # same value, but differentiable by the probabilities
    slope = torch.zeros_like(prob) if by_prob is None else by_prob
    for grad, factor in zip(sums, (torch.ones_like(difference), difference.sign(), 2 * difference, label), strict=True):
        if grad is not None and factor is not None:
            slope = slope + _over_pixels(grad, difference) * factor
    logits = prob * (slope - (prob * slope).sum(1, keepdim=True))  # for one channel: p (1 - p) slope
    return (
        logits if cross_entropy is None else logits + difference * _over_pixels(cross_entropy.unsqueeze(1), difference)
    )


def _masked(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Sets masked-out logits or log-probabilities to the least finite value, so that p and logit times label are 0."""
    return logits if mask is None else torch.where(mask, logits, torch.finfo(logits.dtype).min)


def _sigmoid(logits: Tensor, label: Tensor, mask: Tensor | None, cross_entropy: bool) -> tuple[Tensor, Tensor | None]:
    """Returns the foreground probability (B, 1, ...), 0 where masked out, and the cross-entropy (B,) on request.

    With d the difference of the two logits and p its sigmoid, the cross-entropy of a pixel is
    d (round(p) - y) - log(max(p, 1 - p)), which neither overflows nor takes the logarithm of 0.
    """
    logit = _masked(logits[:, 1:] - logits[:, :1] if logits.shape[1] == 2 else logits, mask)
    prob = torch.sigmoid(logit)
    if not cross_entropy:
        return prob, None
    linear = prob.round().sub_(label).mul_(logit).flatten(1).nansum(1)
    # Sum of logarithms of values in [0.5, 1]. A product takes a tenth of the time of a logarithm, and that of 32 values
    # is at least 2^-32, so one logarithm serves 32 values.
    larger = (1 - prob).clamp_(min=prob).flatten(1)
    groups = larger.shape[1] // 32
    products = larger[:, : groups * 32].reshape(larger.shape[0], groups, 32).prod(2)
    return prob, linear - torch.cat((products, larger[:, groups * 32 :]), 1).log_().sum(1)


def _over_pixels(values: Tensor, pixels: Tensor) -> Tensor:
    """Adds spatial dimensions of size 1 to (B, C), so that it broadcasts with `pixels`."""
    return values.reshape(values.shape + (1,) * (pixels.ndim - 2))
