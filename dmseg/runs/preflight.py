"""Tries settings that matter only late in a run before its first step, with the code that will use them."""

import copy
import logging
import math
from dataclasses import replace

import torch
from torch import nn

from dmseg.data.labels import fuse_cases, select_cases
from dmseg.data.prepared import PreparedTask
from dmseg.errors import UserError, first_line, some
from dmseg.labels.fusion import named_raters
from dmseg.runs.plan import PlannedRun
from dmseg.training.evaluate import evaluate

MISTAKES = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, RuntimeError)
"""Errors that code raises when an option is invalid."""

log = logging.getLogger(__name__)


def check_scoring(run: PlannedRun, network: nn.Module, prepared: PreparedTask, device: torch.device) -> None:
    """Scores one slice with the untrained network, in the same way as the trained one.

    Args:
        run: the run; its method makes the predictions.
        network: the untrained network, on the device; it and torch's global random state are not changed.
        prepared: the store.
        device: where the network is.

    Raises:
        UserError: if an option of the evaluation or of the method is invalid, or a case has no reference.
    """
    settings = run.settings
    if named_raters(run.reference) is not None:  # a case may lack the rater
        fuse_cases(prepared, select_cases(prepared, run.split.validation), run.reference)
    one = copy.copy(prepared)
    one.cases = [replace(case, n_slices=1) for case in prepared.cases if case.case == run.split.validation[0]]
    ids = [case.case for case in one.cases]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            predictor = run.method.predictor(copy.deepcopy(network), run.streams)
            evaluate(predictor, one, ids, run.reference, settings.evaluate, device)
    except torch.OutOfMemoryError:
        raise
    except MISTAKES as error:
        said = first_line(error)
        raise UserError(
            f"the network cannot be scored with the settings of model, method and evaluate: {said}"
        ) from error


def warn_of_absent_raters(run: PlannedRun) -> None:
    """Logs which raters a method that distinguishes them has nothing to learn from."""
    if run.trained_raters is None:
        return
    absent = [name for index, name in enumerate(run.task.raters) if index not in run.trained_raters]
    log.warning(
        "%s: the prediction leaves out %s, who annotated no training case of fold %d",
        run.task.name, some(absent), run.settings.fold,
    )  # fmt: skip


def check_schedule(schedule: object, total: int) -> None:
    """Computes the learning rates of the first, a middle and the last step.

    Args:
        schedule: what the method's `schedule` returned, which may be a plugin's.
        total: number of steps.

    Raises:
        UserError: if one is not a finite number of at least 0, or the schedule is not a LambdaLR. A resumed run
            computes the learning rates of its step, which other schedulers cannot.
    """
    if not isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):
        kind = type(schedule).__name__
        raise UserError(
            f"the method's schedule returns a {kind}, but must return a torch.optim.lr_scheduler.LambdaLR, "
            "which computes the learning rates of any step"
        )
    for step in (0, total // 2, total - 1):
        for start, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True):
            try:
                lr = float(start * factor(step))
            except MISTAKES as error:
                raise UserError(f"optim: the learning rate of step {step + 1} cannot be computed: {error}") from error
            if not (math.isfinite(lr) and lr >= 0):
                raise UserError(f"optim: the learning rate of step {step + 1} of {total} would be {lr}; check optim.*")
