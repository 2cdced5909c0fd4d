"""Analyses of studies small enough to follow by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from workflow import registry, statistics, task
from workflow.analysis import analyses, declines
from workflow.analysis.analyses import (
    contrast,
    decline,
    domain_change,
    extrapolation,
    format_gap,
    learning,
    pretraining_change,
    ratio_of_change,
    signal_to_noise,
    turning_point,
)
from workflow.analysis.curves import Curve
from workflow.analysis.evidence import Evidence
from workflow.analysis.extrapolation import forecast
from workflow.evaluation.metrics import PRIMARY
from workflow.statistics import Resampling
from workflow.storage import tables

HOW = Resampling(resamples=400, level=0.95, seed=0)
STEPS = [1000, 2000, 4000, 8000, 16000]
ITEMS = [*tables.KEYS.names, *tables.ITEMS.names]


def score(test, value, step=1000, train="none", error=0.0, **changes):
    """A reported score; the untouched base's unless something was tuned on."""
    tuned = train != "none"
    return {
        "family": "olmo",
        "step": step,
        "train": train,
        "format": "default" if tuned else "none",
        "recipe": "full" if tuned else "none",
        "seed": 0,
        "suite": "s",
        "test": test,
        "test_format": "default",
        "shots": 0,
        "metric": PRIMARY.get(task.method(test), "accuracy"),
        "value": value,
        "error": error,
        "n": None,
    } | changes


def analysed(module, scores, how=HOW, items=()):
    """The rows of an analysis as a frame with all columns of `tables.ANALYSIS`."""
    evidence = Evidence(pd.DataFrame(items, columns=ITEMS), pd.DataFrame(scores))
    rows = module.analyse(evidence, {}, how)
    found = tables.frame(tables.pa.Table.from_pylist(rows, schema=tables.ANALYSIS))
    figures = ("value", "low", "high", "n", "p_value", "seed_variance")
    keys = [name for name in tables.ANALYSIS.names if name not in figures]
    assert not found.duplicated(keys).any()
    return found


def one(found, **wanted):
    """The single row with these keys; None stands for null."""
    for key, value in wanted.items():
        found = found[found[key].isna() if value is None else found[key] == value]
    assert len(found) == 1, found
    return found.iloc[0]


def test_every_analysis_takes_a_study_with_next_to_nothing():
    for name in registry.modules(analyses):
        rows = registry.module(analyses, name).analyse(
            Evidence(pd.DataFrame(columns=ITEMS), pd.DataFrame([score("mnli", 0.4)])), {}, HOW
        )
        tables.pa.Table.from_pylist(rows, schema=tables.ANALYSIS)


# Domains


def test_the_paper_s_second_tests_are_in_domain():
    assert task.domain("mnli_mismatched") == "mnli" and task.domain("xlsum_english") == "xsum"
    assert task.domain("rte") == "rte" and task.domain("mini_facts_ood") == "mini_facts_ood"


@pytest.mark.parametrize("name", task.names())
def test_a_domain_is_a_task_of_the_same_kind(name):
    assert task.load(task.domain(name)).kind == task.load(name).kind


# Ratio of change


def transfers(base_of_424=0.1):
    """MNLI and Paws tuned, tested on XSum and SocialIQa and on each other, at two steps; XSum tuned, tested on MNLI."""
    bases = {("xsum", 1): 0.2, ("xsum", 2): base_of_424, ("social_iqa", 1): 0.4, ("social_iqa", 2): 0.5}
    bases |= {("mnli", 1): 0.5, ("mnli", 2): 0.5, ("paws", 1): 0.5, ("paws", 2): 0.5}
    tuned = {
        ("mnli", "xsum"): (0.1, 0.3),
        ("paws", "xsum"): (0.2, 0.1),
        ("mnli", "social_iqa"): (0.2, 0.5),
        ("paws", "social_iqa"): (0.4, 0.25),
        ("mnli", "paws"): (0.9, 0.9),
        ("xsum", "mnli"): (0.55, 0.45),
    }
    scores = [score(test, value, step) for (test, step), value in bases.items()]
    for (train, test), values in tuned.items():
        scores += [score(test, value, step, train) for step, value in zip((1, 2), values, strict=True)]
    return [*scores, *(score("social_iqa", value, step, "social_iqa") for step, value in ((1, 0.9), (2, 0.9)))]


def test_ratios_of_change_by_hand():
    """Ratios at step 1: -.5 0 -.5 0; at step 2: 2 0 0 -.5. Bases 1.2 and 1.2 in all, changes -.3 and -.05."""
    found = analysed(ratio_of_change, transfers())
    found = found[found["group"] == "classification_to_generation"]
    expected = {
        None: {
            "mean_of_ratios": 0.5 / 8,
            "median_of_ratios": 0.0,
            "ratio_of_means": -0.35 / 2.4,
            "difference_of_means": -0.35 / 8,
        },
        1: {
            "mean_of_ratios": -0.25,
            "median_of_ratios": -0.25,
            "ratio_of_means": -0.3 / 1.2,
            "difference_of_means": -0.075,
        },
        2: {
            "mean_of_ratios": 1.5 / 4,
            "median_of_ratios": 0.0,
            "ratio_of_means": -0.05 / 1.2,
            "difference_of_means": -0.0125,
        },
    }
    for step, values in expected.items():
        for estimator, value in values.items():
            row = one(found, step=step, estimator=estimator)
            assert row["value"] == pytest.approx(value) and row["n"] == 4 and row["low"] <= row["value"] <= row["high"]


def test_the_other_direction_has_a_single_pair_and_so_no_interval():
    row = one(
        analysed(ratio_of_change, transfers()),
        group="generation_to_classification",
        step=None,
        estimator="difference_of_means",
    )
    assert row["value"] == pytest.approx(0) and row["n"] == 1 and pd.isna(row["low"]) and pd.isna(row["p_value"])


