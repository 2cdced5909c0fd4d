"""Findings follow from the tables, say what is planted and nothing false, and carry the audit's warnings."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.stats
import truths

from workflow import registry
from workflow.analysis import analyses
from workflow.analysis.evidence import Evidence
from workflow.report import findings, sections, selection
from workflow.report.findings import declines, forgetting, groups, learning_rates, transfer
from workflow.statistics import Resampling, holm
from workflow.storage import tables
from workflow.study import grid, token_axis

STEPS = [0, 300, 500, 700, 1000, 1500]
ROWS = 150
HOW = Resampling(200, 0.95, 0)
KINDS = registry.modules(findings)
NO_AUDIT = pd.DataFrame(columns=tables.AUDIT.names)

# The share of rows that a base and a model tuned on the task get right, at the first and the last step.
PLANTED = {
    "mini_facts": ((0.25, 0.97), (0.25, 0.97)),
    "mini_facts_ood": ((0.25, 0.95), (0.25, 0.95)),
    "mini_inference": ((0.33, 0.33), (0.34, 0.97)),
    "mini_inference_ood": ((0.33, 0.33), (0.34, 0.9)),
    "mini_control": ((0.33, 0.33), (0.33, 0.33)),
    "mini_control_ood": ((0.33, 0.33), (0.33, 0.33)),
    "mini_paraphrase": ((0.5, 0.5), (0.97, 0.99)),
    "mini_paraphrase_ood": ((0.5, 0.5), (0.05, 0.02)),
    "mini_summary": ((0.05, 0.08), (0.2, 0.6)),
    "mini_question": ((0.05, 0.06), (0.2, 0.55)),
}
TUNED = [name for name in PLANTED if not name.endswith("_ood")]
CELL = {"family": "mini", "suite": "mini", "test_format": "default", "shots": 0, "seed": 0}


def world(seed):
    """The analysis of a study of a made-up world: rows right or wrong by chance around the planted shares."""
    generator = np.random.default_rng(seed)
    models = [("none", "none", "none"), *((train, "default", "full") for train in TUNED)]
    items = []
    for train, form, recipe in models:
        for test, (base, tuned) in PLANTED.items():
            first, last = tuned if test in (train, f"{train}_ood") else base
            for step in STEPS:
                share = first + (last - first) * step / STEPS[-1]
                metric = "rouge_l" if test in ("mini_summary", "mini_question") else "accuracy"
                keys = {**CELL, "train": train, "format": form, "recipe": recipe, "step": step, "test": test}
                values = (generator.random(ROWS) < share).astype(float)
                items += [{**keys, "metric": metric, "id": f"{i:03}", "value": v} for i, v in enumerate(values)]
    evidence = Evidence(pd.DataFrame(items), pd.DataFrame(columns=[*grid.CELL_KEYS, *tables.SCORES.names]))
    groups = {"learned_in_pretraining": {"mini_facts": ["mini_facts", "mini_facts_ood"]}}
    rows = [
        {"analysis": name, **row}
        for name in registry.modules(analyses)
        for row in registry.module(analyses, name).analyse(evidence, groups, HOW)
    ]
    return tables.frame(
        pa.Table.from_pylist(rows, schema=pa.schema([pa.field("analysis", pa.string()), *tables.ANALYSIS]))
    )


@pytest.fixture(scope="module", params=[0, 1, 2], ids="seed{}".format)
def analysed(request):
    return world(request.param)


@pytest.fixture(scope="module")
def found(analysed):
    return pd.DataFrame(findings.all_findings(findings.FindingTables({"analysis": analysed}, HOW.level), NO_AUDIT))


@pytest.mark.slow
def test_what_is_planted_is_said_and_nothing_false(found):
    assert truths.said(found["statement"], truths.TRUTHS) == set(truths.TRUTHS)
    assert truths.said(found["statement"], truths.LIES) == set()


@pytest.mark.slow
def test_each_statement_follows_from_its_row(found, analysed):
    for row in found.to_dict("records"):
        truths.check(row, {"analysis": analysed})
    assert set(found["finding"]) == {"signal_to_noise", 
        "learning", "gains", "groups", "transfer", "turning_points", "ratios", "domains", "extrapolation", "conclusions",
    }  # fmt: skip


def test_changes_that_are_called_significant_are_those_of_holm(found, analysed):
    """Changes at the last step: in the domain tuned on, and on all other tests."""
    last = analysed[(analysed["analysis"] == "tuning_difference") & (analysed["step"] == STEPS[-1])]
    for relations, verbs in {
        ("in_domain",): "(?:raises|lowers)",
        ("out_of_domain", "cross_task"): "(?:helps|hurts) on .*, (?:out of its domain|of another kind)",
    }.items():
        rows = last[[selection.relation(a, b) in relations for a, b in zip(last["train"], last["test"], strict=True)]]
        said = found[found["statement"].str.contains(f"^Tuning on [a-z_]+ {verbs}")]
        pairs = {(f["train"], f["test"]) for f in map(json.loads, said["filter"])}
        sure = rows[truths.significant(rows)]
        assert pairs == set(zip(sure["train"], sure["test"], strict=True))


def test_a_fall_helps_where_less_is_better(analysed):
    """The same changes on the same test, read as accuracy and as perplexity."""
    said = {}
    for better in ("higher", "lower"):
        scores = pd.DataFrame(
            [{"suite": "mini", "test": "mini_paraphrase_ood", "primary": True, "better": better, "part_of": None}]
        )
        found = transfer.find(findings.FindingTables({"analysis": analysed, "scores": scores}, HOW.level))
        said[better] = [row["statement"] for row in found if "on mini_paraphrase_ood, out" in row["statement"]]
    assert [text.replace("hurts", "helps") for text in said["higher"]] == said["lower"]
    assert said["higher"][0].startswith("Tuning on mini_paraphrase hurts on mini_paraphrase_ood")


def test_tests_of_other_kinds_are_counted(found, analysed):
    last = analysed[(analysed["analysis"] == "tuning_difference") & (analysed["step"] == STEPS[-1])]
    far = last[[selection.relation(a, b) == "cross_task" for a, b in zip(last["train"], last["test"], strict=True)]]
    others = [
        selection.relation(a, b) in ("cross_task", "out_of_domain")
        for a, b in zip(last["train"], last["test"], strict=True)
    ]
    sure = pd.Series(truths.significant(last[others]), last[others].index)
    same = far[~sure[far.index]].groupby("train").size()
    said = found[found["statement"].str.contains("of other kinds the change is not significant")]
    assert len(said) == len(TUNED)
    for row in said.to_dict("records"):
        train = json.loads(row["filter"])["train"]
        assert (row["value"], row["n"]) == (same[train], (far["train"] == train).sum())
        assert f"on {same[train]} of {row['n']} tests" in row["statement"]


def test_curves_without_a_turning_step_are_counted(found, analysed):
    """Rows rise in a straight line, and six steps are too few to find a bend again in every second of them."""
    (row,) = found[found["statement"].str.contains("curves of untouched bases: a straight line")].to_dict("records")
    assert (row["value"], row["n"]) == (len(PLANTED), len(PLANTED))


def test_the_paper_s_conclusions_are_confirmed_where_they_are_planted(found):
    """What tuning on inference and texts reaches grows along pre-training where bases stay flat; the shortcut hurts elsewhere;
    facts, which the last base knows, gain nothing."""
    said = found[found["finding"] == "conclusions"]["statement"].tolist()
    verdicts = {text.split(")")[0].rpartition("(")[2]: text.split(": ")[1].split(".")[0] for text in said}
    assert verdicts["iii"] == "confirmed"
    assert set(verdicts) == {"i", "ii", "iii"}  # one format
    assert "contradicted" not in verdicts.values()


def test_holm_by_hand():
    """.01 of three is .03, .04 of two is .08, .03 of one is .03 but no less than the one before it: order decides."""
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03])), [0.06, 0.03, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.6])), [1.0, 1.0])
    assert len(holm(np.array([]))) == 0


def warned(conditions, section="tuned", **keys):
    row = dict.fromkeys(tables.AUDIT.names) | {"check": "c", "severity": "warning", "evidence": "e"} | keys
    return findings.weakened([conditions], section, findings.Warnings(pd.DataFrame([row])))


def difference(train, test, value, analysis="tuning_difference", **keys):
    """A row of the analysis table about a tuned model, or pooled."""
    row = (
        dict.fromkeys(("analysis", *tables.ANALYSIS.names))
        | CELL
        | {"analysis": analysis, "train": train, "test": test}
    )
    row |= {"format": "default", "recipe": "full", "step": 9, "estimator": "difference_of_means", "value": value}
    row |= {"low": value - 0.01, "high": value + 0.01, "n": 150, "p_value": 1e-6, "seed_variance": True}
    return {key: row[key] for key in ("analysis", *tables.ANALYSIS.names)} | keys


def weakened_study(*audit):
    """Warnings of each finding of a small study: Paws tuned, tested on itself, QQP and XSum; pooled rows beside."""
    rows = [difference("paws", test, value) for test, value in (("paws", 0.3), ("qqp", -0.09), ("xsum", -0.05))]
    rows += [row | {"analysis": "performance", "estimator": "mean"} for row in rows]
    rows += [difference(None, None, -0.1, "domain_change", group="paraphrase", step=None, n=2)]
    rows += [difference("paws", "qqp", -0.1, "domain_change", group="paraphrase", step=None, n=2)]
    rows += [difference(None, None, -0.05, "ratio_of_change", group="classification_to_generation", step=None, n=2,
                        estimator="ratio_of_means")]  # fmt: skip
    rows += [difference(None, None, 0.2, "performance_difference", group="learned", n=2)]
    schema = pa.schema([pa.field("analysis", pa.string()), *tables.ANALYSIS])
    table = tables.frame(pa.Table.from_pylist(rows, schema=schema))
    known = [dict.fromkeys(tables.AUDIT.names) | {"severity": "error", "family": "mini"} | row for row in audit]
    material = findings.FindingTables({"analysis": table}, 0.95, {"learned": {"paws": ["paws", "qqp"]}})
    found = findings.all_findings(material, pd.DataFrame(known, columns=tables.AUDIT.names))
    tests = [json.loads(row["filter"]).get("test") for row in found]
    single = [None if isinstance(test, list) else test for test in tests]  # a count is of several
    return {(row["finding"], test): row["warnings"] for row, test in zip(found, single, strict=True)}


def test_what_is_wrong_with_a_base_s_score_weakens_the_difference_and_what_it_is_pooled_into():
    """An untouched base on QQP: said of the change on QQP, of the mean out of domain and of the group, of nothing else."""
    found = weakened_study({"check": "gold", "evidence": "one class", "train": "none", "recipe": "none", "test": "qqp"})
    warned = {place for place, warnings in found.items() if warnings == ["error, gold: one class"]}
    assert warned == {("transfer", "qqp"), ("domains", None), ("groups", None), ("conclusions", None)}
    assert {place for place, warnings in found.items() if warnings} == warned
    assert ("gains", "paws") in found and ("ratios", None) in found


def test_a_recommendation_carries_what_weakens_any_test_of_its_mean():
    row = dict.fromkeys(tables.RECOMMENDATIONS.names) | {"topic": "answer", "recipe": "full", "suite": "mini"}
    where = {
        "train": "paws",
        "test": "paws",
        "recipe": "full",
        "suite": "mini",
        "test_format": "default",
        "metric": "accuracy",
    }
    rows = [
        row | {"task": task, "statement": f"{task}: x.", "table": "scores", "filter": json.dumps(where)}
        for task in ("both", "paws")
    ]
    audit = dict.fromkeys(tables.AUDIT.names) | {
        "severity": "warning",
        "family": "mini",
        "suite": "mini",
        "test": "mnli",
    }
    audit |= {"check": "constant_predictions", "evidence": "one label", "train": "mnli"}
    targets = {"both": {"tests": [("paws", "paws"), ("mnli", "mnli")]}}
    material = findings.FindingTables({"recommendations": pd.DataFrame(rows)}, 0.95, {}, targets)
    found = {row["statement"]: row["warnings"] for row in findings.all_findings(material, pd.DataFrame([audit]))}
    assert found == {"both: x.": ["warning, constant_predictions: one label"], "paws: x.": []}


def test_a_task_without_a_family_weakens_what_is_tested_on_it():
    found = weakened_study({"check": "gold", "evidence": "one class", "family": None, "test": "xsum"})
    expected = {("transfer", "xsum"), ("ratios", None), ("conclusions", None)}  # on XSum, and its count of one test
    assert {place for place, warnings in found.items() if warnings} == expected


def test_noise_of_training_weakens_every_difference_of_its_suite():
    noise = {"check": "training_noise", "evidence": "apart", "suite": "mini", "severity": "warning"}
    assert all(weakened_study(noise).values())
    assert not any(weakened_study(noise | {"suite": "other"}).values())
    assert not any(weakened_study(noise | {"severity": "note"}).values())


def statements(rows):
    """What is said of some rows of the analysis table."""
    schema = pa.schema([pa.field("analysis", pa.string()), *tables.ANALYSIS])
    beside = difference("paws", "paws", 0.1, "performance", estimator="mean")
    table = tables.frame(pa.Table.from_pylist([*rows, beside], schema=schema))
    return [
        row["statement"] for row in findings.all_findings(findings.FindingTables({"analysis": table}, 0.95), NO_AUDIT)
    ]


def test_each_contrast_of_a_study_is_said():
    row = difference(None, None, 0.02, "contrast", group="full_minus_lora", recipe=None, n=3, p_value=0.4)
    other = difference(None, None, 0.2, "contrast", group="default_minus_io", format=None, test_format=None, n=3)
    texts = statements([row, other])
    assert {text[:45] for text in texts if text.startswith(("Tuning in", "Tuning by"))} == {
        "Tuning by recipe full instead of lora changes",
        "Tuning in format default instead of io change",
    }
    (text,) = [text for text in texts if "recipe full" in text]
    assert "not significant (Holm); detectable change 0." in text and "(power 0.8)" in text


def test_tests_that_distinguish_bases_are_listed_by_their_ratio():
    row = {"estimator": "signal_to_noise", "low": None, "high": None, "n": 6, "step": None}
    rows = [
        difference("none", test, ratio, "signal_to_noise", **row | {"format": "none", "recipe": "none", "p_value": p})
        for test, ratio, p in (("rte", 2.0, 0.6), ("mnli", 12.5, 1e-9), ("paws", 8.0, 1e-5))
    ]
    (text,) = [text for text in statements(rows) if text.startswith("Signal to noise")]
    assert (
        "2 of 3 tests show significant differences (Holm) between the untouched bases: mnli (12.5), paws (8.0); not significant: "
        "rte (2.0)." in text
    )


NONE = {"train": "none", "format": "none", "recipe": "none"}
POOLED = {"train": None, "test": None}


def every_kind(recipes=("full",), variance=False):
    """Rows of the analysis table that each kind of finding is made from, of untouched bases and of models tuned on Paws."""
    rows = []
    for recipe in recipes:
        own = {"recipe": recipe, "seed_variance": variance}
        for test in ("paws", "qqp", "xsum"):
            rows += [difference("paws", test, 0.1, **own)]
            rows += [difference("paws", test, 0.9, "performance", estimator="mean", **own)]
        home = {"train": "paws", "test": "paws"}
        for pair in (POOLED, home):
            rows += [difference(**pair, value=0.1, analysis="contrast", group="default_minus_io", **own, n=1)]
            gap = {"group": "default_minus_io", "test_format": None, "n": 1}
            rows += [difference(**pair, value=0.1, analysis="format_gap", **gap, **own)]
            rows += [
                difference(**pair, value=0.1, analysis="domain_change", group="paraphrase", **own, n=2) | {"step": None}
            ]
            ratio = {"estimator": "ratio_of_means", "group": "classification_to_generation", "step": None, "n": 2}
            rows += [difference(**pair, value=-0.1, analysis="ratio_of_change") | own | ratio]
        changes = {"estimator": "last_minus_first", "step": None}
        rows += [difference(**POOLED, value=0.1, analysis="format_gap") | own | gap | changes]
        rows += [
            difference(**POOLED, value=0.1, analysis="pretraining_change")
            | own
            | changes
            | {"group": "base_does_not_rise"}
        ]
        rows += [difference(**POOLED, value=0.1, analysis="performance_difference", group="learned", **own, n=1)]
        rows += [row | own for row in curves(home)]
    rows += [
        difference(test=test, value=0.5, analysis="performance", **NONE) | {"seed_variance": None}
        for test in ("paws", "qqp")
    ]
    rows += [row | NONE | {"seed_variance": None} for row in curves({"train": "none", "test": "paws"})]
    learned = NONE | {
        "train": None,
        "recipe": None,
        "format": None,
        "step": None,
        "group": "learned_in_tuning",
        "seed_variance": None,
    }
    for estimator in ("share_of_resamples", "rise_over_pretraining", "gain_by_tuning"):
        rows += [difference(None, "paws", 0.99, "learning") | learned | {"estimator": estimator}]
    return rows


def curves(pair):
    """A decline, a curve without a turning step, forecasts and the ratio of signal and noise of one model on one test."""

    def rows(analysis, estimators, **facts):
        return [
            difference(**pair, value=value, analysis=analysis) | facts | {"estimator": name}
            for name, value in estimators.items()
        ]

    ends = {"decline": 0.1, "best_from": 3.0, "best_to": 3.0, "last_from": 9.0, "last_to": 9.0}
    ahead = {"later_change": 0.1, "later_score": 0.6}
    return [
        *rows("decline", ends, step=None, group="level", p_value=1e-6),
        *[
            row | {"value": None}
            for row in rows("turning_point", {"turning_step": 0}, step=None, group="level", p_value=0.5)
        ],
        *rows("extrapolation", ahead, step=18, group="scores"),
        *[
            row | {"train": None, "test": None}
            for row in rows("extrapolation", {"held_out_gain": 0.3}, step=18, group="scores")
        ],
        *rows("signal_to_noise", {"signal_to_noise": 9.0}, step=None, low=None, high=None, n=4),
    ]


OWN_FORECAST = dict.fromkeys(tables.FORECASTS.names) | {
    "cohort": "own", "split": "every_pair", "forecaster": "ppl_clm", "kind": "indicator", "source": "t", "target": "t",
    "subset": "all", "ties": "half", "accuracy": 0.8, "joint_low": 0.6, "joint_high": 0.9, "n_pairs": 15, "n_bases": 6,
}  # fmt: skip


FORGOTTEN = {
    "family": "mini", "step": 9, "train": "paws", "format": "default", "recipe": "full", "indicator": "ppl", "group": None,
    "base": 1.0, "tuned": 1.2, "value": 0.2, "low": 0.1, "high": 0.3, "n": 50, "seeds": 1, "p_value": 1e-6,
}  # fmt: skip


def test_a_rise_of_a_loss_is_a_finding_on_forgetting():
    rows = pd.DataFrame([FORGOTTEN, FORGOTTEN | {"step": 3, "value": 0.9}, FORGOTTEN | {"group": "news"}])
    [row] = forgetting.find(findings.FindingTables({"forgetting": rows}, 0.95))
    assert row["statement"] == (
        "Tuning on paws raises the loss that ppl measures by 0.200 (95 % CI 0.100 to 0.300) bits per byte at step 9: "
        "significant (Holm)."
    )
    assert len(tables.matching(rows, json.loads(row["filter"]))) == 1


def own_choices(rates=((3, 1e-4), (9, 1e-5))):
    """The table `own_choices` of searches that chose these rates at these steps, of two that they tried."""
    keys = {"family": "olmo", "train": "paws", "format": "default", "recipe": "full"}
    rows = [
        {**keys, "step": step, "rate": rate, "learning_rate": value, "diverged": False, "chosen": value == best}
        for step, best in rates
        for rate, value in enumerate((1e-4, 1e-5))
    ]
    return pd.DataFrame(rows)


def said_of(rows):
    """All findings of rows of the analysis table, with a forecast of a target of the study's own cohort."""
    schema = pa.schema([pa.field("analysis", pa.string()), *tables.ANALYSIS])
    table = tables.frame(pa.Table.from_pylist(rows, schema=schema))
    read = {"analysis": table, "forecasts": pd.DataFrame([OWN_FORECAST]), "own_choices": own_choices()}
    read["forgetting"] = pd.DataFrame([FORGOTTEN])
    way = {"test_format": "default", "recipe": "full", "suite": "mini", "shots": 0}
    target = {"t": {"tests": [("paws", "paws")], "way": way}}
    material = findings.FindingTables(read, 0.95, {"learned": {"paws": ["paws"]}}, target, ["own"])
    return table, findings.all_findings(material, NO_AUDIT)


