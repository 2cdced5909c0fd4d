"""A selection through the real Snakefile: within its budget, resumed after a kill with the same decisions, grown in mid-race."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import running
from running import SMOKE

from workflow.storage import tables

pytestmark = [pytest.mark.slow]

BUDGET = 3  # of 6 candidates
GOAL = {"tests": ["mini_inference"], "suite": "formats", "budget": {"tunings": BUDGET}, "epsilon": 0.001, "seed": 1}


def study(**selection: Any) -> dict[str, Any]:
    """The smoke study with three bases and two recipes, and one indicator of each sort."""
    config = copy.deepcopy(SMOKE)
    config["families"]["tiny"]["steps"] = [0, 10, 20]
    config["models"] = [{"train": ["mini_inference"], "recipes": ["full", "lora"]}]
    config["suites"] = {"formats": config["suites"]["formats"] | {"formats": ["default"], "shots": [0]}}
    config["indicators"] = {"ppl_clm": config["indicators"]["ppl_clm"]}
    del config["cohorts"], config["groups"]
    return config | {"figures": [], "summaries": [], "selection": GOAL | selection}


def chosen(place: Path) -> list[list[Any]]:
    """What the rounds chose, in order."""
    folder = place / "study/results/selection"
    numbers = sorted(int(path.name.removeprefix("round=")) for path in folder.glob("round=*"))
    return [one for n in numbers for one in tables.recorded(folder / f"round={n}/part.parquet")["batch"]]


def tuned(place: Path) -> dict[str, float]:
    """The tuned models, each with the date of its history."""
    folder = place / "study/results/histories"
    return {str(path.relative_to(folder)): path.stat().st_mtime for path in folder.rglob("*.parquet")}


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A selection that has run to its end."""
    place = running.lay_out(tmp_path_factory.mktemp("selected") / "place", study())
    ended = running.run(place, "select")
    assert ended.returncode == 0, ended.stderr
    return place


def test_a_selection_stays_within_its_budget(selected: Path) -> None:
    results = selected / "study/results"
    assert len(chosen(selected)) == BUDGET == len(tuned(selected))
    table = tables.read(results / "selection.parquet")
    assert len(table) == 6 and list(table["state"]).count("pick") == 1
    assert set(table.loc[table["value"].notna(), "state"]) == {"pick", "tuned"}
    assert len(table[table["value"].notna()]) == BUDGET
    best = table.loc[table["state"] == "pick"].iloc[0]
    said = (results / "selection.md").read_text()
    assert f"step {best['step']} with {best['recipe']}" in said and "3 of 6 tuned" in said and "GPU-hours" in said


def test_the_tables_hold_what_was_chosen_and_miss_nothing(selected: Path) -> None:
    ended = running.run(selected, "results/scores.parquet", "results/audit.parquet")
    assert ended.returncode == 0, ended.stderr
    scores = tables.read(selected / "study/results/scores.parquet")
    models = scores.loc[scores["recipe"] != "none", ["family", "step", "recipe"]].drop_duplicates()
    assert sorted(models.to_numpy().tolist()) == sorted(chosen(selected))
    assert running.run(selected, "results/recommendations.parquet").returncode == 0
    said = tables.read(selected / "study/results/recommendations.parquet")["statement"]
    assert said.str.contains("not fine-tuned, since the selection did not choose").any()
    audit = tables.read(selected / "study/results/audit.parquet")
    assert not audit["evidence"].str.startswith(("hole", "gaps")).any()


def test_a_full_run_tunes_the_rest_alone(selected: Path) -> None:
    config = running.configured(selected)
    try:
        running.configure(selected, {key: value for key, value in config.items() if key != "selection"})
        assert running.planned(selected)["tune"] == 6 - BUDGET
    finally:
        running.configure(selected, config)


def test_next_proposes_what_select_does(selected: Path) -> None:
    more = study(budget={"tunings": BUDGET + 1})
    before = running.configured(selected)
    try:
        running.configure(selected, more)
        shown = running.run(selected, "next")
        assert shown.returncode == 0, shown.stderr
        table = tables.read(selected / "study/results/selection/next.parquet")
        assert list(table["state"]).count("next") == 1 and len(tuned(selected)) == BUDGET
        assert running.planned(selected, "select")["decide"] == 1, "the last round is asked again, no other"
    finally:
        running.configure(selected, before)


@pytest.mark.parametrize("target", ["select", "next"])
def test_without_a_block_the_config_is_named(target: str, selected: Path) -> None:
    config = running.configured(selected)
    try:
        running.configure(selected, {key: value for key, value in config.items() if key != "selection"})
        ended = running.run(selected, target)
        assert ended.returncode == 1
        assert ended.stderr.splitlines()[-1] == "config.yaml: selection: missing; expected a goal and a budget"
        assert "Traceback" not in ended.stderr
    finally:
        running.configure(selected, config)


@pytest.mark.faults
def test_a_killed_selection_goes_on_as_if_nothing_had_happened(selected: Path, tmp_path: Path) -> None:
    place = running.lay_out(tmp_path / "place", study())
    for seconds in (0.5, 1.5, 3.0, 5.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0):
        process = subprocess.Popen(
            running.command(place, "select"), cwd=place, env=running.ENVIRONMENT, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done = tuned(place)
        running.run(place, "--unlock")
        assert done.items() <= tuned(place).items(), "nothing is tuned twice"
    before = tuned(place)
    ended = running.run(place, "select")
    assert ended.returncode == 0, ended.stderr
    assert chosen(place) == chosen(selected)
    assert before.items() <= tuned(place).items() and len(tuned(place)) == BUDGET


@pytest.mark.faults
def test_a_base_added_in_mid_race_costs_what_it_needs(tmp_path: Path) -> None:
    config = study()
    config["families"]["tiny"]["steps"] = [10, 20]
    place = running.lay_out(tmp_path / "place", config)
    assert running.run(place, "select").returncode == 0
    before, first = tuned(place), chosen(place)
    running.configure(place, study(budget={"tunings": BUDGET + 1}))
    jobs = running.planned(place, "select")
    assert jobs == {"fetch": 1, "measure": 1, "decide": 1, "select": 1}
    assert running.run(place, "select").returncode == 0
    assert before.items() <= tuned(place).items() and len(tuned(place)) == BUDGET + 1
    assert chosen(place)[:BUDGET] == first
