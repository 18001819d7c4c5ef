"""The plan of a table as text, and its schema, so that the table can be rendered from an export without the data."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dmseg.config.components import MissingPluginError
from dmseg.config.compose import restore_settings
from dmseg.data.case import Task
from dmseg.data.folds import Split
from dmseg.errors import UserError
from dmseg.files.schema import (
    GROUP,
    TEXT,
    SchemaError,
    flag,
    identity,
    list_of,
    mapping,
    name,
    nullable,
    read_json,
    record,
    whole,
)
from dmseg.runs.plan import PlannedRun
from dmseg.runs.records import SETTINGS, SPLIT, check_identity, check_settings
from dmseg.runs.shareable import shareable_settings
from dmseg.runs.transfer import refuse_links
from dmseg.tables.columns import SCORES
from dmseg.tables.paper import TABLES
from dmseg.tables.planning import PlannedRow, PlannedTable
from dmseg.tables.spec import PAPER_DATA, Block, Column, TableSpec, one_of

LARGEST_PLAN = 256 * 2**20
"""Largest size of a plan in bytes."""
BLOCK = record(
    {"data": one_of(*PAPER_DATA), "model": name, "metrics": list_of(one_of(*SCORES), unique=True, least=1),
     "pooled": flag, "cells": mapping(TEXT, list_of(TEXT))},
    others=None,
)  # fmt: skip
SPEC = record(
    {"name": name, "title": TEXT, "kind": TEXT, "reference": TEXT, "reference_is_ours": flag, "across": flag,
     "without_own_teacher": flag, "paper": nullable(whole(TABLES.start, TABLES.stop - 1)),
     "columns": list_of(record({"key": name, "title": TEXT, "shown": flag}, others=None), least=1),
     "blocks": list_of(BLOCK)},
    others=None,
)  # fmt: skip
TASK = record(
    {"name": name, "title": TEXT, "cohort": TEXT, "raters": list_of(TEXT, unique=True, least=1)},
    {"anonymous_raters": flag},
    others=None,
)
RUN = record(
    {"precision": TEXT, "identity": GROUP, "run_id": identity, "experiment_id": identity, "evaluation_id": identity,
     "settings": SETTINGS, "task": TASK, "split": SPLIT},
    others=None,
)  # fmt: skip
ROW = record(
    {"block": BLOCK, "paper_model": TEXT, "data": name, "stands_for": list_of(TEXT), "task": TASK, "settings": SETTINGS,
     "cells": mapping(TEXT, list_of(RUN, least=1))},
    others=None,
)  # fmt: skip
PLAN = record({"spec": SPEC, "rows": list_of(ROW, least=1)}, others=None)
"""The plan of a table, in plain containers."""
_RUN_FIELDS = ("precision", "identity", "run_id", "experiment_id", "evaluation_id")
"""Fields of a run that are written as they are."""


def plan_file(folder: Path, spec: TableSpec) -> Path:
    """Path of the plan of a table in an export."""
    return folder / "plans" / f"{spec.stem}.json"


def plan_to_text(plan: PlannedTable) -> str:
    """Writes a plan as JSON with a checksum. A teacher is represented by its id in the identity; paths are left out."""
    rows: list[dict[str, Any]] = []
    for row in plan.rows:
        cells = {
            method: [
                {field: getattr(run, field) for field in _RUN_FIELDS}
                | {"settings": shareable_settings(asdict(run.settings)), "task": asdict(run.task)}
                | {"split": asdict(run.split)}
                for run in runs
            ]
            for method, runs in row.runs.items()
        }
        own = {name: getattr(row, name) for name in ("paper_model", "data", "stands_for")}
        settings = shareable_settings(asdict(row.settings))
        rows.append({**own, "block": asdict(row.block), "task": asdict(row.task), "settings": settings, "cells": cells})
    node = {"spec": asdict(plan.spec), "rows": rows}
    return json.dumps({"sha256": _checksum(node), **node}, indent=1)


def plan_from_text(folder: Path, spec: TableSpec) -> PlannedTable:
    """Reads the plan of a table from an export; its runs refer to the export.

    Args:
        folder: folder of the export.
        spec: our specification of the table; the export contains its own under the same name.

    Raises:
        UserError: if the folder is not an export, does not contain this table, or is damaged.
    """
    path = plan_file(folder, spec)
    refuse_links(folder)
    if not path.parent.is_dir():
        why = "it is not an export (no folder 'plans')" if folder.is_dir() else "the folder does not exist"
        writes = f"'dmseg export-results tables={spec.name} to=FOLDER ...' writes an export"
        raise UserError(f"{folder} has no table {spec.name}: {why}; {writes}")
    try:
        node = read_json(path, limit=LARGEST_PLAN)
        known = node.pop("sha256", None)
        if _checksum(node) != known:
            raise SchemaError("its checksum differs")
        check_plan(node, spec)
        columns = tuple(Column(**item) for item in node["spec"].pop("columns"))
        blocks = tuple(_block(item) for item in node["spec"].pop("blocks"))
        own = TableSpec(columns=columns, blocks=blocks, **node["spec"])
        rows = []
        for row in node["rows"]:
            cells = {
                method: [
                    PlannedRun(
                        settings=restore_settings(run["settings"], folder),
                        task=_task(run["task"]),
                        prepared_folder=folder / "prepared",  # not part of an export
                        split=Split(tuple(run["split"]["train"]), tuple(run["split"]["validation"])),
                        **{field: run[field] for field in _RUN_FIELDS},
                    )
                    for run in runs
                ]
                for method, runs in row["cells"].items()
            }
            block, task, settings = _block(row["block"]), _task(row["task"]), restore_settings(row["settings"], folder)
            stands_for = tuple(row["stands_for"])
            rows.append(PlannedRow(block, row["paper_model"], row["data"], stands_for, task, settings, cells))
        return PlannedTable(own, tuple(rows))
    except FileNotFoundError:
        stems = sorted(item.stem.removeprefix("table") for item in path.parent.glob("table*.json"))
        names = [stem.removeprefix("-") for stem in stems]
        raise UserError(f"{folder} has no table {spec.name}; it has: {', '.join(names) or 'none'}") from None
    except MissingPluginError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UserError(f"{path} is damaged ({why.splitlines()[0]}); export again") from None


def check_plan(node: Mapping[str, Any], expected: TableSpec) -> None:
    """Checks the plan of a table.

    Args:
        node: the plan in plain containers.
        expected: our specification of the table.

    Raises:
        ValueError: if the plan is for another table, a value is invalid, an id does not match its identity, or a cell
            contains a case twice under one seed.
    """
    PLAN(node, "the plan")
    spec = node["spec"]
    if spec["name"] != expected.name or spec["kind"] != expected.kind:
        raise SchemaError(f"it is table {spec['name']!r:.60}, not table {expected.name}")
    columns = [column["key"] for column in spec["columns"]]
    list_of(name, unique=True)(columns, "the columns")
    if spec["reference"] not in columns:
        raise SchemaError(f"the reference {spec['reference']!r:.60} is not a column")
    keys = [f"{row['data']}, {row['settings']['model']['name']}, {row['task']['name']}" for row in node["rows"]]
    list_of(TEXT, unique=True)(keys, "the rows")
    for row, key in zip(node["rows"], keys, strict=True):
        if not row["cells"] or not set(row["cells"]) <= set(columns):
            raise SchemaError(f"row {key} has cells other than the columns {', '.join(columns)}")
        for method, runs in row["cells"].items():
            seen: dict[int, set[str]] = {}  # validated cases by seed
            for run in runs:
                check_identity(run["identity"], run["run_id"], run["experiment_id"], run["split"])
                check_settings(run["identity"], run["settings"])
                if run["task"] != row["task"] or run["settings"]["task"] != row["task"]["name"]:
                    raise SchemaError(f"{key}, {method}: run {run['run_id']} belongs to another task")
                of_seed = seen.setdefault(run["settings"]["seed"], set())
                if twice := of_seed & set(run["split"]["validation"]):
                    raise SchemaError(f"{key}, {method}: case {min(twice)!r:.60} is validated by two runs")
                of_seed |= set(run["split"]["validation"])


def _checksum(node: dict[str, Any]) -> str:
    """SHA-256 of a plan without its own checksum."""
    return hashlib.sha256(json.dumps(node, sort_keys=True).encode()).hexdigest()


def _block(node: dict[str, Any]) -> Block:
    cells = {column: tuple(overrides) for column, overrides in node.pop("cells").items()}
    return Block(metrics=tuple(node.pop("metrics")), cells=cells, **node)


def _task(node: dict[str, Any]) -> Task:
    return Task(**{**node, "raters": tuple(node["raters"])})