def test_a_mean_over_two_pairs_has_student_s_interval_of_pairs_not_of_cells():
    """Two pairs that change by +.05 and -.05 at each step: s = .05 √2, standard error .05, Student's 12.706 with one degree."""
    scores = [score("xsum", 0.5, step) for step in STEPS] + [score("xsum", 0.9, 1, "xsum")]
    for train, change in (("mnli", 0.05), ("paws", -0.05)):
        scores += [score("xsum", 0.5 + change, step, train) for step in STEPS]
    row = one(analysed(ratio_of_change, scores), step=None, estimator="difference_of_means")
    assert (row["value"], row["low"], row["high"]) == pytest.approx((0, -0.63531, 0.63531), abs=1e-5) and row["n"] == 2


def test_a_missing_cell_makes_a_mean_null():
    scores = [s for s in transfers() if (s["train"], s["test"], s["step"]) != ("paws", "social_iqa", 2)]
    found = analysed(ratio_of_change, scores)
    found = found[(found["group"] == "classification_to_generation") & (found["estimator"] == "mean_of_ratios")]
    for step, value, n in ((None, None, 3), (1, -0.25, 4), (2, None, 3)):
        row = one(found, step=step)
        assert row["n"] == n and (pd.isna(row["value"]) if value is None else row["value"] == pytest.approx(value))


def test_a_base_of_0_makes_ratios_null_but_not_the_others():
    found = analysed(ratio_of_change, transfers(base_of_424=0.0))
    found = found[(found["group"] == "classification_to_generation") & (found["step"].isna())]
    assert one(found, estimator="mean_of_ratios")[["value", "low", "p_value"]].isna().all()
    assert one(found, estimator="ratio_of_means")["value"] == pytest.approx((-0.35 + 0.2) / (2.4 - 0.2))


def test_only_tests_that_are_tuned_on_and_asked_in_that_format_count():
    scores = transfers() + [score("tweet_qa", 0.1, step) for step in (1, 2)]
    scores += [score("tweet_qa", 0.9, step, "mnli") for step in (1, 2)]
    scores += [score("xsum", 0.1, 1, test_format="io"), score("xsum", 0.9, 1, "mnli", test_format="io")]
    assert analysed(ratio_of_change, scores).equals(analysed(ratio_of_change, transfers()))


def test_a_task_tuned_on_by_two_recipes_has_a_row_for_each():
    scores = transfers() + [
        score("xsum", 0.2, step, "mnli", recipe="lora") for step in (1, 2)
    ] + [score("social_iqa", 0.4, step, "mnli", recipe="lora") for step in (1, 2)]  # fmt: skip
    found = analysed(ratio_of_change, scores)
    found = found[(found["group"] == "classification_to_generation") & (found["step"] == 1)]
    values = found[found["estimator"] == "difference_of_means"].set_index("recipe")["value"]
    assert values.to_dict() == pytest.approx({"full": -0.075, "lora": 0.0})


# Out of domain


def out_of_domain():
    scores = []
    for step, base in ((1, 0.3), (2, 0.4)):
        scores += [score(test, base, step) for test in ("mnli", "mnli_mismatched", "rte", "gpt3_nli", "xsum")]
        values = {"mnli": 0.9, "mnli_mismatched": 0.9, "rte": 0.5, "gpt3_nli": base + 0.3, "xsum": 0.0}
        scores += [score(test, value, step, "mnli") for test, value in values.items()]
    return scores


def test_change_out_of_domain_by_hand():
    """RTE .2 and .1, GPT3-NLI .3 and .3; MNLI's own tests and another kind stay out."""
    found = analysed(domain_change, out_of_domain())
    assert set(found["group"]) == {"inference"} and set(found["test"].dropna()) == {"rte", "gpt3_nli"}
    means = found[found["estimator"] == "difference_of_means"]
    for step, value in ((None, 0.225), (1, 0.25), (2, 0.2)):
        row = one(means[means["test"].isna()], step=step)
        assert row["value"] == pytest.approx(value) and row["n"] == 2
    row = one(means, test="rte")
    ends = 0.15 - 12.7062 * 0.05, 0.15 + 12.7062 * 0.05  # Student's t of two steps
    assert (row["value"], row["low"], row["high"]) == pytest.approx((0.15, *ends), abs=1e-5) and row["n"] == 2
    assert row["train"] == "mnli" and pd.isna(row["step"])
    medians = found[(found["estimator"] == "median_of_differences") & found["test"].isna() & found["step"].isna()]
    assert one(medians)["value"] == pytest.approx(0.25)


def test_a_pair_that_lacks_a_step_is_null_and_so_is_the_mean():
    scores = [s for s in out_of_domain() if (s["train"], s["test"], s["step"]) != ("mnli", "rte", 2)]
    found = analysed(domain_change, scores)
    means = found[found["estimator"] == "difference_of_means"]
    assert pd.isna(one(means, test="rte")["value"]) and one(means, test="rte")["n"] == 1
    assert pd.isna(one(means[means["test"].isna()], step=2)["value"])
    assert one(means[means["test"].isna()], step=1)["value"] == pytest.approx(0.25)


