"""What tuning changes on each test at each step: tuned minus base, in points of the test's primary metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from workflow.comparison import Evidence, estimate
from workflow.statistics import Resampling, p_value


def analyse(evidence: Evidence, groups: Mapping[str, Any], how: Resampling) -> list[dict[str, Any]]:
    """One row for each tuned model (seeds pooled) and test; rows, and seeds where there are several, are resampled.

    The estimator is `difference_of_means`, n counts rows; base and tuned model are compared row by row where rows are known.
    """
    return list(_rows(evidence, how))


def _rows(evidence: Evidence, how: Resampling) -> Iterator[dict[str, Any]]:
    for change in evidence.changes:
        resampled = change.resampled(how) if change.uncertain else None
        tested = None if resampled is None else p_value(resampled)
        facts = {"estimator": "difference_of_means", "n": change.n, "p_value": tested}
        yield estimate(change.keys, change.value, resampled, how, **facts)
