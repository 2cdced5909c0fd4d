"""Scores of bases and fine-tuned models on each test at each step, in the test's primary metric (arXiv 2408.06663, Figures
6, 7 and 10).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workflow.analysis.evidence import Evidence, estimate
from workflow.statistics import Resampling


def analyse(evidence: Evidence, groups: Mapping[str, Any], resampling: Resampling) -> list[dict[str, Any]]:
    """One row for each model (seeds pooled) and test, with an interval over rows and seeds (`evidence`).

    The estimator is `mean`, n is the number of rows; train `none` is the untouched base.
    """
    return [estimate(level.keys, level, resampling.level, estimator="mean", n=level.n) for level in evidence.levels]