def test_steps_on_the_same_rows_are_resampled_alike():
    """A change that is the same at each step, row by row, is as uncertain over all steps as at one of them."""
    rng = np.random.default_rng(0)
    gains = rng.normal(0.2, 0.3, 40)
    rows = []
    for step in (1, 2, 3):
        for train, values in (("none", np.full(40, 0.1)), ("mnli", 0.1 + gains)):
            keys = {k: v for k, v in score("rte", 0, step, train).items() if k in ITEMS and k != "value"}
            rows += [{**keys, "metric": "accuracy", "id": f"{i:02}", "value": v} for i, v in enumerate(values)]
    evidence = Evidence(pd.DataFrame(rows), pd.DataFrame(columns=[*tables.KEYS.names, *tables.SCORES.names]))
    row = one(pd.DataFrame(domain_change.analyse(evidence, {}, HOW)), test="rte", estimator="difference_of_means")
    assert row["value"] == pytest.approx(gains.mean())
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * gains.std() / np.sqrt(40), rel=0.15)


# Formats


def formats():
    """MNLI and XSum at four steps: default .5, io .4 for bases; tuned in the domain .8 beside .4 + .1 a step."""
    scores = []
    for number, step in enumerate((0, 100_000, 200_000, 300_000)):
        for test in ("mnli", "xsum", "rte"):
            scores += [score(test, 0.5, step), score(test, 0.4, step, test_format="io")]
        for train in ("mnli", "xsum"):
            scores.append(score(train, 0.8, step, train))
            scores.append(score(train, 0.4 + number / 10, step, train, test_format="io"))
        scores += [score("rte", 0.5, step, "mnli"), score("rte", 0.1, step, "mnli", test_format="io")]
    return scores


def test_gaps_between_formats_by_hand():
    found = analysed(format_gap, formats())
    assert set(found["group"]) == {"default_minus_io"} and found["test_format"].isna().all()
    means = found[found["estimator"] == "difference_of_means"]
    assert one(means, test="mnli", train="mnli", step=100_000)["value"] == pytest.approx(0.3)
    assert one(means, test="rte", train="mnli", step=0)["value"] == pytest.approx(0.4)
    pooled = means[means["test"].isna()]
    bases, tuned = pooled[pooled["train"] == "none"], pooled[pooled["train"].isna()]
    assert bases.set_index("step")["value"].to_dict() == pytest.approx(dict.fromkeys(bases["step"], 0.1))
    assert tuned["value"].tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert (bases["n"] == 2).all() and (tuned["n"] == 2).all()  # RTE is of no domain that was tuned on


def test_a_gap_s_slope_is_that_of_a_regression():
    """It closes by .1 in 100,000 steps. With scatter: scipy's slope and interval."""
    found = analysed(format_gap, formats())
    row = one(found, estimator="slope", train="mnli", test="mnli")
    assert row["value"] == pytest.approx(-0.1) and row["n"] == 4 and pd.isna(row["step"])
    values = np.random.default_rng(1).normal(0.5, 0.1, 8)
    steps = np.arange(8) * 50_000
    scores = [score("mnli", v, int(s)) for v, s in zip(values, steps, strict=True)]
    scores += [score("mnli", 0.4, int(s), test_format="io") for s in steps]
    row, theirs = one(analysed(format_gap, scores), estimator="slope"), stats.linregress(steps / 1e5, values - 0.4)
    half = stats.t(6).ppf(0.975) * theirs.stderr
    assert (row["low"], row["high"]) == pytest.approx((theirs.slope - half, theirs.slope + half), rel=1e-4)


def test_a_gap_that_one_step_lacks_makes_that_step_s_mean_null():
    scores = [s for s in formats() if (s["train"], s["test"], s["step"], s["test_format"]) != ("none", "xsum", 0, "io")]
    found = analysed(format_gap, scores)
    bases = found[found["test"].isna() & (found["train"] == "none")].set_index("step")
    assert pd.isna(bases.loc[0, "value"]) and bases.loc[0, "n"] == 1 and bases.loc[100_000, "n"] == 2


def test_formats_are_compared_row_by_row():
    """A gap of .1 ± .001 on each row has that spread alone, however the rows differ; of .1 it has none, which does not make it
    certain; other rows are an error."""
    keys = {k: v for k, v in score("mnli", 0).items() if k in ITEMS and k != "value"} | {"metric": "accuracy"}
    values = np.random.default_rng(2).normal(size=20)
    rows = [{**keys, "id": f"{i:02}", "value": v} for i, v in enumerate(values)]
    other = [{**row, "test_format": "io", "value": row["value"] - 0.1} for row in rows]
    scores = pd.DataFrame(columns=[*tables.KEYS.names, *tables.SCORES.names])
    apart = [{**row, "value": row["value"] + 0.001 * (-1) ** place} for place, row in enumerate(other)]
    [row] = format_gap.analyse(Evidence(pd.DataFrame(rows + apart), scores), {}, HOW)
    assert row["value"] == pytest.approx(0.1) and row["n"] == 20
    half = stats.t.ppf(0.975, 19) * 0.001 / 19**0.5
    assert row["high"] - row["value"] == pytest.approx(half) and row["p_value"] < 1e-6
    [row] = format_gap.analyse(Evidence(pd.DataFrame(rows + other), scores), {}, HOW)
    assert row["value"] == pytest.approx(0.1) and row["n"] == 20
    assert row["low"] is None and row["high"] is None and row["p_value"] is None
    other[3]["id"] = "99"
    with pytest.raises(ValueError, match="scored on other rows in the format 'io' than in 'default'"):
        format_gap.analyse(Evidence(pd.DataFrame(rows + other), scores), {}, HOW)


# Turning points


def bent_and_flat(steps):
    """The base rises by .1 a step of 100,000 up to 300,000 and then by .01; the tuned model does not rise."""
    noise = np.random.default_rng(7).normal(0, 0.002, (2, len(steps)))
    bases = [0.2 + min(s, 300_000) / 1e6 + max(s - 300_000, 0) / 1e7 for s in steps]
    scores = [score("mnli", b + e, s) for b, e, s in zip(bases, noise[0], steps, strict=True)]
    return [*scores, *(score("mnli", 0.9 + e, s, "mnli") for e, s in zip(noise[1], steps, strict=True))]


