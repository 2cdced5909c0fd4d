"""What tuning changes, row by row, and how rows, seeds and tests are resampled."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from workflow.analysis import evidence as comparison
from workflow.analysis.evidence import Change, Difference, Evidence, Reported, Sample
from workflow.statistics import Resampling

HOW = Resampling(resamples=4000, level=0.95, seed=0)
BASE = {"family": "olmo", "step": 10, "train": "none", "format": "none", "recipe": "none", "seed": 0, "suite": "s"}
TUNED = {**BASE, "train": "mnli", "format": "default", "recipe": "full"}
TEST = {"test": "mnli", "test_format": "default", "shots": 0, "metric": "accuracy"}


def items(model, values, **changes):
    """Rows of `tables.ITEMS` with the keys of their model: one for each value, named a, b, c …"""
    return [
        {**model, **TEST, **changes, "id": "abcdefgh"[number], "value": value} for number, value in enumerate(values)
    ]


def frame(*parts):
    """Items in random order."""
    return pd.DataFrame([row for part in parts for row in part]).sample(frac=1, random_state=0).reset_index(drop=True)


def evidence(items, reported=None):
    """What a study has measured, and what it has imported."""
    columns = ["family", "step", "train", "format", "recipe", "seed", "suite", *TEST, "value", "error", "n"]
    return Evidence(items, pd.DataFrame(reported or [], columns=columns))


# Differences


def test_differences_by_hand():
    """Base 1 0 0; seeds 1 1 0 and 0 1 1: changes 0 1 0 and -1 1 1."""
    table = frame(
        items(BASE, [1.0, 0.0, 0.0]),
        items(TUNED, [1.0, 1.0, 0.0]),
        items({**TUNED, "seed": 1}, [0.0, 1.0, 1.0]),
        items(BASE, [0.5] * 3, metric="chance"),
        items(TUNED, [0.5] * 3, metric="chance"),
    )
    [found] = evidence(table).changes
    assert (found.tuned.values - found.base.values).tolist() == [[0, 1, 0], [-1, 1, 1]]
    assert found.value == pytest.approx(2 / 6) and found.n == 3
    assert found.keys == {key: {**TUNED, **TEST}[key] for key in comparison.PAIR_KEYS}
    tuned, base = sorted(evidence(table).levels, key=lambda own: own.keys["recipe"])
    assert base.values.tolist() == [[1, 0, 0]] and tuned.values.tolist() == [[1, 1, 0], [0, 1, 1]]


def test_each_model_is_compared_with_its_own_base():
    """Other step, suite, format of the test, number of demonstrations, test: each has a base of its own."""
    places = [
        {},
        {"step": 20},
        {"suite": "t"},
        {"test_format": "io"},
        {"shots": 2},
        {"test": "xsum", "metric": "rouge_l"},
    ]
    parts = []
    for number, place in enumerate(places):
        parts += [items(BASE, [0.0, number / 10], **place), items(TUNED, [1.0, 1.0], **place)]
    axes = ("step", "suite", "test_format", "shots", "test")
    found = {
        tuple(change.keys[key] for key in axes): (change.tuned.values - change.base.values).tolist()
        for change in evidence(frame(*parts)).changes
    }
    assert len(found) == 6
    assert found[10, "s", "default", 0, "mnli"] == [[1.0, 1.0]]
    assert found[20, "s", "default", 0, "mnli"] == [[1.0, pytest.approx(0.9)]]
    assert found[10, "t", "default", 0, "mnli"] == [[1.0, pytest.approx(0.8)]]
    assert found[10, "s", "io", 0, "mnli"] == [[1.0, pytest.approx(0.7)]]
    assert found[10, "s", "default", 2, "mnli"] == [[1.0, pytest.approx(0.6)]]
    assert found[10, "s", "default", 0, "xsum"] == [[1.0, pytest.approx(0.5)]]


@pytest.mark.parametrize("base", [[], [1.0, 0.0]])
def test_a_base_that_lacks_rows_is_an_error(base):
    table = frame(items(BASE, base), items(TUNED, [1.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match=r"the untouched base lacks rows .*'step': 10, 'train': 'mnli'"):
        evidence(table).changes  # noqa: B018


def test_seeds_on_different_rows_are_an_error():
    table = frame(items(BASE, [1.0, 0.0]), items(TUNED, [1.0, 1.0]), items({**TUNED, "seed": 1}, [1.0]))
    with pytest.raises(ValueError, match=r"the seeds of a model were scored on different rows: .*'recipe': 'full'"):
        evidence(table).changes  # noqa: B018


# Resamples


def sample(seeds, rows, seed=0):
    values = np.random.default_rng(seed).normal(size=(seeds, rows)) + np.arange(seeds)[:, None]
    return Sample({}, values)


def loop(values, resamples, rng):
    """Means of a table whose rows and columns are drawn anew, both with replacement, for each resample."""
    seeds, rows = values.shape
    draws = ((rng.integers(seeds, size=seeds), rng.integers(rows, size=rows)) for _ in range(resamples))
    return np.array([values[np.ix_(first, second)].mean() for first, second in draws])


@pytest.mark.parametrize("shape", [(1, 40), (2, 40), (3, 15), (5, 4)])
def test_seeds_and_rows_are_resampled_as_a_whole(shape):
    """Mean and quantiles equal those of a plain loop within 5 standard errors."""
    own = sample(*shape)
    found, expected = own.resampled(HOW), loop(own.values, 4000, np.random.default_rng(9))
    assert len(found) == 4000
    assert found.mean() == pytest.approx(own.values.mean(), abs=5 * found.std() / np.sqrt(4000))
    assert found.std() == pytest.approx(expected.std(), rel=0.08)
    assert np.quantile(found, [0.1, 0.5, 0.9]) == pytest.approx(
        np.quantile(expected, [0.1, 0.5, 0.9]), abs=0.15 * found.std()
    )


def test_one_seed_is_the_bootstrap_of_its_rows():
    own = sample(1, 40)
    assert own.resampled(HOW) == pytest.approx(HOW.means(own.values[0]))


def test_resamples_depend_on_the_seed_alone():
    own = sample(3, 15)
    assert np.array_equal(own.resampled(HOW), own.resampled(HOW))
    assert not np.array_equal(own.resampled(HOW), own.resampled(replace(HOW, seed=1)))


def test_paired_samples_share_their_resamples():
    """Models on the same rows are resampled together, so that a constant change has no spread."""
    own = sample(2, 30)
    more = replace(own, values=own.values + 0.25)
    assert more.resampled(HOW) - own.resampled(HOW) == pytest.approx(np.full(4000, 0.25))


def test_pooled_value_is_the_plain_mean_of_the_tests():
    """A test of two rows counts as much as one of six: (1 + 0.5) / 2."""
    parts = [Sample({}, np.ones((1, 2))), Sample({}, np.array([[0.0, 1, 0, 1, 0, 1]]))]
    value, between, within = comparison.pooled(parts, HOW)
    assert value == 0.75 and sorted(between) == [0.5, 0.75, 0.75, 1.0]
    assert within.mean() == pytest.approx(0.75, abs=0.02) and within.min() >= 0.5
    value, between, within = comparison.pooled(parts[:1], HOW)
    assert value == 1.0 and (between == 1.0).all() and (within == 1.0).all()


def test_pooled_resamples_equal_a_plain_loop_over_tests_and_over_seeds_and_rows():
    parts = [sample(1, 30, 1), sample(2, 12, 2), sample(3, 20, 3), sample(1, 8, 4)]
    means = np.array([part.values.mean() for part in parts])
    value, between, found = comparison.pooled(parts, HOW)
    assert between.std() == pytest.approx(means.std() / 2)  # every draw of four once: exact
    rng = np.random.default_rng(8)
    expected = np.stack([loop(part.values, 4000, rng) for part in parts]).mean(axis=0)
    assert value == pytest.approx(np.mean([part.values.mean() for part in parts]))
    assert found.std() == pytest.approx(expected.std(), rel=0.08)
    assert np.quantile(found, [0.1, 0.5, 0.9]) == pytest.approx(
        np.quantile(expected, [0.1, 0.5, 0.9]), abs=0.15 * found.std()
    )


def test_tests_are_resampled_apart_from_each_other():
    """The mean of two tests with equal numbers of rows has the spread of two independent ones, not of one twice."""
    values = np.random.default_rng(5).normal(size=(1, 50))
    parts = [Sample({}, values), Sample({}, values)]
    single = parts[0].resampled(HOW).std()
    assert comparison.pooled(parts, HOW)[2].std() == pytest.approx(single * np.sqrt(0.5), rel=0.08)


def test_an_estimate_is_a_row_with_its_interval():
    """36 of 40 right: (36 + z²/2) / (40 + z²) = .8648, plus and minus z times the root of .8648 (1 - .8648) / 43.84."""
    level = Sample(BASE, np.repeat([[1.0, 0.0]], [36, 4], axis=1))
    row = comparison.estimate({"family": "olmo"}, level, 0.95, n=40)
    ends = {"low": pytest.approx(0.8648 - 0.1012, abs=2e-4), "high": pytest.approx(0.8648 + 0.1012, abs=2e-4)}
    assert row == {"family": "olmo", "value": 0.9, **ends, "n": 40, "seed_variance": None}


def test_a_mean_over_three_tests_has_the_interval_of_a_t_test():
    """Tests at .1, .2 and .6, known exactly: interval and p-value of SciPy's one-sample t-test."""
    values = np.array([0.1, 0.2, 0.6])
    parts = [Change(Reported({**TUNED, **TEST}, v, 0.0), Reported({**BASE, **TEST}, 0.0, 0.0)) for v in values]
    row = comparison.mean_over({"n": 3}, parts, HOW)
    theirs = stats.ttest_1samp(values, 0)
    assert (row["low"], row["high"]) == pytest.approx(theirs.confidence_interval(0.95))
    assert row["p_value"] == pytest.approx(theirs.pvalue, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ((0.3, 0.9), -1.0, 1.0),  # .6 -+ 12.7 * .3
        ((0.88, 0.9), 0.89 - 0.1271, 1.0),
        ((0.5, 0.52), 0.51 - 0.1271, 0.51 + 0.1271),
    ],
)
def test_an_interval_is_cut_to_the_values_that_are_possible(values, low, high):
    """Gains on two tests, by Student's t with one degree of freedom, 12.706 times half their difference: none is beyond 1."""
    gains = [
        Change(
            Reported({**TUNED, **TEST, "test": test}, value + 0.05, 1e-6),
            Reported({**BASE, **TEST, "test": test}, 0.05, 1e-6),
        )
        for test, value in zip(("a", "b"), values, strict=True)
    ]
    row = comparison.mean_over({}, gains, HOW)
    assert (row["low"], row["high"]) == (pytest.approx(low, abs=2e-4), pytest.approx(high, abs=2e-4))
    t = np.mean(values) / (abs(values[0] - values[1]) / 2)
    assert row["p_value"] == pytest.approx(2 * stats.t.sf(t, 1), rel=1e-3)  # that of the whole interval


