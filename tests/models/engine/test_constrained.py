"""Forced labels against all texts that a tiny model can write, against transformers' own beam search, and by hand."""

import itertools
import math

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
)

from workflow.errors import StudyError
from workflow.models import loading
from workflow.models.engine.constrained import constrained, constraint
from workflow.models.engine.finite import NotFiniteError

END, A, B, C, D = range(5)
WORDS = range(1, 6)
WIDE = 10_000_000


def tokenizer(size=6):
    """Token n is the word `n`; 0 is EOS."""
    words = Tokenizer(WordLevel({str(number): number for number in range(size)}, unk_token="0"))
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="0")


def random_model(seed, size=6):
    """A model whose next token depends on all tokens before it."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=size, max_position_embeddings=64, initializer_range=0.5, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def fixed_model(probabilities):
    """A model that gives each token the same probability after any text: the bias of its output layer alone."""
    config = PhiConfig(
        vocab_size=len(probabilities), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=64, partial_rotary_factor=0.5,
    )  # fmt: skip
    model = PhiForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.copy_(torch.tensor(probabilities).log())
    return model


def holds(tokens, spellings):
    """Whether one of the token sequences stands somewhere in the text."""
    starts = range(len(tokens) + 1)
    return any(list(tokens[start : start + len(word)]) == list(word) for word in spellings for start in starts)


@torch.no_grad()
def all_texts(model, context, spellings, new_tokens, ends=(END,)):
    """Every text that holds a spelling, with its log-probability per token; EOS counts, and follows all but the longest."""
    found = {}
    words = [word for word in WORDS if word not in ends]
    for length in range(1, new_tokens + 1):
        texts = list(itertools.product(words, repeat=length))
        ids = torch.tensor([[*context, *text] for text in texts])
        scores = model(input_ids=ids).logits.double().log_softmax(dim=-1)[:, len(context) - 1 :]
        for text, own in zip(texts, scores.tolist(), strict=True):
            if holds(text, spellings):
                total = sum(own[place][token] for place, token in enumerate(text))
                last = max(own[length][end] for end in ends) if length < new_tokens else None
                found[text] = total / length if last is None else (total + last) / (length + 1)
    return found


SPELLINGS = {
    "single tokens": [[A], [C]],
    "two words": [[A, B], [C, D]],
    "long and short": [[A, B, C], [D]],
    "one begins another": [[A, B], [A, B, C], [A]],
    "one within another": [[A, B, A, C], [B, A, D]],
    "repetition": [[A, A, B]],
    "as long as the text": [[A, B, C, D]],
}
CONTEXTS = [[A], [5, D, 5], [A, B, C, D, 5], [B, A]]


# The constraint


@pytest.mark.parametrize("spellings", SPELLINGS.values(), ids=SPELLINGS)
def test_a_state_knows_what_the_text_holds_and_what_it_still_needs(spellings):
    rule = constraint(spellings)
    texts = [text for length in range(5) for text in itertools.product(range(1, 5), repeat=length)]
    for text in texts:
        state = 0
        for token in text:
            state = rule.after(state, token)
        shortest = next(
            length
            for length in range(5)
            if any(holds((*text, *more), spellings) for more in itertools.product(range(1, 5), repeat=length))
        )
        assert rule.need[state] == shortest
        assert (rule.need[state] == 0) == holds(text, spellings)


def test_banks_by_hand():
    """a b c or d: nothing, a, a b, whole. After a b, d completes the second word, and a begins the first anew."""
    rule = constraint([[A, B, C], [D]])
    assert (rule.bank, rule.need) == ((0, 1, 2, 3), (1, 1, 1, 0))
    assert [rule.after(2, token) for token in (A, B, C, D)] == [1, 0, 3, 3]
    assert rule.after(3, A) == 3


# Against all texts


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("spellings", SPELLINGS.values(), ids=SPELLINGS)
def test_with_enough_beams_the_best_of_all_texts_is_found(spellings, seed):
    model = random_model(seed)
    found = constrained(model, tokenizer(), CONTEXTS, spellings, 4, WIDE, beams=5**4)
    for context, tokens in zip(CONTEXTS, found, strict=True):
        every = all_texts(model, context, spellings, 4)
        assert every[tuple(tokens)] == pytest.approx(max(every.values()), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_with_several_ends_the_likeliest_counts_and_none_is_written(seed):
    model, spellings = random_model(seed), [[A], [B, C]]
    model.generation_config = GenerationConfig(eos_token_id=[END, D])
    found = constrained(model, tokenizer(), CONTEXTS, spellings, 4, WIDE, beams=4**4)
    for context, tokens in zip(CONTEXTS, found, strict=True):
        every = all_texts(model, context, spellings, 4, (END, D))
        assert every[tuple(tokens)] == pytest.approx(max(every.values()), abs=1e-5)


def test_texts_that_end_and_texts_that_do_not_are_both_among_the_best():
    """What the comparison above rests on: the lengths of the best texts differ."""
    lengths = set()
    for seed in range(8):
        found = constrained(random_model(seed), tokenizer(), CONTEXTS, [[A], [C]], 4, WIDE, beams=5**4)
        lengths |= {len(tokens) for tokens in found}
    assert {1, 4} <= lengths


@pytest.mark.parametrize("spellings", SPELLINGS.values(), ids=SPELLINGS)
def test_five_beams_hold_a_spelling_and_are_no_better_than_the_best(spellings):
    shares = []
    for seed in range(3):
        model = random_model(seed)
        found = constrained(model, tokenizer(), CONTEXTS, spellings, 4, WIDE)
        for context, tokens in zip(CONTEXTS, found, strict=True):
            assert holds(tokens, spellings), "whatever the prompt holds"
            every = all_texts(model, context, spellings, 4)
            assert every[tuple(tokens)] <= max(every.values()) + 1e-5
            shares.append(every[tuple(tokens)] > max(every.values()) - 1e-5)
    assert sum(shares) / len(shares) > 0.6


# Against transformers


def test_without_a_constraint_it_is_beam_search():
    """Where every token is a label and no text can end, transformers' beam search writes the same."""
    size = 300
    model = random_model(1, size)
    model.lm_head.register_forward_hook(lambda _, __, logits: logits.index_fill(-1, torch.tensor([END]), -1e4))
    contexts = [[7], [11, 12, 13], list(range(20, 40)), [250, 3]]
    found = constrained(model, tokenizer(size), contexts, [[token] for token in range(1, size)], 5, WIDE)
    for context, tokens in zip(contexts, found, strict=True):
        expected = model.generate(
            torch.tensor([context]), num_beams=5, max_new_tokens=5, do_sample=False, eos_token_id=END, pad_token_id=END
        )
        assert tokens == expected[0, len(context) :].tolist()
    assert len(set(map(tuple, found))) == len(contexts)


