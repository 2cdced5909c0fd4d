"""What rows share is read once and changes nothing: against one-row loops, with every way of sharing made to happen."""

import collections
import itertools
import random

import pytest
import torch
import transformers
from conftest import small_model, small_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from models.engine.test_attention import OTHERS, REFUSED, random_model

from workflow.errors import StudyError
from workflow.models import checkpoints as sources
from workflow.models import encoding
from workflow.models.engine import attention, generation, reading, scoring
from workflow.models.engine.constrained import constrained

NEAR = 1e-5


@pytest.fixture(autouse=True)
def shares_whatever_it_can(monkeypatch):
    """Prefixes are shared however little they save."""
    monkeypatch.setattr(reading, "LEAST", 0)


def random_ids(rng, length, size=90):
    return [rng.randrange(3, size) for _ in range(length)]


def requests_of_all_sorts(size=90):
    """Contexts with long and short shared beginnings, one that is the beginning, one alone; one to four continuations."""
    rng = random.Random(1)
    shown, other = random_ids(rng, 30, size), random_ids(rng, 21, size)
    contexts = [shown + random_ids(rng, length, size) for length in (1, 4, 4, 4, 9, 2)]
    contexts += [shown, shown[5:], [*other, 7], [*other, 7, 8], other, [9], random_ids(rng, 50, size)]
    contexts += [[*contexts[1], 5], contexts[1]]
    found = []
    for context in contexts:
        shared = random_ids(rng, 2, size)
        for length in (1, 3, 1, 2)[: rng.randrange(1, 5)]:
            found.append((context, [*shared[: rng.randrange(3)], *random_ids(rng, length, size)]))
    return found


@torch.no_grad()
def loop(model, context, ids):
    """Summed log-probability of one continuation, fed alone with the model's own attention."""
    logits = model(input_ids=torch.tensor([[*context, *ids]])).logits[0].double().log_softmax(dim=-1)
    return sum(float(logits[len(context) - 1 + place, token]) for place, token in enumerate(ids))


def check_sums(model, requests, batch_tokens):
    expected = [loop(model, *request) for request in requests]
    assert scoring.log_probabilities(model, requests, batch_tokens) == pytest.approx(expected, abs=NEAR, rel=0)


# Log-probabilities


@pytest.mark.parametrize("batch_tokens", [1, 40, 8192])
def test_shared_rows_are_rows_alone(checkpoint, batch_tokens):
    """Prefixes, contexts with branches, rows longer than the budget: within 1e-5 of the loop on four architectures."""
    own = checkpoint.model.config._attn_implementation
    check_sums(checkpoint.model, requests_of_all_sorts(), batch_tokens)
    assert checkpoint.model.config._attn_implementation == own
    assert not any("forward" in vars(layer) for layer in checkpoint.model.modules()), "products are torch's again"


@pytest.mark.parametrize("name", OTHERS)
def test_whatever_else_models_do_to_attention(name):
    """Windows that rows reach, soft caps and sinks keep rows from sharing, not from being packed."""
    model = random_model(OTHERS[name]())
    with reading.reading(model, 100) as reader:
        assert reader.packs and reader.shares == (name in ("norms", "learned positions"))
    requests = [(context[-40:], ids) for context, ids in requests_of_all_sorts()]
    check_sums(model, requests, 100)


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_cannot_be_packed_read_row_by_row(name):
    model = transformers.MambaForCausalLM(REFUSED[name]()).eval() if name == "mamba" else random_model(REFUSED[name]())
    check_sums(model, requests_of_all_sorts()[:12], 100)


def test_merged_adapters_are_read_as_they_are():
    from peft import LoraConfig, get_peft_model

    model = small_model("llama", small_tokenizer("llama"))
    plain = scoring.log_probabilities(model, requests_of_all_sorts(), 100)
    torch.manual_seed(0)
    merged = get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=False)).merge_and_unload()
    check_sums(merged.eval(), requests_of_all_sorts(), 100)
    assert scoring.log_probabilities(merged, requests_of_all_sorts(), 100) != pytest.approx(plain, abs=0.1)