def test_a_loss_has_no_limits():
    """Of a metric of which less is better a change may be of any size."""
    gains = [
        Change(
            Reported({**TUNED, **TEST, "test": test}, value, 0.1, better="lower"),
            Reported({**BASE, **TEST, "test": test}, 0.0, 0.1, better="lower"),
        )
        for test, value in (("a", 0.3), ("b", 0.9))
    ]
    assert comparison.mean_over({}, gains, HOW)["high"] > 4


def test_a_mean_is_never_surer_than_the_rows_of_its_tests():
    """Two tests that happen to gain the same: their spread says nothing, the errors of their rows do."""
    models = [({**TUNED, **TEST, "test": name}, {**BASE, **TEST, "test": name}) for name in "ab"]
    parts = [Change(Reported(tuned, 0.7, 0.1), Reported(base, 0.5, 0.0)) for tuned, base in models]
    row = comparison.mean_over({"n": 2}, parts, replace(HOW, resamples=20_000))
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(2), rel=0.06)


def test_a_score_of_1_without_a_number_of_rows_is_of_unknown_uncertainty():
    """An error of 0 says nothing there; of 100 rows, all right, the interval of a share is known."""
    place = {**BASE, **TEST}
    assert not Reported(place, 1.0, 0.0).uncertain and not Reported(place, 0.5, 0.0).uncertain
    assert Reported(place, 1.0, 0.0, n=100).uncertain and Reported(place, 1.0, 0.0, n=100).margins(0.95)[0] > 0.03


