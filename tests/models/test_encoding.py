"""Tokens of prompts and completions: what is counted, what is cut, where it is parted; on random texts of all scripts."""

import sys
from types import SimpleNamespace

import pytest
import torch
import transformers
from conftest import ARCHITECTURES, small_model, small_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow import task
from workflow.data.corpora import Document
from workflow.errors import StudyError
from workflow.indicators.measures import span_corruption
from workflow.models import encoding
from workflow.models.encoding import Framing
from workflow.models.engine.constrained import constrained
from workflow.models.engine.generation import greedy
from workflow.task import Example, Turn
from workflow.training import finetuning

TOKENIZERS = {architecture: small_tokenizer(architecture) for architecture in ARCHITECTURES}
LABELS = ("entailment", "neutral", "contradiction")
MNLI = task.load("mnli")
HEAD, MIDDLE, CUE = "### Input_1: ", "\n ### Input_2: ", "\n ### Inference:"

tokenizers = st.sampled_from([TOKENIZERS[architecture] for architecture in ARCHITECTURES])
SPELLINGS = [
    "cat ",
    " the owl",
    "😀",
    "👩‍👩‍👧",
    "日本語",
    "é",
    "e\u0301",
    "\n",
    "\n\n",
    "  ",
    "\t",
    "###",
    " \u00a0",
    "can fly.",
]
pieces = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), st.sampled_from(SPELLINGS))
texts = st.lists(pieces, max_size=12).map("".join)


def ids_of(tokenizer, text):
    return tokenizer(text)["input_ids"]


# Parting


