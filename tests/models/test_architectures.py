"""A part of the sweep over architectures and tokenizers (`benchmarks/architectures.py`), and that it sees what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tokenizer_shapes import SHAPES

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import architectures

from workflow.models import checkpoints, encoding, tokenization

PAIRS = {
    "llama": list(SHAPES),  # rows in packs
    "qwen2_moe": ["both", "prefix_first"],  # a class with rules of its own, experts
    "gemma2": ["eos", "added_words"],  # soft caps, which rule out shared keys
    "bloom": ["both", "stripping"],  # positions by the distance, rows beside padding
    "mamba": ["bos", "no_specials"],  # no attention, rows apart
    "bigbird_pegasus": ["bos"],  # positions that count padding
    "deepseek_v4": ["prefix_never"],  # keys put together by the dozen, from the beginning of the padding
}


@pytest.mark.slow
@pytest.mark.parametrize("model_type", PAIRS)
def test_scores_losses_and_texts_are_those_of_one_row_loops(tmp_path: Path, model_type: str) -> None:
    found = list(architectures.tried(model_type, PAIRS[model_type], tmp_path))
    assert [(one.shape, one.outcome, one.why) for one in found] == [(name, "agrees", "") for name in PAIRS[model_type]]
    assert max(one.difference for one in found) < 1e-4


def test_texts_that_generate_would_write_with_other_positions_are_refused(tmp_path: Path) -> None:
    """RoBERTa counts positions from its padding's id on, `generate` from 0; scores and losses, read before, agree."""
    [one] = architectures.tried("xlm-roberta", ["bos"], tmp_path)
    assert one.outcome == "refused" and one.why.startswith(
        "this model and `generate` of transformers count positions differently"
    )


def test_the_sweep_sees_an_eos_behind_every_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the tokenizer itself puts around a text, as before; in one token the losses differ by far more than rounding."""

    def around(tokenizer, texts, templated=False, **how):
        found = tokenizer(list(texts), return_offsets_mapping=True, verbose=False, **how)
        ends = [[end for _, end in offsets] for offsets in found["offset_mapping"]]
        return [encoding.Tokenized(*pair) for pair in zip(found["input_ids"], ends, strict=True)]

    monkeypatch.setattr(encoding, "tokenized", around)
    assert {one.outcome for one in architectures.tried("llama", ["eos", "both"], tmp_path)} == {"misfit"}


def test_the_sweep_sees_the_rules_of_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenization, "as_filed", lambda tokenizer, folder: tokenizer)
    [one] = architectures.tried("qwen2", ["prefix_first"], tmp_path)
    assert one.outcome == "misfit"


def test_the_sweep_sees_a_wrong_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = checkpoints.load_model

    def harmed(*given):
        model = read(*given)
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight.mul_(1.1)
        return model

    monkeypatch.setattr(checkpoints, "load_model", harmed)
    [one] = architectures.tried("llama", ["bos"], tmp_path)
    assert one.outcome == "misfit"
