"""A model that reads token ids: rows in packs within a memory budget, what rows share read once.

`reading(model, batch_tokens)` readies a model and leaves it afterwards as it was. On a CPU of a maker for which MKL takes its
slow path the products go through oneDNN, with weights laid out for it once. A model whose rows cannot be packed
(`attention.packable`) is fed a row at a time, whole, with nothing shared: slower, and right for any causal model.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workflow.errors import StudyError
from workflow.jobs import devices
from workflow.models import process_group
from workflow.models.encoding import context_length
from workflow.models.engine import attention
from workflow.models.engine.attention import IMPLEMENTATION, Packing, bounds, packed, sent
from workflow.models.engine.linear import Linear, product
from workflow.models.engine.sharing import Branching, Fans, Keys, shareable

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

Ids = Sequence[int]

SHARE = {"cpu": 0.5, "cuda": 0.8}  # of the memory that is free once the model is loaded
PACK = {"cpu": 1024, "cuda": 65536}  # tokens beyond which a pack is no faster
# Packs whose keys and values are kept for rows that are being written. A step of a few rows takes a GPU as long as one of
# a hundred; on a CPU it does not.
AHEAD = {"cpu": 1, "cuda": devices.PACKS}
LAID_OUT_FOR = 256  # rows of a product; the layout is as good for more and for fewer
LEAST = 1024  # tokens that a prefix must save, since its rows are packed apart from the others
_open: weakref.WeakKeyDictionary[PreTrainedModel, Reader] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def reading(model: PreTrainedModel, batch_tokens: int) -> Iterator[Reader]:
    """The model's Reader; inside another `reading` of the same model nothing is readied anew."""
    known = _open.get(model)
    if known is not None:
        same = known.batch_tokens == batch_tokens
        yield known if same else Reader(model, batch_tokens, known.layers, known.own)
        return
    own = model.config._attn_implementation
    layers = attention.asked(model) if _keeps(model) else None
    with contextlib.ExitStack() as stack:
        if layers is not None:
            stack.callback(model.set_attn_implementation, own)
            model.set_attn_implementation(IMPLEMENTATION)
        stack.enter_context(_fast_products(model))
        _open[model] = Reader(model, batch_tokens, layers, own)
        stack.callback(_open.pop, model)
        yield _open[model]


