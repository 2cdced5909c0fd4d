"""Steps in which rows that are written take one token each, captured once as a CUDA graph and replayed.

A GPU computes such a step of a model of a billion parameters in a fifth of the time in which the host launches its some
thousand kernels. What differs between steps (tokens, positions, where keys go, how many count) is read from tensors that
are filled before each replay; slots that are not in use read their own first place. Before its first replay a graph is
compared with the step that it was captured from; where it cannot be captured or disagrees, steps are launched as others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from workflow.models import process_group
from workflow.models.engine import flash
from workflow.models.engine.attention import bounds, sent
from workflow.models.engine.reading import out_of_memory
from workflow.models.engine.sharing import Keys, Writing

if TYPE_CHECKING:
    from workflow.models.engine.reading import Reader

DEVICES = ["cuda"]  # on which steps are replayed, until one of them does not bear it
Cache = Callable[[int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
Step = Callable[[], tuple[torch.Tensor, torch.Tensor]]  # next token and highest score of each slot


class Fed(NamedTuple):
    """What a slot is fed: its last token, the token's position, the place of its keys among all slots', tokens it then holds."""

    token: int
    position: int
    place: int
    held: int


class Replay:
    """The step of so many slots, each with room for so many tokens; length: tokens of the prefix that all see."""

    def __init__(self, reader: Reader, cache: Cache, slots: int, room: int, prefix: Keys | None) -> None:
        self.reader, self.slots, self.room = reader, slots, room
        self.numbers = torch.zeros(3, slots, dtype=torch.long, device=reader.device)
        self.held = torch.ones(slots, dtype=torch.int32, device=reader.device)
        self.all = sent(list(range(slots)), reader.device)
        self.packing = Writing(
            (1,) * slots,
            bounds([1] * slots, reader.device),
            cache,
            (room - 1,) * slots,
            self.numbers[2],
            prefix,
            self.held,
        )
        self.step: Step | None = None

    def next(self, fed: Sequence[Fed]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Next tokens and their scores of the first slots; None where steps cannot be replayed here."""
        idle = [Fed(0, 0, slot * self.room, 1) for slot in range(len(fed), self.slots)]
        tokens, positions, places, held = zip(*fed, *idle, strict=True)
        self.numbers.copy_(sent([tokens, positions, places], self.reader.device))
        self.held.copy_(sent(held, self.reader.device, torch.int32))
        if self.step is None:
            self.step = captured(self._run, len(fed))
        if self.step is None:
            DEVICES.remove(self.reader.device.type)
            return None
        tokens, scores = self.step()
        return tokens[: len(fed)], scores[: len(fed)]

    def _run(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The step itself. To take it twice changes nothing: keys go where they went."""
        ids, positions, _ = self.numbers
        found = self.reader.model(
            input_ids=ids[None],
            position_ids=positions[None],
            packing=self.packing,
            use_cache=False,
            logits_to_keep=self.all,
        )
        scores = found.logits[0].float()
        tokens = scores.argmax(dim=1)
        return tokens, scores.gather(1, tokens[:, None])[:, 0]


def suits(reader: Reader, keys: torch.Tensor) -> bool:
    """Whether steps with slots of such keys, (room, heads, size), can be replayed: all that differs is in tensors."""
    if reader.device.type not in DEVICES or process_group.place()[1] > 1:
        return False
    query = keys[:1, :1].expand(1, reader.model.config.get_text_config().num_attention_heads, -1)
    return flash.takes(query, keys)


def captured(run: Step, used: int) -> Step | None:
    """The step as a graph that gives for the slots in use what the step gives; None, and a line in the log, otherwise.

    Errors: those of memory, as of any other step.
    """
    try:
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            run()
        torch.cuda.current_stream().wait_stream(beside)
        expected = run()[0][:used].tolist()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = run()
        graph.replay()
        if found[0][:used].tolist() == expected:
            return lambda: (graph.replay(), found)[1]
        reason = "it gives other tokens"
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
    logging.getLogger("tunecast").warning(
        "steps of writing are not replayed as a CUDA graph, which is slow: %s", reason
    )
    return None
