"""The command ``dmseg``: exit status, signals and streams. Modules of commands are imported when they are called."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress

from dmseg.cli import output

KEPT = "what is finished is kept: prepared cases, checkpoints, runs; run the same command to resume"
"""Printed when a signal stops a command that says nothing more precise."""


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
                with signals_held_back(), suppress(OSError):
                    number = received()
                    kept = KEPT if isinstance(stopped, OSError) else str(stopped) or KEPT
                    output.print_error(f"stopped by {number.name if number else 'Ctrl-C'}: {kept}")
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
    from dmseg.errors import AdapterError, UserError, chain
    from dmseg.runs.stopping import should_stop, stopping_gently

    try:
        call = parse(argv)
        if call is None:
            return 0
        with output.printing():
            module, _, name = call.function.partition(":")
            with stopping_gently():  # signals take effect after the import, as libraries cannot be interrupted
                function: Callable[[list[str]], int] = getattr(importlib.import_module(module), name)
            if should_stop():
                raise KeyboardInterrupt
            return _uninterrupted(function, call.argv)
    except UserError as error:
        output.print_error(str(error))
        of_adapter = next((cause for cause in chain(error) if isinstance(cause, AdapterError)), None)
        if of_adapter is not None and of_adapter.trace:
            output.print_trace(of_adapter.trace)
        return 2
    except MemoryError as error:
        why = f": {error}" if str(error) else ""
        output.print_error(f"there is not enough memory{why}\nuse smaller images, fewer workers, or a larger machine")
        return 1


def _uninterrupted(function: Callable[[list[str]], int], argv: list[str]) -> int:
    """Calls a command. An error that a library raises because it was interrupted counts as the interrupt."""
    from dmseg.errors import chain

    try:
        return function(argv)
    except Exception as error:
        for cause in chain(error):
            if isinstance(cause, KeyboardInterrupt):
                raise KeyboardInterrupt(*cause.args) from error
        raise


if __name__ == "__main__":
    sys.exit(main())
