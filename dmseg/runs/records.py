"""The schema of a run's files and how they must agree with each other, for everything that reads runs.

`RunStore.damage` applies it, so a run that does not fit the schema counts as damaged even if its checksums are valid.
"""

import csv
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmseg.errors import shown
from dmseg.files.names import fault_of_name
from dmseg.files.regular import inside, read_regular
from dmseg.files.schema import (
    GROUP,
    LARGEST_JSON,
    Check,
    SchemaError,
    anything,
    check_json,
    flag,
    identity,
    list_of,
    mapping,
    matching,
    name,
    nullable,
    number,
    record,
    text,
    whole,
)
from dmseg.runs.digests import digest, experiment_identity, identifier

if TYPE_CHECKING:
    import pandas as pd

BASIC_SCORES = ("dice", "bdice", "ece")
"""The scores that every evaluation has, columns of ``cases.csv``."""
OPTIONAL_SCORES = ("ged", "nsd", "hd95", "lesion_f1")
"""Scores that an evaluation has only on request."""
RANGES = {
    **dict.fromkeys(("dice", "bdice", "ece", "precision", "recall"), (0.0, 1.0)),
    "ged": (0.0, 2.0),
    **dict.fromkeys(("nsd", "lesion_f1"), (0.0, 1.0)),
    "hd95": (0.0, 1e9),
    **dict.fromkeys(("n_slices", "n_raters", "n_pixels"), (1, 1e15)),
}
"""Ranges of the columns of ``cases.csv``. Other columns hold any finite number; counts (``n_*``) are at least 0."""
ROUNDING = 1e-6
"""Scores may exceed their range by this much."""
LARGEST_CSV = 256 * 2**20

SPLIT = record({"train": list_of(name, unique=True), "validation": list_of(name, unique=True, least=1)})
SETTINGS = record(
    {
        "data": record({"name": name, "phantom": nullable(GROUP)}),
        "task": name,
        "labels": record({"name": text(200)}),
        "model": record({"name": text(200)}),
        "fold": whole(),
        "seed": whole(),
    }
)
CONFIG = record({"identity": GROUP, "settings": SETTINGS})
MANIFEST = record(
    {
        "run_id": identity,
        "experiment_id": identity,
        "title": text(),
        "phantom": flag,
        "seconds": number(0, 1e12),
        "split": SPLIT,
    },
    {"imported": flag, "versions": GROUP, "machine": GROUP, "sessions": list_of(GROUP)},
)
EVALUATION = record({"id": identity, "settings": GROUP})
SCHEMAS: dict[str, Check] = {"config.json": CONFIG, "manifest.json": MANIFEST, "evaluation.json": EVALUATION}
"""Schemas by the name of a run's JSON file."""

_OWN = re.compile(r"[^/]+|predictions/[^/]+|evaluations/[0-9a-f]{16}/[^/]+")
_COLUMN = re.compile(r"[a-z][a-z0-9_]{0,60}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")


def _sealed_name(value: object, where: str) -> None:
    """Checks the path of a file, relative to the run's folder."""
    # predictions are named after cases, whose ids may use the full length of a name
    is_path = isinstance(value, str) and _OWN.fullmatch(value)
    if not is_path or any(fault_of_name(part.removesuffix(".npy")) for part in str(value).split("/")):
        raise SchemaError(f"{where} is {shown(value)}, which is not a file of a run")


SEAL = mapping(_sealed_name, matching(re.compile(r"[0-9a-f]{64}"), "a SHA-256"))
"""Schema of ``DONE``: checksums by file."""


class SmallFiles:
    """Reads each file of a run once, so that the content that is checked is the content with the right checksum."""

    def __init__(self) -> None:
        self._read: dict[tuple[Path, str], bytes] = {}

    def __call__(self, folder: Path, file: str) -> bytes:
        """Content of a file of a folder.

        Raises:
            OSError: if it is missing, a link, or too large.
        """
        if (folder, file) not in self._read:
            limit = LARGEST_JSON if file in SCHEMAS else LARGEST_CSV
            self._read[folder, file] = read_regular(inside(folder, file), limit)
        return self._read[folder, file]


def check_run(folder: Path, run_id: str, evaluations: Sequence[Path] = (), read: SmallFiles | None = None) -> None:
    """Checks the small files of a finished run, and that they agree with each other and with the run's id.

    Args:
        folder: the run's folder.
        run_id: id of the run.
        evaluations: folders of its later evaluations.
        read: reads the files; those that it has read are not read again.

    Raises:
        OSError: if a file is missing, a link, or too large.
        ValueError: if something does not fit; the message names the file.
    """
    read = read or SmallFiles()
    config, manifest = (checked_json(read(folder, file), file) for file in ("config.json", "manifest.json"))
    check_identity(config["identity"], run_id, manifest["experiment_id"], manifest["split"])
    if manifest["run_id"] != run_id:
        raise SchemaError(f"manifest.json: run_id is {manifest['run_id']}, but the run is {run_id}")
    check_settings(config["identity"], config["settings"])
    for place in (folder, *evaluations):
        evaluation = checked_json(read(place, "evaluation.json"), "evaluation.json")
        check_evaluation(evaluation, None if place == folder else place.name)
        rows = parse_cases(read(place, "cases.csv").decode("utf-8"), manifest["split"]["validation"])
        if os.path.lexists(place / "counts.npz"):  # runs of earlier versions have none
            from dmseg.runs.counts_file import check_counts  # imports numpy

            check_counts(read(place, "counts.npz"), [row["case"] for row in rows])
        if os.path.lexists(place / "pack.npz"):  # nor have runs with evaluate.pack=false, and most exports
            from dmseg.runs.pack_file import check_pack

            check_pack(read(place, "pack.npz"), {row["case"] for row in rows})


