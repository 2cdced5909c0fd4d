"""The chapters of a study's report in reading order: the answer first, then the evidence."""

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
    """Name of a chapter with its number, since Snakemake's report orders chapters by name."""
    return f"{list(SECTIONS).index(section) + 1} {SECTIONS[section]}"
