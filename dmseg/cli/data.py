"""The actions of ``dmseg data``: show which data sets are on disk, and verify prepared stores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dmseg.cli import output
from dmseg.config.components import bind, resolve
from dmseg.config.compose import compose_settings
from dmseg.config.config_dir import config_file, config_options
from dmseg.config.resources import resource
from dmseg.config.settings import DataSettings
from dmseg.data.case import About, Adapter
from dmseg.data.contract import cases_of, tasks_of
from dmseg.data.integrity import describe_store, find_stores, verify_store
from dmseg.errors import UserError, first_line
from dmseg.text import printable

SHOWN = 3
"""How many lines about missing files are printed for a data set."""
DATA_SETS = ("qubiq", "lits", "kits", "lidc", "decathlon")


@dataclass(frozen=True)
class Status:
    """The part of a data set that is on disk.

    Attributes:
        name: the data set.
        root: its folder.
        about: number of cases, licence and source.
        cases: number of complete cases.
        missing: a line for each missing file, or for the reason why no case is found.
    """

    name: str
    root: str
    about: About
    cases: int
    missing: tuple[str, ...]


def print_status(argv: Sequence[str]) -> int:
    """Prints the status of all data sets, those of ``--config-dir`` included, or of the one that ``data=`` names."""
    named = [word.removeprefix("data=") for word in argv if word.startswith("data=")]
    overrides = [word for word in argv if not word.startswith("data=")]
    if not named:
        shipped = resource("configs") / "data"
        own = [name for name in config_options("data") if config_file("data", name).parent != shipped]
        named = [*DATA_SETS, *own]
    for name in named:
        found = status(compose_settings([f"data={name}", *overrides]).data)
        expected = "" if found.about.cases is None else f" of {found.about.cases}"
        print(f"{found.name}: {found.cases}{expected} cases in {found.root}")
        for line in found.missing[:SHOWN]:
            print(printable(f"  {line}"))
        if len(found.missing) > SHOWN:
            print(f"  ... and {len(found.missing) - SHOWN} more")
        print(f"  licence: {found.about.licence}; source: {found.about.source}")
    return 0


def verify_stores(argv: Sequence[str]) -> int:
    """Verifies the stores below ``paths.prepared``, or those of a data set or task; returns 1 if one is damaged."""
    named = any(word.startswith("data=") for word in argv)
    settings = compose_settings([*argv] if named else [f"data={DATA_SETS[0]}", *argv])
    parent = Path(settings.paths.prepared)
    stores = list(find_stores(parent, settings.data.name if named else None, settings.task_name))
    if not stores:
        raise UserError(f"{parent} has no such prepared store; set paths.prepared=FOLDER to the folder of the stores")
    n_damaged = 0
    for store in stores:
        faults = verify_store(store)
        n_damaged += bool(faults)
        for line in faults:
            output.print_fault(line)
        if not faults:
            print(printable(f"{store} is {describe_store(store)}"))
    print(f"{len(stores) - n_damaged} of {len(stores)} stores are intact")
    return 1 if n_damaged else 0


def status(data: DataSettings) -> Status:
    """Looks for the files of a data set. No image is read and no phantom is generated."""
    about: About = resolve(data.target, "data").about  # type: ignore[attr-defined]
    try:
        adapter: Adapter = bind(data.target, data.options, where="data")(data.root)
        tasks = tasks_of(adapter)
    except UserError as error:
        return Status(data.name, data.root, about, 0, (first_line(error),))
    complete: set[tuple[str, str]] = set()
    missing: dict[str, None] = {}
    for task in tasks.values():
        try:
            listed = cases_of(adapter, task)
        except UserError as error:
            missing[first_line(error)] = None
            continue
        for case in listed:
            absent = [path for path in case.files if not path.is_file()]
            missing |= dict.fromkeys(f"{path} is missing" for path in absent)
            if not absent:
                complete.add((task.cohort, case.case))
    return Status(data.name, data.root, about, len(complete), tuple(missing))
