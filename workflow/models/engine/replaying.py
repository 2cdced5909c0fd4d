"""Generation steps with one token for each active row, captured once as a CUDA graph and replayed.

For a model of a billion parameters, a GPU computes such a step in a fifth of the time that the host needs to launch its
roughly thousand kernels. What differs between steps (tokens, positions, positions of new keys, numbers of valid keys) is read
from tensors that are filled before each replay; unused slots read their first position. Before its first replay a graph is
compared with the step that it was captured from; if it cannot be captured or disagrees, steps are launched as usual.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from workflow.models import process_group
from workflow.models.engine import flash
from workflow.models.engine.attention import bounds, to_device
from workflow.models.engine.reading import out_of_memory
from workflow.models.engine.sharing import Keys, SlotPacking

if TYPE_CHECKING:
    from workflow.models.engine.reading import Reader

DEVICES = ["cuda"]  # with replay, until it fails on one of them
Cache = Callable[[int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
Step = Callable[[], tuple[torch.Tensor, torch.Tensor]]  # next token and highest score of each slot


class SlotInput(NamedTuple):
    """Input of a slot: its last token, the token's position, the index of its keys in all slots, its new number of tokens."""

    token: int
    position: int
    key_index: int
    held: int


class Replay:
    """The step of `slots` slots with room for `room` tokens each; prefix: keys that all of them see."""

    def __init__(self, reader: Reader, cache: Cache, slots: int, room: int, prefix: Keys | None) -> None:
        self.reader, self.slots, self.room = reader, slots, room
        self.numbers = torch.zeros(3, slots, dtype=torch.long, device=reader.device)
        self.held = torch.ones(slots, dtype=torch.int32, device=reader.device)
        self.all = to_device(list(range(slots)), reader.device)
        self.packing = SlotPacking(
            (1,) * slots,
            bounds([1] * slots, reader.device),
            cache,
            (room - 1,) * slots,
            self.numbers[2],
            prefix,
            self.held,
        )
        self.step: Step | None = None

    def next(self, fed: Sequence[SlotInput]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return next tokens and their scores for the first slots; None if steps cannot be replayed."""
        idle = [SlotInput(0, 0, slot * self.room, 1) for slot in range(len(fed), self.slots)]
        *numbers, held = zip(*fed, *idle, strict=True)
        self.numbers.copy_(to_device(numbers, self.reader.device))
        self.held.copy_(to_device(held, self.reader.device, torch.int32))
        if self.step is None:
            self.step = captured(self._run, len(fed))
        if self.step is None:
            DEVICES.remove(self.reader.device.type)
            return None
        tokens, scores = self.step()
        return tokens[: len(fed)], scores[: len(fed)]

    def _run(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the step. Running it twice changes nothing, since keys are written to the same positions."""
        ids, positions, _ = self.numbers
        output = self.reader.model(
            input_ids=ids[None],
            position_ids=positions[None],
            packing=self.packing,
            use_cache=False,
            logits_to_keep=self.all,
        )
        scores = output.logits[0].float()
        tokens = scores.argmax(dim=1)
        return tokens, scores.gather(1, tokens[:, None])[:, 0]


def suits(reader: Reader, keys: torch.Tensor) -> bool:
    """Return whether steps with slots of such keys, (room, heads, size), can be replayed: flash attention takes them."""
    if reader.device.type not in DEVICES or process_group.rank_and_size()[1] > 1:
        return False
    query = keys[:1, :1].expand(1, reader.model.config.get_text_config().num_attention_heads, -1)
    return flash.takes(query, keys)


def _replayed(
    graph: torch.cuda.CUDAGraph, outputs: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The outputs of a graph after one more replay."""
    graph.replay()
    return outputs


def captured(run: Step, used: int) -> Step | None:
    """Return the step as a graph that gives the same tokens for the slots in use; otherwise None, and a line in the log.

    Errors: out-of-memory errors, as for any other step.
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
            outputs = run()
        graph.replay()
        if outputs[0][:used].tolist() == expected:
            return functools.partial(_replayed, graph, outputs)
        reason = "it gives different tokens"
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
    logging.getLogger("tunecast").warning(
        "generation steps are not replayed as a CUDA graph, which is slow: %s", reason
    )
    return None
