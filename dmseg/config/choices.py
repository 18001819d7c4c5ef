"""Choices that the paper leaves open, or that its released code makes differently, with their values in both protocols.

``dmseg explain`` prints this list and docs/explanation/open-choices.md contains it. ``tests/config`` compares it with
``configs/protocol`` and with what both protocols compose. Sources: the paper by section, and JDTLosses, the authors'
repository, at commits af6c1f6 and 68ce8ac, by file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """One open choice.

    Attributes:
        title: what is chosen.
        key: the dotted key that sets it; ``""`` if it has none.
        paper: value under ``protocol=paper``; in words if there is no key.
        release: value under ``protocol=release``; in words if there is no key.
        source: where each value comes from.
        acts: the dotted key whose default it sets, if it is a key of the protocol.
        other: another possible value, if both protocols have the same.
        context: overrides that are needed for the key to exist.
        why: the reason if it has no key.
    """

    title: str
    key: str
    paper: Any
    release: Any
    source: str
    acts: str = ""
    other: Any = None
    context: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Topic:
    """Choices about one subject.

    Attributes:
        title: the subject.
        choices: the choices.
    """

    title: str
    choices: tuple[Choice, ...]


def _protocol(
    title: str,
    name: str,
    paper: Any,  # noqa: ANN401
    release: Any,  # noqa: ANN401
    source: str,
    acts: str,
    *context: str,
    other: Any = None,  # noqa: ANN401
) -> Choice:
    """A choice that the protocol makes."""
    return Choice(title, f"protocol.{name}", paper, release, source, acts, other, context)


def _alike(title: str, key: str, value: Any, other: Any, source: str, *context: str) -> Choice:  # noqa: ANN401
    """A choice with a key that is the same under both protocols."""
    return Choice(title, key, value, value, source, other=other, context=context)


def _fixed(title: str, paper: str, release: str, source: str, why: str) -> Choice:
    """A choice without a key."""
    return Choice(title, "", paper, release, source, why=why)


LITS, KD, LS = "data=lits", "distill=kd", "labels=smoothing"
DEEPLAB, RESNET18 = "model=deeplabv3plus_resnet18", "model=unet_resnet18"

TOPICS = (
    Topic("Training", (
        _protocol("learning rate of decoder and heads, as a multiple of the encoder's", "decoder_lr_factor", 1.0, 10.0,
                  "paper 3.2: a single learning rate of 0.01 | main.py", "optim.decoder_lr_factor"),
        _protocol("linear warm-up, as a fraction of the steps", "warmup", 0.0, 0.01,
                  "paper 3.2: polynomial decay only | configs/schedules", "optim.warmup"),
        _protocol("weight decay of normalisation layers and biases", "decay_norm_and_bias", True, False,
                  "paper 3.2: a single weight decay | main.py", "optim.decay_norm_and_bias"),
        _alike("range of the augmentation's scale factor", "train.scale", [0.5, 2.0], [0.8, 1.25],
               "not given in the paper | configs/datas"),
        _alike("probability of a left-right flip", "train.flip", 0.5, 0.0,
               "not given in the paper | datas/datasets/medical_dataset.py"),
        _alike("seed; the paper reports single means", "seed", 0, 1, "not given in the paper | no seed is set"),
        _fixed("the last, incomplete batch of an epoch", "dropped", "dropped", "not given in the paper | main.py",
               "as released; a batch of few slices would change the region loss, which sums over the batch"),
        _fixed("which weights are scored", "those of the last step", "those of the last step",
               "not given in the paper | main.py", "choosing by validation scores would make them too optimistic"),
        _fixed("place of a slice that is smaller than its crop", "anywhere in the crop", "the centre of the crop",
               "not given in the paper | datas/datasets/transform.py",
               "convolutional networks treat all places alike except near the border, and padding is never counted"),
        _fixed("label terms of distillation in padding", "left out", "the mask of the padding is not passed on",
               "models/segmentor.py, forward_loss_kd at af6c1f6", "assumed to be a mistake in the released code"),
    )),
    Topic("Loss", (
        _protocol("Kullback-Leibler divergence instead of cross-entropy", "kl", False, True,
                  "paper 3.2: cross-entropy | losses; the gradient is the same", "loss.terms.ce.kl"),
        _protocol("classes in the region loss for hard labels", "classes.hard", "all", "present",
                  "not given in the paper | losses/jdt_loss.py", "loss.terms.region.classes"),
        _protocol("classes in the region loss for soft labels", "classes.soft", "all", "all",
                  "not given in the paper | losses/jdt_loss.py", "loss.terms.region.classes", other="present"),
        _protocol("smoothing term of the region loss", "smooth", 1.0, 1.0,
                  "not given in the paper | configs/losses/dice_d_present_all.yaml", "loss.terms.region.smooth",
                  other=0.001),
        _alike("sums of the region loss over the batch or over each image", "loss.terms.region.reduction", "batch",
               "image", "not given in the paper | configs/losses: mIoUD 1.0"),
        _protocol("share of the cross-entropy of an auxiliary head", "auxiliary_weight", 0.0, 0.5,
                  "paper: no such head | configs/losses: main_weight, aux_weight", "model.auxiliary.weight"),
        _fixed("DML,2, SDL, random rater, methods of Table 3", "reported", "not in the released code",
               "paper, Tables 2, 3 and 6", "both protocols use the formulas of the papers that define them"),
    )),
    Topic("Labels", (
        _protocol("resampling of hard labels in augmentation", "interpolation.hard", "nearest", "nearest",
                  "not given in the paper | datas/datasets/transform.py", "labels.interpolation", other="rater"),
        _protocol("resampling of soft labels in augmentation", "interpolation.soft", "linear", "linear",
                  "not given in the paper | datas/datasets/transform.py", "labels.interpolation", other="nearest"),
        _protocol("weight of a rater without overlap with the majority", "disjoint_weight", 0.0, 1.0,
                  "paper 3.4: a rater who deviates gets a small weight | prepare_qubiq.py: a Dice of 0 becomes 1",
                  "labels.disjoint_weight", "labels=weighted"),
        _alike("which pixels label smoothing changes", "labels.smoothing.kind", "boundary", "uniform",
               "paper: only says label smoothing | train_soft_label.py", LS),
        _alike("epsilon of label smoothing", "labels.smoothing.epsilon", 0.5, 0.1,
               "not given in the paper | configs/labels/ls.yaml; whether the paper used it is unknown", LS),
        _alike("edge length of the neighbourhood that defines boundary pixels", "labels.smoothing.kernel", 3, 5,
               "not given in the paper | configs/labels/ls.yaml", LS),
        _alike("majority vote of a pixel that half of the raters marked, in labels", "labels.ties", "background",
               "foreground", "not given in the paper | datas/prepare/prepare_qubiq.py: more than half must mark it",
               "labels=majority"),
        _fixed("how often a random rater is drawn", "for each case and epoch", "not in the released code",
               "not given in the paper", "a fixed rater for each case would be a smaller set of single-rater labels"),
    )),
    Topic("Distillation", (
        _alike("weight of the terms against the label", "distill.label_weight", 0.5, 0.7,
               "not given in the paper | configs/labels/kd.yaml", KD),
        _alike("weight of the terms against the teacher", "distill.teacher_weight", 0.5, 0.3,
               "not given in the paper | configs/labels/kd.yaml", KD),
        _alike("temperature", "distill.temperature", 1.0, 4.0, "not given in the paper | configs/labels/kd.yaml", KD),
        _alike("labels of the teacher", "distill.teacher.labels", "majority", "smoothing",
               "not given in the paper | README: with label smoothing, the best of three teachers", KD),
        _protocol("where the keys of the kernel estimate are drawn from", "kde_keys", "batch", "image",
                  "paper, Appendix E: each training batch | kde.py", "distill.kde.keys", KD),
        _alike("number of keys", "distill.kde.n_key", 1000, 500, "not published", KD),
        _alike("the same number of keys of each class", "distill.kde.balanced", True, False,
               "not given in the paper | kde.py: biased=False", KD),
        _alike("whether a key is left out of its own estimate", "distill.kde.leave_one_out", False, True,
               "not given in the paper | kde.py", KD),
        _alike("edge length of the neighbourhood of recalibrated pixels", "distill.kde.boundary", 3, 5,
               "not given in the paper | kde.py", KD),
        _fixed("arithmetic of the kernel estimate", "exact, by logarithms", "exp, which underflows far from all keys",
               "kde.py", "the released sums give 0 for both classes, or NaN, where no key is near"),
    )),
    Topic("Networks", (
        _protocol("ResNet encoders: timm's plain or deep-stem (d) variants", "resnet", "", "d",
                  "paper 3.2: ResNet18 and ResNet50 | models/backbones", "", RESNET18),
        _alike("initial weights of the encoder", "model.weights", "imagenet", None,
               "paper 3.2: ImageNet | timm's current weights; model.weights_sha256 pins a file"),
        _protocol("upsampling in the UNet decoder", "unet_interpolation", None, "bilinear",
                  "not given in the paper; null: smp's, nearest | models/methods",
                  "model.options.decoder_interpolation"),
        _protocol("channels of the UNet decoder on ResNet50", "unet_resnet50_channels", None, [1024, 512, 256, 128, 64],
                  "not given in the paper; null: smp's, 256 to 16 | configs/models: four times as wide",
                  "model.options.decoder_channels"),
        _protocol("kernel size of the UNet's last convolution", "unet_head_kernel", None, 1,
                  "not given in the paper; null: smp's, 3 | models/ops.py", "model.head_kernel"),
        _protocol("output stride of DeepLabV3+", "deeplab_output_stride", None, 8,
                  "not given in the paper; null: smp's, 16 | configs/models", "model.options.encoder_output_stride",
                  DEEPLAB),
        _protocol("decoder of DeepLabV3+", "deeplab_decoder", "library", "release",
                  "not given in the paper; library: smp's | models/methods: 12-channel shortcut, 3x3 convolution after "
                  "the pyramid, no aligned corners", "model.decoder", DEEPLAB),
        _protocol("channels of the DeepLabV3+ decoder", "deeplab_channels", None, 128,
                  "not given in the paper; null: smp's, 256 | configs/models", "model.options.decoder_channels",
                  DEEPLAB),
        _protocol("dropout of channels before the last convolution", "head_dropout", 0.0, 0.1,
                  "paper: none | configs/models", "model.head_dropout"),
        _protocol("initialisation of decoder and heads", "initialization", "library", "kaiming",
                  "not given in the paper; library: smp's, the same for UNet, PyTorch's for DeepLabV3+ | "
                  "models/segmentor.py", "model.initialization"),
        _fixed("methods of Table 3: their options", "see docs/explanation/methods.md", "not in the released code",
               "not given in the paper", "each option of configs/method is a key"),
    )),
    Topic("Data", (
        _protocol("intensities of QUBIQ", "qubiq_intensity", "robust", "max",
                  "not given in the paper; robust: percentiles, negative HU are kept | prepare_qubiq.py: 255 x / max",
                  "data.intensity"),
        _protocol("prostate case that lacks a rater", "qubiq_incomplete_cases", "keep", "replace",
                  "paper 3.1: 55 cases | prepare_qubiq.py: case 09 is dropped and 55 saved as 09",
                  "data.incomplete_cases"),
        _alike("annotations of prostate T2, case 50, that contradict the image", "data.conflicting_annotations", "keep",
               "drop", "not mentioned by the authors"),
        _protocol("crops of LiTS and KiTS, in training and at test, as a fraction of 512", "volume_crop", 1.0, 0.75,
                  "paper 3.1: 512 x 512 | datas/datasets, test.py: random and centre crops of 384", "train.crop", LITS),
        _alike("slices of LiTS and KiTS", "data.slices", "target", "all",
               "not given in the paper | prepare_lits_kits.py: with a tumour only, also at test", LITS),
        _alike("orientation of volumes", "data.orientation", "file", "canonical",
               "not given in the paper | prepare_lits_kits.py: the array as stored", LITS),
        _alike("folds", "folds.kind", "contiguous", "shuffled", "paper 3.1: five folds | datas/datasets: sorted ids"),
        _fixed("aspect ratio of slices that are not square", "ignored", "ignored", "datas/prepare",
               "as released: KiTS case 160 (512 x 796) and the prostate images are squeezed"),
    )),
    Topic("Evaluation", (
        _alike("reference of BDice", "evaluate.reference._target_", "dmseg.labels.fusion.uniform",
               "dmseg.labels.fusion.weighted",
               "not given in the paper; QUBIQ's rule | test.py: the label that was trained on"),
        _alike("majority vote of a pixel that half of the raters marked, in scores", "evaluate.ties", "background",
               "foreground", "not given in the paper | datas/prepare/prepare_qubiq.py: more than half must mark it"),
        _alike("score where both masks are empty", "evaluate.empty", "skip", "one",
               "not given in the paper | metrics: no usable rule"),
        _alike("bins of the ECE", "evaluate.bins", 10, 15, "not given in the paper | metrics"),
        _fixed("statistical test", "Wilcoxon over patients, and intervals with folds as clusters",
               "not in the released code", "paper 3.2 cites [10], which was not available to us",
               "test= and zero_method= choose it when a table is written; docs/explanation/statistics.md"),
    )),
)  # fmt: skip
"""The list, by subject."""

OPEN_CHOICES = tuple(choice for topic in TOPICS for choice in topic.choices)
"""All choices."""


def written(value: Any) -> str:  # noqa: ANN401
    """Formats a value as on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(written, value)) + "]"
    return str(value) or "''"
