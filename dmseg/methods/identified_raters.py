"""Which tasks a method can be used for that tells raters apart. Imports no torch, so that planning may ask."""

from dmseg.data.case import Task
from dmseg.errors import UserError


def check_raters(task: Task, anonymous_raters: str) -> None:
    """Refuses a task whose raters cannot be told apart, or that has one rater only.

    Args:
        task: the task.
        anonymous_raters: what to do where the k-th rater of one case may be another person than the k-th of the next:
            ``error``, or ``position`` to take the position for the person all the same.

    Raises:
        UserError: if the task does not suit, or the option has another value.
    """
    if anonymous_raters not in ("error", "position"):
        raise UserError(f"method.anonymous_raters is '{anonymous_raters}', but may be error or position")
    if len(task.raters) < 2:
        raise UserError(f"task '{task.name}' has one rater only; this method learns how several differ")
    if task.anonymous_raters and anonymous_raters == "error":
        raise UserError(
            f"the raters of task '{task.name}' are anonymous: rater 1 of one case need not be rater 1 of the next, "
            "so there is no rater to learn\n"
            "set method.anonymous_raters=position to take the position for the person all the same"
        )
