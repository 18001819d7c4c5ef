"""Weighted sums of losses."""

from collections.abc import Mapping, Sequence
from inspect import Parameter, signature

import torch
from torch import Tensor, nn

from dmseg.errors import kind_of
from dmseg.losses._check import check_at_least
from dmseg.losses._fused import RequiredSums
from dmseg.losses.counts import PixelSumLoss, pixel_sums


class CompoundLoss(nn.Module):
    """A weighted sum of losses that are called with ``(input, target, mask)``.

    Cross-entropy and all region losses share one softmax and one pass over the pixels. The paper trains with
    ``CompoundLoss({"ce": (0.25, SoftCrossEntropyLoss()), "dml1": (0.75, DiceSemimetricLoss())})`` (Section 3.2).

    Any other ``nn.Module(input, target)`` that returns a scalar can be a term; it is given the mask if its ``forward``
    has a parameter ``mask``. A term of weight 0 is computed, for `forward_parts`, but not added.

    Args:
        terms: name -> (weight, loss); weights are numbers of at least 0, not all of them 0.

    Raises:
        TypeError: if `terms` is not a mapping, or a term is not a weight and a module.
        ValueError: if there is no term, a weight is negative, all are 0, or some terms take logits and others
            probabilities.
    """

    def __init__(self, terms: Mapping[str, tuple[float, nn.Module]]) -> None:
        super().__init__()
        if not isinstance(terms, Mapping):
            raise TypeError(f"terms is {kind_of(terms)}; give a mapping from names to (weight, loss)")
        if not terms:
            raise ValueError("a compound loss needs at least one term")
        self.weights: dict[str, float] = {}
        for name, term in terms.items():
            if not isinstance(term, Sequence) or len(term) != 2 or not isinstance(term[1], nn.Module):
                raise TypeError(
                    f"term {name!r} is {kind_of(term)}"
                    + (f" of {', '.join(map(kind_of, term))}" if isinstance(term, tuple) else "")
                    + "; give (weight, loss), the loss a torch.nn.Module"
                )
            self.weights[name] = check_at_least(f"the weight of {name!r}", term[0], 0)
        if not any(self.weights.values()):
            raise ValueError("all weights are 0; give at least one term a weight")
        self.losses = nn.ModuleList([loss for _, loss in terms.values()])
        self._takes_mask = {name: _takes_mask(loss) for name, (_, loss) in terms.items()}
        takes_logits = {name: getattr(loss, "from_logits", True) for name, (_, loss) in terms.items()}
        if len(set(takes_logits.values())) > 1:
            raise ValueError(f"all terms get the same input, but from_logits differs: {takes_logits}")
        self.from_logits = next(iter(takes_logits.values()))

    def forward(self, input: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the weighted sum, a scalar; arguments and errors are those of the losses."""
        return self.forward_parts(input, target, mask)[0]

    def forward_parts(
        self, input: Tensor, target: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the weighted sum, a scalar, and the unweighted terms by name, detached scalars on the device.

        Args:
            input: (B, C, ...) logits or probabilities, as for the losses.
            target: (B, ...) integer classes or (B, C, ...) soft labels.
            mask: (B, ...), the pixels to keep; None keeps all.

        Raises:
            TypeError: if a dtype does not fit, or a term takes no mask and there is one.
            ValueError: if a shape or a value does not fit, or a term returns more than one number.
        """
        named = dict(zip(self.weights, self.losses, strict=True))
        shared = {name: loss for name, loss in named.items() if isinstance(loss, PixelSumLoss)}
        values: dict[str, Tensor] = {}
        if shared:
            required = RequiredSums()
            for loss in shared.values():
                required = required.union(loss.required)
            settings = [loss.check_values for loss in shared.values()]
            check = (
                True if True in settings else None if None in settings else False
            )  # values are checked if any loss checks them
            sums = pixel_sums(input, target, mask, required, from_logits=self.from_logits, check_values=check)
            values = {name: loss.from_sums(sums) for name, loss in shared.items()}
        for name, other in named.items():
            if name in shared:
                continue
            if mask is not None and not self._takes_mask[name]:
                raise TypeError(
                    f"term {name!r} ({type(other).__name__}) takes no mask; give it a parameter mask, or crop what is "
                    "masked"
                )
            values[name] = torch.as_tensor(other(input, target) if mask is None else other(input, target, mask=mask))
            if values[name].ndim:
                raise ValueError(
                    f"term {name!r} ({type(other).__name__}) returns shape {tuple(values[name].shape)}; give a loss "
                    "that returns one number, for example with reduction='mean'"
                )
        values = {name: values[name] for name in named}
        weighted = [self.weights[name] * value for name, value in values.items() if self.weights[name]]
        total = sum(weighted[1:], start=weighted[0])
        return total, {name: value.detach() for name, value in values.items()}

    def extra_repr(self) -> str:
        """Returns the weights by name, for `print`."""
        return ", ".join(f"{name}: {weight:g}" for name, weight in self.weights.items())


def _takes_mask(loss: nn.Module) -> bool:
    """Whether a loss has a parameter ``mask``, or takes any by name; a third one of another name is not a mask."""
    parameters = signature(loss.forward).parameters
    passes_on = {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD} <= {item.kind for item in parameters.values()}
    wrapped = getattr(loss, "_orig_mod", getattr(loss, "module", None))  # by torch.compile or DataParallel
    if passes_on and isinstance(wrapped, nn.Module):
        return _takes_mask(wrapped)
    named = "mask" in parameters and parameters["mask"].kind is not Parameter.POSITIONAL_ONLY
    return named or any(item.kind is Parameter.VAR_KEYWORD for item in parameters.values())
