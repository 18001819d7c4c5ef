"""Carries out planned runs that a file holds, pickled: ``python driver.py RUNS WORKERS``; prints each one's outcome."""

import pickle
import sys
from functools import partial
from pathlib import Path

from dmseg.config.settings import LauncherSettings
from dmseg.launch import launch
from dmseg.report.run_observers import silent
from dmseg.report.tracking.tracking_plan import Tracking


def main():
    runs = pickle.loads(Path(sys.argv[1]).read_bytes())
    outcomes = list(launch(runs, LauncherSettings("local", int(sys.argv[2])), partial(silent, tracking=Tracking())))
    for outcome in outcomes:
        print(outcome.run.run_id, outcome.kind, outcome.error or "", flush=True)
    sys.exit(max((outcome.status for outcome in outcomes), default=0))


if __name__ == "__main__":
    main()