def test_bends_of_levels_and_of_gains():
    found = analysed(turning_point, bent_and_flat(list(range(0, 900_000, 100_000))))
    base = found[(found["group"] == "level") & (found["train"] == "none")].set_index("estimator")
    assert base.loc["knot", "value"] == pytest.approx(300_000, abs=20_000)
    assert (base.loc["knot", "low"], base.loc["knot", "high"]) == (200_000, 400_000)
    assert base.loc["slope_before", "value"] == pytest.approx(0.1, abs=0.005)
    assert base.loc["slope_after", "value"] == pytest.approx(0.01, abs=0.003)
    gain = found[found["group"] == "gain"].set_index("estimator")
    assert gain.loc["slope_before", "value"] == pytest.approx(-0.1, abs=0.005)
    tuned = one(found, group="level", train="mnli", estimator="knot")
    assert (tuned["low"], tuned["high"]) == (0, 800_000) and tuned["p_value"] > 0.05
    assert (found[found["value"].notna()]["n"] == 9).all() and found["step"].isna().all()


def test_a_step_is_named_where_a_bend_is_found_again_in_parts_of_its_curve():
    """Twenty steps of the same curve; nine are too few, since every second of them says too little."""
    named = analysed(turning_point, bent_and_flat(list(range(0, 850_000, 40_000))))
    turns = named[named["estimator"] == "turning_step"].set_index(["group", "train"])
    base = turns.loc[("level", "none")]
    assert base["low"] <= 300_000 <= base["high"] and base["p_value"] < 0.05
    assert base["value"] == pytest.approx(300_000, abs=20_000)
    assert pd.isna(turns.loc[("level", "mnli"), "value"])
    few = analysed(turning_point, bent_and_flat(list(range(0, 900_000, 100_000))))
    assert few.loc[few["estimator"] == "turning_step", "value"].isna().all()


def test_the_grid_of_steps_makes_no_turning_step():
    """As much for each doubling: a line with a bend fits far better than a straight one, but a law of learning fits as well."""
    steps = [1000, 3000, *range(13_000, 144_000, 10_000)]
    noise = np.random.default_rng(8).normal(0, 0.005, len(steps))
    scores = [score("mnli", 0.3 + 0.05 * np.log(s / 1000) + e, s) for s, e in zip(steps, noise, strict=True)]
    found = analysed(turning_point, scores).set_index("estimator")
    assert found.loc["knot", "p_value"] < 0.01 and pd.isna(found.loc["turning_step", "value"])
    assert found.loc["held_out_error_logarithm", "value"] < 0.7 * found.loc["held_out_error_bend", "value"]


def test_short_curves_have_no_turning_point():
    assert analysed(turning_point, [score("mnli", 0.1 * s, s) for s in (1, 2, 3, 4)]).empty


# Learning


def test_each_group_is_found():
    """Over five doublings: risen by tuning, by pre-training, by both, not at all; noise of rows .01, scatter .01."""
    rng = np.random.default_rng(4)
    truths = {"mnli": (0.0, 0.4), "paws": (0.3, 0.0), "xsum": (0.3, 0.3), "social_iqa": (0.0, 0.0)}
    scores = []
    for test, (rise, gain) in truths.items():
        for number, step in enumerate(STEPS):
            base = 1 / len(task.load(test).labels or "abcde") + rise * number / 4 + rng.normal(0, 0.01)
            tuned = base + gain + rng.normal(0, 0.01)
            scores += [score(test, base, step, error=0.01), score(test, tuned, step, test, error=0.01)]
    found = analysed(learning, scores)
    groups = found[found["estimator"] == "rise_over_pretraining"].set_index("test")["group"].to_dict()
    assert groups == {
        "mnli": "learned_in_tuning",
        "paws": "learned_in_pretraining",
        "xsum": "learned_in_both",
        "social_iqa": "not_learned",
    }
    shares = found[found["estimator"] == "share_of_resamples"].pivot(index="test", columns="group", values="value")
    assert shares.sum(axis=1).tolist() == pytest.approx([1] * 4) and shares.shape == (4, 4)
    assert shares.idxmax(axis=1).to_dict() == groups
    rise = one(found, test="paws", estimator="rise_over_pretraining")
    assert rise["value"] == pytest.approx(0.3, abs=0.05) and rise["low"] < 0.3 < rise["high"]
    assert one(found, test="xsum", estimator="gain_by_tuning")["value"] == pytest.approx(0.3, abs=0.05)
    assert pd.isna(one(found, test="xsum", estimator="end_above_baseline")["value"])  # text: the baseline is the start


@pytest.mark.parametrize(
    ("better", "group"), [("higher", "learned_in_pretraining"), ("lower", "not_learned"), (None, None)]
)
def test_a_rise_of_what_should_be_low_is_not_learning(better, group):
    """.1 to .7 in even steps, errors of .01. As toxicity it gets worse; a metric without a direction has no group."""
    values = [0.1, 0.25, 0.4, 0.55, 0.7]
    scores = [score("toxigen", v, s, error=0.01, better=better) for v, s in zip(values, STEPS, strict=True)]
    found = analysed(learning, scores)
    groups = set(found.loc[found["estimator"] == "rise_over_pretraining", "group"])
    assert groups == ({group} if group else set())


