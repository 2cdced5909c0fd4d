"""How much more data would settle a comparison: test rows and seeds that a difference of this size takes (power POWER)."""

from __future__ import annotations

import math

from workflow.statistics import NORMAL, POWER, student_width


def units_needed(difference: float, error: float, units: int, level: float) -> int | None:
    """Return the number of units (test rows, seeds) with which a true difference of this size is found with power POWER.

    difference: as measured; error: its standard error over that many units, which falls with their square root; level: of
    confidence. At least 2. None for a difference of 0, which no number of units would settle, or an unknown error.
    Source: Cohen (1988), "Statistical Power Analysis for the Behavioral Sciences", section 2.4, for a two-sided test.
    """
    if not difference or not math.isfinite(error) or not math.isfinite(difference):
        return None
    width = student_width(level, NORMAL) + student_width(2 * POWER - 1, NORMAL)
    return max(2, math.ceil(units * (width * error / abs(difference)) ** 2))
