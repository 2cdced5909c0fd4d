"""Tuning a base on a task: completion-only loss, full parameters or LoRA, resumable to the bit.

Setting of the published study (arXiv 2408.06663, section 3 and released code): AdamW, linear schedule with 3 % warm-up,
batch 8, 3 epochs, gradient norm 1, every example with the same weight, loss on the completion and EOS alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from workflow import prompts
from workflow.encoding import Framing, Masked, batches, cut, left_padded, masked, split
from workflow.errors import StudyError, first_line
from workflow.task import Example, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int, int], None]
Row = TypeVar("Row")


class DivergedError(StudyError):
    """A tuning whose loss or gradient is no finite number any more."""


def divided(rows: Sequence[Row], recipe: Mapping[str, Any]) -> tuple[list[Row], list[Row]]:
    """The recipe's training rows, and the validation rows of a search: the same for every model of the recipe.

    A random order is drawn by `sample_seed`; its first rows (`examples`, or `fraction` of all, rounded) are trained on,
    the next `search/validation` validate, in trials and in the final tuning alike. Where no number is given, all rows but
    the last of the order are trained on.
    Errors: StudyError when a search has too few rows.
    """
    validation = recipe["search"]["validation"] if "search" in recipe else 0
    number = _asked_for(len(rows), recipe, len(rows) - validation)
    if validation and not 0 < number <= len(rows) - validation:
        raise StudyError(
            f"{len(rows)} training rows are too few for {max(number, 1)} to train on and {validation} to validate by; "
            f"lower examples, fraction or search/validation"
        )
    order = np.random.default_rng(recipe["sample_seed"]).permutation(len(rows))
    drawn = [rows[index] for index in order[: number + validation]]
    return drawn[:number], drawn[number:]


def _asked_for(rows: int, recipe: Mapping[str, Any], otherwise: int) -> int:
    """How many of the rows a recipe trains on; of a recipe without a search no more than there are."""
    if "fraction" in recipe:
        return max(1, round(recipe["fraction"] * rows))
    number = recipe.get("examples", otherwise)
    return number if "search" in recipe else min(number, rows)


def encode(tokenizer: PreTrainedTokenizerBase, framing: Framing, example: Example) -> Masked:
    """An example as token ids of which the completion and its EOS are scored (of a conversation, see `encoding.masked`).

    A prompt's longest fields are cut to the framing's room if need be.
    Errors: StudyError when the completion alone takes the room.
    """
    if example.turns:
        return masked(tokenizer, example.turns, framing.room)
    lead = example.leads[example.gold] if example.leads else ""
    answer = prompts.completion(lead + example.answer)
    query = prompts.prompt(framing.task, example.fields, framing.format)
    parts = split(tokenizer, query, [answer])[0]
    room = framing.room - len(parts.completion) - 1
    if room < 1:
        raise StudyError(
            f"an answer of {len(parts.completion)} tokens leaves its prompt no room in {framing.room} (max_tokens)"
        )
    if len(parts.prompt) > room:
        query, _ = cut(tokenizer, Framing(framing.task, framing.format, framing.protocol, (), room), example)
        parts = split(tokenizer, query, [answer])[0]
    completion = [*parts.completion, tokenizer.eos_token_id]
    return Masked(parts.prompt + completion, [False] * len(parts.prompt) + [True] * len(completion))


def prepared_rows(
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    task: Task,
    rows: Sequence[tuple[str, Example]],
    format: str,
    recipe: Mapping[str, Any],
) -> dict[str, Masked]:
    """Rows (id, Example) as token ids by id, none longer than the recipe's `max_tokens` or the model's context.

    A conversation whose cut leaves no token to learn is left out.
    Errors: StudyError when no row is left.
    """
    framing = Framing(task, format, "sound", (), min(recipe["max_tokens"], context))
    encoded = {}
    for name, example in rows:
        try:
            encoded[name] = encode(tokenizer, framing, example)
        except StudyError as error:
            raise StudyError(f"row {name}: {error}") from error
    kept = {name: row for name, row in encoded.items() if row.ids}
    if not kept:
        raise StudyError(f"none of {len(rows)} rows has a token to learn within {framing.room} tokens (max_tokens)")
    return kept


def summed_losses(model: PreTrainedModel, rows: Sequence[Masked], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each row the summed cross-entropy, in nats, of its scored tokens given all before them, and their number.

    Only the columns from the first scored one on are put through the vocabulary; rows are padded on the left.
    """
    depth = max(len(row.ids) - row.scored.index(True) for row in rows)
    fed = left_padded([row.ids for row in rows], pad, model.device)
    logits = model(**fed, logits_to_keep=depth + 1, use_cache=False).logits[:, :-1].float()
    targets = fed["input_ids"][:, -depth:]
    padded = [[False] * (depth - len(row.scored)) + row.scored[-depth:] for row in rows]
    counted = torch.tensor(padded, device=model.device)
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    return (losses * counted).sum(dim=1), counted.sum(dim=1)


