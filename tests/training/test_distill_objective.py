"""The loss of distillation, term by term and by hand; the teacher is asked and nothing else."""

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from dmseg.calibration import PixelKernel, recalibrate
from dmseg.config.compose import compose_settings
from dmseg.data.batches import Batch
from dmseg.data.training_slices import TrainingData
from dmseg.training.distill import DistillObjective, Teacher, pixel_kernel, teacher_temperature

OFF = ["distill.kde=null"]


def network(seed=0):
    """Has batch normalisation and dropout, so that training mode would show."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 2, 1)
    )


def batch(seed=0, size=16):
    generator = torch.Generator().manual_seed(seed)
    hard = (torch.rand(4, size, size, generator=generator) < 0.3).long()
    mask = torch.ones(4, size, size, dtype=torch.bool)
    mask[:, :, :3] = False
    target = functional.one_hot(hard, 2).movedim(-1, 1).float()
    return Batch(torch.randn(4, 1, size, size, generator=generator), target, mask)


def settings_of(*overrides):
    settings = compose_settings(["distill=kd", *overrides])
    return settings.distill, settings.loss


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def teacher(temperature=1.0, kernel=None):
    return Teacher(network(1), temperature, kernel, stream())


def total_of(*overrides, kernel=None, temperature=1.0):
    """Loss of one step of a fixed student, and its parts."""
    distill, loss = settings_of(*overrides)
    total, parts = DistillObjective(distill, loss, teacher(temperature, kernel)).losses(
        network(0).eval(), batch(), "fp32"
    )
    return float(total.detach()), {name: float(value) for name, value in parts.items()}


def by_hand(temperature=1.0):
    """Each term, from the definitions of cross-entropy and of DML,1 over the batch with smooth 1."""
    data = batch()
    with torch.no_grad():
        logits, theirs = network(0).eval()(data.image), network(1).eval()(data.image)
    keep = data.mask.unsqueeze(1)

    def cross_entropy(logits, target):
        return float((-(target * logits.log_softmax(1)).sum(1) * data.mask).sum() / data.mask.sum())

    def dml(logits, target):
        prob, target = logits.softmax(1) * keep, target * keep
        gap, both = ((prob - target).abs().sum((0, 2, 3)), (prob + target).sum((0, 2, 3)))
        return float((gap / (both + 2)).mean())

    q = (theirs / temperature).softmax(1)
    return {
        "label_ce": cross_entropy(logits, data.target),
        "label_region": dml(logits, data.target),
        "teacher_ce": cross_entropy(logits / temperature, q),
        "teacher_region": dml(logits, q),
    }


def test_the_weights_by_hand():
    total, parts = total_of(*OFF)
    expected = by_hand()
    assert parts == pytest.approx(expected, rel=1e-5)
    weights = {"label_ce": 0.125, "label_region": 0.375, "teacher_ce": 0.125, "teacher_region": 0.375}
    assert total == pytest.approx(sum(weights[name] * expected[name] for name in weights), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_a_temperature_softens_both_in_the_cross_entropy_and_the_teacher_in_the_region_loss(temperature):
    total, parts = total_of(*OFF, f"distill.temperature={temperature}", temperature=temperature)
    expected = by_hand(temperature)
    assert parts == pytest.approx(expected, rel=1e-5)
    weights = {"label_ce": 0.125, "label_region": 0.375, "teacher_ce": 0.125 * temperature**2, "teacher_region": 0.375}
    assert total == pytest.approx(sum(weights[name] * expected[name] for name in weights), rel=1e-5)


def test_what_is_left_keeps_its_weight_unless_asked():
    """Table 7's column CE: both label terms and the teacher's cross-entropy."""
    distill, loss = settings_of("distill.teacher_region=false")
    left = {"label_ce": 0.125, "label_region": 0.375, "teacher_ce": 0.125}
    assert distill.weights(loss) == pytest.approx(left)
    asked = dataclasses.replace(distill, renormalise=True).weights(loss)
    assert asked == pytest.approx({name: value / 0.625 for name, value in left.items()})
    assert sum(asked.values()) == pytest.approx(1)
    expected = by_hand()
    total, parts = total_of(*OFF, "distill.teacher_region=false")
    assert set(parts) == set(left)
    assert total == pytest.approx(sum(left[name] * expected[name] for name in left), rel=1e-5)


def test_sides_weigh_as_configured():
    distill, loss = settings_of("distill.label_weight=0.9", "distill.teacher_weight=0", "loss.ce_weight=1")
    assert distill.weights(loss) == pytest.approx({"label_ce": 0.9, "label_region": 0.675})
    assert not distill.needs_teacher(loss)


@pytest.mark.parametrize("loss", ["ce_sdl", "ce_dml2"])
def test_the_region_loss_of_both_terms_is_that_of_the_loss_group(loss):
    _, parts = total_of(*OFF)
    _, other = total_of(*OFF, f"loss={loss}")
    assert other["label_ce"] == pytest.approx(parts["label_ce"])
    assert other["teacher_region"] != pytest.approx(parts["teacher_region"], rel=1e-3)
    assert other["label_region"] == pytest.approx(parts["label_region"]), "equal on hard labels (Theorem 2)"


def test_kl_is_less_by_the_teachers_entropy():
    _, parts = total_of(*OFF)
    _, divergence = total_of(*OFF, "loss.kl=true")
    q = network(1).eval()(batch().image).softmax(1).detach()
    keep = batch().mask
    entropy = float((-(q * q.log()).sum(1) * keep).sum() / keep.sum())
    assert divergence["teacher_ce"] == pytest.approx(parts["teacher_ce"] - entropy, rel=1e-4)
    assert divergence["label_ce"] == pytest.approx(parts["label_ce"], rel=1e-5)


def test_the_release_takes_present_classes_for_labels_and_all_for_the_teacher():
    distill, loss = settings_of("protocol=release", "data=lidc", "labels=majority")
    assert loss.terms["region"].options["classes"] == "present"
    assert distill.classes == "all"


def test_the_teacher_is_untouched():
    taught = teacher(kernel=PixelKernel(1e-2, 50))
    before = copy.deepcopy(taught.network.state_dict())
    student = network(0).train()
    distill, loss = settings_of()
    objective = DistillObjective(distill, loss, taught)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for _ in range(3):
        total, _ = objective.losses(student, batch(), "fp32")
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert not taught.network.training
    assert all(value.grad is None and not value.requires_grad for value in taught.network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in taught.network.state_dict().items())
    assert student.training


def test_the_teacher_is_float32_under_bf16():
    taught = teacher()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = taught.targets(batch())[0]
    assert inside.dtype == torch.float32
    assert torch.equal(inside, taught.targets(batch())[0])
    assert not torch.equal(inside, inside.bfloat16().float())
    assert not inside.requires_grad


def test_the_kernel_recalibrates_after_the_temperature():
    kernel, data = PixelKernel(1e-2, 50), batch()
    taught = Teacher(network(1), 2.0, kernel, stream())
    q = (network(1).eval()(data.image).detach() / 2).softmax(1)
    torch.testing.assert_close(taught.targets(data)[0], recalibrate(q, data.target, data.mask, kernel, stream()))
    assert pixel_kernel(settings_of("distill.kde.bandwidth=0")[0].kde) is None
    assert pixel_kernel(settings_of()[0].kde) == PixelKernel(1e-3, 1000, "batch", True, False, 3)


def test_the_stream_of_the_keys_is_part_of_the_state():
    distill, loss = settings_of()
    objective = DistillObjective(distill, loss, teacher(kernel=PixelKernel(1e-2, 20)))
    state = objective.state()
    first = objective.losses(network(0).eval(), batch(), "fp32")[0]
    second = objective.losses(network(0).eval(), batch(), "fp32")[0]
    objective.load_state(state)
    assert torch.equal(objective.losses(network(0).eval(), batch(), "fp32")[0], first)
    assert not torch.equal(first, second)


def test_the_temperature_makes_an_overconfident_teacher_less_so():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 1, 32, 32), generator=generator, dtype=torch.uint8)

    class Sure(nn.Module):
        def forward(self, image):
            return torch.cat([-image, image], 1) * 3

    truth = torch.sigmoid(2 * (images[:, 0].float() / 127.5 - 1))
    labels = (torch.rand(truth.shape, generator=generator) < truth).to(torch.uint8).unsqueeze(1)
    data = TrainingData(images, labels, torch.arange(6), torch.ones(6, dtype=torch.long))
    assert teacher_temperature(Sure(), data, 4) == pytest.approx(3, rel=0.1)
