"""Checks of settings that depend on each other, and of all numbers; `ranges` checks each key on its own."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dmseg.config.method_options import check_options
from dmseg.errors import UserError, cut
from dmseg.limits import LEAST_BANDWIDTH, crop_edge
from dmseg.models.stride import edge_multiple

_OPEN = re.compile(r"^(data|labels|method)$|loss\.terms\.\w+$")
"""Nodes whose options are written next to their other keys."""


def check_together(node: Mapping[str, Any]) -> None:
    """Checks that the settings fit each other.

    Args:
        node: plain settings (`dataclasses.asdict`).

    Raises:
        UserError: if a number is not finite, or settings do not fit each other or the component that uses them.
    """
    check_finite(node)
    check_options(node["method"]["target"], node["method"]["options"])
    check_weights(node)
    check_kernels(node)
    check_edges(node)
    check_pins(node)
    check_heads(node)


def check_finite(node: Mapping[str, Any]) -> None:
    """Refuses infinite numbers and NaN in any setting."""
    for key, value in _leaves(node, ""):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key} is {value}, but must be a finite number")


def check_weights(node: Mapping[str, Any]) -> None:
    """Checks the weights of the loss terms, of the student and of a teacher."""
    losses = {} if "loss" in node["method"]["unused"] else {"loss": node["loss"]}
    if node["distill"] is not None:
        losses["distill.teacher.loss"] = node["distill"]["teacher"]["loss"]
    for name, loss in losses.items():
        for term, settings in loss["terms"].items():
            if not 0 <= settings["weight"] <= 1e6:
                weight = settings["weight"]
                raise UserError(f"{name}.terms.{term}.weight is {weight}, but must lie between 0 and 1e+06")
        if not any(settings["weight"] for settings in loss["terms"].values()):
            raise UserError(f"{name}.terms has no term with a weight above 0; give at least one a weight")


def check_pins(node: Mapping[str, Any]) -> None:
    """Checks ``model.weights_sha256`` of the student and of a teacher."""
    models = {"model": node["model"]}
    if node["distill"] is not None:
        models["distill.teacher"] = node["distill"]["teacher"]["model"]
    for name, model in models.items():
        pinned = model["weights_sha256"]
        if pinned is None:
            continue
        if not re.fullmatch(r"[0-9a-f]{64}", pinned):
            raise UserError(
                f"{name}.weights_sha256 is '{cut(pinned)}', but must be a SHA-256: 64 digits from 0-9 and a-f"
            )
        if model["weights"] is None:
            raise UserError(f"{name}.weights_sha256 is set, but {name}.weights is null: there is nothing to check")


def check_heads(node: Mapping[str, Any]) -> None:
    """Checks the heads and decoders of the student's and a teacher's network."""
    distill, unused = node["distill"], node["method"]["unused"]
    for name, model in _models(node).items():
        kernel = model["head_kernel"]
        if kernel is not None and kernel % 2 == 0:
            raise UserError(f"{name}.head_kernel is {kernel}, but must be odd")
        if model["decoder"] == "release" and model["architecture"] != "DeepLabV3Plus":
            raise UserError(
                f"{name}.decoder is 'release', which is a decoder of DeepLabV3Plus, but {name}.architecture is "
                f"{cut(model['architecture'])}; set {name}.decoder=library"
            )
    if not node["model"]["auxiliary"]["weight"] or "model.auxiliary" in unused:
        return
    ce = node["loss"]["terms"].get("ce")
    has_ce = ce is not None and ce["weight"] > 0
    if distill is not None:
        has_ce = has_ce and (distill["label_ce"] or distill["teacher_ce"])
        if has_ce and distill["teacher_ce"] and not distill["teacher"]["model"]["auxiliary"]["weight"]:
            raise UserError(
                f"the auxiliary head of {node['model']['name']} learns from that of the teacher, but the teacher's "
                f"network {distill['teacher']['model']['name']} has none; set model.auxiliary.weight=0, or choose "
                "another teacher"
            )
    if not has_ce:
        raise UserError(
            f"the auxiliary head of {node['model']['name']} learns from the cross-entropy, which is switched off; "
            "set model.auxiliary.weight=0"
        )


def check_kernels(node: Mapping[str, Any]) -> None:
    """Checks the kernel estimate of a teacher, and the keys that each kind of label smoothing uses."""
    kde = (node["distill"] or {}).get("kde")
    if kde and kde["boundary"] % 2 == 0:
        raise UserError(f"distill.kde.boundary is {kde['boundary']}, but must be odd")
    if kde and 0 < kde["bandwidth"] < LEAST_BANDWIDTH:
        raise UserError(f"distill.kde.bandwidth is {kde['bandwidth']}, but must be 0 or at least {LEAST_BANDWIDTH:g}")
    teacher = (node["distill"] or {}).get("teacher")
    for where, labels in (("labels", node["labels"]), ("distill.teacher.labels", teacher and teacher["labels"])):
        smoothing, name = labels and labels["smoothing"], f"{where}.smoothing"
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
            raise UserError(f"{key}={share:g} of data.size={size}: {error}; set {key}=1 or a greater size") from None
        for name, model in _models(node).items():
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


def _models(node: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The networks of the student and of a teacher, by key."""
    teacher = {} if node["distill"] is None else {"distill.teacher.model": node["distill"]["teacher"]["model"]}
    return {"model": node["model"], **teacher}


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