class Reader:
    """A readied model, and how much it may be fed at once.

    batch_tokens: most tokens of a pack; layers: what its layers ask of attention, None where rows cannot be packed; own:
    the attention that the model came with.
    limit: bytes that a pack may take beside the model; halved whenever the device's memory runs out.
    """

    def __init__(self, model: PreTrainedModel, batch_tokens: int, layers: list[attention.How] | None, own: str) -> None:
        self.model, self.layers, self.own, self.device = model, layers, own, model.device
        self.packs = layers is not None
        self.shares = self.packs and shareable(layers, context_length(model))
        self.token, self.read = token_bytes(model), read_bytes(model)
        self.kept = kept_bytes(model) if self.shares else 0
        wide = min(batch_tokens, PACK.get(self.device.type, batch_tokens))
        self.batch_tokens = batch_tokens
        self.pack_limit = wide * self.token
        free = SHARE.get(self.device.type, 0.5) * max(0.0, _free(self.device) - put_together_bytes(model))
        ahead = AHEAD.get(self.device.type, 1)
        self.limit = min(batch_tokens * (self.token + ahead * self.kept), free)

    def cost(self, tokens: int, reads: int) -> int:
        """Bytes that a pack of so many tokens takes, of which so many are followed by a prediction."""
        return tokens * self.token + reads * self.read

    def in_packs(self, costs: Sequence[int], run: Callable[[list[int]], None]) -> Iterator[int]:
        """Run items (by their numbers) in packs within the limit, costly ones first; one that exceeds it runs alone.

        Gives how many have run. Errors: StudyError where the memory does not even do for one.
        """
        waiting = sorted(range(len(costs)), key=lambda number: -costs[number])
        while waiting:
            pack = self._next(waiting, costs)
            if self.survives(lambda pack=pack: run(pack), len(pack)):
                waiting = waiting[len(pack) :]
                yield len(costs) - len(waiting)

    def _next(self, waiting: Sequence[int], costs: Sequence[int]) -> list[int]:
        """The first of the waiting that fit together."""
        sums = itertools.accumulate(costs[number] for number in waiting)
        limit = min(self.limit, self.pack_limit)
        fitting = sum(1 for _ in itertools.takewhile(lambda total: total <= limit, sums)) if self.packs else 1
        return list(waiting[: max(1, fitting)])

    def survives(self, run: Callable[[], object], items: int) -> bool:
        """Run something; where memory runs out, halve the limit and return False.

        Errors: StudyError when a single item was run, which cannot be divided. Of several processes, which wait for this one
        half-way through the model, none goes on: the error of memory is left as it is.
        """
        try:
            run()
        except RuntimeError as error:
            if not out_of_memory(error) or process_group.place()[1] > 1:
                raise
            if items == 1:
                raise StudyError(
                    "memory ran out with a single row in it; use a machine with more, or precision: bf16"
                ) from error
        else:
            return True
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.limit = min(self.limit, self.pack_limit) / 2
        return False

    def logits(self, ids: Ids, positions: Ids, packing: Packing, read: Ids) -> torch.Tensor:
        """Scores over the vocabulary, fp32 of shape (read, vocabulary), after the tokens at places `read` of a pack."""
        fed = {"input_ids": sent([list(ids)], self.device), "position_ids": sent([list(positions)], self.device)}
        places = sent(list(read), self.device)
        found = self.model(**fed, packing=packing, use_cache=False, logits_to_keep=places)
        return found.logits[0].float()

    def alone(self, ids: Ids, read: Ids) -> torch.Tensor:
        """The same for one row that is fed by itself, with the model's own attention."""
        fed = torch.tensor([list(ids)], device=self.device)
        places = torch.tensor(list(read), dtype=torch.long, device=self.device)
        if _keeps(self.model):
            return self.model(input_ids=fed, use_cache=False, logits_to_keep=places).logits[0].float()
        return self.model(input_ids=fed, use_cache=False).logits[0, places].float()

    @contextlib.contextmanager
    def as_it_was(self) -> Iterator[None]:
        """The model with its own attention, for as long as this lasts."""
        readied = self.model.config._attn_implementation
        self.model.set_attn_implementation(self.own)
        try:
            yield
        finally:
            self.model.set_attn_implementation(readied)

    @contextlib.contextmanager
    def in_step(self) -> Iterator[None]:
        """Inside, processes that hold a model in shards may pass through it unequally often, each with rows of its own.

        Each passage takes all of them, since it puts the shards together. So before each they say whether any has rows yet;
        who has none left passes through with a single token, until nobody has.
        """
        if process_group.place()[1] == 1:
            yield
            return

        def with_rows(*_: Any) -> None:
            process_group.anywhere(True, self.device)

        # Before the sharding's own hook, which may put weights together.
        hook = self.model.register_forward_pre_hook(with_rows, prepend=True)
        try:
            yield
        finally:
            hook.remove()
        with torch.inference_mode():
            while process_group.anywhere(False, self.device):
                self.after([[0]])

    def prefix(self, ids: Ids) -> Keys:
        """Keys and values of a text, for rows that go on from it."""
        keys = Keys()
        fed = packed([ids], self.device)
        kept = Branching(fed["packing"].lengths, fed["packing"].bounds, kept=keys)
        self.survives(lambda: self.model(**fed | {"packing": kept}, use_cache=False, logits_to_keep=1), 1)
        return keys

    def after(self, texts: Sequence[Ids]) -> torch.Tensor:
        """Scores over the vocabulary after each text, fp32 of shape (texts, vocabulary), nothing shared."""
        if not self.packs:
            return torch.cat([self.alone(text, [len(text) - 1]) for text in texts])
        fed = packed(texts, self.device)
        ends = fed["packing"].bounds[1:].long() - 1
        return self.model(**fed, use_cache=False, logits_to_keep=ends).logits[0].float()

    def groups(self, contexts: Sequence[Ids]) -> list[tuple[int, list[int]]]:
        """Contexts in groups (length of the shared prefix, numbers), so that much is saved by reading prefixes once."""
        return shared(contexts) if self.shares else [(0, list(range(len(contexts))))]


def _keeps(model: PreTrainedModel) -> bool:
    """Whether a model can be told at which places its scores over the vocabulary are wanted."""
    return "logits_to_keep" in inspect.signature(type(model).forward).parameters


def fans(contexts: Sequence[int], branches: Sequence[int], device: torch.device, seen: Keys | None = None) -> Fans:
    """Fans of contexts and branches of these lengths."""
    ends = bounds(contexts, device), bounds(branches, device)
    return Fans(tuple(contexts), tuple(branches), *ends, seen)


def shared(contexts: Sequence[Ids]) -> list[tuple[int, list[int]]]:
    """Contexts grouped by what they begin with, each group with the length that it shares, 0 for none.

    A group's prefix saves its length for every row but one. Rows are split off where that saves more, by LEAST at least.
    A prefix is shorter than any of its contexts, so that each has a token of its own to read on from.
    """
    order = sorted(range(len(contexts)), key=lambda number: contexts[number])
    rows = [contexts[number] for number in order]
    groups = _best(rows, 0, len(rows)) if rows else []
    taken = {place for _, places in groups for place in places}
    rest = [order[place] for place in range(len(rows)) if place not in taken]
    found = [(length, [order[place] for place in places]) for length, places in groups]
    return [*found, (0, rest)] if rest else found


