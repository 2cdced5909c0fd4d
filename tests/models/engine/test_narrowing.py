"""A last layer at the ends of rows alone against the whole layer."""

import pytest
import torch
import transformers
from conftest import ARCHITECTURES, small_model, small_tokenizer

from workflow.models.engine import attention, narrowing

ROWS = [[5, 6, 7], [8], [11, 12, 13, 14, 15, 16, 17, 18], [21, 22, 23]]
KEPT = [1, 1, 5, 3]
SIZES = {
    "vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {"vocab_size": 90, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
OTHERS = {
    "windows": lambda: transformers.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=2),
    "learned positions": lambda: transformers.GPT2Config(**GPT2),
}


def model_of(name):
    if name in ARCHITECTURES:
        model = small_model(name, small_tokenizer(name))
    else:
        torch.manual_seed(4)
        model = transformers.AutoModelForCausalLM.from_config(OTHERS[name]()).eval()
    attention.adopt(model)
    return model


def slopes_of(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_ends_by_hand():
    assert narrowing.ends([3, 1, 4], [1, 1, 3]) == [2, 3, 5, 6, 7]


@pytest.mark.parametrize("name", [*ARCHITECTURES, "windows"])
def test_ends_have_the_outputs_and_gradients_of_the_whole(name):
    model, fed = model_of(name), attention.packed(ROWS, "cpu")
    assert narrowing.narrowable(model)
    expected = model(**fed, use_cache=False).logits[0, narrowing.ends(map(len, ROWS), KEPT)]
    with narrowing.narrowed(model, KEPT):
        found = model(**fed, use_cache=False).logits[0]
    assert found.shape == (sum(KEPT), model.config.vocab_size)
    assert float((found - expected).detach().abs().max()) < 1e-5
    weights = torch.sin(torch.arange(found.numel(), dtype=torch.float32)).reshape(found.shape)
    own, theirs = (slopes_of(model, (logits.log_softmax(dim=-1) * weights).sum()) for logits in (found, expected))
    for key, slope in theirs.items():
        assert float((own[key] - slope).abs().max()) < 1e-4 * max(1.0, float(slope.abs().max())), key
    assert model(**fed, use_cache=False).logits.shape[1] == sum(map(len, ROWS)), "narrow inside the context alone"


def test_only_the_last_layer_computes_the_ends_alone():
    """Rows that go through the feed-forward part of each layer, counted."""
    model, seen = model_of("olmo"), []
    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda layer, given: seen.append(given[0].shape[1]))
    with narrowing.narrowed(model, KEPT), torch.no_grad():
        model(**attention.packed(ROWS, "cpu"), use_cache=False)
    assert seen == [15, 10]


def test_layers_that_are_built_another_way_are_left_whole():
    """Blocks without names, a last block that does not ask for its attention, a model that restores its input's shape."""
    assert not narrowing.narrowable(model_of("learned positions"))
    model = model_of("llama")
    own, model._no_split_modules = model._no_split_modules, None
    assert not narrowing.narrowable(model)
    model._no_split_modules = {"LlamaMLP"}
    assert not narrowing.narrowable(model)
    model._no_split_modules = own
    assert narrowing.narrowable(model)
