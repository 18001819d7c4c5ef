"""Which code a component has: what makes a run, or a prepared store, another one when the code changes.

A component of dmseg has a revision, raised by the decorator `revision` when a change gives other numbers. A component
from outside counts by its source. Components of torch, timm and segmentation_models_pytorch do not count: a run's
manifest has the versions of these packages.
"""

import ast
import hashlib
import inspect
import json
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from dmseg.config.components import load
from dmseg.errors import UserError
from dmseg.revision import revision

PACKAGE = "dmseg"
LIBRARIES = ("torch.", "timm.", "segmentation_models_pytorch.")
"""Beginnings of the names of components that do not count."""


def code_version(target: str) -> int | str:
    """What of a component's code enters ids and the options of prepared stores.

    Args:
        target: dotted name.

    Returns:
        The revision of a component of dmseg, 1 for one of the `LIBRARIES`, else a digest of its source: of the file
        that defines it, of those that define its base classes, and of what these import from their own folder. Whole
        files count, their line endings do not. Not in it: other folders, other packages, data files.

    Raises:
        UserError: if a component from outside does not exist, is not allowed, or has no source file.
    """
    if target.startswith(f"{PACKAGE}."):
        return _declared_revision(target)
    return 1 if target.startswith(LIBRARIES) else _source_digest(target)


@lru_cache(maxsize=256)
def _declared_revision(target: str) -> int:
    """The revision in the source of a component of dmseg; 1 where the name cannot be followed there."""
    module, _, name = target.rpartition(".")
    path = Path(__file__).parents[1].joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_bytes()).body if path.is_file() else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return max((_revision_of(decorator) for decorator in node.decorator_list), default=1)
        if isinstance(node, ast.ImportFrom) and node.module and node.module != module:
            for alias in node.names:
                if (alias.asname or alias.name) == name and node.module.startswith(f"{PACKAGE}."):
                    return _declared_revision(f"{node.module}.{alias.name}")
    return 1


def _revision_of(decorator: ast.expr) -> int:
    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).rpartition(".")[2] == revision.__name__:
        return int(ast.literal_eval(decorator.args[0]))
    return 1


def module_digest(module: str) -> str:
    """A digest of the source of a loaded module from outside, and of what it imports from its own folder.

    Raises:
        UserError: if it has no source file.
    """
    return _digest_of(_files(module, module))


def _source_digest(target: str) -> str:
    component = load(target)
    kinds = inspect.getmro(component) if inspect.isclass(component) else (inspect.unwrap(component),)
    modules = [target.rpartition(".")[0], *(getattr(kind, "__module__", None) or "" for kind in kinds)]
    own = [name for name in dict.fromkeys(modules) if _is_outside(name)]
    return _digest_of(file for name in own for file in _files(target, name))


def _digest_of(files: Iterable[Path]) -> str:
    contents = {file: file.read_bytes().replace(b"\r\n", b"\n") for file in files}
    digests = sorted((file.name, hashlib.sha256(content).hexdigest()) for file, content in contents.items())
    return f"sha256:{hashlib.sha256(json.dumps(digests).encode()).hexdigest()}"


def _is_outside(module: str) -> bool:
    return module not in ("", "builtins", "abc", "typing") and not f"{module}.".startswith((f"{PACKAGE}.", *LIBRARIES))


def _files(target: str, module: str) -> list[Path]:
    """The file of a module, and those of its folder that it imports, one through another."""
    found = getattr(sys.modules.get(module), "__file__", None)
    if found is None or not Path(found).is_file():
        raise UserError(f"component '{target}' has no source file ({module}); put it in a module of its own")
    package = module if Path(found).stem == "__init__" else module.rpartition(".")[0]
    files, todo = dict[Path, None](), [Path(found)]
    while todo:
        file = todo.pop()
        if file not in files:
            files[file] = None
            todo += [path for name in _imported(file, package) if (path := file.parent / f"{name}.py").is_file()]
    return list(files)


def _imported(file: Path, package: str) -> Iterator[str]:
    """Names of modules of its own folder that a source file may import."""
    try:
        tree = ast.parse(file.read_bytes() if file.suffix == ".py" else b"")
    except (SyntaxError, ValueError):
        return  # it cannot be imported either
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_within(alias.name, package) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level <= 1:
            whole = ".".join(filter(None, [package if node.level else "", node.module]))
            yield from (_within(f"{whole}.{alias.name}", package) for alias in node.names)


def _within(name: str, package: str) -> str:
    """The first part of a dotted name below a package; empty if it is not below."""
    prefix = f"{package}." if package else ""
    return name.removeprefix(prefix).partition(".")[0] if name.startswith(prefix) else ""