def test_every_token_is_fed_once(checkpoints, monkeypatch):
    """Six rows after 30 tokens, one context with three continuations of two tokens and one of one: 30 + 6 x 4 + 3."""
    model = checkpoints["olmo"].model
    fed = []
    plain = model.forward
    monkeypatch.setattr(model, "forward", lambda **inputs: fed.append(inputs["input_ids"].numel()) or plain(**inputs))
    shown = list(range(3, 33))
    contexts = [[*shown, row, 5, 6, 7] for row in range(10, 16)]
    requests = [(context, [8]) for context in contexts] + [(contexts[0], [token, 9]) for token in (3, 4, 5)]
    attention.attention_settings(model)
    fed.clear()
    with reading.reading(model, 8192):
        fed.clear()
        scoring.log_probabilities(model, requests, 8192)
    assert fed == [30, 6 * 4 + 3]


# Groups


texts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=14)


@given(texts)
@settings(deadline=None)
def test_groups_share_what_they_say(contexts):
    groups = reading.shared(contexts)
    assert sorted(number for _, numbers in groups for number in numbers) == list(range(len(contexts)))
    for length, numbers in groups:
        assert len({tuple(contexts[number][:length]) for number in numbers}) == 1
        assert all(len(contexts[number]) > length for number in numbers)


def test_groups_by_hand(monkeypatch):
    """Ten rows with four demonstrations, three that lost one, two others: by what they begin with, where it is worth it."""
    monkeypatch.setattr(reading, "LEAST", 50)
    shown = [list(range(start, start + 20)) for start in (0, 100, 200)]
    whole = [[*shown[0], *shown[1], *shown[2], 500 + row] for row in range(10)]
    short = [[*shown[1], *shown[2], 600 + row] for row in range(3)]
    groups = reading.shared([*whole, *short, [7, 8], [9]])
    assert sorted((length, sorted(numbers)) for length, numbers in groups) == [
        (0, [13, 14]), (40, [10, 11, 12]), (60, list(range(10)))
    ]  # fmt: skip
    [(length, numbers)] = reading.shared([*short[:2], [7, 8]])
    assert (length, sorted(numbers)) == (0, [0, 1, 2])
    monkeypatch.setattr(reading, "LEAST", 30)
    assert sorted(reading.shared([*short[:2], [7, 8]])) == [(0, [2]), (40, [0, 1])]


# Writing


@torch.no_grad()
def written(model, context, new_tokens, *ends):
    """What `generate` writes after one context, without what may end it."""
    own = torch.tensor([context])
    ids = model.generate(
        own,
        attention_mask=torch.ones_like(own),
        do_sample=False,
        max_new_tokens=new_tokens,
        eos_token_id=list(ends),
        pad_token_id=ends[0],
    )
    return list(itertools.takewhile(lambda token: token not in ends, ids[0, len(context) :].tolist()))


@pytest.mark.parametrize(("batch_tokens", "slots"), [(1, 32), (300, 32), (8192, 3), (8192, 32)])
def test_slots_and_prefixes_change_no_text(checkpoint, batch_tokens, slots, monkeypatch):
    """More rows than slots, rows that end early and late, contexts with shared beginnings: as `generate` row by row."""
    monkeypatch.setitem(generation.SLOTS, "cpu", slots)
    contexts = [context for context, _ in itertools.groupby(requests_of_all_sorts(), key=lambda pair: pair[0])]
    model, tokenizer, _ = checkpoint
    found = generation.greedy(model, tokenizer, contexts, 15, (), batch_tokens)
    assert found == [written(model, context, 15, tokenizer.eos_token_id) for context in contexts]
    assert len({len(ids) for ids in found}) > 1


@pytest.mark.parametrize("name", ["soft caps", "mamba"])
def test_models_that_cannot_share_write_row_by_row(name, checkpoints):
    tokenizer = checkpoints["olmo"].tokenizer
    config = (OTHERS | REFUSED)[name]()
    config.vocab_size = len(tokenizer)
    model = transformers.MambaForCausalLM(config).eval() if name == "mamba" else random_model(config)
    contexts = [context for context, _ in requests_of_all_sorts()][:5]
    found = generation.greedy(model, tokenizer, contexts, 6, (), 100)
    assert found == [written(model, context, 6, tokenizer.eos_token_id) for context in contexts]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "soft caps"])
