"""Greedy generation with continuous batching: a finished row frees its slot at once, and shared prefixes are read once.

Each step feeds the last token of every active row and the whole contexts of new rows as one sequence; keys and values stay in
preallocated slots. The texts are those that transformers' `generate` gives row by row.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch

from workflow.errors import StudyError, first_line
from workflow.models.encoding import ends
from workflow.models.engine import finite, replaying
from workflow.models.engine.attention import bounds, to_device
from workflow.models.engine.reading import Ids, Reader, reading
from workflow.models.engine.sharing import Keys, SlotPacking

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int, int], None]

SLOTS = {"cpu": 32, "cuda": 256}  # more rows at once are no faster
# The share of slots that must be free before rows enter: a step in which no row enters can be replayed.
FREE = {"cuda": 1 / 8}


class StopCondition:
    """The end of a text: one of the ids in `ends`, a stop string, or `new_tokens` tokens."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], stops: Sequence[str], new_tokens: int
    ) -> None:
        self.tokenizer, self.ends, self.stops, self.new_tokens = tokenizer, ends, stops, new_tokens
        self._completes: dict[int, bool] = {}

    def reached(self, ids: Ids) -> bool:
        """Return whether a text ends with its last token, which is no EOS."""
        if len(ids) >= self.new_tokens or not self.stops:
            return len(ids) >= self.new_tokens
        return self._may_complete(ids[-1]) and self._holds_stop(ids)

    def _may_complete(self, token: int) -> bool:
        """Return whether a token has the last character of a stop string, or part of a character; else nothing is decoded."""
        if token not in self._completes:
            text = self.tokenizer.decode([token, token])  # twice, since a leading space is not always shown
            self._completes[token] = any(stop[-1] in text for stop in self.stops) or "\ufffd" in text
        return self._completes[token]

    def _holds_stop(self, ids: Ids) -> bool:
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return any(stop in text for stop in self.stops)


@dataclass
class WrittenText:
    """An active row: its number, the number of tokens in its slot, the generated ids."""

    number: int
    held: int
    ids: list[int] = field(default_factory=list)


@torch.inference_mode()
def greedy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    contexts: Sequence[Ids],
    new_tokens: int,
    stops: Sequence[str],
    batch_tokens: int,
    progress: Progress | None = None,
    more_ends: Sequence[int] = (),
) -> list[list[int]]:
    """Return greedily generated token ids after each context, up to EOS, a stop string or `new_tokens`; without EOS.

    EOS is any id that ends a text of the model (`encoding.ends`), or one of `more_ends`.
    Errors: StudyError if there is none, or if memory is too small for one row; NotFiniteError with the number of a context
    after which the model's scores are not finite.
    """
    outputs: list[list[int]] = [[] for _ in contexts]
    ending = StopCondition(tokenizer, [*ends(model, tokenizer), *more_ends], stops, new_tokens)
    done = 0
    with reading(model, batch_tokens) as reader:
        for number, ids in (
            _written(reader, contexts, ending) if reader.shares else _generated(reader, contexts, ending)
        ):
            outputs[number] = ids
            done += 1
            if progress:
                progress(done, len(contexts))
    return outputs


def _written(reader: Reader, contexts: Sequence[Ids], ending: StopCondition) -> Iterator[tuple[int, list[int]]]:
    """Yield texts with the numbers of their contexts, as they finish."""
    for length, numbers in reader.groups(contexts):
        prefix = reader.prefix(contexts[numbers[0]][:length]) if length else None
        waiting = {number: list(contexts[number][length:]) for number in numbers}
        yield from SlotScheduler(reader, waiting, prefix, length, ending).written()


