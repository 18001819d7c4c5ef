"""From what a user asks to the runs of tables."""

import dataclasses
import os
import shlex
import subprocess
import sys

import pytest
from conftest import store_run

from dmseg.cli.main import main
from dmseg.errors import UserError
from dmseg.files.atomic import write_whole
from dmseg.runs.lease import lease
from dmseg.runs.plan import distinct, evaluation_passes
from dmseg.runs.status import run_status, summarise
from dmseg.runs.store import RunStore
from dmseg.tables.numbers import table_rows
from dmseg.tables.planning import TablePlanner
from dmseg.tables.request import parse_request
from dmseg.tables.spec import Block, Column, TableSpec, read_spec, table_numbers


@pytest.mark.parametrize(
    ("overrides", "data"),
    [
        ([], {"qubiq": "qubiq", "lits": "lits", "kits": "kits"}),
        (["data=lidc"], {"qubiq": "lidc"}),
        (["data=phantom"], {"qubiq": "phantom", "lits": "phantom_lits", "kits": "phantom_kits"}),
        (["data=lidc,decathlon"], {"qubiq": "lidc", "lits": "decathlon", "kits": "decathlon"}),
        (["data=lits"], {"lits": "lits"}),
        (["data=phantom_kits"], {"kits": "phantom_kits"}),
    ],
)
def test_which_data_set_stands_for_which(overrides, data):
    assert parse_request(overrides).data == data


def test_overrides_of_one_data_set():
    request = parse_request(["seed=2", "qubiq:data.root=/a", "kits:data.size=64", "qubiq:fold=1"])
    assert request.overrides_of("qubiq") == ("data=qubiq", "seed=2", "data.root=/a", "fold=1")
    assert request.overrides_of("kits") == ("data=kits", "seed=2", "data.size=64")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data=nope"], "data='nope' does not exist; choose from"),
        (["data=phantom,lidc"], "mixes phantoms with real data"),
        (["data=lidc", "kits:data.size=64"], "'kits:...' concerns a data set that is not read"),
        (["data.root=/somewhere"], "data.root names one folder, but several data sets are read: qubiq, lits, kits"),
    ],
)
def test_wrong_requests_are_named(overrides, words):
    with pytest.raises(UserError, match=words):
        parse_request(overrides)


def test_only_what_the_tables_are_about_is_read():
    request = parse_request(["data.root=/somewhere"], ["qubiq"])
    assert request.overrides_of(request.data["qubiq"]) == ("data=qubiq", "data.root=/somewhere")
    assert parse_request(["data=phantom"], ["kits"]).data == {"kits": "phantom_kits"}


def test_rows_of_a_table_about_other_data(small_run):
    spec = TableSpec("7", "none", "comparison", blocks=(Block("lits", "unet_tiny", ("dice",), True, {"hard": ()}),))
    with pytest.raises(UserError, match="has no row in table 7, which is about LiTS"):
        TablePlanner(small_run, [spec]).plan()[0]


def test_several_networks_and_a_pooled_row(small_run):
    spec = dataclasses.replace(
        read_spec("2"),
        blocks=(Block("qubiq", "unet_resnet50", ("dice",), True, {"majority": ("labels=majority",)}),),
        columns=(Column("majority", "Majority"),),
    )
    overrides = [item for item in small_run if not item.startswith("model=")]
    planned = TablePlanner([*overrides, "model=unet_tiny,unet_mobilenetv2", "model.weights=null"], [spec]).plan()[0]
    assert [row.model for row in planned.rows] == ["unet_tiny", "unet_mobilenetv2"]
    assert [line.title for line in table_rows(planned)] == [f"{planned.rows[0].task.title} (for QUBIQ)"] * 2
    assert len(planned.runs) == 10
    one = TablePlanner([*small_run, "fold=3"], [spec]).plan()[0]
    assert [run.settings.fold for run in one.runs] == [3]


def test_no_block_of_a_table_is_left_out(small_run):
    (block,) = read_spec("2").blocks
    other = dataclasses.replace(block, model="unet_resnet18", metrics=("nll",))
    spec = dataclasses.replace(read_spec("2"), blocks=(block, other))
    with pytest.raises(UserError, match=r"two blocks of .*2.yaml are about qubiq with unet_tiny, and one .* left out"):
        TablePlanner(small_run, [spec]).plan()
    alike = dataclasses.replace(block, model="unet_resnet18")
    spec = dataclasses.replace(spec, blocks=(block, alike))
    assert len(TablePlanner(small_run, [spec]).plan()[0].rows) == 1


