"""Generation that is forced to hold a label: beam search with dynamic beam allocation.

The published study's *Constrained* predictions (arXiv 2408.06663, released code) came from the constrained beam search that
transformers had before version 5, with all spellings of all labels as one disjunctive constraint. Here as there: five
beams; each hypothesis is tried with the likeliest next tokens and with those that begin or continue a spelling; the beams
are shared out in turns among banks of hypotheses that have written equally many tokens of a spelling, the fullest bank
first (Post & Vilar 2018, section 3, after the grid of Hokamp & Liu 2017); only a hypothesis that holds a spelling may
end; the best has the highest sum of log-probabilities divided by its length, in which the EOS that ends it counts.

Choices of this module:
- Whether a label word in the prompt, such as a demonstration's answer, meets the constraint is the caller's to say. There
  it did: with demonstrations the search was an ordinary one, and its output held no label more often than not.
- A hypothesis that cannot hold a spelling any more within its length is dropped, so every output holds one.
- Progress is that of the automaton of Aho & Corasick (1975): a spelling is found wherever it begins, also within one that
  was begun and given up, and one that begins another is allowed.
- Every hypothesis that holds a spelling is weighed with its end, not only where EOS is among its likeliest tokens, and the
  search goes on to the last token. With enough beams the result is the best of all texts.
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
from workflow.models.engine.attention import bounds, sent
from workflow.models.engine.reading import Ids, Reader, fans, reading
from workflow.models.engine.sharing import Branching, Fans, Keys

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BEAMS = 5


@dataclass(frozen=True)
class Constraint:
    """How far a text is from holding one of several token sequences; states are numbers, 0 at the start.

    arcs: state -> token -> next state, 0 for a token that is not there; need: tokens still to be written at least; bank:
    tokens written of the sequence in progress. The last state, which needs nothing, is never left.
    """

    arcs: tuple[Mapping[int, int], ...]
    need: tuple[int, ...]
    bank: tuple[int, ...]

    def after(self, state: int, token: int) -> int:
        """The state that a token leads to."""
        return self.arcs[state].get(token, 0) if self.need[state] else state


def constraint(spellings: Sequence[Sequence[int]]) -> Constraint:
    """The constraint to hold one of the token sequences, none of them empty."""
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
    """What a search looks for: a constraint, within so many new tokens, by so many beams, any of `ends` as the end."""

    constraint: Constraint
    new_tokens: int
    beams: int
    ends: list[int]


class Hypothesis(NamedTuple):
    """The row of the last forward pass that it continues, the tokens written, their summed log-probability, its state."""

    row: int
    tokens: tuple[int, ...]
    total: float
    state: int


class Options(NamedTuple):
    """Log-probabilities after a row: of the tokens to try (token -> value), and of the end."""

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
    """Token ids written after each context, at most `new_tokens`, with one of the spellings among them; EOS left out.

    prompt_counts: whether a spelling in the context will do as well.

    Errors: StudyError where no spelling fits into `new_tokens`; NotFiniteError with the number of a context after which the
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
    """Search after contexts that share a prefix of some length, and put what is found in place; gives how many are done."""
    prefix = reader.prefix(next(iter(contexts.values()))[:length]) if length else None
    numbers = list(contexts)

    def run(places: list[int]) -> None:
        own = [contexts[numbers[place]] for place in places]
        starts = [_state(search.constraint, context) if prompt_counts else 0 for context in own]
        found = _searched(_Texts(reader, own, prefix, length), starts, search, [numbers[place] for place in places])
        for place, tokens in zip(places, found, strict=True):
            outputs[numbers[place]] = list(tokens)

    written = search.beams * search.new_tokens
    tokens = [len(contexts[number]) - length for number in numbers]
    costs = [reader.cost(count + written, search.beams) + count * reader.kept for count in tokens]
    return reader.in_packs(costs, run)


class _Texts:
    """Contexts of a pack, read once, and the texts that are tried behind them.

    contexts: whole, with the prefix of `length` tokens that they share.
    """

    def __init__(self, reader: Reader, contexts: Sequence[Ids], prefix: Keys | None, length: int) -> None:
        self.reader, self.contexts, self.prefix, self.length = reader, contexts, prefix, length
        self.keys = Keys()

    def first(self) -> torch.Tensor:
        """Scores over the vocabulary after each context, of shape (contexts, vocabulary)."""
        if not self.reader.shares:
            return self.reader.after(self.contexts)
        pieces = [(context[self.length :], self.length) for context in self.contexts]
        return self._read(pieces, None, self.keys)

    def next(self, tried: Sequence[Sequence[Sequence[int]]]) -> torch.Tensor:
        """Scores after the texts tried behind each context, in order, of shape (texts, vocabulary)."""
        if not self.reader.shares:
            pairs = zip(self.contexts, tried, strict=True)
            return self.reader.after([[*context, *tokens] for context, own in pairs for tokens in own])
        pieces = [(tokens, len(context)) for context, own in zip(self.contexts, tried, strict=True) for tokens in own]
        contexts = [len(context) - self.length for context in self.contexts]
        written = [sum(map(len, own)) for own in tried]
        return self._read(pieces, fans(contexts, written, self.reader.device, self.keys), None)

    def _read(self, pieces: Sequence[tuple[Ids, int]], fan: Fans | None, kept: Keys | None) -> torch.Tensor:
        lengths = tuple(len(ids) for ids, _ in pieces)
        packing = Branching(lengths, bounds(lengths, self.reader.device), fan, self.prefix, kept)
        ids = list(itertools.chain.from_iterable(piece for piece, _ in pieces))
        positions = list(itertools.chain.from_iterable(range(start, start + len(piece)) for piece, start in pieces))
        return self.reader.logits(ids, positions, packing, [end - 1 for end in itertools.accumulate(lengths)])


