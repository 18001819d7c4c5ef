"""Settings that are used late are refused when composing, within the bounds of the code that uses them."""

import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
import torch
from one_case import count_one

from dmseg.config.checks import ALLOWED, RANGES
from dmseg.config.components import bind
from dmseg.config.compose import compose_settings
from dmseg.config.settings import ModelSettings
from dmseg.errors import UserError
from dmseg.labels.fusion import each_rater, majority, uniform, weighted
from dmseg.labels.trial import try_fusion
from dmseg.limits import crop_edge
from dmseg.metrics.scores import EmptyRule
from dmseg.models.build import build_model
from dmseg.models.stride import edge_multiple
from dmseg.training.objective import build_loss

SOFTSEG, MRNET, DROPOUT = "method=softseg", "method=mrnet", "method=mc_dropout"
KD = "distill=kd"
DEEPLAB = "model=deeplabv3plus_resnet18"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluate.bins=101"], r"evaluate\.bins is 101, but must lie between 1 and 100"),
        (["optim.lr=nan"], r"optim\.lr is nan"),
        (["optim.lr=inf"], r"optim\.lr is inf"),
        (["optim.lr=0"], r"optim\.lr is 0, which trains nothing"),
        (["optim.poly_power=inf"], r"optim\.poly_power is inf"),
        (["optim.poly_power=-1"], r"optim\.poly_power is -1\.0, but must lie between 0"),
        (["train.scale=[nan,1]"], r"train\.scale is \[nan, 1\.0\]"),
        (["train.scale=[1,inf]"], r"train\.scale is inf, but must be a finite number"),
        (["train.scale=[0.5]"], r"train\.scale is \[0\.5\], but must be \[smallest, largest\]"),
        (["train.batch_size=1"], r"train\.batch_size is 1, but must lie between 2"),
        (["train.epochs=1e3"], r"train\.epochs is 1000\.0, but must be a whole number"),
        (["threads=0"], "threads is 0, but must lie between 1"),
        (["evaluate.batch_size=1000000"], r"evaluate\.batch_size is 1000000"),
        (["agreement.disjoint=2"], r"agreement\.disjoint is 2"),
        (
            ["labels=weighted", "labels.disjoint_weight=2"],
            r"labels\.disjoint_weight is 2, but must lie between 0 and 1",
        ),
        (
            ["labels=weighted", "labels.disjoint_weight=-1"],
            "labels: disjoint_weight is -1, but must be a number of at least 0",
        ),
        (["labels=weighted", "labels.disjoint_weight=abc"], "labels: disjoint_weight is 'abc'"),
        (["labels=weighted", "labels.disjoint_weight=nan"], "labels: disjoint_weight is nan"),
        (["labels=smoothing", "labels.smoothing.kernel=2"], r"labels\.smoothing\.kernel is 2, but must be odd"),
        (["labels=smoothing", "labels.smoothing.kernel=-1"], r"labels\.smoothing\.kernel is -1"),
        (["loss.terms.ce.weight=-1"], r"loss\.terms\.ce\.weight is -1\.0, but must lie between 0 and 1e\+06"),
        (["loss.terms.ce.weight=0", "loss.terms.region.weight=0"], "loss.terms has no term with a weight above 0"),
        (["loss.terms.region.smooth=nan"], r"loss\.terms\.region\.smooth is nan, but must be a finite number"),
        (["+loss.terms.region.class_weights=[1,inf]"], r"loss\.terms\.region\.class_weights is inf"),
        ([KD, "distill.kde.bandwidth=1e-20"], r"distill\.kde\.bandwidth is 1e-20, but must be 0 or at least 1e-09"),
        ([KD, "distill.kde.boundary=4"], r"distill\.kde\.boundary is 4, but must be odd"),
        ([KD, "distill.kde.n_key=0"], r"distill\.kde\.n_key is 0"),
        ([DROPOUT, "method.passes=2.5"], r"method\.passes is 2\.5, but must be a whole number"),
        ([DROPOUT, "method.passes=0"], r"method\.passes is 0, but must be a whole number from 1"),
        ([DROPOUT, "method.rate=1"], r"method\.rate is 1, but must lie in \[0, 1\)"),
        ([DROPOUT, "method.rate=high"], r"method\.rate is 'high', but must be a finite number"),
        ([DROPOUT, "method.sites=head"], r"method\.sites is 'head', but must be a list"),
        ([DROPOUT, "method.sites=[]"], r"method\.sites is \[\]"),
        ([DROPOUT, "method.sites=[head,head]"], r"method\.sites has 'head', but may only contain .* each at most once"),
        ([DROPOUT, "+method.typo=1"], r"options of 'method' do not fit .*'typo'; it takes sites, rate, passes"),
        ([SOFTSEG, "method.theta=nan"], r"method\.theta is nan"),
        ([SOFTSEG, "method.alpha=2"], r"method\.alpha is 2, but must be more than 2"),
        ([SOFTSEG, "method.adam.lr=fast"], r"method\.adam\.lr is 'fast'"),
        ([SOFTSEG, "method.adam=3"], r"method\.adam has 3, but must have lr and weight_decay"),
        ([MRNET, "method.widths.context=1.5"], r"method\.widths\.context is 1\.5, but must be a whole number"),
        ([MRNET, "method.widths.encoder=[1,2,3,4,0]"], r"method\.widths\.encoder is 0"),
        ([MRNET, "method.widths.encoder=4"], r"method\.widths\.encoder is 4, but must be a list of 5"),
        (
            ["data.size=12", "evaluate.crop=0.5"],
            r"evaluate\.crop=0\.5 of data\.size=12: .* set evaluate\.crop=1",
        ),
        (["data.size=15", "train.crop=0.9"], r"train\.crop=0\.9 of data\.size=15"),
        ([DEEPLAB, "data.size=100"], r"data\.size=100 does not fit .* divisible by 16; set data\.size to 96 or 112"),
        (["model.architecture=FPN", "train.crop=0.85"], r"train\.crop=0\.85 of data\.size=256 \(208 .* 192 or 224"),
        (
            ["model.architecture=UnetPlusPlus", "data.size=48", "evaluate.crop=0.5"],
            r"data\.size=48 does not fit",
        ),
        (
            [KD, "distill.teacher.model=deeplabv3plus_resnet18", "data.size=100"],
            r"not fit distill\.teacher\.model=",
        ),
    ],
)
def test_refused_in_one_line_when_composing(overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        compose_settings(overrides)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "overrides",
    [
        ["evaluate.bins=100"],
        ["data.size=33"],
        ["data.size=100", "model=unet_resnet18"],
        ["train.crop=0.85"],
        ["data.size=20", "evaluate.crop=0.5"],
        ["protocol=release", "data=lidc", DEEPLAB, "data.size=24", "train.crop=1", "evaluate.crop=1"],
        ["data.size=200", DEEPLAB, "train.crop=0.75", "evaluate.crop=0.75"],
        [SOFTSEG, "loss.terms.ce.weight=0", "loss.terms.region.weight=0"],
        ["+loss.terms.region.class_weights=[1,2]"],
        [KD, "distill.kde.bandwidth=0"],
    ],
)
def test_what_works_is_taken(overrides):
    compose_settings(overrides)