def test_every_end_that_a_checkpoint_lists_ends_a_text_as_in_generate(name, checkpoints, tmp_path):
    """One that packs and shares, and one that writes by `generate`; listed in generation_config.json, as Llama 3 does it."""
    tokenizer = checkpoints["llama"].tokenizer
    config = checkpoints["llama"].model.config if name == "llama" else OTHERS[name]()
    config.vocab_size = len(tokenizer)
    model = checkpoints["llama"].model if name == "llama" else random_model(config)
    eos, contexts = tokenizer.eos_token_id, [context for context, _ in requests_of_all_sorts()][:12]
    free = [written(model, context, 15, eos) for context in contexts]
    other, _ = collections.Counter(itertools.chain.from_iterable(free)).most_common(1)[0]
    model.save_pretrained(tmp_path)
    transformers.GenerationConfig(eos_token_id=[eos, other, 10**6]).save_pretrained(tmp_path)
    again = sources.load_model(tmp_path, torch.float32, "cpu")
    found = generation.greedy(again, tokenizer, contexts, 15, (), 8192)
    assert found == [written(model, context, 15, eos, other) for context in contexts] != free
    for context, ids in zip(contexts, found, strict=True):
        own = torch.tensor([context])
        plain = again.generate(own, attention_mask=torch.ones_like(own), max_new_tokens=15, pad_token_id=eos)[0]
        assert list(itertools.takewhile(lambda token: token not in (eos, other), plain[len(context) :].tolist())) == ids


def test_the_end_that_a_class_has_by_default_is_no_end(checkpoints):
    """LlamaConfig names id 2, whatever the tokenizer has there."""
    tokenizer = checkpoints["olmo"].tokenizer
    model = random_model(transformers.LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48,
                                                  num_hidden_layers=1, num_attention_heads=4))  # fmt: skip
    assert model.generation_config.eos_token_id == 2 != tokenizer.eos_token_id
    assert encoding.ends(model, tokenizer) == [tokenizer.eos_token_id]


def test_forced_text_is_the_same_with_a_prefix_and_without(checkpoint, monkeypatch):
    contexts = [context for context, _ in requests_of_all_sorts()]
    model, tokenizer, _ = checkpoint
    shared = constrained(model, tokenizer, contexts, [[40, 41], [50]], 5, 200)
    monkeypatch.setattr(reading, "LEAST", 10**9)
    assert constrained(model, tokenizer, contexts, [[40, 41], [50]], 5, 8192) == shared


def test_layers_that_differ_in_size():
    """Heads of 8 in layers with a window, of 16 in others; a feed-forward twice as wide in some."""
    config = transformers.Gemma4TextConfig(
        vocab_size=90, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, global_head_dim=16, vocab_size_per_layer_input=90,
        hidden_size_per_layer_input=8, num_kv_shared_layers=0, layer_types=["sliding_attention", "full_attention"],
        sliding_window=64, max_position_embeddings=64,
    )  # fmt: skip
    model = random_model(config)
    check_sums(model, requests_of_all_sorts(), 8192)
    assert reading.kept_bytes(model) == 2 * 2 * (8 + 16) * 4


# Memory


@pytest.fixture
def scarce(checkpoints, monkeypatch):
    """A model that runs out of memory whenever it is fed more than 60 tokens; gives what it was fed, and how to mend it."""
    model = checkpoints["olmo2"].model
    plain, fed, most = model.forward, [], [60]

    def forward(**inputs):
        fed.append(inputs["input_ids"].numel())
        if fed[-1] > most[0]:
            raise torch.OutOfMemoryError("out of memory")
        return plain(**inputs)

    monkeypatch.setattr(model, "forward", forward)
    return model, fed, lambda: most.append(most.pop() * 1000)


def test_out_of_memory_changes_no_log_probability(scarce, checkpoints):
    model, fed, mend = scarce
    requests = requests_of_all_sorts()
    found = scoring.log_probabilities(model, requests, 8192)
    assert max(fed) > 60 and sum(count <= 60 for count in fed) > 3
    mend()
    assert found == pytest.approx([loop(model, *request) for request in requests], abs=NEAR, rel=0)


def test_out_of_memory_changes_no_text(scarce, checkpoints):
    model, fed, mend = scarce
    tokenizer = checkpoints["olmo2"].tokenizer
    contexts = [context for context, _ in requests_of_all_sorts()]
    found = generation.greedy(model, tokenizer, contexts, 10, (), 8192)
    forced = constrained(model, tokenizer, contexts, [[40, 41]], 4, 8192)
    assert max(fed) > 60
    mend()
    assert found == generation.greedy(model, tokenizer, contexts, 10, (), 8192)
    assert forced == constrained(model, tokenizer, contexts, [[40, 41]], 4, 8192)


