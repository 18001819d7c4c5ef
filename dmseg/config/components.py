"""Components, which a configuration names by their dotted names: which are allowed where, and how they are loaded."""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

from dmseg.errors import UserError, cut, either, first_line, shown


@dataclass(frozen=True)
class Kind:
    """What is allowed as the component of a configuration node.

    Attributes:
        what: name of the kind, for messages.
        packages: packages of dmseg and of its libraries that define such components.
        base: dotted name of the required base class; empty for a function.
        supplied: keyword arguments that dmseg itself passes if the component takes them.
    """

    what: str
    packages: tuple[str, ...]
    base: str = ""
    supplied: tuple[str, ...] = ()


_FUSION = Kind("a fusion function", ("dmseg.labels.fusion",), supplied=("raters",))
KINDS: Mapping[str, Kind] = {
    "data": Kind("an adapter", ("dmseg.data.adapters",), "dmseg.data.case.Adapter"),
    "data.phantom": Kind("a function that writes a phantom", ("dmseg.phantom",)),
    "labels": _FUSION,
    "evaluate.reference": _FUSION,
    "method": Kind("a method", ("dmseg.methods",), "dmseg.methods.base.Method"),
    "loss.terms": Kind(
        "a loss", ("dmseg.losses", "torch.nn", "timm", "segmentation_models_pytorch"), "torch.nn.Module"
    ),
}
"""What ``_target_`` may name, by configuration node; the kind of ``loss.terms`` applies to each term."""

PACKAGES = frozenset(package.partition(".")[0] for kind in KINDS.values() for package in kind.packages)
"""Top-level packages whose components are allowed: dmseg and its libraries."""

MODULES: set[str] = set()
"""Modules from outside whose components are allowed, too (`dmseg.config.plugins`)."""


class MissingPluginError(UserError):
    """A configuration names a component from outside the package, but the plugin that defines it is not in use."""


def kind_at(where: str) -> Kind:
    """The kind of component at a configuration node or a loss term."""
    return KINDS["loss.terms" if where.startswith("loss.terms.") else where]


def check_target(target: object, where: str) -> str:
    """Checks by its name alone that a component is allowed at a configuration node; imports nothing.

    Args:
        target: the dotted name.
        where: the configuration node, a key of `KINDS` or a loss term (``loss.terms.ce``).

    Returns:
        The dotted name.

    Raises:
        MissingPluginError: if it may belong to a plugin that is not in use.
        UserError: if it is not a dotted name, or is in another package.
    """
    kind = kind_at(where)
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        raise UserError(f"{where}._target_ is {shown(target)}, but must be the dotted name of {kind.what}")
    if not any(target.startswith(f"{package}.") for package in (*kind.packages, *MODULES)):
        said = f"{where}._target_={cut(target)} is not allowed: {kind.what} of {either(kind.packages)} is needed there"
        module = target.rpartition(".")[0]
        if module.partition(".")[0] in {"", *PACKAGES, *sys.stdlib_module_names}:  # cannot be a plugin
            raise UserError(said)
        named = f"plugins=[{cut(module)}]" + ("" if "." in module else f" or plugins=[FOLDER/{cut(module)}.py]")
        raise MissingPluginError(f"{said}; if it is yours, name its module on the command line: {named}")
    if any(part.startswith("_") for part in target.split(".")):
        raise UserError(f"{where}._target_={target} is not allowed: names that begin with '_' are private")
    return target


def resolve(target: str, where: str) -> Callable[..., Any]:
    """Returns the function or class with a dotted name.

    Args:
        target: for example ``dmseg.labels.fusion.weighted``.
        where: the configuration node, which determines what is allowed (`KINDS`).

    Raises:
        UserError: if it is not allowed there, or there is no such module or attribute.
    """
    found, kind = load(check_target(target, where)), kind_at(where)
    defined_in = str(getattr(found, "__module__", "")) + "."  # not only imported there
    fits = any(defined_in.startswith(f"{package}.") for package in (*kind.packages, *MODULES))
    if kind.base:
        package, _, name = kind.base.rpartition(".")
        base = getattr(importlib.import_module(package), name)
        is_kind = inspect.isclass(found) and issubclass(found, base)
        fits = fits and is_kind and not inspect.isabstract(found)
    else:
        is_kind = inspect.isfunction(found)
        fits = fits and is_kind
    if not fits:
        if missing := getattr(found, "__abstractmethods__", None):
            needed = f"; it lacks {', '.join(sorted(missing))}"
        elif is_kind:
            needed = f": it is defined in {defined_in.rstrip('.')}"
        else:
            needed = f"; write a class that is a subclass of {kind.base}" if kind.base else ""
        raise UserError(f"{where}._target_={target} is not {kind.what}{needed}")
    return found


def load(target: str) -> Callable[..., Any]:
    """Imports the component with a dotted name, if it is allowed at any node.

    Raises:
        UserError: if it is not allowed, or there is no such module or attribute.
    """
    known = (*(package for kind in KINDS.values() for package in kind.packages), *MODULES)
    if not target.startswith(tuple(f"{package}." for package in known)):
        raise UserError(f"'{target}' is not allowed as a component")
    module_name, _, attribute = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), attribute)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        raise UserError(f"there is no component '{target}' ({error}); check the configuration's _target_") from None


def bind(target: str, options: Mapping[str, Any], *, where: str, n_positional: int = 1) -> Callable[..., Any]:
    """Binds the options of a configuration node to its component, after checking them against its signature.

    Args:
        target: the component's dotted name.
        options: keyword arguments, as configured.
        where: the configuration node (``labels``).
        n_positional: number of positional arguments that dmseg itself passes.

    Returns:
        The component with its options, to be called with the positional arguments.

    Raises:
        UserError: if the component is not allowed there, or an option is unknown or missing. If the component is a
            class, calls raise it for errors of its constructor.
    """
    component = resolve(target, where)
    try:
        signature = inspect.signature(component)
    except (TypeError, ValueError):  # not written in Python
        signature = None
    if signature is not None:
        supplied = [name for name in kind_at(where).supplied if name in signature.parameters]
        try:
            signature.bind(*[None] * n_positional, **{**dict.fromkeys(supplied), **options})
        except TypeError as error:
            known = [name for name in signature.parameters if name not in ("self", *supplied)][n_positional:]
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise UserError(f"the options of '{where}' do not fit {target}: {cut(str(error))}; {takes}") from None
    bound = partial(component, **options)
    if not inspect.isclass(component):
        return bound

    @wraps(component, updated=())
    def construct(*arguments: Any, **further: Any) -> Any:  # noqa: ANN401
        try:
            return bound(*arguments, **further)
        except (UserError, OSError, MemoryError):
            raise
        except Exception as error:
            said = first_line(error, "")
            if component.__module__.startswith("dmseg.") and isinstance(error, ValueError | TypeError):
                raise UserError(f"{where}: {said}") from error
            reason = cut(f"{type(error).__name__}: {said}", 300)
            raise UserError(f"the options of '{where}' do not fit {target}: {reason}") from error

    return construct
