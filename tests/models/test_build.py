"""Networks: every configuration builds, weights from files load, parameters are split."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from dmseg.config.compose import compose_settings
from dmseg.config.resources import resource
from dmseg.errors import UserError
from dmseg.models.build import build_model, foreground_probability, split_parameters

MODELS = sorted(path.stem for path in (resource("configs") / "model").glob("*.yaml"))


def settings(name, *overrides):
    return compose_settings([f"model={name}", "model.weights=null", *overrides]).model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("channels", [1, 4])
def test_every_configured_network_maps_images_to_two_logits(name, channels):
    with torch.device("meta"):
        model = build_model(**settings(name).arguments, in_channels=channels)
        assert model.eval()(torch.empty(2, channels, 64, 64)).shape == (2, 2, 64, 64)


@pytest.mark.parametrize("name", MODELS)
def test_the_released_networks_build_too(name):
    with torch.device("meta"):
        model = build_model(**settings(name, "protocol=release").arguments, in_channels=1)
        assert model.eval()(torch.empty(2, 1, 64, 64)).shape == (2, 2, 64, 64)


def test_the_released_unet_is_the_deep_stem_one_and_wider():
    chosen = settings("unet_resnet50", "protocol=release")
    assert (chosen.encoder, settings("unet_resnet50").encoder) == ("resnet50d", "resnet50")
    with torch.device("meta"):
        released, plain = (build_model(**node.arguments, in_channels=1) for node in (chosen, settings("unet_resnet50")))
    counts = [sum(value.numel() for value in model.parameters()) / 1e6 for model in (released, plain)]
    assert counts[0] == pytest.approx(76, abs=5), "the released code's UNet-ResNet50d has about 76 million"
    assert counts[1] == pytest.approx(32.5, abs=1)


def test_the_released_deeplab_keeps_a_stride_of_eight():
    with torch.device("meta"):
        model = build_model(**settings("deeplabv3plus_resnet18", "protocol=release").arguments, in_channels=1)
        assert model.encoder(torch.empty(1, 1, 64, 64))[-1].shape[-1] == 8


def test_any_timm_encoder_works():
    with torch.device("meta"):
        assert build_model(**settings("unet_tiny", "model.encoder=regnetx_002").arguments, in_channels=1) is not None


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_local_file_loads_with_its_stem_adapted(tmp_path, channels, caplog):
    donor = timm.create_model("mobilenetv2_100", features_only=True, in_chans=3)
    state = donor.state_dict() | {"classifier.weight": torch.zeros(3, 3)}
    del state["blocks.0.0.bn1.bias"]
    save_file(state, tmp_path / "weights.safetensors")
    caplog.set_level("INFO")
    model = build_model(
        **settings("unet_mobilenetv2", f"model.weights='{tmp_path / 'weights.safetensors'}'").arguments,
        in_channels=channels,
    )
    stem, own = donor.state_dict()["conv_stem.weight"], model.encoder.model.state_dict()["conv_stem.weight"]
    assert own.shape[1] == channels
    if channels == 1:
        assert torch.allclose(own, stem.sum(dim=1, keepdim=True))
    else:
        assert torch.allclose(own[:, :3], stem * (1 if channels == 3 else 3 / 4))
    assert torch.equal(
        model.encoder.model.state_dict()["blocks.1.0.conv_pw.weight"], state["blocks.1.0.conv_pw.weight"]
    )
    assert "ignored: classifier.weight" in caplog.text
    assert "left as initialised: blocks.0.0.bn1.bias" in caplog.text


def test_weights_that_cannot_be_used(tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(UserError, match=r"weights\.safetensors cannot be read"):
        build_model(**settings("unet_tiny", f"model.weights='{path}'").arguments, in_channels=1)
    path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"weights\.safetensors cannot be read"):
        build_model(**settings("unet_tiny", f"model.weights='{path}'").arguments, in_channels=1)
    save_file({"something": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="does not belong to this encoder"):
        build_model(**settings("unet_tiny", f"model.weights='{path}'").arguments, in_channels=1)


def test_unknown_names_are_plain_errors():
    with pytest.raises(UserError, match="Unet on timm's resnet5 cannot be built"):
        build_model(**settings("unet_tiny", "model.encoder=resnet5").arguments, in_channels=1)
    with pytest.raises(UserError, match=r"model\.architecture 'UNetty' is not one of"):
        build_model(**settings("unet_tiny", "model.architecture=UNetty").arguments, in_channels=1)
    with pytest.raises(UserError, match=r"cannot be built.*nonsense"):
        build_model(**settings("unet_tiny", "+model.options.nonsense=1").arguments, in_channels=1)


def test_real_imagenet_weights(real_data, caplog):
    caplog.set_level("INFO")
    path = real_data / "weights" / "mobilenetv2_100.tfslim_in1k.safetensors"
    options = ["+model.encoder_options.pad_type=same", "+model.encoder_options.bn_eps=0.001"]
    model = build_model(**settings("unet_mobilenetv2", f"model.weights='{path}'", *options).arguments, in_channels=1)
    assert "left as initialised: nothing" in caplog.text
    assert model.encoder.model.bn1.eps == pytest.approx(1e-3)
    features = model.eval().encoder(torch.rand(1, 1, 64, 64) * 2 - 1)
    assert all(torch.isfinite(feature).all() for feature in features)
    assert features[-1].std() > 0.01


def test_split_parameters_covers_all_once():
    model = build_model(**settings("unet_tiny").arguments, in_channels=1)
    encoder, rest = split_parameters(model)
    assert len(encoder) + len(rest) == len(list(model.parameters()))
    assert {name.split(".")[0] for name, _ in rest} == {"decoder", "segmentation_head"}


def test_probabilities_are_of_the_foreground_in_float32():
    logits = torch.tensor([0.0, 2.0]).reshape(1, 2, 1, 1).to(torch.bfloat16)
    probability = foreground_probability(logits)
    assert probability.dtype == torch.float32
    assert probability.item() == pytest.approx(1 / (1 + 2.718281828**-2), abs=1e-6)
