"""Composes overrides of the command line to typed settings with Hydra; mistakes become plain messages."""

import copy
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dmseg.config.allowed import ALLOWED
from dmseg.config.checks import check_values
from dmseg.config.components import MODULES, check_target
from dmseg.config.config_dir import config_dir, config_file, config_options, file_content
from dmseg.config.interpolations import check_interpolations, name_phantom, resolved
from dmseg.config.label_kind import AUTO, settle_labels
from dmseg.config.overrides import (
    PATH_KEYS,
    RETIRED_LABELS,
    chosen_option,
    current_override,
    dotted,
    flatten,
    get,
    is_group,
    parse_override,
    quote_path,
    quoted,
    refuse_reserved,
)
from dmseg.config.resources import resource
from dmseg.config.settings import Settings, TeacherSettings
from dmseg.config.teacher import of_teacher, resolve_teacher, sets_teacher
from dmseg.config.typed import check_group, check_terms, gather_loss, guess, typed
from dmseg.errors import UserError, cut, shown
from dmseg.files.names import expand_home

PROTOCOL = {"classes": ALLOWED["distill.classes"], "interpolation": ALLOWED["labels.interpolation"]}
"""Keys that a protocol sets for hard and for soft labels, with their choices."""
DATA_DEFAULTS = {
    "epochs": ("60", "train.epochs"),
    "scale": ("[0.8,1.25]", "train.scale"),
    "crop": ("1.0", "train.crop", "evaluate.crop"),
}
"""Keys of a data set's file, each with a value that suits many data sets and the keys whose default it sets."""


def compose_settings(overrides: Sequence[str]) -> Settings:
    """Composes the configuration with these overrides and checks it.

    Args:
        overrides: in Hydra's grammar, for example ``["labels=uniform", "fold=2"]``.

    Raises:
        UserError: if an override is malformed, a key unknown, or a value of the wrong type or out of range.
    """
    return to_settings(compose_plain(overrides))


def compose_plain(overrides: Sequence[str]) -> dict[str, Any]:
    """Composes the configuration and resolves it to plain containers.

    Raises:
        UserError: if an override is malformed or a key unknown.
    """
    return resolve_config(compose_config(overrides), overrides)


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Composes the configuration without resolving its interpolations.

    Raises:
        UserError: if an override is malformed or a key unknown.
    """
    with hydra_initialised(), in_plain_words(overrides):
        return compose("config", overrides=hydra_words(overrides))


def hydra_words(overrides: Sequence[str]) -> list[str]:
    """The overrides to pass to Hydra; `resolve_config` applies those of a teacher's groups.

    Raises:
        UserError: if one is malformed, or sets a key that may not be set.
    """
    refuse_reserved(overrides)
    words = [*method_labels(overrides), *(quote_path(current_override(item)) for item in overrides)]
    kept: list[str] = []
    for text in words:
        item = parse_override(text)
        if item.key_or_group == "distill" and item.type is OverrideType.CHANGE and item.value() is None:
            # Hydra cannot choose no file, which is the default: drop this override and earlier choices
            kept = [earlier for earlier in kept if parse_override(earlier).key_or_group != "distill"]
        elif not sets_teacher(item):
            kept.append(text)
    if (folder := config_dir()) is not None:  # has files of groups, too
        kept.append(f"hydra.searchpath=[{quoted(f'file://{folder}')}]")
    return kept


def method_labels(overrides: Sequence[str]) -> list[str]:
    """The method's labels as an override if the overrides choose none; empty if the method has none.

    The file of a method may have the key ``labels``, which maps tasks or ``default`` to files of ``configs/labels``.
    """
    path = config_file("method", chosen_option(overrides, "method") or "")
    if chosen_option(overrides, "labels") is not None or not path.is_file():
        return []
    by_task = file_content(path).get("labels") or {}
    task = (chosen_option(overrides, "task") or "").rpartition("/")[2]  # as data.case.find_task reads it
    chosen = by_task.get(task, by_task.get("default"))
    return [] if chosen is None else [f"labels={chosen}"]


def resolve_config(config: DictConfig | dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Resolves a composed configuration to plain containers.

    Args:
        config: the configuration, or its plain containers with unresolved interpolations; it is not changed.
        overrides: the overrides that it was composed with, for messages.

    Raises:
        UserError: if a value refers to a key that does not exist, the file of a data set lacks keys to which others
            refer, or an override sets a key of a teacher where there is none.
    """
    with in_plain_words(overrides):
        given: dict[str, Any] = OmegaConf.to_container(config) if isinstance(config, DictConfig) else config  # type: ignore[assignment]
        _check_data(given, overrides)
        check_interpolations(given)
        plain = resolved(given)
        if plain.get("distill"):
            with of_teacher(), in_plain_words(overrides):
                plain["distill"]["teacher"] = resolve_teacher(given, plain, overrides)
        elif lost := [item for item in overrides if sets_teacher(parse_override(item))]:
            raise UserError(f"'{cut(lost[0])}' sets a key of the teacher, but there is none; add distill=kd")
    name_phantom(plain.get("data"))
    return plain


