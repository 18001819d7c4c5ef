"""Sends wandb's files to a server, in a process of its own, so that no training waits for a network.

`Sender` starts ``python -m dmseg.report.tracking.wandb_sender FOLDER PID``, which follows the file with ``wandb beta
sync --live`` while it grows. wandb itself marks a file that was sent completely (``.synced``).
"""

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from dmseg.errors import first_line

PATIENCE = 0.9
"""Seconds that a server may take to answer a request."""
LONGEST_WAIT = 30.0
"""Seconds that a command waits at its end for a server that answers."""
QUESTION = {"query": "query Viewer { viewer { id } }"}
ORPHAN_SECONDS, CLOSED_SECONDS = 10.0, 600.0
"""Seconds after the end of the writing process until sending is given up: if it left the file open, and if not."""
CLOSED = "closed"
"""Marks a file that was closed."""


def connection_fault(patience: float = PATIENCE) -> str | None:
    """Why runs cannot be sent to wandb, in a few words; None if its server answers and accepts the login."""
    found: list[str | None] = []

    def ask() -> None:
        try:
            found.append(_fault(patience))
        except Exception as error:
            found.append(first_line(error)[:200])

    thread = threading.Thread(target=ask, daemon=True)  # looking up a name has no time limit
    thread.start()
    thread.join(patience + 0.1)
    return found[0] if found else f"{server()} does not answer"


def server() -> str:
    """Address of the server: ``WANDB_BASE_URL``, wandb's settings file, or wandb's own."""
    if named := os.environ.get("WANDB_BASE_URL"):
        return named.rstrip("/")
    import configparser

    folder = Path(os.path.expanduser(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"))
    for path in (Path("wandb/settings"), folder / "settings"):
        settings = configparser.ConfigParser(interpolation=None)
        with suppress(OSError, configparser.Error, UnicodeError):
            settings.read(path, encoding="utf-8")
            if address := settings.get("default", "base_url", fallback=None):
                return address.rstrip("/")
    return "https://api.wandb.ai"


def _fault(patience: float) -> str | None:
    """Why the server or the login cannot be used, None if both can.

    Asks who the user is, with the key from the environment or the file that ``wandb login`` writes.
    """
    import netrc
    from urllib.parse import urlsplit

    import requests  # wandb depends on it

    key = os.environ.get("WANDB_API_KEY") or None
    if key is None:
        with suppress(OSError, netrc.NetrcParseError):
            path = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
            found = netrc.netrc(path).authenticators(urlsplit(server()).hostname or "")
            key = found[2] if found else None
    if key is None and not os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return "there is no login; run 'wandb login' or set WANDB_API_KEY"
    login = None if key is None else ("api", key)
    try:
        answer = requests.post(f"{server()}/graphql", json=QUESTION, auth=login, timeout=patience)
    except (requests.RequestException, OSError, ValueError):
        return f"{server()} cannot be reached"
    if answer.status_code in (401, 403):
        return f"{server()} does not accept the login; run 'wandb login --relogin'"
    if answer.status_code != 200:
        return f"{server()} answers with an error ({answer.status_code})"
    if key is not None and not ((answer.json().get("data") or {}).get("viewer")):
        return f"{server()} does not know the login; run 'wandb login --relogin'"
    return None


class Sender:
    """Sends one file while it is written.

    Args:
        folder: folder of the file.
        environment: environment of the process.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dmseg.report.tracking.wandb_sender", str(folder), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the training
        )

    def finish(self) -> str | None:
        """Ends the process if the server no longer answers; otherwise it continues in the background.

        Returns:
            Why the file could not be sent; None if it was, or is still being sent.
        """
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.3)
        if is_sent(self._folder):
            return None
        if fault := connection_fault():
            self.stop()
            return fault
        return None if self._process.poll() is None else "the run could not be sent"

    def stop(self) -> None:
        """Ends the process; what was not sent stays in the file."""
        with suppress(OSError):
            os.killpg(self._process.pid, 15)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.3)
        if self._process.poll() is None:
            with suppress(OSError):
                os.killpg(self._process.pid, 9)


def is_sent(folder: Path) -> bool:
    """Whether wandb has sent a file completely."""
    return any(folder.glob("*.wandb.synced"))


def wait_until_sent(folders: list[Path]) -> str | None:
    """Waits until closed files are sent in the background, as long as the server answers.

    Returns:
        Why some of them were not sent; None if all were.
    """
    start = time.monotonic()
    while not all(map(is_sent, folders)):
        if fault := connection_fault():
            return fault
        if time.monotonic() - start > LONGEST_WAIT:
            return f"sending to {server()} takes too long"
        time.sleep(0.3)
    return None


def send(folders: list[Path], environment: dict[str, str], seconds: float) -> None:
    """Sends closed files; those that were sent are marked (`is_sent`).

    Args:
        folders: folders of the files.
        environment: environment of wandb.
        seconds: after how many seconds to give up.
    """
    process = subprocess.Popen(
        _command(folders),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            with suppress(OSError):
                os.killpg(process.pid, 9)


def _command(folders: list[Path], live: bool = False) -> list[str]:
    return [sys.executable, "-m", "wandb", "beta", "sync", *(["--live"] if live else []), *map(str, folders)]


def follow(folder: Path, writer: int) -> int:
    """Sends a file while a process writes it; gives up if that process has died without closing it."""
    process = subprocess.Popen(_command([folder], live=True), stdin=subprocess.DEVNULL)
    orphaned: float | None = None
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(1.0)
        try:
            os.kill(writer, 0)
            orphaned = None
        except ProcessLookupError:
            orphaned = orphaned or time.monotonic()
        except OSError:  # it lives, but belongs to another user
            orphaned = None
        limit = CLOSED_SECONDS if (folder / CLOSED).exists() else ORPHAN_SECONDS
        if orphaned is not None and time.monotonic() - orphaned > limit:
            process.terminate()


if __name__ == "__main__":
    sys.exit(follow(Path(sys.argv[1]), int(sys.argv[2])))
