"""Components named in a configuration by their dotted name: found, checked against their signature, called."""

import importlib
import inspect
from collections.abc import Callable, Mapping
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


def call(target: str, options: Mapping[str, Any], *positional: Any, where: str) -> Any:  # noqa: ANN401
    """Calls a component with the options of its configuration node.

    Args:
        target: the component's dotted name.
        options: keyword arguments, as configured.
        *positional: arguments that the software itself supplies, before the options.
        where: the configuration node, for messages (``labels``).

    Raises:
        UserError: if an option is unknown to the component, or one that it needs is missing.
    """
    component = resolve(target)
    try:
        inspect.signature(component).bind(*positional, **options)
    except TypeError as error:
        known = [name for name in inspect.signature(component).parameters if name != "self"]
        raise UserError(
            f"the options of '{where}' do not fit {target}: {error}\nit takes: {', '.join(known[len(positional) :])}"
        ) from None
    return component(*positional, **options)