@contextmanager
def hydra_initialised() -> Iterator[None]:
    """Initialises Hydra within the block, also inside a Hydra job, and restores its global state afterwards."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(resource("configs").absolute()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


@contextmanager
def in_plain_words(overrides: Sequence[str]) -> Iterator[None]:
    """Turns errors of Hydra and OmegaConf into messages that name the wrong override."""
    try:
        yield
    except FileNotFoundError as error:
        if error.filename is None:  # os.getcwd
            raise UserError("the current folder no longer exists; change to another one") from None
        raise UserError(_plain_message(error, overrides)) from None
    except (HydraException, OmegaConfBaseException, OSError, ValueError, TypeError) as error:
        raise UserError(_plain_message(error, overrides)) from None


def to_settings(plain: Mapping[str, Any]) -> Settings:
    """Checks a composed configuration and converts it to typed settings.

    Raises:
        UserError: if a key is unknown or missing, or a value of the wrong type or out of range.
    """
    node = copy.deepcopy(dict(plain))
    for key in reversed(PATH_KEYS):  # paths.data before data.root, which refers to it
        if isinstance(path := get(node, key), str):
            parent, _, last = key.rpartition(".")
            get(node, parent)[last] = expand_home(path, key)
    protocol = check_group(node, "protocol", "one of the files in configs/protocol")
    for name, choices in PROTOCOL.items():
        chosen = check_group(protocol, name, "a mapping with a choice for hard and for soft labels")
        if set(chosen) != {"hard", "soft"} or not all(value in choices for value in chosen.values()):
            said = f"but must have hard and soft, each {' or '.join(choices)}"
            raise UserError(f"protocol.{name} is {shown(chosen)}, {said}")
    for key in ("protocol", "profile"):
        group = check_group(node, key, f"one of the files in configs/{key}")
        if "name" not in group:
            raise UserError(f"key '{key}.name' is missing")
        node[key] = group["name"]
    node["data"] = _gather(node, "data", drop=("epochs", "scale", "crop", "tables"))
    node["labels"] = _gather_labels(node)
    node["loss"] = gather_loss(node)
    if node.get("distill"):
        distill = check_group(node, "distill", "null or one of the files in configs/distill")
        teacher = check_group(distill, "teacher", "a mapping")
        with of_teacher():
            gathered = {"labels": _gather_labels(teacher), "loss": gather_loss(teacher)}
        node["distill"] = {**distill, "teacher": {**teacher, **gathered}}
    node["method"] = _gather(node, "method", drop=("labels",))
    settings = settle_labels(_typed_settings(node), protocol)
    if settings.distill is not None:
        with of_teacher():
            settled = settle_labels(settings.distill.teacher, protocol)
        settings = dataclasses.replace(settings, distill=dataclasses.replace(settings.distill, teacher=settled))
    check_values(dataclasses.asdict(settings))
    return settings


def restore_settings(node: Mapping[str, Any], results: Path) -> Settings:
    """Settings from the plain form that `dataclasses.asdict` gives and a run's ``config.json`` holds.

    Args:
        node: the plain form.
        results: the current results folder, which replaces the stored one.

    Raises:
        UserError: if a key is unknown or missing, a value has the wrong type, or a component is not allowed.
    """
    node = {**node, **_restore_parts(node)}
    if node.get("distill"):
        distill = check_group(node, "distill", "null or a mapping")
        teacher = check_group(distill, "teacher", "a mapping")
        node["distill"] = {**distill, "teacher": {**teacher, **_restore_parts(teacher)}}
    settings = _typed_settings(node)
    return dataclasses.replace(settings, paths=dataclasses.replace(settings.paths, results=str(results)))


def _check_data(config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Names all keys at once that the file of a data set lacks and others refer to.

    Raises:
        UserError: if there is one.
    """
    path = config_file("data", chosen_option(overrides, "data") or "")
    data = config.get("data")
    if not isinstance(data, Mapping) or not path.is_file():
        return
    lacking: dict[str, list[str]] = {}
    for name, (_, *users) in DATA_DEFAULTS.items():
        default = [key for key in users if get(config, key) == f"${{data.{name}}}"]
        if name not in data and default and name not in file_content(path):
            lacking[name] = default
    if lacking:
        lines = ", ".join(f"{name}: {DATA_DEFAULTS[name][0]}" for name in lacking)
        words = ", ".join(f"{key}={DATA_DEFAULTS[name][0]}" for name, keys in lacking.items() for key in keys)
        raise UserError(f"{path} sets no {', '.join(lacking)}; add {lines}, or set {words}")