def loss_of(model: PreTrainedModel, rows: Sequence[Masked], pad: int) -> torch.Tensor:
    """Mean over rows of the mean cross-entropy, in nats, of a row's scored tokens given all before them."""
    sums, counts = summed_losses(model, rows, pad)
    return (sums / counts).mean()


@torch.no_grad()
def validate(
    model: PreTrainedModel, rows: Sequence[Masked], recipe: Mapping[str, Any], pad: int
) -> list[dict[str, float | None]]:
    """Loss of each row as `tokens` (scored ones), `nll` (their sum, nats) and `loss` (their mean); null if not finite."""
    results: list[dict[str, float | None]] = [{} for _ in rows]
    lengths = [len(row.ids) for row in rows]
    for batch in batches(lengths, recipe["batch"] * max(lengths)):
        with _arithmetic(model, recipe):
            sums, counts = summed_losses(model, [rows[place] for place in batch], pad)
        for place, nll, tokens in zip(batch, sums.tolist(), counts.tolist(), strict=True):
            finite = math.isfinite(nll)
            results[place] = {
                "tokens": tokens,
                "nll": nll if finite else None,
                "loss": nll / tokens if finite else None,
            }
    return results


def _arithmetic(model: PreTrainedModel, recipe: Mapping[str, Any]) -> torch.autocast:
    """The precision of the recipe's matrix products."""
    return torch.autocast(model.device.type, torch.bfloat16, enabled=recipe["precision"] == "bf16")


def order(rows: int, epochs: int, seed: int) -> list[int]:
    """Row numbers of all epochs, each a permutation drawn from seed and epoch alone."""
    return [int(row) for epoch in range(epochs) for row in np.random.default_rng([seed, epoch]).permutation(rows)]


def plan(rows: int, recipe: Mapping[str, Any], seed: int) -> list[list[int]]:
    """Row numbers of each optimizer step; an epoch's last step may be smaller, none spans two epochs."""
    sequence, size = order(rows, recipe["epochs"], seed), recipe["batch"]
    epochs = [sequence[start : start + rows] for start in range(0, len(sequence), rows)]
    return [epoch[start : start + size] for epoch in epochs for start in range(0, rows, size)]


def rate(update: int, updates: int, recipe: Mapping[str, Any]) -> float:
    """Learning rate of an optimizer step (counted from 0): linear rise over the warm-up, then the schedule's course.

    The warm-up has int(share x steps) steps, as in the released code; the rise starts at 0 and the end is 0, as in
    transformers' schedules.
    """
    warmup = int(recipe["warmup"] * updates)
    if update < warmup:
        return recipe["learning_rate"] * update / warmup
    passed = (update - warmup) / max(1, updates - warmup)
    course = {"linear": 1 - passed, "cosine": (1 + math.cos(math.pi * passed)) / 2, "constant": 1.0}
    return recipe["learning_rate"] * course[recipe["schedule"]]


