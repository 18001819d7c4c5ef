"""Carries out the runs that a JSON file lists, each by its overrides: ``python driver.py RUNS.json WORKERS``."""

import json
import sys
from pathlib import Path

from dmseg.experiments.compose import compose_settings
from dmseg.experiments.launch import launch
from dmseg.experiments.plan import plan_run
from dmseg.experiments.sources import prepare_task
from dmseg.report.observers import quiet
from dmseg.settings import LauncherSettings


def plan(listed):
    runs = []
    for overrides in listed:
        settings = compose_settings(overrides)
        runs.append(plan_run(settings, prepare_task(settings.data, settings.paths, settings.task)))
    return runs


def main():
    runs = plan(json.loads(Path(sys.argv[1]).read_text()))
    outcomes = list(launch(runs, LauncherSettings("local", int(sys.argv[2])), quiet))
    for outcome in outcomes:
        print(outcome.run.run_id, outcome.kind, outcome.error or "", flush=True)
    sys.exit(max((outcome.status for outcome in outcomes), default=0))


if __name__ == "__main__":
    main()
