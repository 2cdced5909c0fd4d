"""Rows and answers that leave nothing to read: refused with their row, before a model has run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import conftest
import pytest
from tokenizers import Regex, normalizers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workflow import task
from workflow.errors import StudyError
from workflow.evaluation import prediction
from workflow.indicators.measures import gold_answer
from workflow.models import encoding
from workflow.task import Example
from workflow.training import finetuning

KEPT, LOST = "the cat", "~~"
ROOM = {"max_tokens": 128, "batch": 2}
SUITE = {"protocol": "sound", "labels": "score", "seed": 0, "new_tokens": 4, "batch_tokens": 4096, "precision": "fp32"}
BLANKS = ["", " ", "\t\n", "\u3000", "\u200b", "\ufeff ", "\u200e\u2060", "\x00", "\xad"]


@pytest.mark.parametrize("text", BLANKS)
def test_text_without_a_form_is_blank(text: str, tmp_path: Path) -> None:
    """U+200B zero-width space, U+FEFF mark of byte order, U+2060 word joiner, U+00AD soft hyphen: nothing to see."""
    assert task.is_blank(text) and not task.is_blank(text + ".")
    for split in ("train", "validation"):
        path = tmp_path / "rte" / f"{split}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"sentence1": "A cat.", "sentence2": text, "label": 0, "idx": 0}))
    with pytest.raises(StudyError, match=r"row 1: field 'sentence2': found .*, expected text that is not blank"):
        list(task.prepared("rte", str(tmp_path)))


@pytest.mark.parametrize("text", ["a", "日", "😀", "\u0301", "。", "\u200b."])
def test_text_with_a_form_is_not_blank(text: str) -> None:
    assert not task.is_blank(text)


def test_answers_without_a_form_do_not_count() -> None:
    assert task.answered("?", ["\u200b", " the cat ", ""], "answer").choices == ("the cat",)
    with pytest.raises(task.FieldError, match="expected at least one answer"):
        task.answered("?", ["\u200b", " "], "answer")


@pytest.fixture(scope="module")
def forgetful() -> PreTrainedTokenizerBase:
    """A tokenizer whose normalisation drops `~` with the spaces before it."""
    tokenizer = conftest.small_tokenizer("olmo")
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex(" *~"), "")
    return tokenizer


@pytest.fixture
def unread(forgetful: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> PreTrainedModel:
    """A model that is not to be asked about any row."""
    for module, name in ((prediction, "log_probabilities"), (prediction, "greedy"), (gold_answer, "losses_of")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("the model was asked"))
    return conftest.small_model("olmo", forgetful)


LINE = f"the tokenizer turns '{{}}{LOST}' into no token at all; expected a text with tokens"
CHOICES = {
    "sciq_choice": Example({"support": "", "question": "Who?"}, KEPT, (KEPT, LOST), 0),
    "nq_open": Example({"question": "Who?"}, LOST, (LOST,), 0),
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_without_tokens_is_named_before_the_model_runs(
    name: str, unread: PreTrainedModel, forgetful: PreTrainedTokenizerBase
) -> None:
    run = prediction.Evaluation(unread, forgetful, SUITE)
    whole = Example(CHOICES[name].fields, KEPT, (KEPT, KEPT), 0)
    with pytest.raises(StudyError) as caught:
        prediction.predict_test(run, task.load(name), [], [("test/1", whole), ("test/2", CHOICES[name])], "default", 0)
    assert str(caught.value) == f"row 'test/2': {LINE.format('')}"


def test_label_words_without_tokens_are_named_in_the_published_protocol(
    unread: PreTrainedModel, forgetful: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = ("entailment", LOST)
    rte = dataclasses.replace(task.load("rte"), labels=labels)
    row = ("test/1", Example({"premise": "A cat.", "hypothesis": "A cat."}, labels[0], labels, 0))
    run = prediction.Evaluation(unread, forgetful, SUITE | {"protocol": "published"})
    with pytest.raises(StudyError) as caught:
        prediction.predict_test(run, rte, [], [row], "default", 0)
    assert str(caught.value) == f"row 'test/1': {LINE.format('')}"


def test_an_answer_without_tokens_is_not_trained_on(forgetful: PreTrainedTokenizerBase) -> None:
    rows = [("train/1", Example({"question": "Who?"}, LOST, (LOST,), 0))]
    with pytest.raises(StudyError) as caught:
        finetuning.prepared_rows(forgetful, 128, task.load("nq_open"), rows, "default", ROOM)
    assert str(caught.value) == f"row train/1: {LINE.format(' ')}"


def test_an_answer_without_tokens_has_no_loss(unread: PreTrainedModel, forgetful: PreTrainedTokenizerBase) -> None:
    whole, lost = (Example({"question": "Who?"}, text, (text,), 0) for text in (KEPT, LOST))
    subject = SimpleNamespace(model=unread, tokenizer=forgetful)
    material = SimpleNamespace(tasks={"nq_open": (task.load("nq_open"), [], [("test/1", whole), ("test/2", lost)])})
    settings = {
        "measure": "gold_answer",
        "shots": 0,
        "draws": 1,
        "seed": 0,
        "rows": "test",
        "format": "default",
        "batch_tokens": 4096,
    }
    with pytest.raises(StudyError) as caught:
        gold_answer.measure(subject, settings, material)
    assert str(caught.value) == f"task nq_open, row 'test/2': {LINE.format('')}"


def test_a_prompt_without_tokens_follows_what_opens_a_text(forgetful: PreTrainedTokenizerBase) -> None:
    (parts,) = encoding.split(forgetful, LOST, [" the cat"])
    assert parts.prompt == encoding.opening(forgetful) and forgetful.decode(parts.completion).strip() == "the cat"
