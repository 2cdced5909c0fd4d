"""Packed rows against the same rows fed alone by transformers' plain attention: logits and gradients, many architectures."""

import pytest
import torch
import transformers
from conftest import ARCHITECTURES, small_model, small_tokenizer

from workflow.errors import StudyError
from workflow.models.engine import attention

SIZES = {
    "vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {"vocab_size": 90, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2, "head_dim": 8}
LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4}
# What else models do to attention: windows, soft caps, sinks, positions that are learned, norms of queries and keys.
OTHERS = {
    "windows": lambda: transformers.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=4),
    "soft caps": lambda: transformers.Gemma2Config(
        **SIZES, **LAYERS, num_key_value_heads=2, head_dim=8, attn_logit_softcapping=2.0, query_pre_attn_scalar=16
    ),
    "sinks": lambda: transformers.GptOssConfig(**SIZES, **LAYERS, **EXPERTS),
    "norms": lambda: transformers.Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8),
    "learned positions": lambda: transformers.GPT2Config(**GPT2),
}
# Attention inside the model's own code, a bias of distance, a state that is no attention.
REFUSED = {
    "bloom": lambda: transformers.BloomConfig(vocab_size=90, hidden_size=32, n_layer=2, n_head=4),
    "falcon": lambda: transformers.FalconConfig(
        vocab_size=90, hidden_size=32, num_hidden_layers=2, num_attention_heads=4
    ),
    "mamba": lambda: transformers.MambaConfig(vocab_size=90, hidden_size=32, num_hidden_layers=2, state_size=4),
}
ROWS = [[5, 6, 7], [8, 9, 10], [5], [11, 12, 13, 14, 15, 16, 17, 18, 19, 20], [21, 22], [23, 24]]


def random_model(config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


@pytest.fixture(params=[*ARCHITECTURES, *OTHERS])
def model(request):
    if request.param in OTHERS:
        return random_model(OTHERS[request.param]())
    return small_model(request.param, small_tokenizer(request.param))


def alone(model, rows):
    return torch.cat([model(input_ids=torch.tensor([row]), use_cache=False).logits[0] for row in rows])


def gradients(model, logits):
    weights = torch.sin(torch.arange(logits.numel(), dtype=torch.float32)).reshape(logits.shape)
    model.zero_grad()
    (logits.log_softmax(dim=-1) * weights).sum().backward()
    return {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}


def test_packed_rows_are_rows_alone(model):
    """Logits of every place, whatever stands beside a row; gradients too."""
    expected = alone(model, ROWS)
    slopes = gradients(model, expected)
    attention.adopt(model)
    found = model(**attention.packed(ROWS, "cpu"), use_cache=False).logits[0]
    assert (found - expected).abs().max() < 1e-5
    for name, slope in gradients(model, found).items():
        assert (slope - slopes[name]).abs().max() < 1e-4 * max(1.0, float(slopes[name].abs().max())), name
    again = model(**attention.packed(ROWS[3:] + ROWS[:3], "cpu"), use_cache=False).logits[0]
    assert (torch.cat([again[-7:], again[:-7]]) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", REFUSED)
def test_models_whose_rows_would_mix_are_refused(name):
    model = random_model(REFUSED[name]()) if name != "mamba" else transformers.MambaForCausalLM(REFUSED[name]()).eval()
    before = model.config._attn_implementation
    assert not attention.packable(model)
    with pytest.raises(StudyError, match=r"ForCausalLM: rows of this architecture cannot be packed into one sequence$"):
        attention.adopt(model)
    assert model.config._attn_implementation == before


def test_a_window_that_layers_keep_to_themselves_is_refused():
    """Rows as short as the probes would not show it, so the window itself has to arrive."""
    model = random_model(OTHERS["soft caps"]())
    assert attention.packable(model)
    for layer in model.model.layers:
        layer.self_attn.sliding_window = None
    assert not attention.packable(model)


def test_rows_without_their_bounds_are_refused(checkpoints):
    model = small_model("olmo", small_tokenizer("olmo"))
    attention.adopt(model)
    with pytest.raises(
        StudyError, match=r"^OlmoAttention: attention asks for no packing, which packed rows do not support$"
    ):
        model(input_ids=torch.tensor([[1, 2, 3]]))
    fed = attention.packed([[1, 2, 3]], "cpu")
    with pytest.raises(StudyError, match="a mask of the model's own"):
        model(**fed, attention_mask=torch.zeros(1, 1, 3, 3))


def test_packed_by_hand():
    fed = attention.packed([[5, 6], [7], [8, 9]], "cpu")
    assert fed["input_ids"].tolist() == [[5, 6, 7, 8, 9]] and fed["position_ids"].tolist() == [[0, 1, 0, 0, 1]]
    assert fed["packing"].lengths == (2, 1, 2) and fed["packing"].bounds.tolist() == [0, 2, 3, 5]
    assert list(attention.runs((2, 2, 1, 2))) == [(0, 2, 2), (4, 1, 1), (5, 1, 2)]


@pytest.mark.parametrize("how", [{}, {"window": 3}, {"softcap": 2.0}, {"sinks": torch.ones(4)}])
@pytest.mark.parametrize("asked", [1, 4, 9])
def test_the_last_queries_alone_find_what_they_find_among_all(how, asked):
    generator = torch.Generator().manual_seed(2)
    query, key, value = (torch.randn(2, heads, 9, 8, generator=generator) for heads in (4, 2, 2))
    settings = attention.AttentionSettings(**how)
    found = attention.equal_lengths(query[:, :, -asked:], key, value, settings)
    assert torch.allclose(found, attention.equal_lengths(query, key, value, settings)[:, :, -asked:], atol=1e-6)
