"""Modules from outside the package whose components a configuration may name: found, imported, and taken out again.

Only the command line names plugins. Everything else (YAML files, stored runs, plans, exports) may refer to their
components, which are refused as long as the plugin is not in use.
"""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

from dmseg.config.code_version import module_digest
from dmseg.config.components import MODULES, PACKAGES
from dmseg.errors import UserError, cut

_IN_USE: dict[str, "Plugin"] = {}
_FOLDERS: list[str] = []  # that were added to sys.path


@dataclass(frozen=True)
class Plugin:
    """A module from outside the package. It can be pickled, so that other processes load the same one.

    Attributes:
        name: dotted name of the module; the stem of a plugin that is named by its file.
        folder: absolute path of the folder that modules are also imported from, after all others.
        file: absolute path of the file, or None for a plugin that is named as a module.
        digest: of its source, set when it is loaded; empty before.
    """

    name: str
    folder: str
    file: Path | None = None
    digest: str = ""

    def __str__(self) -> str:
        return f"'{self.name}'" if self.file is None else str(self.file)


def find_plugins(names: Sequence[str]) -> list[Plugin]:
    """Finds plugins without importing them.

    Args:
        names: modules by their dotted names (``my_package.losses``), and files by their paths (``losses/focal.py``).

    Raises:
        UserError: if there is no such file, or a name cannot be the name of a plugin.
    """
    plugins: dict[str, Plugin] = {}
    for name in names:
        is_file = name.endswith(".py") or "/" in name
        plugin = _from_file(name) if is_file else Plugin(name, str(Path.cwd()))
        other = plugins.setdefault(plugin.name, plugin)
        if other != plugin:
            raise UserError(f"plugins {other} and {plugin} are both the module '{plugin.name}'; rename one of them")
        _check_name(plugin)
    return list(plugins.values())


def use_plugins(plugins: Sequence[Plugin]) -> None:
    """Loads plugins and allows their components; others that are in use are dropped, the same ones are kept.

    Args:
        plugins: the plugins. One with a digest must still have the same source.

    Raises:
        UserError: if one cannot be imported, or its source has changed.
    """
    wanted = {plugin.name: plugin for plugin in plugins}
    for name, plugin in list(_IN_USE.items()):
        if wanted.get(name) not in (plugin, replace(plugin, digest="")):
            MODULES.discard(name)
            sys.modules.pop(name, None)
            del _IN_USE[name]
    _import_from([plugin.folder for plugin in plugins])
    for plugin in plugins:
        if plugin.name not in _IN_USE:
            _load(plugin)
            digest = module_digest(plugin.name)
            if plugin.digest not in ("", digest):
                raise _changed(plugin)
            _IN_USE[plugin.name] = replace(plugin, digest=digest)
            MODULES.add(plugin.name)


def _import_from(folders: Sequence[str]) -> None:
    """Adds folders to the end of Python's path, so that they hide no installed module; takes earlier ones out."""
    for folder in _FOLDERS:
        sys.path.remove(folder)
    _FOLDERS[:] = [folder for folder in dict.fromkeys(folders) if folder not in sys.path]
    sys.path.extend(_FOLDERS)
    importlib.invalidate_caches()


def plugins_in_use() -> tuple[Plugin, ...]:
    """The plugins that this process has loaded, each with its digest."""
    return tuple(_IN_USE.values())


def check_plugins_unchanged() -> None:
    """Compares the source of the plugins with what was loaded: run ids are computed from the source.

    Raises:
        UserError: if one has changed.
    """
    for plugin in _IN_USE.values():
        if module_digest(plugin.name) != plugin.digest:
            raise _changed(plugin)


def _changed(plugin: Plugin) -> UserError:
    return UserError(f"plugin {plugin} has changed since the command started; run the command again")


def _from_file(name: str) -> Plugin:
    path = Path(name).expanduser().absolute()
    if path.is_dir():
        raise UserError(f"plugin {name} is a folder; name a .py file, or a package by its dotted name")
    if not path.is_file():
        raise UserError(f"plugin {path} does not exist; give the path of a Python file, from the current folder")
    if path.suffix != ".py" or path.stem == "__init__":
        raise UserError(f"plugin {name} must be a .py file; name a package by its dotted name")
    return Plugin(path.stem, str(path.parent), path)


def _check_name(plugin: Plugin) -> None:
    """Refuses names that no component can have, and those of other modules."""
    top = plugin.name.partition(".")[0]
    if not all(part.isidentifier() and not part.startswith("_") for part in plugin.name.split(".")):
        how = "rename it: letters, digits and '_', no leading '_'" if plugin.file else "give a .py file or a module"
        raise UserError(f"plugin {cut(str(plugin))} has no name that Python can import; {how}")
    if top in PACKAGES or top in sys.stdlib_module_names:
        raise UserError(f"plugin {plugin} has the name of a module of Python, dmseg or its libraries; rename it")
    local = plugin.file or next((path for path in _local(plugin) if path.is_file()), None)
    found = sys.modules.get(top) if top in sys.modules else importlib.util.find_spec(top)
    origin = Path(getattr(found, "__file__", None) or getattr(found, "origin", None) or "")
    if local is not None and origin.is_file() and not local.samefile(origin):
        raise UserError(f"plugin {local} has the name of the installed module '{top}' ({origin}); rename it")


def _local(plugin: Plugin) -> tuple[Path, Path]:
    """Where the current folder would hold a module that is named by its dotted name."""
    top = Path(plugin.folder, plugin.name.partition(".")[0])
    return top.with_suffix(".py"), top / "__init__.py"


def _load(plugin: Plugin) -> None:
    try:
        if plugin.file is None:
            module = importlib.import_module(plugin.name)
        else:
            loader = _SourceLoader(plugin.name, str(plugin.file))
            spec = importlib.util.spec_from_loader(plugin.name, loader)
            assert spec is not None
            sys.modules[plugin.name] = module = importlib.util.module_from_spec(spec)
            loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(plugin.name, None)
        missing = isinstance(error, ModuleNotFoundError) and f"{plugin.name}.".startswith(f"{error.name}.")
        if missing and plugin.file is None:
            where = f"neither installed nor in the current folder ({plugin.folder})"
            raise UserError(f"there is no module '{plugin.name}' for plugins: it is {where}") from None
        said = cut(" ".join(str(error).splitlines()[:1]), 300)
        raise UserError(f"plugin {plugin} fails{_line(plugin, error)}: {type(error).__name__}: {said}") from None
    if getattr(module, "__file__", None) is None:
        sys.modules.pop(plugin.name, None)
        raise UserError(f"plugin {plugin} is a folder without __init__.py; name a module in it, or a .py file")


class _SourceLoader(SourceFileLoader):
    """Compiles the file each time: cached bytecode is compared by whole seconds, digests are of the source."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _line(plugin: Plugin, error: BaseException) -> str:
    """The line of a plugin's own file that an error comes from; a syntax error says it itself."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(plugin.file)]
    return f" in line {lines[-1]}" if lines else ""
