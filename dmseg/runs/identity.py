"""The identity of a run: everything that its numbers depend on and nothing else. Its digest is the run id."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from dmseg.config.code_version import code_version
from dmseg.config.label_kind import fused_kind
from dmseg.config.overrides import CROSS_ENTROPY
from dmseg.config.settings import (
    DistillSettings,
    EvaluateSettings,
    LabelSettings,
    LossSettings,
    LossTerm,
    ModelSettings,
    Settings,
)
from dmseg.data.folds import Split
from dmseg.errors import UserError
from dmseg.files.regular import checksum
from dmseg.metrics.named import IN_MM, mask_metrics
from dmseg.runs.digests import digest

NETWORK = "dmseg.models.build.build_model"
"""The function that builds the networks of all methods."""

REVISIONS = {"labels": 1, "model": 1, "loss": 1, "training": 1}
"""Incremented when a fix changes the numbers of all runs, so that earlier runs are not mistaken for new ones.
Components named in settings have revisions of their own (`dmseg.config.code_version`)."""

DISTILL_REVISION = 1
"""Revision of distillation."""

KDE_REVISION = 2
"""Revision of the kernel estimate that calibrates the teacher."""

DROPOUT_REVISION = 2
"""Revision of distilled networks with dropout, which in revision 1 depended on the teacher's initialisation."""

DROPOUT = ("DeepLabV3", "DeepLabV3Plus", "FPN", "PSPNet")
"""Architectures with dropout by default."""

PLAIN = "dmseg.methods.base.Method"
"""Plain training, which was the only method at first and is therefore left out of identities."""

WITHOUT_RATERS = (PLAIN, "dmseg.methods.mc_dropout.MCDropout", "dmseg.methods.softseg.SoftSeg")
"""Methods that know only the fused label."""

OF_SINGLE_RATERS = ("dmseg.methods.multi_head.MultiHead", "dmseg.methods.mrnet.MRNetMethod")
"""Methods that distinguish raters, but not by their names."""

METHOD_REVISION = 2
"""Revision of the methods other than plain training."""

EVALUATION_REVISION = 1
"""Revision of the scores of a trained network."""

IDENTITY_DEFAULTS: dict[str, Any] = {
    "train.crop": 1.0,
    "distill": None,
    "held_out": None,
    "method": None,
    "code": {},
    "model.decoder": "library",
    "model.head_kernel": None,
    "model.head_dropout": 0.0,
    "model.initialization": "library",
    "model.auxiliary": None,
    "raters": None,
}
"""Keys added to the schema later, each with the value that means the earlier behaviour. A key with this value is left
out of the identity, so that earlier ids stay valid. Entries are never changed."""

INTERPOLATION_DEFAULTS = {"hard": "nearest", "soft": "linear"}
"""The same for `labels.interpolation`, by the kind of labels that the fusion returns."""

LABEL_OPTION_DEFAULTS: dict[str, dict[str, Any]] = {
    "dmseg.labels.fusion.majority": {"ties": "background"},
    "dmseg.labels.fusion.weighted": {"ties": "background"},
}
"""The same for options that were added to fusions later, by the name of the fusion."""

EVALUATION_DEFAULTS: dict[str, Any] = {
    "crop": 1.0, "ged": False, "code": 1, "ties": "background", "boundary": 2, "metrics": [],
    "tolerance": None, "spacing": None, "geometry": None, "volumes": False, "raters": None,
}  # fmt: skip
"""The same for evaluations."""