def _gather(parent: Mapping[str, Any], name: str, drop: tuple[str, ...] = ()) -> dict[str, Any]:
    """Splits an open node into the fields of its settings class and the options of its component."""
    node = check_group(parent, name, f"one of the files in configs/{name}")
    fields = {field.name for field in dataclasses.fields(get_type_hints(Settings)[name])}
    rest = {key: value for key, value in node.items() if key not in drop}
    target = rest.pop("_target_", None)
    own = {key: rest.pop(key) for key in list(rest) if key in fields}
    return own | {"target": target, "options": rest}


def _gather_labels(parent: Mapping[str, Any]) -> dict[str, Any]:
    gathered = _gather(parent, "labels")
    for key in ("soft", "targets"):
        if key in parent["labels"]:  # the chosen file may be of an earlier version
            raise UserError(RETIRED_LABELS.format(key))
    return {"interpolation": AUTO} | gathered


def _restore_parts(node: Mapping[str, Any]) -> dict[str, Any]:
    """Labels and loss of stored settings, translated if an earlier version stored them."""
    labels = dict(check_group(node, "labels", "a mapping"))
    if "soft" in labels:  # the key before the interpolation
        labels = {"interpolation": "linear" if labels.pop("soft") else "nearest", **labels}
    loss = check_group(node, "loss", "a mapping")
    if "terms" in loss:
        check_terms(loss)
    else:
        loss = gather_loss(node)
    return {"labels": labels, "loss": dict(loss)}


def _typed_settings(node: dict[str, Any]) -> Settings:
    """Converts plain settings with their parts gathered, and checks that each component is allowed at its node."""
    if isinstance(node.get("tracker"), str):  # one tracker, or settings of an earlier version
        node["tracker"] = [node["tracker"]]
    settings: Settings = typed(Settings, node, "")

    def check_part(part: Settings | TeacherSettings) -> None:
        check_target(part.labels.target, "labels")
        for name, term in part.loss.terms.items():
            check_target(term.target, f"loss.terms.{name}")

    check_target(settings.data.target, "data")
    check_target(settings.method.target, "method")
    check_part(settings)
    check_target(settings.evaluate.reference.get("_target_"), "evaluate.reference")
    if settings.data.phantom is not None:
        check_target(settings.data.phantom.get("_target_"), "data.phantom")
    if settings.distill is not None:
        with of_teacher():
            check_part(settings.distill.teacher)
    return settings


