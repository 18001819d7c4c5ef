"""The loss with an auxiliary head, against plain PyTorch; distillation of both heads; resuming with it."""

import pytest
import torch
from torch.nn import functional

from dmseg.calibration import PixelKernel, recalibrate
from dmseg.config.compose import compose_settings
from dmseg.data.batches import Batch
from dmseg.methods.multi_head import HeadsObjective
from dmseg.models.auxiliary import forward_heads
from dmseg.models.build import build_model
from dmseg.training.distill import DistillObjective, Teacher
from dmseg.training.objective import LabelObjective, build_loss

SHARE = 0.3
OVERRIDES = ["model=unet_tiny", f"model.auxiliary.weight={SHARE}", "model.weights=null"]


def network(seed=0, classes=2):
    torch.manual_seed(seed)
    model = compose_settings(OVERRIDES).model
    return build_model(**model.arguments, in_channels=1, classes=classes).eval()


def batch(raters=0):
    generator = torch.Generator().manual_seed(0)
    hard = (torch.rand(3, 32, 32, generator=generator) < 0.3).long()
    mask = torch.ones(3, 32, 32, dtype=torch.bool)
    mask[:, :, :5] = False
    target = functional.one_hot(hard, 2).movedim(-1, 1).float()
    image = torch.randn(3, 1, 32, 32, generator=generator)
    if not raters:
        return Batch(image, target, mask)
    marked = (torch.rand(3, raters, 32, 32, generator=generator) < 0.3).float()
    return Batch(image, target, mask, marked, torch.ones(3, raters, dtype=torch.bool))


def cross_entropy(logits, target, mask):
    return functional.cross_entropy(logits, target, reduction="none")[mask].mean()


def dml(logits, target, mask):
    prob, target = logits.softmax(1) * mask[:, None], target * mask[:, None]
    gap, both = (prob - target).abs().sum((0, 2, 3)), (prob + target).sum((0, 2, 3))
    return (gap / (both + 2)).mean()


def test_the_loss_and_its_gradients_against_plain_pytorch():
    model, data = network(), batch()
    total, parts = LabelObjective(build_loss(compose_settings(OVERRIDES).loss)).losses(model, data, "fp32")
    total.backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters()}
    model.zero_grad()
    features = model.encoder(data.image)
    main = model.segmentation_head(model.decoder(features))
    small = model.auxiliary_head(features[-2])
    auxiliary = functional.interpolate(small, scale_factor=8, mode="bilinear", align_corners=False)
    ce = (1 - SHARE) * cross_entropy(main, data.target, data.mask)
    ce = ce + SHARE * cross_entropy(auxiliary, data.target, data.mask)
    expected = 0.25 * ce + 0.75 * dml(main, data.target, data.mask)
    expected.backward()
    torch.testing.assert_close(total, expected)
    for name, value in model.named_parameters():
        torch.testing.assert_close(found[name], value.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(parts["auxiliary_ce"], cross_entropy(auxiliary, data.target, data.mask).detach())
    assert set(parts) == {"ce", "region", "auxiliary_ce"}


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("kernel", [None, PixelKernel(bandwidth=0.01, n_key=50)])
def test_the_student_is_distilled_head_by_head(temperature, kernel):
    """Half label, half teacher; each cross-entropy is divided between the heads, region losses are the main head's."""
    student, teacher, data = network(0), network(1), batch()
    words = [*OVERRIDES, "distill=kd", f"distill.temperature={temperature}", "protocol.auxiliary_weight=0.5"]
    settings = compose_settings(words)
    taught = Teacher(teacher, temperature, kernel, torch.Generator().manual_seed(0))
    total, parts = DistillObjective(settings.distill, settings.loss, taught).losses(student, data, "fp32")
    with torch.no_grad():
        main, auxiliary = forward_heads(student, data.image)
        q, q_auxiliary = ((head / temperature).softmax(1) for head in forward_heads(teacher, data.image))
    if kernel is not None:
        q = recalibrate(q, data.target, data.mask, kernel, torch.Generator().manual_seed(0))
        q_auxiliary = taught_auxiliary(taught, data)
    expected = 0.25 * (1 - SHARE) * cross_entropy(main, data.target, data.mask)
    expected += 0.25 * SHARE * cross_entropy(auxiliary, data.target, data.mask)
    expected += 0.75 * dml(main, data.target, data.mask) + 0.75 * dml(main, q, data.mask)
    soft = (1 - SHARE) * cross_entropy(main / temperature, q, data.mask)
    soft += SHARE * cross_entropy(auxiliary / temperature, q_auxiliary, data.mask)
    expected += 0.25 * temperature**2 * soft
    torch.testing.assert_close(total.detach(), 0.5 * expected)
    assert set(parts) == {
        *(f"{side}_{name}" for side in ("label", "teacher") for name in ("ce", "region", "auxiliary_ce"))
    }


def taught_auxiliary(taught, data):
    taught.keys.manual_seed(0)
    return taught.targets(data)[1]


def test_both_heads_of_a_teacher_are_calibrated_in_the_same_pixels():
    teacher, data, kernel = network(1), batch(), PixelKernel(bandwidth=0.01, n_key=50)
    plain = Teacher(teacher, 1.0, None, torch.Generator()).targets(data)
    found = Teacher(teacher, 1.0, kernel, torch.Generator().manual_seed(0)).targets(data)
    changed = [(one != other).any(1) for one, other in zip(plain, found, strict=True)]
    allowed = (plain[0].argmax(1) != data.target.argmax(1)) & data.mask
    assert changed[1][allowed].float().mean() > 0.99
    near = functional.max_pool2d(data.target, 3, stride=1, padding=1).sum(1) > 1.5
    assert not (changed[1] & ~allowed & ~near).any(), "elsewhere the main head decides that nothing is changed"


def test_each_rater_of_multi_head_has_an_auxiliary_head():
    model, data = network(0, classes=6), batch(raters=3)
    objective = HeadsObjective(build_loss(compose_settings(OVERRIDES).loss))
    total, parts = objective.losses(model, data, "fp32")
    with torch.no_grad():
        main, auxiliary = (head.reshape(3, 3, 2, 32, 32) for head in forward_heads(model, data.image))
    expected = 0.0
    for rater in range(3):
        foreground = data.annotations[0][:, rater]
        target = torch.stack([1 - foreground, foreground], 1)
        ce = (1 - SHARE) * cross_entropy(main[:, rater], target, data.mask)
        ce += SHARE * cross_entropy(auxiliary[:, rater], target, data.mask)
        expected += (0.25 * ce + 0.75 * dml(main[:, rater], target, data.mask)) / 3
    torch.testing.assert_close(total.detach(), expected)
    assert set(parts) == {"ce", "region", "auxiliary_ce"}
