"""The order in which runs start, and further attempts for a run whose process died."""

from dataclasses import replace

import pytest

from dmseg.config.compose import compose_settings
from dmseg.launch.outcome import Outcome
from dmseg.launch.scheduler import by_urgency, schedule
from dmseg.runs.plan import plan_folds
from dmseg.runs.sources import prepare_task


@pytest.fixture
def runs(small_run):
    settings = compose_settings(small_run)
    return plan_folds(settings, prepare_task(settings.data, settings.paths, settings.task))


class Mortal:
    """One run at a time; each attempt in `deaths` (run, attempt) dies."""

    def __init__(self, deaths):
        self.deaths, self.attempts, self.current = deaths, [], []

    def room(self):
        return 1 - len(self.current)

    def begin(self, runs):
        self.current += runs
        self.attempts += [run.settings.fold for run in runs]

    def ended(self, seconds):
        run = self.current.pop()
        dead = (run.settings.fold, self.attempts.count(run.settings.fold)) in self.deaths
        return [Outcome(run, "failed", "it died", died=True) if dead else Outcome(run)]


def with_epochs(run, epochs):
    return replace(run, settings=replace(run.settings, train=replace(run.settings.train, epochs=epochs)))


def test_teachers_come_first_and_then_the_longest_runs(runs):
    short, long, middle, teacher, student = (with_epochs(run, n) for run, n in zip(runs, (1, 9, 5, 2, 3), strict=True))
    student = replace(student, teacher=teacher)
    assert by_urgency([short, long, middle, student, teacher]) == [teacher, long, middle, student, short]


def test_runs_of_equal_work_keep_their_order(runs):
    same = [replace(run, split=runs[0].split) for run in runs]
    assert by_urgency(same) == same


def test_a_run_whose_process_died_is_tried_again_but_not_forever(runs):
    executor = Mortal({(0, 1), (1, 1), (1, 2), (1, 3)})
    kinds = {outcome.run.settings.fold: outcome.kind for outcome in schedule(runs, executor)}
    assert kinds == {0: "done", 1: "failed", 2: "done", 3: "done", 4: "done"}
    assert {fold: executor.attempts.count(fold) for fold in range(5)} == {0: 2, 1: 3, 2: 1, 3: 1, 4: 1}
