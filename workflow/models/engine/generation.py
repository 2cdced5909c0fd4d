"""Greedy text: a row that ends leaves its slot at once to one that waits; what rows share is read once.

Each step feeds the last token of every row that is being written, and whole the contexts of those that enter, as one
sequence; keys and values stay in slots that are laid out beforehand. Texts are those that `generate` writes row by row.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from workflow.errors import StudyError, first_line
from workflow.models.encoding import ends
from workflow.models.engine import finite, replaying
from workflow.models.engine.attention import bounds, sent
from workflow.models.engine.reading import Ids, Reader, reading
from workflow.models.engine.sharing import Keys, Writing

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int, int], None]

SLOTS = {"cpu": 32, "cuda": 256}  # beyond which more rows at once are no faster
# The share of slots that are free before rows enter: a step in which none does can be replayed.
FREE = {"cuda": 1 / 8}


class Ending:
    """When a text is done: at one of the ids that `ends` it, at a stop string, at its longest."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int], stops: Sequence[str], new_tokens: int
    ) -> None:
        self.tokenizer, self.ends, self.stops, self.new_tokens = tokenizer, ends, stops, new_tokens
        self._completes: dict[int, bool] = {}

    def reached(self, ids: Ids) -> bool:
        """Whether a text is done with its last token, which is no EOS."""
        if len(ids) >= self.new_tokens or not self.stops:
            return len(ids) >= self.new_tokens
        return self._may_complete(ids[-1]) and self._holds_stop(ids)

    def _may_complete(self, token: int) -> bool:
        """Whether a token has the last character of a stop string, or part of some character: else nothing is decoded."""
        if token not in self._completes:
            text = self.tokenizer.decode([token, token])  # twice, since a leading space is not always shown
            self._completes[token] = any(stop[-1] in text for stop in self.stops) or "\ufffd" in text
        return self._completes[token]

    def _holds_stop(self, ids: Ids) -> bool:
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return any(stop in text for stop in self.stops)


@dataclass
class Text:
    """A row that is being written: its number, the tokens its slot holds, what it has written."""

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
) -> list[list[int]]:
    """Greedily generated token ids after each context: up to EOS, a stop string or `new_tokens`; EOS left out.

    EOS is any id that ends a text of the model (`encoding.ends`).
    Errors: StudyError where none does, or where the memory does not even do for one row; NotFiniteError with the number of a
    context after which the model's scores are not finite.
    """
    outputs: list[list[int]] = [[] for _ in contexts]
    ending = Ending(tokenizer, ends(model, tokenizer), stops, new_tokens)
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


def _written(reader: Reader, contexts: Sequence[Ids], ending: Ending) -> Iterator[tuple[int, list[int]]]:
    """Texts by the numbers of their contexts, as they are done."""
    for length, numbers in reader.groups(contexts):
        prefix = reader.prefix(contexts[numbers[0]][:length]) if length else None
        own = {number: list(contexts[number][length:]) for number in numbers}
        yield from Desk(reader, own, prefix, length, ending).written()


