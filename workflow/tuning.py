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
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from workflow import prompts
from workflow.encoding import Framing, Split, cut, left_padded, split
from workflow.errors import StudyError
from workflow.task import Example, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int, int], None]


def sampled(examples: Sequence[Example], recipe: Mapping[str, Any]) -> list[Example]:
    """The recipe's training examples: a random sample without replacement, the same for every model of the recipe."""
    number = min(recipe.get("examples", len(examples)), len(examples))
    order = np.random.default_rng(recipe["sample_seed"]).permutation(len(examples))[:number]
    return [examples[index] for index in order]


def encode(tokenizer: PreTrainedTokenizerBase, framing: Framing, example: Example) -> Split:
    """Prompt and completion with EOS as token ids, the prompt's longest fields cut to the framing's room if need be.

    Errors: StudyError when the completion alone takes the room.
    """
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
    return Split(parts.prompt, [*parts.completion, tokenizer.eos_token_id])


def prepared_rows(
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    task: Task,
    examples: Sequence[Example],
    format: str,
    recipe: Mapping[str, Any],
) -> list[Split]:
    """The recipe's sample of examples as token ids, none longer than the recipe's `max_tokens` or the model's context."""
    framing = Framing(task, format, "sound", (), min(recipe["max_tokens"], context))
    return [encode(tokenizer, framing, example) for example in sampled(examples, recipe)]


def loss_of(model: PreTrainedModel, rows: Sequence[Split], pad: int) -> torch.Tensor:
    """Mean over rows of the mean cross-entropy, in nats, of a row's completion tokens given all before them.

    Only the columns that hold completions are put through the vocabulary; rows are padded on the left.
    """
    depth = max(len(row.completion) for row in rows)
    fed = left_padded([[*row.prompt, *row.completion] for row in rows], pad, model.device)
    logits = model(**fed, logits_to_keep=depth + 1, use_cache=False).logits[:, :-1].float()
    targets = fed["input_ids"][:, -depth:]
    lengths = torch.tensor([[len(row.completion)] for row in rows], device=model.device)
    counted = torch.arange(depth, 0, -1, device=model.device)[None, :] <= lengths
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    return ((losses * counted).sum(dim=1) / lengths[:, 0]).mean()


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
    """The model with low-rank adapters (Hu et al., 2021) of seeded initial weights; all other weights frozen."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    settings = LoraConfig(
        r=recipe["lora_rank"],
        lora_alpha=recipe["lora_alpha"],
        lora_dropout=recipe["lora_dropout"],
        target_modules=recipe.get("lora_modules", "all-linear"),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, settings)


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


def fingerprint(facts: Mapping[str, Any], rows: Sequence[Split]) -> str:
    """Hash of all that a tuning's result depends on: facts (base, recipe, seed …) and the encoded examples."""
    text = json.dumps([facts, rows], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def tune(
    model: PreTrainedModel,
    rows: Sequence[Split],
    recipe: Mapping[str, Any],
    seed: int,
    pad: int,
    state: State,
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Tune the model in place; returns one row for each optimizer step, in the columns of `tables.HISTORY`.

    Errors: StudyError when the loss or its gradient is not a finite number.
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
            raise StudyError(
                f"tuning stopped at step {update}: the loss is {record['loss']}, the gradient norm "
                f"{record['gradient_norm']}; lower the learning rate"
            )
        tokens += sum(len(row.prompt) + len(row.completion) for row in batch)
        history.append({"update": update, **record, "tokens": tokens, "seconds": time.monotonic() - start})
        if (update + 1) % recipe["save_every"] == 0 and update + 1 < len(updates):
            state.save(model, optimizer, history)
        if progress:
            progress(update + 1, len(updates))
    model.eval()
    return history


def _update(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    batch: Sequence[Split],
    learning_rate: float,
    recipe: Mapping[str, Any],
    pad: int,
) -> dict[str, float]:
    """One optimizer step; returns its loss, learning rate and gradient norm before clipping."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    with torch.autocast(model.device.type, torch.bfloat16, enabled=recipe["precision"] == "bf16"):
        loss = loss_of(model, batch, pad)
    loss.backward()
    trained = optimizer.param_groups[0]["params"]
    norm = torch.nn.utils.clip_grad_norm_(trained, recipe["clip"])
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"loss": float(loss.detach()), "learning_rate": learning_rate, "gradient_norm": float(norm)}
