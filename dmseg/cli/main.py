"""The command ``dmseg``: looks at the first word only, so that help needs no heavy import."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from dmseg.cli import output

USAGE = """\
usage: dmseg COMMAND [key=value ...]

commands
  prepare            make phantoms where needed and write the prepared store of one task, or of all
  train              train and score one run; with -m a sweep: a run for each combination of labels=a,b fold=0,1
  cv                 all folds of one configuration, and their pooled scores; with -m a sweep
  reproduce table=N  run what is missing of a table of the paper, then write it; figure=1 or soft-labels draws a figure
  table table=N      write a table from what is there
  plan table=N       what a table takes: experiments and runs, done, running, failed and missing, hours left
                     these three take several tables at once: tables=2,4,6 or tables=all; table=methods is one beyond
                     the paper: methods for several raters, by the distance of their samples to the raters too
  data status        what is there of each data set, what is missing, and under which licence it is
  data verify        reads every byte of prepared stores, of all or of data= and task=; status 1 if one is damaged
  runs               list the runs of a store, by status=, task=, labels=, ...; runs show ID, runs verify, runs prune
  export-results     to=FOLDER tables=2: scores, configurations and manifests, for 'dmseg table table=2 from=FOLDER' and
  import-results     from=FOLDER paths.results=FOLDER elsewhere; weights=true exports weights and predictions too

Keys are Hydra overrides; configs/config.yaml lists them. The most used:
  data=qubiq|lits|kits|lidc|decathlon   data=phantom|phantom_lits|phantom_kits|phantom_decathlon   data.root=FOLDER
  data.size=256   task=prostate-1   data.labels_only=true   data.slices_per_case=8
  labels=majority|random|uniform|weighted|smoothing
  model=unet_resnet50|unet_resnet18|unet_efficientnet_b0|unet_mobilenetv2|deeplabv3plus_resnet18
  model.weights=null|imagenet|FILE   fold=0   seed=0   train.epochs=150   precision=fp32|bf16|auto
  method=plain|ours|mc_dropout|multi_head|mrnet|softseg   loss=ce_dml1|ce_dml2|ce_sdl|ce   distill=null|kd
  profile=paper|demo   protocol=paper|release   workers=2   tracker=disabled|offline|online
  folds.kind=contiguous|shuffled   folds.groups=FILE   folds.file=FILE
  paths.prepared=FOLDER   paths.results=FOLDER   evaluate.save_predictions=true

examples
  dmseg reproduce table=2 data=phantom profile=demo
  dmseg train data=lidc data.root=lidc labels=uniform model=unet_mobilenetv2 fold=0
  dmseg train -m labels=majority,uniform,weighted fold=0,1 data=phantom task=kidney-1 profile=demo name=labels

status: 0 done, 1 a run failed, 2 an error of use; 130, 143, 129 stopped by Ctrl-C, SIGTERM, SIGHUP: what is finished is
kept, and so is the state of a training; the same command resumes. A second signal stops at once.
"""

COMMANDS = {
    "prepare": "dmseg.cli.commands:prepare",
    "train": "dmseg.cli.commands:train",
    "cv": "dmseg.cli.commands:cv",
    "reproduce": "dmseg.cli.tables:reproduce",
    "table": "dmseg.cli.tables:table",
    "plan": "dmseg.cli.tables:plan",
    "runs": "dmseg.cli.runs:runs",
    "export-results": "dmseg.cli.exchange:export_results",
    "import-results": "dmseg.cli.exchange:import_results",
    "data": "dmseg.cli.data:data",
}
"""Each command's function, by module: it takes the arguments after the command's name and returns an exit status."""

SWEEPS = {"train": "dmseg.cli.sweep:train", "cv": "dmseg.cli.sweep:cv"}
"""The same of the commands that sweep over values with ``-m``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: what follows the program's name; by default the process's own.

    Returns:
        Exit status: 0 done, 1 a run failed, 2 an error of use, 128 and the signal's number where one stopped it.
    """
    from dmseg.runs.stopping import handling_signals, received, signals_held_back

    with handling_signals():
        output.set_up()
        try:
            status = output.finish(_main(list(sys.argv[1:] if arguments is None else arguments)))
        except (KeyboardInterrupt, OSError) as stopped:
            if isinstance(stopped, OSError) and received() is None:
                status = output.report(stopped)
            else:
                status = 130
                with signals_held_back():
                    _say_stopped("" if isinstance(stopped, OSError) else str(stopped))
        if (number := received()) is not None:
            status = 128 + number
        if arguments is None:
            _leave(status)
    return status


def _leave(status: int) -> NoReturn:
    """Ends this process at once: what is done is done, and the usual end waits for threads and can be interrupted."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _main(argv: list[str]) -> int:
    if not argv or {"-h", "--help"} & set(argv) or argv[0] == "help":
        print(USAGE, end="")
        return 0
    if argv[0] == "--version":
        from dmseg import __version__

        print(f"dmseg {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        output.tell(f"there is no command '{argv[0]}'; choose from {', '.join(COMMANDS)}")
        return 2
    return _run(argv[0], argv[1:])


def _run(command: str, argv: list[str]) -> int:
    from dmseg.cli.argv import MULTIRUN, checked
    from dmseg.cli.extensions import use_extensions
    from dmseg.errors import UserError

    try:
        argv = checked(command, use_extensions(command, argv))
        functions = SWEEPS if set(MULTIRUN) & set(argv) else COMMANDS
        return _imported(functions[command])(argv)
    except UserError as error:
        output.tell(str(error))
        return 2


def _imported(name: str) -> Callable[[list[str]], int]:
    """The function of a command. Its import is brought to an end: libraries do not expect to be interrupted there."""
    from dmseg.runs.stopping import should_stop, stopping_gently

    module, _, function = name.partition(":")
    with stopping_gently():
        found: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
    if should_stop():
        raise KeyboardInterrupt
    return found


def _say_stopped(kept: str) -> None:
    """Says in one line that a signal stopped the command and what is kept, if anybody can still read it."""
    from dmseg.runs.stopping import received

    number = received()
    kept = kept or "what is finished is kept: prepared cases, checkpoints, runs; run the same command to resume"
    with suppress(OSError):
        output.tell(f"stopped by {number.name if number else 'Ctrl-C'}: {kept}")


if __name__ == "__main__":
    sys.exit(main())
