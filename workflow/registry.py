"""Modules and tasks that a config selects by name: Tunecast's own, and those of the study in the working directory.

A study can add modules: a Python file in one of the folders of STUDY_FOLDERS, beside the config, counts as a module of that
package. Files that start with `_` hold what several modules of a folder share. Tasks may also be declared in the config itself
(`declare`).
"""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from workflow.errors import StudyError, first_line

# Package -> folder of a study with modules of that package.
STUDY_FOLDERS = {
    "workflow.tasks": "tasks",
    "workflow.evaluation.further": "metrics",
    "workflow.audit.checks": "checks",
    "workflow.report.figures": "figures",
    "workflow.released.readers": "readers",
}


class Declared:
    """The tasks that a study's config declares: its blocks by name, the tasks made from them so far, and the shares of tasks in
    each mix that models are fine-tuned on."""

    def __init__(self, blocks: Mapping[str, Any], mixes: Mapping[str, Mapping[str, float]] | None = None) -> None:
        self.blocks = blocks
        self.mixes = mixes or {}
        self.made: dict[str, Any] = {}


tasks = Declared({})


HANDED_OVER = "_declared"  # key of a config for jobs, which no study writes


def declare(config: Mapping[str, Any]) -> None:
    """Make the tasks of a config the declared tasks of this process; earlier ones are dropped."""
    global tasks
    found = config.get(HANDED_OVER, config)
    tasks = Declared(_plain(found.get("tasks") or {}), _plain(found.get("mixes") or {}))


def hand_over(config: dict[str, Any]) -> None:
    """Add the declared tasks of this process to a config, for the jobs that get it."""
    config[HANDED_OVER] = {"tasks": tasks.blocks, "mixes": tasks.mixes}


def _plain(value: Any) -> Any:
    """A value of a config as plain dicts and lists; a config in JSON has ordered dicts."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value


def modules(package: ModuleType) -> list[str]:
    """Names of the modules in a package and in the study's folder for it, sorted; helpers (`_name.py`) are left out."""
    _open(package)
    names = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return sorted(name for name in names if not name.startswith("_"))


def module(package: ModuleType, name: str) -> ModuleType:
    """The module of a package with this name.

    Errors: StudyError naming file and line where the code of a study's module fails.
    """
    _open(package)
    try:
        return importlib.import_module(f"{package.__name__}.{name}")
    except StudyError:
        raise
    except Exception as error:  # whatever the code of a study raises
        file = path(package, name)
        if file.parent == Path(package.__path__[0]):
            raise
        relative = os.path.relpath(file)
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(relative)
        ]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else 1)
        raise StudyError(f"{relative}, line {line}: {type(error).__name__}: {first_line(error)}") from error


def study_modules(package: ModuleType) -> dict[str, Path]:
    """The modules of the study's folder for a package: name -> file."""
    _open(package)
    return {
        module.name: Path(folder) / f"{module.name}.py"
        for folder in package.__path__[1:]
        for module in pkgutil.iter_modules([folder])
    }


def path(package: ModuleType, name: str) -> Path:
    """The file of a module of a package."""
    _open(package)
    paths = [Path(folder) / f"{name}.py" for folder in package.__path__]
    return next((path for path in paths if path.is_file()), paths[0])


def sources(package: ModuleType, name: str) -> list[Path]:
    """The files of a module's code without `.py`, as `content_hashes.of_code` takes them; of a study's module also those that
    modules of its folder share."""
    file = path(package, name)
    of_study = file.parent != Path(package.__path__[0])
    shared = sorted(file.parent.glob("_*.py")) if of_study else []
    return [each.with_suffix("") for each in (file, *shared)]


def defined(file: Path) -> set[str]:
    """The names that a Python file defines or imports at its top level, read without running it.

    Errors: StudyError naming the line that is not Python.
    """
    try:
        body = ast.parse(file.read_text(encoding="utf-8")).body
    except SyntaxError as error:
        raise StudyError(
            f"{os.path.relpath(file)}, line {error.lineno}: {type(error).__name__}: {error.msg}"
        ) from error
    names = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = [to for node in body if isinstance(node, ast.Assign) for to in node.targets]
    assigned += [node.target for node in body if isinstance(node, ast.AnnAssign)]
    names |= {to.id for to in assigned if isinstance(to, ast.Name)}
    imported = [alias for node in body if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    return names | {alias.asname or alias.name for alias in imported}


def _open(package: ModuleType) -> None:
    """Add the study's folder to a package's search path."""
    name = STUDY_FOLDERS.get(package.__name__)
    wanted = [os.path.join(os.getcwd(), name)] if name and os.path.isdir(name) else []
    if package.__path__[1:] != wanted:
        package.__path__[1:] = wanted
        importlib.invalidate_caches()


def constant(package: ModuleType, name: str, key: str) -> Any:
    """The literal that a module assigns to a name, read without importing the module, which may take seconds.

    Errors: StudyError if the module does not assign it.
    """
    file = path(package, name)
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == key for to in node.targets):
            return ast.literal_eval(node.value)
    raise StudyError(f"{file}: found no {key}; expected a line `{key} = (...)` with words")
