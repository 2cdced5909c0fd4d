"""What a selection has spent: only what it uses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import running

from workflow.planning import config_checks, selecting
from workflow.study import selection


def study(indicators: list[str]) -> Any:
    """The smoke study with a selection that uses some of its indicators."""
    config = copy.deepcopy(running.SMOKE)
    config["models"][0] = {"train": ["mini_inference"], "recipes": ["full", "lora"]}
    goal = {"tests": ["mini_inference"], "suite": "formats", "budget": {"gpu_hours": 1.0}, "indicators": indicators}
    return config_checks.read(config | {"selection": goal})


@pytest.mark.parametrize(("indicators", "hours"), [(["ppl_clm"], 0.5), (["kshot"], 0.0), ([], 0.0)])
def test_indicators_that_are_not_used_are_no_part_of_the_price(
    indicators: list[str], hours: float, tmp_path: Path
) -> None:
    known = study(indicators)
    names = selection.named(selection.candidates(known).to_numpy())
    assert names
    measured = tmp_path / "results/benchmarks/measure/family=tiny" / f"step={names[0][1]}.tsv"
    measured.parent.mkdir(parents=True)
    measured.write_text("s\th:m:s\n1800.0\t0:30:00\n")
    assert selecting._shared(known, names, tmp_path) == pytest.approx(hours)
