"""What a selection knows of a study's scores, what it may spend, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from workflow.choosing import candidates, race
from workflow.choosing.decision import Decision, Goal, Proposal
from workflow.errors import StudyError
from workflow.study.selection import Candidate

BLOCK: Any = {
    "tests": {"mini_inference": ["mini_inference", "mini_facts"]}, "suite": "s", "format": "default", "shots": 0,
    "weights": {"mini_facts": 3.0}, "metric": "accuracy",
}  # fmt: skip
A: Candidate = ("f", 1, "full")
B: Candidate = ("f", 2, "full")
# Right or wrong on four rows of each test, by candidate and seed.
ROWS = {
    (A, 0, "mini_inference"): [1, 1, 0, 0],
    (A, 1, "mini_inference"): [1, 0, 0, 0],
    (B, 0, "mini_inference"): [1, 1, 1, 0],
    (B, 1, "mini_inference"): [1, 1, 1, 1],
    (A, 0, "mini_facts"): [1, 1, 1, 0],
    (A, 1, "mini_facts"): [1, 1, 1, 0],
    (B, 0, "mini_facts"): [0, 0, 1, 0],
    (B, 1, "mini_facts"): [0, 1, 1, 0],
}


def tables(metric: str = "accuracy", seeds: Sequence[int] = (0, 1)) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores and items of ROWS, as they are gathered."""
    scores, items = [], []
    for ((family, step, recipe), seed, test), values in ROWS.items():
        if seed not in seeds:
            continue
        keys = {"family": family, "step": step, "recipe": recipe, "seed": seed, "train": "mini_inference", "suite": "s"}
        keys |= {"test": test, "test_format": "default", "shots": 0, "metric": metric, "primary": True}
        scores.append(keys | {"value": float(np.mean(values))})
        items += [keys | {"id": str(row), "value": float(value)} for row, value in enumerate(values)]
    return pd.DataFrame(scores), pd.DataFrame(items)


def test_a_score_is_the_weighted_mean_over_tests_and_the_mean_over_seeds() -> None:
    found = race.measured(BLOCK, [A, B], *tables())
    # A: (0.375 * 1 + 0.75 * 3) / 4; B: (0.875 * 1 + 0.375 * 3) / 4
    assert found.values == pytest.approx([0.65625, 0.5])
    assert found.seeds == 2 and found.allowed.all()


def test_noise_is_the_covariance_of_row_means_and_what_seeds_add() -> None:
    rows = {test: np.array([[1, 0.5, 0, 0], [1, 1, 1, 0.5]]) for test in ("mini_inference",)}
    rows["mini_facts"] = np.array([[1, 1, 1, 0], [0, 0.5, 1, 0]])
    means = {test: own - own.mean(axis=1, keepdims=True) for test, own in rows.items()}
    over_rows = sum(w**2 * means[t] @ means[t].T / 3 / 4 for t, w in (("mini_inference", 0.25), ("mini_facts", 0.75)))
    # Scores by seed: A 0.6875 and 0.625; B 0.375 and 0.625. Variances 0.00195.. and 0.03125, their mean over two seeds.
    between = (0.0625**2 / 2 + 0.25**2 / 2) / 2 / 2
    found = race.measured(BLOCK, [A, B], *tables())
    assert found.noise == pytest.approx(over_rows + between * np.eye(2))
    single = race.measured(BLOCK, [A, B], *tables(seeds=[0]))
    rows = {
        "mini_inference": np.array([[1, 1, 0, 0], [1, 1, 1, 0]]),
        "mini_facts": np.array([[1, 1, 1, 0], [0, 0, 1, 0]]),
    }
    expected = 0.25**2 * np.cov(rows["mini_inference"]) / 4 + 0.75**2 * np.cov(rows["mini_facts"]) / 4
    assert single.seeds == 1 and single.noise == pytest.approx(expected), "of one seed the rows' noise alone"


def test_a_metric_of_which_lower_is_better_counts_negatively() -> None:
    block = BLOCK | {"metric": "toxicity"}
    assert race.measured(block, [A, B], *tables("toxicity")).values == pytest.approx([-0.65625, -0.5])


