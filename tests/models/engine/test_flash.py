"""All that goes through flash attention on a GPU, on a CPU: the kernel is replaced by its contract in plain operations."""

import itertools
import logging
import random

import pytest
import torch
from conftest import ARCHITECTURES, loss_of, small_model, small_tokenizer
from models.engine.test_attention import OTHERS, ROWS, alone, random_model
from models.engine.test_scoring import loop, random_ids, requests_of_all_sorts, written

from workflow.models.encoding import Masked, padding
from workflow.models.engine import attention, feeding, flash, generation, reading, replaying, scoring


def contract(query, key, value, rows, scale, window, held):
    """What torch's operation gives, from one matrix of scores over all tokens; refuses what the kernel would not take."""
    for tensor in (query, key, value):
        assert tensor.is_contiguous() and tensor.ndim == 3
    counts = rows.asked.diff(), rows.seen.diff() if held is None else held
    for bounds, tensor, longest, count in zip(rows[:2], (query, key), rows.longest, counts, strict=True):
        assert bounds.dtype == torch.int32 and bounds[0] == 0 and bounds.is_contiguous()
        assert bounds[-1] == len(tensor) or held is not None
        assert type(longest) is int and longest >= int(count.max())
    assert held is None or (held.dtype == torch.int32 and bool((held <= rows.seen.diff()).all()))
    assert window in (flash.CAUSAL, flash.ALL) or (window[0] > 0 and window[1] == 0)
    row = [torch.repeat_interleave(torch.arange(len(bounds) - 1), bounds.diff().long()) for bounds in rows[:2]]
    # Places count from a row's end: the last query stands beside the last key that counts.
    lengths = rows.seen.diff() if held is None else held
    key, value = (tensor[: int(rows.seen[-1])] for tensor in (key, value))
    place = [torch.arange(len(own)) - bounds.long()[own] for own, bounds in zip(row, rows[:2], strict=True)]
    place[0] = place[0] + (lengths - rows.asked.diff()).long()[row[0]]
    seen = (row[0][:, None] == row[1]) & (place[1] < lengths[row[1]])
    behind = place[0][:, None] - place[1]
    if window[1] == 0:
        seen &= behind >= 0
    if window[0] >= 0:
        seen &= behind <= window[0]
    share = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(share, 1), value.repeat_interleave(share, 1)
    scores = torch.einsum("qhd,khd->hqk", query, key) * (query.shape[2] ** -0.5 if scale is None else scale)
    scores = scores.masked_fill(~seen, -torch.inf)
    found = torch.einsum("hqk,khd->qhd", scores.softmax(dim=2), value)
    return found.to(query.dtype), scores.logsumexp(dim=2).float().detach()


@pytest.fixture
def kernel(monkeypatch):
    """Every attention that a GPU would give to the kernel goes to its contract; gives the windows that were asked for."""
    asked = []

    def called(*arguments):
        asked.append((arguments[5], arguments[6] is not None))
        return contract(*arguments)

    monkeypatch.setattr(flash, "takes", lambda query, value: query.shape[2] == value.shape[2])
    monkeypatch.setattr(flash, "kernel", called)
    monkeypatch.setattr(reading, "LEAST", 0)
    return asked


@pytest.mark.parametrize("heads", [4, 2])
def test_plain_operations_are_the_contract(kernel, heads):
    """Both are written apart from each other: packed rows, windows, ends of rows, rows over others, slots."""
    assert flash.worst(torch.device("cpu"), torch.float32, heads) < 1e-5
    assert set(kernel) == {(flash.CAUSAL, False), ((3, 0), False), (flash.ALL, False), (flash.ALL, True)}