def test_the_papers_study_has_as_many_runs_as_the_paper(tmp_path):
    """Counted from the paper's tables: facts about distinct work, runs that tables share counted once."""
    numbers = [number for number in table_numbers() if number > 1]
    small = ["data=phantom", "data.size=16", "profile.phantom_scale=0.2", *paths(tmp_path)]
    plans = {int(plan.spec.name): plan for plan in TablePlanner(small, [read_spec(n) for n in numbers]).plan()}
    more = {}
    seen: set[str] = set()
    for number, plan in plans.items():
        experiments = {run.experiment_id for run in plan.runs}
        more[number] = len(experiments - seen)
        seen |= experiments
    expected = {2: 35, 3: 28, 4: 28, 5: 9, 6: 20, 7: 2, 8: 10}
    assert more == {number: expected[number] for number in numbers}
    runs = distinct(run for plan in plans.values() for run in plan.runs)
    assert len(runs) == 5 * sum(more.values())
    position = {run.run_id: index for index, run in enumerate(runs)}
    students = [run for run in runs if run.teacher is not None]
    assert students
    assert all(position[run.teacher.run_id] < position[run.run_id] for run in students)
    # Table 8's 0 is Table 7's DML and Table 6's DML1; Table 8's 1e-3 is Table 7's KDE and Table 4's KD of UNet-ResNet18
    ids = {(number, row.block.data, row.model, column): [run.run_id for run in runs] for number, plan in plans.items()
           for row in plan.rows for column, runs in row.runs.items()}  # fmt: skip
    for data in ("lits", "kits"):
        key = (data, "unet_resnet18")
        assert ids[8, *key, "0"] == ids[7, *key, "dml"] == ids[6, *key, "dml1"]
        assert ids[8, *key, "1e-3"] == ids[7, *key, "kde"] == ids[4, *key, "kd"]
    assert (4, "lits", "unet_resnet50", "kd") not in ids
    teachers = {run.teacher.run_id for run in students}
    assert teachers == {name for data in ("lits", "kits") for name in ids[4, data, "unet_resnet50", "hard"]}


def paths(tmp_path):
    return [f"paths.{name}='{tmp_path / name}'" for name in ("data", "prepared", "results")]


def test_options_of_methods_reach_the_cells_that_have_them(small_run):
    more = ["method.anonymous_raters=position", "method.passes=3", "method.adam.lr=0.5"]
    row = TablePlanner([*small_run, "fold=0", *more], [read_spec(3)]).plan()[0].rows[0]
    options = {column: runs[0].settings.method.options for column, runs in row.runs.items()}
    assert {column for column, items in options.items() if items.get("anonymous_raters")} == {"multi_head", "mrnet"}
    assert options["multi_head"]["anonymous_raters"] == options["mrnet"]["anonymous_raters"] == "position"
    assert options["mc_dropout"]["passes"] == 3
    assert options["mrnet"]["adam"]["lr"] == options["softseg"]["adam"]["lr"] == 0.5
    assert row.runs["ours"][0].settings.labels.name == "weighted"
    own = TablePlanner([*small_run, "fold=0", "method=mc_dropout", "method.passes=3"], [read_spec(2)]).plan()[0].rows[0]
    assert {runs[0].settings.method.options["passes"] for runs in own.runs.values()} == {3}
    with pytest.raises(UserError, match=r"unknown key 'method.passes'"):
        TablePlanner([*small_run, "method.passes=3"], [read_spec(2)]).plan()
    with pytest.raises(UserError, match=r"'method.passses=3' sets a key that no cell of table 3 has"):
        TablePlanner([*small_run, "method.passses=3"], [read_spec(3)]).plan()


def test_options_of_the_kernel_estimate_reach_the_cells_that_have_one(tmp_path):
    more = ["distill.kde.balanced=false", "distill.temperature=2", "fold=0"]
    small = ["data=phantom_lits", "data.size=16", "profile.phantom_scale=0.2", *paths(tmp_path)]
    row = TablePlanner([*small, *more], [read_spec(7)]).plan()[0].rows[0]
    settings = {column: runs[0].settings.distill for column, runs in row.runs.items()}
    assert settings["hard"] is settings["ce"].kde is settings["dml"].kde is None
    assert not settings["kde"].kde.balanced
    assert {settings[column].temperature for column in ("ce", "dml", "kde")} == {2}


def test_teachers_come_first_and_once(small_run):
    runs = TablePlanner(small_run, [read_spec("2")]).plan()[0].runs
    teacher, students = runs[0], [dataclasses.replace(run, teacher=runs[0]) for run in runs[1:3]]
    assert distinct(students) == [teacher, *students]
    grandchild = dataclasses.replace(runs[3], teacher=students[1])
    assert distinct([grandchild, *students]) == [teacher, students[1], grandchild, students[0]]


def test_runs_that_tables_score_differently_come_again_after_all_others(small_run):
    runs = TablePlanner(small_run, [read_spec("2")]).plan()[0].runs
    again = [dataclasses.replace(run, evaluation_id="other") for run in runs[:2]]
    assert evaluation_passes([*runs, *again, *runs, *again]) == [runs, again]
    assert evaluation_passes([]) == []


