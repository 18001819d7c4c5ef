"""The order in which runs start, and further attempts for a run whose process died."""

import json
from dataclasses import replace
from itertools import groupby

import pytest

from dmseg.config.compose import compose_settings
from dmseg.launch.outcome import Outcome
from dmseg.launch.scheduler import by_urgency, schedule, work
from dmseg.runs.plan import plan_folds
from dmseg.runs.sources import prepare_task
from dmseg.runs.store import RunStore


@pytest.fixture
def runs(small_run):
    settings = compose_settings(small_run)
    return plan_folds(settings, prepare_task(settings))


class Mortal:
    """One run at a time; each attempt in `deaths` (run, attempt) dies, after a checkpoint at `steps` if any."""

    def __init__(self, deaths, steps=lambda attempt: None):
        self.deaths, self.steps, self.attempts, self.current = deaths, steps, [], []

    def room(self):
        return 1 - len(self.current)

    def begin(self, runs):
        self.current += runs
        self.attempts += [run.settings.fold for run in runs]

    def ended(self, seconds):
        run = self.current.pop()
        attempt = self.attempts.count(run.settings.fold)
        dead = (run.settings.fold, attempt) in self.deaths
        if dead and (steps := self.steps(attempt)):
            (RunStore(run.results).checkpoints(run.run_id) / f"{steps:09d}").mkdir(parents=True, exist_ok=True)
        return [Outcome(run, "failed", "it died", died=True) if dead else Outcome(run)]


def with_epochs(run, epochs):
    return replace(run, settings=replace(run.settings, train=replace(run.settings.train, epochs=epochs)))


def test_teachers_come_first_and_then_the_longest_runs(runs):
    short, long, middle, teacher, student = (with_epochs(run, n) for run, n in zip(runs, (1, 9, 5, 2, 3), strict=True))
    student = replace(student, teacher=teacher)
    assert by_urgency([short, long, middle, student, teacher]) == [teacher, long, middle, student, short]


def test_of_two_teachers_the_one_with_more_work_behind_it_comes_first(runs):
    first, second, short, long = (with_epochs(run, n) for run, n in zip(runs, (3, 2, 1, 9), strict=False))
    students = [replace(short, teacher=first), replace(long, teacher=second)]
    assert by_urgency([first, second, *students]) == [second, first, students[1], students[0]]


def test_runs_of_equal_work_keep_their_order(runs):
    same = [replace(run, train_slices=runs[0].train_slices) for run in runs]
    assert by_urgency(same) == same


def test_a_run_whose_process_died_is_tried_again_but_not_forever(runs):
    executor = Mortal({(0, 1), (1, 1), (1, 2), (1, 3)})
    kinds = {outcome.run.settings.fold: outcome.kind for outcome in schedule(runs, executor)}
    assert kinds == {0: "done", 1: "failed", 2: "done", 3: "done", 4: "done"}
    assert {fold: executor.attempts.count(fold) for fold in range(5)} == {0: 2, 1: 3, 2: 1, 3: 1, 4: 1}
    assert len(list(groupby(executor.attempts))) == 5, "a further attempt comes before the other runs"


def test_deaths_count_anew_after_a_new_checkpoint(runs):
    deaths = {(0, attempt) for attempt in range(1, 8)}
    executor = Mortal(deaths, steps=lambda attempt: 10 * attempt)
    assert [outcome.kind for outcome in schedule(runs[:1], executor)] == ["done"]
    assert len(executor.attempts) == 8


def test_a_checkpoint_that_no_attempt_gets_past_does_not_help(runs):
    executor = Mortal({(0, attempt) for attempt in range(1, 8)}, steps=lambda attempt: 10)
    assert [outcome.kind for outcome in schedule(runs[:1], executor)] == ["failed"]
    assert len(executor.attempts) == 3


def test_a_run_knows_the_slices_that_it_trains_on(runs):
    rows = json.loads((runs[0].prepared_folder / "manifest.json").read_text())["cases"]
    cases = {row["case"]: row["n_slices"] for row in rows}
    assert [run.train_slices for run in runs] == [sum(cases[case] for case in run.split.train) for run in runs]


def test_slices_and_network_and_teacher_make_the_work(runs):
    def changed(run, slices=160, encoder="resnet50", teacher=None, min_steps=0, **more):
        model = replace(run.settings.model, encoder=encoder)
        train = replace(run.settings.train, min_steps=min_steps, **more)
        settings = replace(run.settings, model=model, train=train)
        return replace(run, settings=settings, train_slices=slices, teacher=teacher)

    plain, settings = work(changed(runs[0])), runs[0].settings
    batches = 160 // settings.train.batch_size
    assert plain == settings.train.epochs * batches * settings.train.batch_size * settings.data.size**2
    assert work(changed(runs[0], slices=320)) == 2 * plain
    assert work(changed(runs[0], encoder="resnet18d")) == pytest.approx(0.54 * plain)
    assert work(changed(runs[0], encoder="of somebody else")) == plain
    assert work(changed(runs[0], encoder="resnet18", teacher=changed(runs[1]))) == pytest.approx((0.54 + 1 / 3) * plain)
    assert work(changed(runs[0], crop=0.5)) == plain / 4
    assert work(changed(runs[0], slices=1)) == plain / batches, "at least a batch"
    steps = settings.train.epochs * batches
    assert work(changed(runs[0], min_steps=3 * steps)) == 3 * plain
    assert work(changed(runs[0], min_steps=steps - 1)) == plain
