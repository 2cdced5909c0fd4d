"""Choosing a learning rate: by hand on small tables, and by the real Snakefile on a study of one small base."""

import collections
import re
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import running
import torch

from workflow import task
from workflow.errors import StudyError
from workflow.planning import config_checks
from workflow.statistics import Resampling
from workflow.storage import tables
from workflow.study import grid
from workflow.training import learning_rate_search

HOW = Resampling(resamples=1000, level=0.95, seed=0)


def trials_of(*rows):
    """Rows (step, learning rate, id, loss)."""
    return pd.DataFrame(rows, columns=["step", "learning_rate", "id", "loss"])


# By hand


def test_the_lowest_mean_is_chosen():
    trials = trials_of((9, 0.1, "a", 1.0), (9, 0.1, "b", 3.0), (9, 0.2, "a", 2.0), (9, 0.2, "b", 1.0))
    first, second = learning_rate_search.choose(trials, [0.1, 0.2], HOW)
    assert (first["rate"], first["learning_rate"], first["loss"], first["n"], first["chosen"]) == (
        0,
        0.1,
        2.0,
        2,
        False,
    )
    assert (second["rate"], second["learning_rate"], second["loss"], second["n"], second["chosen"]) == (
        1, 0.2, 1.5, 2, True,
    )  # fmt: skip
    # Two rows resampled: both the lower, one of each, both the higher, in a quarter, a half and a quarter of cases.
    assert (first["low"], first["high"]) == (1.0, 3.0)
    assert first["error"] == pytest.approx(np.sqrt(0.5), abs=0.05)
    assert learning_rate_search.chosen_rate([first, second]) == 0.2


def test_a_row_is_worth_its_mean_over_the_bases():
    """Rows, not pairs of row and base, are resampled: both rows have mean 2, so nothing varies."""
    trials = trials_of((1, 0.1, "a", 1.0), (1, 0.1, "b", 3.0), (9, 0.1, "a", 3.0), (9, 0.1, "b", 1.0))
    [row] = learning_rate_search.choose(trials, [0.1], HOW)
    assert (row["loss"], row["low"], row["high"], row["error"], row["n"]) == (2.0, 2.0, 2.0, 0.0, 2)


def test_of_equal_losses_the_first_listed_is_chosen():
    trials = trials_of((9, 0.1, "a", 1.0), (9, 0.2, "a", 1.0))
    assert [row["chosen"] for row in learning_rate_search.choose(trials, [0.2, 0.1], HOW)] == [True, False]


def test_a_rate_that_diverged_on_one_base_loses(tmp_path):
    trials = trials_of((1, 0.1, "a", 0.1), (9, 0.1, "a", None), (1, 0.2, "a", 5.0), (9, 0.2, "a", 5.0))
    rows = learning_rate_search.choose(trials, [0.1, 0.2], HOW)
    tables.write(rows, tables.CHOICES, tmp_path / "part.parquet")
    first, second = tables.rows(tmp_path / "part.parquet")
    nothing = dict.fromkeys(("loss", "error", "low", "high"))
    assert first == {"rate": 0, "learning_rate": 0.1, **nothing, "n": 1, "diverged": True, "chosen": False}
    assert (second["loss"], second["diverged"], second["chosen"]) == (5.0, False, True)


def test_a_search_whose_every_rate_diverged_is_refused():
    trials = trials_of((1, 0.1, "a", None), (1, 0.02, "a", None))
    with pytest.raises(
        StudyError, match=r"^tuning diverged at every learning rate \(0\.1, 0\.02\), tried at step 1; add a lower one$"
    ):
        learning_rate_search.choose(trials, [0.1, 0.02], HOW)


# The grid


CONFIG = {
    "families": {
        "small": {"source": "trained", "pretraining": {"corpus": "miniworld", "save": [0, 20]}},
        "large": {"source": "hub", "repo": "owner/large", "steps": [10, 1000, 9000]},
    },
    "recipes": {
        "found": {"learning_rate": [1.0e-3, 1.0e-4], "search": {"validation": 9}},
        "both": {"learning_rate": [1.0e-3, 1.0e-4], "search": {"validation": 9, "steps": [10, 9000]}},
        "plain": {},
    },
    "models": [
        {"train": ["mini_facts"], "recipes": ["found", "plain"], "seeds": [0, 1]},
        {"train": ["mini_facts"], "recipes": ["found"], "families": ["large"], "formats": ["io"], "steps": [10, 1000]},
        {"train": ["mini_summary"], "recipes": ["both"], "families": ["large"], "steps": [1000]},
    ],
    "suites": {"wide": {"tests": ["mini_facts"]}},
}


