"""Signals that ask this process to stop: Ctrl-C, SIGTERM, and SIGHUP unless it was ignored from the start (nohup).

A command handles them from its first moment (`handling_signals`). Where state can be kept (`stopping_gently`) the first
signal only sets `should_stop`; anywhere else, and for the second signal, it raises KeyboardInterrupt. Worker processes
obey the process that started them, which hears the signals.
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
"""Seconds within which two signals count as one: ``timeout`` and job runners signal a process and then its group."""


class _State:
    """What this process was told, and what it is doing."""

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
    """Asks this process to stop; a training keeps its state first."""
    _state.asked = True


def received() -> signal.Signals | None:
    """The first signal that this process received since it handles them."""
    return _state.received[0] if _state.received else None


def is_urgent() -> bool:
    """Whether a second signal was received: what is under way is not waited for."""
    return len(_state.received) > 1


@contextmanager
def handling_signals() -> Iterator[None]:
    """While the block runs, signals ask to stop or interrupt.

    Nested blocks, and those in other than the main thread, change nothing.
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
    """While the block runs, the first signal only asks to stop; the second one interrupts at once."""
    with handling_signals():
        _state.gentle += 1
        try:
            yield
        finally:
            _state.gentle -= 1


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Holds signals back while the block runs; processes that it starts never receive them, unless they choose to."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def working() -> Iterator[None]:
    """Marks what a worker process brings to its end, or to its next step, before it follows its parent."""
    with _working:
        yield


def stop_with_parent() -> None:
    """Asks this worker process to stop on SIGTERM, or once the process that started it is gone.

    The others reach the whole group of a terminal; the parent hears them and says what to do.
    """
    from multiprocessing import parent_process

    signal.signal(signal.SIGTERM, lambda number, frame: ask_to_stop())
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True, name="follow-parent").start()


def _follow(sentinel: int) -> None:
    from multiprocessing.connection import wait

    wait([sentinel])
    ask_to_stop()
    with _working:
        os._exit(128 + signal.SIGTERM)


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
    """Discards output where the terminal is gone: a write that fails must not keep a checkpoint from being written."""
    for stream in (1, 2):
        with suppress(OSError):
            os.fstat(stream)
            if _is_dead_terminal(stream):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def _is_dead_terminal(stream: int) -> bool:
    import termios

    try:
        termios.tcgetattr(stream)
    except termios.error as error:
        return bool(error.args[0] == errno.EIO)
    return False