ON_MODELS = sorted(set(KINDS) - {"audit", "costs", "recommendations"})


@pytest.mark.parametrize("kind", ON_MODELS)
def test_each_finding_on_tuned_models_says_that_they_have_one_seed(kind):
    """Every kind that there is: on models of a single seed, never of several seeds nor of untouched bases."""
    single, several = (
        [row for row in said_of(every_kind(variance=variance))[1] if row["finding"] == kind]
        for variance in (False, True)
    )
    tuned = [
        row for row in single if "tuned" in row["section"] or kind not in UNTOUCHED_TOO or '"paws"' in row["filter"]
    ]
    tuned = [row for row in tuned if '"recipe": "none"' not in row["filter"]]
    assert tuned and len(single) == len(several)
    assert all(row["statement"].endswith("One seed: another seed may give another value.") for row in tuned)
    assert not any("seed" in row["statement"] for row in several)
    assert not any("seed" in row["statement"] for row in single if '"recipe": "none"' in row["filter"])


def test_rates_of_each_base_and_declines_under_a_fixed_and_an_own_rate():
    """One curve under two recipes: with the fixed rate the decline is significant, with the own rate it is not."""
    table, _ = said_of(every_kind(recipes=("full", "lora"), variance=True))
    own = (table["analysis"] == "decline") & (table["recipe"] == "lora") & (table["estimator"] == "decline")
    table.loc[own, ["value", "low", "p_value"]] = [0.01, -0.05, 0.4]
    read = {"analysis": table, "own_choices": own_choices()}
    material = findings.FindingTables(read, 0.95, rate_twins=[("full", "lora")])
    chosen, beside = [row["statement"] for row in learning_rates.find(material)]
    assert chosen == (
        "The best learning rate of paws is 0.0001 at step 3 and 1e-05 at step 9; 1 of 2 steps have another one than the last "
        "(4 rates tried, lowest loss on held-out rows)."
    )
    assert beside == (
        "Decline on paws, tuned on paws: 0.100 (95 % CI at least 0.090, significant, Holm) with one learning rate for all steps "
        "(full), 0.010 (95 % CI at least −0.050, not significant, Holm) with the best rate of each step (lora). "
        "A decline is shown with the fixed rate only."
    )
    equal = material.tables | {"own_choices": own_choices([(3, 1e-5), (9, 1e-5)])}
    first = next(learning_rates.find(findings.FindingTables(equal, 0.95)))["statement"]
    assert (
        first == "The best learning rate of paws is 1e-05 at all 2 steps (4 rates tried, lowest loss on held-out rows)."
    )


