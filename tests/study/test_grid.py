"""From a config to the tables of bases, models, cells and tests: small grids written out by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from workflow import registry, task
from workflow.analysis import analyses
from workflow.errors import StudyError
from workflow.planning import config_checks
from workflow.report import figures
from workflow.study import grid

CONFIG = {
    "families": {
        "small": {"source": "trained", "pretraining": {"corpus": "miniworld", "save": [20, 0]}},
        "large": {"source": "hub", "repo": "owner/large", "steps": [1000, "main"], "main_step": 9000},
    },
    "recipes": {"full": {}, "lora": {"method": "lora"}},
    "models": [
        {"train": ["mini_facts"], "recipes": ["full"], "families": ["small"], "formats": ["default", "io"]},
        {"train": ["mini_inference"], "recipes": ["lora"], "steps": [20, 9000], "seeds": [0, 1]},
    ],
    "suites": {
        "wide": {"tests": ["mini_facts", "mini_inference"], "shots": [0, 2]},
        "narrow": {"tests": {"mini_facts": ["mini_facts"]}, "formats": ["io", "instruct"]},
    },
}
BASES = [("small", 0), ("small", 20), ("large", 1000), ("large", 9000)]
UNTOUCHED = [(*base, "none", "none", "none", 0) for base in BASES]
FACTS = [
    ("small", 0, "mini_facts", "default", "full", 0),
    ("small", 0, "mini_facts", "io", "full", 0),
    ("small", 20, "mini_facts", "default", "full", 0),
    ("small", 20, "mini_facts", "io", "full", 0),
]
INFERENCE = [
    ("small", 20, "mini_inference", "default", "lora", 0),
    ("small", 20, "mini_inference", "default", "lora", 1),
    ("large", 9000, "mini_inference", "default", "lora", 0),
    ("large", 9000, "mini_inference", "default", "lora", 1),
]


def rows(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    """A table's rows as tuples."""
    return list(table.itertuples(index=False, name=None))


def test_bases_are_the_steps_of_each_family() -> None:
    table = grid.bases(config_checks.read(CONFIG))
    assert list(table.columns) == ["family", "step"]
    assert rows(table) == BASES


def test_models_are_the_untouched_bases_and_every_combination_of_each_block() -> None:
    table = grid.models(config_checks.read(CONFIG))
    assert list(table.columns) == ["family", "step", "train", "format", "recipe", "seed"]
    assert rows(table)[:4] == UNTOUCHED
    assert sorted(rows(table)[4:]) == sorted(FACTS + INFERENCE)


def test_a_model_of_two_blocks_is_one_model() -> None:
    doubled = CONFIG | {"models": [*CONFIG["models"], CONFIG["models"][0] | {"seeds": [0, 5]}]}
    again = [(*model[:5], 5) for model in FACTS]
    assert sorted(rows(grid.models(config_checks.read(doubled)))) == sorted(UNTOUCHED + FACTS + INFERENCE + again)


def test_a_suite_evaluates_the_untouched_bases_and_the_models_meant_for_it() -> None:
    table = grid.cells(config_checks.read(CONFIG))
    assert list(table.columns) == ["family", "step", "train", "format", "recipe", "seed", "suite"]
    expected = [(*model, "wide") for model in UNTOUCHED + FACTS + INFERENCE]
    expected += [(*model, "narrow") for model in UNTOUCHED + FACTS]
    assert sorted(rows(table)) == sorted(expected)


def test_a_study_without_tuning_evaluates_its_bases() -> None:
    study = config_checks.read({"families": CONFIG["families"], "suites": {"s": {"tests": ["mini_facts"]}}})
    assert rows(grid.models(study)) == UNTOUCHED
    assert rows(grid.cells(study)) == [(*model, "s") for model in UNTOUCHED]


def test_keys_keep_their_types_in_every_table() -> None:
    study = config_checks.read(CONFIG)
    for table in (grid.bases(study), grid.models(study), grid.cells(study)):
        assert {name for name in table if table[name].dtype.kind == "i"} == {"step", "seed"} & set(table)


def test_a_suite_may_put_each_model_to_tests_of_its_own() -> None:
    suite = {"tests": {"mnli": ["mnli", "rte"], "paws": ["paws", "rte"]}}
    assert grid.suite_tests(suite, "mnli") == ["mnli", "rte"]
    assert grid.suite_tests(suite, "none") == ["mnli", "rte", "paws"]
    assert grid.suite_tests(suite, "xsum") == []
    assert grid.suite_tests({"tests": ["rte"]}, "xsum") == ["rte"]


