"""From a table to its runs: which data sets, networks and methods, and the experiments behind each cell."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from dmseg.data.case import Task
from dmseg.errors import UserError
from dmseg.experiments.plan import PlannedRun, distinct, plan_folds
from dmseg.experiments.sources import Notify, TaskData, prepare_tasks
from dmseg.experiments.variants import Base, group_file
from dmseg.resources import resource
from dmseg.settings import Settings
from dmseg.tables.spec import Block, TableSpec

PAPER_DATA = {"qubiq": "QUBIQ", "lits": "LiTS", "kits": "KiTS"}
"""The paper's data sets, as tables print them."""

OpenTasks = Callable[[Settings, Notify], Iterable[TaskData]]

_OF_ONE = re.compile(r"^(\w+):(.+)$")


@dataclass(frozen=True)
class PlannedRow:
    """The experiments of one task with one network.

    Attributes:
        block: what it shows; the paper's data set and network.
        paper_model: the paper's network whose numbers stand beside; empty for none.
        data: name of the data set that is read.
        stands_for: titles of the paper's data sets that it is read for.
        task: the task.
        settings: settings of its first cell.
        cells: the folds' runs of each column that has a cell here.
    """

    block: Block
    paper_model: str
    data: str
    stands_for: tuple[str, ...]
    task: Task
    settings: Settings
    cells: Mapping[str, Sequence[PlannedRun]]

    @property
    def model(self) -> str:
        """Name of the network."""
        return self.settings.model.name

    @property
    def key(self) -> tuple[str, str, str]:
        """Names the row: data set, network and task."""
        return self.data, self.model, self.task.name


@dataclass(frozen=True)
class PlannedTable:
    """A table with the runs behind each of its cells.

    Attributes:
        spec: what it shows.
        rows: its rows, in order.
    """

    spec: TableSpec
    rows: tuple[PlannedRow, ...]

    @property
    def settings(self) -> Settings:
        """Settings of the first cell, for titles and paths."""
        return self.rows[0].settings

    @property
    def runs(self) -> list[PlannedRun]:
        """All runs, each once, teachers first."""
        return distinct(run for row in self.rows for runs in row.cells.values() for run in runs)

    @property
    def unprepared(self) -> list[str]:
        """Data sets of which tasks are not prepared; only `find_tasks` leaves such."""
        rows = [row for row in self.rows for runs in row.cells.values() if not all(run.prepared for run in runs)]
        return list(dict.fromkeys(row.data for row in rows))

    @property
    def phantom(self) -> bool:
        """Whether the data are generated."""
        return self.settings.data.phantom is not None


@dataclass(frozen=True)
class Request:
    """What a user asks of tables, taken apart.

    Attributes:
        data: the data set that is read for each of the paper's.
        models: networks in place of the specification's; empty for those.
        overrides: of every data set.
        distill: options of distillation, which only the cells that are distilled have.
        method: options of methods, each for the cells whose method has it.
        own: of one data set, by its name.
    """

    data: Mapping[str, str]
    models: tuple[str, ...]
    overrides: tuple[str, ...]
    distill: tuple[str, ...]
    method: tuple[str, ...]
    own: Mapping[str, tuple[str, ...]]

    def overrides_of(self, data: str) -> tuple[str, ...]:
        """All overrides of one data set."""
        return (f"data={data}", *self.overrides, *self.own.get(data, ()))