UNIT = ["family", "train", "format", "recipe", "suite", "test", "test_format", "shots"]
UNTOUCHED_TOO = ("declines", "turning_points", "extrapolation", "signal_to_noise")


def test_several_tunings_of_single_seeds_are_said_in_the_plural():
    rows = [difference(train, "qqp", 0.5, "performance", seed_variance=False) for train in ("paws", "mnli")]
    material = findings.FindingTables({"analysis": pd.DataFrame(rows)}, 0.95)
    sides = [
        {"train": train, "format": "default", "recipe": "full", "test": "qqp"} for train in ("paws", "mnli", "none")
    ]
    row = {"section": "transfer", "finding": "ratios", "table": "analysis"}
    assert findings.one_seed(material, row, sides) == " One seed each: other seeds may give other values."
    assert findings.one_seed(material, row, sides[1:]) == " One seed: another seed may give another value."
    assert findings.one_seed(material, row, sides[2:]) == ""


@pytest.mark.parametrize("recipes", [("full",), ("full", "lora")], ids="recipes{0}".format)
def test_what_is_counted_is_what_the_filter_selects_each_once(recipes):
    """Of two recipes each has a count of its own: none counts the other's rows, nor those of untouched bases."""
    table, found = said_of(every_kind(recipes))
    counts = [row for row in found if any(isinstance(value, list) for value in json.loads(row["filter"]).values())
              or any(text in row["statement"] for text in truths.COUNTS)]  # fmt: skip
    assert {row["finding"] for row in counts} == {
        "conclusions",
        "declines",
        "extrapolation",
        "signal_to_noise",
        "transfer",
        "turning_points",
    }
    for row in counts:
        rows = tables.matching(table, json.loads(row["filter"]))
        assert len(rows) == row["n"] and not rows.duplicated(UNIT).any(), row["statement"]
    texts = [(row["section"], row["statement"]) for row in counts]
    assert len(set(texts)) == len(texts)


