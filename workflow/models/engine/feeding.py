"""Training losses of rows, packed without padding; logits are computed only at scored tokens.

The loss of a row does not depend on the other rows of the forward pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from workflow.errors import StudyError
from workflow.models import adapters, process_group
from workflow.models.encoding import Masked, context_length, left_padded
from workflow.models.engine import attention, linear, narrowing, rotary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# For each row: the summed cross-entropy, in nats, of its scored tokens given all tokens before them, and their number.
Losses = Callable[[Sequence[Masked]], tuple[torch.Tensor, torch.Tensor]]

PROBES = (37, 150)  # tokens of the rows that show whether a model ignores padding
WORTH = 0.5  # largest share of positions for which a narrowed last layer saves more than entering it twice costs


@contextlib.contextmanager
def losses(model: PreTrainedModel, pad: int) -> Iterator[Losses]:
    """Yield a function for a model's losses: rows packed if the architecture allows it, else padded, else one by one.

    pad: the padding id. Errors: StudyError for a sharded model whose rows have to run one by one.
    """
    linear.adopt(model)
    inner = adapters.without_adapters(model)
    if not attention.packable(inner):
        pads = ignores_padding(inner, pad)
        # Processes of a sharded model with different numbers of rows would wait for each other forever.
        if not pads and process_group.rank_and_size()[1] > 1:
            raise StudyError(f"recipes/gpus: rows of {type(inner).__name__} cannot share a batch; allowed: 1")
        yield lambda rows: (padded if pads else apart)(inner, rows, pad)
        return
    implementation = inner.config._attn_implementation
    inner.set_attn_implementation(attention.IMPLEMENTATION)
    try:
        narrow = narrowing.narrowable(inner)
        yield lambda rows: packed(inner, rows, narrow)
    finally:
        inner.set_attn_implementation(implementation)


def packed(model: PreTrainedModel, rows: Sequence[Masked], narrow: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return losses and numbers of scored tokens of packed rows; rows have two tokens or more, the first one unscored.

    narrow: whether the last layer may be narrowed to the positions from a row's first scored token on.
    """
    fed = attention.packed([row.ids[:-1] for row in rows], model.device)
    lengths, kept = fed["packing"].lengths, [len(row.ids) - row.scored.index(True) for row in rows]
    narrow = narrow and sum(kept) <= WORTH * sum(lengths)
    if not narrow:
        kept = list(lengths)
    # Each position predicts the token after it.
    read = [scored for row, last in zip(rows, kept, strict=True) for scored in row.scored[-last:]]
    targets = [token for row in rows for token, scored in zip(row.ids, row.scored, strict=True) if scored]
    counts = [sum(row.scored) for row in rows]
    places, wanted, numbers = (
        attention.to_device(values, model.device)
        for values in ([position for position, scored in enumerate(read) if scored], targets, counts)
    )
    with narrowing.narrowed(model, kept) if narrow else contextlib.nullcontext():
        logits = model(**fed, logits_to_keep=places, use_cache=False).logits[0].float()
    each = cross_entropy(logits, wanted, reduction="none")
    return torch.stack([part.sum() for part in each.split(counts)]), numbers


def padded(
    model: PreTrainedModel, rows: Sequence[Masked], pad: int, plain: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return losses and numbers of scored tokens of rows padded on the left, for architectures that cannot be packed.

    Logits are computed only for the columns from the first scored one on. plain: whether the model is given token ids only,
    of a single row, and counts positions itself.
    """
    depth = max(len(row.ids) - row.scored.index(True) for row in rows)
    fed = left_padded([row.ids for row in rows], pad, model.device)
    if plain:
        fed = {"input_ids": fed["input_ids"]}
    # Some models return all columns, whatever `logits_to_keep` says.
    logits = model(**fed, logits_to_keep=depth + 1, use_cache=False).logits[:, -depth - 1 : -1].float()
    targets = fed["input_ids"][:, -depth:]
    scored = [[False] * (depth - len(row.scored)) + row.scored[-depth:] for row in rows]
    counted = torch.tensor(scored, device=model.device)
    each = cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    return (each * counted).sum(dim=1), counted.sum(dim=1)


def apart(model: PreTrainedModel, rows: Sequence[Masked], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same, one row at a time, for architectures that do not ignore padding."""
    sums, counts = zip(*(padded(model, [row], pad, plain=True) for row in rows), strict=True)
    return torch.cat(sums), torch.cat(counts)


@torch.no_grad()
def ignores_padding(model: PreTrainedModel, pad: int) -> bool:
    """Return whether a row's loss stays the same when it is padded to a longer row; False if rotary positions stretch.

    The rows have the lengths of PROBES: positions that count padding change little over a few tokens, and keys that are
    grouped by the dozen not at all.
    """
    if rotary.stretches(model):
        return False
    lengths = [min(length, context_length(model)) for length in PROBES]
    rows = [
        Masked([1 + position**2 % 7 for position in range(n)], [False] * (n // 2) + [True] * (n - n // 2))
        for n in lengths
    ]
    training = model.training
    model.eval()
    try:
        together, alone = padded(model, rows, pad)[0], apart(model, rows, pad)[0]
    except (TypeError, ValueError):  # the model takes no positions
        return False
    finally:
        model.train(training)
    tolerance = (
        1e-4 if model.dtype == torch.float32 and process_group.rank_and_size()[1] == 1 else 0.02
    )  # shards compute in bf16
    return torch.allclose(together, alone, atol=tolerance, rtol=tolerance, equal_nan=True)