def test_metrics_of_masks_need_another_evaluation_but_no_other_run(small_run):
    spec = read_spec("2")
    asked = dataclasses.replace(
        spec, blocks=tuple(dataclasses.replace(block, metrics=("dice", "nsd")) for block in spec.blocks)
    )
    with pytest.raises(UserError, match="names nsd, which is in mm, but the spacing of 12 of 12 cases is unknown"):
        TablePlanner(small_run, [asked]).plan()
    stated = [*small_run, "evaluate.spacing=[1,1]"]
    plain, more = (TablePlanner(stated, [item]).plan()[0].runs for item in (spec, asked))
    assert [run.run_id for run in plain] == [run.run_id for run in more]
    assert not {run.evaluation_id for run in plain} & {run.evaluation_id for run in more}
    assert {tuple(run.settings.evaluate.metrics) for run in more} == {("nsd",)}


def test_status_and_estimate(small_run):
    runs = TablePlanner(small_run, [read_spec("2")]).plan()[0].runs
    store = RunStore(runs[0].results)
    assert summarise(runs).hours is None
    scores = {"dice": 1.0, "bdice": 1.0, "ece": 0.0}
    store_run(runs[0], [{"case": case, **scores} for case in runs[0].split.validation], seconds=360.0)
    write_whole(store.log(runs[1].run_id), "trouble")
    with lease(store.lease_file(runs[2].run_id)):
        assert [run_status(run) for run in runs[:4]] == ["done", "failed", "running", "missing"]
        found = summarise([*runs, *runs])
    assert (found.experiments, found.runs) == (5, 25)
    assert found.counts == {"done": 1, "failed": 1, "running": 1, "missing": 22}
    assert found.hours == pytest.approx(24 * 0.1)


def plan_elsewhere(folder, *words):
    """``dmseg plan`` in a process of its own, with an empty home; its output's words, line by line."""
    code = (
        "import sys; from dmseg.cli.main import main; assert main(['plan', *sys.argv[1:]]) == 0\n"
        "assert 'torch' not in sys.modules, 'torch is imported'"
    )
    home = folder / "home"
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")} | {"HOME": str(home)}
    command = [sys.executable, "-B", "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=kept)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_planning_imports_no_torch_and_writes_nothing(small_run, tmp_path):
    assert main(["prepare", *small_run]) == 0
    (tmp_path / "home").mkdir()
    before = tree(tmp_path)
    rows = plan_elsewhere(tmp_path, "tables=2", *small_run)
    assert rows[1] == ["2", "5", "25", "0", "0", "0", "0", "25", "no", "estimate"]
    assert len(rows) == 2
    assert tree(tmp_path) == before


@pytest.mark.parametrize("words", [["data=phantom"], ["data=qubiq,lits,kits"]])
def test_the_papers_study_is_counted_without_data(tmp_path, words):
    rows = plan_elsewhere(tmp_path, "tables=all", *words)
    counts = {row[0]: row[1:4] for row in rows[1:8]}
    experiments = {"2": 35, "3": 35, "4": 28, "5": 18, "6": 38, "7": 10, "8": 18}
    assert counts == {table: [str(n), str(5 * n), "unknown"] for table, n in experiments.items()}
    assert rows[8][4:7] == ["132", "660", "unknown"]
    assert [row[0][:-1] for row in rows[9:]] == list(parse_request(words).data.values())
    assert [row[-3:] for row in rows[9:]] == [["dmseg", "prepare", f"data={row[0][:-1]}"] for row in rows[9:]]
    assert list(tmp_path.rglob("*")) == [tmp_path / "home"]


def test_what_is_not_prepared_is_counted_beside_what_is(tmp_path, capsys):
    """The command that the note names is one that can be typed."""
    words = ["data.size=16", "profile.phantom_scale=0.2", "data.phantom.cases=10", *paths(tmp_path / "with space")]
    assert main(["prepare", "data=phantom_lits", *words]) == 0
    capsys.readouterr()
    words = ["table=7", "data=phantom_lits,phantom_kits", *words]
    assert main(["plan", *words]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1][:11] == ["7", "10", "50", "0", "+", "25", "unknown", "0", "0", "0", "25"]
    note = " ".join(rows[2])
    assert note.startswith("phantom_kits: not fully prepared")
    assert len(rows) == 3
    assert main(shlex.split(note.partition("run: dmseg ")[2])) == 0
    capsys.readouterr()
    assert main(["plan", *words]) == 0
    assert "unknown" not in capsys.readouterr().out


def tree(folder):
    return {path: path.is_file() and (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*")}


def test_a_wrong_phantom_is_named_before_anything_is_prepared(tmp_path, capfd):
    words = ["data=phantom", "profile=demo", "phantom_kits:data.phantom.cases=0", f"paths.data={tmp_path}"]
    assert main(["reproduce", "tables=2,4", *words, f"paths.prepared={tmp_path}", f"paths.results={tmp_path}"]) == 2
    assert "number of cases (data.phantom.cases) is 0" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
