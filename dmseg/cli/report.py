"""The commands ``report`` and ``figures``, which present finished runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dmseg.cli.commands import notify, set_up_logging
from dmseg.cli.tables import exported_plans, plan_all, split_tables
from dmseg.cli.words import take_inference, take_seeds
from dmseg.errors import UserError
from dmseg.tables.open_choices import explain_tables
from dmseg.tables.planning import PlannedTable

if TYPE_CHECKING:
    from dmseg.report.html import Report
    from dmseg.tables.inference import Inference


def report(argv: Sequence[str]) -> int:
    """Writes the HTML report of tables from finished runs, or from an export (``from=FOLDER``)."""
    from dmseg.report.html import write_report

    for content, results in _reports(argv):
        print(write_report(content, results / "reports"))
    return 0


def figures(argv: Sequence[str]) -> int:
    """Draws the figures of tables from finished runs, or from an export (``from=FOLDER``)."""
    from dmseg.report.gather import gather_rows
    from dmseg.report.table_figures import write_agreement_figure, write_table_figures

    nothing = []
    for content, results in _reports(argv):
        spec, phantom = content.content.spec, content.content.phantom
        if content.planned is None:
            values = content.agreement or {}
            files = write_agreement_figure(spec.stem, values, results / "figures", phantom, "Dice with majority (%)")
        else:
            rows = list(gather_rows(content.planned, content.cases))
            files = write_table_figures(spec.stem, rows, results / "figures", phantom)
        for path in files:
            print(path)
        nothing += [] if files else [spec.name]
    if nothing:
        raise UserError(f"table {', '.join(nothing)} has no finished runs, so there is nothing to draw")
    return 0


def _reports(argv: Sequence[str]) -> "list[tuple[Report, Path]]":
    """The content of each table's report, and its results folder."""
    from dmseg.report.html import Report

    set_up_logging()
    inference, argv = take_inference(argv)
    seeds, argv = take_seeds(argv)
    specs, overrides = split_tables(argv)
    if (exported := exported_plans(argv, specs, overrides, seeds)) is not None:
        folder, found_plans = exported
        return [(_comparison(planned, inference, None), folder) for planned in found_plans]
    plans = plan_all(specs, overrides, seeds=seeds)
    found = []
    for spec in specs:
        if spec.kind == "agreement":
            from dmseg.tables.agreement import agreement_by_case, agreement_content

            content, stores, settings = agreement_content(spec, overrides, notify)
            disjoint = settings.agreement.disjoint
            cases = {item.task.title: 100 * agreement_by_case(item, disjoint) for item in stores}
            choices = explain_tables(overrides, [spec])[0]
            found.append((Report(content, None, content.cells.iloc[:0], choices, cases), Path(settings.paths.results)))
        else:
            found.append((_comparison(plans[spec.name], inference, overrides), plans[spec.name].results))
    return found


def _comparison(planned: PlannedTable, inference: "Inference", overrides: Sequence[str] | None) -> "Report":
    from dmseg.report.html import Report
    from dmseg.tables.collected import collect_cases
    from dmseg.tables.numbers import comparison_content

    cases = collect_cases(planned)
    choices = None if overrides is None else explain_tables(overrides, [planned.spec])[0]
    return Report(comparison_content(planned, cases, inference), planned, cases, choices)