class TablePlanner:
    """Plans tables of the same data and settings; what they share is prepared, composed and planned once.

    Args:
        overrides: the user's. Beside Hydra's grammar, ``data=`` and ``model=`` may list several names, and
            ``NAME:key=value`` holds for one data set only. ``task=`` limits the rows, ``fold=`` the folds.
        specs: the tables that are to be planned.
        notify: told what is being prepared.
        open_tasks: gives the tasks of a data set; `prepare_tasks` prepares them where they are not, `find_tasks` leaves
            everything as it is.

    Raises:
        UserError: if an override is wrong.
    """

    def __init__(
        self,
        overrides: Sequence[str],
        specs: Sequence[TableSpec],
        notify: Notify = lambda text: None,
        open_tasks: OpenTasks = prepare_tasks,
    ) -> None:
        self._request = parse_request(overrides, [block.data for spec in specs for block in spec.blocks])
        _check_method_options(self._request.method, specs)
        self._specs = specs
        self._one_fold = any(item.startswith("fold=") for item in overrides)
        self._notify = notify
        self._open_tasks = open_tasks
        self._bases: dict[str, Base] = {}
        self._tasks: dict[str, list[TaskData]] = {}
        self._experiments: dict[tuple[str, str, tuple[str, ...]], list[PlannedRun]] = {}

    def plan(self) -> list[PlannedTable]:
        """Plans the tables.

        Raises:
            UserError: if an override does not fit, or data are missing or damaged.
        """
        return [self._table(spec) for spec in self._specs]

    def _table(self, spec: TableSpec) -> PlannedTable:
        blocks = [block for block in spec.blocks if block.data in self._request.data]
        chosen = {(block.data, model): (block, model) for block in blocks for model in self._models(block)}
        several = len({model for _, model in chosen}) > 1
        rows: dict[tuple[str, str, str], PlannedRow] = {}
        for block, model in chosen.values():
            for prepared in self._prepared(self._request.data[block.data]):
                row = self._row(spec, block, model, prepared, without_own=spec.without_own_teacher and several)
                rows.setdefault(row.key, row)
        if not rows:
            needs = " and ".join(dict.fromkeys(PAPER_DATA[block.data] for block in spec.blocks))
            raise UserError(f"the data set that you name gives no row of table {spec.name}, which is about {needs}")
        return PlannedTable(spec, tuple(rows.values()))

    def _models(self, block: Block) -> tuple[str, ...]:
        """Networks in a block's rows: the user's, or the one that the profile takes for the paper's, or that one."""
        if self._request.models:
            return self._request.models
        stand_ins = self._base(self._request.data[block.data]).plain["profile"].get("models") or {}
        model = stand_ins.get(block.model, block.model)
        return () if model is None else (model,)

    def _base(self, data: str) -> Base:
        if data not in self._bases:
            self._bases[data] = Base(self._request.overrides_of(data))
        return self._bases[data]

    def _prepared(self, data: str) -> list[TaskData]:
        """The tasks of a data set: all, or the one that is asked for."""
        if data not in self._tasks:
            self._tasks[data] = list(self._open_tasks(self._base(data).settings(), self._notify))
        return self._tasks[data]

    def _row(self, spec: TableSpec, block: Block, model: str, prepared: TaskData, without_own: bool) -> PlannedRow:
        data = self._request.data[block.data]
        cells = {}
        for column, overrides in block.cells.items():
            runs = self._experiment(data, prepared, (f"model={model}", *overrides))
            if not (without_own and _is_own_teacher(runs[0])):
                cells[column] = runs
        settings = next(iter(cells.values()))[0].settings
        return PlannedRow(
            block,
            self._paper_model(spec, block, model),
            data,
            tuple(PAPER_DATA[paper] for paper, read in self._request.data.items() if read == data),
            prepared.task,
            settings,
            cells,
        )

    def _experiment(self, data: str, prepared: TaskData, variant: tuple[str, ...]) -> list[PlannedRun]:
        key = data, prepared.task.name, variant
        if key not in self._experiments:
            settings = self._base(data).settings((*variant, *self._more(variant, prepared)))
            folds = [settings.fold] if self._one_fold else None
            self._experiments[key] = plan_folds(settings, prepared, folds)
        return self._experiments[key]

    def _more(self, variant: tuple[str, ...], prepared: TaskData) -> tuple[str, ...]:
        """What a cell calls for: options of distillation or of its method, and the task, which its labels may need."""
        groups = dict(item.partition("=")[::2] for item in variant)
        distill = self._request.distill if "distill" in groups else ()
        if groups.get("distill.kde") == "null":
            distill = tuple(item for item in distill if not item.startswith("distill.kde."))
        if "method" not in groups:
            return distill
        own = (item for item in self._request.method if _option(item) in _method_options(groups["method"]))
        return (*distill, *own, f"task={prepared.task.name}")

    def _paper_model(self, spec: TableSpec, block: Block, model: str) -> str:
        """The paper's network that a row may be set beside."""
        known = {item.model for item in spec.blocks if item.data == block.data}
        if model in known:
            return model
        return "" if self._request.models and len(known) > 1 else block.model


