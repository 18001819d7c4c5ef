"""MRNet's parts against other implementations, and what each of its losses reaches."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import norm
from torch.nn import functional

from dmseg.config.compose import compose_settings
from dmseg.models.build import build_model
from dmseg.models.mrnet_network import (
    Blur,
    ConditionedStep,
    ConvLSTMCell,
    MRNet,
    Perception,
    Pyramid,
    Widths,
    gaussian_kernel,
)
from dmseg.training.checkpoint import load_weights

WIDTHS = Widths(bottleneck=6, encoder=(4, 4, 6, 6, 8), context=6, detail=4, perception=4)


def network(model="unet_tiny", raters=3):
    settings = compose_settings(["data=phantom", f"model={model}", "model.weights=null"])
    torch.manual_seed(0)
    return MRNet(build_model(**settings.model.arguments, in_channels=1, classes=1), 1, raters, WIDTHS)


def image(size=32):
    return torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(1))


def reached(net):
    """Names of the modules that a gradient has reached."""
    return {name.split(".")[0] for name, value in net.named_parameters() if value.grad is not None}


def test_conv_lstm_on_one_pixel_is_torchs_lstm_cell():
    torch.manual_seed(0)
    own, other = ConvLSTMCell(5, 4).double(), torch.nn.LSTMCell(5, 4).double()
    with torch.no_grad():
        own.gates.weight[:, :, 1, 1] = torch.cat([other.weight_ih, other.weight_hh], dim=1)
        own.gates.bias.copy_(other.bias_ih + other.bias_hh)
    values, hidden, cell = (torch.randn(3, size, dtype=torch.float64) for size in (5, 4, 4))
    found = own(values[..., None, None], (hidden[..., None, None], cell[..., None, None]))
    for mine, expected in zip(found, other(values, (hidden, cell)), strict=True):
        torch.testing.assert_close(mine[..., 0, 0], expected)


def test_the_condition_is_the_first_state():
    torch.manual_seed(0)
    step = ConditionedStep(3, 8, 8)
    features, condition = torch.randn(2, 8, 5, 5), torch.rand(2, 3)
    first = step.embed(condition[..., None, None].expand(2, 3, 5, 5))
    torch.testing.assert_close(step(features, condition), step.cell(features, (first, first))[0])
    assert not torch.allclose(step(features, condition), step(features, condition.flip(1)))


def test_wide_features_are_led_through_a_narrow_lstm():
    step = ConditionedStep(6, 2048, 512)
    assert step(torch.randn(1, 2048, 2, 2), torch.rand(1, 6)).shape == (1, 2048, 2, 2)
    assert sum(value.numel() for value in step.parameters()) < 25e6


def test_blur_is_a_convolution_with_zeros_beyond_the_border():
    values = torch.rand(2, 1, 20, 27, dtype=torch.float32)
    blur = Blur(31)
    with torch.no_grad():
        blur.weight.copy_(torch.rand(31, 31, generator=torch.Generator().manual_seed(0)))
        expected = functional.conv2d(values.double(), blur.weight[None, None].double(), padding=15)
        torch.testing.assert_close(blur(values).double(), expected, rtol=1e-5, atol=1e-3)


def test_the_first_blur_is_the_published_gaussian():
    edge, reach = 31, 4
    pixel = (2 * reach + 1) / edge
    mass = np.diff(norm.cdf(np.linspace(-reach - pixel / 2, reach + pixel / 2, edge + 1)))
    kernel = np.sqrt(np.outer(mass, mass))
    np.testing.assert_allclose(gaussian_kernel(31), kernel / kernel.sum(), rtol=1e-5)


def test_perception_by_hand():
    torch.manual_seed(0)
    part = Perception(4, 4).eval()
    features, coarse, raters = torch.randn(1, 4, 12, 12), torch.randn(1, 1, 12, 12), torch.randn(1, 3, 12, 12)
    seen = []
    with torch.no_grad():
        refined = part.refine(features)
        for values in (coarse.sigmoid(), raters.sigmoid().var(dim=1, keepdim=True).sqrt()):
            blurred = ndimage.correlate(values[0, 0].numpy().astype(float), part.blur.weight.numpy(), mode="constant")
            stretched = (blurred - blurred.min()) / (blurred.max() - blurred.min())
            attention = torch.from_numpy(np.maximum(stretched, values[0, 0].numpy())).float()
            seen.append(refined * attention + refined)
        torch.testing.assert_close(part(features, coarse, raters), part.head(torch.cat(seen, 1)), rtol=1e-4, atol=1e-4)


def test_flat_maps_give_no_attention_and_finite_gradients():
    part = Perception(4, 4)
    raters = torch.zeros(2, 3, 12, 12, requires_grad=True)
    part(torch.randn(2, 4, 12, 12), torch.zeros(2, 1, 12, 12), raters.detach()).sum().backward()
    assert all(value.grad.isfinite().all() for value in part.parameters())


def test_pyramid_adds_each_branch_to_those_before():
    torch.manual_seed(0)
    pyramid = Pyramid(4, 3).eval()
    values = torch.randn(2, 4, 40, 40)
    with torch.no_grad():
        branches = [branch(values) for branch in pyramid.branches] + [pyramid.pooled(values).expand(-1, -1, 40, 40)]
        sums = torch.stack(branches).cumsum(0)
        torch.testing.assert_close(pyramid(values), pyramid.merge(torch.cat(list(sums), 1)))


@pytest.mark.parametrize(
    ("output", "modules"),
    [("coarse", {"backbone", "expertise"}), ("raters", {"reconstruction"}), ("final", {"perception"})],
)
def test_no_loss_reaches_another_module(output, modules):
    net = network()
    net.zero_grad()
    getattr(net(image(), [torch.full((2, 3), 1 / 3)])[0], output).sum().backward()
    assert reached(net) == modules


def test_consistency_reaches_the_backbone_and_leaves_the_measure_alone():
    net = network()
    before = {name: value.clone() for name, value in net.reconstruction.state_dict().items()}
    label = (torch.rand(2, 1, 32, 32) > 0.5).float()
    coarse = net.backbone(image()).sigmoid()
    found = net.reconstruction.distance(image(), coarse, label)
    found.backward()
    assert reached(net) == {"backbone"}
    assert all(torch.equal(before[name], value) for name, value in net.reconstruction.state_dict().items())
    maps = [net.reconstruction.encoder(torch.cat([image(), given], 1))[0] for given in (coarse, label)]
    assert [tuple(item.shape[1:]) for item in maps[0]] == [
        (3, 32, 32), (4, 16, 16), (4, 8, 8), (6, 4, 4), (6, 2, 2), (8, 2, 2)
    ]  # fmt: skip
    by_hand = sum(functional.pairwise_distance(a, b, eps=0.0).square().mean() for a, b in zip(*maps, strict=True))
    torch.testing.assert_close(found, by_hand / 1000)
    assert net.reconstruction.distance(image(), label, label) == 0


@pytest.mark.parametrize("load", [load_weights, lambda net, weights: net.load_state_dict(weights)])
def test_weights_stored_under_the_earlier_name_of_the_backbone_load(load):
    source, target = network().eval(), network().eval()
    for value in source.parameters():
        torch.nn.init.normal_(value, std=0.1)
    stored = {
        name.replace("backbone.", "host.", 1) if name.startswith("backbone.") else name: value
        for name, value in source.state_dict().items()
    }
    assert any(name.startswith("host.") for name in stored)
    load(target, stored)
    condition = [torch.full((2, 3), 1 / 3)]
    assert torch.equal(target(image(), condition)[0].final, source(image(), condition)[0].final)


@pytest.mark.parametrize("model", ["unet_resnet18", "deeplabv3plus_resnet18", "unet_mobilenetv2"])
def test_any_network_can_be_the_backbone(model):
    net = network(model, raters=5)
    conditions = [torch.full((2, 5), 1 / 5), torch.eye(5)[:2]]
    first, second = net(image(64), conditions)
    assert (first.coarse.shape, first.raters.shape) == ((2, 1, 64, 64), (2, 5, 64, 64))
    assert first.final.shape == (2, 1, 64, 64)
    assert not torch.allclose(first.coarse, second.coarse)
    alone = net.eval()(image(64), conditions)[1]
    torch.testing.assert_close(alone.final, net(image(64), conditions[1:])[0].final)
