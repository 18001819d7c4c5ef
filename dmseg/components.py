"""Components named in a configuration by their dotted name: found and checked against their signature."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dmseg.errors import UserError

ALLOWED = ("dmseg.", "torch.", "timm.", "segmentation_models_pytorch.")


def resolve(target: str) -> Callable[..., Any]:
    """Returns the function or class that a dotted name stands for.

    Args:
        target: for example ``dmseg.labels.fusion.weighted``.

    Raises:
        UserError: if the name lies outside `ALLOWED`, or there is no such module or attribute.
    """
    if not target.startswith(ALLOWED):
        raise UserError(f"'{target}' is not allowed as a component: it must start with one of {', '.join(ALLOWED)}")
    module_name, _, attribute = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"there is no component '{target}' ({error}); check the configuration's _target_") from None
    if not callable(found):
        raise UserError(f"component '{target}' is not a function or a class")
    return found  # type: ignore[no-any-return]


def bind(target: str, options: Mapping[str, Any], *, where: str, n_positional: int = 1) -> Callable[..., Any]:
    """Binds the options of a configuration node to its component, checked against the component's signature.

    Args:
        target: the component's dotted name.
        options: keyword arguments, as configured.
        where: the configuration node, for messages (``labels``).
        n_positional: how many arguments the software itself will supply, before the options.

    Returns:
        The component with its options, still to be called with the software's own arguments.

    Raises:
        UserError: if an option is unknown to the component, or one that it needs is missing.
    """
    component = resolve(target)
    try:
        inspect.signature(component).bind(*[None] * n_positional, **options)
    except TypeError as error:
        known = [name for name in inspect.signature(component).parameters if name != "self"][n_positional:]
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise UserError(f"the options of '{where}' do not fit {target}: {error}; {takes}") from None
    return partial(component, **options)
