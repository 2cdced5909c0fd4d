"""Fine-tune a base on a task: loss on completions only, full parameters or LoRA, resumable bit for bit.

Settings of the published study (arXiv 2408.06663, section 3 and released code): AdamW, linear schedule with 3 % warm-up,
batch 8, 3 epochs, gradient norm 1, every example with the same weight, loss on the completion and EOS only.
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
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch

from workflow.data import prompts
from workflow.errors import DivergedError, StoppedError, StudyError, first_line, row_named
from workflow.models import adapters, chat, process_group
from workflow.models.encoding import Framing, Masked, batches, check_tokens, cut, eos, masked, rendered, split
from workflow.models.engine import feeding, repeating
from workflow.models.engine.reading import out_of_memory
from workflow.settings import Recipe
from workflow.task import Example, Task
from workflow.training import replay, saved_state
from workflow.training.saved_state import State, TrainingProgress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int, int], None]
Item = TypeVar("Item")
History = list[dict[str, float]]  # a row for each optimizer step, in the columns of `tables.HISTORY`

EXPLODED = 10  # times the loss of a uniform guess among all tokens; a run that learns stays far below it


def divided(rows: Sequence[Item], recipe: Recipe) -> tuple[list[Item], list[Item]]:
    """Return the recipe's training rows and the validation rows of a search, the same for every model of the recipe.

    The rows are shuffled by `sample_seed`. The first ones (`examples`, or `fraction` of all, rounded) are training rows, the
    next `search/validation` are validation rows, both in trials and in the final fine-tuning. If no number is given, all
    rows but the validation rows, which are then the last, are training rows.
    Errors: StudyError if a search has too few rows.
    """
    validation = recipe["search"]["validation"] if "search" in recipe else 0
    number = _asked_for(len(rows), recipe, len(rows) - validation)
    if validation and not 0 < number <= len(rows) - validation:
        raise StudyError(
            f"{len(rows)} training rows are too few for {max(number, 1)} to train on and {validation} for validation; "
            f"lower examples, fraction or search/validation"
        )
    order = np.random.default_rng(recipe["sample_seed"]).permutation(len(rows))
    drawn = [rows[index] for index in order[: number + validation]]
    return drawn[:number], drawn[number:]


def _asked_for(rows: int, recipe: Recipe, otherwise: int) -> int:
    """Return the number of training rows of a recipe; without a search, at most as many as there are."""
    if "fraction" in recipe:
        return max(1, round(recipe["fraction"] * rows))
    number = recipe.get("examples", otherwise)
    return number if "search" in recipe else min(number, rows)


def encode(tokenizer: PreTrainedTokenizerBase, framing: Framing, example: Example) -> Masked:
    """Encode an example; its completion and EOS are scored (for a conversation, see `encoding.masked`).

    The prompt's longest fields are cut if it exceeds the framing's room.
    Errors: StudyError if the completion alone exceeds the room, or has no token.
    """
    if example.turns:
        return masked(tokenizer, example.turns, framing.limit, framing.format)
    answer = _answer(tokenizer, framing, example)
    query = rendered(tokenizer, framing, (), example.fields)
    parts = split(tokenizer, query, [answer], framing.templated)[0]
    check_tokens(answer, parts.completion)
    ending = _ending(tokenizer, framing)
    room = framing.limit - len(parts.completion) - len(ending)
    if room < 1:
        raise StudyError(
            f"an answer of {len(parts.completion)} tokens leaves no room for its prompt within max_tokens ({framing.room})"
        )
    if len(parts.prompt) > room:
        query, _ = cut(tokenizer, replace(framing, demonstrations=(), room=room), example)
        parts = split(tokenizer, query, [answer], framing.templated)[0]
    completion = [*parts.completion, *ending]
    return Masked(parts.prompt + completion, [False] * len(parts.prompt) + [True] * len(completion))


def _answer(tokenizer: PreTrainedTokenizerBase, framing: Framing, example: Example) -> str:
    """Return the answer as it follows the prompt; in a chat template with the end of the assistant's turn."""
    if not framing.templated:
        return prompts.answer(framing.task, example)
    turns = chat.messages(framing.task, framing.system, (), example.fields)
    return chat.completion(tokenizer, turns, example.lead + example.answer)


