"""Prompts in a checkpoint's chat template, in fine-tuning and evaluation, against plain transformers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from workflow import task
from workflow.errors import StudyError
from workflow.evaluation import prediction
from workflow.models import chat
from workflow.models.encoding import Framing, fitted
from workflow.task import Example, Turn
from workflow.training import finetuning

MNLI, ARC, NQ = task.load("mnli"), task.load("arc_easy"), task.load("nq_open")
LABELS = ("entailment", "neutral", "contradiction")
PAIRS = [
    (f"row/{n}", Example({"premise": p, "hypothesis": h}, LABELS[n], LABELS, n))
    for n, (p, h) in enumerate([("Ann has a cat.", "It can fly."), ("A man sleeps.", "A man runs."), ("Bo?", "Ça va")])
]
QUESTIONS = [
    ("row/1", Example({"question": "What can fly?"}, "the owl", ("the owl", "a trout in the river"), 0)),
    ("row/2", Example({"question": "Who has a cat?"}, "Ann", ("Bo and Cy", "Ann"), 1)),
]
ASKED = [("row/1", Example({"question": "who has a cat"}, "Ann", ("Ann", "Bo"), 0))]
# `generation` marks what transformers' own mask counts as the assistant's.
TEMPLATE = (
    "{{ bos_token or '' }}{% for m in messages %}<|{{ m['role'] }}|>\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|end|>{% endgeneration %}{% else %}"
    "{{ m['content'] }}<|end|>{% endif %}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.fixture(scope="module", params=["llama", "olmo"])
def chatting(request: pytest.FixtureRequest, checkpoints: Any) -> tuple[Any, Any]:
    """A model and a tokenizer with a chat template; the model may end its turns."""
    model, tokenizer = (
        copy.deepcopy(checkpoints[request.param].model),
        copy.deepcopy(checkpoints[request.param].tokenizer),
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]})
    tokenizer.chat_template = TEMPLATE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return model, tokenizer


def by_transformers(tokenizer: Any, messages: list[dict[str, str]], **arguments: Any) -> Any:
    """Token ids of a conversation."""
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **arguments)


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def asked(example: Example) -> str:
    """The user's turn of a pair, written out."""
    fields = example.fields
    return f"Consider the following texts: Text 1: {fields['premise']} Text 2: {fields['hypothesis']} The relation is"


def test_a_training_row_is_the_conversation_and_only_the_answer_is_scored(chatting: Any) -> None:
    _, tokenizer = chatting
    example = PAIRS[0][1]
    row = finetuning.encode(tokenizer, Framing(MNLI, "chat", "sound", (), 200, "Be brief."), example)
    messages = [said("system", "Be brief."), said("user", asked(example)), said("assistant", "entailment")]
    expected = by_transformers(tokenizer, messages, return_assistant_tokens_mask=True)
    length = len(row.ids)
    assert row.ids == expected["input_ids"][:length]
    assert [int(scored) for scored in row.scored] == expected["assistant_masks"][:length]
    assert tokenizer.decode(row.ids[-1]) == "<|end|>" and sum(expected["assistant_masks"][length:]) == 0


def test_turns_of_a_conversation_are_scored_as_transformers_masks_them(chatting: Any) -> None:
    _, tokenizer = chatting
    turns = (Turn("user", "Who?"), Turn("assistant", "Ann."), Turn("user", "And?"), Turn("assistant", "Bo and Cy."))
    row = finetuning.encode(
        tokenizer, Framing(task.load("tulu"), "chat", "sound", (), 200), Example({}, "", turns=turns)
    )
    messages = [said(turn.role, turn.content) for turn in turns]
    expected = by_transformers(tokenizer, messages, return_assistant_tokens_mask=True)
    assert row.ids == expected["input_ids"][: len(row.ids)]
    assert [int(scored) for scored in row.scored] == expected["assistant_masks"][: len(row.ids)]


