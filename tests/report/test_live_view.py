"""The live view of many runs: rows and widths, what is read from files, and the terminal afterwards."""

import io
import math
import shutil
from dataclasses import replace

import pytest
from conftest import store_run
from rich.console import Console

from dmseg.activity import activity, showing
from dmseg.launch import Outcome
from dmseg.report import live_view
from dmseg.report.live_view import LiveView, details, duration, row, short_names, speed, squeezed
from dmseg.runs import stopping
from dmseg.runs.lease import lease
from dmseg.runs.progress_file import RunState, progress_path, reporting
from dmseg.runs.store import RunStore
from dmseg.training.observers import EpochReport, RunInfo

TRAINING = RunState("title", "training", 3, 12, 30, 120, 0.25, 2.0)


def planned_runs(plan, tmp_path, count):
    run = plan.runs[0]
    paths = replace(run.settings.paths, results=str(tmp_path / "results"))
    run = replace(run, settings=replace(run.settings, paths=paths))
    return [
        replace(run, run_id=f"{number:016x}", settings=replace(run.settings, fold=number % 5, seed=number // 5))
        for number in range(count)
    ]


def console(width=80, height=24, terminal=True, **more):
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, height=height, color_system=None, **more)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def write(run, **values):
    """A progress file as a worker writes it."""
    writer = live_view_writer(run)
    writer._state = replace(TRAINING, title=run.title, **values)
    writer.write()


def live_view_writer(run):
    from dmseg.runs.progress_file import ProgressWriter

    return ProgressWriter(progress_path(run.results, run.run_id), run.title)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(("count", "running", "height"), [(3, 1, 24), (200, 2, 24), (200, 64, 20), (40, 40, 8)])
def test_no_line_is_wider_and_no_picture_higher_than_the_terminal(plan, tmp_path, width, count, running, height):
    runs = planned_runs(plan, tmp_path, count)
    view = LiveView(console(width, height), runs)
    for run in runs[:running]:
        write(run)
    view.look()
    lines = [line.plain for line in view.lines(width, height)]
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert sum(line.startswith("running") for line in lines) == min(running, height - 4)
    assert f"{running} running" in lines[-1]
    assert running == count or f"{count - running} queued" in lines[-1]
    queued = sum(line.startswith("queued") for line in lines)
    assert queued == min(count - running, 5, height - 4 - min(running, height - 4))
    if (hidden := count - running - queued) and queued:
        assert f"... and {hidden} more queued" in lines
    assert (f"... and {running - height + 4} more running" in lines) == (running > height - 4)
    assert all("epoch  3/12" in line for line in lines if line.startswith("running"))


def test_of_very_many_runs_some_are_read_at_a_time_in_turns(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(live_view, "MOST_READ", 2)
    runs, clock, read = planned_runs(plan, tmp_path, 5), Clock(), []
    view = LiveView(console(), runs, clock)
    for run in runs:
        write(run)
    actual = live_view.read_progress
    monkeypatch.setattr(live_view, "read_progress", lambda path: read.append(path.stem) or actual(path))
    for clock.now in (1.0, 2.0, 3.0):
        view.look()
    assert len(read) == 6
    assert set(read) == {run.run_id for run in runs}


def test_each_run_is_one_line_without_a_terminal(plan, tmp_path):
    runs = planned_runs(plan, tmp_path, 6)
    for shown in (console(terminal=False), console(_environ={"TERM": "dumb"})):
        view = LiveView(shown, runs)
        with view.shown():
            write(runs[0])
            for run in runs[:4]:
                view.ended(Outcome(run))
            view.ended(Outcome(runs[4], "failed", "ValueError: oh"))
        lines = shown.file.getvalue().splitlines()
        assert len(lines) == 1 + 4, "what all share, and a line for each; the caller prints errors"
        assert "\x1b" not in shown.file.getvalue()
        assert lines[0].startswith("all of ")
        assert [line.split()[0] for line in lines[1:]] == ["done"] * 4
        assert "majority" in lines[0]
        assert "majority" not in lines[1]


def test_the_lines_that_stay_have_dice_and_time_and_no_line_break(plan, tmp_path):
    """A pipe of 40 columns gets whole lines; a single run has no line about what all runs share."""
    (run, *_) = planned_runs(plan, tmp_path, 1)
    for dice, said in ((0.5, "dice 50.00 %"), (math.nan, "dice undefined")):
        shutil.rmtree(tmp_path / "results", ignore_errors=True)
        store_run(run, [{"case": "a", "dice": dice, "bdice": 0.4, "ece": 0.1, "n_slices": 1, "n_raters": 1}], 75)
        shown = console(40, terminal=False)
        with LiveView(shown, [run]).shown() as view:
            view.ended(Outcome(run))
        (line,) = shown.file.getvalue().splitlines()
        assert line.startswith("done     ")
        assert line.endswith(f"seed 0 fold 0  {said}    1:15")


def test_the_picture_is_drawn_from_the_files_and_removed(plan, tmp_path):
    shown, runs = console(), planned_runs(plan, tmp_path, 3)
    with showing(lambda *given: pytest.fail("it would spoil the picture")), LiveView(shown, runs).shown():
        write(runs[0])
        with activity("reading", 3):
            pass
    text = shown.file.getvalue()
    assert text.rfind("\x1b[2K") > text.rfind("running  fold 0") > 0, "its last lines are erased"


def test_who_waits_for_states_to_be_saved_is_told(plan, tmp_path, monkeypatch):
    view = LiveView(console(), planned_runs(plan, tmp_path, 2))
    monkeypatch.setattr(stopping._state, "asked", True)
    assert list(view.lines(80, 24))[-1].plain.startswith("2 queued: saving states before stopping; press Ctrl-C again")


def test_the_terminal_is_as_it_was_after_an_interruption(plan, tmp_path):
    shown = console()
    with pytest.raises(KeyboardInterrupt), LiveView(shown, planned_runs(plan, tmp_path, 3)).shown():
        raise KeyboardInterrupt
    text = shown.file.getvalue()
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0, "the cursor is shown again"


def test_counts_of_ended_runs_stay_in_the_summary(plan, tmp_path):
    runs = planned_runs(plan, tmp_path, 5)
    view = LiveView(console(), runs)
    for run, kind in zip(runs, ("done", "failed", "blocked", "misused"), strict=False):
        view.ended(Outcome(run, kind, None if kind == "done" else "why"))
    assert list(view.lines(80, 24))[-1].plain == "1 queued, 1 done, 2 failed, 1 waits"


def test_time_left_is_measured(plan, tmp_path):
    """Two at once with 45 s each to go (90 of 120 steps at 2/s); four more of 60 s: (90 + 240) / 2."""
    runs, clock = planned_runs(plan, tmp_path, 6), Clock()
    view = LiveView(console(), runs, clock)
    assert math.isnan(view.seconds_left())
    write(runs[0])
    write(runs[1])
    view.look()
    assert view.seconds_left() == pytest.approx(165)
    write(runs[0], step=120)
    clock.now = 1.0
    view.look()
    assert view.seconds_left() == pytest.approx((45 + 240) / 2)


def test_time_left_is_that_of_the_slowest_run_and_of_runs_that_have_ended(plan, tmp_path):
    runs, clock = planned_runs(plan, tmp_path, 3), Clock()
    view = LiveView(console(), runs, clock)
    write(runs[0], speed=1.0)
    write(runs[1], step=110)
    view.look()
    clock.now = 100.0  # longer than the 60 s of run 1's speed: it had to wait
    view.ended(Outcome(runs[2], "failed", "why"))
    assert view.seconds_left() == 90, "run 0 alone; no sum by two"
    view.ended(Outcome(runs[0]))
    progress_path(runs[1].results, runs[1].run_id).unlink()
    view.look()
    assert view.seconds_left() == 100, "what run 0 took, for run 1 once more"


def test_files_of_dead_processes_are_removed_and_those_of_others_are_read(plan, tmp_path):
    runs = planned_runs(plan, tmp_path, 3)
    write(runs[0])
    write(runs[1])
    store = RunStore(runs[0].results)
    with lease(store.lease_file(runs[1].run_id)), LiveView(console(), runs).shown() as view:
        view.look()
        assert [line.plain.split()[0] for line in view.lines(80, 24)][:3] == ["running", "queued", "queued"]
    assert not progress_path(runs[0].results, runs[0].run_id).exists()


def test_a_run_that_leaves_its_file_is_not_running(plan, tmp_path):
    runs = planned_runs(plan, tmp_path, 2)
    view = LiveView(console(), runs)
    with reporting(runs[0].results, runs[0].run_id, runs[0].title):
        view.look()
        assert next(view.lines(80, 24)).plain.startswith("running")
    view.look()
    assert next(view.lines(80, 24)).plain.startswith("queued")


def test_names_are_what_differs(plan, tmp_path):
    runs = planned_runs(plan, tmp_path, 10)
    names = short_names(runs)
    assert list(names.values())[:2] == ["seed 0 fold 0", "seed 0 fold 1"]
    assert list(short_names(runs[:1]).values()) == [
        live_view.printable(f"{runs[0].settings.data.name} {runs[0].task.name} majority "
                            f"{runs[0].settings.model.name} ce_dml1 seed 0 fold 0")
    ]  # fmt: skip
    settings = runs[0].settings
    method = replace(settings.method, target="a.method", name="mine", unused=["labels", "loss"])
    other = replace(runs[0], run_id="e" * 16, settings=replace(settings, method=method))
    assert short_names([runs[0], other])[other.run_id] == "mine fold 0"
    twins = [runs[0], replace(runs[0], run_id="f" * 16)]
    assert list(short_names(twins).values()) == ["fold 0 000000", "fold 0 ffffff"]


def test_a_name_cannot_steer_the_terminal(plan, tmp_path):
    run = planned_runs(plan, tmp_path, 1)[0]
    settings = replace(run.settings, labels=replace(run.settings.labels, name="\x1b[31m[bold]\n"))
    view = LiveView(console(200), [replace(run, settings=settings)])
    line = next(view.lines(200, 24)).plain
    assert "\\x1b[31m[bold]\\n" in line


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (80, "running  a name of some length             epoch 3/12  loss 0.2500  2.0 it/s  0:45"),
        (66, "running  a name of some length  epoch 3/12  loss 0.2500  0:45"),
        (54, "running  a name of some length  epoch 3/12  0:45"),
        (30, "running  a n..ngth  epoch 3/12"),
    ],
)
def test_details_give_way_to_the_name(width, expected):
    shown = ["epoch 3/12", "loss 0.2500", "2.0 it/s", "0:45"]
    text = row(width, "running", "a name of some length", shown, 32).plain
    assert text.split() == expected.split()
    assert len(text) <= width


