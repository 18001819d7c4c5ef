"""The released networks: layers, sizes, initial weights, and that the auxiliary head has no part in predictions."""

import math

import pytest
import torch
from torch import nn

from dmseg.config.compose import compose_settings
from dmseg.errors import UserError
from dmseg.models.auxiliary import AuxiliaryHead, auxiliary_share, forward_heads
from dmseg.models.build import build_model

RELEASE = ("protocol=release", "model.weights=null")
MODELS = ("unet_resnet50", "unet_resnet18", "unet_efficientnet_b0", "unet_mobilenetv2", "deeplabv3plus_resnet18")


def build(name, *overrides, channels=1):
    model = compose_settings([f"model={name}", *overrides]).model
    return build_model(**model.arguments, in_channels=channels)


def count(module):
    return sum(value.numel() for value in module.parameters())


@pytest.mark.parametrize("name", [*MODELS, "unet_tiny"])
def test_every_released_network_has_an_auxiliary_head_of_the_published_size(name):
    """A 3x3 convolution, normalisation and a 1x1 convolution on the last but one feature map (facts of the release)."""
    with torch.device("meta"):
        network = build(name, *RELEASE)
        main, auxiliary = forward_heads(network, torch.empty(2, 1, 64, 64))
        plain = build(name, "model.weights=null")
    assert main.shape == auxiliary.shape == (2, 2, 64, 64)
    before, width = network.encoder.out_channels[-2], 256 if name == "unet_resnet50" else 64
    assert count(network.auxiliary_head) == 9 * before * width + 2 * width + 2 * width + 2
    assert not hasattr(plain, "auxiliary_head")
    assert (auxiliary_share(network), auxiliary_share(plain)) == (0.5, 0.0)


def test_parameters_of_the_unet_on_resnet50_are_those_of_the_released_code():
    """Encoder, five blocks of two 3x3 convolutions with normalisation, two heads: 76 million."""
    with torch.device("meta"):
        network = build("unet_resnet50", *RELEASE)
    widths, skips, before, expected = (1024, 512, 256, 128, 64), (1024, 512, 256, 64, 0), 2048, 0
    for width, skip in zip(widths, skips, strict=True):
        expected += 9 * (before + skip) * width + 9 * width * width + 4 * width
        before = width
    assert count(network.decoder) == expected
    assert count(network.segmentation_head) == 64 * 2 + 2
    assert count(network) == count(network.encoder) + expected + 130 + 2_360_322
    assert count(network) / 1e6 == pytest.approx(76, abs=0.5)


def test_parameters_of_the_released_deeplab_decoder():
    """ResNet18: 512 channels, stride 4 with 64; 128 channels, shortcut of 12 (configs/models of the release)."""
    with torch.device("meta"):
        network = build("deeplabv3plus_resnet18", *RELEASE)

    def unit(before, after, kernel):
        return kernel**2 * before * after + 2 * after

    def separable(before, after, kernel):
        return kernel**2 * before + 2 * before + unit(before, after, 1)

    pyramid = unit(512, 128, 1) + separable(512, 128, 1) + 3 * separable(512, 128, 3)
    rest = unit(5 * 128, 128, 3) + unit(64, 12, 1) + separable(140, 128, 3) + separable(128, 128, 3)
    assert count(network.decoder) == pyramid + rest
    rates = [m.dilation[0] for m in network.decoder.modules() if isinstance(m, nn.Conv2d) and m.dilation[0] > 1]
    assert rates == [12, 24, 36]
    ups = [module for module in network.modules() if isinstance(module, nn.Upsample)]
    assert [module.align_corners for module in ups] == [False]
    assert not any(isinstance(module, nn.Dropout) for module in network.decoder.modules())


@pytest.mark.parametrize("name", MODELS)
def test_dropout_stands_right_before_the_last_convolution_of_both_heads(name):
    with torch.device("meta"):
        network = build(name, *RELEASE)
    for head in (network.segmentation_head, network.auxiliary_head):
        layers = [module for module in head.modules() if isinstance(module, nn.Conv2d | nn.Dropout2d | nn.BatchNorm2d)]
        assert [type(layer) for layer in layers[-2:]] == [nn.Dropout2d, nn.Conv2d]
        assert (layers[-2].p, layers[-1].kernel_size) == (0.1, (1, 1))
    assert not any(isinstance(module, nn.Dropout2d) for module in build("unet_tiny").modules())