def test_trials_run_on_the_listed_bases_or_on_the_last_one_tuned():
    found = grid.trials(config_checks.read(CONFIG))
    assert list(found.columns) == ["family", "step", "train", "format", "recipe", "rate"]
    expected = [
        (*base, *rest, rate)
        for *base, rest in (
            ("small", 20, ("mini_facts", "default", "found")),
            ("large", 9000, ("mini_facts", "default", "found")),
            ("large", 1000, ("mini_facts", "io", "found")),
            ("large", 10, ("mini_summary", "default", "both")),
            ("large", 9000, ("mini_summary", "default", "both")),
        )
        for rate in (0, 1)
    ]
    assert sorted(found.itertuples(index=False, name=None)) == sorted(expected)


def test_a_study_without_a_search_has_no_trials():
    block = CONFIG["models"][0] | {"recipes": ["plain"]}
    assert grid.trials(config_checks.read(CONFIG | {"models": [block]})).empty
    assert grid.trials(config_checks.read(CONFIG | {"models": []})).empty


def test_a_recipe_at_one_rate_says_what_is_held_out_and_no_more():
    recipe = config_checks.read(CONFIG)["recipes"]["both"]
    found = grid.at_rate(recipe, 1.0e-4)
    assert found == {**recipe, "learning_rate": 1.0e-4, "search": {"validation": 9}}
    more = recipe | {"learning_rate": [1.0e-3, 1.0e-4, 1.0], "search": {"validation": 9, "steps": [10]}}
    assert grid.at_rate(more, 1.0e-4) == found, "neither another rate nor another base changes a trial"


# The real Snakefile


RECIPE = {
    "learning_rate": [1.0e-12, 1.0e-2], "examples": 32, "batch": 8, "epochs": 2, "max_tokens": 128,
    "search": {"validation": 20},
}  # fmt: skip
STUDY = {
    "families": {"local": {"source": "folder", "path": "../steps", "pattern": "step={step}"}},
    "recipes": {"found": RECIPE},
    "models": [{"train": ["mini_inference"], "recipes": ["found"]}],
    "suites": {"plain": {"tests": ["mini_inference"]}},
    "statistics": {"resamples": 100},
}
MADE = ("results/choices.parquet", "results/histories.parquet")
TASK = "train=mini_inference/format=default/recipe=found"
HISTORY = f"results/histories/family=local/step=10/{TASK}/seed=0/part.parquet"


@pytest.fixture(scope="module")
def searched(checkpoints, tmp_path_factory):
    """The study after a run to its choices and tunings; not to be changed."""
    place = running.lay_out(tmp_path_factory.mktemp("search") / "place", STUDY)
    shutil.copytree(checkpoints["olmo"].path, place / "steps/step=10")
    assert jobs_of(place) == {
        "generate": 1, "prepare": 1, "fetch": 1, "try_rate": 2, "choose": 1, "tune": 1, "gather": 2,
    }  # fmt: skip
    return place


def jobs_of(place):
    """The jobs that a run of the study starts: rule -> count."""
    ended = running.run(place, *MADE)
    assert ended.returncode == 0, ended.stderr
    started = re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):$", ended.stdout + ended.stderr, re.MULTILINE)
    return dict(collections.Counter(started))


def trial(place, rate):
    return place / f"study/results/trials/family=local/step=10/{TASK}/rate={rate}/part.parquet"


def listed(place, recipe=None, **changes):
    """Give the study another recipe or other entries."""
    running.configure(place, STUDY | {"recipes": {"found": RECIPE | (recipe or {})}} | changes)