def test_a_warning_weakens_what_shares_its_keys():
    about = {"family": "mini", "train": "a", "test": "b", "step": 5}
    assert warned(about, family="mini", train="a") == ["warning, c: e"]
    assert warned(about, family="mini", test="b", shots=4) == ["warning, c: e"]
    assert warned(about, family="mini", test="c") == []
    assert warned(about, family="other") == []
    assert warned(about, family="mini", suite="x") == []  # of the whole suite
    assert warned({"family": "mini", "train": None}, family="mini", suite="x") == ["warning, c: e"]
    assert warned(about, family="mini", severity="note") == []
    assert (
        warned({"family": "mini", "test": None}, family="mini", test="c") == []
    )  # one of its tests: see the pooled rows below
    assert warned({"train": "a"}, "answer", family="mini", train="a") == [
        "warning, c: e"
    ]  # whichever base is asked about
    assert warned(about, test="b") == ["warning, c: e"] and warned(about, test="b", cohort="c") == []


def test_what_the_audit_says_of_no_family_weakens_forecasts_alone():
    assert warned({"target": "sft"}, "forecasts") == ["warning, c: e"]
    assert warned({"target": "sft"}, "forecasts", family="mini") == []
    assert warned({"severity": "error"}, "audit") == []


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_names_its_section_and_tables(kind):
    module = registry.module(findings, kind)
    assert module.SECTION in sections.SECTIONS
    assert module.READS and callable(module.find)


