"""From a table to its runs: data sets, networks and methods of the rows, and the experiments of each cell."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dmseg.config.config_dir import config_file
from dmseg.config.settings import Settings
from dmseg.config.variants import Base
from dmseg.data.case import Task
from dmseg.errors import UserError
from dmseg.files.names import folder_of_all
from dmseg.metrics.named import requested
from dmseg.runs.plan import PlannedRun, distinct, plan_folds, plan_run
from dmseg.runs.sources import Notify, TaskData, check_phantom, prepare_tasks
from dmseg.tables.request import Compared, compared, option_key, parse_request
from dmseg.tables.spec import PAPER_DATA, Block, TableSpec, naming_column

OpenTasks = Callable[[Settings, Notify], Iterable[TaskData]]


@dataclass(frozen=True)
class PlannedRow:
    """The experiments of one task with one network.

    Attributes:
        block: its block, with the paper's data set and network.
        paper_model: the paper's network to compare with; empty for none.
        data: name of the data set that is read.
        stands_for: titles of the paper's data sets that this data set takes the place of.
        task: the task.
        settings: settings of its first cell.
        runs: runs of all folds under all seeds for each column that has a cell in this row, seed by seed.
    """

    block: Block
    paper_model: str
    data: str
    stands_for: tuple[str, ...]
    task: Task
    settings: Settings
    runs: Mapping[str, Sequence[PlannedRun]]

    @property
    def model(self) -> str:
        """Name of the network."""
        return self.settings.model.name

    @property
    def is_papers(self) -> bool:
        """Whether its data are the paper's, or a phantom of them."""
        return self.data == self.block.data or self.settings.data.phantom is not None

    @property
    def key(self) -> tuple[str, str, str]:
        """Identifies the row: data set, network and task."""
        return self.data, self.model, self.task.name


@dataclass(frozen=True)
class PlannedTable:
    """A table with the runs behind each of its cells.

    Attributes:
        spec: its specification.
        rows: its rows, in order.
    """

    spec: TableSpec
    rows: tuple[PlannedRow, ...]

    def with_metrics(self, metrics: Sequence[str]) -> "PlannedTable":
        """The same runs with other scores shown."""
        spec = self.spec.with_metrics(metrics)
        rows = (replace(row, block=replace(row.block, metrics=tuple(metrics))) for row in self.rows)
        return PlannedTable(spec, tuple(rows))

    @property
    def settings(self) -> Settings:
        """Settings of the first cell, for titles and paths."""
        return self.rows[0].settings

    @property
    def seeds(self) -> list[int]:
        """The seeds of its runs, in order."""
        return sorted({run.settings.seed for row in self.rows for runs in row.runs.values() for run in runs})

    @property
    def runs(self) -> list[PlannedRun]:
        """All runs, each once, teachers first; all runs of the first seed before those of the next."""
        runs = [run for row in self.rows for runs in row.runs.values() for run in runs]
        return distinct(sorted(runs, key=lambda run: run.settings.seed))

    @property
    def unprepared(self) -> list[str]:
        """Data sets with tasks that are not prepared; there are none after `prepare_tasks`."""
        rows = [row for row in self.rows for runs in row.runs.values() if not all(run.is_prepared for run in runs)]
        return list(dict.fromkeys(row.data for row in rows))

    @property
    def phantom(self) -> bool:
        """Whether the data are generated."""
        return self.settings.data.phantom is not None

    @property
    def results(self) -> Path:
        """The results folder of its runs, or the folder that contains all of theirs."""
        return folder_of_all([row.settings.paths.results for row in self.rows])


