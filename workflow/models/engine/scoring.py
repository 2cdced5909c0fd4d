"""Log-probabilities of continuations: a context is read once, however many continuations follow it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from workflow.models.engine.attention import bounds, sent
from workflow.models.engine.reading import Ids, Reader, fans, reading
from workflow.models.engine.sharing import Branching, Keys

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Progress = Callable[[int, int], None]
Request = tuple[Ids, Ids]


class Asked(NamedTuple):
    """A request by its number: its continuation, and the branch of its row that holds it (None: the root does)."""

    number: int
    ids: Ids
    branch: int | None


class Row(NamedTuple):
    """What is fed for one context: a root, which holds the context and maybe a continuation, and branches behind it.

    start: tokens of the context. Of a continuation all tokens but the last are fed.
    """

    root: list[int]
    start: int
    branches: list[list[int]]
    asked: list[Asked]

    def reads(self) -> int:
        """Places that are read: the context's last token, and all tokens of continuations."""
        return len(self.root) - self.start + 1 + sum(map(len, self.branches))


def rows_of(requests: Sequence[Request], branching: bool) -> list[Row]:
    """The rows that answer all requests; one token costs no row of its own, nor does what begins a longer continuation.

    branching: whether several continuations of a context share its row; else each has its own.
    """
    contexts: dict[tuple[int, ...], list[int]] = {}
    for number, (context, _) in enumerate(requests):
        contexts.setdefault(tuple(context), []).append(number)
    found = []
    for context, numbers in contexts.items():
        found += _rows(list(context), {number: requests[number][1] for number in numbers}, branching)
    return found


def _rows(context: list[int], continuations: dict[int, Ids], branching: bool) -> list[Row]:
    """The rows of one context."""
    parts: list[list[int]] = []
    asked: list[Asked] = []
    for number, ids in sorted(continuations.items(), key=lambda pair: -len(pair[1])):
        needed = list(ids[:-1])
        place = next((place for place, part in enumerate(parts) if part[: len(needed)] == needed), len(parts))
        if place == len(parts):
            parts.append(needed)
        asked.append(Asked(number, ids, place))
    if branching and len(parts) > 1:
        return [Row(context, len(context), parts, asked)]
    return [
        Row(context + part, len(context), [], [own._replace(branch=None) for own in asked if own.branch == place])
        for place, part in enumerate(parts)
    ]


@torch.inference_mode()
def log_probabilities(
    model: PreTrainedModel, requests: Sequence[Request], batch_tokens: int, progress: Progress | None = None
) -> list[float]:
    """Summed log-probability, in nats, of each request's continuation given its context (token ids, neither empty)."""
    sums = [0.0] * len(requests)
    done = 0
    with reading(model, batch_tokens) as reader:
        rows = rows_of(requests, reader.shares)
        for length, numbers in reader.groups([row.root[: row.start] for row in rows]):
            own = [rows[number] for number in numbers]
            for count in _scored(reader, own, length, sums):
                if progress:
                    progress(done + count, len(rows))
            done += len(own)
    return sums


def _scored(reader: Reader, rows: Sequence[Row], length: int, sums: list[float]) -> Iterator[int]:
    """Read rows that share a prefix of some length, and put their requests' sums in place; gives how many are done."""
    prefix = reader.prefix(rows[0].root[:length]) if length else None
    fed = [len(row.root) - length + sum(map(len, row.branches)) for row in rows]
    costs = [reader.cost(tokens, row.reads()) for tokens, row in zip(fed, rows, strict=True)]
    found: list[tuple[list[int], torch.Tensor]] = []

    def read(numbers: list[int]) -> None:
        if reader.packs:
            found.append(_read_pack(reader, [rows[number] for number in numbers], prefix, length))
        else:
            _read_alone(reader, rows[numbers[0]], sums)

    yield from reader.in_packs(costs, read)
    # Behind the last pack: to take a pack's values at once would have a GPU wait while the next pack is laid out.
    for numbers, values in found:
        for number, value in zip(numbers, values.tolist(), strict=True):
            sums[number] += value


def _read_alone(reader: Reader, row: Row, sums: list[float]) -> None:
    """A row of a model that cannot be fed packs."""
    scores = reader.alone(row.root, range(row.start - 1, len(row.root))).log_softmax(dim=-1)
    for number, ids, _ in row.asked:
        sums[number] = float(scores[range(len(ids)), list(ids)].double().sum())


def _read_pack(reader: Reader, rows: Sequence[Row], prefix: Keys | None, length: int) -> tuple[list[int], torch.Tensor]:
    """Rows as one sequence, roots before branches; all places that are read go through the vocabulary together.

    Gives the number of a request for each of its tokens, and their log-probabilities.
    """
    rows = sorted(rows, key=lambda row: (not row.branches, len(row.root), sum(map(len, row.branches))))
    branched = [row for row in rows if row.branches]
    pieces = [(row.root[length:], length) for row in rows]
    pieces += [(branch, row.start) for row in branched for branch in row.branches]
    lengths = tuple(len(ids) for ids, _ in pieces)
    contexts, branches = [row.start - length for row in branched], [sum(map(len, row.branches)) for row in branched]
    fan = fans(contexts, branches, reader.device) if branched else None
    packing = Branching(lengths, bounds(lengths, reader.device), fan, prefix)
    read, picks = _places(rows, length, lengths)
    ids = list(itertools.chain.from_iterable(piece for piece, _ in pieces))
    positions = list(itertools.chain.from_iterable(range(start, start + len(piece)) for piece, start in pieces))
    scores = reader.logits(ids, positions, packing, read)
    numbers, places, tokens = zip(*picks, strict=True)
    places = sent(places, reader.device)
    return list(numbers), (scores[places, sent(tokens, reader.device)] - scores.logsumexp(dim=1)[places]).double()


def _places(rows: Sequence[Row], length: int, lengths: Sequence[int]) -> tuple[list[int], list[tuple[int, int, int]]]:
    """The places of a pack that are read, and for each token asked for (request, number of its place, token)."""
    starts = [0, *itertools.accumulate(lengths)]
    branches = itertools.count(len(rows))
    read: list[int] = []
    picks = []
    for row, start in zip(rows, starts, strict=False):
        first = len(read)
        read += range(start + row.start - 1 - length, start + len(row.root) - length)
        behind = []
        for branch in row.branches:
            behind.append(len(read))
            begin = starts[next(branches)]
            read += range(begin, begin + len(branch))
        for number, ids, branch in row.asked:
            at = first + 1 if branch is None else behind[branch]
            picks.append((number, first, ids[0]))
            picks += [(number, at + place, token) for place, token in enumerate(ids[1:])]
    return read, picks