def test_tests_that_are_all_right_do_not_make_their_mean_certain():
    """Two tests of 40 rows, all right before and after: their mean is off by what a share of 40 is, by the root of two less."""
    whole = Sample({**TUNED, **TEST}, np.ones((1, 40)))
    parts = [
        Change(replace(whole, keys={**whole.keys, "test": name}), replace(whole, keys={**BASE, **TEST}))
        for name in "ab"
    ]
    row = comparison.mean_over({"n": 2}, parts, HOW)
    single = parts[0].margins(0.95)[1]
    assert row["value"] == 0 and row["high"] == pytest.approx(single / np.sqrt(2)) and single > 0.05


# The luck of tuning


def seeds(means, rows=400, seed=0, **keys):
    """A tuned model's accuracies, one seed for each mean."""
    rng = np.random.default_rng(seed)
    values = np.array([rng.permutation(np.arange(rows) < mean * rows).astype(float) for mean in means])
    return Sample({key: {**TUNED, **TEST, **keys}[key] for key in comparison.PAIR_KEYS}, values)


def test_a_single_seed_takes_the_luck_of_other_bases():
    """Seeds at .6 and .8, and a base of one seed: its interval holds Student's t of that variance; alone it holds none."""
    levels = [seeds([0.6, 0.8]), seeds([0.7], step=20, seed=1)]
    first, second = comparison.seeded(levels)
    assert first.lucky and second.lucky and second.luck == first.luck
    alone = comparison.seeded(levels[1:])[0]
    assert not alone.lucky and alone.margins(0.95) == pytest.approx(levels[1].over_rows(0.95))
    # One degree of freedom, s² = .02: 12.7 × .141, less the rows' part, for one seed; 1 / √2 of that for two.
    assert second.margins(0.95)[0] == pytest.approx(12.706 * 0.02**0.5, rel=0.01)
    assert first.margins(0.95)[0] == pytest.approx(12.706 * 0.01**0.5, rel=0.01)


