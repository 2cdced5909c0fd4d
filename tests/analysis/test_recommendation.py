"""Recommendations: chances and regrets with known truth, words that fit them, links that lead to rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from workflow.analysis import best_base, recommendation
from workflow.analysis.evidence import Difference, Reported, Sample
from workflow.errors import StudyError
from workflow.statistics import Resampling
from workflow.storage import tables

HOW = Resampling(2000, 0.95, 0)
ROWS = 200
WAY = {"recipe": "full", "suite": "mini", "test_format": "default", "shots": 0}
NOTHING = pd.DataFrame(columns=[*tables.ANALYSIS.names, "analysis"])


def keys(step: int, train: str = "mini_facts", test: str = "mini_facts", **changes: Any) -> dict[str, Any]:
    own = {"family": "mini", "step": step, "train": train, "format": "default", "test": test}
    return own | WAY | changes


def sample(step: int, share: float, generator: np.random.Generator, seeds: int = 1, **changes: Any) -> Sample:
    """A model that is right on a share of the rows, which ones differs between bases."""
    values = (generator.random((seeds, ROWS)) < share).astype(float)
    return Sample(keys(step, **changes), values, tuple(map(str, range(ROWS))))


def rows(levels: list, picks: dict | None = None, **changes: Any) -> pd.DataFrame:
    settings = {"seconds": {}, "analysis": NOTHING, "limit": 0.02} | changes
    asked = best_base.questions(levels, changes.pop("targets", {}), HOW)
    settings.pop("targets", None)
    return pd.DataFrame(recommendation.recommend(asked, picks or {}, resampling=HOW, **settings))


def one(found: pd.DataFrame, topic: str, **conditions: Any) -> pd.Series:
    own = found[found["topic"] == topic]
    for name, value in conditions.items():
        own = own[own[name] == value]
    (row,) = own.to_dict("records")
    return pd.Series(row)


def test_a_clear_best_is_called_and_equal_ones_are_too_close() -> None:
    generator = np.random.default_rng(0)
    clear = rows([sample(100, 0.5, generator, 3), sample(200, 0.9, generator, 3)])
    answer = one(clear, "answer")
    assert answer["statement"].startswith(
        "mini_facts: tune mini at step 200, the best of 2 bases with probability 1.00"
    )
    close = one(rows([sample(100, 0.8, generator, 3), sample(200, 0.8, generator, 3)]), "answer")
    assert "too close to call" in close["statement"] and close["probability"] < 0.95


def test_an_answer_counts_the_bases_that_a_selection_left_out() -> None:
    generator = np.random.default_rng(0)
    both = [sample(100, 0.5, generator, 3), sample(200, 0.9, generator, 3)]
    place = f"{both[0].keys['train']}/{both[0].keys['recipe']}"
    answer = one(rows(both, not_chosen={place: 4, "other/full": 2}), "answer")
    assert answer["statement"].endswith("; 4 other bases not fine-tuned, since the selection did not choose them.")
    assert "selection" not in one(rows(both, not_chosen={"other/full": 2}), "answer")["statement"]


def lucky(step: int, seeds: int, noise: float, generator: np.random.Generator, score: float = 0.5) -> Sample:
    """A model whose score is that of its seeds, whatever the row."""
    values = np.repeat(generator.normal(score, noise, (seeds, 1)), ROWS, axis=1)
    return Sample(keys(step), values, tuple(map(str, range(ROWS))))


@pytest.mark.slow
def test_of_two_equal_bases_hardly_any_is_called_the_best() -> None:
    """With two seeds each, whose spread is known by two degrees of freedom: .43 by a bootstrap, .10 without shrinkage."""
    generator = np.random.default_rng(0)
    called = [
        max(best_base.questions([lucky(step, 2, 0.03, generator) for step in (1, 2)], {}, HOW)[0].probability)
        for _ in range(400)
    ]
    assert np.mean(np.array(called) >= 0.95) < 0.1


def test_a_base_of_one_seed_has_the_luck_that_others_show() -> None:
    generator = np.random.default_rng(0)
    levels = [lucky(1, 8, 0.03, generator), lucky(2, 8, 0.03, generator), lucky(3, 1, 0.0, generator)]
    (question,) = best_base.questions(levels, {}, HOW)
    spread = np.sqrt(np.mean([level.values[:, 0].var(ddof=1) for level in levels[:2]]))
    low, high = np.quantile(question.resampled[2], [0.025, 0.975])
    assert question.lucky and high - low == pytest.approx(2 * stats.t(14).ppf(0.975) * spread, rel=0.1)


def test_a_base_that_is_right_on_all_rows_is_not_known_for_certain() -> None:
    """40 of 40: the interval of a share, as in the table of scores."""
    ids = tuple(map(str, range(40)))
    found = one(rows([Sample(keys(1), np.ones((1, 40)), ids)]), "answer")
    z = stats.norm.ppf(0.975)
    centre = (40 + z**2 / 2) / (40 + z**2)
    assert (
        found["low"] == pytest.approx(centre - z * np.sqrt(centre * (1 - centre) / (40 + z**2))) and found["high"] == 1
    )


def test_intervals_of_scores_stay_between_0_and_1() -> None:
    ids = tuple(map(str, range(ROWS)))
    seeds = {1: (0.9, 1.0), 2: (0.0, 0.1)}
    found = rows(
        [Sample(keys(step), np.repeat(np.array(own)[:, None], ROWS, axis=1), ids) for step, own in seeds.items()]
    )
    ends = found[found["topic"].isin(["answer", "base"])]
    assert ends["low"].min() == 0 and ends["high"].max() == 1


def test_bases_that_were_scored_on_different_rows_are_refused() -> None:
    levels = [Sample(keys(step), np.ones((1, 2)), ids) for step, ids in ((1, ("a", "b")), (2, ("a", "c")))]
    with pytest.raises(
        StudyError, match=r"^suite mini, test mini_facts: mini at step 1 and mini at step 2 were scored"
    ):
        best_base.questions(levels, {}, HOW)


@pytest.mark.parametrize("spread", [0.005, 0.02, 0.05])
def test_the_chance_to_be_the_best_is_as_often_so_as_it_is_said(spread: float) -> None:
    """Six bases whose true scores spread by half a point to five, known to 1.2 points: .52 was said of .32 at half a point."""
    generator = np.random.default_rng(1)
    said, right = [], []
    for _ in range(150):
        truth = generator.normal(0.5, spread, 6)
        values, errors = truth + generator.normal(0, 0.012, 6), generator.normal(0, 0.012, (6, 400))
        said.append(best_base.chances(values, errors, errors)[values.argmax()])
        right.append(truth.argmax() == values.argmax())
    assert np.mean(said) == pytest.approx(np.mean(right), abs=3 * np.std(right) / np.sqrt(150))


def test_chances_by_hand_where_little_is_left_to_chance() -> None:
    """Errors of .001: .1 ahead is certain. The same score thrice, without any error: a third each."""
    errors = np.random.default_rng(0).normal(0, 0.001, (3, 500))
    assert best_base.chances(np.array([0.5, 0.6, 0.4]), errors, errors).tolist() == [0, 1, 0]
    even = np.zeros((3, 500))
    assert best_base.chances(np.full(3, 0.5), even, even).tolist() == pytest.approx([1 / 3] * 3)


def test_a_tie_is_called_a_tie() -> None:
    """.458 and .458 with one base behind, right on other rows each."""
    rng = np.random.default_rng(0)
    shares = {10: 0.455, 20: 0.455, 40: 0.3}
    values = {
        step: np.stack([rng.permutation(np.arange(ROWS) < s * ROWS) for _ in range(2)]) for step, s in shares.items()
    }
    ids = tuple(map(str, range(ROWS)))
    answer = one(rows([Sample(keys(step), own.astype(float), ids) for step, own in values.items()]), "answer")
    assert "too close to call. Highest score: mini at step 10 and mini at step 20, 0.455 (" in answer["statement"]
    assert "each; probability to be the best 0." in answer["statement"] and "each. Not" in answer["statement"]
    assert answer["statement"].endswith("Not significantly worse: none.")  # a tied base is not listed again
    single = one(rows([Sample(keys(step), own[:1].astype(float), ids) for step, own in values.items()]), "answer")
    assert "Highest score: mini at step 10 and mini at step 20, 0.455 (" in single["statement"]


def test_bases_are_compared_row_by_row() -> None:
    """Two bases that differ on few rows: the difference has a standard error far below that of either score."""
    values = np.zeros((2, ROWS))
    values[:, :150] = 1
    values[0, 150:160] = 1
    values[1, 160:165] = 1
    levels = [
        Sample(keys(step), row[None], tuple(map(str, range(ROWS)))) for step, row in zip((1, 2), values, strict=True)
    ]
    difference = values[0] - values[1]
    z = difference.mean() / (difference.std() / np.sqrt(ROWS))
    chance = one(rows(levels), "answer")["probability"]
    unpaired = 0.025 / np.sqrt(2 * 0.16 / ROWS)  # .63 standard errors, as if the rows were not the same
    assert stats.norm.cdf(unpaired) < chance < stats.norm.cdf(z)  # .73 and .90: shrunk a little
    base = one(rows(levels), "base", step=1)
    assert base["value"] == pytest.approx(0.8) and base["low"] == pytest.approx(0.8 - 1.96 * 0.4 / ROWS**0.5, abs=0.01)


def test_identical_bases_share_the_chance() -> None:
    values = np.ones((1, ROWS))
    levels = [Sample(keys(step), values, tuple(map(str, range(ROWS)))) for step in (1, 2, 3, 4)]
    assert one(rows(levels), "answer")["probability"] == pytest.approx(0.25)


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_identical_bases_are_no_evidence_that_a_base_far_below_them_is_the_best(share: float) -> None:
    """Four bases with the same result on all rows, one that is wrong on 15 % of rows more: more than five standard errors."""
    right = np.arange(ROWS) < share * ROWS
    worse = right & (np.arange(ROWS) >= 0.15 * ROWS)
    ids = tuple(map(str, range(ROWS)))
    levels = [Sample(keys(step), right[None].astype(float), ids) for step in (1, 2, 4, 5)]
    levels.append(Sample(keys(3), worse[None].astype(float), ids))
    (question,) = best_base.questions(levels, {}, HOW)
    assert dict(zip(question.bases, question.probability.round(3), strict=True)) == {
        ("mini", step): 0.0 if step == 3 else 0.25 for step in (1, 2, 3, 4, 5)
    }


def test_regret_of_a_pick_is_what_it_loses_and_ties_are_averaged() -> None:
    generator = np.random.default_rng(0)
    levels = [sample(step, share, generator, 3) for step, share in ((1, 0.5), (2, 0.9), (3, 0.7))]
    scores = [level.value for level in levels]
    bases = [("mini", step) for step in (1, 2, 3)]
    picks = {
        "right": dict(zip(bases, (0, 1, 0), strict=True)),
        "wrong": dict(zip(bases, (1, 0, 0), strict=True)),
        "tied": dict(zip(bases, (0, 1, 1), strict=True)),
        "partial": {bases[0]: 1.0},
    }
    found = rows(levels, picks, seconds={"right": 30.0, "tied": 5.0})
    regrets = {name: one(found, "regret", indicator=name) for name in ("right", "wrong", "tied", "chance", "last_step")}
    losses = [0, scores[1] - scores[0], (scores[1] - scores[2]) / 2, scores[1] - np.mean(scores), scores[1] - scores[2]]
    for row, loss in zip(regrets.values(), losses, strict=True):
        assert row["measured"] == pytest.approx(loss)
        assert row["value"] == pytest.approx(loss, abs=1e-6)  # so clear a best has nothing to correct
        assert row["low"] <= row["value"] <= row["high"]
    assert "partial" not in set(found["indicator"])  # a base that it says nothing of might have been the pick
    cheapest = one(found, "cheapest")["statement"]
    assert "of 3 indicators, right is the cheapest whose pick loses at most 0.02 (30 s per base for all" in cheapest
    assert cheapest.endswith(
        "; picking the last step costs nothing and loses 0.217 (95 % CI 0.157 to 0.263); left out, since not measured on all "
        "bases: partial."
    )
    assert one(rows(levels, picks, seconds={"right": 30.0, "tied": 5.0}, limit=0.5), "cheapest")["indicator"] == "tied"
    none = one(rows(levels, {"wrong": picks["wrong"]}), "cheapest")
    assert "no indicator loses at most 0.02; wrong loses least, 0." in none["statement"]


def test_a_pick_among_equal_bases_is_not_said_to_lose_what_noise_gives_the_best() -> None:
    """Eight equal bases: the best of them measures some .05 above the first; that is .00 before it is cut at 0."""
    generator = np.random.default_rng(0)
    picks = {"first": {("mini", step): -float(step) for step in range(8)}}
    found = pd.DataFrame(
        [
            one(rows([sample(step, 0.5, generator) for step in range(8)], picks), "regret", indicator="first")
            for _ in range(60)
        ]
    )
    assert found["measured"].mean() > 0.04 and found["value"].mean() < 0.4 * found["measured"].mean()
    assert (found["low"] > 0).sum() <= 5  # 60 times .025 are 1.5
    assert found["statement"].str.endswith("; one seed each: part of this may be variance between seeds.").all()


def test_the_loss_of_a_pick_is_covered_on_few_rows_near_1() -> None:
    """Three bases on 40 rows, of which one leads by .04 to .99: resamples of scores without an error held the loss in 87 %."""
    generator = np.random.default_rng(0)
    picks = {"first": {("mini", step): -float(step) for step in range(3)}}
    ids, held = tuple(map(str, range(40))), []
    for _ in range(150):
        right = generator.random((3, 1, 40)) < np.array([0.95, 0.95, 0.99])[:, None, None]
        levels = [Sample(keys(step), own.astype(float), ids) for step, own in enumerate(right)]
        row = one(rows(levels, picks), "regret", indicator="first")
        held.append(row["low"] <= 0.04 <= row["high"])
    assert np.mean(held) >= 0.95


def test_the_lead_of_a_base_has_the_margins_of_a_paired_difference() -> None:
    """On 200 rows they are those of the analyses, but for resamples in the correlation; over itself it has none."""
    generator = np.random.default_rng(3)
    first = sample(1, 0.5, generator)
    second = Sample(keys(2), np.where(generator.random((1, ROWS)) < 0.8, first.values, 1 - first.values), first.ids)
    [question] = best_base.questions([first, second], {}, HOW)
    margins = question.lead_margins([0])
    assert margins[:, 0] == pytest.approx([0, 0])
    assert margins[:, 1] == pytest.approx(Difference(second, first).over_rows(0.95), rel=0.05)


def test_the_last_step_is_that_of_each_run() -> None:
    """Runs of different lengths: the longest one has the highest step, not the only last one."""
    generator = np.random.default_rng(0)
    levels = [sample(step, share, generator) for step, share in ((1, 0.5), (2, 0.9))]
    levels += [sample(step, 0.3, generator, family="short") for step in (0, 1)]
    found = one(rows(levels), "regret", indicator="last_step")
    assert found["measured"] == pytest.approx((levels[1].value - levels[3].value) / 2)


def test_sentences_about_one_task_tell_its_recipes_apart() -> None:
    levels = [Reported(keys(step, recipe=recipe), 0.5, 0.1) for step in (1, 2) for recipe in ("full", "lora")]
    levels += [Reported(keys(1, train="mini_inference", test="mini_inference"), 0.5, 0.1)]
    found = rows(levels)
    starts = found["statement"].str.split(":").str[0].unique()
    assert sorted(starts) == ["mini_facts (full, mini)", "mini_facts (lora, mini)", "mini_inference"]
    assert set(found["task"]) == {"mini_facts", "mini_inference"}


@pytest.mark.parametrize(("share", "even_so"), [(0.9, "none"), (0.5, "mini at step 100")])
def test_of_one_seed_each_no_base_is_recommended_however_clear_its_rows_are(share: float, even_so: str) -> None:
    generator = np.random.default_rng(0)
    found = rows([sample(100, 0.5, generator), sample(200, share, generator)])
    answer = one(found, "answer")["statement"]
    assert answer.startswith(
        "mini_facts: only one seed for each of 2 bases, so the variance between seeds is unknown and no"
    )
    assert "Highest score: mini at step 200, 0." in answer and answer.endswith(f"worse on these test rows: {even_so}.")
    assert one(found, "base", step=100)["statement"].endswith(
        " (one seed each: of these tuned models, on other test rows)."
    )
    alone = one(rows([sample(100, 0.5, generator)]), "answer")["statement"]
    assert "only mini at step 100 was tuned" in alone and "one seed: another seed may give another value" in alone


def test_a_target_needs_two_seeds_of_each_of_its_tunings() -> None:
    generator = np.random.default_rng(0)
    trains = {"mini_facts": 2, "mini_inference": 1}
    levels = [sample(step, 0.5, generator, n, train=t, test=t) for t, n in trains.items() for step in (1, 2)]
    targets = {"both": {"tests": [(train, train) for train in trains], "way": WAY}}
    found = best_base.questions(levels, targets, HOW)
    assert [question.lucky for question in found] == [True, False, False]


def test_a_test_that_a_target_has_twice_is_resampled_once() -> None:
    """Two tunings that are right on the same rows of one test: their mean is no more certain than either."""
    values = (np.random.default_rng(0).random((1, ROWS)) < 0.5).astype(float)
    ids = tuple(map(str, range(ROWS)))
    trains = ("mini_facts", "mini_inference")
    levels = [Sample(keys(1, train=train), values, ids) for train in trains]
    targets = {"both": {"tests": [(train, "mini_facts") for train in trains], "way": WAY}}
    found = one(rows(levels, targets=targets), "base", task="both")
    alone = one(rows(levels[:1]), "base")
    assert found["high"] - found["low"] == pytest.approx(alone["high"] - alone["low"])


def test_costs_are_those_of_the_jobs_that_measure_on_a_base() -> None:
    settings = {
        "ppl": {"measure": "clm"},
        "kshot": {"measure": "kshot", "suite": "mini"},
        "far": {"measure": "kshot", "suite": "x"},
    }
    found = recommendation.costs(settings, {"measure": [10.0, 20.0], "mini": [1.0, 2.0, 3.0, 4.0], "x": []}, 2)
    assert found == {"ppl": 15.0, "kshot": 5.0}  # two parts of a base are both its cost


def test_a_target_is_a_mean_over_tests_and_needs_all_of_them() -> None:
    generator = np.random.default_rng(0)
    levels = [sample(1, 0.5, generator), sample(2, 0.9, generator)]
    levels += [sample(1, 0.9, generator, train="mini_inference", test="mini_inference")]
    tests = [("mini_facts", "mini_facts"), ("mini_inference", "mini_inference")]
    found = rows(levels, targets={"both": {"tests": tests, "way": WAY}})
    own = found[(found["task"] == "both") & (found["topic"] == "base")]
    assert own["step"].tolist() == [1] and own["n"].tolist() == [2 * ROWS]
    assert own["value"].item() == pytest.approx((levels[0].value + levels[2].value) / 2)


def test_reported_scores_are_answered_alike_and_those_without_an_error_left_out() -> None:
    levels = [Reported(keys(1), 0.5, 0.01, 400), Reported(keys(2), 0.52, 0.01, 400), Reported(keys(3), 0.9, None)]
    found = rows(best_base.uncertain(levels))
    assert found.loc[found["topic"] == "base", "step"].tolist() == [2, 1]
    assert 0.8 < one(found, "answer")["probability"] < 0.921  # below the normal's, z = .02/(.01 * sqrt 2)


def test_the_way_of_testing_is_that_of_most_bases() -> None:
    generator = np.random.default_rng(0)
    levels = [sample(1, 0.9, generator), *(sample(step, 0.5, generator, shots=4) for step in (1, 2, 3))]
    assert sorted(rows(levels).query("topic == 'base'")["step"]) == [1, 2, 3]
    (question,) = best_base.questions(levels, {}, HOW)
    assert question.way["shots"] == 4 and json.dumps(question.where)
    both = [*levels, *(sample(step, 0.5, generator) for step in (2, 3))]
    assert best_base.questions(both, {}, HOW)[0].way["shots"] == 0


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_losses_of_a_metric_of_which_less_is_better_have_the_right_sign(better: str) -> None:
    """Perplexities 10, 12 and 15, on each row apart by the same: picking the base of 12 loses 2, the worst 5, chance 7/3.

    Of a metric of which more is better the picks lose 5, 3 and 0 (the base of 15), chance 8/3.
    """
    first = np.random.default_rng(0).normal(10, 1, ROWS)
    first += 10 - first.mean()
    ids = tuple(map(str, range(ROWS)))
    levels = [
        Sample(keys(step), (first + more)[None], ids, "perplexity", better) for step, more in ((1, 0), (2, 2), (3, 5))
    ]
    picks = {str(step): {("mini", own): float(own == step) for own in (1, 2, 3)} for step in (1, 2, 3)}
    found = rows(levels, picks)
    losses = found[found["topic"] == "regret"].set_index("indicator")
    expected = (0, 2, 5, 7 / 3) if better == "lower" else (5, 3, 0, 8 / 3)
    assert losses.loc[["1", "2", "3", "chance"], "value"].tolist() == pytest.approx(expected, abs=1e-6)
    assert (losses["low"] <= losses["value"] + 1e-9).all() and (losses["high"] >= losses["value"] - 1e-9).all()
    best = one(found, "answer")
    assert (best["step"], best["value"]) == ((1, pytest.approx(10)) if better == "lower" else (3, pytest.approx(15)))


def test_two_bases_that_agree_on_all_rows_lose_an_unknown_amount() -> None:
    """Equal on 40 rows, both may still differ on others: no interval of width 0. A third one is worse on nearly all rows."""
    ids = tuple(map(str, range(40)))
    values = np.repeat([1.0, 0.0], [36, 4])[None]
    levels = [Sample(keys(step), own, ids) for step, own in ((1, values), (2, values), (3, 0 * values))]
    found = rows(levels, {"last": {("mini", 1): 0.0, ("mini", 2): 1.0, ("mini", 3): 0.0}})
    loss = found[(found["indicator"] == "last") & (found["topic"] == "regret")].iloc[0]
    assert loss["low"] == 0 and loss["value"] < 0.03 < loss["high"] < 0.2


def test_rows_that_are_all_alike_are_no_evidence() -> None:
    """One perplexity for all rows, or a single row: its uncertainty is unknown, so that it wins and loses nothing."""
    ids = tuple(map(str, range(4)))
    alike = Sample(keys(1), np.full((1, 4), 3.0), ids, "perplexity", "lower")
    varied = Sample(keys(2), np.array([[3.0, 4.0, 5.0, 6.0]]), ids, "perplexity", "lower")
    single = Sample(keys(3), np.array([[2.0]]), ("0",), "perplexity", "lower")
    assert [level.keys["step"] for level in best_base.uncertain([alike, varied, single])] == [2]


def test_forecasts_say_whether_more_pretraining_pays() -> None:
    """Of the latest step that can be forecast, by Holm's rule over all questions; where none can be, that there is none."""
    generator = np.random.default_rng(0)
    levels = [sample(step, 0.5 + step / 10, generator) for step in (1, 2, 3)]
    levels += [sample(1, 0.9, generator, train="mini_inference", test="mini_inference")]
    where = {"analysis": "extrapolation", "estimator": "later_change", "n": 6, **keys(0)}
    other = where | {
        "train": "mini_inference",
        "test": "mini_inference",
        "step": 5,
        "value": 0.1,
        "low": 0.0,
        "high": 0.2,
    }
    analysis = pd.DataFrame(
        [
            {**where, "step": 4, "value": 0.03, "low": 0.01, "high": 0.05, "p_value": 0.001},
            {**where, "step": 5, "value": 0.04, "low": 0.01, "high": 0.07, "p_value": 0.04},
            {**where, "step": 6, "value": None, "low": None, "high": None, "p_value": None},
            {**other, "p_value": 0.5},
        ]
    )

    def said(rows: pd.DataFrame) -> pd.Series:
        return rows[(rows["topic"] == "pretraining") & (rows["task"] == "mini_facts")].squeeze()

    row = said(rows(levels, analysis=analysis))
    assert "more pre-training of mini may or may not pay: by step 5 the score" in row["statement"]
    assert (
        "change by +0.040 (80 % interval +0.010 to +0.070; not significant, Holm). One seed each: part"
        in row["statement"]
    )
    assert len(tables.matching(analysis, json.loads(row["filter"]))) == 1
    alone = analysis.drop(index=3)
    assert "more pre-training of mini pays" in said(rows(levels, analysis=alone))["statement"]
    alone.loc[1, ["value", "low", "high"]] = -0.04, -0.07, -0.01
    assert "more pre-training of mini costs" in said(rows(levels, analysis=alone))["statement"]
    alone[["value", "low", "high"]] = np.nan
    assert "no forecast of more pre-training of mini: " in said(rows(levels, analysis=alone))["statement"]
    assert "3 steps of mini are too few for a forecast" in said(rows(levels))["statement"]


def test_every_link_of_the_smoke_study_leads_to_rows(smoke: Path) -> None:
    results = smoke / "study" / "results"
    found = tables.read(results / "recommendations.parquet")
    assert {"answer", "base", "pretraining"} <= set(found["topic"])
    for row in found.to_dict("records"):
        rows = tables.matching(tables.read(results / f"{row['table']}.parquet"), json.loads(row["filter"]))
        assert len(rows), row
        if row["topic"] == "base" and row["task"] == "mini_inference":
            assert row["value"] == pytest.approx(rows["value"].mean())  # both seeds
    page = (results / "tables" / "recommendations.md").read_text()
    assert all(statement in page for statement in found.loc[found["topic"] != "base", "statement"])
