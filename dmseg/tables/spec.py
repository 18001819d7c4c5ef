"""What a table consists of, read from ``configs/table``."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf

from dmseg.errors import UserError
from dmseg.resources import resource


@dataclass(frozen=True)
class Column:
    """One method of a table.

    Attributes:
        key: its name in files.
        title: what is printed.
        overrides: what sets its configuration apart.
    """

    key: str
    title: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class TableSpec:
    """A table of the paper.

    Attributes:
        number: its number.
        title: what it shows.
        kind: ``agreement`` (of raters, nothing is trained) or ``comparison`` (of methods).
        metrics: scores that are shown, of the columns of ``cases.csv``.
        reference: key of the column that the others are tested against.
        columns: the methods.
    """

    number: int
    title: str
    kind: str
    metrics: tuple[str, ...] = ()
    reference: str = ""
    columns: tuple[Column, ...] = field(default=())

    @property
    def overrides(self) -> dict[str, tuple[str, ...]]:
        """Overrides of each column, by key."""
        return {column.key: column.overrides for column in self.columns}


def read_spec(number: str) -> TableSpec:
    """Reads the specification of a table.

    Raises:
        UserError: if there is no such table.
    """
    folder = resource("configs") / "table"
    path = folder / f"{number}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(item.stem for item in folder.glob("*.yaml")))
        raise UserError(f"there is no table '{number}'; choose from {known}")
    node: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(path))  # type: ignore[assignment]
    columns = tuple(
        Column(key, value["title"], tuple(value["overrides"])) for key, value in node.get("columns", {}).items()
    )
    return TableSpec(
        int(number),
        node["title"],
        node["kind"],
        tuple(node.get("metrics", ())),
        node.get("reference", ""),
        columns,
    )
