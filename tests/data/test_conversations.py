"""Tuning on conversations: what is read, what is scored, what is cut; loss and gradients against transformers' own."""

import itertools
import json
import unicodedata

import pyarrow.parquet as pq
import pytest
import running
import torch
from conftest import ARCHITECTURES, loss_of, small_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow import task
from workflow.data import prompts
from workflow.errors import StudyError
from workflow.models import encoding, loading
from workflow.storage import tables
from workflow.task import Example, Turn
from workflow.training import finetuning

TOKENIZERS = {architecture: small_tokenizer(architecture) for architecture in ARCHITECTURES}
TULU = task.load("tulu")
CODE = "def fly(owl):\n    if owl:\n        return 'yes'\n\n    return 'no'"
SHAPES = {
    "one question": [("user", "Can a cat fly?"), ("assistant", "No, the cat eats fish.")],
    "two questions": [
        ("user", "Can a cat fly?"), ("assistant", "No."), ("user", "And an owl?"), ("assistant", "An owl can fly. 🦉"),
    ],
    "system": [("system", "Ann has an owl."), ("user", "Who has it?"), ("assistant", "Ann")],
    "code": [("user", CODE), ("assistant", CODE)],
    "letters of several tokens": [("user", "日本語 😀"), ("assistant", "😀 日本語"), ("user", "é"), ("assistant", "🦉")],
    "the assistant begins": [("assistant", "Hello"), ("user", "Who sings?"), ("assistant", "The hen.")],
    "the user ends": [("user", "Who sings?"), ("assistant", "The hen."), ("user", "Thank you.")],
    "two answers": [("user", "Who sings?"), ("assistant", "The hen."), ("assistant", "And the owl.")],
    "nothing said": [("user", "Who sings?"), ("assistant", "")],
}  # fmt: skip


def turns_of(*pairs):
    return tuple(Turn(role, content) for role, content in pairs)


def answers(row):
    """Token ids of each unbroken run of scored tokens."""
    runs = itertools.groupby(zip(row.ids, row.scored, strict=True), key=lambda pair: pair[1])
    return [[token for token, _ in run] for scored, run in runs if scored]


# Text and mask


def test_a_conversation_as_text_by_hand():
    text, spans = prompts.conversation(turns_of(*SHAPES["system"], *SHAPES["one question"]), "[E]")
    assert text == (
        "<|system|>\nAnn has an owl.\n<|user|>\nWho has it?\n<|assistant|>\nAnn[E]\n"
        "<|user|>\nCan a cat fly?\n<|assistant|>\nNo, the cat eats fish.[E]\n"
    )
    assert [text[start:stop] for start, stop in spans] == ["Ann[E]", "No, the cat eats fish.[E]"]


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_scored_are_the_assistant_s_words_and_each_eos(shape, tokenizer):
    row = encoding.masked(tokenizer, turns_of(*SHAPES[shape]), 10**6)
    said = [content for role, content in SHAPES[shape] if role == "assistant"]
    assert [tokenizer.decode(run) for run in answers(row)] == [content + tokenizer.eos_token for content in said]
    assert all(run.count(tokenizer.eos_token_id) == 1 for run in answers(row))
    whole, _ = prompts.conversation(turns_of(*SHAPES[shape]), tokenizer.eos_token)
    ids = tokenizer(whole)["input_ids"]
    assert row.ids == ids[: len(row.ids)], "tokens are those of the whole text"
    assert tokenizer.eos_token_id not in ids[len(row.ids) :], "no more than what follows the last EOS is left out"


contents = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).map(
    lambda text: unicodedata.normalize("NFC", text).strip()
)
conversations = st.lists(st.tuples(st.sampled_from(task.ROLES), contents), min_size=1, max_size=6)


@given(st.sampled_from(list(TOKENIZERS.values())), conversations, st.integers(1, 120))
@settings(max_examples=300, deadline=None)
def test_any_conversation_loses_its_end_alone(tokenizer, pairs, room):
    """The scored tokens are, to the end of the room, the assistant's words with their EOS."""
    turns = turns_of(*pairs)
    row = encoding.masked(tokenizer, turns, 10**6)
    said = [content + tokenizer.eos_token for role, content in pairs if role == "assistant"]
    assert [tokenizer.decode(run) for run in answers(row)] == said
    cut = encoding.masked(tokenizer, turns, room)
    kept = row.scored[:room]
    length = len(kept) - kept[::-1].index(True) if True in kept else 0
    assert cut == (row.ids[:length], row.scored[:length])


def test_a_cut_by_hand():
    """A letter and a mark are a token each: the last EOS goes first, then its answer, with it the question before."""
    tokenizer = TOKENIZERS["olmo"]
    turns = turns_of(("user", "cat"), ("assistant", "Z?"), ("user", "hen"), ("assistant", "X!"))
    row = encoding.masked(tokenizer, turns, 10**6)
    first, second = answers(row)
    head = row.scored.index(True)
    assert first[-1] == second[-1] == tokenizer.eos_token_id and len(first) == len(second) == 3
    for gone, expected in ((1, [first, second[:2]]), (2, [first, second[:1]]), (3, [first]), (4, [first])):
        cut = encoding.masked(tokenizer, turns, len(row.ids) - gone)
        assert answers(cut) == expected
        assert len(cut.ids) == (len(row.ids) - gone if gone < 3 else head + 3)
    assert encoding.masked(tokenizer, turns, head) == ([], [])


# Rows to tune on


def recipe_of(**changes):
    return {"max_tokens": 2048, **changes}


