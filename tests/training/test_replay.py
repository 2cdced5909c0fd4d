"""Rows of pre-training text in fine-tuning: how many, which, in which epoch."""

from __future__ import annotations

import pytest

from workflow.data.corpora import Document
from workflow.errors import StudyError
from workflow.planning import config_checks
from workflow.study import config as configs
from workflow.study import grid
from workflow.training import finetuning, replay

TEXTS = [Document("news", str(number), f"sentence number {number} of the text") for number in range(9)]


def recipe(**changes):
    return configs.recipe({"replay": 0.1, "epochs": 3, "batch": 4, "max_tokens": 16, **changes})


@pytest.mark.parametrize(
    ("share", "examples", "expected"), [(0.1, 90, 10), (0.5, 7, 7), (0.01, 6000, 61), (0.01, 20, 1)]
)
def test_text_has_its_share_of_the_rows(share, examples, expected):
    settings = recipe(replay=share)
    assert replay.number(examples, settings) == expected
    assert replay.counts(examples + 3 * expected, settings) == (examples, expected)


def test_each_epoch_has_every_example_once_and_text_of_its_own():
    settings = recipe(replay=0.2)  # 20 examples, 5 rows of text an epoch, 35 rows in all
    updates = finetuning.plan(35, settings, seed=1)
    epochs = [[row for update in updates[start : start + 7] for row in update] for start in (0, 7, 14)]
    assert len(updates) == 21
    for number, epoch in enumerate(epochs):
        assert sorted(epoch) == [*range(20), *range(20 + 5 * number, 25 + 5 * number)]
    assert [row for row in epochs[0] if row < 20] != [row for row in epochs[1] if row < 20]


def test_a_recipe_without_replay_has_the_order_that_it_had():
    plain = configs.recipe({"epochs": 2, "batch": 3})
    order = finetuning.order(7, 2, 5)
    assert finetuning.plan(7, plain, 5) == [order[:3], order[3:6], order[6:7], order[7:10], order[10:13], order[13:]]


def test_rows_are_pieces_of_the_documents_in_a_drawn_order(checkpoints):
    tokenizer = checkpoints["olmo"].tokenizer
    rows = replay.rows(tokenizer, TEXTS, 18, 512, recipe())
    assert len(rows) == 6 and all(len(row.ids) == 16 and row.scored == [False] + [True] * 15 for row in rows)
    read = [token for row in rows for token in row.ids]
    whole = [[*tokenizer(text.text)["input_ids"], tokenizer.eos_token_id] for text in TEXTS]
    first = next(ids for ids in whole if read[: len(ids)] == ids)
    second = next(ids for ids in whole if read[len(first) : len(first) + len(ids)] == ids)
    assert first != second
    assert rows == replay.rows(tokenizer, TEXTS, 18, 512, recipe())
    assert rows != replay.rows(tokenizer, TEXTS, 18, 512, recipe(sample_seed=7))
    assert all(len(row.ids) == 8 for row in replay.rows(tokenizer, TEXTS, 18, 8, recipe())), "at most the context"


def test_a_text_without_words_is_refused(checkpoints):
    with pytest.raises(StudyError, match="the text has no document with words"):
        replay.rows(checkpoints["olmo"].tokenizer, [Document("a", "1", " ")], 5, 512, recipe())


HUB = {"source": "hub", "repo": "owner/repo", "steps": [1]}
HERE = {"source": "trained", "pretraining": {"corpus": "miniworld", "save": [0, 20], "domains": ["facts"]}}


def study(family, **settings):
    return {
        "families": {"one": family},
        "recipes": {"kept": {"replay": 0.01, **settings}},
        "models": [{"train": ["mini_facts"], "recipes": ["kept"]}],
        "suites": {"s": {"tests": ["mini_facts"]}},
    }


def test_the_text_is_that_of_pre_training_or_the_recipe_s():
    assert grid.replayed_text(config_checks.read(study(HERE)), "kept", "one") == {
        "corpus": "miniworld", "split": "train", "domains": ["facts"]
    }  # fmt: skip
    stated = config_checks.read(study(HUB, replay_text={"corpus": "miniworld"}))
    assert grid.replayed_text(stated, "kept", "one") == {"corpus": "miniworld", "split": "train"}
    with pytest.raises(StudyError, match=r"^config\.yaml: recipes/kept/replay_text: missing; expected a text"):
        config_checks.read(study(HUB))
