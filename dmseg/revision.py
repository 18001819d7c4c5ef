"""Revisions of components, which are incremented when a change of the code changes their results."""

from collections.abc import Callable
from typing import Any, TypeVar

Component = TypeVar("Component", bound=Callable[..., Any])


def revision(number: int) -> Callable[[Component], Component]:
    """Declares the revision of a component of dmseg, a function or a class. The default is 1.

    Increment it when the results of the component change, also because of a function that it calls. Subclasses have
    their own revisions. Planning reads the number from the source, as importing a component may import torch.

    Args:
        number: the revision, written as a literal.
    """

    def declare(component: Component) -> Component:
        component.revision = number  # type: ignore[attr-defined]
        return component

    return declare
