"""Pre-train a small model from scratch, or continue any base; save checkpoints at listed steps, in one go or in pieces.

A model from scratch has the OLMo architecture (Groeneveld et al., 2024, arXiv 2402.00838) and a new tokenizer. Each checkpoint
is a folder in the hub's layout, so that all later steps read it like a published one. A piece is the training up to one saved
step. It goes on from the state that an earlier piece left, bit for bit as if training had not stopped.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast
from transformers.generation.configuration_utils import GenerationConfig
from transformers.models.olmo.configuration_olmo import OlmoConfig
from transformers.models.olmo.modeling_olmo import OlmoForCausalLM

from workflow.data.corpora import Document
from workflow.errors import StudyError
from workflow.models.encoding import eos, padding
from workflow.models.engine import linear
from workflow.settings import Pretraining
from workflow.storage.files import whole
from workflow.training import data_mix, objectives
from workflow.training.saved_state import State, TrainingProgress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

END, PADDING = "<|endoftext|>", "<|padding|>"
BETAS = (0.9, 0.95)  # arXiv 2402.00838, table 5
FINAL_SHARE = 0.1  # the cosine ends at this share of the peak, ibid.
UNSCORED = -100  # label of a position that is not scored, as in transformers
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def pretrain(
    documents: Sequence[Document],
    recipe: Pretraining,
    out: Path,
    progress: Callable[[dict[str, Any]], None] = lambda row: None,
    start: tuple[PreTrainedModel, PreTrainedTokenizerFast] | None = None,
    states: States | None = None,
    until: int | None = None,
) -> list[dict[str, Any]]:
    """Train on the documents and write a checkpoint to `out/step=<N>` for each step that the recipe saves.

    The checkpoint of a step has the history up to it in `history.jsonl`.

    recipe: vocabulary, hidden, layers, heads, intermediate, context (tokens) of a model from scratch; sequence (tokens),
    batch, steps, save (a list of steps, 0 for the start), learning_rate, warmup (share of the steps), weight_decay, clip
    (largest gradient norm), seed, precision (a key of DTYPES); see `objectives` for objective, weights, mode_tokens and
    `data_mix` for mix, tag, length. start: model and tokenizer to continue from. progress: called with each row of the history.
    states: where to go on from and to leave the state of the last step. until: the last step, by default that of the recipe.

    Returns the history, one row per step: step, loss (nats per scored token), learning_rate, tokens (so far, scored or not).
    """
    model, tokenizer = start or _from_scratch(documents, recipe)
    if start:
        extend(model, tokenizer, objectives.special_tokens(recipe), recipe["seed"])
    linear.adopt(model)
    optimizer = torch.optim.AdamW(weight_groups(model, recipe["weight_decay"]), lr=recipe["learning_rate"], betas=BETAS)
    rows = batches(data_mix.encode(tokenizer, documents, recipe), recipe, tokenizer)
    until = recipe["steps"] if until is None else until
    history: list[dict[str, Any]] = states.load(model, optimizer, until) if states else []
    rows = itertools.islice(rows, len(history), None)
    for step in range(len(history), until + 1):
        if step in recipe["save"]:
            save(model, tokenizer, out / f"step={step}", history)
        if step < until:
            rate = learning_rate(step, recipe)
            loss = update(model, optimizer, next(rows), rate, recipe["clip"], DTYPES[recipe["precision"]])
            tokens = (step + 1) * recipe["batch"] * recipe["sequence"]
            history.append({"step": step + 1, "loss": loss, "learning_rate": rate, "tokens": tokens})
            progress(history[-1])
    if states:
        states.save(model, optimizer, history)
    return history


def fingerprint(recipe: Pretraining, documents: Sequence[Document], start: Mapping[str, Any]) -> str:
    """Return a hash of what a state depends on: the recipe but for the saved steps, the texts, the files of the start.

    start: name -> bytes and SHA-256 of the files of the checkpoint that training goes on from; empty from scratch.
    """
    settings = {key: value for key, value in recipe.items() if key != "save"}
    digest = hashlib.sha256(json.dumps([settings, start, torch.__version__], sort_keys=True).encode())
    for document in documents:
        digest.update(json.dumps([document.domain, document.text]).encode())
    return digest.hexdigest()


class States:
    """The states of a pre-training between two steps, in a folder: `step=<N>.safetensors`.

    A state has weights, AdamW's moments and the history. One with another fingerprint is not used.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint

    def load(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer, until: int) -> list[dict[str, Any]]:
        """Load the latest state up to a step into model and optimizer; return its history, which is empty if there is none."""
        for step in sorted((step for step in self._steps() if step <= until), reverse=True):
            if found := self._state(step).load(model, optimizer):
                return cast(list[dict[str, Any]], found.history)
        return []

    def save(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer, history: list[dict[str, Any]]) -> None:
        """Write the state after the last step of a history."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = self._state(len(history))
        state.save(model, optimizer, TrainingProgress(history, 0))
        state.close()

    def remove(self, before: int) -> None:
        """Remove the states of the steps before one."""
        for step in self._steps():
            if step < before:
                self._state(step).remove()

    def _state(self, step: int) -> State:
        return State(self.folder / f"step={step}.safetensors", self.fingerprint)

    def _steps(self) -> list[int]:
        return [int(path.stem.removeprefix("step=")) for path in self.folder.glob("step=*.safetensors")]


def _from_scratch(
    documents: Sequence[Document], recipe: Pretraining
) -> tuple[OlmoForCausalLM, PreTrainedTokenizerFast]:
    """Return a random model and its tokenizer, learned from all documents for any mix or filter of the recipe.

    So families that differ only in mix or filter have the same tokens, and their losses per token can be compared.
    """
    texts = [document.text for document in documents]
    tokenizer = train_tokenizer(texts, recipe["vocabulary"], recipe["context"])
    tokenizer.add_tokens(objectives.special_tokens(recipe), special_tokens=True)
    return initial(recipe, tokenizer), tokenizer


def extend(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tokens: Sequence[str], seed: int) -> None:
    """Add missing special tokens to tokenizer and model; free rows of the embedding are used first."""
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    if len(tokenizer) > cast(torch.nn.Embedding, model.get_input_embeddings()).weight.shape[0]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.resize_token_embeddings(len(tokenizer))


def train_tokenizer(documents: Sequence[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with `vocabulary` tokens, learned from the documents; it has no unknown tokens."""
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