@given(tokenizers, texts, st.lists(texts.map(lambda text: f" {text}"), min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_parts_are_the_tokens_of_the_whole_text(tokenizer, prompt, completions):
    for part, completion in zip(encoding.split(tokenizer, prompt, completions), completions, strict=True):
        whole = ids_of(tokenizer, prompt + completion)
        if part.prompt == encoding.opening(tokenizer):
            assert part.completion == (whole[1:] if whole[0] == tokenizer.bos_token_id else whole)
        else:
            assert part.prompt + part.completion == whole
        assert part.completion, "a completion has at least the token of its space"


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_parts_by_hand(tokenizer):
    """Where the completion starts with a space the parts are the tokens of each; else a joint token is the completion's."""
    plain = ids_of(tokenizer, "The cat")
    space = tokenizer(" can fly.", add_special_tokens=False)["input_ids"]
    assert encoding.split(tokenizer, "The cat", [" can fly.", ""]) == [(plain, space), (plain, [])]
    # "ca" + "t" is one token of the whole text: " cat".
    whole = ids_of(tokenizer, "The cat")
    assert len(whole) == len(ids_of(tokenizer, "The")) + 1
    assert encoding.split(tokenizer, "The ca", ["t"]) == [(whole[:-1], whole[-1:])]
    # The owl costs several tokens a piece, none of which goes to the other side.
    assert tokenizer.decode(encoding.split(tokenizer, "🦉", ["🦉!"])[0].completion) == "🦉!"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_empty_prompt_is_an_opening(architecture):
    tokenizer = TOKENIZERS[architecture]
    [part] = encoding.split(tokenizer, "", [" cat"])
    assert part.prompt == [tokenizer.bos_token_id if architecture == "llama" else tokenizer.eos_token_id]
    assert tokenizer.decode(part.completion) == " cat"


# Cutting


def solved(example):
    return f"{HEAD}{example.fields['premise']}{MIDDLE}{example.fields['hypothesis']}{CUE} {example.answer}\n\n"


def framing(room, demonstrations=(), protocol="sound", format="default"):
    return Framing(MNLI, format, protocol, tuple(demonstrations), room)


def example(premise, hypothesis, gold=1):
    return Example({"premise": premise, "hypothesis": hypothesis}, LABELS[gold], LABELS, gold)


examples = st.builds(example, texts, texts, st.integers(0, 2))
# A kept character of a field may cost a few tokens; a room of the template and this always suffices.
LEAST = 20


@pytest.mark.slow
@given(tokenizers, examples, st.lists(examples, max_size=4), st.integers(0, 120))
@settings(max_examples=400, deadline=None)
def test_fitted_prompt(tokenizer, query, demonstrations, spare):
    """Within the room; nothing is lost without need, demonstrations go first and oldest first, head and cue stay."""
    room = len(ids_of(tokenizer, HEAD + MIDDLE + CUE)) + LEAST + spare
    found = encoding.fitted(tokenizer, framing(room, demonstrations), query)
    premise, hypothesis = query.fields["premise"], query.fields["hypothesis"]
    asked = f"{HEAD}{premise}{MIDDLE}{hypothesis}{CUE}"
    assert found.ids == ids_of(tokenizer, found.text) and len(found.ids) <= room
    fits = [
        shots
        for shots in range(len(demonstrations) + 1)
        if len(ids_of(tokenizer, "".join(map(solved, demonstrations[len(demonstrations) - shots :])) + asked)) <= room
    ]
    if fits:
        kept = demonstrations[len(demonstrations) - found.shots :]
        assert (found.truncated, found.text) == (False, "".join(map(solved, kept)) + asked)
        assert found.shots == max(fits)
    else:
        assert (found.truncated, found.shots) == (True, 0)
        assert found.text.startswith(HEAD) and found.text.endswith(CUE)
        inner = found.text[len(HEAD) : -len(CUE)]
        assert any(
            premise.endswith(inner[:at]) and hypothesis.endswith(inner[at + len(MIDDLE) :])
            for at in range(len(inner))
            if inner[at:].startswith(MIDDLE)
        )


def summary(prompt):
    return prompt.text, len(prompt.ids), prompt.shots, prompt.truncated


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_just_as_much_is_cut_as_the_room_demands(tokenizer):
    """Words of one token each: exactly the surplus goes, from the start of the longest field."""
    query = example(" cat" * 50, " owl" * 20)
    whole = encoding.fitted(tokenizer, framing(None), query)
    size = len(whole.ids)
    assert summary(whole) == (f"{HEAD}{' cat' * 50}{MIDDLE}{' owl' * 20}{CUE}", size, 0, False)
    found = encoding.fitted(tokenizer, framing(size - 7), query)
    assert summary(found) == (f"{HEAD}{' cat' * 43}{MIDDLE}{' owl' * 20}{CUE}", size - 7, 0, True)
    # 49 off 70: both are cut to the same length, rather than the first one to nothing.
    found = encoding.fitted(tokenizer, framing(size - 50), query)
    assert summary(found) == (f"{HEAD}{' cat' * 10}{MIDDLE}{' owl' * 10}{CUE}", size - 50, 0, True)


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_the_longest_field_is_the_one_with_most_tokens(tokenizer):
    """15 characters of several tokens each are more than 12 words of one token, 48 characters."""
    query = example("🦉" * 15, " owl" * 12)
    whole = encoding.fitted(tokenizer, framing(None), query)
    found = encoding.fitted(tokenizer, framing(len(whole.ids) - 8), query)
    assert found.truncated and found.text.endswith(f"🦉{MIDDLE}{' owl' * 12}{CUE}")


def test_a_template_without_room_is_refused():
    tokenizer = TOKENIZERS["olmo"]
    least = len(ids_of(tokenizer, f"{HEAD} cat{MIDDLE} owl{CUE}"))
    query = example(" cat" * 50, " owl" * 50)
    assert encoding.fitted(tokenizer, framing(least), query).text == f"{HEAD} cat{MIDDLE} owl{CUE}"
    with pytest.raises(StudyError, match=f"^format 'default' needs more than the {least - 1} tokens that the model's"):
        encoding.fitted(tokenizer, framing(least - 1), query)


def test_the_published_protocol_cuts_nothing():
    tokenizer = TOKENIZERS["olmo"]
    query, shown = example("cat " * 400, "owl"), example("hen", "fox", 2)
    found = encoding.fitted(tokenizer, framing(None, [shown], "published", "io"), query)
    assert found.text == "hen foxcontradiction\n" + "cat " * 400 + " owl"
    assert (found.ids, found.shots, found.truncated) == (ids_of(tokenizer, found.text), 1, False)


# Padding and batches


def test_rows_are_padded_on_the_left():
    fed = encoding.left_padded([[5, 6, 7], [8]], 1, torch.device("cpu"))
    assert fed["input_ids"].tolist() == [[5, 6, 7], [1, 1, 8]]
    assert fed["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert fed["position_ids"].tolist() == [[0, 1, 2], [0, 0, 0]]


def test_a_context_is_the_text_s_own_and_without_end_where_positions_are_not_counted():
    """A config of several parts has one for text; a recurrent model's has no positions."""
    parts = transformers.Gemma3Config(text_config={"max_position_embeddings": 77})
    assert encoding.context_length(SimpleNamespace(config=parts)) == 77
    assert encoding.context_length(SimpleNamespace(config=transformers.MambaConfig())) == sys.maxsize


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_is_the_eos_where_there_is_no_padding_token(architecture):
    tokenizer = TOKENIZERS[architecture]
    expected = tokenizer.eos_token if architecture in ("llama", "gpt_neox") else "<|padding|>"
    assert encoding.padding(tokenizer) == tokenizer.convert_tokens_to_ids(expected)


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
@settings(deadline=None)
def test_batches(lengths, tokens):
    """Every row once; within the limit after padding, unless a single row is longer; longest first."""
    found = encoding.batches(lengths, tokens)
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= tokens
    order = [lengths[row] for batch in found for row in batch]
    assert order == sorted(order, reverse=True)
    for batch in found[:-1]:
        assert (len(batch) + 1) * lengths[batch[0]] > tokens, "a batch of its own only where one row more is too much"


# Where there is no EOS


def test_a_tokenizer_without_eos_is_named_where_it_is_needed():
    tokenizer = small_tokenizer("olmo")
    tokenizer.eos_token = tokenizer.pad_token = None
    tokenizer.name_or_path = "steps/step10"
    line = "^steps/step10: the tokenizer has no EOS to end a text with; expected `eos_token` in tokenizer_config.json$"
    example = Example({"premise": "a", "hypothesis": "b"}, "neutral", LABELS, gold=1)
    model = small_model("olmo", TOKENIZERS["olmo"])
    turns = (Turn("user", "a"), Turn("assistant", "b"))
    needs = {
        "tuning": lambda: finetuning.encode(tokenizer, Framing(MNLI, "default", "sound", (), 90), example),
        "a conversation": lambda: encoding.masked(tokenizer, turns, 90),
        "a text without a prompt": lambda: encoding.opening(tokenizer),
        "writing": lambda: greedy(model, tokenizer, [[5, 6]], 4, (), 90),
        "a forced label": lambda: constrained(model, tokenizer, [[5, 6]], [[7]], 4, 90),
        "text of spans": lambda: list(span_corruption.stream(tokenizer, [Document("d", "1", "a b c")], 8)),
    }
    for name, need in needs.items():
        with pytest.raises(StudyError, match=line):
            need()
            pytest.fail(name)
    assert encoding.padding(tokenizer) == 0, "padding is masked, whatever it is"
    model.generation_config.eos_token_id = [9, 8]
    assert encoding.ends(model, tokenizer) == [9, 8]