@pytest.mark.parametrize("name", [*ARCHITECTURES, *OTHERS])
def test_packed_rows_are_rows_alone(name, kernel):
    model = random_model(OTHERS[name]()) if name in OTHERS else small_model(name, small_tokenizer(name))
    expected = alone(model, ROWS)
    attention.adopt(model)
    with torch.no_grad():
        found = model(**attention.packed(ROWS, "cpu"), use_cache=False).logits[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert bool(kernel) == (name not in ("sinks", "soft caps"))


@pytest.mark.parametrize("batch_tokens", [40, 8192])
def test_shared_rows_are_rows_alone(checkpoint, kernel, batch_tokens):
    """Prefixes and contexts with branches, over the kernel's log-sums."""
    requests = requests_of_all_sorts()
    found = scoring.log_probabilities(checkpoint.model, requests, batch_tokens)
    assert found == pytest.approx([loop(checkpoint.model, *request) for request in requests], abs=1e-5, rel=0)
    assert (flash.ALL, False) in kernel and (flash.CAUSAL, False) in kernel


@pytest.mark.parametrize(("batch_tokens", "slots"), [(300, 32), (8192, 3)])
def test_slots_and_prefixes_change_no_text(checkpoint, kernel, batch_tokens, slots, monkeypatch):
    monkeypatch.setitem(generation.SLOTS, "cpu", slots)
    contexts = [context for context, _ in itertools.groupby(requests_of_all_sorts(), key=lambda pair: pair[0])]
    model, tokenizer, _ = checkpoint
    found = generation.greedy(model, tokenizer, contexts, 15, (), batch_tokens)
    assert found == [written(model, context, 15, tokenizer.eos_token_id) for context in contexts]
    assert (flash.ALL, True) in kernel


@pytest.mark.parametrize(("free", "slots"), [(0, 32), (0.5, 4), (0.125, 3)])
def test_steps_that_are_replayed_change_no_text(checkpoint, kernel, free, slots, monkeypatch):
    """All that differs between steps is in tensors: the step is run from them alone, as a graph would."""
    replayed = []

    def captured(run, used):
        return lambda: (replayed.append(used), run())[1]

    monkeypatch.setattr(replaying, "captured", captured)
    monkeypatch.setattr(replaying, "DEVICES", ["cpu"])
    monkeypatch.setitem(generation.SLOTS, "cpu", slots)
    monkeypatch.setitem(generation.FREE, "cpu", free)
    contexts = [context for context, _ in itertools.groupby(requests_of_all_sorts(), key=lambda pair: pair[0])]
    model, tokenizer, _ = checkpoint
    found = generation.greedy(model, tokenizer, contexts, 15, (), 8192)
    assert found == [written(model, context, 15, tokenizer.eos_token_id) for context in contexts]
    assert len(replayed) > 10


def test_steps_that_cannot_be_replayed_are_launched(checkpoints, kernel, monkeypatch, caplog):
    """Here since there is no GPU to capture them; said once."""
    monkeypatch.setattr(replaying, "DEVICES", ["cpu"])
    monkeypatch.setattr(torch.cuda, "Stream", refused)
    contexts = [context for context, _ in itertools.groupby(requests_of_all_sorts(), key=lambda pair: pair[0])]
    model, tokenizer, _ = checkpoints["llama"]
    with caplog.at_level(logging.WARNING, "tunecast"):
        found = generation.greedy(model, tokenizer, contexts, 15, (), 8192)
    assert found == [written(model, context, 15, tokenizer.eos_token_id) for context in contexts]
    assert (
        replaying.DEVICES == [] and caplog.text.count("not replayed as a CUDA graph, which is slow: not permitted") == 1
    )


def refused():
    raise RuntimeError("not permitted when stream is capturing\nmore")


@pytest.mark.parametrize("worth", [0, 1])
def test_gradients_are_those_of_plain_operations(checkpoints, monkeypatch, request, worth):
    """Whole rows, and the last layer at their ends alone."""
    monkeypatch.setattr(feeding, "WORTH", worth)
    model, pad = small_model("llama", checkpoints["llama"].tokenizer), padding(checkpoints["llama"].tokenizer)
    rows = [
        Masked(ids, [place >= len(ids) - 2 for place in range(len(ids))])
        for ids in ([5, 6, 7, 8, 9], [9, 8, 7], [3] * 20)
    ]

    def slopes():
        model.zero_grad()
        loss_of(model, rows, pad).backward()
        return {name: weight.grad.clone() for name, weight in model.named_parameters()}

    expected = slopes()
    kernel = request.getfixturevalue("kernel")
    found = slopes()
    for name, slope in expected.items():
        torch.testing.assert_close(found[name], slope, atol=1e-5, rtol=0)
    assert kernel


@pytest.mark.parametrize(("capability", "taken"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_an_old_gpu_is_not_asked(monkeypatch, capability, taken):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(flash, "kernel", contract)
    flash.works.cache_clear()
    assert flash.works(torch.device("cpu"), torch.bfloat16, False) == taken
    flash.works.cache_clear()


@pytest.mark.parametrize("fault", ["raises", "off", "no number"])
def test_a_kernel_that_fails_or_disagrees_is_not_used_and_said_so(monkeypatch, caplog, fault):
    def broken(*arguments):
        if fault == "raises":
            raise RuntimeError("no kernel image is available\nmore")
        found, sums = contract(*arguments)
        return found, (sums + 1 if fault == "off" else sums * torch.nan)

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(flash, "kernel", broken)
    flash.works.cache_clear()
    with caplog.at_level(logging.WARNING, "tunecast"):
        assert not flash.works(torch.device("cpu"), torch.bfloat16, False)
    flash.works.cache_clear()
    told = {"raises": "no kernel image is available", "off": "off by 1.0", "no number": "off by inf"}[fault]
    assert "is not used, which is slow: " in caplog.text and told in caplog.text and "more" not in caplog.text


def test_torch_has_the_operation_as_it_is_called():
    """The lock's torch and older ones: names, order and defaults of what `_kernel` passes."""
    given = torch.ops.aten._flash_attention_forward.default._schema.arguments
    assert [argument.name for argument in given[:10]] == [
        "query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k", "dropout_p", "is_causal",
        "return_debug_mask",
    ]  # fmt: skip
    assert {"scale", "window_size_left", "window_size_right", "seqused_k"} <= {argument.name for argument in given[10:]}


def test_long_rows_over_a_prefix_of_another_length(checkpoints, kernel):
    """As many queries over a prefix as there are tokens, however long either is."""
    model, generator = checkpoints["llama"].model, random.Random(3)
    shown = random_ids(generator, 120)
    requests = [([*shown, *random_ids(generator, length)], [5, 6]) for length in (1, 60, 9)]
    found = scoring.log_probabilities(model, requests, 8192)
    assert found == pytest.approx([loop(model, *request) for request in requests], abs=1e-5, rel=0)