@pytest.mark.slow
def test_the_right_rate_is_chosen_and_tuned_by(searched):
    table = pq.read_table(searched / "study/results/choices.parquet").to_pandas()
    assert (
        table[["family", "train", "format", "recipe"]].values.tolist()
        == [["local", "mini_inference", "default", "found"]] * 2
    )
    assert table["learning_rate"].tolist() == [1.0e-12, 1.0e-2] and table["chosen"].tolist() == [False, True]
    assert table["n"].tolist() == [20, 20] and not table["diverged"].any()
    assert (table["low"] < table["loss"]).all() and (table["loss"] < table["high"]).all()
    assert table["high"][1] < table["low"][0]
    settings = tables.recorded(searched / "study" / HISTORY)["recipe_settings"]
    assert settings == settings | RECIPE | {"learning_rate": 1.0e-2, "search": {"validation": 20}}
    history = pq.ParquetFile(searched / "study" / HISTORY).read()
    assert max(history["learning_rate"].to_pylist()) == 1.0e-2 and len(history) == 8
    assert not (searched / "study/resources/states").exists() or not list(
        (searched / "study/resources/states").rglob("*.safetensors")
    )
    weights = [path.relative_to(searched).parts[:3] for path in (searched / "study").rglob("*.safetensors")]
    assert weights == [("study", "resources", "models")], "trials keep no weights"


def test_held_out_rows_are_those_after_the_examples_and_measured_right(searched, checkpoints):
    """A rate of 1e-12 leaves the base as it is, so its losses are those of transformers on the untouched base."""
    _, train, _ = task.examples("mini_inference", searched / "study/resources/tasks/mini_inference.parquet")
    order = np.random.default_rng(42).permutation(len(train))
    held = dict(train[place] for place in order[32:52])
    model, tokenizer, _ = checkpoints["olmo"]
    expected = {}
    for name, example in held.items():
        prompt = "### Input_1: {premise}\n ### Input_2: {hypothesis}\n ### Inference:".format(**example.fields)
        ids = tokenizer(f"{prompt} {example.answer}")["input_ids"] + [tokenizer.eos_token_id]
        start = len(tokenizer(prompt)["input_ids"])
        labels = torch.tensor([[-100] * start + ids[start:]])
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([ids]), labels=labels).loss.item()
        expected[name] = (len(ids) - start, loss)
    rows = {row["id"]: row for row in tables.rows(trial(searched, 0))}
    assert set(rows) == set(expected)
    for name, (tokens, loss) in expected.items():
        assert (rows[name]["tokens"], rows[name]["learning_rate"]) == (tokens, 1.0e-12)
        assert rows[name]["loss"] == pytest.approx(loss, abs=1e-4)
        assert rows[name]["nll"] == pytest.approx(loss * tokens, abs=1e-3)
    table = pq.read_table(searched / "study/results/choices.parquet").to_pandas()
    assert table["loss"][0] == pytest.approx(np.mean([loss for _, loss in expected.values()]), abs=1e-4)


@pytest.mark.slow
def test_the_same_choice_made_anew_tunes_nothing_again(searched, tmp_path):
    place = shutil.copytree(searched, tmp_path / "place")
    assert running.planned(place, *MADE) == {}
    listed(place, statistics={"resamples": 200})
    assert running.planned(place, *MADE) == {"choose": 1, "gather": 1}
    listed(place, {"learning_rate": [1.0e-12, 1.0e-2, 1.0e-11]}, statistics={"resamples": 200})
    assert running.planned(place, *MADE) == {"try_rate": 1, "choose": 1, "gather": 1}
    before = [trial(place, rate).stat().st_mtime_ns for rate in (0, 1)]
    assert jobs_of(place) == {"try_rate": 1, "choose": 1, "gather": 1}
    assert [trial(place, rate).stat().st_mtime_ns for rate in (0, 1)] == before
    assert running.planned(place, *MADE) == {}


@pytest.mark.slow
def test_another_choice_tunes_again_by_the_new_rate(searched, tmp_path):
    """The right rate is left out: of the two that are left even the low one is better than one that diverges."""
    place = shutil.copytree(searched, tmp_path / "place")
    listed(place, {"learning_rate": [1.0e-12, 1.0e30]})
    assert running.planned(place, *MADE) == {"try_rate": 1, "choose": 1, "gather": 1}
    assert jobs_of(place) == {"try_rate": 1, "choose": 1, "tune": 1, "gather": 2}
    table = pq.read_table(place / "study/results/choices.parquet").to_pandas()
    assert table["diverged"].tolist() == [False, True] and table["chosen"].tolist() == [True, False]
    assert tables.recorded(place / "study" / HISTORY)["recipe_settings"]["learning_rate"] == 1.0e-12
    assert running.planned(place, *MADE) == {}