def checked_json(content: bytes, file: str) -> Any:  # noqa: ANN401
    """Parses one of a run's JSON files and checks it by its schema.

    Raises:
        ValueError: if it does not fit.
    """
    return check_json(content, file, SCHEMAS[file])


def check_identity(known: Mapping[str, Any], run_id: str, experiment_id: str, split: Mapping[str, Any]) -> None:
    """Checks that a run's ids are those of its identity, and that its cases are those of its split.

    Raises:
        ValueError: if they are not.
    """
    node = dict(known)
    if node.get("distill") is not None:
        GROUP(node["distill"], "identity.distill")
    if "raters" in node:
        GROUP(node["raters"], "identity.raters")
    if (found := identifier(node)) != run_id:
        raise SchemaError(f"the identity is that of run {found}, not of {run_id}")
    if (found := identifier(experiment_identity(node))) != experiment_id:
        raise SchemaError(f"the identity is of experiment {found}, not of {experiment_id}")
    if digest({key: list(split[key]) for key in ("train", "validation")}) != node.get("split"):
        raise SchemaError("the cases of the split are not those that the identity names")


def check_settings(known: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Checks that settings name the task, fold and seed of an identity.

    Raises:
        SchemaError: if they do not.
    """
    for key in ("task", "fold", "seed"):
        if key in known and known[key] != settings[key]:
            raise SchemaError(f"settings.{key} is {shown(settings[key])}, but {shown(known[key])} in the identity")


def check_evaluation(node: Mapping[str, Any], expected: str | None = None) -> None:
    """Checks that an evaluation's id is that of its settings, and the expected one if that is given.

    Raises:
        ValueError: if it is not.
    """
    if (found := identifier(dict(node["settings"]))) != node["id"] or node["id"] != (expected or node["id"]):
        raise SchemaError(f"evaluation.json: id is {node['id']}, but the settings are those of {found}")


def read_cases_file(folder: Path) -> str:
    """Reads the text of an evaluation's ``cases.csv``.

    Raises:
        OSError: if it is missing, a link, or too large.
        ValueError: if it is not UTF-8.
    """
    return read_regular(inside(folder, "cases.csv"), LARGEST_CSV).decode("utf-8")


def parse_cases(content: str, validation: Sequence[str] | None = None) -> list[dict[str, str]]:
    """Parses and checks the rows of a ``cases.csv``.

    Args:
        content: the file's text.
        validation: ids of the cases that it must contain, in any order; None if they are unknown.

    Returns:
        One mapping for each row, text by column; a score is a finite number in its range, or empty.

    Raises:
        SchemaError: if a column, a case or a score is invalid.
    """
    try:
        header, *lines = csv.reader(io.StringIO(content), strict=True)
    except (csv.Error, ValueError) as error:
        raise SchemaError(f"cases.csv is not a table ({error})") from None
    for index, column in enumerate(header):
        if not _COLUMN.fullmatch(column):
            raise SchemaError(f"cases.csv: column[{index}] is {shown(column)}, which is not the name of a score")
    list_of(anything, unique=True)(header, "cases.csv: column")
    if lacking := {"case", *BASIC_SCORES} - set(header):
        raise SchemaError(f"cases.csv has no column {', '.join(sorted(lacking))}")
    rows = []
    for line_number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            said = f"line {line_number} has {len(line)} values, but there are {len(header)} columns"
            raise SchemaError(f"cases.csv: {said}")
        row = dict(zip(header, line, strict=True))
        for column in header:
            if column == "case" or not row[column]:
                continue
            low, high = RANGES.get(column, (0.0 if column.startswith("n_") else -1e300, 1e300))
            value = float(row[column]) if _NUMBER.fullmatch(row[column]) else math.nan
            if not low - ROUNDING <= value <= high + ROUNDING:
                said = f"{column} of {shown(row['case'])} is {shown(row[column])}"
                raise SchemaError(f"cases.csv: {said}, but must be a number from {low:g} to {high:g}, or empty")
        rows.append(row)
    cases = [row["case"] for row in rows]
    list_of(name, unique=True)(cases, "cases.csv: case")
    if validation is not None and set(cases) != set(validation):
        odd = sorted(set(cases) ^ set(validation))[0]
        which = "is not one of the split's validation cases" if odd in cases else "of the split is missing"
        raise SchemaError(f"cases.csv: case {shown(odd)} {which}")
    return rows


def cases_frame(content: str) -> "pd.DataFrame":
    """The table of a ``cases.csv`` that was checked (`parse_cases`)."""
    import pandas as pd

    # "NA" is a valid case id
    return pd.read_csv(io.StringIO(content), dtype={"case": str}, keep_default_na=False, na_values=[""])


def mean_scores(cases: "pd.DataFrame") -> dict[str, float]:
    """Mean of each score over the cases that have a value; NaN if none has."""
    from dmseg.metrics.named import COUNT_METRICS  # imports numpy

    known = (*BASIC_SCORES, *OPTIONAL_SCORES, *COUNT_METRICS)
    return {name: float(cases[name].mean()) for name in known if name in cases}
