"""Figures show what the tables say, each thing in one look; what a study lacks is said in one line."""

from __future__ import annotations

import itertools

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import running

from workflow import registry
from workflow.analysis import analyses
from workflow.analysis.evidence import Evidence
from workflow.errors import StudyError
from workflow.planning import config_checks
from workflow.report import drawing, figures, selection
from workflow.statistics import Resampling
from workflow.storage import tables
from workflow.study import grid

STYLE = running.ROOT / "workflow/report/figures/style.mplstyle"
STEPS = [0, 100, 200, 300, 400, 500]
NO_SCORES = pd.DataFrame(columns=[*grid.CELL_KEYS, *tables.SCORES.names])
CELL = {"family": "olmo", "suite": "plain", "test_format": "default", "shots": 0}


@pytest.fixture(autouse=True)
def style():
    with matplotlib.style.context(STYLE):
        yield


def levels(train, test, values, steps=(10, 20), **keys):
    """Rows of the analysis `performance`, one for each step; intervals of 0.1 to both sides."""
    own = {"format": "none", "recipe": "none"} if train == "none" else {"format": "default", "recipe": "full"}
    return [
        {
            **{"analysis": "performance", "group": None, "estimator": "mean", "n": 100, "p_value": None},
            **CELL, **own, "train": train, "test": test, "step": step,
            "value": value, "low": value - 0.1, "high": value + 0.1, **keys,
        }
        for step, value in zip(steps, values, strict=True)
    ]  # fmt: skip


def frame(*parts, overlays=None):
    """The analysis that figures read."""
    rows = pa.Table.from_pylist([row for part in parts for row in part], schema=schema())
    return selection.overlaid(tables.frame(rows), overlays or {})


def schema():
    return pa.schema([pa.field("analysis", pa.string()), *tables.ANALYSIS])


def score(test, metric, value):
    return {**CELL, "test": test, "metric": metric, "value": value}


def draw(name, analysis, scores=NO_SCORES):
    """A figure; one of the search for learning rates has a rate of its own at each step for two tasks."""
    module = registry.module(figures, name)
    return module.draw(scores, analysis, *[OWN_CHOICES for _ in getattr(module, "READS", ())])


OWN_CHOICES = pd.DataFrame(
    [
        {"family": "olmo", "train": train, "format": "default", "recipe": "own", "step": step, "rate": rate,
         "learning_rate": value, "diverged": value > 1e-3, "chosen": rate == best}
        for train in ("mini_inference", "mini_summary")
        for step, best in zip(STEPS, (1, 1, 1, 2, 2, 2), strict=True)
        for rate, value in enumerate((1e-2, 1e-4, 1e-5))
    ]
)  # fmt: skip


def drawn(figure):
    """What each panel shows: title -> label of a line -> its values."""
    return {
        axis.get_title("left"): {line.get_label(): list(line.get_ydata()) for line in axis.get_lines()}
        for axis in figure.axes
    }


STUDY = (
    levels("none", "mnli", [0.3, 0.4]),
    levels("mnli", "mnli", [0.5, 0.8]),
    levels("xsum", "mnli", [0.31, 0.32]),
    levels("none", "mnli_mismatched", [0.33, 0.34]),
    levels("mnli", "mnli_mismatched", [0.6, 0.7]),
    levels("none", "rte", [0.45, 0.46]),
    levels("mnli", "rte", [0.55, 0.65]),
    levels("none", "xsum", [0.1, 0.11]),
    levels("mnli", "xsum", [0.02, 0.03]),
    levels("xsum", "xsum", [0.2, 0.25]),
    levels("none", "boolq", [0.6, 0.62]),
    levels("tulu", "boolq", [0.64, 0.7], recipe="tulu"),
)


# Which rows are shown


