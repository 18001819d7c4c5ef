"""Pretrained weights are recorded by checksum and revision; other bytes under one name are refused."""

import hashlib
import shutil

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file

from dmseg.config.compose import compose_settings
from dmseg.errors import UserError
from dmseg.runs.execute import execute
from dmseg.runs.plan import plan_run
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Fills a cache as the hub's client does, with weights of the given seed; returns their checksum."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = cache / ("models--" + timm.get_pretrained_cfg("test_resnet").hf_hub_id.replace("/", "--"))

    def fill(seed, revision=REVISION):
        shutil.rmtree(folder, ignore_errors=True)
        file = folder / "snapshots" / revision / "model.safetensors"
        file.parent.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(revision)
        torch.manual_seed(seed)
        save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), file)
        return hashlib.sha256(file.read_bytes()).hexdigest()

    return fill


def run_of(small_run, *more):
    settings = compose_settings([*small_run, "train.epochs=1", *more])
    return plan_run(settings, prepare_task(settings))


def manifest(run):
    return RunStore(run.results).read_json(run.run_id, "manifest.json")


def test_a_run_records_the_weights_of_the_hub(small_run, hub):
    sha256 = hub(1)
    run = run_of(small_run, "model.weights=imagenet")
    execute(run)
    expected = {
        "source": "timm/test_resnet.r160_in1k",
        "encoder": "test_resnet",
        "revision": REVISION,
        "sha256": sha256,
    }
    assert manifest(run)["pretrained"] == expected


def test_a_run_records_the_weights_of_a_file_and_no_path(small_run, tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "secret-place" / "weights.safetensors"
    file.parent.mkdir()
    save_file(timm.create_model("test_resnet", features_only=True).state_dict(), file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    run = run_of(small_run, f"model.weights={file}")
    execute(run)
    recorded = manifest(run)["pretrained"]
    assert recorded == {"source": "file", "encoder": "test_resnet", "revision": None, "sha256": sha256}
    assert run_of(small_run, f"model.weights={file}", f"model.weights_sha256={sha256}").run_id == run.run_id
    with pytest.raises(UserError, match=rf"has the SHA-256 {sha256}, but model.weights_sha256 is {'0' * 64}"):
        run_of(small_run, f"model.weights={file}", f"model.weights_sha256={'0' * 64}")


def test_a_network_from_scratch_records_none(small_run):
    run = run_of(small_run)
    execute(run)
    assert "pretrained" not in manifest(run)


def test_other_bytes_under_one_name_are_refused_and_both_named(small_run, hub):
    first = hub(1)
    run = run_of(small_run, "model.weights=imagenet")
    execute(run)
    second = hub(2, "f" * 40)
    other = run_of(small_run, "model.weights=imagenet", "fold=1")
    with pytest.raises(UserError, match=rf"{second}, but run {run.run_id} in .* was trained from {first}"):
        execute(other)
    assert not RunStore(run.results).is_done(other.run_id)
    hub(1)
    execute(other)


def test_a_pin_enters_the_id_and_is_checked(small_run, hub):
    sha256 = hub(1)
    plain = run_of(small_run, "model.weights=imagenet")
    pinned = run_of(small_run, "model.weights=imagenet", f"model.weights_sha256={sha256}")
    assert pinned.run_id != plain.run_id
    execute(pinned)
    hub(2)
    with pytest.raises(UserError, match=rf"but model.weights_sha256 is {sha256}"):
        execute(run_of(small_run, "model.weights=imagenet", f"model.weights_sha256={sha256}", "fold=1"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["model.weights=imagenet", "model.weights_sha256=abc"],
            "model.weights_sha256 is 'abc', but must be a SHA-256: 64 digits",
        ),
        (["model.weights=null", f"model.weights_sha256={'a' * 64}"], "there is nothing to check"),
        (["distill=kd", "distill.teacher.weights_sha256=abc"], "distill.teacher.weights_sha256 is 'abc'"),
    ],
)
def test_pins_that_cannot_be_are_refused(more, message):
    with pytest.raises(UserError, match=message):
        compose_settings(more)
