"""Which base to tune for a task, in the words of the table of recommendations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

SECTION = "answer"
READS = ("recommendations",)
KEPT = ("statement", "value", "low", "high", "n", "table", "filter")


def find(material: Any) -> Iterator[dict[str, Any]]:
    """Every recommendation as a finding, in its order."""
    for row in material.tables["recommendations"].to_dict("records"):
        yield {name: row[name] for name in KEPT}