@pytest.mark.slow
def test_what_depends_on_the_choice_is_known_before_it_is_made(searched, tmp_path):
    """A seed more is planned at once; a second base changes the base that trials run on, the last one."""
    place = shutil.copytree(searched, tmp_path / "place")
    listed(place, models=[STUDY["models"][0] | {"seeds": [0, 1]}])
    assert running.planned(place, *MADE) == {"tune": 1, "gather": 1}
    listed(place, {"search": {"validation": 20, "steps": [10]}})
    assert running.planned(place, *MADE) == {}
    shutil.copytree(place / "steps/step=10", place / "steps/step=20")
    assert running.planned(place, *MADE) == {"fetch": 1, "tune": 1, "gather": 1}
    listed(place)
    assert running.planned(place, *MADE) == {"fetch": 1, "try_rate": 2, "choose": 1, "tune": 1, "gather": 2}


@pytest.mark.faults
def test_a_search_without_a_rate_that_holds_is_a_hole(searched, tmp_path):
    """One line says so, and both trials leave their histories; where holes are allowed all but its models is made."""
    place = shutil.copytree(searched, tmp_path / "place")
    plain = RECIPE | {"learning_rate": 1.0e-3}
    del plain["search"]
    models = [{"train": ["mini_inference"], "recipes": ["found", "plain"]}]
    wild = RECIPE | {"learning_rate": [1.0e30, 1.0e29]}
    listed(place, models=models, recipes={"found": wild, "plain": plain})
    # Where a choice is made anew, Snakemake looks no further than to that until it is made.
    shutil.rmtree(place / "study/results/choices")
    target = "results/audit.parquet"
    ended = running.run(place, target, "--keep-going")
    assert ended.returncode == 1
    said = "tuning diverged at every learning rate (1e+30, 1e+29), tried at step 10"
    [line] = [line for line in ended.stderr.splitlines() if line.startswith("choose family=")]
    assert line == (f"choose family=local train=mini_inference format=default recipe=found: {said}; add a lower one")
    results = place / "study/results"
    for rate in (0, 1):
        record = results / f"diverged/trials/family=local/step=10/{TASK}/rate={rate}/part.parquet"
        facts, history = tables.recorded(record), tables.rows(record)
        assert facts["error"].startswith("tuning stopped at step ") and facts["rate"] == str(rate)
        assert [row["update"] for row in history] == list(range(len(history)))
    plainly = TASK.replace("found", "plain")
    assert (results / f"scores/family=local/step=10/{plainly}/seed=0/suite=plain/tests=all/part.parquet").is_file()

    ended = running.run(place, target, "--config", "holes=allow")
    assert ended.returncode == 0, ended.stderr
    audit = tables.read(results / "audit.parquet")
    [hole] = audit[audit["evidence"].str.startswith("hole: ")].to_dict("records")
    assert (hole["family"], hole["step"], hole["recipe"], hole["seed"]) == ("local", 10, "found", 0)
    assert hole["evidence"] == f"hole: no score of this model, since its tuning diverged: {said}"
    assert running.planned(place, target, "--config", "holes=allow") == {}

    # With a rate that holds among them both are tried as ever, whether holes are allowed or not.
    listed(place, models=models, recipes={"found": wild | {"learning_rate": [1.0e30, 1.0e-2]}, "plain": plain})
    jobs = running.planned(place, "results/choices.parquet", "--config", "holes=allow")
    assert jobs == {"try_rate": 1, "choose": 1, "gather": 1}


# A rate for each base


def test_the_search_goes_from_the_ends_to_the_middle():
    assert learning_rate_search.neighbours([0, 10, 20, 30, 40, 50]) == {
        50: [], 0: [50], 20: [0, 50], 10: [0, 20], 30: [20, 50], 40: [30, 50]
    }  # fmt: skip
    assert learning_rate_search.neighbours([7]) == {7: []}
    assert learning_rate_search.neighbours([7, 3]) == {7: [], 3: [7]}


