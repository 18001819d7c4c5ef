"""The revision of a component: raised when a change of its code gives other numbers."""

from collections.abc import Callable
from typing import Any, TypeVar

Component = TypeVar("Component", bound=Callable[..., Any])


def revision(number: int) -> Callable[[Component], Component]:
    """Declares the revision of a component of dmseg, a function or a class; without it, it is 1.

    It is raised when the numbers that the component gives change, be it through a function that it calls. Subclasses
    have revisions of their own. Planning reads the number from the source, as importing a component may import torch.

    Args:
        number: written as a literal.
    """

    def declare(component: Component) -> Component:
        component.revision = number  # type: ignore[attr-defined]
        return component

    return declare