def test_a_study_without_a_table_finds_nothing_of_it():
    assert "forecasts" not in findings.kinds(["analysis", "audit"])
    assert {"forecasts", "audit"} <= set(findings.kinds(["forecasts", "audit"]))


FORECAST = {
    **dict.fromkeys(tables.FORECASTS.names), "split": "every_pair", "subset": "all", "ties": "half", "target": "sft",
    "cohort": "c", "kind": "indicator", "n_pairs": 1225, "n_bases": 48,
}  # fmt: skip


JOINT = {"joint_low": 0.58, "joint_high": 0.82, "p_value": 0.01, "gain": 0.1, "gain_joint_low": 0.01,
         "gain_joint_high": 0.22, "gain_p_value": 0.04}  # fmt: skip


def forecast(*rows):
    """What is found of some rows of forecasts."""
    frame = pd.DataFrame([FORECAST | row for row in rows])
    return [
        row["statement"] for row in findings.all_findings(findings.FindingTables({"forecasts": frame}, 0.95), NO_AUDIT)
    ]


def test_forecasts_say_which_indicator_orders_best_and_whether_beyond_the_config():
    best = {"forecaster": "kshot", "accuracy": 0.7, **JOINT}
    (text,) = forecast(
        best | {"forecaster": "probe", "accuracy": 0.6},
        best,
        {"forecaster": "all", "kind": "config", "accuracy": 0.9, "low": 0.8, "high": 0.95},
    )
    assert text == (
        "sft of cohort c: the best of 2 indicators and their means, kshot, orders 0.700 (95 % CI 0.580 to 0.820) of 1225 pairs "
        "of bases right; chance is 0.5: significant, corrected for choosing the best; gain over all config fields together 0.100 "
        "(95 % CI 0.010 to 0.220): significant."
    )
    (text,) = forecast(best | {"p_value": 0.06, "gain_p_value": 0.051})
    # half-widths of .12 and .105, times 1 + .8416 / 1.9600 for power .8
    assert (
        "chance is 0.5: not significant (detectable difference 0.172, power 0.8), corrected for choosing the best"
        in text
    )
    assert text.endswith("0.220): not significant (detectable difference 0.150, power 0.8).")