def initial(recipe: Pretraining, tokenizer: PreTrainedTokenizerFast) -> OlmoForCausalLM:
    """Return a randomly initialised model of the recipe's shape and seed, with tied embeddings."""
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


def weight_groups(model: PreTrainedModel, weight_decay: float) -> list[dict[str, Any]]:
    """Return the optimizer's parameter groups: matrices have weight decay; embeddings, norms and biases do not."""
    embedding = model.get_input_embeddings().weight
    matrices = [weight for weight in model.parameters() if weight.dim() > 1 and weight is not embedding]
    others = [weight for weight in model.parameters() if weight.dim() < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": [embedding, *others], "weight_decay": 0.0}]


class Batch(NamedTuple):
    """Token ids, int64 (rows, sequence), and labels: the same ids, UNSCORED for tokens that are not scored."""

    ids: torch.Tensor
    labels: torch.Tensor


def batches(
    documents: Sequence[data_mix.Encoded], recipe: Pretraining, tokenizer: PreTrainedTokenizerFast
) -> Iterator[Batch]:
    """Yield batches of a recipe without end; document order and objective have separate random generators."""
    numbers = data_mix.order(documents, recipe.get("mix"), torch.Generator().manual_seed(recipe["seed"]))
    special = objectives.special_tokens(recipe)
    vocabulary = tokenizer.get_vocab()
    ids = {token: vocabulary[token] for token in special}
    generator = np.random.default_rng(recipe["seed"])
    take, end, pad = data_mix.stream(documents, numbers), eos(tokenizer), padding(tokenizer)
    rows = objectives.rows(take, recipe, ids, end, pad, generator)
    while True:
        batch = [next(rows) for _ in range(recipe["batch"])]
        fed = torch.tensor([row.ids for row in batch])
        yield Batch(fed, fed.masked_fill(~torch.tensor([row.scored for row in batch]), UNSCORED))


def learning_rate(step: int, recipe: Pretraining) -> float:
    """Return the learning rate of a step, counted from 0: linear warm-up, then a cosine down to FINAL_SHARE of the peak."""
    warmup = max(1, round(recipe["warmup"] * recipe["steps"]))
    if step < warmup:
        return recipe["learning_rate"] * (step + 1) / warmup
    done = (step - warmup) / max(1, recipe["steps"] - warmup)
    share = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * done))
    return recipe["learning_rate"] * share


def update(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    rate: float,
    clip: float,
    dtype: torch.dtype,
) -> float:
    """Take one optimizer step on a batch, with gradients clipped to a norm; return the loss in nats per scored token.

    Errors: StudyError if loss or gradient is not finite.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    device = model.device
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32):
        logits = model(input_ids=batch.ids.to(device), use_cache=False).logits
    labels = batch.labels[:, 1:].flatten().to(device)
    loss = cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels, ignore_index=UNSCORED)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), clip))
    if not math.isfinite(norm + loss.item()):
        raise StudyError(
            f"pretraining: the loss is {loss.item()}, the gradient norm {norm}, expected finite numbers; lower learning_rate"
        )
    optimizer.step()
    return loss.item()


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, history: Sequence[Mapping[str, Any]]
) -> None:
    """Write a checkpoint in the hub's layout with the history up to it, completely or not at all."""
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    with whole(folder, sealed=False) as unfinished:  # the job seals it
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        lines = "".join(json.dumps(row) + "\n" for row in history)
        (unfinished / "history.jsonl").write_text(lines, encoding="utf-8")
