"""Networks: segmentation-models-pytorch architectures on timm encoders, with weights from a hub or a local file."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import segmentation_models_pytorch as smp
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from timm.models import adapt_input_conv
from torch import Tensor, nn

from dmseg.errors import UserError, cut, first_line
from dmseg.models.auxiliary import add_auxiliary_head
from dmseg.models.released_deeplab import use_released_decoder
from dmseg.models.weights import HUB

N_CLASSES = 2
"""Background and foreground, with a softmax over both (paper, section 2; JDTLosses)."""

log = logging.getLogger(__name__)


def build_model(
    architecture: str,
    encoder: str,
    in_channels: int,
    *,
    classes: int = N_CLASSES,
    weights: str | None = None,
    options: Mapping[str, Any] | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    decoder: str = "library",
    head_kernel: int | None = None,
    head_dropout: float = 0.0,
    initialization: str = "library",
    auxiliary_channels: int = 64,
    auxiliary_weight: float = 0.0,
) -> nn.Module:
    """Builds a network and loads its encoder's weights. Uses torch's global random numbers.

    Args:
        architecture: class name in segmentation_models_pytorch, for example ``Unet``.
        encoder: name of a timm network.
        in_channels: image channels, 1 to 4; ImageNet stems are adapted (summed or repeated) as timm does.
        classes: channels of the output.
        weights: ``imagenet``, path of a safetensors file, or None for random weights.
        options: further arguments of the architecture; None values are left out.
        encoder_options: further arguments of the encoder.
        decoder: ``library`` (segmentation-models-pytorch's) or, for DeepLabV3Plus, ``release`` (the authors').
        head_kernel: odd edge length of the last convolution's kernel; None for the architecture's own.
        head_dropout: probability of dropping a channel before the last convolution, in [0, 1).
        initialization: ``library``, or ``kaiming``: uniform Kaiming in the decoder, uniform Xavier in the heads, biases
            of 0. The library does the same for Unet, but leaves DeepLabV3Plus to PyTorch's defaults.
        auxiliary_channels: channels of an auxiliary head, see `dmseg.models.auxiliary`.
        auxiliary_weight: its share of the cross-entropy in training, in [0, 1); 0 for no such head.

    Returns:
        A network from (B, in_channels, H, W) to logits (B, classes, H, W).

    Raises:
        UserError: if the architecture or encoder is unknown, an option does not fit, the architecture cannot have this
            decoder, head or auxiliary head, or weights cannot be downloaded.
    """
    network = getattr(smp, architecture, None)
    if not (isinstance(network, type) and issubclass(network, nn.Module)):
        raise UserError(f"model.architecture '{cut(architecture)}' is not one of segmentation_models_pytorch")
    try:
        model: nn.Module = network(
            encoder_name=f"tu-{encoder}",
            encoder_weights=HUB if weights == HUB else None,
            in_channels=in_channels,
            classes=classes,
            **{name: value for name, value in (options or {}).items() if value is not None},
            **(encoder_options or {}),
        )
    except MemoryError:
        raise
    except Exception as error:  # smp and timm raise anything: AssertionError, AttributeError, IndexError
        if weights == HUB and isinstance(error, (OSError, RuntimeError)):
            raise UserError(
                f"ImageNet weights of {encoder} could not be downloaded from timm's hub\n"
                "set model.weights to a local safetensors file, or to null"
            ) from error
        raise UserError(
            f"{architecture} on timm's {cut(encoder)} cannot be built: {first_line(error)[:200]}; check the options of "
            "model"
        ) from error
    if weights not in (None, HUB):
        load_encoder(model.encoder.model, Path(str(weights)), in_channels)  # type: ignore[union-attr,arg-type]
    if decoder == "release":
        use_released_decoder(model, architecture)
    if head_kernel is not None:
        old = _layers(model, architecture)[0]
        last = nn.Conv2d(old.in_channels, old.out_channels, head_kernel, padding=head_kernel // 2)  # type: ignore[arg-type]
        initialize_head(last)
        cast(nn.Sequential, model.segmentation_head)[0] = last
    if initialization == "kaiming":
        initialize_decoder(model.decoder)
        initialize_head(model.segmentation_head)
    if auxiliary_weight:
        name = f"{architecture} on {cut(encoder)}"
        add_auxiliary_head(model, name, auxiliary_channels, classes, head_dropout, auxiliary_weight)
    if head_dropout:
        model.segmentation_head = nn.Sequential(nn.Dropout2d(head_dropout), *_layers(model, architecture))
    return model


def _layers(model: nn.Module, architecture: str) -> list[nn.Module]:
    """Convolution, upsampling and activation of the head.

    Raises:
        UserError: if the architecture has another kind of head.
    """
    head = getattr(model, "segmentation_head", None)
    if not isinstance(head, SegmentationHead):
        raise UserError(
            f"the head of {architecture} cannot be changed; set model.head_kernel=null and model.head_dropout=0"
        )
    return list(head)


def load_encoder(encoder: nn.Module, path: Path, in_channels: int) -> None:
    """Loads a timm encoder's weights from a safetensors file and logs what was ignored.

    Args:
        encoder: a timm network (features only).
        path: the file, with timm's parameter names.
        in_channels: image channels; a stem of three channels is adapted.

    Raises:
        UserError: if the file is missing or damaged, has values that are not finite, or belongs to another encoder.
    """
    own = {name: value.shape for name, value in encoder.state_dict().items()}
    ending = "it may be null, imagenet or the path of a safetensors file"
    try:
        if not path.is_file():  # reading a pipe would block
            raise FileNotFoundError("it is not a regular file")
        state: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError, ValueError, OverflowError, MemoryError) as error:
        reason = first_line(error)
        raise UserError(f"model.weights={path} cannot be read ({reason[:200]}); {ending}") from None
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"model.weights={path} has values in {name[:100]!r} that are not finite; {ending}")
    for name, value in state.items():
        shape = own.get(name)
        if shape is not None and value.ndim == 4 and value.shape != shape and shape[1] == in_channels:
            state[name] = adapt_input_conv(in_channels, value)  # the first convolution, as timm does
    fits = {name: value for name, value in state.items() if own.get(name) == value.shape}
    ignored = sorted(set(state) - set(fits))
    missing = sorted(name for name in set(own) - set(fits) if not name.endswith("num_batches_tracked"))
    if len(missing) > len(own) // 2:
        raise UserError(
            f"{path} does not belong to this encoder: {len(missing)} of its {len(own)} tensors are not in the file, "
            f"for example {missing[0]}; choose the model that the file was made for"
        )
    encoder.load_state_dict(fits, strict=False)
    log.info(
        "%s: %d tensors loaded; ignored: %s; left as initialised: %s",
        path.name,
        len(fits),
        _list(ignored),
        _list(missing),
    )


def _list(names: list[str]) -> str:
    return "nothing" if not names else ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def split_parameters(
    model: nn.Module,
) -> tuple[list[tuple[str, nn.Parameter]], list[tuple[str, nn.Parameter]]]:
    """Trainable parameters of the encoder and of the rest of the network, with names."""
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    encoder = [(name, value) for name, value in named if name.startswith("encoder.")]
    return encoder, [(name, value) for name, value in named if not name.startswith("encoder.")]


def foreground_probability(logits: Tensor) -> Tensor:
    """Foreground probability (B, H, W) float32 of two-class logits (B, 2, H, W)."""
    return torch.softmax(logits.float(), dim=1)[:, 1]