def test_the_rise_is_the_change_of_the_score_not_of_the_line():
    """A curve that jumps once: from .2 to .8, whatever a straight line over log steps makes of it."""
    values = [0.2, 0.2, 0.8, 0.8, 0.8]
    found = analysed(learning, [score("mnli", v, s, error=0.001) for v, s in zip(values, STEPS, strict=True)])
    rise = one(found, estimator="rise_over_pretraining")
    assert rise["value"] == pytest.approx(0.6) and (rise["low"], rise["high"]) == pytest.approx(
        (0.597, 0.603), abs=0.001
    )
    line = stats.linregress(np.log10(1 + np.array(STEPS) / min(s for s in STEPS if s)), values)
    ends = np.log10(1 + np.array([STEPS[0], STEPS[-1]]) / min(s for s in STEPS if s))
    assert one(found, estimator="rise_of_line")["value"] == pytest.approx(line.slope * np.ptp(ends))


def test_jumps_between_constant_answers_are_no_rise():
    """The published base on MNLI: shares of its classes, with standard errors that would make each jump significant."""
    values = [0.354, 0.335, 0.343, 0.344, 0.352, 0.338, 0.328, 0.327]
    steps = [1000, 18000, 342000, 424000, 505000, 592000, 738000, 738020]
    found = analysed(learning, [score("mnli", v, s, error=0.0048) for v, s in zip(values, steps, strict=True)])
    assert one(found, estimator="rise_over_pretraining")["group"] == "not_learned"
    gain = one(found, estimator="gain_by_tuning")
    assert pd.isna(gain["value"]) and gain["n"] == 0


def test_a_rise_that_stays_below_chance_is_not_learned():
    scores = [score("paws", 0.1 + 0.05 * number, step, error=0.001) for number, step in enumerate(STEPS)]
    found = analysed(learning, scores)
    assert one(found, estimator="rise_of_line")["low"] > 0
    end = one(found, estimator="end_above_baseline")
    assert end["group"] == "not_learned" and end["value"] < -0.15


def test_chance_is_that_of_the_rows_own_choices():
    """ARC-Easy rows with 4 choices: the base ends at 1/4, where two label words would have it at 1/2."""
    items = []
    for step in STEPS:
        for metric, value in ((PRIMARY["rank"], 0.25), ("chance", 0.25)):
            keys = {k: v for k, v in score("arc_easy", 0, step).items() if k in ITEMS and k != "value"}
            items += [{**keys, "metric": metric, "id": f"{i}", "value": value} for i in range(8)]
    found = analysed(learning, [score("mnli", 0.4)], items=items)
    assert one(found, test="arc_easy", estimator="end_above_baseline")["value"] == pytest.approx(0)


def test_tuning_on_instructions_counts_where_no_other_is_in_domain():
    scores = []
    for step in STEPS:
        scores += [score("boolq", 0.5, step), score("boolq", 0.9, step, "tulu")]
        scores += [score("mnli", 0.4, step), score("mnli", 0.9, step, "tulu"), score("mnli", 0.5, step, "mnli")]
        scores += [score("mnli", 0.8, step, "paws")]
    found = analysed(learning, scores)
    assert one(found, test="boolq", estimator="gain_by_tuning")["value"] == pytest.approx(0.4)
    assert one(found, test="mnli", estimator="gain_by_tuning")["value"] == pytest.approx(0.1)


def test_the_largest_gain_is_corrected_for_how_many_there_are():
    """Gains .1 ± .02 throughout, for one recipe and for four: the same value or more, a lower lower end."""
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 0.02, len(STEPS))
    lower = []
    for recipes in (["a"], ["a", "b", "c", "d"]):
        scores = [score("mnli", 0.4, step) for step in STEPS]
        for recipe in recipes:
            scores += [score("mnli", 0.5 + e, s, "mnli", recipe=recipe) for e, s in zip(noise, STEPS, strict=True)]
        lower.append(one(analysed(learning, scores), estimator="gain_by_tuning")["low"])
    assert lower[1] < lower[0] < 0.1


def test_two_steps_are_too_few():
    row = one(analysed(learning, [score("mnli", 0.4, 1), score("mnli", 0.9, 2)]))
    assert (
        row["estimator"] == "rise_over_pretraining"
        and pd.isna(row["value"])
        and pd.isna(row["group"])
        and row["n"] == 2
    )


# Change over pre-training


def test_last_minus_first_is_compared_row_by_row():
    """Each row .3 better at the last step, whatever it was: surer than of other rows. The slope is that of a regression."""
    keys = {k: v for k, v in score("mnli", 0).items() if k in ITEMS and k != "value"} | {"metric": "accuracy"}
    rows = np.random.default_rng(3).random(20) / 2
    items = [
        {**keys, "step": step, "id": f"{i:02}", "value": v + gain}
        for step, gain in ((100, 0.0), (200, 0.5), (300, 0.3))
        for i, v in enumerate(rows)
    ]
    found = analysed(pretraining_change, [score("paws", 0.4)], items=items)
    row = one(found, test="mnli", estimator="last_minus_first")
    unpaired = 2 * 1.96 * np.sqrt(2 / 20) * rows.std()
    assert row["value"] == pytest.approx(0.3) and row["n"] == 20 and 0 < row["high"] - row["low"] < unpaired
    slope = stats.linregress([100, 200, 300], [0.0, 0.5, 0.3]).slope
    assert one(found, test="mnli", estimator="slope")["value"] == pytest.approx(slope * 1e5)


