"""What tuning changes on each test at each step: tuned minus base, in points of the test's primary metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workflow.analysis.evidence import Evidence, estimate
from workflow.statistics import Resampling


def analyse(evidence: Evidence, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """One row for each tuned model (seeds pooled) and test, its interval and p-value over rows and seeds (`evidence`).

    The estimator is `difference_of_means`, n counts rows; base and tuned model are compared row by row where rows are known.
    """
    facts = {"estimator": "difference_of_means"}
    return [estimate(change.keys, change, how.level, **facts, n=change.n) for change in evidence.changes]
