"""Modules that a config selects by name: those of one folder, such as tasks, readers, analyses, figures and checks."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def modules(package: ModuleType) -> list[str]:
    """Names of the modules in a package, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def module(package: ModuleType, name: str) -> ModuleType:
    """A module of a package by its name."""
    return importlib.import_module(f"{package.__name__}.{name}")
