"""Change by fine-tuning on each test at each step: fine-tuned minus base, in points of the test's primary metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workflow.analysis.evidence import Evidence, estimate
from workflow.statistics import Resampling


def analyse(evidence: Evidence, groups: Mapping[str, Any], resampling: Resampling) -> list[dict[str, Any]]:
    """One row for each fine-tuned model (seeds pooled) and test, with interval and p-value over rows and seeds (`evidence`).

    The estimator is `difference_of_means`, n is the number of rows; base and fine-tuned model are compared row by row if
    rows are known.
    """
    facts = {"estimator": "difference_of_means"}
    return [estimate(change.keys, change, resampling.level, **facts, n=change.n) for change in evidence.changes]