def _ending(tokenizer: PreTrainedTokenizerBase, framing: Framing) -> list[int]:
    """Return the tokens after an answer: EOS, unless the chat template has written the end of the turn."""
    return [] if framing.templated and chat.end(tokenizer) else [eos(tokenizer)]


def prepared_rows(
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    task: Task,
    rows: Sequence[tuple[str, Example]],
    format: str,
    recipe: Recipe,
) -> dict[str, Masked]:
    """Encode rows (id, Example), at most `max_tokens` of the recipe and the model's context long; by id.

    A conversation without a scored token within this length is dropped.
    Errors: StudyError if no row is left.
    """
    framing = Framing(task, format, "sound", (), min(recipe["max_tokens"], context), recipe.get("system"))
    encoded = {}
    for name, example in rows:
        with row_named(f"row {name}"):
            encoded[name] = encode(tokenizer, framing, example)
    kept = {name: row for name, row in encoded.items() if row.ids}
    if not kept:
        raise StudyError(f"none of {len(rows)} rows has a scored token within {framing.room} tokens (max_tokens)")
    return kept


@torch.no_grad()
def validate(model: PreTrainedModel, rows: Sequence[Masked], recipe: Recipe, pad: int) -> list[dict[str, float | None]]:
    """Return each row's number of scored `tokens`, their summed loss `nll` (nats) and mean `loss`; null if not finite."""
    results: list[dict[str, float | None]] = [{} for _ in rows]
    lengths = [len(row.ids) for row in rows]
    with feeding.losses(model, pad) as read, _arithmetic(model, recipe):
        for batch in batches(lengths, recipe["batch"] * max(lengths)):
            sums, counts = read([rows[index] for index in batch])
            for index, nll, tokens in zip(batch, sums.tolist(), counts.tolist(), strict=True):
                loss = nll / tokens
                results[index] = {"tokens": tokens, "nll": _finite(nll), "loss": _finite(loss)}
    return results


def _finite(number: float) -> float | None:
    """Return the number, or None if it is not finite."""
    return number if math.isfinite(number) else None


def _arithmetic(model: PreTrainedModel, recipe: Recipe) -> torch.autocast:
    """Return the autocast context for the recipe's precision."""
    return torch.autocast(model.device.type, torch.bfloat16, enabled=recipe["precision"] == "bf16")


def order(rows: int, epochs: int, seed: int) -> list[int]:
    """Return the row numbers of all epochs, each a permutation that depends on seed and epoch only."""
    return [int(row) for epoch in range(epochs) for row in np.random.default_rng([seed, epoch]).permutation(rows)]


def plan(rows: int, recipe: Recipe, seed: int) -> list[list[int]]:
    """Return the row numbers of each optimizer step; an epoch's last step may be smaller, and no step spans two epochs.

    rows: all of them, those of `replay` last, of which each epoch has its own.
    """
    examples, replayed = replay.counts(rows, recipe)
    sequence, size, length = order(examples + replayed, recipe["epochs"], seed), recipe["batch"], examples + replayed
    epochs = [sequence[start : start + length] for start in range(0, len(sequence), length)]
    own = [[row + (row >= examples) * epoch * replayed for row in rows] for epoch, rows in enumerate(epochs)]
    return [epoch[start : start + size] for epoch in own for start in range(0, length, size)]