def _state(constraint: Constraint, tokens: Sequence[int]) -> int:
    """Whether a text holds a spelling: the last state or the first; what is begun at its end has to be begun anew."""
    state = 0
    for token in tokens:
        state = constraint.after(state, token)
    return 0 if constraint.need[state] else state


def _searched(texts: _Texts, starts: Sequence[int], search: Search, numbers: Sequence[int]) -> list[tuple[int, ...]]:
    """The best hypothesis after each context; starts: the state that each context leaves; numbers: of the contexts."""
    scores = texts.first()
    finite.check(scores, numbers)
    alive = [[Hypothesis(row, (), 0.0, state)] for row, state in enumerate(starts)]
    ended: list[list[tuple[float, tuple[int, ...]]]] = [[] for _ in starts]
    for left in reversed(range(search.new_tokens)):
        options = _options(scores.log_softmax(dim=-1), search)
        for known, own in zip(ended, alive, strict=True):
            known += _ended(own, options, search)
        alive = [_allocated(_continued(own, options, search, left), search) for own in alive]
        if left:
            scores = texts.next([[hypothesis.tokens for hypothesis in own] for own in alive])
            finite.check(scores, [number for number, own in zip(numbers, alive, strict=True) for _ in own])
            rows = itertools.count()
            alive = [[hypothesis._replace(row=next(rows)) for hypothesis in own] for own in alive]
    for known, own in zip(ended, alive, strict=True):
        known += [(hypothesis.total / search.new_tokens, hypothesis.tokens) for hypothesis in own]
    return [_best(known) for known in ended]


def _options(scores: torch.Tensor, search: Search) -> list[Options]:
    """What to try after each row, from log-probabilities of shape (rows, vocabulary): the likeliest, and all of spellings."""
    # As in transformers' beam search each EOS would end a hypothesis of its own; the likeliest is the best of them.
    last = scores[:, search.ends].amax(dim=1).tolist()
    spelled = list(search.constraint.arcs[0])
    others = scores.index_fill(1, sent(search.ends, scores.device), -math.inf)
    values, tokens = others.topk(min(search.beams, scores.shape[1] - len(search.ends)))
    rows = zip(tokens.tolist(), values.tolist(), scores[:, spelled].tolist(), last, strict=True)
    return [
        Options(dict(zip([*likeliest, *spelled], [*best, *own], strict=True)), end)
        for likeliest, best, own, end in rows
    ]


def _ended(
    own: Sequence[Hypothesis], options: Sequence[Options], search: Search
) -> list[tuple[float, tuple[int, ...]]]:
    """The hypotheses that may end here, each with its log-probability per token, EOS among them."""
    return [
        ((hypothesis.total + options[hypothesis.row].end) / (len(hypothesis.tokens) + 1), hypothesis.tokens)
        for hypothesis in own
        if not search.constraint.need[hypothesis.state]
    ]


def _continued(own: Sequence[Hypothesis], options: Sequence[Options], search: Search, left: int) -> list[Hypothesis]:
    """Each hypothesis with each of its options that can still meet the constraint in `left` more tokens."""
    longer = (
        Hypothesis(row, (*tokens, token), total + value, search.constraint.after(state, token))
        for row, tokens, total, state in own
        for token, value in options[row].tokens.items()
    )
    return [hypothesis for hypothesis in longer if search.constraint.need[hypothesis.state] <= left]


def _allocated(candidates: Sequence[Hypothesis], search: Search) -> list[Hypothesis]:
    """As many hypotheses as there are beams: the best of each bank in turn, the fullest bank first."""
    taken: Counter[int] = Counter()
    order = []
    for hypothesis in sorted(candidates, key=lambda candidate: -candidate.total):
        bank = search.constraint.bank[hypothesis.state]
        order.append((taken[bank], -bank, hypothesis))
        taken[bank] += 1
    return [hypothesis for *_, hypothesis in sorted(order, key=lambda place: place[:2])[: search.beams]]


def _best(ended: Sequence[tuple[float, tuple[int, ...]]]) -> tuple[int, ...]:
    """The tokens with the highest log-probability per token; a tie goes to the one that ended first."""
    value, tokens = max(ended, key=lambda pair: pair[0])
    if not math.isfinite(value):
        raise StudyError(
            f"constrained text: log-probability {value}, expected finite numbers; see weights and precision"
        )
    return tokens
