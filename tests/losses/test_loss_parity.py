"""Other implementations: recorded values of JDTLosses; MONAI and segmentation-models-pytorch as installed."""

import monai
import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.losses import DiceLoss, TverskyLoss
from monai.networks.nets import UNet
from monai.transforms import AsDiscreted, Compose, EnsureChannelFirstd, RandFlipd

from dmseg.losses import (
    CompatibleTverskyLoss,
    CompoundLoss,
    DiceSemimetricLoss,
    JaccardMetricLoss,
    RegionSetting,
    SoftCrossEntropyLoss,
    SoftDiceLoss,
    SoftJaccardLoss,
    SoftTverskyLoss,
    region_loss,
)


def setting_of(case):
    """mIoUI and mIoUC are the weights of JDTLosses' per-image and per-class means; norm 2 is its L2 form."""
    reduction = "image" if case.get("mIoUI") else "class" if case.get("mIoUC") else "batch"
    return RegionSetting(
        overlap="squared" if case.get("norm") == 2 else "minimum",
        alpha=case["alpha"],
        beta=case["beta"],
        gamma=case.get("gamma", 1.0),
        smooth=case["smooth"],
        reduction=reduction,
        classes=case["classes"],
    )


def test_jdtlosses_values_and_gradients(golden):
    cases, arrays = golden
    cases = [case for case in cases if case["kind"] == "region_loss"]
    assert len(cases) == 48
    for case in cases:
        names = [f"{case['key']}_{part}" for part in ("logits", "label", "grad", "mask")]
        logits, label, gradient, mask = (torch.from_numpy(arrays[n]) if n in arrays else None for n in names)
        logits.requires_grad_()
        loss = region_loss(logits, label, mask, setting_of(case))
        assert float(loss.detach()) == pytest.approx(case["value"], abs=2e-8), case
        ours = torch.autograd.grad(loss, logits)[0]
        torch.testing.assert_close(ours, gradient, rtol=1e-5, atol=1e-10, msg=str(case))


def batch(channels=3, soft=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, channels, 6, 5, generator=generator, dtype=torch.float64)
    if soft:
        return logits, torch.randn(2, channels, 6, 5, generator=generator, dtype=torch.float64).softmax(1)
    hard = torch.randint(0, channels, (2, 6, 5), generator=generator)
    return logits, torch.nn.functional.one_hot(hard, channels).movedim(-1, 1).double()


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize(("whole_batch", "reduction"), [(True, "batch"), (False, "image"), (False, "class")])
@pytest.mark.parametrize(("background", "classes"), [(True, "all"), (False, "foreground")])
def test_monai(soft, channels, whole_batch, reduction, background, classes):
    """MONAI's Dice and Jaccard smooth by 2 s, its Tversky by s; ``soft_label`` tells DML,1 from SDL; without
    ``batch`` it averages over images and classes, which is ours in either order."""
    logits, target = batch(channels, soft)
    theirs = {"softmax": True, "batch": whole_batch, "include_background": background}
    ours = {"smooth": 0.3, "reduction": reduction, "classes": classes}
    smooth = {"smooth_nr": 0.6, "smooth_dr": 0.6}
    tversky = {"alpha": 0.7, "beta": 0.2, "smooth_nr": 0.3, "smooth_dr": 0.3}
    pairs = [
        (DiceLoss(soft_label=True, **smooth, **theirs), DiceSemimetricLoss(1, **ours)),
        (DiceLoss(soft_label=False, **smooth, **theirs), SoftDiceLoss(**ours)),
        (
            DiceLoss(soft_label=True, jaccard=True, **smooth, **theirs),
            JaccardMetricLoss(1, **ours),
        ),
        (DiceLoss(soft_label=True, squared_pred=True, **smooth, **theirs), SoftDiceLoss(squared=True, **ours)),
        (TverskyLoss(soft_label=True, **tversky, **theirs), CompatibleTverskyLoss(0.7, 0.2, **ours)),
        (TverskyLoss(soft_label=False, **tversky, **theirs), SoftTverskyLoss(0.7, 0.2, **ours)),
    ]
    for monai_loss, loss in pairs:
        expected = float(monai_loss(logits, target))
        assert float(loss(logits, target)) == pytest.approx(expected, rel=1e-6), type(loss).__name__


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_smp(soft, channels):
    """smp's losses reduce over the batch, take soft labels in multilabel mode and smooth by s."""
    logits, target = batch(max(channels, 2), soft)
    logits, target = logits[:, -channels:], target[:, -channels:].contiguous()
    prob = torch.sigmoid(logits) if channels == 1 else logits.softmax(1)
    mode = {"mode": "multilabel", "from_logits": False}
    pairs = [
        (smp.losses.DiceLoss(**mode, smooth=0.3), DiceSemimetricLoss(1, smooth=0.3)),
        (smp.losses.JaccardLoss(**mode, smooth=0.3), JaccardMetricLoss(1, smooth=0.3)),
        (smp.losses.TverskyLoss(**mode, alpha=0.7, beta=0.2, smooth=0.3), CompatibleTverskyLoss(0.7, 0.2, smooth=0.3)),
    ]
    for smp_loss, loss in pairs:
        assert float(loss(logits, target)) == pytest.approx(float(smp_loss(prob, target)), rel=1e-6), type(
            loss
        ).__name__
    if not soft:  # with hard labels the classical losses are the same
        for classical, (smp_loss, _) in zip((SoftDiceLoss, SoftJaccardLoss), pairs, strict=False):
            assert float(classical(smooth=0.3)(logits, target)) == pytest.approx(
                float(smp_loss(prob, target)), rel=1e-6
            )


def paper_loss():
    return CompoundLoss({"ce": (0.25, SoftCrossEntropyLoss()), "dml1": (0.75, DiceSemimetricLoss())})


def two_steps(network, batches):
    """Trains two steps; returns the losses."""
    optimiser, loss, values = torch.optim.SGD(network.parameters(), lr=0.1), paper_loss(), []
    for images, labels in batches:
        optimiser.zero_grad()
        value = loss(network(images), labels)
        value.backward()
        optimiser.step()
        values.append(float(value.detach()))
    return values


def test_in_a_monai_pipeline():
    """Dictionary transforms, MetaTensors and a MONAI network; the labels come out one-hot and with metadata."""
    monai.utils.set_determinism(0)
    rng = np.random.default_rng(0)
    cases = [{"image": rng.random((16, 16), np.float32), "label": rng.integers(0, 2, (16, 16))} for _ in range(4)]
    keys = ["image", "label"]
    steps = [
        EnsureChannelFirstd(keys, channel_dim="no_channel"),
        RandFlipd(keys, 0.5),
        AsDiscreted("label", to_onehot=2),
    ]
    loader = DataLoader(Dataset(cases, Compose(steps)), batch_size=4)
    network = UNet(2, in_channels=1, out_channels=2, channels=(4, 8), strides=(2,))
    batches = [(item["image"], item["label"].float()) for item in loader] * 2
    assert isinstance(batches[0][1], MetaTensor)
    first, second = two_steps(network, batches)
    assert second < first
    monai.utils.set_determinism(None)


def test_in_an_smp_pipeline():
    torch.manual_seed(0)
    network = smp.Unet(
        "resnet18", encoder_weights=None, in_channels=1, classes=2, encoder_depth=3, decoder_channels=(8, 8, 8)
    )
    images = torch.randn(2, 1, 32, 32)
    soft = torch.sigmoid(images)
    first, second = two_steps(network, [(images, torch.cat((1 - soft, soft), 1))] * 2)
    assert second < first
