"""Plugins: modules from outside the package that define components.

Plugins can be named on the command line only. YAML files, stored runs, plans and exports may refer to their components,
which are refused unless the plugin is in use.
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
from dmseg.errors import UserError, cut, first_line
from dmseg.files.names import expand_home

_IN_USE: dict[str, "Plugin"] = {}
_FOLDERS: list[str] = []  # added to sys.path


@dataclass(frozen=True)
class Plugin:
    """A module from outside the package. It can be pickled, so that worker processes load the same one.

    Attributes:
        name: dotted name of the module; for a file, its stem.
        folder: absolute path of a folder to import modules from, after all other folders.
        file: absolute path of the file; None for a module.
        digest: digest of the source; empty until the plugin is loaded.
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
        names: dotted names of modules (``my_package.losses``) or paths of files (``losses/focal.py``).

    Raises:
        UserError: if there is no such file, or a name is not allowed for a plugin.
    """
    plugins: dict[str, Plugin] = {}
    for name in names:
        if name.endswith(".py") or "/" in name:
            path = Path(expand_home(name, "plugins")).absolute()
            if path.is_dir():
                raise UserError(f"plugin {name} is a folder; name a .py file, or a package by its dotted name")
            if not path.is_file():
                raise UserError(
                    f"plugin {path} does not exist; give the path of a Python file, relative to the current folder"
                )
            if path.suffix != ".py" or path.stem == "__init__":
                raise UserError(f"plugin {name} must be a .py file; name a package by its dotted name")
            folder = path.parent.resolve()  # one spelling; a file that is a link keeps its own name and folder
            plugin = Plugin(path.stem, str(folder), folder / path.name)
        else:
            plugin = Plugin(name, str(Path.cwd()))
        other = plugins.setdefault(plugin.name, plugin)
        if other != plugin:
            raise UserError(f"plugins {other} and {plugin} are both the module '{plugin.name}'; rename one of them")
        _check_name(plugin)
    return list(plugins.values())


def use_plugins(plugins: Sequence[Plugin]) -> None:
    """Loads plugins and allows their components; all others are unloaded.

    Args:
        plugins: the plugins; if one has a digest, its source must still be the same.

    Raises:
        UserError: if one cannot be imported, or its source has changed.
    """
    wanted = {plugin.name: plugin for plugin in plugins}
    for name, plugin in list(_IN_USE.items()):
        if wanted.get(name) not in (plugin, replace(plugin, digest="")):
            MODULES.discard(name)
            sys.modules.pop(name, None)
            del _IN_USE[name]
    for folder in _FOLDERS:
        sys.path.remove(folder)
    _FOLDERS[:] = [folder for folder in dict.fromkeys(plugin.folder for plugin in plugins) if folder not in sys.path]
    sys.path.extend(_FOLDERS)  # at the end, where they hide no installed module
    importlib.invalidate_caches()
    for plugin in plugins:
        if plugin.name not in _IN_USE:
            _load(plugin)
            digest = module_digest(plugin.name)
            if plugin.digest not in ("", digest):
                raise _changed(plugin)
            _IN_USE[plugin.name] = replace(plugin, digest=digest)
            MODULES.add(plugin.name)


def plugins_in_use() -> tuple[Plugin, ...]:
    """The plugins that this process has loaded, with their digests."""
    return tuple(_IN_USE.values())


def check_plugins_unchanged() -> None:
    """Checks that the sources of the plugins are still those that were loaded, as run ids depend on them.

    Raises:
        UserError: if one has changed.
    """
    for plugin in _IN_USE.values():
        if module_digest(plugin.name) != plugin.digest:
            raise _changed(plugin)


def _changed(plugin: Plugin) -> UserError:
    return UserError(f"plugin {plugin} has changed since the command started; run the command again")


def _check_name(plugin: Plugin) -> None:
    """Refuses names that cannot be imported, and names of other modules."""
    top = plugin.name.partition(".")[0]
    if not all(part.isidentifier() and not part.startswith("_") for part in plugin.name.split(".")):
        how = "rename it: letters, digits and '_', no leading '_'" if plugin.file else "give a .py file or a module"
        raise UserError(f"plugin {cut(str(plugin))} has no name that Python can import; {how}")
    if top in PACKAGES or top in sys.stdlib_module_names:
        raise UserError(f"plugin {plugin} has the name of a module of Python, dmseg or its libraries; rename it")
    here = Path(plugin.folder, top)
    local = plugin.file or next((p for p in (here.with_suffix(".py"), here / "__init__.py") if p.is_file()), None)
    found = sys.modules.get(top) if top in sys.modules else importlib.util.find_spec(top)
    origin = Path(getattr(found, "__file__", None) or getattr(found, "origin", None) or "")
    if local is not None and origin.is_file() and not local.samefile(origin):
        raise UserError(f"plugin {local} has the name of the installed module '{top}' ({origin}); rename it")


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
        frames = [item for item in traceback.extract_tb(error.__traceback__) if item.filename == str(plugin.file)]
        where = f" in line {frames[-1].lineno}" if frames else ""  # the message of a syntax error names the line
        said = cut(first_line(error, ""), 300)
        raise UserError(f"plugin {plugin} fails{where}: {type(error).__name__}: {said}") from None
    if getattr(module, "__file__", None) is None:
        sys.modules.pop(plugin.name, None)
        raise UserError(f"plugin {plugin} is a folder without __init__.py; name a module in it, or a .py file")


class _SourceLoader(SourceFileLoader):
    """Compiles the file each time, as cached bytecode is outdated only after a second, unlike the digest."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code
