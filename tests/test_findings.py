"""Findings follow from the tables, say what is planted and nothing false, and carry the audit's warnings."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import truths

from workflow import analyses, drawing, findings, grid, tables
from workflow.comparison import Evidence
from workflow.report import sections
from workflow.statistics import Resampling, holm

STEPS = [0, 300, 500, 700, 1000, 1500]
ROWS = 150
HOW = Resampling(200, 0.95, 0)
KINDS = grid.modules(findings)
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
        for name in grid.modules(analyses)
        for row in grid.module(analyses, name).analyse(evidence, groups, HOW)
    ]
    return tables.frame(
        pa.Table.from_pylist(rows, schema=pa.schema([pa.field("analysis", pa.string()), *tables.ANALYSIS]))
    )


@pytest.fixture(scope="module", params=[0, 1, 2], ids="seed{}".format)
def analysed(request):
    return world(request.param)


@pytest.fixture(scope="module")
def found(analysed):
    return pd.DataFrame(findings.found(findings.Material({"analysis": analysed}, HOW.level), NO_AUDIT))


def test_what_is_planted_is_said_and_nothing_false(found):
    assert truths.said(found["statement"], truths.TRUTHS) == set(truths.TRUTHS)
    assert truths.said(found["statement"], truths.LIES) == set()


def test_each_statement_follows_from_its_row(found, analysed):
    for row in found.to_dict("records"):
        truths.check(row, {"analysis": analysed})
    assert set(found["finding"]) == {
        "learning", "gains", "groups", "transfer", "turning_points", "ratios", "domains", "extrapolation", "conclusions",
    }  # fmt: skip


def test_changes_that_are_said_to_be_told_from_0_are_those_of_holm(found, analysed):
    """Changes at the last step, of each kind of relation apart."""
    last = analysed[(analysed["analysis"] == "tuning_difference") & (analysed["step"] == STEPS[-1])]
    for relation, verbs in {
        "in_domain": "(?:raises|lowers)",
        "out_of_domain": "(?:helps|hurts) on .*, out of its domain",
    }.items():
        rows = last[[drawing.relation(a, b) == relation for a, b in zip(last["train"], last["test"], strict=True)]]
        said = found[found["statement"].str.contains(f"^Tuning on [a-z_]+ {verbs}")]
        pairs = {(f["train"], f["test"]) for f in map(json.loads, said["filter"])}
        sure = rows[truths.told(rows)]
        assert pairs == set(zip(sure["train"], sure["test"], strict=True))


def test_tests_of_other_kinds_are_counted(found, analysed):
    last = analysed[(analysed["analysis"] == "tuning_difference") & (analysed["step"] == STEPS[-1])]
    far = last[[drawing.relation(a, b) == "cross_task" for a, b in zip(last["train"], last["test"], strict=True)]]
    same = far[~truths.told(far)].groupby("train").size()
    said = found[found["statement"].str.contains("of other kinds the change cannot be told")]
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


def finding(**conditions):
    return {"filter": json.dumps(conditions)}


def warned(conditions, section="tuned", **keys):
    row = dict.fromkeys(tables.AUDIT.names) | {"check": "c", "severity": "warning", "evidence": "e"} | keys
    return findings.weakened(conditions, section, pd.DataFrame([row]))


def test_a_warning_weakens_what_shares_its_keys():
    about = {"family": "mini", "train": "a", "test": "b", "step": 5}
    assert warned(about, family="mini", train="a") == ["warning, c: e"]
    assert warned(about, family="mini", test="b", shots=4) == ["warning, c: e"]
    assert warned(about, family="mini", test="c") == []
    assert warned(about, family="other") == []
    assert warned(about, family="mini", suite="x") == []  # of the whole suite
    assert warned({"family": "mini", "train": None}, family="mini", suite="x") == ["warning, c: e"]
    assert warned(about, family="mini", severity="note") == []
    assert warned({"family": "mini", "test": None}, family="mini", test="c") == ["warning, c: e"]


def test_what_the_audit_says_of_no_family_weakens_forecasts_alone():
    assert warned({"target": "sft"}, "forecasts") == ["warning, c: e"]
    assert warned({"target": "sft"}, "forecasts", family="mini") == []
    assert warned({"family": "mini"}) == []
    assert warned({"severity": "error"}, "audit") == []


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_names_its_section_and_tables(kind):
    module = grid.module(findings, kind)
    assert module.SECTION in sections.SECTIONS
    assert module.READS and callable(module.find)


def test_a_study_without_a_table_finds_nothing_of_it():
    assert "forecasts" not in findings.kinds(["analysis", "audit"])
    assert {"forecasts", "audit"} <= set(findings.kinds(["forecasts", "audit"]))


FORECAST = {
    **dict.fromkeys(tables.FORECASTS.names), "split": "every_pair", "subset": "all", "ties": "half", "target": "sft",
    "cohort": "c", "kind": "indicator", "n_pairs": 1225, "n_bases": 48,
}  # fmt: skip


def test_forecasts_say_which_indicator_orders_best_and_whether_beyond_the_config():
    rows = pd.DataFrame(
        [
            {**FORECAST, "forecaster": "ppl", "accuracy": 0.6, "low": 0.5, "high": 0.7, "gain": -0.1, "gain_low": -0.2,
             "gain_high": 0.05},
            {**FORECAST, "forecaster": "kshot", "accuracy": 0.7, "low": 0.6, "high": 0.8, "gain": 0.1, "gain_low": 0.04,
             "gain_high": 0.2},
            {**FORECAST, "forecaster": "all", "kind": "config", "accuracy": 0.9, "low": 0.8, "high": 0.95},
        ]
    )  # fmt: skip
    (row,) = findings.found(findings.Material({"forecasts": rows}, 0.95), NO_AUDIT)
    assert row["statement"] == (
        "sft of c: of 2 indicators and their means kshot orders most pairs of bases right, 0.700 (95% 0.600 to 0.800) of 1225 "
        "(chance .5); against all config fields together 0.100 (95% 0.040 to 0.200)."
    )
    assert (row["value"], row["n"], row["table"]) == (0.7, 48, "forecasts")


def test_the_best_of_many_gains_is_told_among_all_of_them():
    """An interval that just leaves out 0 is nothing to show for the best of ten: .02/.0095 is p = .035, times ten."""
    one = {"accuracy": 0.6, "low": 0.5, "high": 0.7, "gain": 0.02, "gain_low": 0.0014, "gain_high": 0.0386}
    rows = pd.DataFrame([{**FORECAST, **one, "forecaster": f"i{n}", "gain": 0.02 * (n == 0)} for n in range(10)])
    for count, told in ((1, True), (10, False)):
        (row,) = findings.found(findings.Material({"forecasts": rows[:count]}, 0.95), NO_AUDIT)
        assert ("not to be told from 0" not in row["statement"]) == told


def test_a_mean_over_few_tests_is_told_by_students_t():
    """Error .1 of the interval: over 2 tests t = .5/(.1 * sqrt 2) = 3.54, p = .175; over 9 t = 4.71, p = .0015."""
    one = {"value": 0.5, "low": 0.5 - 0.196, "high": 0.5 + 0.196}
    material = findings.Material({}, 0.95)
    for n, told in ((1, True), (2, False), (9, True)):
        rows = pd.DataFrame([one | {"n": n}])
        assert material.told(rows).tolist() == [True]
        assert material.told(rows, pooled=True).tolist() == [told]


def test_the_smoke_study_says_what_follows_from_its_tables(smoke):
    results = smoke / "study/results"
    found = tables.read(results / "findings.parquet")
    assert {"gains", "transfer", "audit"} <= set(found["finding"])
    read = {name: tables.read(results / f"{name}.parquet") for name in set(found["table"]) if name.isidentifier()}
    for row in found.to_dict("records"):
        truths.check(row, read)
    order = [list(sections.SECTIONS).index(section) for section in found["section"]]
    assert order == sorted(order)
