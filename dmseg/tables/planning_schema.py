"""The schema of a table's plan in an export, and how its parts must agree."""

from collections.abc import Mapping
from typing import Any

from dmseg.files.schema import GROUP, TEXT, Misfit, flag, identity, list_of, mapping, name, nullable, record, whole
from dmseg.runs.records import SETTINGS, SPLIT, check_identity, check_settings
from dmseg.tables.columns import SCORES
from dmseg.tables.paper import TABLES
from dmseg.tables.spec import PAPER_DATA, TableSpec, one_of

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
        raise Misfit(f"it is of table {spec['name']!r:.60}, not of table {expected.name}")
    columns = [column["key"] for column in spec["columns"]]
    list_of(name, unique=True)(columns, "the columns")
    if spec["reference"] not in columns:
        raise Misfit(f"the reference {spec['reference']!r:.60} is no column")
    keys = [f"{row['data']}, {row['settings']['model']['name']}, {row['task']['name']}" for row in node["rows"]]
    list_of(TEXT, unique=True)(keys, "the rows")
    for row, key in zip(node["rows"], keys, strict=True):
        if not row["cells"] or not set(row["cells"]) <= set(columns):
            raise Misfit(f"row {key} has other cells than the columns {', '.join(columns)}")
        for method, runs in row["cells"].items():
            _check_cell(runs, row["task"], f"{key}, {method}")


def _check_cell(runs: list[Mapping[str, Any]], task: Mapping[str, Any], where: str) -> None:
    """Checks that the ids of a cell's runs match their identities, and that each case is in one run of each seed."""
    seen: dict[int, set[str]] = {}
    for run in runs:
        check_identity(run["identity"], run["run_id"], run["experiment_id"], run["split"])
        check_settings(run["identity"], run["settings"])
        if run["task"] != task or run["settings"]["task"] != task["name"]:
            raise Misfit(f"{where}: run {run['run_id']} is of another task")
        of_seed = seen.setdefault(run["settings"]["seed"], set())
        if twice := of_seed & set(run["split"]["validation"]):
            raise Misfit(f"{where}: case {min(twice)!r:.60} is validated by two runs")
        of_seed |= set(run["split"]["validation"])