def test_curves_show_tests_in_the_domain_of_tuning_and_after_conversations():
    assert drawn(draw("curves", frame(*STUDY))) == {
        "mnli": {"untouched base": [0.3, 0.4], "tuned on mnli": [0.5, 0.8]},
        "mnli_mismatched": {"untouched base": [0.33, 0.34], "tuned on mnli": [0.6, 0.7]},
        "boolq": {"untouched base": [0.6, 0.62], "tuned on tulu": [0.64, 0.7]},
        "xsum": {"untouched base": [0.1, 0.11], "tuned on xsum": [0.2, 0.25]},
    }


def test_domains_show_other_tests_of_the_kind_tuned_on():
    assert drawn(draw("domains", frame(*STUDY))) == {
        "rte": {"untouched base": [0.45, 0.46], "tuned on mnli": [0.55, 0.65]}
    }


def test_cross_task_shows_tasks_of_other_kinds_that_are_tuned_on():
    assert drawn(draw("cross_task", frame(*STUDY))) == {
        "mnli": {"untouched base": [0.3, 0.4], "tuned on xsum": [0.31, 0.32]},
        "xsum": {"untouched base": [0.1, 0.11], "tuned on mnli": [0.02, 0.03]},
    }


def test_steps_are_drawn_to_scale_in_their_order():
    figure = draw("curves", frame(levels("none", "mnli", [0.5, 0.2, 0.3], steps=(300, 0, 100))))
    [line] = figure.axes[0].get_lines()
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0, 100, 300], [0.2, 0.3, 0.5])


def test_intervals_are_bands_around_their_values():
    figure = draw("curves", frame(levels("none", "mnli", [0.3, 0.4])))
    [band] = figure.axes[0].collections
    corners = {(round(x), round(y, 6)) for x, y in band.get_paths()[0].vertices}
    assert corners == {(10, 0.2), (10, 0.4), (20, 0.3), (20, 0.5)}


def test_baselines_are_those_of_the_panel_s_test():
    scores = pd.DataFrame(
        [score("mnli", "chance", 1 / 3), score("mnli", "majority", 0.35), score("rte", "chance", 0.5)]
    )
    found = drawn(draw("curves", frame(*STUDY), scores))
    assert (found["mnli"]["chance"], found["mnli"]["majority"]) == ([1 / 3, 1 / 3], [0.35, 0.35])
    assert "chance" not in found["xsum"] and "chance" not in found["boolq"]


@pytest.mark.parametrize(
    ("ways", "expected"),
    [
        ({("default", 0): 2, ("default", 4): 3}, ("default", 4)),
        ({("default", 0): 3, ("default", 4): 3}, ("default", 0)),
        ({("io", 0): 3, ("default", 0): 3}, ("default", 0)),
        ({("io", 0): 4, ("default", 0): 3}, ("io", 0)),
    ],
)
def test_a_suite_is_shown_in_the_way_of_most_rows(ways, expected):
    parts = []
    for (format, shots), count in ways.items():
        steps = range(count)
        parts.append(levels("mnli", "mnli", [0.5] * count, steps, format=format, test_format=format, shots=shots))
        parts.append(levels("none", "mnli", [0.3] * count, steps, test_format=format, shots=shots))
    rows = selection.chosen(frame(*parts))
    assert set(zip(rows["test_format"], rows["shots"], strict=True)) == {expected}
    assert len(rows) == 2 * ways[expected]


def test_models_tested_in_another_format_do_not_count():
    rows = selection.chosen(
        frame(
            levels("mnli", "mnli", [0.5], [10]),
            levels("mnli", "mnli", [0.1, 0.2], [10, 20], test_format="io"),
            levels("none", "mnli", [0.3, 0.3], [10, 20], test_format="io"),
        )
    )
    assert rows[["test_format", "value"]].to_numpy().tolist() == [["default", 0.5]]


def test_suites_without_a_tuned_model_are_left_out_where_another_has_one():
    bases = levels("none", "paws", [0.5, 0.6], suite="bases")
    assert set(drawn(draw("curves", frame(*STUDY, bases)))) == {"mnli", "mnli_mismatched", "boolq", "xsum"}
    assert drawn(draw("curves", frame(bases))) == {"paws": {"untouched base": [0.5, 0.6]}}