class SlotScheduler:
    """Rows that share a prefix: active ones in slots, others waiting.

    contexts: number -> tokens after the prefix; length: tokens of the prefix.
    """

    def __init__(
        self, reader: Reader, contexts: dict[int, list[int]], prefix: Keys | None, length: int, ending: StopCondition
    ) -> None:
        self.reader, self.contexts, self.prefix, self.length, self.ending = reader, contexts, prefix, length, ending
        self.waiting = self._in_order(contexts)
        self.texts: list[WrittenText] = []
        self.cache: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.slots = self.room = 0
        self.replay: replaying.Replay | None = None

    def written(self) -> Iterator[tuple[int, list[int]]]:
        """Yield the text of every row, as it finishes."""
        while self.waiting or self.texts:
            entering = self._entering()
            tokens: list[int] = []
            rows = len(self.texts) + len(entering)
            if self.reader.fits_in_memory(functools.partial(self._step, entering, tokens), rows):
                self.texts += [WrittenText(number, len(self.contexts[number])) for number in entering]
                yield from self._ended(tokens)
            else:  # all unfinished rows start over, in fewer slots
                begun = [text.number for text in self.texts]
                self.waiting = self._in_order([*begun, *entering, *self.waiting])
                self.texts, self.cache, self.slots, self.replay = [], [], 0, None

    def _in_order(self, numbers: Iterable[int]) -> deque[int]:
        """Return rows with the longest first, so that the first one gives the room of a slot."""
        return deque(sorted(numbers, key=lambda number: -len(self.contexts[number])))

    def _entering(self) -> list[int]:
        """Return the waiting rows that enter now: as many as there are free slots and fit into a pack."""
        if not self.slots:
            self._measure()
        free, wanted = self.slots - len(self.texts), self.slots * FREE.get(self.reader.device.type, 0)
        if self.texts and free < min(wanted, len(self.waiting)):
            return []
        entering: list[int] = []
        cost = self.reader.cost(len(self.texts), len(self.texts))
        while self.waiting and len(self.texts) + len(entering) < self.slots:
            cost += self.reader.cost(len(self.contexts[self.waiting[0]]), 1)
            if cost > min(self.reader.limit, self.reader.pack_limit) and (entering or self.texts):
                break
            entering.append(self.waiting.popleft())
        return entering

    def _measure(self) -> None:
        """Set the number of slots and the room of each in tokens."""
        reader = self.reader
        self.room = len(self.contexts[self.waiting[0]]) + self.ending.new_tokens
        left = reader.limit - min(reader.pack_limit, reader.limit / 2)
        most = min(SLOTS.get(reader.device.type, 32), len(self.waiting))
        self.slots = max(1, min(most, int(left // (self.room * reader.kept))))

    def _step(self, entering: Sequence[int], written: list[int]) -> None:
        """Feed the last token of every row and the entering rows whole; add the next token of each, in this order."""
        numbers = [*(text.number for text in self.texts), *entering]
        tokens, scores = (None if entering else self._replayed()) or self._launched(entering)
        finite.check(scores, numbers)
        written += tokens.tolist()

    def _replayed(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Run a step without new rows as a replay: next tokens and their scores; None if it cannot be replayed."""
        if not replaying.suits(self.reader, self.cache[0][0][0]):
            return None
        if self.replay is None:
            self.replay = replaying.Replay(self.reader, self._slots_of, self.slots, self.room, self.prefix)
        return self.replay.next([
            replaying.SlotInput(text.ids[-1], self.length + text.held, slot * self.room + text.held, text.held + 1)
            for slot, text in enumerate(self.texts)
        ])  # fmt: skip

    def _launched(self, entering: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Run any step."""
        device, used = self.reader.device, len(self.texts)
        filled = tuple(text.held for text in self.texts)
        lengths = (1,) * used + tuple(len(self.contexts[number]) for number in entering)
        places = [slot * self.room + held for slot, held in enumerate(filled)]
        starts = (slot * self.room for slot in itertools.count(used))
        places += itertools.chain.from_iterable(
            range(start, start + length) for start, length in zip(starts, lengths[used:], strict=False)
        )
        ids = [text.ids[-1] for text in self.texts]
        ids += itertools.chain.from_iterable(self.contexts[number] for number in entering)
        positions = [self.length + held for held in filled]
        positions += itertools.chain.from_iterable(range(self.length, self.length + count) for count in lengths[used:])
        packing = SlotPacking(
            lengths, bounds(lengths, device), self._slots_of, filled, to_device(places, device), self.prefix
        )
        ends = [end - 1 for end in itertools.accumulate(lengths)]
        scores = self.reader.logits(ids, positions, packing, ends)
        tokens = scores.argmax(dim=1)
        return tokens, scores.gather(1, tokens[:, None])[:, 0]

    def _slots_of(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the slots of a layer, allocated at its first use."""
        while len(self.cache) <= layer:
            keys, values = (tensor.new_zeros(self.slots, self.room, *tensor.shape[1:]) for tensor in (key, value))
            self.cache.append((keys, values))
        return self.cache[layer]

    def _ended(self, tokens: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Append the next token of every row; yield finished rows, whose slots the last rows take."""
        for text, token in zip(self.texts, tokens, strict=True):
            text.held += bool(text.ids)
            text.ids.append(token)
        for slot in reversed(range(len(self.texts))):
            text = self.texts[slot]
            at_end = text.ids[-1] in self.ending.ends
            if at_end or self.ending.reached(text.ids):
                yield text.number, text.ids[:-1] if at_end else text.ids
                self._leave(slot)

    def _leave(self, slot: int) -> None:
        """Free a slot by moving the last row to it."""
        last = self.texts.pop()
        if slot == len(self.texts):
            return
        self.texts[slot] = last
        for tensors in self.cache:
            for tensor in tensors:
                tensor[slot, : last.held] = tensor[len(self.texts), : last.held]


# Models whose rows cannot share keys


def _generated(reader: Reader, contexts: Sequence[Ids], ending: StopCondition) -> Iterator[tuple[int, list[int]]]:
    """Yield texts by transformers' `generate`, row by row, with the model's original attention."""
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    settings = GenerationConfig(
        do_sample=False, max_new_tokens=ending.new_tokens, eos_token_id=list(ending.ends), pad_token_id=ending.ends[0]
    )  # fmt: skip
    for number, context in enumerate(contexts):
        fed = torch.tensor([list(context)], device=reader.device)
        with reader.as_it_was():
            expected = reader.alone(context, [len(context) - 1]) if number == 0 else None
        criteria = StoppingCriteriaList([_stop_at(ending, len(context))])
        with _defaults(reader.model, settings), reader.as_it_was(), _positions_refused(reader.model):
            # Processes that share a model are kept in step by the reader (`in_step`).
            produced = cast(Any, reader.model).generate(
                fed, attention_mask=torch.ones_like(fed), generation_config=settings, stopping_criteria=criteria,
                logits_processor=LogitsProcessorList([_checked(number, expected)]), synced_gpus=False,
            )  # fmt: skip
        ids = produced[0, len(context) :].tolist()
        yield number, list(itertools.takewhile(lambda token: token not in ending.ends, ids))


@contextlib.contextmanager
def _positions_refused(model: PreTrainedModel) -> Iterator[None]:
    """Turn a model's error about the positions that `generate` gives it into one line."""
    try:
        yield
    except ValueError as error:
        raise StudyError(
            f"{type(model).__name__} cannot generate text with transformers' generate: {first_line(error)}"
        ) from error


def _checked(number: int, first: torch.Tensor | None) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a logits processor that changes nothing but raises for scores that are not finite.

    first: the expected first scores up to rounding, since `generate` gives a model positions that some models count
    differently themselves.
    """
    begun: list[bool] = []

    def process(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        finite.check(scores, [number] * len(scores))
        if first is not None and not begun:
            begun.append(True)
            apart = (scores.float() - first).nan_to_num(posinf=0, neginf=0).abs().mean()
            if apart > 0.1 * first.nan_to_num(posinf=0, neginf=0).std():
                raise StudyError(
                    "this model and `generate` of transformers count positions differently, so generated texts would be wrong; "
                    "leave out tests with generated answers"
                )
        return scores

    return process


@contextlib.contextmanager
def _defaults(model: PreTrainedModel, settings: GenerationConfig) -> Iterator[None]:
    """Replace the checkpoint's generation settings, which `generate` would use for defaults, such as a repetition penalty."""
    checkpoint_settings, model.generation_config = model.generation_config, settings
    try:
        yield
    finally:
        model.generation_config = checkpoint_settings


def _stop_at(ending: StopCondition, width: int) -> Callable[..., torch.Tensor]:
    """Return a stopping criterion for the text after the context."""

    def reached(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.tensor([ending.reached(row[width:].tolist()) for row in ids], device=ids.device)

    return reached