def test_a_score_that_is_missing_is_an_error() -> None:
    scores, items = tables()
    with pytest.raises(StudyError, match="no score of 'mini_facts' after fine-tuning on 'mini_inference'"):
        race.measured(BLOCK, [A], scores[scores["test"] != "mini_facts"], items)


def test_the_floor_holds_where_a_score_falls_by_no_more() -> None:
    scores, items = tables()
    untouched = scores[scores["seed"] == 0].assign(train="none", recipe="none", value=0.8)
    block = BLOCK | {"floor": {"tests": ["mini_facts"], "loss": 0.1}}  # A has 0.75 after fine-tuning, B 0.375
    found = race.measured(block, [A, B], pd.concat([scores, untouched]), items)
    assert found.allowed.tolist() == [True, False]


def decided(*batch: Proposal, pick: int | None = 0) -> Decision:
    return Decision(pick, np.array([0.8, 0.7, 0.6]), np.full(3, 0.1), 0.04, 0.06, [2], False, list(batch))


@pytest.mark.parametrize(
    ("tunings", "hours", "places"),
    [(3, np.inf, [0]), (4, np.inf, [0, 1]), (np.inf, 5.5, []), (np.inf, 6.0, [0]), (np.inf, 9.0, [0, 1]), (2, 9.0, [])],
)
def test_a_batch_is_cut_to_the_budget(tunings: float, hours: float, places: list[int]) -> None:
    budget = race.Budget(tunings, hours, spent=5.0, all_hours=20.0, measured=True)
    batch = Proposal(1, 0.1, 50.0), Proposal(2, 0.1, 50.0)  # estimates; measurements say that they cost less
    assert budget.affordable(decided(*batch), tuned=2, expected=[9.0, 1.0, 3.0]) == places


def test_the_sentence_has_score_error_and_cost() -> None:
    names = [A, B, ("g", 5, "lora")]
    facts = race.Measured([A, B], np.array([0.812, 0.7]), np.diag([0.0051**2] * 2), 2, np.ones(2, dtype=bool))
    budget = race.Budget(9, np.inf, spent=31.0, all_hours=110.0, measured=True)
    assert race.sentence(decided(), names, facts, Goal(0.01, 0.05, 0), budget, "settled") == (
        "Tune f at step 1 with full: 0.812 ± 0.010; the probability that another of the 3 candidates is better by more than "
        "0.01 is 0.04; 2 of 3 tuned, 31 of 110 GPU-hours; tuning all would change the pick with probability 0.06. "
        "The answer is settled."
    )


def test_with_few_tuned_the_best_of_them_is_named_without_a_probability() -> None:
    facts = race.Measured([A, B], np.array([0.8, 0.7]), np.diag([0.01**2] * 2), 1, np.ones(2, dtype=bool))
    unknown = np.full(3, np.nan)
    begun = Decision(0, unknown, unknown, 1.0, 1.0, [], False, [])
    budget = race.Budget(2, np.inf, spent=0.0, all_hours=0.0, measured=False)
    said = race.sentence(begun, [A, B, ("g", 5, "lora")], facts, Goal(0.01, 0.05, 0), budget, "budget")
    assert said == (
        "The best of 2 tuned candidates is f at step 1 with full, 0.800 ± 0.020; too few to say anything of the others; "
        "2 of 3 tuned. The budget is spent. One seed each: this is about these tuned models."
    )


def test_a_candidate_below_the_floor_is_never_the_pick() -> None:
    known = candidates.described(list("abcd"), {"i": [1.0, 2.0, 3.0, 4.0]}, {})
    names: list[Candidate] = [("f", step, "full") for step in range(4)]
    values, allowed = np.array([0.5, 0.6, 0.7, 0.9]), np.array([True, True, True, False])
    facts = race.Measured(names, values, np.zeros((4, 4)), 2, allowed)
    assert race.judged(known, facts, names, Goal(0.01, 0.05, 0), 1).pick == 2
