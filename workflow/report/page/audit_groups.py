"""The audit by severity and kind: a line for each kind with its number, and the evidence below it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from workflow import registry
from workflow.audit import checks
from workflow.report import pages
from workflow.report.page.inputs import PageInputs

SEVERITIES = {"error": "Errors", "warning": "Warnings", "note": "Notes"}
SHOWN = 12  # pieces of evidence of a kind; the table of the audit has all
LONGEST = 400  # characters of a piece of evidence


@dataclass(frozen=True)
class Kind:
    """A kind of audit finding. about: what the check looks for; beyond: the number of pieces of evidence that are not shown."""

    name: str
    about: str
    number: int
    evidence: list[str]
    beyond: int


def audit_groups(inputs: PageInputs) -> Iterator[tuple[str, str, list[Kind]]]:
    """Each severity with its name and its kinds, the most frequent first."""
    audit = inputs.table("audit")
    for severity, name in SEVERITIES.items():
        rows = audit[audit["severity"] == severity] if len(audit) else audit
        if len(rows):
            counts = rows["check"].value_counts()
            yield (
                severity,
                name,
                [_kind(check, rows[rows["check"] == check]["evidence"].tolist()) for check in counts.index],
            )


def _kind(check: str, evidence: list[str]) -> Kind:
    """One kind."""
    texts = [shortened(text) for text in evidence[:SHOWN]]
    about = pages.title(registry.module(checks, check)) if check in registry.modules(checks) else ""
    return Kind(check.replace("_", " "), about, len(evidence), texts, max(0, len(evidence) - SHOWN))


def shortened(text: str) -> str:
    """A text of LONGEST characters at most."""
    return text if len(text) <= LONGEST else text[: LONGEST - 2].rstrip() + " …"
