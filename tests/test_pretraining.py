"""Pre-training from scratch: tokenizer, loss, checkpoints, determinism."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from workflow import miniworld, pretraining

RECIPE = {
    "vocabulary": 400,
    "hidden": 32,
    "layers": 2,
    "heads": 2,
    "intermediate": 64,
    "context": 64,
    "sequence": 32,
    "batch": 4,
    "steps": 60,
    "save": [0, 20, 60],
    "learning_rate": 1e-2,
    "warmup": 0.1,
    "weight_decay": 0.1,
    "clip": 1.0,
    "precision": "fp32",
    "seed": 0,
}


@pytest.fixture(scope="module")
def documents():
    world = miniworld.build(0, people=10, towns=4, animals=12, things=12, rounds=2)
    return [page for pages in miniworld.documents(world).values() for page in pages]


@pytest.fixture(scope="module")
def trained(documents, tmp_path_factory):
    out = tmp_path_factory.mktemp("family")
    return pretraining.pretrain(documents, RECIPE, out), out


def test_tokenizer_round_trips_any_text(documents):
    tokenizer = pretraining.train_tokenizer(documents, 400, 64)
    for text in [*documents[:20], "Zürich, 東京 — \t two  spaces\n\n### don 't"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tokenizer_has_end_and_padding_and_adds_neither(documents):
    tokenizer = pretraining.train_tokenizer(documents, 400, 64)
    assert len(tokenizer) == 400
    assert tokenizer.eos_token_id != tokenizer.pad_token_id and tokenizer.bos_token_id is None
    assert not {tokenizer.eos_token_id, tokenizer.pad_token_id} & set(tokenizer("The river.")["input_ids"])


def test_batches_hold_every_document_once_a_pass():
    documents = [[number, 0] for number in range(1, 13)]
    rows = pretraining.batches(documents, {"batch": 2, "sequence": 4}, torch.Generator().manual_seed(1))
    passes = [torch.cat([next(rows).flatten() for _ in range(3)]).tolist() for _ in range(2)]
    assert [sorted(ids) for ids in passes] == [[0] * 12 + list(range(1, 13))] * 2
    assert passes[0] != passes[1]


def test_learning_rate_rises_then_falls_to_a_tenth():
    recipe = {"learning_rate": 1.0, "warmup": 0.1, "steps": 100}
    assert pretraining.learning_rate(0, recipe) == 0.1
    assert pretraining.learning_rate(9, recipe) == pretraining.learning_rate(10, recipe) == 1.0
    assert pretraining.learning_rate(55, recipe) == pytest.approx(0.55)
    assert pretraining.learning_rate(100, recipe) == pytest.approx(0.1)


def test_loss_starts_at_that_of_a_guess_and_falls(trained):
    history, _ = trained
    assert [row["step"] for row in history] == list(range(1, 61))
    assert history[0]["loss"] == pytest.approx(math.log(400), abs=0.2)
    assert sum(row["loss"] for row in history[-10:]) / 10 < history[0]["loss"] - 1
    assert history[-1]["tokens"] == 60 * 4 * 32


def test_history_is_written(trained):
    history, out = trained
    assert [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()] == history


def test_a_folder_for_each_saved_step_and_nothing_else(trained):
    _, out = trained
    assert sorted(path.name for path in out.iterdir()) == ["history.jsonl", "step=0", "step=20", "step=60"]


def test_saved_model_loads_and_goes_on_from_the_loss(trained, documents):
    history, out = trained
    model = AutoModelForCausalLM.from_pretrained(out / "step=60")
    tokenizer = AutoTokenizer.from_pretrained(out / "step=60")
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    rows = pretraining.batches(pretraining.encode(tokenizer, documents), RECIPE, torch.Generator().manual_seed(5))
    ids = torch.cat([next(rows) for _ in range(4)])
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss.item()
    assert loss == pytest.approx(sum(row["loss"] for row in history[-10:]) / 10, abs=0.4)


def test_same_seed_same_weights(trained, documents, tmp_path):
    _, out = trained
    pretraining.pretrain(documents, RECIPE, tmp_path)
    first, second = (load_file(root / "step=60" / "model.safetensors") for root in (out, tmp_path))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_other_seed_other_weights(trained, documents, tmp_path):
    _, out = trained
    pretraining.pretrain(documents, {**RECIPE, "seed": 1, "steps": 0, "save": [0]}, tmp_path)
    first, second = (load_file(root / "step=0" / "model.safetensors") for root in (out, tmp_path))
    assert not torch.equal(first["model.embed_tokens.weight"], second["model.embed_tokens.weight"])
