"""Overrides of the command line to typed settings, with Hydra; a mistake becomes one plain message."""

import copy
import dataclasses
import difflib
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dmseg.components import check_target
from dmseg.errors import UserError
from dmseg.experiments.interpolation import check_interpolations
from dmseg.experiments.label_config import (
    AUTO,
    refuse_retired_keys,
    refuse_retired_overrides,
    settle_labels,
    translate_labels,
)
from dmseg.experiments.limits import check_together
from dmseg.experiments.overrides import chosen_option, expand_paths, parse_override, quote_path, refuse_reserved
from dmseg.experiments.teacher_config import resolve_teacher
from dmseg.limits import MAX_LEVELS
from dmseg.resources import resource
from dmseg.settings import Settings

HYDRA_VERSION_BASE = "1.3"
OPEN_NODES = {"data": "options", "labels": "options", "method": "options"}
"""Nodes whose further keys are options of their component, and the field that gathers them."""

CHOICES = {
    "tracker": ("disabled", "offline", "online"),
    "precision": ("fp32", "tf32", "bf16", "auto"),
    "evaluate.empty": ("skip", "one", "zero"),
    "launcher.kind": ("auto", "inline", "local", "slurm"),
    "folds.kind": ("contiguous", "shuffled"),
    "labels.interpolation": ("nearest", "linear", "rater"),
    "labels.smoothing.kind": ("boundary", "uniform"),
    "distill.calibrate": ("inner", "train"),
    "distill.classes": ("all", "present", "foreground"),
    "distill.kde.keys": ("batch", "image"),
}
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
    "agreement.disjoint": (0, 1),
    "labels.smoothing.epsilon": (0, 1),
    "labels.smoothing.kernel": (1, 4095),
    "labels.options.disjoint_weight": (0, 1),
    "distill.label_weight": (0, 100),
    "distill.teacher_weight": (0, 100),
    "distill.temperature": (0.01, 100),
    "distill.kde.bandwidth": (0, 10),
    "distill.kde.n_key": (1, 1_000_000),
    "distill.kde.boundary": (1, 4095),
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


def compose_settings(overrides: Sequence[str]) -> Settings:
    """Composes the configuration with these overrides and checks it.

    Args:
        overrides: in Hydra's grammar, for example ``["labels=uniform", "fold=2"]``.

    Raises:
        UserError: if an override is malformed, a key unknown, or a value of the wrong type or out of range.
    """
    return to_settings(compose_plain(overrides))


def compose_plain(overrides: Sequence[str], config: str = "config") -> dict[str, Any]:
    """Composes a configuration of ``configs/`` and resolves it to plain containers.

    Raises:
        UserError: if an override is malformed or a key unknown.
    """
    return resolve_config(compose_config(overrides, config), overrides)


def compose_config(overrides: Sequence[str], config: str = "config") -> DictConfig:
    """Composes a configuration of ``configs/``, its interpolations left as they are.

    Raises:
        UserError: if an override is malformed or a key unknown.
    """
    for item in overrides:
        refuse_reserved(item)
    refuse_retired_overrides(overrides)
    with _hydra_initialised(), _in_plain_words(overrides):
        words = [*method_labels(overrides), *map(quote_path, overrides)]
        return compose(config, overrides=_without_null(words))


def _without_null(overrides: Sequence[str], group: str = "distill") -> list[str]:
    """Drops ``distill=null`` and the choices before it: the default is no file, and Hydra has no word for that."""

    def is_null(item: Override) -> bool:
        return item.key_or_group == group and item.type is OverrideType.CHANGE and item.value() is None

    parsed = [parse_override(item) for item in overrides]
    last = max((index for index, item in enumerate(parsed) if is_null(item)), default=-1)
    kept = [index > last or item.key_or_group != group for index, item in enumerate(parsed)]
    return [item for item, keep in zip(overrides, kept, strict=True) if keep]


def method_labels(overrides: Sequence[str]) -> list[str]:
    """The labels that a method brings where the overrides choose none: as an override, or none at all.

    A method's file may carry ``labels``, a map from a task, or ``default``, to a file of ``configs/labels``.
    """
    path = resource("configs") / "method" / f"{chosen_option(overrides, 'method')}.yaml"
    if chosen_option(overrides, "labels") is not None or not path.is_file():
        return []
    by_task = OmegaConf.to_container(OmegaConf.load(path)).get("labels") or {}  # type: ignore[union-attr]
    task = (chosen_option(overrides, "task") or "").rpartition("/")[2]  # as data.case.find_task reads it
    chosen = by_task.get(task, by_task.get("default"))
    return [] if chosen is None else [f"labels={chosen}"]