def test_choices_and_ranges_are_those_of_the_code():
    assert ALLOWED["evaluate.empty"] == get_args(EmptyRule)
    low, high = RANGES["evaluate.bins"]
    pixels = torch.full((4, 4), 0.7)
    for bins in (int(low), int(high)):
        count_one(pixels, pixels > 0, pixels, n_bins=bins)
    for bins in (int(low) - 1, int(high) + 1):
        with pytest.raises(UserError, match="calibration bins"):
            count_one(pixels, pixels > 0, pixels, n_bins=bins)


@pytest.mark.parametrize("method", ["mc_dropout", "softseg", "mrnet", "multi_head", "plain", "ours"])
def test_the_configured_methods_pass_their_own_checks(method):
    chosen = compose_settings([f"method={method}"]).method
    bind(chosen.target, chosen.options, where="method", n_positional=0)()


@pytest.mark.parametrize(("extent", "share", "edge"), [(16, 0.5, 16), (20, 0.5, 16), (31, 0.9, 16), (256, 0.85, 208)])
def test_crops_fit_into_the_slice(extent, share, edge):
    assert crop_edge(extent, share) == edge <= extent


@pytest.mark.parametrize("extent", [1, 8, 15])
def test_slices_below_the_smallest_crop(extent):
    assert crop_edge(extent, 1.0) == extent
    with pytest.raises(ValueError, match=f"crops are at least 16 pixels wide, but the slice is only {extent}"):
        crop_edge(extent, 0.9)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("DeepLabV3", {}),
        ("DeepLabV3Plus", {}),
        ("DeepLabV3Plus", {"encoder_output_stride": 8}),
        ("FPN", {}),
        ("FPN", {"encoder_depth": 4}),
        ("Linknet", {}),
        ("MAnet", {}),
        ("PAN", {}),
        ("PSPNet", {}),
        ("UnetPlusPlus", {}),
        ("Unet", {}),
    ],
)
def test_the_multiple_is_what_the_network_itself_asks_for(architecture, options):
    settings = ModelSettings("x", architecture, "resnet18", None, {}, options)
    with torch.device("meta"):
        network = build_model(**settings.arguments, in_channels=1)
        needed = network.encoder.output_stride if network.requires_divisible_input_shape else 1
        assert edge_multiple(architecture, options) == needed
        network.check_input_shape(torch.empty(1, 1, 5 * needed, needed))