def test_rows_that_begin_anew_find_room_whatever_their_order(scarce, checkpoints):
    """Short rows that end make long ones change slots before memory runs out: no slot is then too small."""
    model, fed, mend = scarce
    tokenizer = checkpoints["olmo2"].tokenizer
    rng = random.Random(5)
    contexts = [random_ids(rng, length) for length in (30, 26, 25, 3, 24, 23, 22, 3, 50)]
    found = generation.greedy(model, tokenizer, contexts, 25, (), 8192)
    assert max(fed) > 60
    mend()
    assert found == [written(model, context, 25, tokenizer.eos_token_id) for context in contexts]


def test_a_row_for_which_memory_does_not_do_is_named(scarce):
    model, *_ = scarce
    with pytest.raises(StudyError, match=r"^memory ran out on a single row; use a machine with more memory, or"):
        scoring.log_probabilities(model, [(list(range(3, 80)), [5])], 8192)


def test_other_failures_are_not_taken_for_memory(checkpoints, monkeypatch):
    model = checkpoints["olmo"].model

    def forward(**inputs):
        raise RuntimeError("index out of range")

    with reading.reading(model, 100) as reader, pytest.raises(RuntimeError, match="index out of range"):
        reader.fits_in_memory(forward, 3)


def test_layers_that_cannot_all_be_laid_out_are_left_as_they_were(checkpoints, monkeypatch):
    model, laid_out = checkpoints["olmo2"].model, []

    def lay_out(weight, _):
        laid_out.append(weight)
        if len(laid_out) > 2:
            raise RuntimeError("can't allocate memory")
        return weight

    monkeypatch.setattr(reading, "pays", lambda model: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", lay_out)
    with pytest.raises(RuntimeError, match="can't allocate memory"), reading.reading(model, 100):
        pass
    assert len(laid_out) == 3 and model.config._attn_implementation != attention.IMPLEMENTATION
    assert not [layer for layer in model.modules() if "forward" in vars(layer)]


def peak_bytes(run):
    """The most memory that torch has held at a time during a run, beyond what it held before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama", "olmo", "olmo2"])
def test_memory_stays_within_its_budget(architecture, monkeypatch):
    """Prompts of 20 to 900 tokens, half of them after 300 shared ones, by a budget of 4,000 tokens in one pack."""
    monkeypatch.setitem(reading.PACK, "cpu", 10**9)
    sizes = {"vocab_size": 4000, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2}
    heads = {
        "num_attention_heads": 4,
        "max_position_embeddings": 2048,
        "eos_token_id": 2,
        "bos_token_id": 1,
        "pad_token_id": 0,
    }
    config = transformers.AutoConfig.for_model(architecture, **sizes, **heads)
    model, rng = random_model(config), random.Random(0)
    shown = random_ids(rng, 300, 4000)
    contexts = [shown * (row % 2) + random_ids(rng, rng.randrange(20, 600), 4000) for row in range(30)]
    requests = [(context, random_ids(rng, length, 4000)) for context in contexts for length in (1, 3, 5)]
    tokenizer = small_tokenizer("olmo")
    with reading.reading(model, 4000) as reader:
        assert reader.limit == 4000 * (reader.token + reader.kept)
        scored = peak_bytes(lambda: scoring.log_probabilities(model, requests, 4000))
        written = peak_bytes(lambda: generation.greedy(model, tokenizer, contexts, 3, (), 4000))
        assert reader.limit / 10 < min(scored, written) and max(scored, written) <= reader.limit


def test_soft_caps_are_heeded_by_a_model_that_was_loaded(tmp_path, monkeypatch):
    """As with transformers 5.17, which takes torch's own attention for it and leaves the caps out."""
    model = random_model(OTHERS["soft caps"]())
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(transformers.Gemma2PreTrainedModel, "_supports_sdpa", True)
    again = sources.load_model(tmp_path, torch.float32, "cpu")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        found, expected = (own(input_ids=ids, use_cache=False).logits for own in (again, model))
    assert torch.equal(found, expected) and attention.packable(again)
