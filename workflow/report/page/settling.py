"""What would settle a choice between the two best checkpoints: more seeds, more test rows."""

from __future__ import annotations

from typing import Any

import pandas as pd

from workflow.analysis.power import units_needed
from workflow.report.page.answers import Answer

SEEDS = 3  # to begin with, where the variance between seeds is unknown


def settling(answer: Answer) -> str:
    """What would settle the choice, as a sentence."""
    if len(answer.bases) < 2:
        return "Fine-tune other checkpoints as well; there is nothing to compare with."
    if answer.constant or answer.trivial:
        return "First get a model that beats the baseline. More test rows do not help."
    clear = answer.top["probability"] >= answer.inputs.level and len(answer.tied) == 1
    if answer.tuned and answer.seeds < 2:
        # Rows alone cannot settle it, so their number is not named beside this.
        return f"{SEEDS} seeds or more for each checkpoint; one seed does not show how much seeds differ."
    if clear:
        return "Settled at the level of the intervals."
    parts = [text for text in (_seeds(answer), _rows(answer)) if text]
    if len(answer.tied) > 1:
        return "The best are equal here; choose by cost."
    if not parts:
        return "More test rows or seeds; how many cannot be computed without scores of single rows."
    return f"To separate the best two: {' and '.join(parts)}."


def _rows(answer: Answer) -> str | None:
    """The number of test rows that the difference of the best two would take, from their paired rows."""
    paired = _paired(answer)
    if paired is None or len(paired) < 2:
        return None
    needed = units_needed(paired.mean(), paired.std(ddof=1) / len(paired) ** 0.5, len(paired), answer.inputs.level)
    return None if needed is None else f"{needed:,} test rows (now {len(paired):,})"


def _paired(answer: Answer) -> pd.Series | None:
    """Difference of the best two on each test row, seeds averaged."""
    first, second = (_row_values(answer, base) for base in answer.bases[:2])
    return None if first is None or second is None else (first - second).dropna()


def _row_values(answer: Answer, base: dict[str, Any]) -> pd.Series | None:
    """The metric on each row, a mean over seeds."""
    where = answer.where | {"family": base["family"], "step": int(base["step"])}
    seeds = answer.scored.loc[answer.scored["step"] == base["step"], "seed"].unique()
    keys = {name: where[name] for name in ("test", "test_format", "shots", "metric")}
    parts = [answer.inputs.cell_rows("items", where | {"seed": seed}, keys) for seed in seeds]
    rows = pd.concat(parts) if parts else pd.DataFrame()
    return rows.groupby("id")["value"].mean() if len(rows) else None


def _seeds(answer: Answer) -> str | None:
    """The number of seeds for each checkpoint that the difference of the best two would take, rows as they are."""
    if answer.seeds < 2:
        return None
    groups = answer.scored.groupby(["family", "step"])["value"]
    freedom = float((groups.size() - 1).sum())
    variance = float((groups.var(ddof=1) * (groups.size() - 1)).sum()) / freedom
    difference = answer.bases[0]["value"] - answer.bases[1]["value"]
    error = (2 * variance / answer.seeds) ** 0.5
    needed = units_needed(difference, error, answer.seeds, answer.inputs.level)
    return None if needed is None else f"{needed:,} seeds each (now {answer.seeds})"