def _best(rows: Sequence[Ids], start: int, stop: int) -> list[tuple[int, list[int]]]:
    """The groups that save most among sorted rows; rows in none of them share nothing."""
    length = _common(rows, start, stop)
    left, groups = [], []
    for first, last in _parted(rows, start, stop, length):
        own = _best(rows, first, last) if _saved(rows, first, last) > 0 else []
        gain = sum(size * (len(places) - 1) - LEAST for size, places in own) - length * (last - first)
        if gain > 0:
            groups += own
            own_places = {place for _, places in own for place in places}
            left += [place for place in range(first, last) if place not in own_places]
        else:
            left += range(first, last)
    return [*groups, (length, left)] if length * (len(left) - 1) > LEAST else groups


def _common(rows: Sequence[Ids], start: int, stop: int) -> int:
    """Length that sorted rows share, a token less than the shortest at most."""
    first, last = rows[start], rows[stop - 1]
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return min(same, min(len(row) for row in rows[start:stop]) - 1)


def _parted(rows: Sequence[Ids], start: int, stop: int, length: int) -> Iterator[tuple[int, int]]:
    """Sorted rows parted by their token behind the shared length."""
    for _, group in itertools.groupby(range(start, stop), key=lambda place: rows[place][length]):
        places = list(group)
        if len(places) < stop - start:
            yield places[0], places[-1] + 1


def _saved(rows: Sequence[Ids], start: int, stop: int) -> int:
    """Tokens that some rows could save at most, beyond what a group costs."""
    return (stop - start - 1) * max(map(len, rows[start:stop])) - LEAST


def token_bytes(model: PreTrainedModel) -> int:
    """Bytes that a token takes while one layer is at work: the most of hidden states, projections and feed-forward."""
    config = model.config.get_text_config()
    width = config.hidden_size
    given = [getattr(layer, "intermediate_size", None) or 4 * width for layer in config.per_layer_config]
    # Either a config for each layer, or one with a list.
    inner = max(max(size) if isinstance(size, (list, tuple)) else size for size in given)
    return (10 * width + 4 * inner) * model.dtype.itemsize


def read_bytes(model: PreTrainedModel) -> int:
    """Bytes that a prediction takes: scores over the vocabulary as computed, in fp32, and their exponentials."""
    return model.config.get_text_config().vocab_size * (model.dtype.itemsize + 8)


def kept_bytes(model: PreTrainedModel) -> int:
    """Bytes of a token's keys and values in all layers."""
    layers = model.config.get_text_config().per_layer_config
    return sum(2 * _heads(layer) * _head_size(layer) for layer in layers) * model.dtype.itemsize


def put_together_bytes(model: PreTrainedModel) -> int:
    """Bytes of blocks that are whole at a time of a model in shards: one at work, the next, and what it arrives in."""
    if process_group.place()[1] == 1:
        return 0
    from torch.distributed.fsdp import FSDPModule

    blocks = [module for module in model.modules() if isinstance(module, FSDPModule) and module is not model]
    sizes = [sum(weight.numel() for weight in block.parameters()) for block in blocks]
    return 3 * max(sizes, default=0) * model.dtype.itemsize


def _heads(layer: PreTrainedConfig) -> int:
    """Heads of a layer's keys."""
    return getattr(layer, "num_key_value_heads", None) or layer.num_attention_heads


def _head_size(layer: PreTrainedConfig) -> int:
    """Numbers in a head of a layer's keys."""
    return getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads


def _free(device: torch.device) -> float:
    """Bytes of memory that are free on a device, what torch holds in reserve included."""
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    known = Path("/proc/meminfo")
    if not known.is_file():
        return math.inf
    facts = dict(line.split(":", 1) for line in known.read_text(encoding="ascii").splitlines())
    return int(facts["MemAvailable"].split()[0]) * 1024


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU or, where memory is limited, a CPU had none left; the CPU's allocator has no error class of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


# Products


@contextlib.contextmanager
def _fast_products(model: PreTrainedModel) -> Iterator[None]:
    """Let linear layers compute by oneDNN where that is faster, as long as this lasts; results agree but for rounding."""
    layers = [layer for layer in model.modules() if type(layer) in (torch.nn.Linear, Linear)] if pays(model) else []
    double = sum(layer.weight.nbytes for layer in layers)
    lay_out = double < 0.25 * _free(model.device)
    with contextlib.ExitStack() as stack:
        for layer in layers:
            weight = layer.weight.detach()
            weight = torch.ops.mkldnn._reorder_linear_weight(weight, LAID_OUT_FOR) if lay_out else weight
            layer.forward = functools.partial(product, b=weight, bias=layer.bias)
            stack.callback(delattr, layer, "forward")
        yield


def pays(model: PreTrainedModel) -> bool:
    """Whether oneDNN is the faster way: in fp32 on a CPU that MKL was not made for, with weights that stay where they are."""
    plain = model.device.type == "cpu" and model.dtype == torch.float32 and process_group.place()[1] == 1
    return plain and torch.backends.mkldnn.is_available() and _maker() != "GenuineIntel"


@functools.cache
def _maker() -> str:
    """The CPU's maker as Linux states it, empty where it does not."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "")
