"""The command ``dmseg``: exit status, signals and streams. Modules of commands are imported when they are called."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress

from dmseg.cli import output


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: the arguments after the program's name; by default those of this process.

    Returns:
        The exit status: 0 done, 1 a run failed, 2 wrong usage, 128 plus the number of the signal that stopped it.
    """
    from dmseg.activity import showing
    from dmseg.runs.stopping import handling_signals, received, signals_held_back

    activities = output.Activities()
    with handling_signals():
        output.set_up()
        try:
            with showing(activities), closing(activities):
                status = output.finish(_main(list(sys.argv[1:] if arguments is None else arguments)))
        except (KeyboardInterrupt, OSError) as stopped:
            if isinstance(stopped, OSError) and received() is None:
                status = output.print_os_error(stopped)
            else:
                status = 130
                with signals_held_back():
                    _report_stop("" if isinstance(stopped, OSError) else str(stopped))
        if (number := received()) is not None:
            status = 128 + number
        if arguments is None:  # ends the process at once: the usual exit waits for threads and can be interrupted
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    return status


def _main(argv: list[str]) -> int:
    if shell := os.environ.get("_DMSEG_COMPLETE"):
        from dmseg.cli.completion import answer

        return answer(shell, os.environ)
    from dmseg.cli.parser import parse
    from dmseg.errors import UserError

    try:
        call = parse(argv)
        if call is None:
            return 0
        with output.printing():
            return _imported(call.function)(call.argv)
    except UserError as error:
        output.print_error(str(error))
        if trace := _trace(error):
            output.print_trace(trace)
        return 2
    except MemoryError as error:
        why = f": {error}" if str(error) else ""
        output.print_error(f"there is not enough memory{why}\nuse smaller images, fewer workers, or a larger machine")
        return 1


def _trace(error: BaseException | None) -> str:
    """The traceback of an adapter's code, if an error of it led to this one."""
    from dmseg.errors import AdapterError

    while error is not None and not isinstance(error, AdapterError):
        error = error.__cause__ or error.__context__
    return "" if error is None else error.trace


def _imported(name: str) -> Callable[[list[str]], int]:
    """Imports the function of a command. Signals take effect after the import, as libraries cannot be interrupted."""
    from dmseg.runs.stopping import should_stop, stopping_gently

    module, _, function = name.partition(":")
    with stopping_gently():
        found: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
    if should_stop():
        raise KeyboardInterrupt
    return found


def _report_stop(kept: str) -> None:
    """Prints in one line that a signal stopped the command, and what is kept."""
    from dmseg.runs.stopping import received

    number = received()
    kept = kept or "what is finished is kept: prepared cases, checkpoints, runs; run the same command to resume"
    with suppress(OSError):
        output.print_error(f"stopped by {number.name if number else 'Ctrl-C'}: {kept}")


if __name__ == "__main__":
    sys.exit(main())