def adapted(model: PreTrainedModel, recipe: Mapping[str, Any], seed: int) -> PreTrainedModel:
    """The model with low-rank adapters (Hu et al., 2021) of seeded initial weights; all other weights frozen.

    Errors: StudyError for layers that the model does not have.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    settings = LoraConfig(
        r=recipe["lora_rank"],
        lora_alpha=recipe["lora_alpha"],
        lora_dropout=recipe["lora_dropout"],
        target_modules=recipe.get("lora_modules", "all-linear"),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, settings)
    except ValueError as error:
        layers = [name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)]
        allowed = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in layers}))
        raise StudyError(
            f"recipes/lora_modules: {recipe.get('lora_modules')} cannot be adapted ({first_line(error)}); allowed: {allowed}"
        ) from error


class State:
    """A tuning between two optimizer steps, in one file: what a killed run continues from.

    Holds trained weights, AdamW's moments, random states, the history so far and the fingerprint of all that the result
    depends on; a state with another fingerprint is not continued from. Written whole or not at all.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint

    def save(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer, history: list[dict[str, float]]) -> None:
        """Replace the saved state by this one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(f".{self.path.name}.unfinished")
        facts = {"fingerprint": self.fingerprint, "history": json.dumps(history)}
        save_file(_tensors(model, optimizer), unfinished, metadata=facts)
        os.replace(unfinished, self.path)

    def load(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> list[dict[str, float]]:
        """Put a saved state that fits into model and optimizer; returns its history, empty when there is none."""
        if not self.path.is_file():
            return []
        with safe_open(self.path, "pt") as file:
            facts = file.metadata()
            if facts["fingerprint"] != self.fingerprint:
                return []
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _restore(tensors, model, optimizer)
        return json.loads(facts["history"])

    def remove(self) -> None:
        """Forget the saved state."""
        self.path.unlink(missing_ok=True)


def _trained(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """Parameters that tuning changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _tensors(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Everything of a state that is a tensor, by name."""
    tensors = {"random/cpu": torch.get_rng_state()}
    if model.device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(model.device)
    for name, parameter in _trained(model).items():
        tensors[f"weight/{name}"] = parameter.detach().contiguous()
        tensors |= {f"{key}/{name}": value.contiguous() for key, value in optimizer.state[parameter].items()}
    return tensors


@torch.no_grad()
def _restore(tensors: Mapping[str, torch.Tensor], model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
    """The inverse of `_tensors`."""
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random/cuda"], model.device)
    for name, parameter in _trained(model).items():
        parameter.copy_(tensors[f"weight/{name}"])
        moments = {key: tensors[f"{key}/{name}"].to(parameter.device) for key in ("step", "exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = moments


def fingerprint(facts: Mapping[str, Any], rows: Sequence[Masked]) -> str:
    """Hash of all that a tuning's result depends on: facts (base, recipe, seed …) and the encoded examples."""
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for row in rows:
        found.update(json.dumps(row).encode())
    return found.hexdigest()


def tune(
    model: PreTrainedModel,
    rows: Sequence[Masked],
    recipe: Mapping[str, Any],
    seed: int,
    pad: int,
    state: State,
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Tune the model in place; returns one row for each optimizer step, in the columns of `tables.HISTORY`.

    Errors: DivergedError when the loss or its gradient is not a finite number.
    """
    optimizer = torch.optim.AdamW(
        _trained(model).values(), lr=recipe["learning_rate"], betas=(recipe["beta1"], recipe["beta2"]), eps=recipe["epsilon"],
        weight_decay=recipe["weight_decay"], fused=True,
    )  # fmt: skip
    torch.manual_seed(seed)
    history = state.load(model, optimizer)
    updates = plan(len(rows), recipe, seed)
    tokens, seconds = (history[-1]["tokens"], history[-1]["seconds"]) if history else (0, 0.0)
    start = time.monotonic() - seconds
    model.train()
    for update in range(len(history), len(updates)):
        batch = [rows[index] for index in updates[update]]
        record = _update(model, optimizer, batch, rate(update, len(updates), recipe), recipe, pad)
        if not math.isfinite(record["loss"] + record["gradient_norm"]):
            raise DivergedError(
                f"tuning stopped at step {update}: the loss is {record['loss']}, the gradient norm "
                f"{record['gradient_norm']}; lower the learning rate"
            )
        tokens += sum(len(row.ids) for row in batch)
        history.append({"update": update, **record, "tokens": tokens, "seconds": time.monotonic() - start})
        if (update + 1) % recipe["save_every"] == 0 and update + 1 < len(updates):
            state.save(model, optimizer, history)
        if progress:
            progress(update + 1, len(updates))
    model.eval()
    return history


def tried(
    model: PreTrainedModel,
    rows: Sequence[Masked],
    validation: Sequence[Masked],
    recipe: Mapping[str, Any],
    seed: int,
    pad: int,
    state: State,
    progress: Progress | None = None,
) -> list[dict[str, float | None]]:
    """Tune the model in place and measure the validation rows as `validate` does; all are null when tuning diverged."""
    try:
        tune(model, rows, recipe, seed, pad, state, progress)
    except DivergedError:
        return [{"tokens": sum(row.scored), "nll": None, "loss": None} for row in validation]
    return validate(model, validation, recipe, pad)


def _update(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    batch: Sequence[Masked],
    learning_rate: float,
    recipe: Mapping[str, Any],
    pad: int,
) -> dict[str, float]:
    """One optimizer step; returns its loss, learning rate and gradient norm before clipping."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    with _arithmetic(model, recipe):
        loss = loss_of(model, batch, pad)
    loss.backward()
    trained = optimizer.param_groups[0]["params"]
    norm = torch.nn.utils.clip_grad_norm_(trained, recipe["clip"])
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"loss": float(loss.detach()), "learning_rate": learning_rate, "gradient_norm": float(norm)}