def test_a_search_begins_around_the_neighbours_rates():
    rates = [1e-2, 1e-6, 1e-5, 1e-4, 1e-3]  # by size: indices 1, 2, 3, 4, 0
    assert learning_rate_search.first_tried(rates, []) == [0, 1, 2, 3, 4]
    assert learning_rate_search.first_tried(rates, [1e-4]) == [2, 3, 4]
    assert learning_rate_search.first_tried(rates, [1e-4, 1e-5]) == [1, 2, 3, 4]
    assert learning_rate_search.first_tried(rates, [1e-6]) == [1, 2]
    assert learning_rate_search.first_tried(rates, [1e-2]) == [0, 4]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ({2: 3.0, 3: 2.0, 4: 3.0}, []),
        ({2: 3.0, 3: 2.0, 4: 1.0}, [0]),
        ({2: 1.0, 3: 2.0}, [1]),
        ({3: 1.0}, [2, 4]),
        ({1: 1.0, 2: 2.0}, []),
        ({0: None, 4: 1.0}, [3]),
        ({0: None, 4: None}, [1, 2, 3]),
        (dict.fromkeys(range(5)), []),
    ],
)
def test_a_search_ends_when_the_rates_next_to_the_best_are_tried(losses, expected):
    assert learning_rate_search.next_tried([1e-2, 1e-6, 1e-5, 1e-4, 1e-3], losses) == expected


@pytest.mark.parametrize("best", range(9))
@pytest.mark.parametrize("start", range(9))
def test_a_search_with_one_minimum_finds_it_from_anywhere(best, start):
    rates = [10.0**-place for place in range(9)]
    loss = {index: float(abs(index - best)) for index in range(9)}
    tried = learning_rate_search.first_tried(rates, [rates[start]])
    while more := learning_rate_search.next_tried(rates, {index: loss[index] for index in tried}):
        tried += more
    assert min(tried, key=loss.get) == best


def test_a_rate_for_each_base_in_the_grid():
    recipes = {"own": {"learning_rate": [1.0e-3, 1.0e-4], "search": {"validation": 9, "per": "base"}}}
    recipes |= {"fixed": {"learning_rate": 1.0e-3}, "longer": {"learning_rate": 1.0e-3, "epochs": 9}}
    models = [{"train": ["mini_facts"], "recipes": list(recipes), "families": ["large"], "steps": [10, 9000]}]
    study = config_checks.read(CONFIG | {"recipes": recipes, "models": models})
    assert grid.trials(study)[["step", "rate"]].values.tolist() == [[10, 0], [10, 1], [9000, 0], [9000, 1]]
    assert grid.rate_twins(study) == [("fixed", "own")], "`longer` differs in its epochs too"
    assert grid.at_rate(study["recipes"]["own"], 1.0e-4)["search"] == {"validation": 9}, (
        "trials of both kinds are the same"
    )
    recipes["own"]["search"]["steps"] = [10]
    with pytest.raises(
        StudyError, match=r"recipes/own/search/steps: .* is not allowed; allowed: none, since `per` is base"
    ):
        config_checks.read(CONFIG | {"recipes": recipes, "models": models})


@pytest.mark.slow
def test_each_base_is_tuned_by_its_own_rate(checkpoints, tmp_path):
    """Three equal checkpoints: the last one tries all five rates, the others those around its choice and no more."""
    rates = [1.0e-12, 1.0e-10, 1.0e-2, 1.0e30, 1.0e31]
    recipe = RECIPE | {"learning_rate": rates, "search": {"validation": 20, "per": "base"}}
    place = running.lay_out(tmp_path / "place", STUDY | {"recipes": {"found": recipe}})
    for step in (10, 20, 30):
        shutil.copytree(checkpoints["olmo"].path, place / f"steps/step={step}")
    targets = ("results/own_choices.parquet", "results/histories.parquet")
    ended = running.run(place, *targets)
    assert ended.returncode == 0, ended.stderr
    table = pq.read_table(place / "study/results/own_choices.parquet").to_pandas()
    assert table.groupby("step")["rate"].apply(list).to_dict() == {10: [1, 2, 3], 20: [1, 2, 3], 30: [0, 1, 2, 3, 4]}
    assert table.loc[table["chosen"], ["step", "learning_rate"]].values.tolist() == [[10, 1e-2], [20, 1e-2], [30, 1e-2]]
    for step in (10, 20, 30):
        facts = tables.recorded(place / "study" / HISTORY.replace("step=10", f"step={step}"))
        assert facts["recipe_settings"]["learning_rate"] == 1e-2
    assert running.planned(place, *targets) == {}
    # A fourth step is the last one now and tries all rates; the third starts around its neighbours, whose trials it has.
    shutil.copytree(checkpoints["olmo"].path, place / "steps/step=40")
    ended = running.run(place, *targets)
    started = re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):$", ended.stdout + ended.stderr, re.MULTILINE)
    assert ended.returncode == 0 and collections.Counter(started)["try_rate"] == 5, ended.stderr
    assert collections.Counter(started)["tune"] == 1, "the same choices made anew tune nothing again"
