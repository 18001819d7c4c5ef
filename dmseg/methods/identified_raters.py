"""Which tasks suit a method that distinguishes raters. Does not import torch, so that planning can use it."""

from collections.abc import Sequence

from dmseg.data.case import Task
from dmseg.errors import UserError, check_choice


def check_raters(task: Task, anonymous_raters: str) -> None:
    """Checks that a task has several raters, and that they can be identified across cases.

    Args:
        task: the task.
        anonymous_raters: what to do if the k-th rater may be a different person in each case: ``error``, or
            ``position`` to treat the k-th rater of all cases as one person.

    Raises:
        UserError: if the task does not suit, or the option has another value.
    """
    check_choice("method.anonymous_raters", anonymous_raters, ("error", "position"))
    if len(task.raters) < 2:
        raise UserError(f"task '{task.name}' has only one rater; this method learns how several differ")
    if task.anonymous_raters and anonymous_raters == "error":
        raise UserError(
            f"the raters of task '{task.name}' are anonymous: rater 1 of one case need not be rater 1 of the next, "
            "so single raters cannot be learned\n"
            "set method.anonymous_raters=position to treat each position as one person"
        )


def check_trained_raters(task: Task, trained: Sequence[int], fold: int) -> None:
    """Checks that several raters annotated training cases of a fold.

    Args:
        task: the task.
        trained: positions of the raters who did.
        fold: number of the fold.

    Raises:
        UserError: if it is only one.
    """
    if len(trained) < 2:
        raise UserError(
            f"only rater {task.raters[trained[0]]} annotated training cases of fold {fold} of task '{task.name}'; this "
            "method learns how several raters differ; choose other folds, or another method"
        )
