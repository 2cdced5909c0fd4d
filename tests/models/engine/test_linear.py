"""Linear layers by oneDNN against torch's own in double precision."""

import pytest
import torch

from workflow.models.engine import linear, products

ALWAYS = products.Rates((1.0,) * 4, (2.0,) * 4, (2.0,) * 4)


@pytest.fixture(autouse=True)
def onednn(monkeypatch):
    """oneDNN is faster, whatever the machine."""
    monkeypatch.setattr(products, "rates", lambda: ALWAYS)


def results(layer, input, slope):
    """Output and gradients of input, weight and bias."""
    input = input.clone().requires_grad_()
    found = layer(input)
    found.backward(slope)
    return [found.detach(), input.grad, *(weight.grad for weight in layer.parameters())]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(100,), (1, 99), (3, 40)])
def test_products_and_gradients_are_torch_s(shape, bias):
    generator = torch.Generator().manual_seed(3)
    layer, exact = torch.nn.Linear(96, 256, bias), torch.nn.Linear(96, 256, bias, dtype=torch.float64)
    exact.load_state_dict(layer.state_dict())
    linear.adopt(layer)
    assert type(layer) is linear.Linear
    input, slope = (torch.randn(*shape, size, generator=generator) for size in (96, 256))
    expected = results(exact, input.double(), slope.double())
    for one, other in zip(results(layer, input, slope), expected, strict=True):
        assert one.dtype == torch.float32 and one.shape == other.shape
        assert float((one - other).abs().max() / other.abs().max()) < 1e-6


def by_onednn(monkeypatch, layer, numbers):
    """The numbers of rows, among some, of which an adopted layer leaves the product to oneDNN."""
    called = []
    monkeypatch.setattr(linear.Product, "apply", lambda *given: called.append(len(given[0])))
    linear.adopt(layer)
    for rows in numbers:
        layer(torch.ones(rows, layer.in_features))
    return called


def test_only_large_products_are_onednn_s(monkeypatch):
    """The bound is on multiplications: 2,000,000 are 125 x 128 x 125."""
    assert by_onednn(monkeypatch, torch.nn.Linear(128, 125), (124, 125, 126)) == [125, 126]


@pytest.mark.parametrize("case", ["few rows", "half precision", "autocast", "frozen"])
def test_what_does_not_suit_is_left_to_torch_and_what_is_frozen_has_no_gradient(case):
    layer = torch.nn.Linear(128, 128, dtype=torch.bfloat16 if case == "half precision" else torch.float32)
    own = layer(torch.ones(2 if case == "few rows" else 130, 128, dtype=layer.weight.dtype)).detach()
    linear.adopt(layer)
    layer.requires_grad_(case != "frozen")
    input = torch.ones(own.shape, dtype=layer.weight.dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        found = layer(input)
    assert found.dtype == (torch.bfloat16 if case in ("half precision", "autocast") else torch.float32)
    torch.testing.assert_close(found.float(), own.float(), atol=2e-2 if case == "autocast" else 1e-6, rtol=0)
    found.sum().backward()
    assert input.grad is not None and (layer.weight.grad is None) == (case == "frozen")


def test_products_for_which_it_is_slower_are_torch_s(monkeypatch):
    """Faster from 64 rows on: 22 rows are nearer to 8, 23 to 64, in logarithms."""
    monkeypatch.setattr(products, "rates", lambda: products.Rates((1.0,) * 4, (0.5, 1.05, 1.1, 1.3), (2.0,) * 4))
    assert by_onednn(monkeypatch, torch.nn.Linear(512, 512), (22, 23, 512)) == [23, 512]
