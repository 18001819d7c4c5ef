"""Records that are made again: what counts as changed, waiting for wandb, and the record of a sweep agent."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from dmseg.config.compose import compose_settings
from dmseg.config.settings import TrackerSettings
from dmseg.report.tracking import update
from dmseg.report.tracking.journal import read_steps
from dmseg.report.tracking.run_report import FIRST_TABLE, run_report
from dmseg.report.tracking.tracker import RunMetadata
from dmseg.report.tracking.tracking_plan import run_digest
from dmseg.runs.seal import DONE


def sealed_store(tmp_path: Path, **seals: str) -> SimpleNamespace:
    for name, text in seals.items():
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / DONE).write_text(text)
    later = sorted(tmp_path / name for name in seals if name != "run")
    return SimpleNamespace(folder=lambda run_id: tmp_path / "run", additions=lambda run_id: later)


def test_a_later_evaluation_its_change_and_what_is_shown_change_the_digest_of_a_run(tmp_path):
    settings = TrackerSettings("project")
    digests = [
        run_digest(sealed_store(tmp_path, run="a"), "run", settings),
        run_digest(sealed_store(tmp_path, run="b"), "run", settings),
        run_digest(sealed_store(tmp_path, run="b", later="c"), "run", settings),
        run_digest(sealed_store(tmp_path, run="b", later="d"), "run", settings),
        run_digest(sealed_store(tmp_path, run="b", later="d"), "run", TrackerSettings("project", images=True)),
    ]
    assert len(set(digests)) == len(digests)
    assert run_digest(sealed_store(tmp_path, run="b", later="d"), "run", settings) == digests[3]


class Online:
    """A plan of trackers for runs that are recorded online."""

    def __init__(self):
        self.noted = []

    def trackers(self, run):
        return run.names

    def wandb_id(self, run_id):
        return run_id

    def note(self, run, tracker):
        self.noted.append((run.run_id, tracker))


@pytest.mark.parametrize("fault", [None, "the server does not answer"])
def test_the_end_of_a_command_waits_until_all_is_sent(monkeypatch, fault):
    files = {"a": [Path("a.wandb")], "b": [Path("b.wandb")], "none": []}
    waited, given_up, sent = [], [], set()

    def wait(paths):
        waited.extend(paths)
        sent.update(paths if fault is None else paths[:1])
        return fault

    monkeypatch.setattr(update, "files_of", lambda results, record: files[record])
    monkeypatch.setattr(update, "wait_until_sent", wait)
    monkeypatch.setattr(update, "is_sent", sent.__contains__)
    monkeypatch.setattr(update, "give_up", given_up.append)
    monkeypatch.setattr(update.WandbOnline, "gave_up", False)
    names = {"a": ["online"], "b": ["jsonl", "online"], "none": ["online"], "offline": ["offline"]}
    runs = [SimpleNamespace(run_id=key, results=Path("results"), names=value) for key, value in names.items()]
    plan = Online()
    update.finish_sending(runs, plan)
    assert waited == [Path("a.wandb"), Path("b.wandb")]
    assert plan.noted == [("a", "online"), ("b", "online")][: 2 if fault is None else 1]
    assert given_up == ([] if fault is None else [fault])


def test_a_sweep_agents_records_of_other_seeds_are_other_records(monkeypatch):
    made = []

    class Plan:
        offline, agent = True, None

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def metadata(self, run):
            return RunMetadata(run.run_id, "kidney-1 · uniform · fold 0", "group", "train", (), "", {})

        def usable(self, names):
            return names

        def make(self, name, results, settings, record_id):
            made.append((name, record_id))
            return SimpleNamespace(
                begin=lambda metadata: made.append(metadata),
                log=lambda *a: None,
                show=lambda r: None,
                end=lambda finished: None,
            )

    monkeypatch.setattr(update, "current_agent", lambda: object())
    monkeypatch.setattr(update, "plan_tracking", Plan)
    monkeypatch.setattr(update, "Tracking", Plan)
    for seeds in ([0, 0], [1, 1], [0, 1], [1, 0]):
        runs = [
            SimpleNamespace(
                settings=compose_settings(["data=phantom", "tracker=offline", f"seed={seed}", f"fold={fold}"]),
                experiment_id="0123",
                run_id=f"{seed}{fold}",
                results=Path("results"),
            )
            for fold, seed in enumerate(seeds)
        ]
        update.update_agent(runs, {"dice": 0.5})
    ids = [item[1] for item in made if isinstance(item, tuple)]
    records = [item for item in made if isinstance(item, RunMetadata)]
    assert ids[2] == ids[3]
    assert len(set(ids)) == 3
    assert [record.id for record in records] == ids
    assert records[0].name == "kidney-1 · uniform · 2 runs"
    assert records[0].config == {"runs": ["00", "01"]}


def test_the_case_table_begins_with_cases_without_a_score_and_then_the_worst():
    cases = pd.DataFrame({"case": ["a", "b", "c", "d"], "dice": [0.9, 0.2, float("nan"), 0.5], "ece": [0.0] * 4})
    store = SimpleNamespace(
        evaluations=lambda run_id: {"first": Path("run")},
        folder=lambda run_id: Path("run"),
        read_cases=lambda run_id, evaluation_id: cases,
        read_counts=lambda run_id, evaluation_id: None,
        read_pack=lambda run_id, evaluation_id: pytest.fail("images were not asked for"),
    )
    table = run_report(store, "run", None, images=False).tables[FIRST_TABLE]
    assert table.columns == ["case", "dice", "ece"]
    assert [row[0] for row in table.rows] == ["c", "b", "d", "a"]
    assert table.rows[0][1] is None


def test_lines_of_a_journal_that_are_not_ours_are_skipped(tmp_path):
    path = tmp_path / "journal.jsonl"
    lines = [
        '{"step": 1, "a": 1}',
        '{"step": 2, "a": ' + "9" * 400 + "}",
        '{"step": 3, "a": Infinity, "b": 2, "c": "x"}',
    ]
    path.write_text("\n".join(["no json", "[1]", '{"step": -1, "a": 1}', '{"step": true}', *lines, '{"step": 4, "a"']))
    assert read_steps(path) == {1: {"a": 1.0}, 2: {}, 3: {"b": 2.0}}
    assert read_steps(tmp_path / "none") == {}
