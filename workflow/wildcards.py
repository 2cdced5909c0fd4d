"""Paths that Snakemake takes as they are.

It reads `{name}` in any path as a wildcard, and its patterns have no escape for a brace. A folder of somebody else's, such as
`lr{3e-4}`, would end in a WildcardError that names neither folder nor key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from snakemake import io

LITERAL = "tunecast_literal"
_apply = io._IOFile.apply_wildcards


def respect_literals() -> None:
    """Have Snakemake leave the braces of literal paths alone."""
    io._IOFile.apply_wildcards = _applied


def literal(found: str | Iterable[str]) -> Any:
    """A path or several, for an input function to return: whatever braces they hold are no wildcards."""
    return io.flag(found if isinstance(found, str) else list(found), LITERAL)


def _applied(file: io._IOFile, wildcards: Mapping[str, Any]) -> io._IOFile:
    """A file of a rule with its wildcards filled in, where it has any."""
    return file if io.is_flagged(file._file, LITERAL) else _apply(file, wildcards)
