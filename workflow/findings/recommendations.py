"""Which base to tune for a task, in the words of the table of recommendations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

SECTION = "answer"
READS = ("recommendations",)
TOPICS = ("answer", "cheapest", "pretraining")  # of the others, one for each base or indicator, the table has a page
KEPT = ("statement", "value", "low", "high", "n", "table", "filter")


def find(material: Any) -> Iterator[dict[str, Any]]:
    """The recommendations of some topics as findings, in their order."""
    table = material.tables["recommendations"]
    for row in table[table["topic"].isin(TOPICS)].to_dict("records"):
        yield {name: row[name] for name in KEPT}
