"""Checks settings: each key on its own, and keys that depend on each other."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dmseg.config.allowed import ALLOWED, TRACKERS
from dmseg.config.method_options import check_options
from dmseg.config.overrides import get
from dmseg.config.settings.study import DISTILLED_TERMS
from dmseg.errors import UserError, check_choice, cut, shown
from dmseg.limits import LEAST_BANDWIDTH, MAX_LEVELS, crop_edge
from dmseg.metrics.named import check_metrics
from dmseg.models.stride import edge_multiple

DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?", re.ASCII)
RANGES: dict[str, tuple[float, float]] = {
    "fold": (0, 1_000_000),
    "seed": (0, 2**63 - 1),
    "folds.seed": (0, 2**63 - 1),
    "data.size": (8, 4096),
    "train.epochs": (1, 1_000_000),
    "train.min_steps": (0, 1_000_000_000),
    "train.batch_size": (2, 4096),
    "train.flip": (0, 1),
    "train.crop": (0.05, 1),
    "evaluate.crop": (0.05, 1),
    "evaluate.bins": (1, MAX_LEVELS),
    "evaluate.batch_size": (1, 4096),
    "evaluate.every": (0, 1_000_000),
    "evaluate.boundary": (1, 100),
    "evaluate.tolerance": (0, 1000),
    "agreement.disjoint": (0, 1),
    "distill.label_weight": (0, 100),
    "distill.teacher_weight": (0, 100),
    "distill.temperature": (0.01, 100),
    "distill.kde.bandwidth": (0, 10),
    "distill.kde.n_key": (1, 1_000_000),
    "distill.kde.boundary": (1, 4095),
    **{
        f"{where}{key}": bounds
        for where in ("", "distill.teacher.")
        for key, bounds in (
            ("labels.smoothing.epsilon", (0, 1)),
            ("labels.smoothing.kernel", (1, 4095)),
            ("labels.options.disjoint_weight", (0, 1)),
            ("model.head_kernel", (1, 31)),
            ("model.head_dropout", (0, 0.99)),
            ("model.auxiliary.weight", (0, 0.99)),
            ("model.auxiliary.channels", (1, 65_536)),
        )
    },
    "optim.lr": (0, 100),
    "optim.decoder_lr_factor": (0, 10_000),
    "optim.momentum": (0, 1),
    "optim.weight_decay": (0, 10),
    "optim.poly_power": (0, 100),
    "optim.warmup": (0, 0.99),
    "checkpoint.minutes": (0, 1e6),
    "checkpoint.steps": (1, 1_000_000_000),
    "workers": (1, 256),
    "launcher.workers": (1, 256),
    "launcher.job.runs": (1, 10_000),
    "launcher.job.minutes": (5, 1_000_000),
    "launcher.job.requeues": (0, 1_000_000),
    "launcher.job.parallel": (1, 10_000),
    "launcher.job.cpus": (1, 1024),
    "launcher.job.gpus": (0, 1024),
    "launcher.job.memory_gb": (0.1, 1_000_000),
    "threads": (1, 1024),
}
_OPEN = re.compile(r"^(data|labels|method)$|loss\.terms\.\w+$")
"""Nodes whose options are written next to their other keys."""


def check_values(node: Mapping[str, Any]) -> None:
    """Checks each value of typed settings on its own, and then that they fit each other.

    Args:
        node: plain settings (`dataclasses.asdict`).

    Raises:
        UserError: if a value is out of range or not one of its choices, or settings do not fit each other.
    """
    for key, choices in ALLOWED.items():
        value = get(node, key)
        if value is not None:
            check_choice(key, value, choices)
    for key, (low, high) in RANGES.items():
        value = get(node, key)
        if value is not None and (not isinstance(value, int | float) or not low <= value <= high):
            raise UserError(f"{key.replace('.options', '')} is {shown(value)}, but must lie between {low} and {high}")
    if not node["optim"]["lr"]:
        raise UserError("optim.lr is 0, which trains nothing; give a learning rate above 0")
    if not DEVICE.fullmatch(node["device"]):
        raise UserError(f"device is {shown(node['device'])}, but must be auto, cpu, cuda or cuda:N")
    trackers = node["tracker"]
    if not trackers:
        raise UserError("tracker is empty; tracker=disabled turns tracking off")
    for name in trackers:
        if name not in TRACKERS:
            raise UserError(f"tracker is {shown(name)}, but must be one of {', '.join(TRACKERS)}, or a list of them")
    if "disabled" in trackers and len(trackers) > 1:
        raise UserError(f"tracker is {shown(trackers)}, but 'disabled' cannot be combined with other trackers")
    if {"offline", "online"} <= set(trackers):
        raise UserError(f"tracker is {shown(trackers)}, but 'offline' and 'online' cannot be combined; leave one out")
    if len(set(trackers)) < len(trackers):
        raise UserError(f"tracker is {shown(trackers)}, but names one twice")
    for name, folder in node["paths"].items():
        if not folder:
            raise UserError(f"paths.{name} is empty; name a folder, or leave it out")
    scale = node["train"]["scale"]
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise UserError(f"train.scale is {shown(scale)}, but must be [smallest, largest], both above 0")
    check_metrics(node["evaluate"]["metrics"])
    spacing = node["evaluate"]["spacing"]
    if spacing is not None and not (len(spacing) in (2, 3) and all(0 < size < 1000 for size in spacing)):
        said = "[row, column] or [row, column, slice] in mm, each above 0 and below 1000"
        raise UserError(f"evaluate.spacing is {shown(spacing)}, but must be null or {said}")
    for key, value in _leaves(node, ""):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key} is {value}, but must be a finite number")
    check_options(node["method"]["target"], node["method"]["options"])
    check_weights(node)
    check_kernels(node)
    check_edges(node)
    check_networks(node)


def check_weights(node: Mapping[str, Any]) -> None:
    """Checks the weights of the loss terms."""
    losses = _of_both(node, "loss")
    if "loss" in node["method"]["unused"]:
        del losses["loss"]
    for name, loss in losses.items():
        for term, settings in loss["terms"].items():
            weight = settings["weight"]
            if not 0 <= weight <= 1e6:
                raise UserError(f"{name}.terms.{term}.weight is {weight}, but must lie between 0 and 1e+06")
        if not any(settings["weight"] for settings in loss["terms"].values()):
            raise UserError(f"{name}.terms has no term with a weight above 0; give at least one a weight")
    distill, terms = node["distill"] or {}, losses.get("loss", {}).get("terms", {})
    if distill and not distill["label_weight"] and not distill["teacher_weight"]:
        raise UserError("distill.label_weight and distill.teacher_weight are both 0; give at least one a weight")
    wanted = [name for name in DISTILLED_TERMS if distill.get(f"teacher_{name}")]
    if wanted and terms and not any(terms[name]["weight"] for name in wanted if name in terms):
        raise UserError(
            f"distill compares with the teacher by the terms {' and '.join(wanted)} only, but loss.terms has none of "
            "them with a weight above 0; name a term so, give it a weight, or leave distill out"
        )


def check_kernels(node: Mapping[str, Any]) -> None:
    """Checks the kernel estimate of a teacher, and the keys that each kind of label smoothing uses."""
    kde = (node["distill"] or {}).get("kde")
    if kde and kde["boundary"] % 2 == 0:
        raise UserError(f"distill.kde.boundary is {kde['boundary']}, but must be odd")
    if kde and 0 < kde["bandwidth"] < LEAST_BANDWIDTH:
        raise UserError(f"distill.kde.bandwidth is {kde['bandwidth']}, but must be 0 or at least {LEAST_BANDWIDTH:g}")
    for where, labels in _of_both(node, "labels").items():
        smoothing, name = labels["smoothing"], f"{where}.smoothing"
        if not smoothing:
            continue
        kind, kernel = smoothing["kind"], smoothing["kernel"]
        needed = "sigma" if kind == "svls" else "epsilon"
        if smoothing[needed] is None:
            raise UserError(f"{name}.{needed} is not set, but {name}.kind={kind} needs it")
        least = {"svls": 3, "boundary": 1}.get(kind)
        if least is not None and (kernel is None or kernel < least or kernel % 2 == 0):
            raise UserError(f"{name}.kernel is {kernel}, but must be odd and at least {least}")
        if kind == "svls" and not 0.01 <= smoothing["sigma"] <= 1000:
            raise UserError(f"{name}.sigma is {smoothing['sigma']}, but must lie between 0.01 and 1000")


def check_edges(node: Mapping[str, Any]) -> None:
    """Checks that slices and crops are large enough, and that the networks accept their sizes."""
    size, distill = node["data"]["size"], node["distill"]
    shares = {key: node[key.partition(".")[0]]["crop"] for key in ("train.crop", "evaluate.crop")}
    if distill is not None and distill["calibrate"] is not None:
        shares["distill.calibrate"] = 1.0  # a teacher's temperature is fitted on whole slices
    for key, share in shares.items():
        try:
            edge = crop_edge(size, share)
        except ValueError as error:
            raise UserError(
                f"{key}={share:g} of data.size={size}: {error}; set {key}=1 or a larger data.size"
            ) from None
        for name, model in _of_both(node, "model").items():
            multiple = edge_multiple(model["architecture"], model["options"])
            if edge % multiple == 0:
                continue
            source = f"data.size={size}" if edge == size else f"{key}={share:g} of data.size={size} ({edge} pixels)"
            fitting = {max(edge // multiple, 1) * multiple, (edge // multiple + 1) * multiple}
            wanted = " or ".join(map(str, sorted(fitting)))
            advice = f"set data.size to {wanted}" if edge == size else f"choose a crop of {wanted} pixels"
            raise UserError(
                f"{source} does not fit {name}={model['name']}: {model['architecture']} needs image sizes divisible "
                f"by {multiple}; {advice}, or use a Unet, which takes any size"
            )


def check_networks(node: Mapping[str, Any]) -> None:
    """Checks the digests that pin weights, the decoders and the heads."""
    models = _of_both(node, "model")
    for where, model in models.items():
        name, pinned = where.removesuffix(".model"), model["weights_sha256"]
        if pinned is not None and not re.fullmatch(r"[0-9a-f]{64}", pinned):
            said = f"{name}.weights_sha256 is '{cut(pinned)}'"
            raise UserError(f"{said}, but must be a SHA-256: 64 digits from 0-9 and a-f")
        if pinned is not None and model["weights"] is None:
            raise UserError(f"{name}.weights_sha256 is set, but {name}.weights is null: there is nothing to check")
    for name, model in models.items():
        kernel = model["head_kernel"]
        if kernel is not None and kernel % 2 == 0:
            raise UserError(f"{name}.head_kernel is {kernel}, but must be odd")
        if model["decoder"] == "release" and model["architecture"] != "DeepLabV3Plus":
            raise UserError(
                f"{name}.decoder is 'release', which is a decoder of DeepLabV3Plus, but {name}.architecture is "
                f"{cut(model['architecture'])}; set {name}.decoder=library"
            )
    own, distill = node["model"], node["distill"]
    if not own["auxiliary"]["weight"] or "model.auxiliary" in node["method"]["unused"]:
        return
    learns = f"the auxiliary head of {own['name']} learns from"
    ce = node["loss"]["terms"].get("ce")
    has_ce = ce is not None and ce["weight"] > 0
    if distill is not None:
        has_ce = has_ce and (distill["label_ce"] or distill["teacher_ce"])
        teacher = distill["teacher"]["model"]
        if has_ce and distill["teacher_ce"] and not teacher["auxiliary"]["weight"]:
            raise UserError(
                f"{learns} that of the teacher, but the teacher's network {teacher['name']} has none; "
                "set model.auxiliary.weight=0, or choose another teacher"
            )
    if not has_ce:
        raise UserError(f"{learns} the cross-entropy, which is switched off; set model.auxiliary.weight=0")


def _of_both(node: Mapping[str, Any], group: str) -> dict[str, Mapping[str, Any]]:
    """A group of the student and of a teacher, by key."""
    teacher = {} if node["distill"] is None else {f"distill.teacher.{group}": node["distill"]["teacher"][group]}
    return {group: node[group], **teacher}


def _leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Every value with its dotted key, as written on the command line."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            inner = key if name == "options" and _OPEN.search(key) else f"{key}.{name}".lstrip(".")
            yield from _leaves(value, inner)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _leaves(value, key)
    else:
        yield key, node
