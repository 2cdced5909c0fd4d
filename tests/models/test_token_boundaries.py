"""Where prompt and answer part, and what a prompt loses: against the tokenizer alone, and lm-evaluation-harness's own rule."""

from __future__ import annotations

import conftest
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from workflow import task
from workflow.data import prompts
from workflow.evaluation import prediction
from workflow.models import encoding
from workflow.models.encoding import Framing
from workflow.task import Example

SUITE = {"protocol": "sound", "labels": "score", "seed": 0, "new_tokens": 4, "batch_tokens": 4096, "precision": "fp32"}


@pytest.fixture(scope="module")
def joining() -> PreTrainedTokenizerFast:
    """Characters as tokens, but for `: b`, which is one token across the end of a prompt that ends in a colon."""
    signs = sorted({chr(number) for number in range(32, 127)} | {"\n", " b", ": b"})
    core = Tokenizer(models.BPE({sign: place for place, sign in enumerate(signs)}, [(" ", "b"), (":", " b")]))
    core.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="~", pad_token="~")


def harness(tokenizer: PreTrainedTokenizerFast, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The harness's rule (`TemplateLM._encode_pair`): the context's own tokens, then what the whole has beyond their number."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        continuation, context = context[-spaces:] + continuation, context[:-spaces]
    own, whole = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (context, context + continuation))
    return own, whole[len(own) :]


@pytest.mark.parametrize(("choices", "spans"), [(("cat", "dog"), False), (("cat", "bird"), True)])
def test_a_row_is_marked_where_the_harness_parts_tokens_otherwise(
    choices: tuple[str, ...], spans: bool, joining: PreTrainedTokenizerFast
) -> None:
    row = Example({"support": "", "question": "Who?"}, choices[0], choices, 0)
    read = task.load("sciq_choice")
    prompt = prompts.prompt(read, row.fields, "default")
    assert prompt.rstrip(" ").endswith(":"), "the template ends in a colon"
    run = prediction.Evaluation(conftest.small_model("olmo", joining), joining, SUITE)
    (found,) = prediction.predict_test(run, read, [], [("test/1", row)], "default", 0)
    parted = [encoding.split(joining, prompt.rstrip(" "), [prompts.completion(choice)])[0] for choice in choices]
    theirs = [harness(joining, prompt, prompts.completion(choice)) for choice in choices]
    assert found["spanning"] is spans is (list(map(tuple, parted)) != theirs)


def test_a_prompt_counts_the_tokens_that_it_has_lost(joining: PreTrainedTokenizerFast) -> None:
    """Tokens are characters here: demonstrations go whole, then fields lose their beginning."""
    read = task.load("sciq_choice")
    row = Example({"support": "s" * 50, "question": "q" * 30}, "cat", ("cat", "dog"), 0)
    whole = Framing(read, "default", "sound", (row, row), None)
    full = encoding.fitted(joining, whole, row)
    one = encoding.fitted(joining, Framing(read, "default", "sound", (row,), None), row)
    none = encoding.fitted(joining, Framing(read, "default", "sound", (), None), row)
    assert full.cut_tokens == one.cut_tokens == none.cut_tokens == 0
    for room, shots, left in ((len(full.ids), 2, len(full.ids)), (len(full.ids) - 1, 1, len(one.ids))):
        found = encoding.fitted(joining, Framing(read, "default", "sound", (row, row), room), row)
        assert (found.shots, found.cut_tokens, found.truncated) == (shots, len(full.ids) - left, False)
    short = encoding.fitted(joining, Framing(read, "default", "sound", (row, row), len(none.ids) - 7), row)
    assert short.truncated and short.shots == 0
    assert short.cut_tokens == len(full.ids) - len(short.ids) and len(none.ids) - len(short.ids) == 7