def test_gains_are_apart_for_bases_that_rise_and_those_that_do_not():
    """By hand: flat bases on MNLI and XSum, tuned rise by .2 and .4; PAWS rises and gains .1, MNLI gains .5, XSum .6."""
    values = {  # first and last base, first and last tuned
        "mnli": (0.3, 0.3, 0.6, 0.8), "xsum": (0.1, 0.1, 0.3, 0.7), "paws": (0.3, 0.8, 0.8, 0.9),
    }  # fmt: skip
    scores, known = [], {"error": 0.001, "better": "higher"}
    for test, (*bases, first, last) in values.items():
        scores += [score(test, value, step, **known) for value, step in zip(bases, (1, 2), strict=True)]
        scores += [score(test, value, step, test, **known) for value, step in ((first, 1), (last, 2))]
    for step, value in (
        (1, 0.1),
        (2, 0.7),
    ):  # toxicity that rises is no hidden progress, and no score from 0 to 1 to average
        scores += [score("toxigen", value, step, train, error=0.001, better="lower") for train in ("none", "tulu")]
    found = analysed(pretraining_change, scores)
    means = found[found["test"].isna()].set_index(["group", "estimator"])["value"]
    assert means["base_does_not_rise", "last_minus_first"] == pytest.approx(0.3)
    assert means["base_rises", "last_minus_first"] == pytest.approx(0.1)
    assert means["base_does_not_rise", "gain_at_last_step"] == pytest.approx(0.55)
    assert means["base_does_not_rise_minus_base_rises", "gain_at_last_step"] == pytest.approx(0.45)


def test_groups_of_scores_without_errors_are_compared_by_the_spread_of_their_tests():
    """Welch's interval by scipy: gains .5 and .6 where bases are flat, .1 and .3 where they rise; errors only there."""
    values = {  # first and last base, gain at the last step, error
        "mnli": (0.3, 0.3, 0.5, 0.001), "xsum": (0.1, 0.1, 0.6, 0.001), "paws": (0.3, 0.8, 0.1, None),
        "social_iqa": (0.1, 0.4, 0.3, None),
    }  # fmt: skip
    scores = []
    for test, (first, last, gain, error) in values.items():
        for step, base in ((1, first), (2, last)):
            scores += [score(test, base, step, error=error), score(test, base + gain, step, test, error=error)]
    row = one(analysed(pretraining_change, scores), group="base_does_not_rise_minus_base_rises")
    assert row["value"] == pytest.approx(0.35) and row["n"] == 2 and row["low"] < 0 < row["high"]
    half = stats.t(1).ppf(0.975) * np.hypot(0.05, 0.1)  # one degree of freedom of each, as margins are combined
    assert row["high"] - row["value"] == pytest.approx(half, rel=0.02)


def test_a_gap_s_change_over_pre_training():
    """The formats of `formats`: tuned models' mean gap closes from .4 to .1."""
    found = analysed(format_gap, formats())
    row = one(found[found["train"].isna()], estimator="last_minus_first")
    assert row["value"] == pytest.approx(-0.3) and row["n"] == 2 and pd.isna(row["step"])


# Declines


def test_a_decline_is_dated_and_a_curve_that_levels_off_has_none():
    steps = list(range(10, 160, 10))
    falls = [min(s, 60) / 100 - 0.1 * (s > 100) for s in steps]
    levels = [min(s, 60) / 100 for s in steps]
    noise = np.random.default_rng(9).normal(0, 0.005, (2, len(steps)))
    scores = [score("mnli", v + e, s, error=0.005) for v, e, s in zip(falls, noise[0], steps, strict=True)]
    scores += [score("paws", v + e, s, error=0.005) for v, e, s in zip(levels, noise[1], steps, strict=True)]
    found = analysed(decline, scores)
    fall = found[found["test"] == "mnli"].set_index("estimator")["value"]
    assert fall["decline"] == pytest.approx(0.1, abs=0.02) and (fall["last_from"], fall["last_to"]) == (110, 150)
    assert fall["best_from"] >= 60 and fall["best_to"] <= 100
    row = one(found, test="mnli", estimator="decline")
    assert row["p_value"] < 0.001 and 0 < row["low"] < 0.1
    assert one(found, test="paws", estimator="decline")["p_value"] > 0.2


@pytest.mark.parametrize("steps", [7, 15])
def test_flat_curves_whose_checkpoints_scatter_have_a_decline_as_seldom_as_is_said(steps):
    """Scatter between checkpoints is twice the error of rows and unknown: too small an estimate made 8 to 9 % of false calls."""
    generator, axis = np.random.default_rng(3), np.arange(1.0, steps + 1)
    rows, values = generator.normal(0, 0.01, (600, steps, 200)), generator.normal(0, 0.01 * 5**0.5, (600, steps))
    called = [
        declines.decline(Curve(axis, own, own[:, None] + noise), Resampling(200, 0.95, seed)).p_value < 0.05
        for seed, (own, noise) in enumerate(zip(values, rows, strict=True))
    ]
    assert 0.02 <= np.mean(called) <= 0.065


# Zero-shot accuracy of Pythia (arXiv 2304.01373, released evaluations) at steps 3000, 13000, … 143000, with rounded errors.
PYTHIA = {
    ("160m", "sciq_choice", 0.0137): (
        0.653, 0.770, 0.760, 0.772, 0.775, 0.767, 0.775, 0.768, 0.757, 0.764, 0.750, 0.721, 0.735, 0.699, 0.741
    ),
    ("160m", "lambada_openai", 0.0066): (
        0.228, 0.300, 0.339, 0.331, 0.351, 0.345, 0.399, 0.374, 0.372, 0.368, 0.367, 0.347, 0.331, 0.313, 0.328
    ),
    ("70m", "sciq_choice", 0.0150): (
        0.592, 0.650, 0.653, 0.664, 0.663, 0.664, 0.681, 0.696, 0.633, 0.642, 0.628, 0.617, 0.614, 0.617, 0.601
    ),
    ("1.4b", "sciq_choice", 0.0112): (
        0.699, 0.833, 0.828, 0.832, 0.854, 0.841, 0.859, 0.857, 0.859, 0.873, 0.868, 0.868, 0.869, 0.874, 0.865
    ),
    ("6.9b", "lambada_openai", 0.0066): (
        0.306, 0.520, 0.575, 0.605, 0.615, 0.622, 0.630, 0.644, 0.646, 0.657, 0.657, 0.672, 0.666, 0.678, 0.673
    ),
}  # fmt: skip


