"""Tries malformed inputs: each in a process of its own, with limits on memory and time, in a folder that is watched.

A `Template` writes clean input and says which command reads it. A change damages it and says what is right: `refused`
with a message that names something, `accepted` with the result that another input gives, or `either` of the two.
"""

import hashlib
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import segmentation_models_pytorch  # noqa: F401
from fuzz.watch import NAMED, SECRET, half_written, leaks, outside

from dmseg.cli.main import main
from dmseg.config.compose import compose_settings
from dmseg.data.adapters import decathlon, kits, lidc, lits, qubiq  # noqa: F401
from dmseg.files.atomic import remove

GIB = 2**30
SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
LAST = 300
"""How many characters of what a command said are shown where it did wrong."""


@dataclass(frozen=True)
class Ran:
    """A command that has ended; its status is None if it had to be killed."""

    status: int | None
    out: str
    err: str
    peak: int

    @property
    def message(self):
        """What a refused command says at its end."""
        head, found, tail = f"\n{self.err}".rpartition("\ndmseg: ")
        return tail.strip() if found else head.strip()


def run(box, words):
    """Runs a command of dmseg in a child process, in the box's folder `cwd`."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        until, child = time.monotonic() + SECONDS, os.fork()
        if not child:
            _in_child(box, words, out.fileno(), err.fileno())
        done, killed = 0, False
        while not done:
            done, status, usage = os.wait4(child, os.WNOHANG)
            if not done and not killed and time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
                killed = True
            time.sleep(0 if done else 0.002)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return Ran(None if killed else os.waitstatus_to_exitcode(status), *texts, usage.ru_maxrss * 1024)


def _in_child(box, words, out, err):
    status = 99
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = sys.__stdout__ = open(1, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
        logging.getLogger().handlers.clear()
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + 3 * GIB,) * 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (GIB,) * 2)
        os.chdir(box / "cwd")
        os.environ |= {"HOME": str(box / "home"), "FUZZ_WORDS": "some words"}
        status = main(words)
    except BaseException:  # the parent must not go on twice, whatever it is
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class Template:
    """Clean input of one layout, and the command that reads it.

    `write` fills a box, `words` are the command's, and `result` is what must stay the same, read from the box.
    """

    def __init__(self, name: str, write: Callable, words: Callable, result: Callable) -> None:
        self.name, self.write, self.words, self.result = name, write, words, result


@dataclass(frozen=True)
class Right:
    """What should become of an input.

    `named` lists texts of which the message has one. `reference` changes a clean box to what the input must be read as.
    `words` replaces the template's command, `status` the one of a refusal, `judge` looks at what the command left.
    `repair` does what the message advises before the clean input is tried, where it asks for a decision.
    """

    named: tuple = ()
    reference: Callable | None = None
    words: list | None = None
    status: int = 2
    judge: Callable | None = None
    repair: Callable | None = None


def names(*paths):
    """A message must name one of these files, or the folder or case that one lies in."""
    found = {text for path in map(Path, paths) for text in (path.name, path.name.split(".")[0], path.parent.name)}
    return Right(named=tuple(sorted(text for text in found if len(text) > 1)))


class Bench:
    """One folder, `box`, that is filled anew for each input: stores remember where their sources lie."""

    def __init__(self, place: Path) -> None:
        self.place, self.box, self.clean = place, place / "box", {}
        compose_settings(["data=qubiq"])  # and all imports: once, not in each child

    def fill(self, template):
        """A clean box of a template; writes the template when it is first needed."""
        kept = self.place / f"clean-{template.name}"
        if not kept.exists():
            self._empty()
            for name in ("cwd", "home", "raw", *NAMED):
                (self.box / name).mkdir()
            (self.box / "secret.txt").write_text(SECRET)
            template.write(self.box)
            shutil.copytree(self.box, kept, symlinks=True)
            ran = run(self.box, template.words(self.box))
            assert ran.status == 0, f"the clean {template.name} is refused: {ran.err}"
            self.clean[template.name] = template.result(self.box)
        self._empty()
        shutil.copytree(kept, self.box, symlinks=True, dirs_exist_ok=True)

    def _empty(self):
        shutil.rmtree(self.box, ignore_errors=True)
        self.box.mkdir()

    def attempt(self, template, outcome, change, rng, keep=None):
        """Tries one input, which is copied to `keep`; returns whether it was accepted, and what is wrong with that."""
        self.fill(template)
        right = change(self.box, rng) or Right()
        if keep is not None:
            subprocess.run(["cp", "-a", self.box, keep], check=True)
        before = outside(self.box)
        ran = run(self.box, right.words or template.words(self.box))
        accepted, faults = ran.status == 0, self._faults(ran, outcome, right)
        if (after := outside(self.box)) != before:
            changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
            faults.append(f"changed outside the named folders: {changed[:3]}")
        if leaks(self.box) or SECRET in ran.out + ran.err:
            faults.append("the content of another file has been copied")
        if half := [str(path) for name in NAMED for path in (self.box / name).rglob("*") if half_written(path)]:
            faults.append(f"left half-written: {half[:2]}")
        if ran.status is not None and right.judge is not None:
            faults += right.judge(self.box, ran)
        if not faults:
            try:
                faults += self._compare(template, right, accepted and right.judge is None)
            except (OSError, ValueError, KeyError) as error:
                faults.append(f"its result cannot be read: {error!r}")
        return accepted, [*faults, *([repr(ran.err[-LAST:])] if faults else [])]

    def _faults(self, ran, outcome, right):
        if ran.status is None:
            return [f"hangs: killed after {SECONDS} s"]
        faults = [f"takes {ran.peak / GIB:.1f} GiB"] if ran.peak > 2 * GIB else []
        if "Traceback (most recent" in ran.err + ran.out or ran.status not in (0, right.status):
            return [*faults, f"status {ran.status}" + (", a traceback" if "Traceback" in ran.err + ran.out else "")]
        if ran.status == 0:
            return [*faults, *(["accepted, but should be refused"] if outcome == "refused" else [])]
        if outcome == "accepted":
            faults.append("refused, but is legal")
        said = ran.message if right.status == 2 else ran.out
        if right.status == 2 and len(said.splitlines()) > 3:
            faults.append("the message has more than three lines")
        if right.named and not any(text in said for text in right.named):
            faults.append(f"the message names none of {right.named}")
        return faults

    def _compare(self, template, right, accepted):
        """The result, and what the same place gives for clean input afterwards: the former must not harm it."""
        result = template.result(self.box) if accepted else None
        kept = self.place / f"clean-{template.name}"
        for path in (kept / "raw", kept / "results") if (kept / "results/runs").exists() else (kept / "raw",):
            remove(self.box / path.name)
            shutil.copytree(path, self.box / path.name, symlinks=True)
        if right.repair is not None:
            right.repair(self.box)
        plain = right.reference is None or not accepted
        try:
            if not plain:
                right.reference(self.box)
        except Exception as error:
            return [f"accepted, but the reference cannot read it: {error}"]
        ran = run(self.box, template.words(self.box))
        if ran.status != 0:
            return [f"the clean input, or the reference, is refused afterwards: {ran.message}"]
        after = template.result(self.box)
        if plain and after != self.clean[template.name]:
            return ["clean input gives another result afterwards"]
        return ["accepted with another result than it should have"] if accepted and result != after else []


def arrays(box):
    """The content of the only prepared store in a box."""
    (manifest,) = [path for path in (box / "prepared").rglob("manifest.json") if not path.parent.name.startswith(".")]
    files = [manifest.parent / f"{name}.npy" for name in ("images", "annotations")]
    cases = json.dumps(json.loads(manifest.read_text())["cases"])
    return hashlib.sha256(b"".join([*(path.read_bytes() for path in files), cases.encode()])).hexdigest()


def generator(kind, number):
    """Random numbers of one input."""
    return np.random.default_rng([*kind.encode(), number])


def special(path, kind):
    """Puts something that is no regular file in a file's place."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"zero": "/dev/zero", "null": "/dev/null", "loop": path.name, "dangling": "nothing"}[kind])
    return names(path)


SPECIAL = ("fifo", "folder", "zero", "null", "loop", "dangling")
