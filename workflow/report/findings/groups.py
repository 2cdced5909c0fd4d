"""Changes by tuning averaged over each group of the study, at the last step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.report import selection
from workflow.report.findings import FindingTables, about, finding

SECTION = "tuned"
READS = ("analysis",)
KEYS = ["analysis", "group", "family", "step", "recipe", "suite", "test_format", "shots", "estimator"]


def find(material: FindingTables) -> Iterator[dict[str, Any]]:
    """One finding for each group, family, suite and recipe."""
    rows = material.last(material.rows("performance_difference", "difference_of_means"))
    verdicts = material.verdicts(rows, pooled=True)
    for index, row in rows.iterrows():
        text = (
            f"Group {selection.named(row['group'])}{about(rows, row, 'recipe')}: tuned minus base is "
            f"{material.interval(row)} on average over {int(row['n'])} tests{_doubled(material, row['group'])} at step "
            f"{int(row['step'])}: {verdicts[index]}."
        )
        yield finding(text, row, KEYS)


def _doubled(material: FindingTables, group: str) -> str:
    """The tests that a group lists several times, so that they weigh more in its mean."""
    lists = material.groups.get(group, {}).values()
    counts = {test: max(list(tests).count(test) for tests in lists) for tests in lists for test in tests}
    several = [f"{test} counts {count} times" for test, count in counts.items() if count > 1]
    return f" ({', '.join(several)})" if several else ""