# The same look for the same thing


def look(figure, label):
    """Colours and markers of all lines with a label."""
    lines = [line for axis in figure.axes for line in axis.get_lines() if line.get_label() == label]
    return {(line.get_color(), line.get_marker()) for line in lines}


def test_a_task_looks_alike_in_every_figure():
    analysis = frame(*STUDY)
    looks = [look(draw(name, analysis), "tuned on mnli") for name in ("curves", "domains", "cross_task")]
    assert looks[0] == looks[1] == looks[2] and len(looks[0]) == 1


def test_no_two_of_forty_tasks_look_alike():
    looks = list(drawing.looks())[:40]
    assert len(set(looks)) == 40
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in itertools.pairwise(looks))


def test_recipes_of_a_task_are_told_apart_by_line_and_label():
    figure = draw("curves", frame(*STUDY, levels("mnli", "mnli", [0.5, 0.6], recipe="lora")))
    lines = {line.get_label(): line.get_linestyle() for line in figure.axes[0].get_lines()}
    assert lines == {"untouched base": "-", "tuned on mnli, full": "-", "tuned on mnli, lora": "-."}


def test_panels_of_several_suites_and_families_say_which():
    analysis = frame(
        levels("none", "mnli", [0.3, 0.4]), levels("none", "mnli", [0.5, 0.6], suite="other", family="pythia")
    )
    assert set(drawn(draw("curves", analysis))) == {"mnli\nplain, olmo", "mnli\nother, pythia"}


@pytest.mark.parametrize(
    ("steps", "scale"),
    [
        ([0, 20], "linear"),
        ([0, 300, 500, 700, 1000, 1500], "linear"),
        ([1000, 18000, 342000, 424000, 505000, 592000, 738000, 738020], "root"),
        ([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 10000, 143000], "log"),
    ],
)
def test_the_scale_spreads_the_steps(steps, scale):
    assert drawing.step_scale(np.array(steps, dtype=float)) == scale


# Published values over own ones

RELEASED = (
    levels("none", "mnli", [0.35, 0.36, 0.37], (10, 20, 30), family="released", suite="theirs"),
    levels("mnli", "mnli", [0.55, 0.75, 0.78], (10, 20, 30), family="released", suite="theirs", recipe="sft"),
    levels("mnli", "mnli", [0.9, 0.9], family="released", suite="theirs", recipe="sft", shots=4),
    levels("none", "mnli", [0.1], [10], family="released", suite="rare"),
)


def test_an_overlay_lays_published_cells_over_the_same_cells():
    analysis = frame(*STUDY, *RELEASED, overlays={"olmo": "released"})
    laid = analysis[analysis["origin"] == "published"]
    assert set(laid["family"]) == {"olmo"} and set(laid["suite"]) == {"plain"}
    assert sorted(laid["value"]) == [0.35, 0.36, 0.37, 0.55, 0.75, 0.78]  # neither 4 shots nor the smaller suite
    assert len(analysis) == len(frame(*STUDY)) + 6


def test_published_lines_are_dashed_and_hollow_in_the_same_colour():
    [panel, *_] = draw("curves", frame(*STUDY, *RELEASED, overlays={"olmo": "released"})).axes
    own, published = (
        [line for line in panel.get_lines() if line.get_marker() == "s" and line.get_linestyle() == kind]
        for kind in ("-", "--")
    )
    assert [list(line.get_ydata()) for line in own + published] == [[0.5, 0.8], [0.55, 0.75, 0.78]]
    assert own[0].get_color() == published[0].get_color() == own[0].get_markerfacecolor()
    assert published[0].get_markerfacecolor() == "white" and published[0].get_label() == "published"


def test_without_an_overlay_an_imported_family_has_panels_of_its_own():
    found = drawn(draw("curves", frame(*STUDY, *RELEASED)))
    assert found["mnli\ntheirs, released"]["untouched base"] == [0.35, 0.36, 0.37]
    assert found["mnli\nplain, olmo"]["untouched base"] == [0.3, 0.4]