def test_forms():
    assert [duration(item) for item in (0, 42.4, 723, 11220, 183600)] == ["0:00", "0:42", "12:03", "3:07:00", "2 d 3 h"]
    assert [speed(item) for item in (8.12, 1, 0.5)] == ["8.1 it/s", "1.0 it/s", "2.0 s/it"]
    assert squeezed("abcdefghij", 8) == "ab..ghij"
    assert details(RunState("", "scoring", done=4, total=20)) == ["scoring 4/20"]
    assert details(RunState("")) == ["starting"]


def test_the_writer_counts_steps_and_writes_at_most_once_a_second(plan, tmp_path, monkeypatch):
    from dmseg.runs import progress_file

    clock, path, written = Clock(), progress_path(tmp_path, "a" * 16), []
    monkeypatch.setattr(progress_file.ProgressWriter, "write", counting(progress_file.ProgressWriter.write, written))
    writer = progress_file.ProgressWriter(path, "title", clock)
    writer.started(RunInfo("a" * 16, "b" * 16, "title", {}, epochs=4, steps_per_epoch=10))
    for step in range(1, 31):
        clock.now += 0.25
        writer.stepped(step)
        if step % 10 == 0:
            writer.epoch_ended(EpochReport(step // 10, step, {"loss": 1 / step}, 0.01))
    assert len(written) == 1 + 7, "the start, and 7.5 s"
    clock.now += 1
    writer.stepped(31)
    state = progress_file.read_progress(path)
    assert (state.epoch, state.epochs, state.step, state.steps, state.loss) == (3, 4, 31, 40, 1 / 30)
    assert state.speed == pytest.approx(30 / (29 * 0.25 + 1))
    assert state.seconds_left == pytest.approx(9 / state.speed)


def counting(function, calls):
    def counted(*arguments):
        calls.append(1)
        function(*arguments)

    return counted


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"title": "x"}', "x" * 5000, '{"epoch": NaN}', "[" * 3000],
)
def test_other_files_tell_nothing(content, tmp_path):
    from dmseg.runs.progress_file import read_progress

    path = tmp_path / "file.json"
    assert read_progress(path) is None
    path.write_text(content)
    assert read_progress(path) is None
    path.unlink()
    path.mkdir()
    assert read_progress(path) is None


def test_a_place_that_cannot_be_written_to_does_not_stop_a_run(tmp_path):
    (tmp_path / "progress").write_text("a file where the folder belongs")
    with reporting(tmp_path, "a" * 16, "title") as writer:
        writer.stepped(1)
    assert (tmp_path / "progress").read_text() == "a file where the folder belongs"