def _option(override: str) -> str:
    """The option of a method that an override sets: lr is within adam in method.adam.lr=1e-3."""
    return override.partition("=")[0].split(".")[1]


def _method_options(name: str) -> set[str]:
    """Names of a method's options."""
    return {str(key) for key in group_file("method", name) or ()}


def _check_method_options(overrides: Sequence[str], specs: Sequence[TableSpec]) -> None:
    """Refuses an option that no method of the tables has."""
    cells = (cell for spec in specs for block in spec.blocks for cell in block.cells.values())
    named = {item.removeprefix("method=") for cell in cells for item in cell if item.startswith("method=")}
    known = set().union(*map(_method_options, named))
    for item in overrides:
        if _option(item) not in known:
            raise UserError(f"'{item}' sets an option that no method of the tables has")


def _is_own_teacher(run: PlannedRun) -> bool:
    return run.teacher is not None and run.teacher.settings.model.name == run.settings.model.name


def parse_request(overrides: Sequence[str], needed: Collection[str] = tuple(PAPER_DATA)) -> Request:
    """Takes apart what concerns tables as a whole.

    Args:
        overrides: the user's.
        needed: the paper's data sets that the tables are about.

    Raises:
        UserError: if a data set is unknown, an override concerns a data set that is not read, phantoms and real data
            would be mixed, or one root is given for several data sets.
    """
    chosen = [item.removeprefix("data=").split(",") for item in overrides if item.startswith("data=")]
    models = [item.removeprefix("model=").split(",") for item in overrides if item.startswith("model=")]
    data = _data_of([name.strip() for name in chosen[-1]]) if chosen else {name: name for name in PAPER_DATA}
    data = {paper: read for paper, read in data.items() if paper in needed}
    common: list[str] = []
    of_cells: dict[str, list[str]] = {"distill": [], "method": []}
    if any(item.startswith("method=") for item in overrides):
        of_cells.pop("method")  # one method for all cells
    own: dict[str, tuple[str, ...]] = {}
    for item in overrides:
        if found := _OF_ONE.match(item):
            own[found[1]] = (*own.get(found[1], ()), found[2])
        elif not item.startswith(("data=", "model=")):
            group, dot, _ = item.partition("=")[0].partition(".")
            (of_cells.get(group, common) if dot else common).append(item)
    read = list(dict.fromkeys(data.values()))
    for name in own:
        if name not in read:
            raise UserError(f"'{name}:...' concerns a data set that is not read here; these are: {', '.join(read)}")
    if len(read) > 1 and any(item.startswith("data.root=") for item in common):
        raise UserError(
            f"data.root names one folder, but several data sets are read: {', '.join(read)}\n"
            f"write {read[0]}:data.root=FOLDER for each, or put them under one folder and set paths.data to it"
        )
    distill, method = (tuple(of_cells.get(group, ())) for group in ("distill", "method"))
    return Request(data, tuple(models[-1]) if models else (), tuple(common), distill, method, own)


def _data_of(names: Sequence[str]) -> dict[str, str]:
    """The data set that is read for each of the paper's, from the names that a user gives."""
    nodes = {name: _data_file(name) for name in names}
    kinds = {node.get("phantom") is not None for node in nodes.values()}
    if len(kinds) > 1:
        raise UserError(f"data={','.join(names)} mixes phantoms with real data; a table holds one or the other")
    found: dict[str, str] = {}
    for name, node in nodes.items():
        for paper, reads in (node.get("tables") or {"qubiq": name}).items():
            found.setdefault(paper, reads)
    return {name: found[name] for name in PAPER_DATA if name in found}


def _data_file(name: str) -> Mapping[str, Any]:
    folder = resource("configs") / "data"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(item.stem for item in folder.glob("*.yaml")))
        raise UserError(f"data='{name}' does not exist; choose from {known}")
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)  # type: ignore[return-value]