def test_the_luck_of_another_test_stands_in_where_a_test_has_none():
    other = seeds([0.5], test="rte", step=20)
    known = comparison.seeded([seeds([0.6, 0.8]), other])[1]
    assert known.lucky
    assert not comparison.seeded([seeds([0.6, 0.8], recipe="lora"), other])[1].lucky


def test_formats_of_one_model_share_its_luck():
    """Seeds at .6 and .8 in one format and .5 and .7 in the other: the gap is .1 whatever the seed."""
    gap = comparison.seeded([Difference(seeds([0.6, 0.8]), seeds([0.5, 0.7], test_format="io"))])[0]
    assert gap.alike and gap.lucky and gap.margins(0.95)[0] < 0.1
    assert Difference(*comparison.seeded([seeds([0.6, 0.8]), seeds([0.5, 0.7], recipe="lora")])).margins(0.95)[0] > 1


def test_the_untouched_base_has_no_luck():
    base = Sample({key: {**BASE, **TEST}[key] for key in comparison.PAIR_KEYS}, np.array([[1.0, 0.0]]))
    assert base.lucky and comparison.seeded([base])[0].luck is None


def test_the_luck_that_tests_share_is_not_averaged_away():
    """One tuned model on two tests: with luck known its mean is at least as uncertain as the luck of each."""
    tuned = comparison.seeded([seeds([0.6, 0.8]), seeds([0.6, 0.8], test="rte"), seeds([0.7, 0.7], step=20)])
    base = replace(seeds([0.5]), keys={**tuned[0].keys, "train": "none", "format": "none", "recipe": "none"})
    parts = [Change(one, replace(base, keys=base.keys | {"test": one.keys["test"]})) for one in tuned[:2]]
    row = comparison.mean_over({"n": 2}, parts, HOW)
    luck = [one.over_seeds[0](0.95)[0] for one in tuned[:2]]
    assert row["value"] - row["low"] >= np.mean(luck) and row["seed_variance"]


