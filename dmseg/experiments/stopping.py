"""Whether this process was asked to stop: by a signal, or because the process that started it is gone."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.connection import wait
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_asked = threading.Event()
_working = threading.Lock()


def should_stop() -> bool:
    """Whether this process was asked to stop."""
    return _asked.is_set()


def ask_to_stop() -> None:
    """Asks this process to stop; a training keeps its state first."""
    _asked.set()


@contextmanager
def working() -> Iterator[None]:
    """Marks what a worker process brings to its end, or to its next step, before it follows its parent."""
    with _working:
        yield


@contextmanager
def stopping_gently() -> Iterator[None]:
    """While the block runs, SIGTERM and Ctrl-C ask to stop; the second of them interrupts at once.

    In another than the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


def stop_with_parent() -> None:
    """Asks this worker process to stop on a signal, or once the process that started it is gone."""
    signal.signal(signal.SIGTERM, _on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True, name="follow-parent").start()


def _follow(sentinel: int) -> None:
    wait([sentinel])
    ask_to_stop()
    with _working:
        os._exit(128 + signal.SIGTERM)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _asked.is_set():
        raise KeyboardInterrupt
    ask_to_stop()