def test_an_overlay_without_scores_is_an_error():
    with pytest.raises(
        StudyError, match=r"^config.yaml: overlays/olmo: found no scores of 'relesed'; allowed: olmo, rel"
    ):
        frame(*STUDY, *RELEASED, overlays={"olmo": "relesed"})


def test_an_overlay_without_a_common_cell_is_an_error():
    with pytest.raises(StudyError, match=r"^config.yaml: overlays/olmo: found no test that 'released' was put to"):
        frame(levels("none", "paws", [0.5, 0.6]), *RELEASED, overlays={"olmo": "released"})


# Groups, formats, change, learning, turning points


def group(name, values, **keys):
    rows = levels("mnli", "mnli", values)
    change = {"analysis": "performance_difference", "group": name, "train": None, "test": None}
    return [{**row, **change, "estimator": "difference_of_means", **keys} for row in rows]


def test_differences_show_groups_of_one_recipe_and_of_several():
    """A group whose tasks were tuned on by different recipes has none of its own."""
    median = group("learned_in_tuning", [0.9, 0.9], recipe=None, estimator="median_of_differences")
    analysis = frame(group("learned_in_tuning", [0.1, 0.3], recipe=None), median, group("known", [0.0, -0.1]))
    [lines] = drawn(draw("differences", analysis)).values()
    assert lines["learned in tuning"] == [0.1, 0.3] and lines["known"] == [0.0, -0.1]


def test_a_missing_mean_is_a_gap():
    rows = group("known", [0.1, 0.3])
    [lines] = drawn(draw("differences", frame([rows[0], {**rows[1], "value": None, "low": None}]))).values()
    assert lines["known"][0] == 0.1 and np.isnan(lines["known"][1])


def test_formats_show_model_and_base_in_each_format():
    rows = [
        levels(train, "mnli", [start, start + 0.1], test_format=format)
        for train, start in (("none", 0.2), ("mnli", 0.5))
        for format in ("default", "io")
    ]
    assert drawn(draw("formats", frame(*rows, levels("mnli", "rte", [0.5, 0.6], test_format="io")))) == {
        "mnli": {
            "tuned, default": [0.5, 0.6], "tuned, io": [0.5, 0.6], "base, default": [0.2, 0.2 + 0.1],
            "base, io": [0.2, 0.2 + 0.1],
        }
    }  # fmt: skip


def change(train, test, value, n=2, **keys):
    own = {"analysis": "domain_change", "group": "inference", "estimator": "difference_of_means", "step": None, "n": n}
    return [{**row, **own, **keys} for row in levels(train, test, [value], [10])]


def test_domain_change_lists_kinds_and_their_pairs():
    analysis = frame(
        *STUDY, change(None, None, 0.2), change("mnli", "rte", 0.1), change("mnli", "gpt3_nli", 0.3),
        change(None, None, 0.4, n=1, group="summary"), change("xsum", "cnn_dailymail", 0.4, group="summary"),
        change("mnli", "rte", 0.9, estimator="median_of_differences"),
    )  # fmt: skip
    [axis] = draw("domain_change", analysis).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "inference", "mnli → gpt3_nli", "mnli → rte", "xsum → cnn_dailymail",
    ]  # fmt: skip
    points = [list(line.get_xdata()) for line in axis.get_lines() if line.get_marker() != "None"]
    assert points == [[0.2], [0.3], [0.1], [0.4]]
    bars = [list(line.get_xdata()) for line in axis.get_lines() if line.get_marker() == "None"][:4]
    assert np.allclose(bars, [[0.1, 0.3], [0.2, 0.4], [0.0, 0.2], [0.3, 0.5]])


