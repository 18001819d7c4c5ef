"""Builds loss terms from settings: losses of dmseg directly, other modules in a wrapper that removes padding."""

import inspect
from typing import Literal

import torch
from torch import Tensor, nn

from dmseg.config.components import bind, resolve
from dmseg.config.settings import LossTerm
from dmseg.errors import UserError, cut, first_line, kind_of
from dmseg.labels.arguments import argument_names
from dmseg.losses.counts import PixelSumLoss
from dmseg.losses.region import RegionLoss
from dmseg.models.build import N_CLASSES

Padding = Literal["mask", "pixels", "images"]
"""How padding is removed: by the loss's own mask, by pixels, or by each image's rectangle without padding."""

EDGE = 32
"""Edge length in pixels of the images on which a term is tested."""
TOLERANCE = 1e-4
"""Largest relative difference of two float32 values of a term that count as equal."""


def build_term(term: LossTerm, where: str) -> nn.Module:
    """Builds a loss that is called with logits (B, 2, H, W), probabilities (B, 2, H, W) and a mask (B, H, W).

    Args:
        term: its target and options.
        where: the key of the term, for messages.

    Returns:
        A loss of dmseg itself, without checks of values; any other module in an `OutsideTerm`.

    Raises:
        UserError: if an option does not fit, the loss takes probabilities, has trainable parameters, does not return
            one number that depends on the logits, or padding cannot be removed.
    """
    component = resolve(term.target, where)
    is_own = str(getattr(component, "__module__", "")).startswith("dmseg.")
    options = dict(term.options)
    if is_own or "check_values" in argument_names(component):
        options["check_values"] = False
    try:
        loss: nn.Module = bind(term.target, options, where=where, n_positional=0)()
        if is_own or isinstance(loss, PixelSumLoss):  # as many class weights as classes?
            loss(torch.zeros(1, N_CLASSES, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long))
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}") from None
    if not getattr(loss, "from_logits", True):
        raise UserError(f"{where}.from_logits is false, but networks give logits; set it to true")
    if any(parameter.requires_grad for parameter in loss.parameters()):
        raise UserError(
            f"{where}: {term.target} has parameters, which would not be trained; use a loss without parameters"
        )
    return loss if is_own or isinstance(loss, PixelSumLoss) else OutsideTerm(loss, f"{where}: {term.target}")


def takes_classes(term: LossTerm) -> bool:
    """Whether a term has the option `classes` of dmseg's region losses."""
    component = resolve(term.target, "loss.terms.region")
    return "classes" in term.options or (inspect.isclass(component) and issubclass(component, RegionLoss))


