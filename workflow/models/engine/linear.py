"""Linear layers whose fp32 products on a CPU use oneDNN where that is faster (`products`), forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from workflow.models.engine import products
from workflow.models.engine.products import product

WORTH = 2_000_000  # multiplications; for fewer, the overhead of a oneDNN call is larger than the gain


class Linear(torch.nn.Linear):
    """A linear layer like torch's, computed by oneDNN where that is faster."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the product of input (..., in) and weight, plus bias: (..., out)."""
        if _suits(input, self.weight):
            return Product.apply(input, self.weight, self.bias)
        return super().forward(input)


def adopt(model: torch.nn.Module) -> None:
    """Let all linear layers of a model compute this way; weights and their names stay the same."""
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = Linear


def _suits(input: torch.Tensor, weight: torch.Tensor) -> bool:
    """Return whether a product is one of fp32 numbers on a CPU, and large enough for oneDNN to be faster."""
    return (
        input.device.type == "cpu"
        and input.dtype == weight.dtype == torch.float32
        and input.numel() * weight.shape[0] >= WORTH
        and not torch.is_autocast_enabled("cpu")
        and products.rates().suits(input.numel() // input.shape[-1])
    )


class Product(torch.autograd.Function):
    """The product of a linear layer and its gradients."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Input (..., in), weight (out, in), bias (out) or None: (..., out)."""
        ctx.save_for_backward(input, weight)
        return product(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of input, weight and bias from that of the product; None for frozen ones."""
        input, weight = ctx.saved_tensors
        rows, slopes = input.flatten(0, -2), slope.flatten(0, -2)
        wanted = ctx.needs_input_grad
        return (
            product(slope, weight.t()) if wanted[0] else None,
            product(slopes.t(), rows.t()) if wanted[1] else None,
            slopes.sum(dim=0) if wanted[2] else None,
        )