def test_what_has_no_token_to_learn_is_left_out():
    tokenizer = TOKENIZERS["olmo"]
    rows = [
        ("a", Example({}, "", turns=turns_of(*SHAPES["one question"]))),
        ("b", Example({}, "", turns=turns_of(("user", "cat " * 200), ("assistant", "owl")))),
        ("c", Example({}, "", turns=turns_of(("user", "Who?")))),
    ]
    assert list(finetuning.prepared_rows(tokenizer, 256, TULU, rows, "default", recipe_of())) == ["a", "b"]
    assert list(finetuning.prepared_rows(tokenizer, 100, TULU, rows, "default", recipe_of())) == ["a"]
    assert list(finetuning.prepared_rows(tokenizer, 256, TULU, rows, "default", recipe_of(max_tokens=100))) == ["a"]
    with pytest.raises(StudyError, match=r"^none of 2 rows has a scored token within 100 tokens \(max_tokens\)$"):
        finetuning.prepared_rows(tokenizer, 100, TULU, rows[1:], "default", recipe_of())


def theirs(model, row):
    """The loss of transformers' own forward pass with labels -100 where nothing is scored."""
    labels = [token if scored else -100 for token, scored in zip(row.ids, row.scored, strict=True)]
    return model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([labels])).loss


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_loss_and_gradients_equal_transformers_own(checkpoint):
    """All shapes in one batch: rows of different lengths, several answers, gaps between them, an EOS alone."""
    model, _ = loading.untouched({"path": str(checkpoint.path)})
    rows = [encoding.masked(checkpoint.tokenizer, turns_of(*pairs), 256) for pairs in SHAPES.values()]
    assert max(len(row.ids) for row in rows) > 3 * min(len(row.ids) for row in rows)
    loss = loss_of(model, rows, encoding.padding(checkpoint.tokenizer))
    expected = torch.stack([theirs(model, row) for row in rows]).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5, rel=0)
    found, wanted = gradients(model, loss), gradients(model, expected)
    assert max(float(gradient.abs().max()) for gradient in wanted.values()) > 0.05
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=0, msg=lambda text, at=name: f"{at}: {text}")


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_validation_losses_equal_transformers_own(checkpoint, batch):
    rows = [encoding.masked(checkpoint.tokenizer, turns_of(*pairs), 256) for pairs in SHAPES.values()]
    settings = {"batch": batch, "precision": "fp32"}
    found = finetuning.validate(checkpoint.model, rows, settings, encoding.padding(checkpoint.tokenizer))
    assert [row["tokens"] for row in found] == [sum(row.scored) for row in rows]
    with torch.no_grad():
        expected = [theirs(checkpoint.model, row).item() for row in rows]
    assert [row["loss"] for row in found] == pytest.approx(expected, abs=1e-5, rel=0)
    assert [row["nll"] / row["tokens"] for row in found] == pytest.approx(expected, abs=1e-5, rel=0)


# The task


def row_of(*pairs):
    return {"dataset": "own", "id": "own_1", "messages": [{"role": role, "content": text} for role, text in pairs]}


def test_a_conversation_survives_parquet_and_is_never_a_test(tmp_path):
    row = row_of(("system", " Be kind.\n"), ("user", "  Who sings?"), ("assistant", "The hen.\n"))
    tables.write(task.canonical(TULU, "train", [("here", row)]), tables.EXAMPLES, tmp_path / "tulu.parquet")
    read, train, test = task.examples("tulu", tmp_path / "tulu.parquet")
    turns = turns_of(("system", "Be kind."), ("user", "Who sings?"), ("assistant", "The hen."))
    assert (read, train, test) == (TULU, [("train/1", Example(fields={}, answer="", turns=turns))], [])
    assert task.splits(TULU) == ["train"]


STUDY = {
    "families": {"local": {"source": "folder", "path": "../steps", "pattern": "step={step}"}},
    "data_root": "../data",
    "recipes": {"chat": {"fraction": 0.5, "batch": 2, "epochs": 2, "max_tokens": 64, "learning_rate": 1.0e-3}},
    "models": [{"train": ["tulu"], "recipes": ["chat"]}],
    "suites": {"plain": {"tests": ["mini_inference"]}},
}
HISTORY = "results/histories/family=local/step=10/train=tulu/format=default/recipe=chat/seed=0/part.parquet"


@pytest.mark.slow
def test_a_study_tunes_on_conversations(checkpoints, tmp_path):
    """Half of twelve rows, of which every third is too long for its answer to be reached."""
    place = running.lay_out(tmp_path / "place", STUDY)
    (place / "steps").mkdir()
    (place / "steps/step=10").symlink_to(checkpoints["olmo"].path)
    rows = [row_of(("user", "Who sings? " * (40 if number % 3 == 2 else 1)), ("assistant", f"The hen {number}."))
            for number in range(12)]  # fmt: skip
    (place / "data/tulu_messages").mkdir(parents=True)
    (place / "data/tulu_messages/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = running.run(place, HISTORY)
    assert ended.returncode == 0, ended.stderr
    facts = tables.recorded(place / "study" / HISTORY)
    drawn, _ = finetuning.divided(range(12), {"fraction": 0.5, "sample_seed": 42})
    long = sum(number % 3 == 2 for number in drawn)
    assert 0 < long < 6
    assert (facts["examples"], facts["dropped"]) == (6 - long, long)
    history = pq.ParquetFile(place / "study" / HISTORY).read().to_pylist()
    tokenizer = checkpoints["olmo"].tokenizer
    learned = [f"<|user|>\nWho sings?\n<|assistant|>\nThe hen {n}.{tokenizer.eos_token}" for n in drawn if n % 3 != 2]
    assert history[-1]["tokens"] == 2 * sum(map(len, tokenizer(learned)["input_ids"]))
    assert len(history) == 2 * -(-(6 - long) // 2)