class OutsideTerm(nn.Module):
    """A loss from outside dmseg, called so that padding never counts.

    A loss whose `forward` has a parameter `mask` gets the mask (B, H, W), True for pixels that count. Any other loss is
    called once on random images to find out how padding can be removed from its input:

    - if it depends on the set of pixels alone (mean squared error, batch Dice), it gets the remaining pixels as one
      image (1, 2, N, 1);
    - if it is the mean over images (SSIM, boundary losses), it gets each image's rectangle without padding.

    A batch without padding is passed unchanged. A batch that consists of padding has loss 0.

    Args:
        loss: called with logits (B, 2, H, W) and probabilities (B, 2, H, W); returns a scalar.
        name: for messages.

    Raises:
        UserError: if it cannot be called like this, or padding can be removed in neither way.
    """

    def __init__(self, loss: nn.Module, name: str) -> None:
        super().__init__()
        self.loss = loss
        self._name = name
        self._buffered = any(True for _ in loss.buffers())
        with torch.random.fork_rng(devices=[]):
            self.padding = self._find_padding()

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the loss, a scalar.

        Args:
            input: (B, 2, H, W) logits.
            target: (B, 2, H, W) probabilities.
            mask: (B, H, W) bool, the pixels to keep; None keeps all.
        """
        if self._buffered:
            self.loss.to(input.device)
        if mask is None:
            mask = torch.ones_like(input[:, 0], dtype=torch.bool)
        if self.padding == "mask":
            return self.loss(input, target, mask=mask)  # type: ignore[no-any-return]
        if mask.all():
            return self.loss(input, target)  # type: ignore[no-any-return]
        if not mask.any():
            return (input * 0).sum()
        if self.padding == "pixels":
            return self.loss(_as_one_image(input, mask), _as_one_image(target, mask))  # type: ignore[no-any-return]
        boxes = []
        for index, keep in enumerate(mask):
            rows, columns = (keep.any(dim=axis).nonzero().flatten().tolist() for axis in (1, 0))
            if rows:  # an image without kept pixels does not count
                box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
                if not keep[box].all():  # augmentation leaves a rectangle
                    raise ValueError("the kept pixels of an image are not a rectangle; give the loss a parameter mask")
                boxes.append((slice(index, index + 1), slice(None), *box))
        return torch.stack([self.loss(input[box], target[box]) for box in boxes]).mean()

    def _find_padding(self) -> Padding:
        """Finds how padding can be removed, by comparing values of the loss on two very different images."""
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(2, N_CLASSES, EDGE, EDGE, generator=generator) + torch.tensor([0.0, 2.0]).view(2, 1, 1, 1)
        foreground = torch.rand(2, EDGE, EDGE, generator=generator) ** torch.tensor([1.0, 4.0]).view(2, 1, 1)
        target = torch.stack([1 - foreground, foreground], 1)
        mask = torch.ones(2, EDGE, EDGE, dtype=torch.bool)
        mask[0, :, : EDGE // 4] = mask[1, EDGE // 2 :] = False
        if "mask" in inspect.signature(self.loss.forward).parameters:
            value = self._tried(logits, target, mask)
            padding = ~mask.unsqueeze(1)
            if not _equal(value, self._tried(logits + 3 * padding, torch.where(padding, 1 - target, target), mask)):
                raise UserError(
                    f"{self._name} counts pixels where its mask is false; multiply by the mask, which is true for the "
                    "pixels that count"
                )
            return "mask"
        value = self._tried(logits, target)
        order = torch.randperm(mask.numel(), generator=generator)
        everything = torch.ones_like(mask)
        as_pixels = (_as_one_image(part, everything)[:, :, order] for part in (logits, target))
        if _equal(value, self._tried_or_none(*as_pixels)):
            return "pixels"
        alone = [self._tried_or_none(logits[index : index + 1], target[index : index + 1]) for index in range(2)]
        if None not in alone and _equal(value, sum(alone) / 2):  # type: ignore[arg-type]
            return "images"
        raise UserError(
            f"{self._name} has no mask, and is neither a function of the set of pixels nor a mean over images, so that "
            "padding cannot be removed; give its forward a parameter mask, (B, H, W), true for the pixels that count"
        )

    def _tried(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Calls the loss and checks what it returns."""
        input = input.clone().requires_grad_()
        shape = tuple(input.shape)
        more = {} if mask is None else {"mask": mask}
        try:
            value = self.loss(input, target.clone(), **more)
        except Exception as error:
            reason = cut(f"{type(error).__name__}: {first_line(error, '')}", 300)
            raise UserError(f"{self._name} cannot be called with logits and probabilities {shape}: {reason}") from error
        if not isinstance(value, Tensor):
            raise UserError(f"{self._name} returns {kind_of(value)}, but must return a tensor with one number")
        if value.shape != ():
            raise UserError(f"{self._name} returns shape {tuple(value.shape)}, but must return one number; reduce it")
        if not value.requires_grad:
            raise UserError(f"{self._name} cannot be differentiated: its value does not depend on the logits")
        if not value.isfinite():
            raise UserError(f"{self._name} is {value.item()} for random logits and probabilities {shape}")
        return value.detach()

    def _tried_or_none(self, input: Tensor, target: Tensor) -> Tensor | None:
        try:
            return self._tried(input, target)
        except UserError:
            return None


def _equal(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and bool(torch.isclose(value, other, rtol=TOLERANCE, atol=1e-7))


def _as_one_image(values: Tensor, mask: Tensor) -> Tensor:
    """The kept pixels of (B, C, H, W) as (1, C, N, 1)."""
    return values.movedim(1, -1)[mask].T[None, :, :, None]