def test_what_was_chosen_on_the_targets_is_never_the_headline():
    chosen = {"forecaster": "minmax:sc_rag", "kind": "combination", "accuracy": 0.9, **JOINT, "chosen_on_targets": True}
    assert forecast(chosen) == []
    (text,) = forecast(chosen, {"forecaster": "kshot", "accuracy": 0.7, **JOINT})
    assert "the best of 1 indicators and their means, kshot," in text


@pytest.mark.parametrize(
    ("accuracy", "p_value", "said"),
    [
        (0.32, 0.01, "significantly against the outcome, which confirms arXiv 2504.12491"),
        (0.68, 0.01, "significantly with the outcome, which contradicts arXiv 2504.12491"),
        (0.45, None, "too few bases to test, which neither confirms nor contradicts arXiv 2504.12491"),
        (
            0.45,
            0.30,
            "not significant (detectable difference 0.172, power 0.8), which neither confirms nor contradicts",
        ),
    ],
)
def test_perplexity_against_the_outcome_is_said(accuracy, p_value, said):
    row = {"accuracy": accuracy, **JOINT, "p_value": p_value}
    texts = forecast(row | {"forecaster": "inv_ppl_clm"}, row | {"forecaster": "ppl_sc"})
    (text,) = [text for text in texts if "perplexity (" in text]
    assert "perplexity (inv_ppl_clm)" in text and said in text


