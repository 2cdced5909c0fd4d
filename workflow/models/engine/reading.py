"""Run a model on token ids: rows in packs within a memory budget, shared prefixes read once.

`reading(model, batch_tokens)` prepares a model and restores it afterwards. On a CPU products use the faster library
(`products`), oneDNN with weights laid out for it once. A model whose rows cannot be packed (`attention.packable`) runs on one
full row at a time with nothing shared: slower, but correct for any causal model.
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
from workflow.models.engine import attention, products
from workflow.models.engine.attention import IMPLEMENTATION, Packing, bounds, packed, to_device
from workflow.models.engine.linear import Linear
from workflow.models.engine.sharing import BranchedPacking, Fans, Keys, shareable

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

Ids = Sequence[int]

SHARE = {"cpu": 0.5, "cuda": 0.8}  # share of the memory that is free once the model is loaded
PACK = {"cpu": 1024, "cuda": 65536}  # most tokens of a pack; larger packs are no faster
# Packs whose keys and values are kept for active rows in generation. On a GPU a step of a few rows takes as long as one of a
# hundred; on a CPU it does not.
AHEAD = {"cpu": 1, "cuda": devices.PACKS}
LEAST = 1024  # fewest tokens that a prefix must save, since its rows are packed separately
_open: weakref.WeakKeyDictionary[PreTrainedModel, Reader] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def reading(model: PreTrainedModel, batch_tokens: int) -> Iterator[Reader]:
    """Yield the model's Reader; inside another `reading` of the same model, nothing is prepared again."""
    known = _open.get(model)
    if known is not None:
        same = known.batch_tokens == batch_tokens
        yield known if same else Reader(model, batch_tokens, known.layers, known.original)
        return
    implementation = model.config._attn_implementation
    layers = attention.attention_settings(model) if _keeps(model) else None
    with contextlib.ExitStack() as stack:
        if layers is not None:
            stack.callback(model.set_attn_implementation, implementation)
            model.set_attn_implementation(IMPLEMENTATION)
        stack.enter_context(_fast_products(model))
        _open[model] = Reader(model, batch_tokens, layers, implementation)
        stack.callback(_open.pop, model)
        yield _open[model]