def run_identity(
    settings: Settings,
    precision: str,
    data_digest: str,
    split: Split,
    teachers: Mapping[str, str] | None = None,
    held_out: float | None = None,
    raters: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The settings that determine the numbers of a run, in plain containers.

    It leaves out titles, paths, devices, workers, trackers, the names of profile, protocol and groups, and options
    without effect (such as the kernel of uniform smoothing).

    Args:
        settings: the run's settings.
        precision: resolved precision, ``fp32``, ``tf32`` or ``bf16``.
        data_digest: digest of the prepared arrays.
        split: the fold's cases.
        teachers: ids of the teacher and of the run that calibrates it, by their keys in the identity.
        held_out: for a run that calibrates a teacher, the share of training cases that it leaves out; else None.
        raters: what the run depends on of the task's raters besides the arrays (`rater_identity`).

    Raises:
        UserError: if the weights file cannot be read.
    """
    method, unused = settings.method, settings.method.unused
    identity: dict[str, Any] = {
        "task": settings.task,
        "data": {"digest": data_digest, "size": settings.data.size},
        "split": digest({"train": split.train, "validation": split.validation}),
        "fold": settings.fold,
        "seed": settings.seed,
        "precision": precision,
        "method": None
        if method.target == PLAIN
        else {"target": method.target, "options": method.options, "revision": METHOD_REVISION},
        "labels": _labels(settings.labels),
        "model": _model(settings.model),
        "loss": None if "loss" in unused else _loss(settings.loss),
        "distill": None if settings.distill is None else _distill(settings, settings.distill, teachers or {}),
        "held_out": held_out,
        "raters": raters,
        "optim": asdict(settings.optim),
        "train": asdict(settings.train),
        "revisions": REVISIONS,
    }
    # code versions of the components that training uses; version 1 is left out
    components = {"method": method.target, "network": NETWORK}
    if "labels" not in unused:
        components["labels"] = settings.labels.target
    if "loss" not in unused:
        active = settings.loss.active
        components |= {key: active[name].target for key, name in (("ce", "ce"), ("loss", "region")) if name in active}
    versions = {name: code_version(target) for name, target in components.items()}
    identity["code"] = {name: version for name, version in versions.items() if version != 1}
    for key in unused:
        _drop(identity, key)
    return _without_defaults(identity, IDENTITY_DEFAULTS)


def rater_identity(
    raters: Sequence[str],
    *,
    known: bool,
    by_name: bool,
    method: str,
    annotating: Collection[int],
    trained: Sequence[int] | None,
) -> dict[str, Any] | None:
    """What the numbers of a run depend on of a task's raters; the digest of the data covers only their positions.

    Args:
        raters: names of the task's raters.
        known: whether dmseg itself gives the task these raters, so that its name says enough.
        by_name: whether the fusion of the labels takes the names of raters.
        method: dotted name of the method.
        annotating: positions of the raters who annotated a case of the task.
        trained: positions of the raters who annotated a training case, if some did not; else None.

    Returns:
        ``names``, or only their ``number`` if names have no effect and some annotated nothing, and ``trained``; None if
        nothing counts. Methods from outside may use the names.
    """
    node: dict[str, Any] = {}
    distinguishes = method not in WITHOUT_RATERS
    if not known:
        if by_name or (distinguishes and method not in OF_SINGLE_RATERS):
            node["names"] = list(raters)
        elif distinguishes and len(annotating) < len(raters):
            node["number"] = len(raters)
    if distinguishes and trained is not None:
        node["trained"] = list(trained)
    return node or None


def evaluation_identity(
    settings: EvaluateSettings,
    raters: Sequence[str] | None = None,
    spacing: Mapping[str, Sequence[float]] | None = None,
    volumes: bool = False,
) -> dict[str, Any]:
    """The settings that determine the scores of a trained network.

    Args:
        settings: settings of the evaluation.
        raters: names of the task's raters if the reference takes them and dmseg itself does not give them; else None.
        spacing: spacing of each case in mm, if a metric uses it (`dmseg.data.geometry.find_geometry`).
        volumes: whether a metric that distinguishes them scores volumes instead of slices.
    """
    names = ("reference", "empty", "bins", "crop", "ged", "ties", "boundary")
    chosen = {name: getattr(settings, name) for name in names}
    chosen["metrics"] = mask_metrics(settings.metrics)  # all others are computed from counts, which are always stored
    chosen["tolerance"] = settings.tolerance if "nsd" in chosen["metrics"] else None
    in_mm, stated = any(name in IN_MM for name in chosen["metrics"]), settings.spacing
    chosen["spacing"] = list(map(float, stated)) if in_mm and stated is not None else None
    from_files = spacing if in_mm and stated is None else None
    chosen["geometry"] = None if from_files is None else digest({case: list(mm) for case, mm in from_files.items()})
    # the spacing from files has two or three numbers accordingly
    by_slice_or_volume = "lesion_f1" in chosen["metrics"] or (in_mm and stated is not None and len(stated) == 3)
    chosen["volumes"] = volumes and by_slice_or_volume
    chosen["raters"] = None if raters is None else list(raters)
    chosen["code"] = code_version(settings.reference["_target_"])
    return _without_defaults(chosen, EVALUATION_DEFAULTS) | {"revision": EVALUATION_REVISION}


def _labels(settings: LabelSettings) -> dict[str, Any]:
    """Labels; the interpolation is named only if it is not the default for the kind of label."""
    node = _without_names(asdict(settings))
    kind = fused_kind(settings)
    node["soft"] = kind == "soft"
    if settings.interpolation == INTERPOLATION_DEFAULTS[kind]:
        del node["interpolation"]
    if settings.smoothing is None:
        del node["smoothing"]
    else:
        node["smoothing"] = {"kind": settings.smoothing.kind, **settings.smoothing.arguments}
    for option, default in LABEL_OPTION_DEFAULTS.get(settings.target, {}).items():
        if node["options"].get(option) == default:
            del node["options"][option]
    return node


def _loss(settings: LossSettings) -> dict[str, Any]:
    """The active terms; for cross-entropy and region loss in the form that they have had since the first version.

    Other terms count by their content, not by their name, in the order of contents, in which they are summed.
    """
    active = settings.active
    ce, region = active.get("ce"), active.get("region")
    node: dict[str, Any] = {"ce_weight": ce.weight if ce else 0.0, "region_weight": region.weight if region else 0.0}
    if ce is not None and ce.target == CROSS_ENTROPY and set(ce.options) <= {"kl"}:
        node["kl"] = ce.options.get("kl", False)
    elif ce is not None:
        node["ce"] = _component(ce)
    if region is not None:
        node["region"] = _component(region)
    if others := settings.others.values():
        node["others"] = [
            {"term": _component(term), "weight": term.weight, "code": code_version(term.target)} for term in others
        ]
    return node


def _component(term: LossTerm) -> dict[str, Any]:
    return {"_target_": term.target, **term.options}


def _distill(student: Settings, settings: DistillSettings, teachers: Mapping[str, str]) -> dict[str, Any]:
    """Weights of the terms, ids of the teacher, use of its predictions; options without effect are left out."""
    weights = settings.weights(student.loss)
    others = [weights.pop(f"label_{name}", 0.0) for name in student.loss.others]
    node: dict[str, Any] = {"weights": weights, "revision": DISTILL_REVISION}
    if others:
        node["others"] = others
    if not settings.needs_teacher(student.loss):
        return node
    options = {**student.model.options, **student.model.encoder_options}
    if student.model.architecture in DROPOUT or any("drop" in name and value for name, value in options.items()):
        node["dropout"] = DROPOUT_REVISION
    node |= {**teachers, "temperature": settings.temperature}
    if "teacher_region" in weights:
        node["classes"] = settings.classes
    if settings.calibrate is not None:
        node["calibrate"] = settings.calibrate
    if settings.kde is not None and settings.kde.bandwidth:
        node["kde"] = asdict(settings.kde) | {"revision": KDE_REVISION}
    return node


def _model(settings: ModelSettings) -> dict[str, Any]:
    node = _without_names(asdict(settings))
    node["options"] = {name: value for name, value in settings.options.items() if value is not None}
    if not settings.auxiliary.weight:
        node["auxiliary"] = None
    pinned = node.pop("weights_sha256")
    if settings.weights == "imagenet" and pinned is not None:
        node["weights_sha256"] = pinned
    elif settings.weights not in (None, "imagenet"):  # a file is named by its content, pinned or not
        path = Path(str(settings.weights))
        try:
            status = path.stat()
            digest = _digest_of_version(path, status.st_size, status.st_mtime_ns)
        except OSError as error:
            raise UserError(
                f"model.weights={path} cannot be read ({error.strerror}); use null, imagenet or the path of a file"
            ) from None
        if pinned not in (None, digest):
            raise UserError(f"{settings.weights} has the SHA-256 {digest}, but model.weights_sha256 is {pinned}")
        node["weights"] = f"sha256:{digest}"
    return node


@lru_cache(maxsize=64)
def _digest_of_version(path: Path, size: int, mtime_ns: int) -> str:
    """Digest of a file, computed once for all runs planned with it."""
    return checksum(path)


def _drop(node: dict[str, Any], key: str) -> None:
    """Removes a dotted key."""
    group, _, rest = key.partition(".")
    if rest:
        _drop(node[group], rest)
    else:
        del node[group]


def _without_names(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != "name"}


def _without_defaults(identity: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Removes keys that have their frozen default."""
    for key, default in defaults.items():
        *groups, name = key.split(".")
        node = identity
        for group in groups:
            node = node.get(group, {})
        if name in node and node[name] == default:
            del node[name]
    return identity