def test_long_prompts_lose_examples_then_the_start_of_fields(chatting: Any) -> None:
    _, tokenizer = chatting
    shown = tuple(example for _, example in PAIRS[1:])
    whole = fitted(tokenizer, Framing(MNLI, "chat", "sound", shown, None), PAIRS[0][1])
    fewer = fitted(tokenizer, Framing(MNLI, "chat", "sound", shown, len(whole.ids) - 1), PAIRS[0][1])
    none = fitted(tokenizer, Framing(MNLI, "chat", "sound", (), None), PAIRS[0][1])
    cut = fitted(tokenizer, Framing(MNLI, "chat", "sound", shown, len(none.ids) - 2), PAIRS[0][1])
    assert (whole.shots, fewer.shots, cut.shots, cut.truncated) == (2, 1, 0, True)
    assert len(cut.ids) <= len(none.ids) - 2 and cut.text.endswith("The relation is<|end|><|assistant|>\n")


@torch.no_grad()
def log_probability(model: Any, ids: list[int], start: int) -> float:
    """Of the tokens from `start` on."""
    scores = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
    return sum(float(scores[place - 1, ids[place]]) for place in range(start, len(ids)))


def suite(**changes: Any) -> Any:
    return {"protocol": "sound", "labels": "score", "seed": 3, "new_tokens": 12, "batch_tokens": 8192, "formats": ["chat"],
            "shots": [0], "system": "Be brief."} | changes  # fmt: skip


@pytest.mark.parametrize("shots", [0, 2])
def test_choices_and_labels_are_scored_after_the_prompt(chatting: Any, shots: int) -> None:
    model, tokenizer = chatting
    settings = suite(tests=["mnli"], shots=[shots])
    found = list(prediction.predict(model, tokenizer, settings, {"mnli": (MNLI, PAIRS, PAIRS)}))
    shown = {name: example for name, example in PAIRS}
    for row, (_, example) in zip(found, PAIRS, strict=True):
        messages = [said("system", "Be brief.")]
        for name in row["shown"]:
            messages += [said("user", asked(shown[name])), said("assistant", shown[name].answer)]
        prompt = by_transformers(tokenizer, [*messages, said("user", asked(example))], add_generation_prompt=True)[
            "input_ids"
        ]
        assert len(row["shown"]) == shots and row["prompt_tokens"] == len(prompt)
        expected = [
            log_probability(model, [*prompt, *tokenizer(label, add_special_tokens=False)["input_ids"]], len(prompt))
            for label in LABELS
        ]
        assert row["logprobs"] == pytest.approx(expected, abs=1e-4, rel=0)


def test_text_ends_with_the_turn(chatting: Any) -> None:
    model, tokenizer = chatting
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert chat.end(tokenizer) == [end]
    settings = suite(tests=["nq_open"])
    (row,) = prediction.predict(model, tokenizer, settings, {"nq_open": (NQ, [], ASKED)})
    question = "Answer the question in a few words.\nQuestion: who has a cat\nAnswer:"
    messages = [said("system", "Be brief."), said("user", question)]
    prompt = by_transformers(tokenizer, messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    ids = model.generate(
        prompt, do_sample=False, max_new_tokens=12, eos_token_id=[tokenizer.eos_token_id, end], pad_token_id=0
    )
    text = tokenizer.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True)
    assert row["output"] == text.split("\n")[0].strip()


def test_a_checkpoint_without_a_template_is_refused_in_a_line(checkpoints: Any) -> None:
    model, tokenizer = checkpoints["llama"][:2]
    with pytest.raises(
        StudyError, match="the checkpoint has no chat template, which format 'chat' needs; expected chat_template"
    ):
        list(prediction.predict(model, tokenizer, suite(tests=["arc_easy"]), {"arc_easy": (ARC, [], QUESTIONS)}))


def test_a_template_that_refuses_a_turn_is_told_in_a_line(chatting: Any) -> None:
    tokenizer = copy.deepcopy(chatting[1])
    tokenizer.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    with pytest.raises(StudyError, match="the chat template refuses the turns system, user: no system"):
        fitted(tokenizer, Framing(ARC, "chat", "sound", (), None, "Be brief."), QUESTIONS[0][1])
