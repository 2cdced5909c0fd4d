"""Generation that must contain a label: constrained beam search with dynamic beam allocation.

The published study's *Constrained* predictions (arXiv 2408.06663, released code) came from the constrained beam search that
transformers had before version 5, with all spellings of all labels as one disjunctive constraint. As in that search, there
are five beams. Each hypothesis is extended by its likeliest next tokens and by those that begin or continue a spelling. The
beams are allocated in turns to banks of hypotheses with equally many tokens of a spelling, the fullest bank first (Post &
Vilar 2018, section 3, after the grid of Hokamp & Liu 2017). Only a hypothesis that contains a spelling may end. The best has
the highest sum of log-probabilities divided by its length, its final EOS included.

Choices of this module:
- The caller decides whether a label word in the prompt, such as the answer of a few-shot example, meets the constraint. In
  that search it did: with few-shot examples it was an ordinary beam search, and most outputs contained no label.
- A hypothesis that can no longer complete a spelling within its length is dropped, so every output contains one.
- Progress is that of the automaton of Aho & Corasick (1975): a spelling is found wherever it begins, also within an
  abandoned one, and a spelling may be the beginning of another.
- Every hypothesis that contains a spelling is also scored as ended, not only if EOS is among its likeliest tokens, and the
  search continues to the last token. With enough beams the result is the best of all texts.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from workflow.errors import StudyError
from workflow.models.encoding import ends
from workflow.models.engine import finite
from workflow.models.engine.attention import bounds, to_device
from workflow.models.engine.reading import Ids, Reader, fans, reading
from workflow.models.engine.sharing import BranchedPacking, Fans, Keys

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BEAMS = 5


@dataclass(frozen=True)
class Constraint:
    """An automaton for texts that must contain one of several token sequences; states are numbers, 0 at the start.

    arcs: state -> token -> next state, 0 for a missing token; need: fewest tokens still to be generated; bank: tokens
    generated of the sequence in progress. The last state, which needs nothing, is never left.
    """

    arcs: tuple[Mapping[int, int], ...]
    need: tuple[int, ...]
    bank: tuple[int, ...]

    def after(self, state: int, token: int) -> int:
        """Return the state after a token."""
        return self.arcs[state].get(token, 0) if self.need[state] else state


def constraint(spellings: Sequence[Sequence[int]]) -> Constraint:
    """Return the constraint to contain one of the token sequences, none of them empty."""
    whole = {tuple(spelling) for spelling in spellings}
    tokens = sorted({token for spelling in whole for token in spelling})
    parts = sorted({word[:length] for word in whole for length in range(len(word))}, key=lambda part: (len(part), part))
    number = {part: state for state, part in enumerate(parts)}

    def target(text: tuple[int, ...]) -> int:
        if any(text[-len(spelling) :] == spelling for spelling in whole):
            return len(parts)
        return next(number[text[start:]] for start in range(len(text) + 1) if text[start:] in number)

    def need(part: tuple[int, ...]) -> int:
        begun = [(spelling, length) for spelling in whole for length in range(len(spelling))]
        return min(len(word) - length for word, length in begun if part[len(part) - length :] == word[:length])

    return Constraint(
        arcs=(*({token: target((*part, token)) for token in tokens} for part in parts), {}),
        need=(*map(need, parts), 0),
        bank=(*map(len, parts), max(map(len, whole))),
    )


@dataclass(frozen=True)
class Search:
    """Settings of a search: constraint, most new tokens, number of beams, ids that end a text."""

    constraint: Constraint
    new_tokens: int
    beams: int
    ends: list[int]


class Hypothesis(NamedTuple):
    """The row of the last forward pass that it continues, its tokens, their summed log-probability, its state."""

    row: int
    tokens: tuple[int, ...]
    total: float
    state: int


class Options(NamedTuple):
    """Log-probabilities after a row: of the next tokens to consider (token -> value), and of the end."""

    tokens: Mapping[int, float]
    end: float


@torch.inference_mode()
def constrained(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    contexts: Sequence[Sequence[int]],
    spellings: Sequence[Sequence[int]],
    new_tokens: int,
    batch_tokens: int,
    progress: Callable[[int, int], None] | None = None,
    beams: int = BEAMS,
    prompt_counts: bool = False,
) -> list[list[int]]:
    """Return token ids after each context, at most `new_tokens`, that contain one of the spellings; without EOS.

    prompt_counts: whether a spelling in the context meets the constraint too.

    Errors: StudyError if no spelling fits into `new_tokens`; NotFiniteError with the number of a context after which the
    model's scores are not finite.
    """
    search = Search(constraint(spellings), new_tokens, beams, ends(model, tokenizer))
    if search.constraint.need[0] > new_tokens:
        raise StudyError(
            f"constrained labels: the shortest has {search.constraint.need[0]} tokens, allowed: {new_tokens} or fewer"
        )
    outputs: list[list[int]] = [[] for _ in contexts]
    done = 0
    with reading(model, batch_tokens) as reader:
        for length, numbers in reader.groups(contexts):
            rows = {number: contexts[number] for number in numbers}
            for count in _found(reader, rows, length, search, prompt_counts, outputs):
                if progress:
                    progress(done + count, len(contexts))
            done += len(numbers)
    return outputs


def _found(
    reader: Reader,
    contexts: Mapping[int, Ids],
    length: int,
    search: Search,
    prompt_counts: bool,
    outputs: list[list[int]],
) -> Iterator[int]:
    """Search after contexts that share a prefix of some length, and store the outputs; yield the number of contexts done."""
    prefix = reader.prefix(next(iter(contexts.values()))[:length]) if length else None
    numbers = list(contexts)

    def run(items: list[int]) -> None:
        pack = [contexts[numbers[item]] for item in items]
        starts = [_state(search.constraint, context) if prompt_counts else 0 for context in pack]
        texts = _searched(
            _PackedContexts(reader, pack, prefix, length), starts, search, [numbers[item] for item in items]
        )
        for item, tokens in zip(items, texts, strict=True):
            outputs[numbers[item]] = list(tokens)

    written = search.beams * search.new_tokens
    tokens = [len(contexts[number]) - length for number in numbers]
    costs = [reader.cost(count + written, search.beams) + count * reader.kept for count in tokens]
    return reader.in_packs(costs, run)


class _PackedContexts:
    """Contexts of a pack, read once, and the hypotheses that continue them.

    contexts: with the prefix of `length` tokens that they share.
    """

    def __init__(self, reader: Reader, contexts: Sequence[Ids], prefix: Keys | None, length: int) -> None:
        self.reader, self.contexts, self.prefix, self.length = reader, contexts, prefix, length
        self.keys = Keys()

    def first(self) -> torch.Tensor:
        """Return scores over the vocabulary after each context: shape (contexts, vocabulary)."""
        if not self.reader.shares:
            return self.reader.after(self.contexts)
        pieces = [(context[self.length :], self.length) for context in self.contexts]
        return self._read(pieces, None, self.keys)

    def next(self, tried: Sequence[Sequence[Sequence[int]]]) -> torch.Tensor:
        """Return scores after each hypothesis of each context, in order: shape (hypotheses, vocabulary)."""
        if not self.reader.shares:
            pairs = zip(self.contexts, tried, strict=True)
            return self.reader.after([[*context, *tokens] for context, texts in pairs for tokens in texts])
        pieces = [
            (tokens, len(context)) for context, texts in zip(self.contexts, tried, strict=True) for tokens in texts
        ]
        contexts = [len(context) - self.length for context in self.contexts]
        written = [sum(map(len, texts)) for texts in tried]
        return self._read(pieces, fans(contexts, written, self.reader.device, self.keys), None)

    def _read(self, pieces: Sequence[tuple[Ids, int]], fan: Fans | None, kept: Keys | None) -> torch.Tensor:
        lengths = tuple(len(ids) for ids, _ in pieces)
        packing = BranchedPacking(lengths, bounds(lengths, self.reader.device), fan, self.prefix, kept)
        ids = list(itertools.chain.from_iterable(piece for piece, _ in pieces))
        positions = list(itertools.chain.from_iterable(range(start, start + len(piece)) for piece, start in pieces))
        return self.reader.logits(ids, positions, packing, [end - 1 for end in itertools.accumulate(lengths)])


def _state(constraint: Constraint, tokens: Sequence[int]) -> int:
    """Return the last state if a text contains a spelling, else the first; an unfinished spelling at its end is ignored."""
    state = 0
    for token in tokens:
        state = constraint.after(state, token)
    return 0 if constraint.need[state] else state


def _searched(
    texts: _PackedContexts, starts: Sequence[int], search: Search, numbers: Sequence[int]
) -> list[tuple[int, ...]]:
    """Return the best hypothesis after each context. starts: the state after each context; numbers: of the contexts."""
    scores = texts.first()
    finite.check(scores, numbers)
    alive = [[Hypothesis(row, (), 0.0, state)] for row, state in enumerate(starts)]
    ended: list[list[tuple[float, tuple[int, ...]]]] = [[] for _ in starts]
    for left in reversed(range(search.new_tokens)):
        options = _options(scores.log_softmax(dim=-1), search)
        for complete, hypotheses in zip(ended, alive, strict=True):
            complete += _ended(hypotheses, options, search)
        alive = [_allocated(_continued(hypotheses, options, search, left), search) for hypotheses in alive]
        if left:
            scores = texts.next([[hypothesis.tokens for hypothesis in hypotheses] for hypotheses in alive])
            finite.check(
                scores, [number for number, hypotheses in zip(numbers, alive, strict=True) for _ in hypotheses]
            )
            rows = itertools.count()
            alive = [[hypothesis._replace(row=next(rows)) for hypothesis in hypotheses] for hypotheses in alive]
    for complete, hypotheses in zip(ended, alive, strict=True):
        complete += [(hypothesis.total / search.new_tokens, hypothesis.tokens) for hypothesis in hypotheses]
    return [_best(complete) for complete in ended]


def _options(scores: torch.Tensor, search: Search) -> list[Options]:
    """Return the options after each row: likeliest tokens and all tokens of spellings. scores: (rows, vocabulary)."""
    # In transformers' beam search each EOS ends a separate hypothesis; the likeliest EOS is the best of them.
    last = scores[:, search.ends].amax(dim=1).tolist()
    spelled = list(search.constraint.arcs[0])
    others = scores.index_fill(1, to_device(search.ends, scores.device), -math.inf)
    values, tokens = others.topk(min(search.beams, scores.shape[1] - len(search.ends)))
    rows = zip(tokens.tolist(), values.tolist(), scores[:, spelled].tolist(), last, strict=True)
    return [
        Options(dict(zip([*likeliest, *spelled], [*best, *values_of_spelled], strict=True)), end)
        for likeliest, best, values_of_spelled, end in rows
    ]


def _ended(
    hypotheses: Sequence[Hypothesis], options: Sequence[Options], search: Search
) -> list[tuple[float, tuple[int, ...]]]:
    """Return the hypotheses that may end here, each with its log-probability per token, EOS included."""
    return [
        ((hypothesis.total + options[hypothesis.row].end) / (len(hypothesis.tokens) + 1), hypothesis.tokens)
        for hypothesis in hypotheses
        if not search.constraint.need[hypothesis.state]
    ]


def _continued(
    hypotheses: Sequence[Hypothesis], options: Sequence[Options], search: Search, left: int
) -> list[Hypothesis]:
    """Return each hypothesis with each option from which the constraint can still be met in `left` more tokens."""
    longer = (
        Hypothesis(row, (*tokens, token), total + value, search.constraint.after(state, token))
        for row, tokens, total, state in hypotheses
        for token, value in options[row].tokens.items()
    )
    return [hypothesis for hypothesis in longer if search.constraint.need[hypothesis.state] <= left]


def _allocated(candidates: Sequence[Hypothesis], search: Search) -> list[Hypothesis]:
    """Return as many hypotheses as there are beams: the best of each bank in turn, the fullest bank first."""
    taken: Counter[int] = Counter()
    order = []
    for hypothesis in sorted(candidates, key=lambda candidate: -candidate.total):
        bank = search.constraint.bank[hypothesis.state]
        order.append((taken[bank], -bank, hypothesis))
        taken[bank] += 1
    return [hypothesis for *_, hypothesis in sorted(order, key=lambda entry: entry[:2])[: search.beams]]


def _best(ended: Sequence[tuple[float, tuple[int, ...]]]) -> tuple[int, ...]:
    """Return the tokens with the highest log-probability per token; in a tie, those of the hypothesis that ended first."""
    value, tokens = max(ended, key=lambda pair: pair[0])
    if not math.isfinite(value):
        raise StudyError(
            f"constrained text: log-probability {value}, expected finite numbers; see weights and precision"
        )
    return tokens
