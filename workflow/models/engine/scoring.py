"""Log-probabilities of continuations; a context with several continuations is read once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from workflow.models.engine.attention import bounds, to_device
from workflow.models.engine.reading import Ids, Reader, fans, reading
from workflow.models.engine.sharing import BranchedPacking, Keys

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Progress = Callable[[int, int], None]
Request = tuple[Ids, Ids]


class RequestedTokens(NamedTuple):
    """A request by its number: its continuation, and the branch of its row with the continuation (None: the root)."""

    number: int
    ids: Ids
    branch: int | None


class ContextRow(NamedTuple):
    """The input for one context: a root with the context and possibly a continuation, and branches after it.

    start: tokens of the context. All tokens of a continuation but the last are part of the input.
    """

    root: list[int]
    start: int
    branches: list[list[int]]
    asked: list[RequestedTokens]

    def reads(self) -> int:
        """Return the number of positions with logits: the context's last token, and all tokens of continuations."""
        return len(self.root) - self.start + 1 + sum(map(len, self.branches))


def rows_of(requests: Sequence[Request], branching: bool) -> list[ContextRow]:
    """Return the rows for all requests; a single token, or the beginning of a longer continuation, needs no row.

    branching: whether several continuations of a context share its row; otherwise each has its own row.
    """
    contexts: dict[tuple[int, ...], list[int]] = {}
    for number, (context, _) in enumerate(requests):
        contexts.setdefault(tuple(context), []).append(number)
    rows = []
    for context, numbers in contexts.items():
        rows += _rows(list(context), {number: requests[number][1] for number in numbers}, branching)
    return rows


def _rows(context: list[int], continuations: dict[int, Ids], branching: bool) -> list[ContextRow]:
    """Return the rows of one context."""
    parts: list[list[int]] = []
    requests: list[RequestedTokens] = []
    for number, ids in sorted(continuations.items(), key=lambda pair: -len(pair[1])):
        needed = list(ids[:-1])
        branch = next((branch for branch, part in enumerate(parts) if part[: len(needed)] == needed), len(parts))
        if branch == len(parts):
            parts.append(needed)
        requests.append(RequestedTokens(number, ids, branch))
    if branching and len(parts) > 1:
        return [ContextRow(context, len(context), parts, requests)]
    return [
        ContextRow(
            context + part,
            len(context),
            [],
            [request._replace(branch=None) for request in requests if request.branch == branch],
        )
        for branch, part in enumerate(parts)
    ]


@torch.inference_mode()
def log_probabilities(
    model: PreTrainedModel, requests: Sequence[Request], batch_tokens: int, progress: Progress | None = None
) -> list[float]:
    """Return the summed log-probability, in nats, of each request's continuation given its context (ids, neither empty)."""
    sums = [0.0] * len(requests)
    done = 0
    with reading(model, batch_tokens) as reader:
        rows = rows_of(requests, reader.shares)
        for length, numbers in reader.groups([row.root[: row.start] for row in rows]):
            group = [rows[number] for number in numbers]
            for count in _scored(reader, group, length, sums):
                if progress:
                    progress(done + count, len(rows))
            done += len(group)
    return sums


def _scored(reader: Reader, rows: Sequence[ContextRow], length: int, sums: list[float]) -> Iterator[int]:
    """Read rows that share a prefix of some length, and store the sums of their requests; yield the number of rows done."""
    prefix = reader.prefix(rows[0].root[:length]) if length else None
    fed = [len(row.root) - length + sum(map(len, row.branches)) for row in rows]
    costs = [reader.cost(tokens, row.reads()) for tokens, row in zip(fed, rows, strict=True)]
    packs: list[tuple[list[int], torch.Tensor]] = []

    def read(numbers: list[int]) -> None:
        if reader.packs:
            packs.append(read_pack(reader, [rows[number] for number in numbers], prefix, length))
        else:
            _read_alone(reader, rows[numbers[0]], sums)

    yield from reader.in_packs(costs, read)
    # After the last pack: reading each pack's values at once would make the GPU wait for the next pack.
    for numbers, values in packs:
        for number, value in zip(numbers, values.tolist(), strict=True):
            sums[number] += value


def _read_alone(reader: Reader, row: ContextRow, sums: list[float]) -> None:
    """Read one row of a model whose rows cannot be packed."""
    scores = reader.alone(row.root, range(row.start - 1, len(row.root))).log_softmax(dim=-1)
    for number, ids, _ in row.asked:
        sums[number] = float(scores[range(len(ids)), list(ids)].double().sum())


def read_pack(
    reader: Reader, rows: Sequence[ContextRow], prefix: Keys | None, length: int
) -> tuple[list[int], torch.Tensor]:
    """Read rows as one sequence, roots before branches, with one product for the logits of all positions needed.

    Returns the number of its request for each token, and the log-probability of each token.
    """
    rows = sorted(rows, key=lambda row: (not row.branches, len(row.root), sum(map(len, row.branches))))
    branched = [row for row in rows if row.branches]
    pieces = [(row.root[length:], length) for row in rows]
    pieces += [(branch, row.start) for row in branched for branch in row.branches]
    lengths = tuple(len(ids) for ids, _ in pieces)
    contexts, branches = [row.start - length for row in branched], [sum(map(len, row.branches)) for row in branched]
    fan = fans(contexts, branches, reader.device) if branched else None
    packing = BranchedPacking(lengths, bounds(lengths, reader.device), fan, prefix)
    read, picks = _places(rows, length, lengths)
    ids = list(itertools.chain.from_iterable(piece for piece, _ in pieces))
    positions = list(itertools.chain.from_iterable(range(start, start + len(piece)) for piece, start in pieces))
    scores = reader.logits(ids, positions, packing, read)
    numbers, picked, tokens = zip(*picks, strict=True)
    places = to_device(picked, reader.device)
    return list(numbers), (scores[places, to_device(tokens, reader.device)] - scores.logsumexp(dim=1)[places]).double()


def _places(
    rows: Sequence[ContextRow], length: int, lengths: Sequence[int]
) -> tuple[list[int], list[tuple[int, int, int]]]:
    """Return the positions of a pack with logits, and for each requested token (request, index of its position, token)."""
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
        for number, ids, in_branch in row.asked:
            start_of_rest = first + 1 if in_branch is None else behind[in_branch]
            picks.append((number, first, ids[0]))
            picks += [(number, start_of_rest + offset, token) for offset, token in enumerate(ids[1:])]
    return read, picks
