"""Modules that a config selects by name: those of one folder, such as tasks, readers, analyses, figures and checks."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

from workflow.errors import StudyError


def modules(package: ModuleType) -> list[str]:
    """Names of the modules in a package, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def module(package: ModuleType, name: str) -> ModuleType:
    """A module of a package by its name."""
    return importlib.import_module(f"{package.__name__}.{name}")


def constant(package: ModuleType, name: str, key: str) -> Any:
    """A literal that a module of a package assigns to a name, read without importing it: what it imports may take seconds.

    Errors: StudyError for a module that assigns none.
    """
    path = next(Path(folder) / f"{name}.py" for folder in package.__path__)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == key for to in node.targets):
            return ast.literal_eval(node.value)
    raise StudyError(f"{path}: found no {key}; expected a line `{key} = (...)` with words")