def rate(update: int, updates: int, recipe: Recipe) -> float:
    """Return the learning rate of an optimizer step (counted from 0): linear warm-up, then the schedule.

    The warm-up has int(share x steps) steps, as in the released code; it starts at 0, and schedules end at 0, as in
    transformers.
    """
    warmup = int(recipe["warmup"] * updates)
    if update < warmup:
        return recipe["learning_rate"] * update / warmup
    passed = (update - warmup) / max(1, updates - warmup)
    course = {"linear": 1 - passed, "cosine": (1 + math.cos(math.pi * passed)) / 2, "constant": 1.0}
    return recipe["learning_rate"] * course[recipe["schedule"]]


def adapted(model: PreTrainedModel, recipe: Recipe, seed: int) -> PreTrainedModel:
    """Return the model with low-rank adapters (Hu et al., 2021) with seeded initial weights; all other weights are frozen.

    Errors: StudyError for layers that the model does not have, and for a rank larger than the width of all adapted layers.
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
        with_adapters = cast("PreTrainedModel", get_peft_model(model, settings))
    except Exception as error:  # PEFT refuses with ValueError, and fails with others on layers that it does not know
        wanted = recipe.get("lora_modules", "left out, which means all linear layers,")
        raise StudyError(
            f"recipes/lora_modules: {wanted} cannot be adapted in {type(model).__name__}: {first_line(error)}; "
            f"set lora_modules to some of {', '.join(adapters.allowed(model)) or 'no layer: use method: full'}"
        ) from error
    width = adapters.width(with_adapters)
    if recipe["lora_rank"] > width:
        raise StudyError(
            f"recipes/lora_rank: {recipe['lora_rank']} is not allowed for {type(model).__name__}; allowed: {width} or less, the "
            "width of the layers that are adapted"
        )
    return with_adapters


def fingerprint(facts: Mapping[str, Any], rows: Sequence[Masked]) -> str:
    """Return a hash of everything that the result depends on: facts (base, recipe, seed …) and the encoded examples."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for row in rows:
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


@contextlib.contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM and Ctrl-C do not end the process; yield a function that returns whether one has arrived.

    Slurm sends SIGTERM before a time limit, at preemption and when a job is cancelled.
    """
    requested = threading.Event()
    before = {number: signal.signal(number, lambda *_: requested.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield requested.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tune(
    model: PreTrainedModel,
    rows: Sequence[Masked],
    recipe: Recipe,
    seed: int,
    pad: int,
    state: State,
    progress: Progress | None = None,
) -> History:
    """Fine-tune the model in place; return the history. Continues from a matching saved state, and saves one on SIGTERM.

    Errors: DivergedError if the loss or its gradient explodes; StoppedError after SIGTERM; StudyError if a single row does
    not fit into memory.
    """
    optimizer = _optimizer(model, recipe)
    torch.manual_seed(seed)
    history, together = state.load(model, optimizer) or TrainingProgress([], recipe["batch"])
    updates = plan(len(rows), recipe, seed)
    tokens, seconds = (history[-1]["tokens"], history[-1]["seconds"]) if history else (0, 0.0)
    start = time.monotonic() - seconds
    model.train()
    with stop_requested() as requested, feeding.losses(model, pad) as read, contextlib.closing(state):
        steps = Steps(model, optimizer, read, recipe, together)
        for update in range(len(history), len(updates)):
            batch = [rows[index] for index in updates[update]]
            if process_group.rank_and_size()[1] > 1:  # each process draws its own dropout, independent of earlier draws
                torch.manual_seed(
                    int(np.random.SeedSequence([seed, update, process_group.rank_and_size()[0]]).generate_state(1)[0])
                )
            taken = steps.take(batch, rate(update, len(updates), recipe))
            tokens += sum(len(row.ids) for row in batch)
            history.append({"update": update, **taken, "tokens": tokens, "seconds": time.monotonic() - start})
            _check(history, model)
            done, stop = update + 1, process_group.any_process(requested(), model.device)
            if (stop or done % recipe["save_every"] == 0) and done < len(updates):
                state.save(model, optimizer, TrainingProgress(history, steps.together))
            if stop and done < len(updates):
                raise StoppedError(
                    f"told to stop after step {done} of {len(updates)}; the same command continues from there"
                )
            if progress:
                progress(done, len(updates))
    model.eval()
    return history


def _optimizer(model: PreTrainedModel, recipe: Recipe) -> torch.optim.AdamW:
    """Return a fused AdamW over the trained weights."""
    return torch.optim.AdamW(
        saved_state.trained(model).values(), lr=recipe["learning_rate"], betas=(recipe["beta1"], recipe["beta2"]),
        eps=recipe["epsilon"], weight_decay=recipe["weight_decay"], fused=True,
    )  # fmt: skip


def _check(history: History, model: PreTrainedModel) -> None:
    """Raise DivergedError if the last step's loss or gradient is not finite, or the loss exceeds its bound (EXPLODED)."""
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