def test_learning_puts_a_test_where_most_resamples_do():
    shares = {"mnli": (0.2, 0.7), "boolq": (0.9, 0.1)}
    rows = [
        {**row, "analysis": "learning", "group": name, "estimator": "share_of_resamples", "train": None, "step": None}
        for test, pair in shares.items()
        for name, share in zip(("learned_in_pretraining", "learned_in_tuning"), pair, strict=True)
        for row in levels("none", test, [share], [10])
    ]
    scores = pd.DataFrame([score("mnli", "chance", 0.33), score("mnli", "majority", 0.35)])
    found = drawn(draw("learning", frame(*STUDY, rows), scores))
    assert found["learned in pre-training"] == {"boolq": [0.6, 0.62]}
    assert found["learned in tuning"]["mnli"] == [0.3, 0.4]
    assert [0.35, 0.35] in found["learned in tuning"].values()


def turn(train, test, step, p_value, group="level"):
    rows = levels(train, test, [step], [10])
    own = {"analysis": "turning_point", "group": group, "step": None, "p_value": p_value, "low": 10.0, "high": 20.0}
    named = {"estimator": "turning_step", "value": step if p_value < 0.05 else None}
    return [{**rows[0], **own, "estimator": "knot"}, {**rows[0], **own, **named}]


def test_learning_rates_show_the_chosen_rate_and_what_was_tried():
    choices = OWN_CHOICES[OWN_CHOICES["train"] == "mini_summary"]
    analysis = frame(levels("mini_summary", "mini_summary", [0.5, 0.6]))
    figure = registry.module(figures, "learning_rates").draw(NO_SCORES, analysis, choices)
    [axis] = figure.axes
    assert drawn(figure) == {"mini_summary": {"own": [1e-4, 1e-4, 1e-4, 1e-5, 1e-5, 1e-5]}}
    points = {
        dots.get_label(): dots.get_offsets().data.tolist() for dots in axis.collections if len(dots.get_offsets())
    }
    assert points["diverged"] == [[step, 1e-2] for step in STEPS] and len(points["tried"]) == 12
    assert axis.get_yscale() == "log"


def test_turning_points_are_grey_where_none_is_named():
    analysis = frame(
        *STUDY,
        turn("none", "mnli", 14.0, 0.01),
        turn("mnli", "mnli", 15.0, 0.5),
        turn("mnli", "mnli", 16.0, 0.01, "gain"),
    )
    axes = draw("turning_points", analysis).axes
    assert [axis.get_title("left") for axis in axes] == ["base", "tuned", "tuned − base"]
    points = [next(line for line in axis.get_lines() if line.get_marker() != "None") for axis in axes]
    assert [list(point.get_xdata()) for point in points] == [[14.0], [15.0], [16.0]]
    assert [point.get_color() for point in points][:2] == ["black", "silver"]


# What a study lacks


@pytest.mark.parametrize(
    ("name", "key"),
    {
        "domains": "suites", "cross_task": "suites", "formats": "suites", "differences": "groups",
        "domain_change": "suites", "learning": "models", "turning_points": "families",
    }.items(),
)  # fmt: skip
def test_a_figure_without_rows_names_the_key_that_brings_some(name, key):
    analysis = frame(levels("none", "mnli", [0.3, 0.4]), levels("mnli", "mnli", [0.5, 0.6]))
    with pytest.raises(StudyError, match=rf"^config.yaml: {key}: figure '{name}' needs .*; found none$"):
        draw(name, analysis)


BARE = {"families": {"f": {"source": "hub", "repo": "o/r", "steps": [1]}}, "suites": {"s": {"tests": ["mini_facts"]}}}
TUNED = BARE | {"recipes": {"r": {}}, "models": [{"train": ["mini_facts"], "recipes": ["r"]}]}


@pytest.mark.parametrize(
    ("figure", "config", "line"),
    [
        (
            "differences",
            TUNED,
            "config.yaml: groups: found none, expected a group, which 'differences' of figures needs",
        ),
        ("formats", TUNED, "config.yaml: suites: found none with several formats, expected one, which 'formats' of"),
        (
            "domains",
            BARE,
            "config.yaml: models: found none, expected a fine-tuned model, which 'domains' of figures needs",
        ),
    ],
)
def test_what_a_config_lacks_is_said_before_the_study_runs(figure, config, line):
    with pytest.raises(StudyError, match=f"^{line}"):
        config_checks.read(config | {"figures": [figure]})


