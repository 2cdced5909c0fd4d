"""The loss of rows: packed without padding, put through the vocabulary only where a token is scored.

Whatever goes into one forward pass, the loss is that of each row alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from workflow.errors import StudyError
from workflow.models import process_group
from workflow.models.encoding import Masked, context_length, left_padded
from workflow.models.engine import attention, linear, narrowing, rotary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Of each row the summed cross-entropy, in nats, of its scored tokens given all before them, and their number.
Losses = Callable[[Sequence[Masked]], tuple[torch.Tensor, torch.Tensor]]

PROBES = (37, 150)  # tokens of the rows that show whether a model looks past padding
WORTH = 0.5  # the largest share of the places at which a narrowed last layer saves more than entering it twice costs


@contextlib.contextmanager
def losses(model: PreTrainedModel, pad: int) -> Iterator[Losses]:
    """How a model's losses are read inside: packed, if its architecture allows it, else padded by that id, else apart.

    Errors: StudyError for a model in shards whose rows have to be apart.
    """
    linear.adopt(model)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # of adapters the model they sit in
    if not attention.packable(inner):
        bears = bears_padding(inner, pad)
        # Sharded, processes with different numbers of rows would wait for each other without end.
        if not bears and process_group.place()[1] > 1:
            raise StudyError(
                f"recipes/gpus: rows of {type(inner).__name__} cannot be fed beside each other; allowed: 1"
            )
        yield lambda rows: (padded if bears else apart)(inner, rows, pad)
        return
    own = inner.config._attn_implementation
    inner.set_attn_implementation(attention.IMPLEMENTATION)
    try:
        narrow = narrowing.narrowable(inner)
        yield lambda rows: packed(inner, rows, narrow)
    finally:
        inner.set_attn_implementation(own)


def packed(model: PreTrainedModel, rows: Sequence[Masked], narrow: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and numbers of scored tokens of rows in one sequence; rows have two tokens or more, the first unscored.

    narrow: whether the last layer may be narrowed to the places from a row's first scored token on.
    """
    fed = attention.packed([row.ids[:-1] for row in rows], model.device)
    lengths, kept = fed["packing"].lengths, [len(row.ids) - row.scored.index(True) for row in rows]
    narrow = narrow and sum(kept) <= WORTH * sum(lengths)
    if not narrow:
        kept = list(lengths)
    # Each place foretells the token after it.
    read = [scored for row, last in zip(rows, kept, strict=True) for scored in row.scored[-last:]]
    targets = [token for row in rows for token, scored in zip(row.ids, row.scored, strict=True) if scored]
    counts = [sum(row.scored) for row in rows]
    places, wanted, numbers = (
        attention.sent(own, model.device)
        for own in ([place for place, scored in enumerate(read) if scored], targets, counts)
    )
    with narrowing.narrowed(model, kept) if narrow else contextlib.nullcontext():
        logits = model(**fed, logits_to_keep=places, use_cache=False).logits[0].float()
    each = cross_entropy(logits, wanted, reduction="none")
    return torch.stack([part.sum() for part in each.split(counts)]), numbers


def padded(
    model: PreTrainedModel, rows: Sequence[Masked], pad: int, plain: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and numbers of scored tokens of rows padded on the left, for architectures that cannot be packed.

    Only the columns from the first scored one on are put through the vocabulary. plain: whether the model is given tokens
    alone, of a single row, and counts positions by itself.
    """
    depth = max(len(row.ids) - row.scored.index(True) for row in rows)
    fed = left_padded([row.ids for row in rows], pad, model.device)
    if plain:
        fed = {"input_ids": fed["input_ids"]}
    # Some give all columns, whatever they are asked for.
    logits = model(**fed, logits_to_keep=depth + 1, use_cache=False).logits[:, -depth - 1 : -1].float()
    targets = fed["input_ids"][:, -depth:]
    scored = [[False] * (depth - len(row.scored)) + row.scored[-depth:] for row in rows]
    counted = torch.tensor(scored, device=model.device)
    each = cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    return (each * counted).sum(dim=1), counted.sum(dim=1)


def apart(model: PreTrainedModel, rows: Sequence[Masked], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of one row after the other, for architectures that do not look past padding."""
    sums, counts = zip(*(padded(model, [row], pad, plain=True) for row in rows), strict=True)
    return torch.cat(sums), torch.cat(counts)


@torch.no_grad()
def bears_padding(model: PreTrainedModel, pad: int) -> bool:
    """Whether a row's loss stays what it is beside a longer one, as two rows show; not where positions stretch.

    They have as many tokens as PROBES says, since positions that count padding change little for a few places, and keys that
    are put together by the dozen nothing.
    """
    if rotary.stretches(model):
        return False
    lengths = [min(length, context_length(model)) for length in PROBES]
    rows = [
        Masked([1 + place**2 % 7 for place in range(n)], [False] * (n // 2) + [True] * (n - n // 2)) for n in lengths
    ]
    training = model.training
    model.eval()
    try:
        together, alone = padded(model, rows, pad)[0], apart(model, rows, pad)[0]
    except (TypeError, ValueError):  # takes no such positions
        return False
    finally:
        model.train(training)
    near = 1e-4 if model.dtype == torch.float32 and process_group.place()[1] == 1 else 0.02  # shards compute in bf16
    return torch.allclose(together, alone, atol=near, rtol=near, equal_nan=True)