def tune_and_validate(
    model: PreTrainedModel,
    rows: Sequence[Masked],
    validation: Sequence[Masked],
    recipe: Recipe,
    seed: int,
    pad: int,
    state: State,
    progress: Progress | None = None,
) -> list[dict[str, float | None]]:
    """Fine-tune the model in place and return the validation losses as `validate` does. Errors: as `tune`."""
    tune(model, rows, recipe, seed, pad, state, progress)
    return validate(model, validation, recipe, pad)


def unmeasured(rows: Iterable[Masked]) -> list[dict[str, float | None]]:
    """Return rows as `validate` does, without a loss, for a model whose fine-tuning diverged."""
    return [{"tokens": sum(row.scored), "nll": None, "loss": None} for row in rows]


class Steps:
    """Optimizer steps of one run; a batch that does not fit into memory is run in parts of `together` rows."""

    def __init__(
        self,
        model: PreTrainedModel,
        optimizer: torch.optim.Optimizer,
        read: feeding.Losses,
        recipe: Recipe,
        together: int,
    ) -> None:
        self.model, self.optimizer, self.read, self.recipe = model, optimizer, read, recipe
        self.together, self.repeatable = together, True

    def take(self, batch: Sequence[Masked], learning_rate: float) -> dict[str, float]:
        """Take one optimizer step; return its loss, learning rate and gradient norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        loss = self._gradients(batch) if process_group.rank_and_size()[1] == 1 else self._shared(batch)
        trained = self.optimizer.param_groups[0]["params"]
        norm = process_group.unsharded(torch.nn.utils.clip_grad_norm_(trained, self.recipe["clip"]))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": float(loss), "learning_rate": learning_rate, "gradient_norm": float(norm)}

    def _gradients(self, batch: Sequence[Masked]) -> torch.Tensor:
        """Accumulate the gradients of the batch's loss and return the loss, halving the parts until they fit into memory."""
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
                        "a killed run will not continue bit for bit: %s", first_line(error)
                    )
                elif self.together == 1:
                    longest = max(len(row.ids) for row in batch)
                    raise StudyError(
                        f"a row of up to {longest} tokens does not fit into memory; lower max_tokens"
                    ) from error
            # After the handler, which keeps everything of the failed attempt in memory.
            if not lacking:
                self.together = math.ceil(min(self.together, len(batch)) / 2)
            self.optimizer.zero_grad(set_to_none=True)
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
            saved_state.set_random_state(drawn, self.model.device)

    def accumulate(self, batch: Sequence[Masked]) -> torch.Tensor:
        """Accumulate the gradients of the batch's loss, part by part, and return the loss, a scalar."""
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
        """Do the same in several processes, each on its share of the rows; their gradients are averaged."""
        rows, number = process_group.share(batch), process_group.rank_and_size()[1]
        with _arithmetic(self.model, self.recipe):
            # A process without rows has to take part, too.
            sums, counts = self.read(rows or batch[:1])
            loss = (sums / counts).sum() * (number if rows else 0) / len(batch)
        loss.backward()
        return process_group.summed(loss.detach() / number)
