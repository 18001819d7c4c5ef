"""Versions of components: when the code of a component changes, so do the ids of runs and the prepared stores.

A component of dmseg has a revision, which the decorator `revision` raises when a change gives other numbers. A
component from outside is identified by a digest of its source. Components of torch, timm and
segmentation_models_pytorch have no version here, as a run's manifest records the versions of these packages.
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
"""Prefixes of the names of components without a version."""


def code_version(target: str) -> int | str:
    """Version of a component's code, which is part of ids and of the options of prepared stores.

    Args:
        target: dotted name.

    Returns:
        The revision of a component of dmseg, 1 for one of the `LIBRARIES`, else a digest of its source: the file that
        defines it, the files of its base classes, and the modules that these import from their own folder. The digest
        covers whole files, apart from line endings. It does not cover other folders, other packages or data files.

    Raises:
        UserError: if a component from outside does not exist, is not allowed, or has no source file.
    """
    if target.startswith(f"{PACKAGE}."):
        return _declared_revision(target)
    if target.startswith(LIBRARIES):
        return 1
    component = load(target)
    kinds = inspect.getmro(component) if inspect.isclass(component) else (inspect.unwrap(component),)
    modules = dict.fromkeys([target.rpartition(".")[0], *(getattr(kind, "__module__", None) or "" for kind in kinds)])
    known = ("builtins.", "abc.", "typing.", f"{PACKAGE}.", *LIBRARIES)
    outside = [name for name in modules if name and not f"{name}.".startswith(known)]
    return _digest_of(file for name in outside for file in _files(target, name))


@lru_cache(maxsize=256)
def _declared_revision(target: str) -> int:
    """The revision in the source of a component of dmseg; 1 if the component is not found there."""
    module, _, name = target.rpartition(".")
    path = Path(__file__).parents[1].joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_bytes()).body if path.is_file() else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            calls = [item for item in node.decorator_list if isinstance(item, ast.Call)]
            declared = [call for call in calls if ast.unparse(call.func).rpartition(".")[2] == revision.__name__]
            return int(ast.literal_eval(declared[0].args[0])) if declared else 1
        if isinstance(node, ast.ImportFrom) and node.module and node.module != module:
            for alias in node.names:
                if (alias.asname or alias.name) == name and node.module.startswith(f"{PACKAGE}."):
                    return _declared_revision(f"{node.module}.{alias.name}")
    return 1


def module_digest(module: str) -> str:
    """A digest of the source of a loaded module from outside and of the modules that it imports from its own folder.

    Raises:
        UserError: if it has no source file.
    """
    return _digest_of(_files(module, module))


def _digest_of(files: Iterable[Path]) -> str:
    contents = {file: file.read_bytes().replace(b"\r\n", b"\n") for file in files}
    digests = sorted((file.name, hashlib.sha256(content).hexdigest()) for file, content in contents.items())
    return f"sha256:{hashlib.sha256(json.dumps(digests).encode()).hexdigest()}"


def _files(target: str, module: str) -> list[Path]:
    """The file of a module, and the files of its folder that it imports, directly or indirectly."""
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
    """Names of the modules in its own folder that a source file may import."""
    try:
        tree = ast.parse(file.read_bytes() if file.suffix == ".py" else b"")
    except (SyntaxError, ValueError):
        return  # a file that cannot be imported either
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_within(alias.name, package) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level <= 1:
            whole = ".".join(filter(None, [package if node.level else "", node.module]))
            yield from (_within(f"{whole}.{alias.name}", package) for alias in node.names)


def _within(name: str, package: str) -> str:
    """The part of a dotted name that follows a package, up to the next dot; empty for a name outside the package."""
    prefix = f"{package}." if package else ""
    return name.removeprefix(prefix).partition(".")[0] if name.startswith(prefix) else ""
