"""Signals that ask this process to stop: Ctrl-C, SIGTERM, and SIGHUP unless it was ignored from the start (nohup).

A command handles them from the start (`handling_signals`). Where state can be saved (`stopping_gently`) the first
signal only makes `should_stop` true; elsewhere, and on a second signal, KeyboardInterrupt is raised. Worker processes
ignore a terminal's signals; the process that started them receives these and stops its workers.
"""

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DOUBLE = 0.2
"""Two signals within this many seconds count as one: ``timeout`` and job runners signal a process, then its group."""


class _State:
    """Signals that this process received, and how it handles them."""

    def __init__(self) -> None:
        self.asked = False
        self.received: list[signal.Signals] = []
        self.last = 0.0
        self.handling = False
        self.gentle = 0


_state = _State()
_working = threading.Lock()


def should_stop() -> bool:
    """Whether this process was asked to stop."""
    return _state.asked


def ask_to_stop() -> None:
    """Asks this process to stop; training saves its state first."""
    _state.asked = True


def received() -> signal.Signals | None:
    """The first signal received since `handling_signals` began; None if there was none."""
    return _state.received[0] if _state.received else None


def is_urgent() -> bool:
    """Whether a second signal was received, after which running work is not waited for."""
    return len(_state.received) > 1


@contextmanager
def handling_signals() -> Iterator[None]:
    """Handles signals while the block runs: they ask to stop, or interrupt.

    Has no effect in a nested block or outside of the main thread.
    """
    if _state.handling or threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, _on_signal) for number in numbers}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    _state.handling = True
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _state.handling = False
        _state.received.clear()
        _state.asked = False


@contextmanager
def stopping_gently() -> Iterator[None]:
    """While the block runs, the first signal only asks to stop and the second interrupts at once."""
    with handling_signals():
        _state.gentle += 1
        try:
            yield
        finally:
            _state.gentle -= 1


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Blocks signals while the block runs; processes started in it also block them until they choose otherwise."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def working() -> Iterator[None]:
    """Marks work that a worker process finishes, or brings to its next step, before it exits with its parent."""
    with _working:
        yield


def stop_with_parent() -> None:
    """Makes this worker process stop on SIGTERM, or once the process that started it has ended.

    It ignores SIGINT and SIGHUP, which a terminal sends to the whole process group: the parent handles them.
    """
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    signal.signal(signal.SIGTERM, lambda number, frame: ask_to_stop())
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    parent = parent_process()
    if parent is None:
        return

    def follow() -> None:
        wait([parent.sentinel])
        ask_to_stop()
        with _working:
            os._exit(128 + signal.SIGTERM)

    threading.Thread(target=follow, daemon=True, name="follow-parent").start()


def _on_signal(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    repeated = bool(_state.received) and now - _state.last < DOUBLE
    _state.last = now
    if repeated:
        return
    _state.received.append(signal.Signals(number))
    if number == signal.SIGHUP:
        _leave_terminal()
    waits = _state.gentle and not _state.asked
    ask_to_stop()
    if not waits:
        raise KeyboardInterrupt


def _leave_terminal() -> None:
    """Discards output to a closed terminal: a failing write must not prevent a checkpoint from being written."""
    import termios

    for stream in (1, 2):
        try:
            termios.tcgetattr(stream)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                with suppress(OSError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
