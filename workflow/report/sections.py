"""The chapters of a study's report, in reading order: the answer first, then what it rests on."""

from __future__ import annotations

SECTIONS = {
    "answer": "Answer",
    "base": "Untouched bases",
    "tuned": "Tuned and base",
    "transfer": "Forgetting and transfer",
    "formats": "Formats",
    "forecasts": "Forecasts",
    "audit": "Audit",
    "cost": "Cost",
    "study": "Study and tables",
}


def title(section: str) -> str:
    """A chapter's name led by its number, since the report orders chapters by name."""
    return f"{list(SECTIONS).index(section) + 1} {SECTIONS[section]}"