@pytest.mark.parametrize(
    ("lead", "p_value", "said"),
    [
        (0.1, 0.01, "significant (Holm), which confirms"),
        (-0.1, 0.01, "significant (Holm), which contradicts"),
        (0.1, 0.2, "not significant (Holm; detectable difference 0.071, power 0.8), which neither confirms"),
    ],
)
def test_learning_to_compare_is_set_beside_the_best_indicator(lead, p_value, said):
    row = {"forecaster": "lightgbm", "kind": "comparer", "source": "sft", "accuracy": 0.8, "lead": lead}
    row |= {"lead_low": lead - 0.05, "lead_high": lead + 0.05, "lead_p_value": p_value}
    (text,) = forecast(row)
    assert said in text and "orders 0.800 of 1225 pairs right" in text


def test_shortlists_are_said_to_hold_the_best():
    row = dict.fromkeys(tables.RANKINGS.names) | {"cohort": "c", "split": "random", "target": "sft", "n": 20}
    row |= {"forecaster": "lightgbm", "source": "sft", "low": 1.0, "high": 4.0}
    rows = [row | {"statistic": "recall_of_best", "k": k, "value": 1.0} for k in range(1, 21)]
    rows += [row | {"statistic": "shortlist", "value": 2.1}, row | {"statistic": "longest_shortlist", "value": 15.0}]
    read = {"forecasts": pd.DataFrame([FORECAST]), "rankings": pd.DataFrame(rows)}
    (found,) = findings.all_findings(findings.FindingTables(read, 0.95), NO_AUDIT)
    assert "the best of 20 held-out bases has 2.1 bases on average over 20 random splits" in found["statement"]
    assert "and at most 15, which contradicts" in found["statement"] and found["table"] == "rankings"


def test_verdicts_are_holm_s_of_the_rows_p_values_and_say_what_would_have_been_found():
    """p .01, .02, .2 of three: .03, .04, .2. Of one row left at .05: (1.96 + .8416) times the error."""
    row = {"value": 0.1, "low": 0.1 - 1.96 * 0.05, "high": 0.1 + 1.96 * 0.05, "n": 150}
    rows = pd.DataFrame([row | {"p_value": p} for p in (0.2, 0.01, 0.02)])
    material = findings.FindingTables({}, 0.95)
    assert material.significant(rows).tolist() == [False, True, True]
    assert material.detectable(rows).iloc[0] == pytest.approx((1.96 + 0.8416) * 0.05, rel=1e-3)
    assert material.verdicts(rows).tolist() == [
        "not significant (Holm); detectable change 0.140 (power 0.8)",
        "significant (Holm)",
        "significant (Holm)",
    ]
    assert material.verdicts(pd.DataFrame([row | {"p_value": None, "low": np.nan, "high": np.nan}])).tolist() == [
        "not tested, since its uncertainty is unknown"
    ]


@pytest.mark.parametrize(
    ("score", "said"), [(0.5, "no possible change is detectable"), (30.0, "detectable change 1.05")]
)
def test_no_change_beyond_1_of_a_score_up_to_1_is_called_detectable(score, said):
    """Two pairs, ±.95 by one degree of freedom: (12.706 + 1.376) .95 / 12.706 = 1.053, more than such scores can change."""
    row = difference(None, None, 0.0, "domain_change", group="inference", step=None, n=2, p_value=0.2)
    row |= {"low": -0.95, "high": 0.95}
    level = difference("mnli", "rte", score, "performance", estimator="mean")
    table = tables.frame(
        pa.Table.from_pylist([row, level], schema=pa.schema([pa.field("analysis", pa.string()), *tables.ANALYSIS]))
    )
    material = findings.FindingTables({"analysis": table}, 0.95)
    (text,) = [
        found["statement"] for found in findings.all_findings(material, NO_AUDIT) if found["finding"] == "domains"
    ]
    assert said in text