class Reader:
    """A prepared model with its memory budget.

    batch_tokens: most tokens of a pack; layers: attention settings of its layers, None if rows cannot be packed; original: the
    name of the model's original attention.
    limit: most bytes of a pack, the model not included; halved whenever the device runs out of memory.
    """

    def __init__(
        self, model: PreTrainedModel, batch_tokens: int, layers: list[attention.AttentionSettings] | None, original: str
    ) -> None:
        self.model, self.layers, self.original, self.device = model, layers, original, model.device
        self.packs = layers is not None
        self.shares = layers is not None and shareable(layers, context_length(model))
        self.token, self.read = token_bytes(model), read_bytes(model)
        self.kept = kept_bytes(model) if self.shares else 0
        wide = min(batch_tokens, PACK.get(self.device.type, batch_tokens))
        self.batch_tokens = batch_tokens
        self.pack_limit = wide * self.token
        free = SHARE.get(self.device.type, 0.5) * max(0.0, _free(self.device) - put_together_bytes(model))
        ahead = AHEAD.get(self.device.type, 1)
        self.limit = min(batch_tokens * (self.token + ahead * self.kept), free)

    def cost(self, tokens: int, reads: int) -> int:
        """Return the bytes of a pack of `tokens` tokens with predictions after `reads` of them."""
        return tokens * self.token + reads * self.read

    def in_packs(self, costs: Sequence[int], run: Callable[[list[int]], None]) -> Iterator[int]:
        """Run items (by their numbers) in packs within the limit, costly ones first; an item above the limit runs alone.

        Yields the number of items done. Errors: StudyError if memory is too small for one item.
        """
        waiting = sorted(range(len(costs)), key=lambda number: -costs[number])
        while waiting:
            pack = self._next(waiting, costs)
            if self.fits_in_memory(functools.partial(run, pack), len(pack)):
                waiting = waiting[len(pack) :]
                yield len(costs) - len(waiting)

    def _next(self, waiting: Sequence[int], costs: Sequence[int]) -> list[int]:
        """Return the first waiting items that fit together."""
        sums = itertools.accumulate(costs[number] for number in waiting)
        limit = min(self.limit, self.pack_limit)
        fitting = sum(1 for _ in itertools.takewhile(lambda total: total <= limit, sums)) if self.packs else 1
        return list(waiting[: max(1, fitting)])

    def fits_in_memory(self, run: Callable[[], object], items: int) -> bool:
        """Run a function and return True; if memory runs out, halve the limit and return False.

        Errors: StudyError if the function ran on a single item, which cannot be divided. With several processes, which would
        wait for this one in the middle of the model, the memory error is raised unchanged.
        """
        try:
            run()
        except RuntimeError as error:
            if not out_of_memory(error) or process_group.rank_and_size()[1] > 1:
                raise
            if items == 1:
                raise StudyError(
                    "memory ran out on a single row; use a machine with more memory, or precision: bf16"
                ) from error
        else:
            return True
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.limit = min(self.limit, self.pack_limit) / 2
        return False

    def logits(self, ids: Ids, positions: Ids, packing: Packing, read: Ids) -> torch.Tensor:
        """Return scores over the vocabulary, fp32 of shape (read, vocabulary), after the tokens at positions `read` of a pack."""
        fed = {
            "input_ids": to_device([list(ids)], self.device),
            "position_ids": to_device([list(positions)], self.device),
        }
        places = to_device(list(read), self.device)
        output = self.model(**fed, packing=packing, use_cache=False, logits_to_keep=places)
        return output.logits[0].float()

    def alone(self, ids: Ids, read: Ids) -> torch.Tensor:
        """Return the same for a single row, with the model's original attention if that is set."""
        fed = torch.tensor([list(ids)], device=self.device)
        places = torch.tensor(list(read), dtype=torch.long, device=self.device)
        if _keeps(self.model):
            return self.model(input_ids=fed, use_cache=False, logits_to_keep=places).logits[0].float()
        return self.model(input_ids=fed, use_cache=False).logits[0, places].float()

    @contextlib.contextmanager
    def as_it_was(self) -> Iterator[None]:
        """Inside, the model has its original attention."""
        readied = self.model.config._attn_implementation
        self.model.set_attn_implementation(self.original)
        try:
            yield
        finally:
            self.model.set_attn_implementation(readied)

    @contextlib.contextmanager
    def in_step(self) -> Iterator[None]:
        """Inside, processes of a sharded model may make different numbers of forward passes, each on its own rows.

        All processes must take part in each pass, since it gathers the shards. So before each pass they share whether any has
        rows left; a process without rows joins with a single token until none has rows.
        """
        if process_group.rank_and_size()[1] == 1:
            yield
            return

        def with_rows(*_: Any) -> None:
            process_group.any_process(True, self.device)

        # Before the hook of the sharding, which may gather weights.
        hook = self.model.register_forward_pre_hook(with_rows, prepend=True)
        try:
            yield
        finally:
            hook.remove()
        with torch.inference_mode():
            while process_group.any_process(False, self.device):
                self.after([[0]])

    def prefix(self, ids: Ids) -> Keys:
        """Return keys and values of a text, for rows that continue it."""
        keys = Keys()
        fed = packed([ids], self.device)
        kept = BranchedPacking(fed["packing"].lengths, fed["packing"].bounds, kept=keys)
        self.fits_in_memory(lambda: self.model(**fed | {"packing": kept}, use_cache=False, logits_to_keep=1), 1)
        return keys

    def after(self, texts: Sequence[Ids]) -> torch.Tensor:
        """Return scores over the vocabulary after each text, fp32 of shape (texts, vocabulary), nothing shared."""
        if not self.packs:
            return torch.cat([self.alone(text, [len(text) - 1]) for text in texts])
        fed = packed(texts, self.device)
        ends = fed["packing"].bounds[1:].long() - 1
        return self.model(**fed, use_cache=False, logits_to_keep=ends).logits[0].float()

    def groups(self, contexts: Sequence[Ids]) -> list[tuple[int, list[int]]]:
        """Return contexts in groups (length of the shared prefix, numbers) that save much by reading prefixes once."""
        return shared(contexts) if self.shares else [(0, list(range(len(contexts))))]


def _keeps(model: PreTrainedModel) -> bool:
    """Return whether a model accepts the positions at which to compute logits."""
    return "logits_to_keep" in inspect.signature(type(model).forward).parameters


def fans(contexts: Sequence[int], branches: Sequence[int], device: torch.device, seen: Keys | None = None) -> Fans:
    """Return Fans of contexts and branches of these lengths."""
    ends = bounds(contexts, device), bounds(branches, device)
    return Fans(tuple(contexts), tuple(branches), *ends, seen)


def shared(contexts: Sequence[Ids]) -> list[tuple[int, list[int]]]:
    """Return contexts grouped by common prefixes, each group with the length of its prefix, 0 for none.

    A prefix saves its length for every row of the group but one. Subgroups are split off if that saves more, by LEAST at
    least. A prefix is shorter than any of its contexts, so that each context has a token left.
    """
    order = sorted(range(len(contexts)), key=lambda number: list(contexts[number]))
    rows = [contexts[number] for number in order]
    groups = _best(rows, 0, len(rows)) if rows else []
    taken = {index for _, places in groups for index in places}
    rest = [order[index] for index in range(len(rows)) if index not in taken]
    groups_with_prefix = [(length, [order[index] for index in places]) for length, places in groups]
    return [*groups_with_prefix, (0, rest)] if rest else groups_with_prefix