def test_pythia_s_declines_are_found_and_no_others():
    """The smallest models score less at their end than before; larger ones do not, although their best step is not the last."""
    steps = [3000, *range(13_000, 144_000, 10_000)]
    scores = [
        score(test, value, step, family=family, error=error)
        for (family, test, error), values in PYTHIA.items()
        for step, value in zip(steps, values, strict=True)
    ]
    found = analysed(decline, scores, how=Resampling(1000, 0.95, 0))
    rows = found[found["estimator"] == "decline"]
    assert dict(zip(zip(rows["family"], rows["test"], strict=True), rows["p_value"] < 0.01, strict=True)) == {
        (family, test): family in ("160m", "70m") for family, test, _ in PYTHIA
    }
    assert (rows.set_index("family").loc[["1.4b", "6.9b"], "p_value"] > 0.5).all()


# Forecasts of later steps


TESTS = ["mnli", "paws", "xsum", "social_iqa", "rte", "qqp", "stsb", "gpt3_nli"]


def saturated(test, step):
    """A curve that goes on rising by less and less, for each test at another level."""
    return 0.2 + 0.04 * TESTS.index(test) + 0.2 * step / (step + 60)


def saturating(curves):
    """Fifteen steps of such curves, with little scatter."""
    generator = np.random.default_rng(0)
    return [
        score(test, saturated(test, step) + generator.normal(0, 0.003), step)
        for test in TESTS[:curves]
        for step in range(10, 160, 10)
    ]


def test_curves_of_a_sort_over_other_steps_leave_one_row_for_each_key():
    """Of six curves over fifteen steps and two that lack one, the gain on held-out steps is that of the six."""
    scores = [row for row in saturating(8) if row["step"] != 10 or row["test"] in TESTS[:6]]
    found = analysed(extrapolation, scores)  # which refuses keys that several rows share
    gains = found[found["estimator"] == "held_out_gain"]
    assert gains["step"].is_unique and (gains["n"] == 6).all()
    assert set(found.loc[found["estimator"] == "later_score", "test"]) == set(TESTS)


def test_later_scores_are_forecast_where_held_out_steps_were():
    found = analysed(extrapolation, saturating(8))
    later = found[(found["estimator"] == "later_score") & (found["step"] == 225)].set_index("test")
    truths = np.array([saturated(test, 225) for test in later.index])
    assert len(truths) == 8 and ((later["low"] <= truths) & (truths <= later["high"])).mean() > 0.6
    change = found[(found["estimator"] == "later_change") & (found["step"] == 225)]
    assert change["value"].mean() == pytest.approx(saturated("mnli", 225) - saturated("mnli", 150), abs=0.006)
    assert one(found[found["step"] == 225], estimator="held_out_gain")["p_value"] < 0.05


def test_nothing_is_forecast_of_a_run_that_has_turned_down():
    """The same curves, which fall by .004 a step over the last four of 15: too late for the held-out errors to fail, but seen."""
    fallen = [row | {"value": row["value"] - max(0, row["step"] - 110) * 0.0004} for row in saturating(8)]
    found = analysed(extrapolation, fallen)
    near = found[found["step"] == 188]
    assert one(near, estimator="held_out_gain")["p_value"] < 0.05
    assert one(near, estimator="shortfall")["p_value"] < 0.01
    assert near.loc[near["estimator"].isin(["later_score", "later_change"]), "value"].isna().all()
    steady = analysed(extrapolation, saturating(8))
    assert one(steady[steady["step"] == 188], estimator="shortfall")["p_value"] >= 0.2


def noisy_curves():
    """Eight saturating curves of fifteen steps, shape (8, 15), with a scatter of .003."""
    rng, steps = np.random.default_rng(0), np.arange(10, 160, 10.0)
    levels = np.linspace(0.2, 0.5, 8)[:, None]
    return steps, levels + 0.2 * steps / (steps + 60) + rng.normal(0, 0.003, (8, 15))


def test_intervals_allow_for_a_decline_that_begins_later():
    """The worse end is lower by .06 for each doubling: by .06 at twice the last step, by .0193 at 1.25 times. If less is better,
    it is the upper end. Other metrics lose two margins for each doubling."""
    steps, curves = noisy_curves()
    for factor, lost in ((2, 0.06), (1.25, 0.01932)):
        plain, allowed = (forecast(steps, curves, factor * 150, 0.8, fall=fall) for fall in (0.0, 0.06))
        assert allowed.low == pytest.approx(plain.low - lost, abs=1e-5) and allowed.high == pytest.approx(plain.high)
        assert (plain.values - plain.low > plain.high - plain.values).all()
        upside_down = forecast(steps, 1 - curves, factor * 150, 0.8, -1, fall=0.06)
        assert upside_down.high == pytest.approx(1 - allowed.low) and upside_down.low == pytest.approx(1 - allowed.high)
    plain, other = (forecast(steps, curves, 300, 0.8, fall=fall) for fall in (0.0, None))
    assert other.values - other.low == pytest.approx(3 * (plain.values - plain.low))


def test_a_run_that_turns_down_after_the_last_step_stays_within_the_interval():
    """It loses .03 for each doubling from step 150 on, beside a run that goes on: both are inside at step 225."""
    steps, curves = noisy_curves()
    goes_on = np.linspace(0.2, 0.5, 8) + 0.2 * 225 / (225 + 60)
    turns = np.linspace(0.2, 0.5, 8) + 0.2 * 150 / (150 + 60) - 0.03 * np.log2(1.5)
    found, without = forecast(steps, curves, 225, 0.8), forecast(steps, curves, 225, 0.8, fall=0.0)
    for truth in (goes_on, turns):
        assert ((found.low <= truth) & (truth <= found.high)).mean() >= 0.75
    assert (turns < without.low).all()


