"""Kills processes at chosen points of their writing; loaded by every Python process that has this folder on its path.

CHAOS_POINTS names the points (a JSON list) and CHAOS_MARKS a folder: the first process that reaches a point leaves a
mark there and dies.
"""

import json
import os
import pathlib
import signal

POINTS, MARKS = json.loads(os.environ.get("CHAOS_POINTS", "[]")), os.environ.get("CHAOS_MARKS", "")


def reach(point):
    if point not in POINTS:
        return
    try:
        os.close(os.open(os.path.join(MARKS, point), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def kind(place):
    """What is being published: a run, a checkpoint, or something else."""
    place = pathlib.Path(place)
    return {"runs": "run", "checkpoints": "checkpoint"}.get(
        place.parent.name, "checkpoint" if place.parent.parent.name == "checkpoints" else None
    )


if POINTS:
    rename, write_text = pathlib.Path.rename, pathlib.Path.write_text

    def rename_or_die(self, target):
        reach(f"before rename of {kind(target)}")
        done = rename(self, target)
        reach(f"after rename of {kind(target)}")
        return done

    def write_text_or_die(self, text, *arguments, **options):
        if self.name == "DONE":
            reach("before DONE")
            if "within DONE" in POINTS and not pathlib.Path(MARKS, "within DONE").exists():
                write_text(self, text[: len(text) // 2], *arguments, **options)
                reach("within DONE")
        return write_text(self, text, *arguments, **options)

    pathlib.Path.rename, pathlib.Path.write_text = rename_or_die, write_text_or_die
