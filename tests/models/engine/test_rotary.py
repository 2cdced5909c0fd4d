"""Positions that stretch with the longest row fed: each row comes out as it does alone, in a model that was fed nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from conftest import small_tokenizer

from workflow.models import checkpoints
from workflow.models.encoding import Masked
from workflow.models.engine import attention, feeding, generation, losses, rotary, scoring

ORIGINAL = 32  # tokens beyond which positions stretch
SIZES = {
    "vocab_size": 402, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "initializer_range": 0.2,
}  # fmt: skip
CONFIGS = {
    "dynamic": lambda: transformers.LlamaConfig(
        **SIZES,
        max_position_embeddings=ORIGINAL,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    ),
    "longrope": lambda: transformers.Phi3Config(
        **SIZES,
        max_position_embeddings=4 * ORIGINAL,
        original_max_position_embeddings=ORIGINAL,
        rope_parameters={
            "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 5.0, 9.0], "rope_theta": 10000.0,
            "original_max_position_embeddings": ORIGINAL,
        },
        pad_token_id=0,
    ),
}  # fmt: skip
# Lengths around the original one, the longest neither first nor last.
ROWS = [[(7 * place + 3 * length) % 390 + 5 for place in range(length)] for length in (20, 40, 90, 33, 6, 60, 31)]


@pytest.fixture(params=CONFIGS)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], transformers.PreTrainedModel]:
    """A checkpoint, loaded anew at each call, which a row alone needs: `dynamic` remembers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param]()).save_pretrained(tmp_path)
    return lambda: transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.fixture
def model(fresh: Callable[[], transformers.PreTrainedModel], tmp_path: Path) -> transformers.PreTrainedModel:
    """The checkpoint as jobs load it."""
    return checkpoints.load_model(tmp_path, torch.float32, "cpu")


@torch.no_grad()
def alone(fresh: Callable[[], transformers.PreTrainedModel], row: list[int], last: bool = True) -> torch.Tensor:
    """Log-probability of each token of a row but the first, in a model that was fed nothing else; last: or its last token."""
    fed = row if last else row[:-1]
    scores = fresh().eval()(input_ids=torch.tensor([fed])).logits[0].double().log_softmax(dim=-1)
    return scores[range(len(row) - 1), row[1:]]


def test_rows_would_change_each_other(fresh: Callable[[], transformers.PreTrainedModel]) -> None:
    """What the tests below rest on: beside a longer row in one pass a row that is shorter comes out otherwise."""
    model = fresh()
    assert rotary.stretches(model) and not attention.packable(model)
    model.set_attn_implementation(attention.IMPLEMENTATION)
    with torch.no_grad():
        logits = (
            model(**attention.packed([ROWS[2], ROWS[0]], "cpu"), use_cache=False)
            .logits[0, 90:]
            .double()
            .log_softmax(dim=-1)
        )
    assert (logits[range(19), ROWS[0][1:]] - alone(fresh, ROWS[0])).abs().max() > 1e-3


def test_log_probabilities_are_those_of_rows_alone(fresh, model) -> None:
    requests = [(row[:start], row[start:]) for row in ROWS for start in (5, len(row) - 1)]
    found = scoring.log_probabilities(model, requests, 8192)
    # The token that nothing follows is not fed, which counts at the original length.
    expected = [
        float(alone(fresh, [*context, *ids], last=False)[len(context) - 1 :].sum()) for context, ids in requests
    ]
    assert found == pytest.approx(expected, abs=1e-5, rel=1e-6)


def test_losses_are_those_of_rows_alone(fresh, model) -> None:
    expected = [-alone(fresh, row) for row in ROWS]
    with feeding.losses(model, 0) as read, torch.no_grad():
        sums, counts = read([Masked(row, [False] + [True] * (len(row) - 1)) for row in ROWS])
    assert counts.tolist() == [len(row) - 1 for row in ROWS]
    assert sums.tolist() == pytest.approx([float(own.sum()) for own in expected], abs=1e-5, rel=1e-6)
    for found, own in zip(
        losses.token_losses(model, [losses.Reading(row) for row in ROWS], 0, 8192), expected, strict=True
    ):
        assert found == pytest.approx(own.numpy(), abs=1e-5)


def test_text_is_what_generate_writes_after_each_row_alone(fresh, model) -> None:
    tokenizer = small_tokenizer("olmo")
    eos = tokenizer.eos_token_id
    found = generation.greedy(model, tokenizer, ROWS, 12, (), 8192)
    for row, ids in zip(ROWS, found, strict=True):
        fed = torch.tensor([row])
        written = (
            fresh()
            .eval()
            .generate(
                fed,
                attention_mask=torch.ones_like(fed),
                max_new_tokens=12,
                do_sample=False,
                eos_token_id=eos,
                pad_token_id=eos,
            )
        )
        assert list(itertools.takewhile(lambda token: token != eos, written[0, len(row) :].tolist())) == ids


def test_plain_positions_are_left_as_they_are(checkpoint) -> None:
    assert not rotary.stretches(checkpoint.model)