def _best(rows: Sequence[Ids], start: int, stop: int) -> list[tuple[int, list[int]]]:
    """Return the groups that save most among sorted rows; rows in no group share nothing."""
    length = _common(rows, start, stop)
    left, groups = [], []
    for first, last in _parted(rows, start, stop, length):
        subgroups = _best(rows, first, last) if _saved(rows, first, last) > 0 else []
        gain = sum(size * (len(places) - 1) - LEAST for size, places in subgroups) - length * (last - first)
        if gain > 0:
            groups += subgroups
            grouped = {index for _, places in subgroups for index in places}
            left += [index for index in range(first, last) if index not in grouped]
        else:
            left += range(first, last)
    return [*groups, (length, left)] if length * (len(left) - 1) > LEAST else groups


def _common(rows: Sequence[Ids], start: int, stop: int) -> int:
    """Return the length of the common prefix of sorted rows, at most one token less than the shortest."""
    first, last = rows[start], rows[stop - 1]
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return min(same, min(len(row) for row in rows[start:stop]) - 1)


def _parted(rows: Sequence[Ids], start: int, stop: int, length: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of sorted rows with the same token after the common prefix."""
    for _, group in itertools.groupby(range(start, stop), key=lambda index: rows[index][length]):
        indices = list(group)
        if len(indices) < stop - start:
            yield indices[0], indices[-1] + 1


def _saved(rows: Sequence[Ids], start: int, stop: int) -> int:
    """Return the most tokens that some rows could save, less the cost of a group."""
    return (stop - start - 1) * max(map(len, rows[start:stop])) - LEAST


def token_bytes(model: PreTrainedModel) -> int:
    """Return the bytes that a token takes while a layer runs: hidden states, projections and feed-forward at their largest."""
    config = model.config.get_text_config()
    width = config.hidden_size
    sizes = [getattr(layer, "intermediate_size", None) or 4 * width for layer in config.per_layer_config]
    # Either a config for each layer, or one with a list.
    inner = max(max(size) if isinstance(size, (list, tuple)) else size for size in sizes)
    return (10 * width + 4 * inner) * model.dtype.itemsize


def read_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of a prediction: scores over the vocabulary as computed, in fp32, and their exponentials."""
    return model.config.get_text_config().vocab_size * (model.dtype.itemsize + 8)


def kept_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of a token's keys and values in all layers."""
    layers = model.config.get_text_config().per_layer_config
    return sum(2 * _heads(layer) * _head_size(layer) for layer in layers) * model.dtype.itemsize


def put_together_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of the blocks of a sharded model that are gathered at a time: current, next, and its buffer."""
    if process_group.rank_and_size()[1] == 1:
        return 0
    from torch.distributed.fsdp import FSDPModule

    blocks = [module for module in model.modules() if isinstance(module, FSDPModule) and module is not model]
    sizes = [sum(weight.numel() for weight in block.parameters()) for block in blocks]
    return 3 * max(sizes, default=0) * model.dtype.itemsize


def _heads(layer: PreTrainedConfig) -> int:
    """Return the number of heads of a layer's keys."""
    return getattr(layer, "num_key_value_heads", None) or layer.num_attention_heads


def _head_size(layer: PreTrainedConfig) -> int:
    """Return the size of a head of a layer's keys."""
    return getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads


def _free(device: torch.device) -> float:
    """Return the free memory of a device in bytes, torch's reserve included."""
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return math.inf
    facts = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
    return int(facts["MemAvailable"].split()[0]) * 1024


def out_of_memory(error: RuntimeError) -> bool:
    """Return whether a GPU or CPU ran out of memory; the CPU's allocator has no error class."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


# Products


@contextlib.contextmanager
def _fast_products(model: PreTrainedModel) -> Iterator[None]:
    """Inside, linear layers use oneDNN where that is faster; results agree up to rounding."""
    fitting = (layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)) if pays(model) else ()
    layers = [layer for layer in fitting if type(layer) in (torch.nn.Linear, Linear)]
    double = sum(layer.weight.nbytes for layer in layers)
    room = double < 0.25 * _free(model.device)
    with contextlib.ExitStack() as stack:
        for layer in layers:
            layer.forward = _product_of(layer, room)  # type: ignore[method-assign]  # taken back when the context ends
            stack.callback(delattr, layer, "forward")
        yield


def _product_of(layer: torch.nn.Linear, room: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """A layer's product by the faster library for each number of rows. room: whether the weights may be copied."""
    weight, bias, rates = layer.weight.detach(), layer.bias, products.rates()
    laid_out = products.lay_out(weight) if room else weight
    suits = rates.suits_laid_out if room else rates.suits

    def forward(input: torch.Tensor) -> torch.Tensor:
        if suits(input.numel() // input.shape[-1]):
            return products.product(input, laid_out, bias)
        return torch.nn.functional.linear(input, weight, bias)

    return forward


def pays(model: PreTrainedModel) -> bool:
    """Return whether oneDNN is faster for some products: in fp32 on a CPU, with unsharded weights."""
    plain = model.device.type == "cpu" and model.dtype == torch.float32 and process_group.rank_and_size()[1] == 1
    return plain and products.rates().worth_laying_out
