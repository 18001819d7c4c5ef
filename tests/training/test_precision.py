"""TF32: off in fp32 training, in scoring and in teachers; on in the steps of a tf32 training alone."""

import os
import subprocess
import sys

import pytest
import torch
from torch import backends, nn

from dmseg.config.compose import compose_settings
from dmseg.errors import UserError
from dmseg.models import build
from dmseg.runs.execute import execute
from dmseg.runs.plan import plan_run
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore
from dmseg.training import precision as precision_module
from dmseg.training.precision import check_precision, float32_math, float32_modes, resolve_precision

IEEE = {"convolution": "ieee", "rnn": "ieee", "matmul": "ieee"}
TF32 = {"convolution": "tf32", "rnn": "tf32", "matmul": "ieee"}


def everything():
    """All switches, those of before torch 2.9 too, which raise where they contradict the others."""
    earlier = backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()
    return float32_modes(), earlier, backends.fp32_precision, backends.mkldnn.matmul.fp32_precision


def test_switches_are_consistent_within_and_as_before_after():
    before = everything()
    for tf32, expected in ((False, IEEE), (True, TF32)):
        with float32_math(tf32=tf32):
            modes, earlier, *_ = everything()
            assert modes == expected
            assert earlier == (tf32, False, "highest")
            with float32_math(tf32=not tf32):
                assert float32_modes() == (IEEE if tf32 else TF32)
            assert float32_modes() == expected
            with backends.cudnn.flags(enabled=True, allow_tf32=True):
                pass  # reads the earlier switches
        assert everything() == before
    with pytest.raises(ZeroDivisionError), float32_math(tf32=False):
        raise ZeroDivisionError
    assert everything() == before


def test_whatever_was_set_before():
    code = f"""
import torch
from dmseg.training.precision import float32_math, float32_modes

def check():
    before = float32_modes()
    with float32_math(tf32=False):
        assert float32_modes() == {IEEE}, float32_modes()
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
        assert torch.get_float32_matmul_precision() == "highest"
    assert float32_modes() == before

assert float32_modes() == dict.fromkeys({[*IEEE]}, "tf32"), "torch's default and the variable"
check()
torch.set_float32_matmul_precision("medium")
check()
torch.backends.cudnn.conv.fp32_precision = "ieee"  # contradicts the earlier switch, which says tf32
check()
torch.backends.fp32_precision = "tf32"
check()
"""
    variables = os.environ | {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}  # some containers set it
    subprocess.run([sys.executable, "-c", code], env=variables, check=True)


@pytest.fixture
def seen(monkeypatch):
    """What every forward and backward pass of a network of this test has met: (training, gradients wanted), modes."""
    found: list[tuple[str, dict[str, str]]] = []

    def note(module, stage):
        found.append((stage, float32_modes()))

    class Probe(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values):
            return values.view_as(values)

        @staticmethod
        def backward(ctx, gradient):
            note(None, "backward")
            return gradient

    def watched(*arguments, **options):
        network = build_model(*arguments, **options)
        network.register_forward_pre_hook(lambda module, _: note(module, "train" if module.training else "eval"))
        network.register_forward_hook(lambda module, _, output: Probe.apply(output))
        return network

    build_model = build.build_model
    monkeypatch.setattr("dmseg.methods.base.build_model", watched)
    monkeypatch.setattr("dmseg.runs.execute.check_precision", lambda precision, device: None)
    return found


def carried_out(overrides):
    settings = compose_settings(overrides)
    run = plan_run(settings, prepare_task(settings))
    lineage = [run]
    while lineage[-1].teacher is not None:
        lineage.append(lineage[-1].teacher)
    for item in reversed(lineage):
        execute(item)
    return run


@pytest.mark.parametrize(("precision", "training"), [("fp32", IEEE), ("bf16", IEEE), ("tf32", TF32)])
def test_training_scoring_and_teachers(small_run, seen, precision, training):
    before = everything()
    kd = ["distill=kd", "distill.teacher.model=unet_tiny", "distill.calibrate=train", "evaluate.ged=true"]
    run = carried_out([*small_run, *kd, "train.epochs=1", f"precision={precision}"])
    stages = {stage for stage, _ in seen}
    assert stages == {"train", "backward", "eval"}
    for stage, modes in seen:
        assert modes == (IEEE if stage == "eval" else training), stage
    assert everything() == before
    manifest = RunStore(run.results).read_json(run.run_id, "manifest.json")
    assert manifest["precision"] == {"name": precision, "training": training, "scoring": IEEE}


def test_a_training_alone_names_its_precision(small_run):
    settings = compose_settings(small_run)
    store = prepare_task(settings)
    names = ("fp32", "tf32", "bf16")
    runs = {name: plan_run(compose_settings([*small_run, f"precision={name}"]), store) for name in names}
    assert len({run.run_id for run in runs.values()}) == 3
    assert runs["fp32"].run_id == plan_run(settings, store).run_id
    with pytest.raises(UserError, match=r"precision=tf32 needs a CUDA device.*not 'cpu'; set precision=fp32"):
        execute(runs["tf32"]) if not torch.cuda.is_available() else check_precision("tf32", torch.device("cpu"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["precision=tf32", "device=cpu"],
            r"^precision=tf32 needs a CUDA device, but device is cpu; set precision=fp32$",
        ),
        (["precision=auto", "launcher=slurm"], r"^precision=auto depends on .*; set precision=fp32 or precision=bf16$"),
    ],
)
def test_what_cannot_be_planned(small_run, overrides, message):
    settings = compose_settings([*small_run, *overrides])
    with pytest.raises(UserError, match=message):
        plan_run(settings, prepare_task(settings))


def test_older_gpus_have_no_tf32(monkeypatch):
    for there in (True, False):
        monkeypatch.setattr(precision_module.torch.cuda, "is_tf32_supported", lambda there=there: there)
        check_precision("fp32", torch.device("cpu"))
        if there:
            check_precision("tf32", torch.device("cuda"))
        else:
            with pytest.raises(UserError, match="set precision=fp32"):
                check_precision("tf32", torch.device("cuda"))


@pytest.mark.skipif(
    not (torch.cuda.is_available() and torch.cuda.is_tf32_supported()), reason="needs a GPU that has TF32"
)
def test_convolutions_round_with_tf32_only():
    torch.manual_seed(0)
    layer, image = nn.Conv2d(64, 64, 3).cuda(), torch.randn(2, 64, 32, 32, device="cuda")
    exact = nn.functional.conv2d(image.double(), layer.weight.double(), layer.bias.double())
    errors = {}
    for tf32 in (False, True):
        with float32_math(tf32=tf32):
            errors[tf32] = float((layer(image) - exact).abs().max())
    assert errors[False] < 1e-5 < errors[True]


@pytest.mark.parametrize(
    ("flags", "chosen", "reason"),
    [
        ({"avx512f", "avx512_bf16", "amx_bf16"}, "bf16", "has AMX"),
        ({"avx512f", "avx512_bf16"}, "fp32", "no AMX"),
        ({"avx2"}, "fp32", "neither"),
    ],
)
def test_auto_follows_the_cpu_and_says_why(flags, chosen, reason, monkeypatch, caplog):
    monkeypatch.setattr("dmseg.training.precision.cpu_flags", lambda: flags)
    precision_module._log_choice.cache_clear()
    with caplog.at_level("INFO", "dmseg.training.precision"):
        for _ in range(3):  # as many runs are planned
            assert resolve_precision("auto", "cpu") == chosen
    (said,) = caplog.messages
    assert chosen in said
    assert reason in said