def test_the_region_loss_is_tried_with_two_classes():
    weights = compose_settings(["+loss.terms.region.class_weights=[1,2]"]).loss
    assert build_loss(weights).losses[1].setting.class_weights == (1.0, 2.0)
    for override, message in (
        ("+loss.terms.region.class_weights=[1,2,3]", "loss.terms.region: class_weights has 3 entries for 2 channels"),
        ("+loss.terms.region.class_weights=2", "loss.terms.region: class_weights is 2; give one number per channel"),
        ("+loss.terms.region.from_logits=false", "loss.terms.region.from_logits is false"),
        ("loss.terms.region.smooth=much", "loss.terms.region: smooth is 'much'; give a number"),
    ):
        with pytest.raises(UserError, match=message):
            build_loss(compose_settings([override]).loss)


def test_fusions_are_tried_before_anything_is_trained():
    for fusion in (majority, uniform, weighted):
        try_fusion(fusion, 3, "evaluate.reference", candidates=False)
    try_fusion(each_rater, 3, "labels")
    with pytest.raises(UserError, match=r"evaluate.reference turns annotations .* but must return one label"):
        try_fusion(each_rater, 3, "evaluate.reference", candidates=False)
    with pytest.raises(UserError, match="labels: disjoint_weight is 'much', but must be a number of at least 0"):
        try_fusion(lambda annotations: weighted(annotations, "much"), 3, "labels")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="labels cannot fuse the masks of 3 raters with these options"):
        try_fusion(lambda annotations: annotations * np.float64("much"), 3, "labels")
    with pytest.raises(UserError, match=r"labels returns labels from 0 to 255, but they must be in \[0, 1\]"):
        try_fusion(lambda annotations: majority(annotations) * np.uint8(255), 3, "labels")


def test_composing_needs_no_torch():
    code = (
        "import sys; from dmseg.config.compose import compose_settings; import dmseg.runs.plan\n"
        "compose_settings(['method=mrnet', 'train.crop=0.5'])\nassert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