def _plain_message(error: Exception, overrides: Sequence[str]) -> str:
    """A message of one or two lines in place of Hydra's, which names the wrong override."""
    text = str(error)
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found[1]
        known = _known_keys(overrides)
        if key in known:
            return f"the value of {key} has a key that is not in the configuration yet; write +{key}={{...}} to add it"
        file = _own_file(key.partition(".")[0], overrides) if "." in key else None
        own = f"\nfor an argument of your own component, write +{cut(key)}, or add it to {file}" if file else ""
        return f"unknown key '{cut(key)}'{guess(key, known, '')}{own}"
    if found := re.search(r"Could not find '([^']+)'", text):
        group, _, option = found[1].rpartition("/")
        options = re.findall(r"^\t(\w+)$", text, re.MULTILINE)
        if not options:
            return f"unknown key '{cut(option)}'"
        own = "; for a file of your own, add --config-dir FOLDER" if MODULES and config_dir() is None else ""
        return f"{group}='{cut(option)}' does not exist; choose from {', '.join(options)}{own}"
    if "Config group override must be" in text and (said := _wrong_choice(overrides)):
        return said
    if "missing EQUAL" in text:
        found = re.search(r"override '([^']*)'", text)
        return f"'{cut(found[1] if found else ' '.join(overrides))}' is not an override; write key=value"
    if found := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"'{found[1]}' has several values; use -m for a sweep, or brackets for a list: key=[a,b]"
    cause = str(error.__cause__)
    if found := re.search(r"Error merging override ([^\s=]+)=(\S*)", text):
        key, value = found.groups()
        if "Cannot merge" in cause:
            if value.startswith("{") and "object_type=list" not in cause:  # the mistake is in one of its keys
                return f"'{key}={cut(value)}' has a list where a mapping is needed, or the reverse"
            needed = "list, such as [a,b]" if "object_type=list" in cause else "mapping, such as {name:value}"
            return f"{key} must be a {needed}"
        if "${" in value:
            return f"'{key}={cut(value)}' has an interpolation that cannot be parsed; write ${{KEY}}"
    if found := re.search(r"Cannot merge DictConfig with ListConfig\s+full_key: ([^\s=]+)", text):
        return f"{found[1]} must be a mapping, such as {{name:value}}"
    if found := re.search(r"(?:Multiple values for |already at ')([\w./@]+\w)", text):
        return f"{found[1]} already has a value; change it with {found[1]}=VALUE, without +"
    if found := re.search(r"Recursive interpolation detected\s+full_key: (\S+)", text):
        return f"{found[1]} refers to itself; write its value"
    if found := re.search(r"Interpolation key '([^']+)' not found\s+full_key: (\S+)", text):
        key = found[1].partition(".")[2]
        if file := _own_file(found[1].partition(".")[0], overrides):
            return f"{file} lacks the key '{key}', to which {found[2]} refers; add it, or set {found[2]} as well"
        return f"{found[2]} refers to '{found[1]}', which does not exist"
    if found := re.search(r"Environment variable '([^']+)' not found\"?\s+full_key: (\S+)", text):
        return f"{found[2]} reads the environment variable {found[1]}, which is not set"
    pattern = r"Error trying to access (\S+): node `([^`]+)` is not a container[^\n]*\s+full_key: (\S+)"
    if found := re.search(pattern, text):
        return f"{found[3]} refers to '{found[1]}', but {found[2]} is not a group of keys"
    first = [line for line in text.splitlines() if line.strip() and not re.search(r"hydra\.cc|HYDRA_FULL_ERROR", line)]
    return f"{cut(' '.join(first[:2]), 300)} (in: {cut(' '.join(overrides), 200)})"


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """The keys of the configuration with the files of groups that the overrides choose."""
    chosen: list[str] = []
    for word in hydra_words(overrides):
        item = parse_override(word)
        chooses = is_group(dotted(item.key_or_group)) and isinstance(item.value(), str)
        if chooses or item.key_or_group == "hydra.searchpath":
            chosen.append(word)
    try:
        config = compose("config", overrides=chosen)
    except HydraException:  # a choice is wrong, too
        config = compose("config")
    return [name for name, _ in flatten(OmegaConf.to_container(config))]  # type: ignore[arg-type]


def _own_file(group: str, overrides: Sequence[str]) -> Path | None:
    """The file of the config dir that the overrides choose for a group."""
    folder, option = config_dir(), chosen_option(overrides, group)
    if folder is None or option is None:
        return None
    file = config_file(group, option)
    return file if file.is_relative_to(folder) else None


def _wrong_choice(overrides: Sequence[str]) -> str:
    """A message about the first override that gives a config group something other than the name of a file."""
    for text in overrides:
        item = parse_override(text)
        if not is_group(dotted(item.key_or_group)) or item.type is OverrideType.DEL:
            continue
        if isinstance(item.value(), int | float | None):
            group, written = item.key_or_group, text.partition("=")[2]
            if group == "table":
                named = "names a table, which is for commands on tables, such as reproduce, plan and table"
                return f"'{cut(text)}' {named}"
            choices = ", ".join([*(["null"] if group == "distill" else []), *config_options(group)])
            return f"{group}='{cut(written)}' does not exist; choose from {choices}"
    return ""