class TablePlanner:
    """Plans tables of the same data and settings; what they share is prepared, composed and planned once.

    Args:
        overrides: the user's overrides. In addition to Hydra's grammar, ``data=`` and ``model=`` accept several names,
            and ``NAME:key=value`` applies to one data set only. ``task=`` limits the rows, ``fold=`` the folds. Keys
            set by cells are refused; other keys of a config group chosen by cells apply to the cells that have them.
        specs: the tables to plan.
        notify: called with a message for each prepared task.
        open_tasks: gives the tasks of a data set: `prepare_tasks` prepares them, `find_tasks` only looks them up.
        seeds: seeds that each cell is trained with; empty for the one that the overrides set.

    Raises:
        UserError: if an override is invalid.
    """

    def __init__(
        self,
        overrides: Sequence[str],
        specs: Sequence[TableSpec],
        notify: Notify = lambda text: None,
        open_tasks: OpenTasks = prepare_tasks,
        seeds: Sequence[int] = (),
    ) -> None:
        request = parse_request(overrides, [block.data for spec in specs for block in spec.blocks])
        self._compared = compared(specs)
        for item in (*request.overrides, *(item for items in request.own.values() for item in items)):
            self._compared.check(item)
        if seeds and (table := self._compared.keys.get("seed")):
            raise UserError(f"seeds= sets seed, which the cells of table {table} set themselves; leave it out")
        own = {name: _without_options(items, self._compared) for name, items in request.own.items()}
        self._given = request
        self._request = replace(request, overrides=_without_options(request.overrides, self._compared), own=own)
        self._specs = specs
        self._notify = notify
        self._open_tasks = open_tasks
        self._seeds = tuple(seeds)
        self._bases: dict[str, Base] = {}
        self._tasks: dict[str, list[TaskData]] = {}
        self._changed: dict[tuple[str, tuple[str, ...]], Base] = {}
        self._words: dict[str, tuple[str, ...]] = {}
        self._experiments: dict[tuple[str, str, tuple[str, ...], tuple[str, ...]], list[PlannedRun]] = {}

    def plan(self) -> list[PlannedTable]:
        """Plans the tables.

        Raises:
            UserError: if an override does not fit, sets a key that no cell has, or data are missing or damaged.
        """
        for data in self._request.data.values():  # before anything is prepared
            check_phantom(self._base(data).settings().data)
        cells = {
            (self._request.data[block.data], (f"model={model}", *cell)): (spec.name, column)
            for spec in self._specs
            for block in spec.blocks
            if block.data in self._request.data
            for model in self._models(block)
            for column, cell in block.cells.items()
        }
        taken: set[str] = set()
        for (data, cell), (name, column) in cells.items():
            base = self._base(data)
            base.settings(cell[:1])  # the network, which is not set by the column
            with naming_column(name, column):
                base.settings(cell)
            options = _accepted(base, cell, self._options(data))
            base.settings((*cell, *options))
            taken.update(options)
        names = ", ".join(spec.name for spec in self._specs)
        for data in self._request.data.values():
            for item in self._options(data):
                if item not in taken:
                    raise UserError(f"'{item}' sets a key that no cell of table {names} has")
        tables = []
        for spec in self._specs:
            blocks = [block for block in spec.blocks if block.data in self._request.data]
            chosen: dict[tuple[str, str], tuple[Block, str]] = {}
            pairs = [(block, model) for block in blocks for model in self._models(block)]
            for block, model in pairs:
                other, _ = chosen.get((block.data, model), (block, model))
                if replace(other, model=block.model) != block:
                    raise UserError(
                        f"two blocks of {config_file('table', spec.name)} are about {block.data} with {model}, and one "
                        "of them would be left out; list all metrics in one block, or write two tables"
                    )
                chosen[block.data, model] = block, model
            several = len({model for _, model in pairs}) > 1
            rows: dict[tuple[str, str, str], PlannedRow] = {}
            for block, model in chosen.values():
                data = self._request.data[block.data]
                if data not in self._tasks:
                    self._tasks[data] = list(self._open_tasks(self._base(data).settings(), self._notify))
                for prepared in self._tasks[data]:
                    row = self._row(spec, block, model, prepared, without_own=spec.without_own_teacher and several)
                    rows.setdefault(row.key, row)
            if not rows:
                needs = " and ".join(dict.fromkeys(PAPER_DATA[block.data] for block in spec.blocks))
                raise UserError(f"the given data set has no row in table {spec.name}, which is about {needs}")
            tables.append(PlannedTable(spec, tuple(rows.values())))
        return tables

    def composed(
        self, row: PlannedRow, column: str, changes: Sequence[str] = (), extra: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The configuration of a planned cell, resolved to plain containers.

        Args:
            row: a planned row.
            column: key of a column with a cell in it.
            changes: overrides of keys that every cell has, which win over the user's.
            extra: overrides of keys that the cell has; the user's win over them.

        Raises:
            UserError: if an override does not fit.
        """
        key = row.data, tuple(changes)
        if key not in self._changed:
            self._changed[key] = self._base(row.data).changed(changes)
        return self._changed[key].composed((*self._words[row.runs[column][0].experiment_id], *extra))

    def _options(self, data: str) -> list[str]:
        """Overrides of a data set that apply only to some cells."""
        return [item.lstrip("+") for item in self._given.overrides_of(data) if self._compared.is_option(item)]

    def _models(self, block: Block) -> tuple[str, ...]:
        """Networks of a block's rows: the user's, else the profile's replacement, else the paper's network."""
        data = self._request.data[block.data]
        if named := self._request.models_of(data):
            return named
        stand_ins = self._base(data).plain["profile"].get("models") or {}
        model = stand_ins.get(block.model, block.model)
        return () if model is None else (model,)

    def _base(self, data: str) -> Base:
        if data not in self._bases:
            self._bases[data] = Base(self._request.overrides_of(data))
        return self._bases[data]

    def _row(self, spec: TableSpec, block: Block, model: str, prepared: TaskData, without_own: bool) -> PlannedRow:
        """Plans the row of a task; refuses overrides that make two of its columns the same experiment."""
        data = self._request.data[block.data]
        cells = {}
        for column, overrides in block.cells.items():
            runs = self._experiment(data, prepared, (f"model={model}", *overrides), block.metrics)
            teacher = runs[0].teacher
            is_own = teacher is not None and teacher.settings.model.name == runs[0].settings.model.name
            if not (without_own and is_own):
                cells[column] = runs
        seen: dict[str, str] = {}
        for column, runs in cells.items():
            other = seen.setdefault(runs[0].experiment_id, column)
            if other != column:
                pair = [(f"model={model}", *block.cells[name]) for name in (other, column)]
                culprits = self._reasons(data, prepared, pair, runs[0].settings.fold)
                if not culprits:
                    raise UserError(
                        f"the columns {other} and {column} of {config_file('table', spec.name)} train the same runs, "
                        "so there is nothing to compare; change the overrides of one, or remove it"
                    )
                raise UserError(
                    f"{' '.join(culprits)} makes the columns {other} and {column} of table {spec.name} the same "
                    "experiment, so there is nothing to compare; leave it out"
                )
        settings = next(iter(cells.values()))[0].settings
        known = {item.model for item in spec.blocks if item.data == block.data}
        stands_for_any = len(known) > 1 and self._request.models_of(data)  # the user's network is none of them
        paper_model = model if model in known else "" if stands_for_any else block.model
        return PlannedRow(
            block,
            paper_model,
            data,
            tuple(PAPER_DATA[paper] for paper, read in self._request.data.items() if read == data),
            prepared.task,
            settings,
            cells,
        )

    def _experiment(
        self, data: str, prepared: TaskData, variant: tuple[str, ...], metrics: tuple[str, ...]
    ) -> list[PlannedRun]:
        """The runs of a cell, with an evaluation that computes `metrics`, those of its row."""
        asked, ged = requested(metrics), "ged" in metrics
        key = data, prepared.task.name, variant, (*asked, *(["ged"] if ged else []))
        if key not in self._experiments:
            base = self._base(data)
            given = self._request.overrides_of(data)
            depends = any(option_key(item) == "method" for item in (*variant, *given))
            task = (f"task={prepared.task.name}",) if depends else ()  # the labels of a method may depend on it
            options = _accepted(base, (*variant, *task), self._options(data))
            settings = base.settings((*variant, *options, *task))
            named = list(dict.fromkeys((*settings.evaluate.metrics, *asked)))
            evaluate = replace(settings.evaluate, metrics=named, ged=settings.evaluate.ged or ged)
            settings = replace(settings, evaluate=evaluate)
            one_fold = any(option_key(item) == "fold" for item in given)
            folds = [settings.fold] if one_fold else None
            runs = [
                run
                for seed in self._seeds or (settings.seed,)
                for run in plan_folds(replace(settings, seed=seed), prepared, folds)
            ]
            self._experiments[key] = runs
            self._words |= dict.fromkeys((run.experiment_id for run in runs), (*variant, *options))
        return self._experiments[key]

    def _reasons(self, data: str, prepared: TaskData, pair: Sequence[tuple[str, ...]], fold: int) -> list[str]:
        """The overrides without which two cells would differ: single ones, else all; none if the cells are the same."""
        given = self._given.overrides_of(data)[1:]

        def differ(kept: Sequence[str]) -> bool | None:
            try:
                base = Base((f"data={data}", *_without_options(kept, self._compared)))
                options = [item.lstrip("+") for item in kept if self._compared.is_option(item)]
                cells = [base.settings((*cell, *_accepted(base, cell, options))) for cell in pair]
                ids = {plan_run(replace(settings, fold=fold), prepared).experiment_id for settings in cells}
            except UserError:
                return None
            return len(ids) > 1

        found = []
        for dropped in given:
            key = option_key(dropped)
            if differ([item for item in given if item != dropped and not option_key(item).startswith(f"{key}.")]):
                found.append(f"'{dropped}'")
        if not found and differ([]) is not False:  # they differ without any, or that cannot be known
            found = [f"'{item}'" for item in given if not option_key(item).startswith("paths.")]
        return found


def _accepted(base: Base, variant: tuple[str, ...], options: Sequence[str]) -> list[str]:
    """The options whose key a cell has; an option may add the key of a later one."""
    taken: list[str] = []
    for item in options:
        if base.has(option_key(item), (*variant, *taken)):
            taken.append(item)
    return taken


def _without_options(items: Sequence[str], fixed: Compared) -> tuple[str, ...]:
    return tuple(item for item in items if not fixed.is_option(item))