def test_a_rise_is_significant_if_it_is_larger_than_what_a_run_that_turns_down_loses():
    """A forecast of +.04 with an interval from -.01 to +.06: its lower margin, .05 at 80 %, is 1.2816 standard errors."""
    found = extrapolation.margins(0.05, 0.02)
    assert statistics.tested(0.04, found) == pytest.approx(2 * stats.norm.sf(0.04 / (0.05 / 1.281552)), abs=1e-6)
    assert statistics.tested(-0.04, found) == pytest.approx(2 * stats.norm.sf(0.04 / (0.02 / 1.281552)), abs=1e-6)


def test_of_losses_a_rise_is_the_decline():
    """Curves upside down: the sign says which way is worse."""
    rng, steps = np.random.default_rng(0), np.arange(10, 160, 10.0)
    curves = 0.2 + 0.2 * steps / (steps + 60) + rng.normal(0, 0.003, (8, 15)) - np.maximum(0, steps - 110) * 0.0004
    up, down = forecast(steps, curves, 188, 0.8), forecast(steps, 1 - curves, 188, 0.8, -1)
    assert up.fallen == pytest.approx(down.fallen, rel=1e-6) and up.fallen < 0.05
    assert forecast(steps, 1 - curves, 188, 0.8).fallen > 0.5


def test_nothing_is_forecast_where_the_last_value_does_as_well():
    """A random walk: no history tells where it goes. And three curves are too few to judge by."""
    generator = np.random.default_rng(3)
    walk = [
        score(test, v, s)
        for test in ("mnli", "paws", "xsum", "social_iqa", "rte", "qqp")
        for s, v in zip(range(10, 160, 10), 0.5 + generator.normal(0, 0.02, 15).cumsum(), strict=True)
    ]
    found = analysed(extrapolation, walk)
    assert found.loc[found["estimator"].isin(["later_score", "later_change"]), "value"].isna().all()
    few = analysed(extrapolation, saturating(3))
    assert few["value"].isna().all() and set(few["step"]) == {188, 225, 300}


# Ways of tuning against each other, and tests that tell bases apart


def test_recipes_are_set_against_each_other_on_the_same_bases():
    """Full .6 and .7, LoRA .5 and .65 on two tasks: .1 and .05 at home, their mean .075 with Student's t of two."""
    rows = [score(test, value, train=test) for test, value in (("mnli", 0.6), ("paws", 0.7))]
    rows += [score(test, value, train=test, recipe="lora") for test, value in (("mnli", 0.5), ("paws", 0.65))]
    rows += [score("paws", 0.4, train="mnli"), score("paws", 0.3, train="mnli", recipe="lora"), score("paws", 0.3)]
    found = analysed(contrast, rows)
    assert set(found["group"]) == {"full_minus_lora"} and found["recipe"].isna().all()
    single = found[found["test"].notna()].set_index(["train", "test"])["value"].to_dict()
    assert single == pytest.approx({("mnli", "mnli"): 0.1, ("paws", "paws"): 0.05, ("mnli", "paws"): 0.1})
    row = one(found, test=None)
    theirs = stats.ttest_1samp([0.1, 0.05], 0).confidence_interval(0.95)
    assert row["value"] == pytest.approx(0.075) and row["n"] == 2
    assert (row["low"], row["high"]) == pytest.approx(theirs, rel=1e-3)


def test_formats_are_set_against_each_other_at_one_recipe_each_tested_in_its_own():
    rows = [score("mnli", 0.6, train="mnli"), score("mnli", 0.5, train="mnli", format="io", test_format="io")]
    rows += [score("mnli", 0.9, train="mnli", test_format="io"), score("mnli", 0.2, train="mnli", recipe="lora")]
    found = analysed(contrast, rows)
    row = one(found, group="default_minus_io", train="mnli", recipe="full")
    assert row["value"] == pytest.approx(0.1) and row[["format", "test_format"]].isna().all()
    assert set(found["group"]) == {"default_minus_io", "full_minus_lora"}


def test_signal_to_noise_by_hand():
    """Six bases at .40 to .65 with errors of .02: signal .25, ratio 12.5. Equal ones: no more than chance, by simulation."""
    values = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
    rows = [score("mnli", value, step, error=0.02) for step, value in enumerate(values, start=1)]
    rows += [score("rte", 0.5 + step / 200, step, error=0.02) for step in range(1, 7)]
    found = analysed(signal_to_noise, rows)
    ratios = found[found["estimator"] == "signal_to_noise"].set_index("test")
    signals = found[found["estimator"] == "signal"].set_index("test")["value"]
    assert signals.to_dict() == pytest.approx({"mnli": 0.25, "rte": 0.025})
    assert ratios.loc["mnli", "value"] == pytest.approx(12.5, rel=0.02) and ratios.loc["mnli", "p_value"] < 1e-6
    drawn = np.ptp(np.random.default_rng(0).normal(size=(100_000, 6)), axis=1)
    assert signal_to_noise.range_tail(3.0, 6) == pytest.approx(np.mean(drawn > 3.0), abs=0.006)
    assert ratios.loc["rte", "p_value"] > 0.5


def test_noise_is_that_of_the_last_checkpoints_where_it_is_more_than_that_of_rows():
    """Nine steps, of which the last three scatter by .05 (.45, .50, .55) around errors of .01."""
    values = (0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.45, 0.5, 0.55)
    rows = [score("mnli", value, step, error=0.01) for step, value in enumerate(values)]
    found = analysed(signal_to_noise, rows)
    assert one(found, estimator="noise")["value"] == pytest.approx(0.05)