# Every figure on what the analyses really make


@pytest.fixture(scope="module")
def everything():
    """All analyses of a small study: bases and models of random rows that get better along six steps, in two formats."""
    rng, rows = np.random.default_rng(0), []
    models = [("none", "none", "none"), ("mini_inference", "default", "full"), ("mini_summary", "default", "full")]
    tests = {"mini_inference": "accuracy", "mini_inference_ood": "accuracy", "mini_summary": "rouge_l"}
    for step, (train, format, recipe) in ((step, model) for step in STEPS for model in models):
        keys = {
            "family": "tiny",
            "step": step,
            "train": train,
            "format": format,
            "recipe": recipe,
            "seed": 0,
            "suite": "s",
        }
        for test, test_format in ((test, name) for test in tests for name in ("default", "io")):
            level = 0.3 + step / 2000 + 0.3 * (train == test)
            for row, value in enumerate(rng.random(30) < level):
                place = {"test": test, "test_format": test_format, "shots": 0, "metric": tests[test]}
                rows.append({**keys, **place, "id": str(row), "value": float(value)})
    evidence = Evidence(pd.DataFrame(rows), NO_SCORES)
    groups = {"learned_in_tuning": {"mini_inference": ["mini_inference"]}}
    parts = [
        {"analysis": name, **row}
        for name in registry.modules(analyses)
        for row in registry.module(analyses, name).analyse(evidence, groups, Resampling(100, 0.95, 0))
    ]
    return selection.overlaid(tables.frame(pa.Table.from_pylist(parts, schema=schema())), {})


@pytest.mark.parametrize("name", registry.modules(figures))
def test_every_figure_draws_what_the_analyses_make(name, everything, tmp_path):
    figure = draw(name, everything)
    values = [y for axis in figure.axes for line in axis.get_lines() for y in line.get_ydata()]
    assert len(figure.axes) >= 1 and len(values) >= 3
    figure.savefig(tmp_path / "figure.png")
    pixels = matplotlib.image.imread(tmp_path / "figure.png")[..., :3]
    assert np.mean(pixels.min(axis=2) < 0.9) > 0.005  # ink on paper


@pytest.mark.parametrize("name", registry.modules(figures))
def test_every_figure_says_what_it_needs(name):
    assert set(registry.module(figures, name).NEEDS) <= set(config_checks.NEEDED)


# Print quality

MANY = {
    "mnli": "accuracy", "mnli_mismatched": "accuracy", "rte": "accuracy", "gpt3_nli": "accuracy", "paws": "accuracy",
    "qqp": "accuracy", "stsb": "accuracy", "arc_challenge": "accuracy", "arc_easy": "accuracy", "boolq": "accuracy",
    "hellaswag": "accuracy", "openbookqa": "accuracy", "sciq_choice": "accuracy", "social_iqa": "rouge_l",
    "xsum": "rouge_l", "xlsum_english": "rouge_l", "cnn_dailymail": "rouge_l", "tweet_qa": "rouge_l",
}  # fmt: skip