def resolve_config(config: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """Resolves a composed configuration to plain containers.

    Args:
        config: the configuration.
        overrides: what it was composed with, for messages.

    Raises:
        UserError: if a value refers to a key that does not exist.
    """
    with _in_plain_words(overrides):
        check_interpolations(config)
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        if plain.get("distill"):  # type: ignore[union-attr]
            plain["distill"]["teacher"] = resolve_teacher(config)  # type: ignore[index,call-overload]
    return plain  # type: ignore[return-value]


@contextmanager
def _in_plain_words(overrides: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except (HydraException, OmegaConfBaseException, OSError, ValueError, TypeError) as error:
        raise UserError(_plain_message(error, overrides)) from None


def to_settings(plain: Mapping[str, Any]) -> Settings:
    """Checks a composed configuration and gives it its types.

    Raises:
        UserError: if a key is unknown or missing, or a value of the wrong type or out of range.
    """
    node = copy.deepcopy(dict(plain))
    expand_paths(node)
    node["protocol"], node["profile"] = node["protocol"]["name"], node["profile"]["name"]
    node["data"] = _gather(node["data"], "data", drop=("epochs", "scale", "crop", "tables"))
    node["labels"] = _gather_labels(node["labels"])
    if node.get("distill"):
        teacher = node["distill"]["teacher"]
        node["distill"] = node["distill"] | {"teacher": teacher | {"labels": _gather_labels(teacher["labels"])}}
    node["method"] = _gather(node["method"], "method", drop=("labels",))
    settings: Settings = _typed(Settings, node, "")
    check_components(settings)
    settings = settle_labels(settings, plain["protocol"])
    if settings.distill is not None:
        teacher = settle_labels(settings.distill.teacher, plain["protocol"])
        settings = dataclasses.replace(settings, distill=dataclasses.replace(settings.distill, teacher=teacher))
    _check_values(dataclasses.asdict(settings))
    return settings


def check_components(settings: Settings) -> None:
    """Checks by name what the settings call.

    Raises:
        UserError: if a component may not stand where it does.
    """
    named = {
        "data": settings.data.target,
        "method": settings.method.target,
        "labels": settings.labels.target,
        "loss.region": settings.loss.region.get("_target_"),
        "evaluate.reference": settings.evaluate.reference.get("_target_"),
    }
    if settings.data.phantom is not None:
        named["data.phantom"] = settings.data.phantom.get("_target_")
    for where, target in named.items():
        check_target(target, where)
    if settings.distill is not None:
        teacher = settings.distill.teacher
        check_target(teacher.labels.target, "labels")
        check_target(teacher.loss.region.get("_target_"), "loss.region")


def restore_settings(node: Mapping[str, Any], results: Path) -> Settings:
    """Settings from the plain form that `dataclasses.asdict` gives and a run's ``config.json`` holds.

    Args:
        node: the plain form.
        results: the results folder to read from now.

    Raises:
        UserError: if a key is unknown or missing, a value has the wrong type, or a component may not stand there.
    """
    node = dict(node) | {"labels": translate_labels(node["labels"])}
    if node.get("distill"):
        teacher = node["distill"]["teacher"]
        teacher = teacher | {"labels": translate_labels(teacher["labels"])}
        node["distill"] = node["distill"] | {"teacher": teacher}
    settings: Settings = _typed(Settings, node, "")
    check_components(settings)
    return dataclasses.replace(settings, paths=dataclasses.replace(settings.paths, results=str(results)))


@contextmanager
def _hydra_initialised() -> Iterator[None]:
    """Lends Hydra's global state, also within a Hydra job, and gives it back as it was."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(resource("configs").absolute()), version_base=HYDRA_VERSION_BASE):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def _gather(node: Any, name: str, drop: tuple[str, ...] = ()) -> dict[str, Any]:  # noqa: ANN401
    """Splits an open node into the fields of its settings class and the options of its component."""
    if not isinstance(node, Mapping):
        raise UserError(f"{name} is {node!r}, but must be one of the files in configs/{name}")
    fields = {field.name for field in dataclasses.fields(get_type_hints(Settings)[name])}
    rest = {key: value for key, value in node.items() if key not in drop}
    target = rest.pop("_target_", None)
    own = {key: rest.pop(key) for key in list(rest) if key in fields}
    return own | {"target": target, OPEN_NODES[name]: rest}


def _gather_labels(node: Any) -> dict[str, Any]:  # noqa: ANN401
    gathered = _gather(node, "labels")
    refuse_retired_keys(node)
    return {"interpolation": AUTO} | gathered


def _typed(kind: Any, value: Any, key: str) -> Any:  # noqa: ANN401
    """Gives a plain value the type of a dataclass field, or says which key is wrong."""
    if dataclasses.is_dataclass(kind):
        return _typed_node(kind, value, key)
    if get_origin(kind) in (Union, types.UnionType):
        inner = next(choice for choice in get_args(kind) if choice is not type(None))
        return None if value is None else _typed(inner, value, key)
    if get_origin(kind) is list:
        if not isinstance(value, list):
            raise UserError(f"{key} is {value!r}, but must be a list")
        return [_typed(get_args(kind)[0], item, key) for item in value]
    expected = get_origin(kind) or kind
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise UserError(f"{key} is {value!r}, but must be {_NAMES.get(expected, expected.__name__)}")
    return value


_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word",
    dict: "a group of keys",
}


def _typed_node(kind: Any, node: Any, key: str) -> Any:  # noqa: ANN401
    if not isinstance(node, Mapping):
        raise UserError(f"{key} is {node!r}, but must be a group of keys")
    hints = get_type_hints(kind)
    prefix = f"{key}." if key else ""
    for name in node:
        if name not in hints:
            raise UserError(f"unknown key '{prefix}{name}'{_guess(name, list(hints), prefix)}")
    fields = dataclasses.fields(kind)
    lacking = [field.name for field in fields if field.default is field.default_factory is dataclasses.MISSING]
    for name in lacking:
        if name not in node:
            raise UserError(f"key '{prefix}{name}' is missing")
    return kind(**{name: _typed(hints[name], value, f"{prefix}{name}") for name, value in node.items()})


def _check_values(node: Mapping[str, Any]) -> None:
    for key, choices in CHOICES.items():
        value = _lookup(node, key)
        if value is not None and value not in choices:
            raise UserError(f"{key} is '{value}', but may be {', '.join(choices)}")
    for key, (low, high) in RANGES.items():
        value = _lookup(node, key)
        if value is not None and (not isinstance(value, int | float) or not low <= value <= high):
            raise UserError(f"{key.replace('.options', '')} is {value}, but must lie between {low} and {high}")
    scale = node["train"]["scale"]
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise UserError(f"train.scale is {scale}, but must be [smallest, largest], both above 0")
    check_together(node)


def _lookup(node: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401
    """Value of a dotted key, None where a group on the way is None."""
    group, _, rest = key.partition(".")
    value = node.get(group)
    return _lookup(value, rest) if rest and value is not None else value


def _plain_message(error: Exception, overrides: Sequence[str]) -> str:
    """One or two plain lines in place of Hydra's, naming the offending word."""
    text = str(error)
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found[1]
        return f"unknown key '{key}'{_guess(key, _known_keys(), '')}"
    if found := re.search(r"Could not find '([^']+)'", text):
        group, _, option = found[1].rpartition("/")
        options = re.findall(r"^\t(\w+)$", text, re.MULTILINE)
        return (
            f"{group}='{option}' does not exist; choose from {', '.join(options)}"
            if options
            else f"unknown key '{option}'"
        )
    if "missing EQUAL" in text:
        word = re.search(r"override '([^']*)'", text)
        return f"'{word[1] if word else ' '.join(overrides)}' is not an override; write key=value"
    if found := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"'{found[1]}' has several values; a sweep needs -m, a list brackets: key=[a,b]"
    if found := re.search(r"Interpolation key '([^']+)' not found\s+full_key: (\S+)", text):
        return f"{found[2]} refers to '{found[1]}', which does not exist"
    first = [
        line for line in text.splitlines() if line.strip() and "hydra.cc" not in line and "HYDRA_FULL_ERROR" not in line
    ]
    return f"{' '.join(first[:2])} (in: {' '.join(overrides)})"


def _guess(key: str, known: Sequence[str], prefix: str) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"; did you mean '{prefix}{close[0]}'?" if close else ""


def _known_keys() -> list[str]:
    def walk(node: Any, prefix: str) -> Iterator[str]:  # noqa: ANN401
        for name, value in node.items():
            yield f"{prefix}{name}"
            if isinstance(value, DictConfig):
                yield from walk(value, f"{prefix}{name}.")

    return list(walk(compose("config"), ""))
