"""Tuning a base on a task: completion-only loss, full parameters or LoRA, resumable to the bit.

Setting of the published study (arXiv 2408.06663, section 3 and released code): AdamW, linear schedule with 3 % warm-up,
batch 8, 3 epochs, gradient norm 1, every example with the same weight, loss on the completion and EOS alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from workflow.data import prompts
from workflow.errors import DivergedError, StoppedError, StudyError, first_line, row_named
from workflow.models import adapters, process_group
from workflow.models.encoding import Framing, Masked, batches, check_tokens, cut, eos, masked, split
from workflow.models.engine import feeding, repeating
from workflow.models.engine.reading import out_of_memory
from workflow.task import Example, Task
from workflow.training import saved_state
from workflow.training.saved_state import Standing, State

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int, int], None]
Row = TypeVar("Row")
History = list[dict[str, float]]  # a row for each optimizer step, in the columns of `tables.HISTORY`

EXPLODED = 10  # times the loss of guessing among all tokens alike, which no tuning that learns comes near


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
    Errors: StudyError when the completion alone takes the room, or has no token.
    """
    if example.turns:
        return masked(tokenizer, example.turns, framing.room)
    lead = example.leads[example.gold] if example.leads else ""
    answer = prompts.completion(lead + example.answer)
    query = prompts.prompt(framing.task, example.fields, framing.format)
    parts = split(tokenizer, query, [answer])[0]
    check_tokens(answer, parts.completion)
    room = framing.room - len(parts.completion) - 1
    if room < 1:
        raise StudyError(
            f"an answer of {len(parts.completion)} tokens leaves its prompt no room in {framing.room} (max_tokens)"
        )
    if len(parts.prompt) > room:
        query, _ = cut(tokenizer, Framing(framing.task, framing.format, framing.protocol, (), room), example)
        parts = split(tokenizer, query, [answer])[0]
    completion = [*parts.completion, eos(tokenizer)]
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
        with row_named(f"row {name}"):
            encoded[name] = encode(tokenizer, framing, example)
    kept = {name: row for name, row in encoded.items() if row.ids}
    if not kept:
        raise StudyError(f"none of {len(rows)} rows has a token to learn within {framing.room} tokens (max_tokens)")
    return kept


@torch.no_grad()
def validate(
    model: PreTrainedModel, rows: Sequence[Masked], recipe: Mapping[str, Any], pad: int
) -> list[dict[str, float | None]]:
    """Loss of each row as `tokens` (scored ones), `nll` (their sum, nats) and `loss` (their mean); null if not finite."""
    results: list[dict[str, float | None]] = [{} for _ in rows]
    lengths = [len(row.ids) for row in rows]
    with feeding.losses(model, pad) as read, _arithmetic(model, recipe):
        for batch in batches(lengths, recipe["batch"] * max(lengths)):
            sums, counts = read([rows[place] for place in batch])
            for place, nll, tokens in zip(batch, sums.tolist(), counts.tolist(), strict=True):
                loss = nll / tokens
                results[place] = {"tokens": tokens, "nll": _finite(nll), "loss": _finite(loss)}
    return results


def _finite(number: float) -> float | None:
    """The number, or None for what is none."""
    return number if math.isfinite(number) else None


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

    Errors: StudyError for layers that the model does not have, and for adapters wider than any of those they are put on.
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
        made = get_peft_model(model, settings)
    except Exception as error:  # PEFT refuses with ValueError, and fails with others on layers that it does not know
        wanted = recipe.get("lora_modules", "left out, which means all linear layers,")
        raise StudyError(
            f"recipes/lora_modules: {wanted} cannot be adapted in {type(model).__name__}: {first_line(error)}; "
            f"set lora_modules to some of {', '.join(adapters.allowed(model)) or 'no layer: use method: full'}"
        ) from error
    width = adapters.width(made)
    if recipe["lora_rank"] > width:
        raise StudyError(
            f"recipes/lora_rank: {recipe['lora_rank']} is not allowed for {type(model).__name__}; allowed: {width} or less, the "
            "width of the layers that are adapted"
        )
    return made


def fingerprint(facts: Mapping[str, Any], rows: Sequence[Masked]) -> str:
    """Hash of all that a tuning's result depends on: facts (base, recipe, seed …) and the encoded examples."""
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for row in rows:
        found.update(json.dumps(row).encode())
    return found.hexdigest()


