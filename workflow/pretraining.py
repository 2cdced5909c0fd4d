"""Pre-training a small model from scratch: a tokenizer, a random initialisation, checkpoints at listed steps.

The model has the OLMo architecture (Groeneveld et al., 2024, arXiv 2402.00838); each checkpoint is a folder in the
hub's layout, so that everything behind reads it as it reads a published one.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast
from transformers.generation.configuration_utils import GenerationConfig
from transformers.models.olmo.configuration_olmo import OlmoConfig
from transformers.models.olmo.modeling_olmo import OlmoForCausalLM

END, PADDING = "<|endoftext|>", "<|padding|>"
BETAS = (0.9, 0.95)  # arXiv 2402.00838, table 5
FINAL_SHARE = 0.1  # the cosine ends at this share of the peak, ibid.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def pretrain(
    documents: Sequence[str],
    recipe: Mapping[str, Any],
    out: Path,
    progress: Callable[[dict[str, Any]], None] = lambda row: None,
) -> list[dict[str, Any]]:
    """Train on the documents and leave a checkpoint in `out/step=<N>` for each step that the recipe saves.

    recipe: vocabulary, hidden, layers, heads, intermediate, context (tokens), sequence (tokens), batch, steps, save
    (a list of steps, 0 for the random initialisation), learning_rate, warmup (share of the steps), weight_decay, clip
    (largest gradient norm), seed, precision (a key of DTYPES). progress: called with each row of the history.

    Returns the history, one row a step: step, loss (nats a token), learning_rate, tokens (so far).
    """
    tokenizer = train_tokenizer(documents, recipe["vocabulary"], recipe["context"])
    model = initial(recipe, tokenizer)
    optimizer = torch.optim.AdamW(weight_groups(model, recipe["weight_decay"]), lr=recipe["learning_rate"], betas=BETAS)
    rows = batches(encode(tokenizer, documents), recipe, torch.Generator().manual_seed(recipe["seed"]))
    history = []
    for step in range(recipe["steps"] + 1):
        if step in recipe["save"]:
            save(model, tokenizer, out / f"step={step}")
        if step < recipe["steps"]:
            rate = learning_rate(step, recipe)
            loss = update(model, optimizer, next(rows), rate, recipe["clip"], DTYPES[recipe["precision"]])
            tokens = (step + 1) * recipe["batch"] * recipe["sequence"]
            history.append({"step": step + 1, "loss": loss, "learning_rate": rate, "tokens": tokens})
            progress(history[-1])
    (out / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history), encoding="utf-8")
    return history


def train_tokenizer(documents: Sequence[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of that many tokens, learned from the documents; no text is unknown to it."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END, PADDING], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PADDING,
        clean_up_tokenization_spaces=False,
        model_max_length=context,
    )


def initial(recipe: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast) -> OlmoForCausalLM:
    """The randomly initialised model of the recipe's shape and seed, with input and output embeddings tied."""
    config = OlmoConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe["hidden"],
        num_hidden_layers=recipe["layers"],
        num_attention_heads=recipe["heads"],
        intermediate_size=recipe["intermediate"],
        max_position_embeddings=recipe["context"],
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe["seed"])
        return OlmoForCausalLM(config)


def weight_groups(model: OlmoForCausalLM, weight_decay: float) -> list[dict[str, Any]]:
    """The optimiser's parameter groups: matrices decay, embeddings do not (the architecture has no norm weights)."""
    embedding = model.get_input_embeddings().weight
    matrices = [weight for weight in model.parameters() if weight is not embedding]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": [embedding], "weight_decay": 0.0}]


def encode(tokenizer: PreTrainedTokenizerFast, documents: Sequence[str]) -> list[list[int]]:
    """Token ids of each document, each ended by EOS."""
    return [[*ids, tokenizer.eos_token_id] for ids in tokenizer(list(documents), verbose=False)["input_ids"]]


def batches(
    documents: Sequence[Sequence[int]], recipe: Mapping[str, Any], generator: torch.Generator
) -> Iterator[torch.Tensor]:
    """Endless batches of ids, int64 [batch, sequence]: documents end to end, in a new order at every pass."""
    size = recipe["batch"] * recipe["sequence"]
    stream: list[int] = []
    while True:
        for number in torch.randperm(len(documents), generator=generator).tolist():
            stream.extend(documents[number])
            while len(stream) >= size:
                yield torch.tensor(stream[:size]).view(recipe["batch"], recipe["sequence"])
                del stream[:size]


def learning_rate(step: int, recipe: Mapping[str, Any]) -> float:
    """The rate of a step, counted from 0: linear warm-up, then a cosine down to FINAL_SHARE of the peak."""
    warmup = max(1, round(recipe["warmup"] * recipe["steps"]))
    if step < warmup:
        return recipe["learning_rate"] * (step + 1) / warmup
    done = (step - warmup) / max(1, recipe["steps"] - warmup)
    share = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * done))
    return recipe["learning_rate"] * share


def update(
    model: OlmoForCausalLM,
    optimizer: torch.optim.Optimizer,
    ids: torch.Tensor,
    rate: float,
    clip: float,
    dtype: torch.dtype,
) -> float:
    """One optimiser step on a batch of ids, gradients clipped to that norm; returns its loss in nats a token."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
        logits = model(input_ids=ids, use_cache=False).logits
    loss = cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.item()


def save(model: OlmoForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a checkpoint in the hub's layout, whole or not at all."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
