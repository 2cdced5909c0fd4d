"""Sensitivity to weight noise: loss of text with noise minus loss without (Springer et al., 2025, section 4).

Models that were pre-trained longer lose more from the same noise, and from fine-tuning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from workflow.indicators.measures.clm import cut, text_losses
from workflow.indicators.measuring import LoadedBase, Loss, MeasuredTexts, Measurement, Progress, restored
from workflow.models.engine import losses
from workflow.settings import Indicator

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def measure(
    subject: LoadedBase, settings: Indicator, material: MeasuredTexts, progress: Progress | None = None
) -> Measurement:
    """Measure the variants `clean`, `noisy`, and their difference `rise`, on the windows of `clm`."""
    documents, pieces, size = cut(subject, settings, material)
    clean = text_losses(subject, settings, documents, pieces)
    measured: list[Loss] = []
    for draw in range(settings["draws"]):
        with restored(subject.model):
            disturb(subject.model, settings["size"], settings["seed"], draw)
            noisy = text_losses(subject, settings, documents, pieces)
        if progress:
            progress(draw + 1, settings["draws"])
        for one, other in zip(clean, noisy, strict=True):
            for variant, nll in (("clean", one.nll), ("noisy", other.nll), ("rise", other.nll - one.nll)):
                measured.append(one._replace(variant=variant, draw=draw, nll=nll))
    return Measurement(measured, losses.fingerprint(piece.ids for piece in pieces), {"window": size})


@torch.no_grad()
def disturb(model: PreTrainedModel, size: float, seed: int, draw: int) -> None:
    """Add Gaussian noise to every weight, with a standard deviation of `size` times the root mean square of its tensor.

    The noise is drawn on the CPU, so that it is the same on every device; shared weights get it once.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + draw)
    for weight in model.parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.add_((noise * (size * weight.float().square().mean().sqrt().cpu())).to(weight))