@contextlib.contextmanager
def told_to_stop() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM and Ctrl-C end nothing by themselves; what is given says whether one of them has come.

    SIGTERM is what Slurm sends before a time limit, at preemption and when a job is cancelled.
    """
    told = threading.Event()
    before = {number: signal.signal(number, lambda *_: told.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield told.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tune(
    model: PreTrainedModel,
    rows: Sequence[Masked],
    recipe: Mapping[str, Any],
    seed: int,
    pad: int,
    state: State,
    progress: Progress | None = None,
) -> History:
    """Tune the model in place; returns its history. A state that fits is continued from, and one saved on SIGTERM.

    Errors: DivergedError when the loss or its gradient explodes; StoppedError after SIGTERM; StudyError when a single
    row does not fit into memory.
    """
    optimizer = _optimizer(model, recipe)
    torch.manual_seed(seed)
    history, together = state.load(model, optimizer) or Standing([], recipe["batch"])
    updates = plan(len(rows), recipe, seed)
    tokens, seconds = (history[-1]["tokens"], history[-1]["seconds"]) if history else (0, 0.0)
    start = time.monotonic() - seconds
    model.train()
    with told_to_stop() as told, feeding.losses(model, pad) as read, contextlib.closing(state):
        steps = Steps(model, optimizer, read, recipe, together)
        for update in range(len(history), len(updates)):
            batch = [rows[index] for index in updates[update]]
            if process_group.place()[1] > 1:  # each draws its own dropout, whatever was drawn before
                torch.manual_seed(
                    int(np.random.SeedSequence([seed, update, process_group.place()[0]]).generate_state(1)[0])
                )
            taken = steps.take(batch, rate(update, len(updates), recipe))
            tokens += sum(len(row.ids) for row in batch)
            history.append({"update": update, **taken, "tokens": tokens, "seconds": time.monotonic() - start})
            _check(history, model)
            done, stop = update + 1, process_group.anywhere(told(), model.device)
            if (stop or done % recipe["save_every"] == 0) and done < len(updates):
                state.save(model, optimizer, Standing(history, steps.together))
            if stop and done < len(updates):
                raise StoppedError(
                    f"told to stop after step {done} of {len(updates)}; the same command goes on from there"
                )
            if progress:
                progress(done, len(updates))
    model.eval()
    return history


def _optimizer(model: PreTrainedModel, recipe: Mapping[str, Any]) -> torch.optim.AdamW:
    """AdamW over the weights that are tuned, in one kernel."""
    return torch.optim.AdamW(
        saved_state.trained(model).values(), lr=recipe["learning_rate"], betas=(recipe["beta1"], recipe["beta2"]),
        eps=recipe["epsilon"], weight_decay=recipe["weight_decay"], fused=True,
    )  # fmt: skip


def _check(history: History, model: PreTrainedModel) -> None:
    """Raise DivergedError when the last step's loss or gradient is not finite, or the loss beyond all measure."""
    last = history[-1]
    loss, norm = last["loss"], last["gradient_norm"]
    bound = EXPLODED * math.log(model.config.get_text_config().vocab_size)
    if math.isfinite(norm) and loss <= bound:
        return
    raise DivergedError(
        f"tuning stopped at step {last['update']}: the loss is {loss}, the gradient norm {norm}, expected finite "
        f"numbers and a loss of at most {bound:.0f}; lower the learning rate",
        [{name: _finite(value) for name, value in row.items()} for row in history],
    )


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
    """Tune the model in place and measure the validation rows as `validate` does. Errors: as `tune`."""
    tune(model, rows, recipe, seed, pad, state, progress)
    return validate(model, validation, recipe, pad)


def unmeasured(rows: Iterable[Masked]) -> list[dict[str, float | None]]:
    """Rows as `validate` gives them, of a model whose tuning has diverged: without a loss."""
    return [{"tokens": sum(row.scored), "nll": None, "loss": None} for row in rows]


class Steps:
    """Optimizer steps of one tuning; a batch that does not fit into memory goes through in parts, `together` rows each."""

    def __init__(
        self,
        model: PreTrainedModel,
        optimizer: torch.optim.Optimizer,
        read: feeding.Losses,
        recipe: Mapping[str, Any],
        together: int,
    ) -> None:
        self.model, self.optimizer, self.read, self.recipe = model, optimizer, read, recipe
        self.together, self.repeatable = together, True

    def take(self, batch: Sequence[Masked], learning_rate: float) -> dict[str, float]:
        """One optimizer step; returns its loss, learning rate and gradient norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        loss = self._gradients(batch) if process_group.place()[1] == 1 else self._shared(batch)
        trained = self.optimizer.param_groups[0]["params"]
        norm = process_group.whole(torch.nn.utils.clip_grad_norm_(trained, self.recipe["clip"]))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": float(loss), "learning_rate": learning_rate, "gradient_norm": float(norm)}

    def _gradients(self, batch: Sequence[Masked]) -> torch.Tensor:
        """Add up the gradients of the batch's loss and return it, halving the parts until they fit."""
        while True:
            drawn = saved_state.random_state(self.model.device)
            try:
                return self.accumulate(batch)
            except RuntimeError as error:
                lacking = self.repeatable and repeating.is_lacking(error)
                if not (lacking or out_of_memory(error)):
                    raise
                if lacking:
                    self.repeatable = False
                    logging.getLogger("tunecast").warning(
                        "a killed run will not go on to the same bits: %s", first_line(error)
                    )
                elif self.together == 1:
                    longest = max(len(row.ids) for row in batch)
                    raise StudyError(
                        f"a row of up to {longest} tokens does not fit into memory; lower max_tokens"
                    ) from error
            # Behind the handler, which holds on to all that the failed attempt had in memory.
            if not lacking:
                self.together = math.ceil(min(self.together, len(batch)) / 2)
            self.optimizer.zero_grad(set_to_none=True)
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
            saved_state.set_random_state(drawn, self.model.device)

    def accumulate(self, batch: Sequence[Masked]) -> torch.Tensor:
        """Add up the gradients of the batch's loss, part by part, and return the loss: a number."""
        total = torch.zeros((), device=self.model.device)
        for start in range(0, len(batch), self.together):
            with _arithmetic(self.model, self.recipe):
                sums, counts = self.read(batch[start : start + self.together])
                loss = (sums / counts).sum() / len(batch)
            with repeating.repeatable(loss.device) if self.repeatable else contextlib.nullcontext():
                loss.backward()
            total += loss.detach()
        return total

    def _shared(self, batch: Sequence[Masked]) -> torch.Tensor:
        """The same by several processes, each with its own rows; their gradients are averaged."""
        own, number = process_group.share(batch), process_group.place()[1]
        with _arithmetic(self.model, self.recipe):
            # One without rows has to take part nevertheless.
            sums, counts = self.read(own or batch[:1])
            loss = (sums / counts).sum() * (number if own else 0) / len(batch)
        loss.backward()
        return process_group.total(loss.detach() / number)