def test_a_base_is_put_to_each_test_by_itself_where_tests_differ_by_task() -> None:
    tests = {"mini_facts": ["mini_facts"], "mini_inference": ["mini_facts", "mini_question"]}
    study = config_checks.read(CONFIG | {"suites": CONFIG["suites"] | {"narrow": {"tests": tests}}})
    table = grid.parts(study)
    assert list(table.columns) == [*grid.CELL_KEYS, "tests"]
    expected = [(*model, "wide", "all") for model in UNTOUCHED + FACTS + INFERENCE]
    expected += [(*model, "narrow", "all") for model in FACTS + INFERENCE]
    expected += [(*model, "narrow", test) for model in UNTOUCHED for test in ("mini_facts", "mini_question")]
    assert sorted(rows(table)) == sorted(expected)
    assert grid.part_tests(study["suites"]["narrow"], "mini_inference", "all") == ["mini_facts", "mini_question"]
    assert grid.part_tests(study["suites"]["narrow"], "none", "mini_question") == ["mini_question"]
    shown = grid.slice_of(study, "mini_facts", "narrow")
    assert sorted(rows(shown)) == sorted(
        [(*model, "narrow", "all") for model in FACTS] + [(*model, "narrow", "mini_facts") for model in UNTOUCHED]
    )


def test_a_list_of_tests_is_one_part_of_every_model() -> None:
    study = config_checks.read(CONFIG)
    shown = grid.slice_of(study, "mini_inference", "wide")
    assert sorted(rows(shown)) == sorted((*model, "wide", "all") for model in UNTOUCHED + INFERENCE)


@pytest.mark.parametrize(("train", "suite", "key"), [("mnli", "wide", "train"), ("mini_facts", "broad", "suite")])
def test_a_slice_of_what_a_study_lacks_is_refused(train: str, suite: str, key: str) -> None:
    with pytest.raises(StudyError, match=f"slice/{key}: '{train if key == 'train' else suite}' is not known"):
        grid.slice_of(config_checks.read(CONFIG), train, suite)


def test_no_task_has_the_name_of_a_whole_cell() -> None:
    assert grid.WHOLE not in task.names()


def test_tests_are_tasks_in_formats_with_shots() -> None:
    table = grid.tests(config_checks.read(CONFIG))
    assert list(table.columns) == ["suite", "test", "test_format", "shots"]
    assert rows(table) == [
        ("wide", "mini_facts", "default", 0),
        ("wide", "mini_facts", "default", 2),
        ("wide", "mini_inference", "default", 0),
        ("wide", "mini_inference", "default", 2),
        ("narrow", "mini_facts", "io", 0),
        ("narrow", "mini_facts", "instruct", 0),
    ]


def test_tasks_are_those_tuned_on_or_tested() -> None:
    tested = CONFIG | {"suites": {"s": {"tests": ["mini_summary", "mini_facts"]}}}
    assert grid.tasks(config_checks.read(tested)) == ["mini_facts", "mini_inference", "mini_summary"]


def test_paths_and_patterns_are_hive_paths_of_the_keys_in_order() -> None:
    row = dict(zip(grid.MODEL_KEYS, INFERENCE[1], strict=True))
    assert grid.path(row, grid.BASE_KEYS) == "family=small/step=20"
    assert grid.path(row, grid.MODEL_KEYS) == (
        "family=small/step=20/train=mini_inference/format=default/recipe=lora/seed=1"
    )
    assert grid.pattern(["family", "step"]) == "family={family}/step={step}"
    assert grid.pattern(grid.CELL_KEYS).format(**row, suite="wide") == f"{grid.path(row, grid.MODEL_KEYS)}/suite=wide"


def test_no_two_cells_share_a_path() -> None:
    cells = grid.cells(config_checks.read(CONFIG)).to_dict("records")
    assert len({grid.path(cell, grid.CELL_KEYS) for cell in cells}) == len(cells) == 12 + 8


def test_figures_and_analyses_are_found_as_modules() -> None:
    assert "curves" in registry.modules(figures)
    assert "performance" in registry.modules(analyses)


def test_a_step_that_none_of_the_block_s_families_has_is_refused() -> None:
    block = CONFIG["models"][0] | {"steps": [9000]}
    with pytest.raises(StudyError, match=r"^config.yaml: models/0/steps: 9000 is not known; allowed: 0, 20$"):
        grid.models(config_checks.read(CONFIG | {"models": [block]}))


def test_names_that_differ_from_the_registry_are_refused_even_when_close() -> None:
    with pytest.raises(StudyError, match=r"^config.yaml: figures: 'curve' is not known; allowed: .*curves"):
        config_checks.read(CONFIG | {"figures": ["curve"]})


def test_a_recipe_may_give_each_task_a_learning_rate_of_its_own() -> None:
    rates = {"learning_rate": {"mini_facts": 1.0e-3, "mini_inference": 1.0e-4}, "epochs": 2}
    study = config_checks.read(CONFIG | {"recipes": {"full": rates, "lora": {"method": "lora"}}})
    found = grid.recipe_for(study, "full", "mini_inference")
    assert (found["learning_rate"], found["epochs"], found["batch"]) == (1.0e-4, 2, 8)
    assert grid.recipe_for(study, "lora", "mini_facts")["learning_rate"] == 2.0e-6


def test_a_recipe_that_lacks_the_rate_of_a_task_is_refused() -> None:
    rates = {"learning_rate": {"mini_inference": 1.0e-4}}
    with pytest.raises(StudyError, match=r"^config.yaml: recipes/full/learning_rate: 'mini_facts' is missing"):
        config_checks.read(CONFIG | {"recipes": {"full": rates, "lora": {"method": "lora"}}})