@pytest.mark.parametrize("batch_tokens", [1, 8192])
def test_batches_and_padding_change_nothing(checkpoint, batch_tokens):
    model, words, _ = checkpoint
    texts = ["Ann has a cat.", "The owl", "", "A man sleeps in the barn while a dog sings a song.", "yes or no"]
    contexts = [words(text)["input_ids"] or [words.eos_token_id] for text in texts]
    spellings = [words(label, add_special_tokens=False)["input_ids"] for label in ("neutral", " neutral", "no", " no")]
    heard = []
    found = constrained(model, words, contexts, spellings, 5, batch_tokens, lambda *counts: heard.append(counts))
    assert heard[-1] == (5, 5)
    assert all(holds(tokens, spellings) and len(tokens) <= 5 for tokens in found)
    for context, tokens in zip(contexts, found, strict=True):
        assert constrained(model, words, [context], spellings, 5, 8192) == [tokens]


# By hand


@pytest.mark.parametrize(
    ("probabilities", "spellings", "new_tokens", "texts"),
    [
        # A text may end once it holds d: d END has ln(.1 x .5)/2 = -1.50, d a END ln(.1 x .2 x .5)/3 = -1.54.
        ([0.5, 0.2, 0.1, 0.1, 0.1], [[D]], 3, [[D]]),
        # With an end of .2 it goes on: ln(.02)/2 = -1.96 < ln(.1 x .6 x .6)/3 = -1.11, wherever d stands.
        ([0.2, 0.6, 0.06, 0.04, 0.1], [[D]], 3, [[D, A, A], [A, D, A], [A, A, D]]),
        # One token: nothing but the likeliest label; a is likelier, but none.
        ([0.2, 0.6, 0.06, 0.04, 0.1], [[D], [C]], 1, [[D]]),
        # b c has .3 x .3, more than d with anything else: .04 x .3.
        ([0.06, 0.3, 0.3, 0.3, 0.04], [[B, C], [D]], 2, [[B, C]]),
        # Of two tokens there is room for one word alone.
        ([0.06, 0.3, 0.3, 0.3, 0.04], [[A, B, C], [D, D]], 2, [[D, D]]),
    ],
)
def test_the_best_text_by_hand(probabilities, spellings, new_tokens, texts):
    model = fixed_model(probabilities)
    [found] = constrained(model, tokenizer(5), [[A, D, A]], spellings, new_tokens, WIDE)
    assert found in texts


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(StudyError, match=r"^constrained labels: the shortest has 3 tokens, allowed: 2 or fewer$"):
        constrained(random_model(0), tokenizer(), [[A]], [[A, B, C], [D, C, B, A]], 2, WIDE)


def test_a_model_whose_numbers_are_none_is_refused(checkpoints):
    model, words = loading.untouched({"path": str(checkpoints["olmo"].path)})
    model.get_input_embeddings().weight.data.fill_(math.nan)
    with pytest.raises(
        NotFiniteError, match=r"^scores of the model are not finite numbers; see weights and precision$"
    ):
        constrained(model, words, [[5, 6]], [[7]], 5, WIDE)


def test_a_spelling_in_the_prompt_will_do_where_it_counts():
    """With the label A in every prompt the search is an ordinary one, and so finds no worse a text."""
    contexts = [[A, B, C], [D, A, B]]
    model = random_model(2)
    forced = constrained(model, tokenizer(), contexts, [[A]], 4, WIDE)
    plain = constrained(model, tokenizer(), contexts, [[A]], 4, WIDE, prompt_counts=True)
    anything = constrained(model, tokenizer(), contexts, [[token] for token in range(1, 5)], 4, WIDE)
    assert all(A in tokens for tokens in forced) and plain == anything
    begun = constrained(model, tokenizer(), [[D, B]], [[B, A]], 4, WIDE, prompt_counts=True)
    assert begun == constrained(model, tokenizer(), [[D, B]], [[B, A]], 4, WIDE)
