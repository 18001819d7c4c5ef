"""The overrides of a table command: data sets and networks of the rows, and settings that cells do not set."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import OmegaConf

from dmseg.config.config_dir import config_file, config_options
from dmseg.config.overrides import dotted, is_group, parse_override
from dmseg.errors import UserError
from dmseg.tables.spec import PAPER_DATA, TableSpec, naming_column
from dmseg.text import split_list

_OF_ROWS = ("data", "fold", "task")
"""What all columns of a row share; in the overrides of a column, these would be ignored."""
_OF_ONE = re.compile(r"^(\w+):(.+)$", re.DOTALL)


@dataclass(frozen=True)
class Request:
    """The parsed overrides of a table command.

    Attributes:
        data: the data set to read for each of the paper's data sets.
        models: networks that replace those of the specification, by data set; ``""`` applies to every data set.
        overrides: overrides for every data set.
        own: overrides for a single data set, by its name.
    """

    data: Mapping[str, str]
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def overrides_of(self, data: str) -> tuple[str, ...]:
        """All overrides of one data set."""
        return (f"data={data}", *self.overrides, *self.own.get(data, ()))

    def models_of(self, data: str) -> tuple[str, ...]:
        """Networks given for a data set; empty to use those of the specification."""
        return self.models.get(data, self.models.get("", ()))


@dataclass(frozen=True)
class Compared:
    """The keys that the cells of some tables set, which overrides must not set.

    Attributes:
        keys: each dotted key or config group that a cell sets, with the name of the first table that does.
    """

    keys: Mapping[str, str]

    @cached_property
    def groups(self) -> set[str]:
        """Config groups that the cells choose a file from."""
        return {key for key in self.keys if is_group(key)}

    def check(self, text: str) -> None:
        """Refuses an override of a key that the cells set.

        Args:
            text: the override, without the name of a data set.

        Raises:
            UserError: if it chooses a group or sets a key that a cell sets, in any form of Hydra's grammar.
        """
        parsed = parse_override(text)
        for name in map(dotted, filter(None, (parsed.key_or_group, parsed.package))):
            for key, table in sorted(self.keys.items(), key=lambda item: item[0] != name):  # exact match first
                if self._touches(name, key, parsed):
                    raise UserError(
                        f"'{text}' sets {key}, which the cells of table {table} set themselves; leave it out\n"
                        "a configuration of your own is trained by 'dmseg cv', or compared by 'dmseg cv -m'"
                    )

    def _touches(self, name: str, key: str, override: Override) -> bool:
        """Whether an override of `name` changes the choice that a cell makes by setting `key`."""
        if name == key or key.startswith(f"{name}.") or name == "_global_":
            return True
        if not name.startswith(f"{key}."):
            return False
        of_choice = is_group(key) and (
            name.rpartition(".")[2] in ("_target_", "name") or _names_component(override.value())
        )
        return of_choice or override.type is OverrideType.DEL or override.package is not None

    def is_option(self, text: str) -> bool:
        """Whether an override sets another key of a group that the cells choose from; only some cells may have it."""
        key = option_key(text)
        return any(key.startswith(f"{group}.") for group in self.groups)


def parse_request(overrides: Sequence[str], needed: Collection[str] = tuple(PAPER_DATA)) -> Request:
    """Parses the overrides of a table command.

    Args:
        overrides: in Hydra's grammar, and ``data=A,B``, ``model=A,B``, ``NAME:key=value``.
        needed: the paper's data sets that the tables contain.

    Raises:
        UserError: if a data set is unknown, an override concerns a data set that is not read, phantoms and real data
            would be mixed, or one root is given for several data sets.
    """
    chosen: list[str] = []
    models: dict[str, tuple[str, ...]] = {}
    common: list[str] = []
    own: dict[str, list[str]] = {}
    for item in overrides:
        found = _OF_ONE.match(item)
        name, text = (found[1], found[2]) if found else ("", item)
        key, _, value = text.partition("=")
        if key == "data":
            if name:
                raise UserError(f"'{item}': data names the data sets, so it cannot be set for one of them")
            _refuse_twice(key, chosen)
            chosen = split_list(value)
        elif key == "model":
            _refuse_twice(key, models.get(name))
            models[name] = tuple(split_list(value))
        elif name:
            own.setdefault(name, []).append(text)
        else:
            common.append(text)
    data = _data_of(chosen) if chosen else {name: name for name in PAPER_DATA}
    data = {paper: read for paper, read in data.items() if paper in needed}
    read = list(dict.fromkeys(data.values()))
    for name in (*own, *filter(None, models)):
        if name not in read:
            raise UserError(
                f"'{name}:...' concerns a data set that is not read here; the data sets read are {', '.join(read)}"
            )
    if len(read) > 1 and any(item.lstrip("+").startswith("data.root=") for item in common):
        raise UserError(
            f"data.root names one folder, but several data sets are read: {', '.join(read)}\n"
            f"write {read[0]}:data.root=FOLDER for each, or put them under one folder and set paths.data to it"
        )
    return Request(data, models, tuple(common), {name: tuple(items) for name, items in own.items()})


def compared(specs: Sequence[TableSpec]) -> Compared:
    """Collects the keys that the cells of some tables set; a cell that sets ``method`` also sets ``labels``.

    Raises:
        UserError: if an override of a cell is invalid, or sets what all columns share: data, task or fold.
    """
    found: dict[str, str] = {}
    for spec in specs:
        keys: list[str] = []
        for column, cell in (pair for block in spec.blocks for pair in block.cells.items()):
            with naming_column(spec.name, column):
                for item in cell:
                    keys.append(option_key(item))
                    if keys[-1].partition(".")[0] in _OF_ROWS:
                        raise UserError(
                            f"'{item}' cannot be set for one column, as all columns have the same data, tasks and "
                            "folds; leave it out, or set it on the command line"
                        )
        for key in (*keys, *(["labels"] if "method" in keys else [])):
            found.setdefault(key, spec.name)
    return Compared(found)


def option_key(text: str) -> str:
    """The dotted key that an override sets."""
    return dotted(parse_override(text).key_or_group)


def _refuse_twice(key: str, before: Sequence[str] | None) -> None:
    if before:
        raise UserError(f"{key} is given twice; name several in one list: {key}=A,B")


def _data_of(names: Sequence[str]) -> dict[str, str]:
    """The data set to read for each of the paper's data sets, from the given names."""
    known = config_options("data")
    nodes: dict[str, dict[str, Any]] = {}
    for name in names:
        if name not in known:
            raise UserError(f"data='{name}' does not exist; choose from {', '.join(known)}")
        nodes[name] = OmegaConf.to_container(OmegaConf.load(config_file("data", name)), resolve=False)  # type: ignore[assignment]
    kinds = {node.get("phantom") is not None for node in nodes.values()}
    if len(kinds) > 1:
        raise UserError(f"data={','.join(names)} mixes phantoms with real data; a table holds one or the other")
    found: dict[str, str] = {}
    for name, node in nodes.items():
        for paper, reads in (node.get("tables") or {"qubiq": name}).items():
            found.setdefault(paper, reads)
    return {name: found[name] for name in PAPER_DATA if name in found}


def _names_component(value: object) -> bool:
    """Whether a value is a mapping that chooses a component, at any depth."""
    return isinstance(value, dict) and ("_target_" in value or any(map(_names_component, value.values())))


def request_raters(spec: TableSpec, overrides: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The data set of a table of the raters' agreement, and the overrides to compose it with.

    Raises:
        UserError: if the request names a data set without several raters.
    """
    request = parse_request(overrides, ["qubiq"])
    if (data := request.data.get("qubiq")) is None:
        raise UserError(f"table {spec.name} needs a data set with several raters: data=qubiq, lidc or phantom")
    return data, request.overrides_of(data)