@pytest.fixture(scope="module")
def crowded():
    """All analyses of a study of 18 tests and six tasks tuned on, at eight steps far apart, in all formats."""
    rng, rows = np.random.default_rng(0), []
    models = [("none", "none", "none"), *((name, "default", "sft") for name in ("mnli", "paws", "social_iqa", "xsum"))]
    models += [("tulu", "default", "tulu"), ("boolq", "default", "sft")]
    steps = [1000, 18000, 342000, 424000, 505000, 592000, 738000, 738020]
    for step, (train, form, recipe) in itertools.product(steps, models):
        keys = {"family": "olmo-1b", "step": step, "train": train, "format": form, "recipe": recipe, "seed": 0}
        for (test, metric), test_format in itertools.product(MANY.items(), ("default", "io", "instruct")):
            value = 0.3 + 0.2 * np.log10(step) / 6 + 0.2 * (train == test) + rng.normal(0, 0.03)
            place = {"suite": "s", "test": test, "test_format": test_format, "shots": 4, "metric": metric}
            rows.append({**keys, **place, "value": value, "error": 0.01, "n": 1000})
    evidence = Evidence(pd.DataFrame(columns=[*grid.CELL_KEYS, *tables.ITEMS.names]), pd.DataFrame(rows))
    groups = {
        "learned_in_tuning": {"mnli": ["mnli"], "xsum": ["xsum"]},
        "learned_in_pretraining": {"tulu": ["arc_easy"]},
    }
    parts = [
        {"analysis": name, **row}
        for name in registry.modules(analyses)
        for row in registry.module(analyses, name).analyse(evidence, groups, Resampling(100, 0.95, 0))
    ]
    return selection.overlaid(tables.frame(pa.Table.from_pylist(parts, schema=schema())), {})


BASELINES = pd.DataFrame(
    [
        {"family": "olmo-1b", "suite": "s", "test": test, "metric": metric, "value": value}
        for test, primary in MANY.items()
        if primary == "accuracy"
        for metric, value in {"chance": 0.33, "majority": 0.4}.items()
    ]
)


def drawn_texts(figure):
    """Every text that a figure shows, with its box in pixels; ticks beyond the ends of an axis are not shown."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).draw()
    renderer, hidden = figure.canvas.get_renderer(), set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        reach = 1e-9 * (high - low)
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        hidden |= {tick.label1 for tick in ticks if not low - reach <= tick.get_loc() <= high + reach}
    texts = [text for text in figure.findobj(matplotlib.text.Text) if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text not in hidden]


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.modules(figures))
def test_no_label_is_cut_off_or_meets_another_at_18_tasks(name, crowded):
    figure = draw(name, crowded, BASELINES)
    boxes, whole = drawn_texts(figure), figure.bbox.padded(0.5)
    assert len(boxes) > 8
    assert [text for text, box in boxes if not (whole.contains(*box.min) and whole.contains(*box.max))] == []
    pairs = itertools.combinations(boxes, 2)
    assert [(a, b) for (a, one), (b, other) in pairs if one.padded(-0.5).overlaps(other.padded(-0.5))] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.modules(figures))
def test_a_figure_is_as_wide_as_a_column_or_the_text_and_is_read_at_that_width(name, crowded):
    """7 inches of text or half of it; no letter smaller than 6 points."""
    figure = draw(name, crowded, BASELINES)
    assert figure.get_figwidth() in (drawing.WIDTH / 2, drawing.WIDTH)
    sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text().strip()]
    assert min(sizes) >= 6


def luminance(colour):
    """Relative luminance (WCAG 2.1) of a colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in matplotlib.colors.to_rgb(colour)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


# What deuteranopes and protanopes see of linear colours (Viénot, Brettel and Mollon, 1999, as matrices on linear RGB).
DICHROMATS = {
    "deuteranope": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    "protanope": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
}


@pytest.mark.parametrize("seen", DICHROMATS)
def test_neighbouring_looks_differ_for_the_colour_blind(seen):
    """Any two of the cycle's colours differ as dichromats see them, or their markers do; so do those of every 18 tasks."""
    looks = list(itertools.islice(drawing.looks(), 18))
    assert len(set(looks)) == 18
    colours = {colour for colour, _ in looks}

    def view(colour):
        rgb = np.array(matplotlib.colors.to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return np.clip(np.array(DICHROMATS[seen]) @ linear, 0, 1) ** (1 / 2.2)

    for (one, mark), (other, beside) in itertools.combinations(looks, 2):
        assert mark != beside or np.abs(view(one) - view(other)).max() > 0.1, (one, other)
    assert all(1.05 / (luminance(colour) + 0.05) > 1.8 for colour in colours), "too pale on white paper"