# Reported scores


def reported(model, value, error, **changes):
    return {**model, **TEST, "value": value, "error": error, "n": None, **changes}


def test_reported_scores_are_levels_and_changes():
    """Base .40 ± .03, tuned .70 ± .04: the change .30 has a standard error of .05, and the one without a base is left out."""
    rows = [reported(BASE, 0.4, 0.03), reported(TUNED, 0.7, 0.04), reported(TUNED, 0.9, 0.1, shots=4)]
    found = evidence(pd.DataFrame(columns=[*BASE, *TEST, "id", "value"]), rows)
    assert len(found.levels) == 3
    [change] = found.changes
    assert change.value == pytest.approx(0.3) and change.n is None
    draws = change.resampled(HOW)
    assert draws.mean() == pytest.approx(0.3, abs=0.005) and draws.std() == pytest.approx(0.05, rel=0.05)
    assert np.array_equal(draws, change.resampled(HOW))


def test_reported_seeds_are_one_level_with_the_larger_of_both_errors():
    """Seeds at .5 and .7: their mean .6 is off by .2 / √2 / √2 = .1, more than either seed's own error."""
    rows = [reported(TUNED, 0.5, 0.02), reported({**TUNED, "seed": 1}, 0.7, 0.02)]
    [level] = evidence(pd.DataFrame(columns=[*BASE, *TEST, "id", "value"]), rows).levels
    assert (level.value, level.error) == (pytest.approx(0.6), pytest.approx(0.1))


def test_a_reported_test_that_is_no_task_is_a_level_in_one_metric():
    """Accuracy .25 and normalised accuracy .35 of one test are no two seeds at .30."""
    rows = [reported(BASE, value, 0.03, test="hellaswag_de") for value in (0.25, 0.35)]
    rows = [{**row, "metric": metric} for row, metric in zip(rows, ("acc", "acc_norm"), strict=True)]
    [level] = evidence(pd.DataFrame(columns=[*BASE, *TEST, "id", "value"]), rows).levels
    assert (level.value, level.metric, level.seeds) == (0.25, "acc", 1)
    chosen = pd.DataFrame([{**row, "primary": row["metric"] == "acc_norm"} for row in rows])
    [level] = Evidence(pd.DataFrame(columns=[*BASE, *TEST, "id", "value"]), chosen).levels
    assert (level.value, level.metric) == (0.35, "acc_norm")


def test_a_reported_score_without_a_value_is_no_level():
    rows = [reported(BASE, None, None, test="wikitext")]
    assert evidence(pd.DataFrame(columns=[*BASE, *TEST, "id", "value"]), rows).levels == []


def test_a_paired_change_is_resampled_row_by_row():
    """A tuned model that is right by .25 more on every row is so in every resample."""
    own = Sample(TUNED, np.random.default_rng(1).normal(size=(1, 30)))
    change = Change(replace(own, values=own.values + 0.25), own)
    assert change.resampled(HOW) == pytest.approx(np.full(4000, 0.25))


def test_a_test_that_counts_twice_weighs_twice():
    parts = [Reported({**TUNED, **TEST, "test": name}, value, 0.0) for name, value in (("mnli", 0.9), ("paws", 0.3))]
    value, between, within = comparison.pooled(parts, HOW, weights=[2, 1])
    assert value == pytest.approx(0.7) and within == pytest.approx(np.full(4000, 0.7))
    assert set(np.round(between, 6)) == {0.3, 0.7, 0.9}