class Desk:
    """Rows that share a prefix, some being written in slots, others waiting.

    own: number -> tokens behind the prefix; length: tokens of the prefix.
    """

    def __init__(
        self, reader: Reader, own: dict[int, list[int]], prefix: Keys | None, length: int, ending: Ending
    ) -> None:
        self.reader, self.own, self.prefix, self.length, self.ending = reader, own, prefix, length, ending
        self.waiting = self._in_order(own)
        self.texts: list[Text] = []
        self.cache: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.slots = self.room = 0
        self.replay: replaying.Replay | None = None

    def written(self) -> Iterator[tuple[int, list[int]]]:
        """Every row's text, as it is done."""
        while self.waiting or self.texts:
            entering = self._entering()
            tokens: list[int] = []
            rows = len(self.texts) + len(entering)
            if self.reader.survives(lambda new=entering, out=tokens: out.extend(self._step(new)), rows):
                self.texts += [Text(number, len(self.own[number])) for number in entering]
                yield from self._ended(tokens)
            else:  # all that is not done begins anew, in fewer slots
                begun = [text.number for text in self.texts]
                self.waiting = self._in_order([*begun, *entering, *self.waiting])
                self.texts, self.cache, self.slots, self.replay = [], [], 0, None

    def _in_order(self, numbers: Iterable[int]) -> deque[int]:
        """Rows with the longest first, so that the first says how much room a slot must have."""
        return deque(sorted(numbers, key=lambda number: -len(self.own[number])))

    def _entering(self) -> list[int]:
        """The waiting rows that enter now: as many as slots are free, and as fit into a pack."""
        if not self.slots:
            self._measure()
        free, wanted = self.slots - len(self.texts), self.slots * FREE.get(self.reader.device.type, 0)
        if self.texts and free < min(wanted, len(self.waiting)):
            return []
        found: list[int] = []
        cost = self.reader.cost(len(self.texts), len(self.texts))
        while self.waiting and len(self.texts) + len(found) < self.slots:
            cost += self.reader.cost(len(self.own[self.waiting[0]]), 1)
            if cost > min(self.reader.limit, self.reader.pack_limit) and (found or self.texts):
                break
            found.append(self.waiting.popleft())
        return found

    def _measure(self) -> None:
        """How many slots there are, and the tokens that each has room for."""
        reader = self.reader
        self.room = len(self.own[self.waiting[0]]) + self.ending.new_tokens
        left = reader.limit - min(reader.pack_limit, reader.limit / 2)
        most = min(SLOTS.get(reader.device.type, 32), len(self.waiting))
        self.slots = max(1, min(most, int(left // (self.room * reader.kept))))

    def _step(self, entering: Sequence[int]) -> list[int]:
        """Feed every row's last token and the entering rows whole; the next token of each, in this order."""
        numbers = [*(text.number for text in self.texts), *entering]
        tokens, scores = (None if entering else self._replayed()) or self._launched(entering)
        finite.check(scores, numbers)
        return tokens.tolist()

    def _replayed(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """A step in which no row enters, where it can be replayed: next tokens, and their scores."""
        if not replaying.suits(self.reader, self.cache[0][0][0]):
            return None
        if self.replay is None:
            self.replay = replaying.Replay(self.reader, self._slots_of, self.slots, self.room, self.prefix)
        return self.replay.next([
            replaying.Fed(text.ids[-1], self.length + text.held, slot * self.room + text.held, text.held + 1)
            for slot, text in enumerate(self.texts)
        ])  # fmt: skip

    def _launched(self, entering: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Any step."""
        device, used = self.reader.device, len(self.texts)
        filled = tuple(text.held for text in self.texts)
        lengths = (1,) * used + tuple(len(self.own[number]) for number in entering)
        places = [slot * self.room + held for slot, held in enumerate(filled)]
        starts = (slot * self.room for slot in itertools.count(used))
        places += itertools.chain.from_iterable(
            range(start, start + length) for start, length in zip(starts, lengths[used:], strict=False)
        )
        ids = [text.ids[-1] for text in self.texts]
        ids += itertools.chain.from_iterable(self.own[number] for number in entering)
        positions = [self.length + held for held in filled]
        positions += itertools.chain.from_iterable(range(self.length, self.length + count) for count in lengths[used:])
        packing = Writing(lengths, bounds(lengths, device), self._slots_of, filled, sent(places, device), self.prefix)
        ends = [end - 1 for end in itertools.accumulate(lengths)]
        scores = self.reader.logits(ids, positions, packing, ends)
        tokens = scores.argmax(dim=1)
        return tokens, scores.gather(1, tokens[:, None])[:, 0]

    def _slots_of(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The slots of a layer, laid out when it is first met."""
        while len(self.cache) <= layer:
            self.cache.append(tuple(
                tensor.new_zeros(self.slots, self.room, *tensor.shape[1:]) for tensor in (key, value)
            ))  # fmt: skip
        return self.cache[layer]

    def _ended(self, tokens: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Take in every row's next token; those that are done leave, and the last ones move to their slots."""
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
        """Give a slot to the last row."""
        last = self.texts.pop()
        if slot == len(self.texts):
            return
        self.texts[slot] = last
        for tensors in self.cache:
            for tensor in tensors:
                tensor[slot, : last.held] = tensor[len(self.texts), : last.held]


# Models whose rows cannot share keys


def _generated(reader: Reader, contexts: Sequence[Ids], ending: Ending) -> Iterator[tuple[int, list[int]]]:
    """Texts by transformers' `generate`, row by row, with the model's own attention."""
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
            produced = reader.model.generate(
                fed, attention_mask=torch.ones_like(fed), generation_config=settings, stopping_criteria=criteria,
                logits_processor=LogitsProcessorList([_checked(number, expected)]), synced_gpus=False,
            )  # fmt: skip
        ids = produced[0, len(context) :].tolist()
        yield number, list(itertools.takewhile(lambda token: token not in ending.ends, ids))


@contextlib.contextmanager
def _positions_refused(model: PreTrainedModel) -> Iterator[None]:
    """Inside, what a model says of positions that `generate` hands it becomes one line."""
    try:
        yield
    except ValueError as error:
        raise StudyError(
            f"{type(model).__name__} cannot write texts by transformers' generate: {first_line(error)}"
        ) from error


def _checked(number: int, first: torch.Tensor | None) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A processor of scores that leaves them as they are, and refuses those that are not finite.

    first: what the first scores have to be but for rounding, since `generate` hands a model positions, which some count
    otherwise by themselves.
    """
    begun: list[bool] = []

    def process(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        finite.check(scores, [number] * len(scores))
        if first is not None and not begun:
            begun.append(True)
            apart = (scores.float() - first).nan_to_num(posinf=0, neginf=0).abs().mean()
            if apart > 0.1 * first.nan_to_num(posinf=0, neginf=0).std():
                raise StudyError(
                    "transformers' generate hands this model other positions than it counts by itself, so that texts would be "
                    "another model's; leave out tests that are written"
                )
        return scores

    return process


@contextlib.contextmanager
def _defaults(model: PreTrainedModel, settings: GenerationConfig) -> Iterator[None]:
    """Keep the checkpoint's own generation settings out: `generate` fills gaps with them, such as a repetition penalty."""
    own, model.generation_config = model.generation_config, settings
    try:
        yield
    finally:
        model.generation_config = own


def _stop_at(ending: Ending, width: int) -> Callable[..., torch.Tensor]:
    """A criterion that is true once what follows the context is done."""

    def reached(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.tensor([ending.reached(own[width:].tolist()) for own in ids], device=ids.device)

    return reached
