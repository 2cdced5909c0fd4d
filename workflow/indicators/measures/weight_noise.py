"""What noise on the weights costs: the loss of text with noise minus that without (Springer et al., 2025, section 4).

Models that were trained for longer lose more by the same noise, and by tuning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from workflow.indicators.measures.clm import cut, text_losses
from workflow.indicators.measuring import Loss, Material, Measurement, Progress, Subject, restored
from workflow.models.engine import losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def measure(
    subject: Subject, settings: Mapping[str, Any], material: Material, progress: Progress | None = None
) -> Measurement:
    """Variants: `clean`, `noisy`, and their difference `rise`, on the windows of `clm`."""
    documents, pieces, size = cut(subject, settings, material)
    clean = text_losses(subject, settings, documents, pieces)
    found: list[Loss] = []
    for draw in range(settings["draws"]):
        with restored(subject.model):
            disturb(subject.model, settings["size"], settings["seed"], draw)
            noisy = text_losses(subject, settings, documents, pieces)
        if progress:
            progress(draw + 1, settings["draws"])
        for one, other in zip(clean, noisy, strict=True):
            for variant, nll in (("clean", one.nll), ("noisy", other.nll), ("rise", other.nll - one.nll)):
                found.append(one._replace(variant=variant, draw=draw, nll=nll))
    return Measurement(found, losses.fingerprint(piece.ids for piece in pieces), {"window": size})


@torch.no_grad()
def disturb(model: PreTrainedModel, size: float, seed: int, draw: int) -> None:
    """Add Gaussian noise to every weight: its standard deviation is `size` times the root mean square of the tensor.

    The noise is drawn on the CPU, so that it is the same on every device; weights that are shared get it once.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + draw)
    for weight in model.parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.add_((noise * (size * weight.float().square().mean().sqrt().cpu())).to(weight))