@pytest.mark.parametrize("name", ["unet_tiny", "deeplabv3plus_resnet18"])
def test_predictions_are_deterministic_and_do_not_use_the_auxiliary_head(name):
    torch.manual_seed(0)
    network = build(name, *RELEASE).eval()
    image = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        once = network(image)
        assert torch.equal(once, network(image))
        assert torch.equal(once, forward_heads(network, image)[0])
        network.auxiliary_head = None
        assert torch.equal(once, network(image))
        assert not torch.equal(network.train()(image), network(image)), "dropout is on in training"


def spread(weight, fan, gain):
    """Standard deviation of a uniform distribution with bound gain * sqrt(3 / fan), and that of the weight."""
    return float(weight.detach().std()), gain / math.sqrt(fan)


@pytest.mark.parametrize("name", ["unet_resnet18", "deeplabv3plus_resnet18"])
def test_initial_weights_are_kaiming_in_the_decoder_and_xavier_in_the_heads(name):
    torch.manual_seed(0)
    network = build(name, *RELEASE)
    decoder = [module for module in network.decoder.modules() if isinstance(module, nn.Conv2d)]
    assert len(decoder) > 9
    for module in [*decoder, network.auxiliary_head[0]]:
        found, expected = spread(module.weight, module.weight[0].numel(), math.sqrt(2))
        assert found == pytest.approx(expected, rel=0.15)
        assert float(module.weight.detach().abs().max()) <= math.sqrt(3) * expected * 1.0001
    for head in (network.segmentation_head, network.auxiliary_head):
        last = [module for module in head.modules() if isinstance(module, nn.Conv2d)][-1]
        fans = last.in_channels + last.out_channels
        assert float(last.weight.detach().std()) == pytest.approx(math.sqrt(2 / fans), rel=0.25)
        assert float(last.weight.detach().abs().max()) <= math.sqrt(6 / fans)
        assert not last.bias.any()


def test_the_librarys_deeplab_is_not_initialised_like_that():
    torch.manual_seed(0)
    decoder = build("deeplabv3plus_resnet18", "model.weights=null").decoder
    weight = decoder.aspp[0].project[0].weight
    assert float(weight.detach().std()) < 0.6 * math.sqrt(2 / weight[0].numel())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["model.options.encoder_depth=1", "model.options.decoder_channels=[8]"],
            r"Unet on test_resnet cannot have an auxiliary head, because its encoder has no feature map before",
        ),
        (["model.encoder=convnext_atto", "model.options={encoder_depth:2,decoder_channels:[16,8]}"], "no feature map"),
    ],
)
def test_an_encoder_without_the_feature_map_is_refused_in_one_line(overrides, words):
    with pytest.raises(UserError, match=words) as caught:
        build("unet_tiny", "model.auxiliary.weight=0.5", "model.weights=null", *overrides)
    assert "\n" not in str(caught.value)
    assert build("unet_tiny", "model.weights=null", *overrides) is not None


@pytest.mark.parametrize("architecture", ["FPN", "PAN", "MAnet", "UnetPlusPlus", "Linknet"])
def test_other_architectures_have_an_auxiliary_head_too(architecture):
    chosen = [f"model.architecture={architecture}", "model.encoder=resnet18", "model.options.encoder_depth=5", *RELEASE]
    chosen += ["~model.options.decoder_channels", "model.head_kernel=null"]
    with torch.device("meta"):
        network = build("unet_tiny", *chosen)
    assert isinstance(network.auxiliary_head, AuxiliaryHead)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.decoder=release"], r"model\.decoder is 'release', which is a decoder of DeepLabV3Plus"),
        (["model.head_kernel=2"], r"model\.head_kernel is 2, but must be odd"),
        (["model.auxiliary.weight=1"], r"model\.auxiliary\.weight is 1\.0, but must lie between 0 and 0\.99"),
        (
            ["model.auxiliary.weight=0.5", "loss.terms.ce.weight=0"],
            "learns from the cross-entropy, which is switched off",
        ),
        (["model.initialization=x"], r"model\.initialization is 'x', but must be library or kaiming"),
        (["distill=kd", "model.auxiliary.weight=0.5"], "network unet_resnet50 has none"),
    ],
)
def test_settings_that_do_not_fit(overrides, words):
    with pytest.raises(UserError, match=words):
        compose_settings(["model=unet_tiny", *overrides])