def test_what_would_have_been_found_is_found_in_four_of_five_simulated_studies():
    """Three differences of standard error .05, of which one is as large as is said: at Holm's first level, .05 / 3."""
    rng = np.random.default_rng(0)
    error, low = 0.05, 1.96 * 0.05
    null = pd.DataFrame([{"value": 0.0, "low": -low, "high": low, "n": 9, "p_value": 1.0}] * 3)
    size = findings.FindingTables({}, 0.95).detectable(null).iloc[0]
    drawn = rng.normal([size, 0, 0], error, size=(2000, 3))
    p = 2 * scipy.stats.norm.sf(np.abs(drawn) / error)
    assert np.mean([holm(row)[0] < 0.05 for row in p]) == pytest.approx(0.8, abs=0.03)


def test_the_smoke_study_says_what_follows_from_its_tables(smoke):
    results = smoke / "study/results"
    found = tables.read(results / "findings.parquet")
    assert {"gains", "transfer", "audit"} <= set(found["finding"])
    read = {name: tables.read(results / f"{name}.parquet") for name in set(found["table"]) if name.isidentifier()}
    for row in found.to_dict("records"):
        truths.check(row, read)
    order = [list(sections.SECTIONS).index(section) for section in found["section"]]
    assert order == sorted(order)


def said_beside(*rows):
    """The statements on some rows beside the score of a fine-tuned model, which tells the ways of testing."""
    score = difference("paws", "paws", 0.5, "performance", estimator="mean")
    return [row["statement"] for row in said_of([score, *rows])[1]]


def test_a_decline_that_would_have_been_found_is_said():
    """A bound .05 below the estimate is z(.95) = 1.6449 errors; z(.8) = .8416 more; of two curves the first needs z(.975)."""
    rows = pd.DataFrame({"value": [0.02, 0.01], "low": [-0.03, -0.04]})
    assert declines.detectable(rows[:1], 0.95).tolist() == pytest.approx([0.05 * (1.6449 + 0.8416) / 1.6449], abs=1e-4)
    assert declines.detectable(rows, 0.95).tolist() == pytest.approx(2 * [0.05 * (1.96 + 0.8416) / 1.6449], abs=1e-4)
    flat = difference("none", "paws", 0.02, "decline", estimator="decline", step=None, group="level", p_value=0.4)
    said = said_beside(flat | {"format": "none", "recipe": "none", "low": -0.03, "high": None})
    assert [text for text in said if "decline" in text] == [
        "No significant decline (Holm) in 1 of 1 curves of untouched bases; detectable decline 0.076 (median over curves, "
        "power 0.8)."
    ]


def test_tests_of_unknown_uncertainty_are_counted_apart():
    """Of two tests of another kind one is known to .01 and one not at all."""
    known = difference("paws", "xsum", 0.001, low=-0.0086, high=0.0106, p_value=0.8, n=None)
    unknown = difference("paws", "social_iqa", 0.001, low=None, high=None, p_value=None)
    (said,) = [text for text in said_beside(known, unknown) if "of other kinds" in text]
    # a standard error of .0096 / 1.9600, times 2.2414 (.05 / 2, two-sided) + .8416
    assert (
        "the change is not significant (Holm); detectable change 0.015 on 1 of them (power 0.8); 1 of them not" in said
    )


def test_a_test_that_a_group_lists_twice_is_said_to_count_twice():
    row = difference(None, None, -0.005, "performance_difference") | {"group": "learned", "n": 2}
    table = pd.DataFrame([row | {"estimator": "difference_of_means"}])
    listed = {"learned": {"tulu": ["arc_easy", "sciq", "sciq"]}}
    material = findings.FindingTables({"analysis": table}, 0.95, listed)
    assert groups._doubled(material, "learned") == " (sciq counts 2 times)"
    assert groups._doubled(material, "other") == ""


TOKENS = {"olmo": {0: 0.0, 1000: 4.2e9, 424000: 1.9e12}, "mini": {300: 307200.0}}


@pytest.mark.parametrize(
    ("text", "family", "expected"),
    [
        ("rises by .1 at step 424,000, then falls", "olmo", "rises by .1 at step 424,000 (1.9T tokens), then falls"),
        ("turns at step 1000 (95 % CI 1 to 2)", "olmo", "turns at step 1000 (4.2B tokens; 95 % CI 1 to 2)"),
        (
            "olmo at step 1000 or mini at step 300",
            None,
            "olmo at step 1000 (4.2B tokens) or mini at step 300 (307K tokens)",
        ),
        ("step 1000 of olmo; step 1000 is the best", "olmo", "step 1000 (4.2B tokens) of olmo; step 1000 is the best"),
        ("at step 1000 (4.2B tokens) it rises", "olmo", "at step 1000 (4.2B tokens) it rises"),
        ("at step 1000, per 1,000 steps", "other", "at step 1000, per 1,000 steps"),
        ("halfway, at step 500", "olmo", "halfway, at step 500 (2.1B tokens)"),
    ],
)
def test_steps_of_sentences_have_their_tokens_once(text, family, expected):
    assert token_axis.annotated(text, TOKENS, family) == expected
