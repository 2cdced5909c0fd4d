"""Rows of a fine-tuning on several tasks."""

from __future__ import annotations

import numpy as np
import pytest

from workflow.errors import StudyError
from workflow.study import config as configs
from workflow.study import mixes
from workflow.training import task_mix

ROWS = {"nli": 40, "summary": 100}


def recipe(mix=None, **changes):
    """A recipe on a mix, by default three quarters of it the first task."""
    return configs.recipe(changes) | {"mix": mixes.shares(mix or {"nli": 3, "summary": 1})}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"examples": 20}, (15, 5)),
        ({"examples": 10}, (8, 2)),  # 7.5 and 2.5: the first of equal remainders
        ({}, (40, 13)),  # 40 / .75 = 53.3 rows at most: 39.75 and 13.25
        ({"examples": 1000}, (40, 13)),
        ({"fraction": 0.5}, (20, 6)),  # half of 53, rounded to 26: 19.5 and 6.5
    ],
)
def test_numbers_by_hand(changes, expected):
    training, validation = task_mix.numbers(ROWS, recipe(**changes))
    assert tuple(training.values()) == expected
    assert set(validation.values()) == {0}


def test_a_search_holds_out_its_share_of_each_task():
    searched = recipe(examples=20, learning_rate=[1e-4, 1e-3], search={"validation": 8})
    training, validation = task_mix.numbers(ROWS, searched)
    assert (training, validation) == ({"nli": 15, "summary": 5}, {"nli": 6, "summary": 2})


@pytest.mark.parametrize("shares", [(1, 1), (3, 1), (1, 7, 2), (1, 1, 1), (0.2, 0.3, 0.5)])
@pytest.mark.parametrize("validation", [0, 5])
def test_shares_hold_and_no_row_is_repeated(shares, validation):
    names = ["a", "b", "c"][: len(shares)]
    rows = {name: [f"{name}{n}" for n in range(17 + 9 * place)] for place, name in enumerate(names)}
    block = recipe(dict(zip(names, shares, strict=True)), learning_rate=[1e-4, 1e-3], search={"validation": validation})
    if not validation:
        del block["search"]
    drawn = task_mix.divided(rows, block)
    total = sum(len(training) for training, _ in drawn.values())
    for name, share in block["mix"].items():
        training, held = drawn[name]
        assert abs(len(training) - total * share) < 1
        assert abs(len(held) - validation * share) < 1
        assert len({*training, *held}) == len(training) + len(held)
        order = np.random.default_rng(42).permutation(len(rows[name]))
        assert [*training, *held] == [rows[name][place] for place in order[: len(training) + len(held)]]
    assert any(len(training) + len(held) >= len(rows[name]) - 2 for name, (training, held) in drawn.items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"examples": 1}, "1 training rows of the mix have none of summary; raise examples or the task's share"),
        (
            {"examples": 60, "learning_rate": [1e-4, 1e-3], "search": {"validation": 4}},
            "the mix has 49 training rows at most, 60 are too many; lower examples or search/validation",
        ),
    ],
)
def test_too_few_rows_are_refused(changes, words):
    with pytest.raises(StudyError) as caught:
        task_mix.numbers(ROWS, recipe(**changes))
    assert str(caught.value) == words


def test_names_hold_tasks_and_shares():
    assert mixes.named(mixes.shares({"mnli": 2, "xsum": 6})) == "mnli.25-xsum.75"
    assert mixes.named(mixes.shares({"a": 1, "b": 1, "c": 1})) == "a.333-b.333-c.333"
