"""What is trained on: bands of length, tags, shares of tokens by domain, the order of documents."""

from __future__ import annotations

import itertools

import pytest
import torch
from conftest import small_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow.data.corpora import Document
from workflow.errors import StudyError
from workflow.training import data_mix
from workflow.training.data_mix import Encoded

DOCUMENTS = [Document("ab"[number % 2], str(number), "the cat " * (number + 1)) for number in range(9)]


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer("olmo")


def test_a_document_ends_with_eos(tokenizer) -> None:
    (first, *_) = data_mix.encode(tokenizer, DOCUMENTS, {})
    assert first == ("a", [*tokenizer("the cat ")["input_ids"], tokenizer.eos_token_id])


def test_a_tag_leads_each_document(tokenizer) -> None:
    found = data_mix.encode(tokenizer, DOCUMENTS, {"tag": True})
    assert tokenizer.decode(found[1].ids) == "[b] the cat the cat <|endoftext|>"


@pytest.mark.parametrize(
    ("band", "kept"), [((0.25, 0.75), [2, 3, 4, 5, 6]), ((0.75, 1), [6, 7, 8]), ((0, 0.25), [0, 1, 2])]
)
def test_a_band_of_lengths_is_over_all_domains(tokenizer, band, kept) -> None:
    """Nine lengths with equal steps: quartiles fall on the third and the seventh, both ends count."""
    found = data_mix.encode(tokenizer, DOCUMENTS, {"length": band, "tag": True})
    assert [len(tokenizer.decode(one.ids).split("cat")) - 1 for one in found] == [number + 1 for number in kept]


def test_a_mix_leaves_domains_without_weight_out(tokenizer) -> None:
    assert {one.domain for one in data_mix.encode(tokenizer, DOCUMENTS, {"mix": {"a": 1.0, "b": 0.0}})} == {"a"}
    with pytest.raises(StudyError, match="text domain 'c' has no document; set its weight to 0"):
        data_mix.encode(tokenizer, DOCUMENTS, {"mix": {"a": 1.0, "c": 0.1}})


def test_without_a_mix_every_document_comes_once_a_pass() -> None:
    documents = [Encoded("d", [number]) for number in range(5)]
    numbers = data_mix.order(documents, None, torch.Generator().manual_seed(0))
    passes = [list(itertools.islice(numbers, 5)) for _ in range(3)]
    assert [sorted(one) for one in passes] == [list(range(5))] * 3 and passes[0] != passes[1]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 30)), min_size=9, max_size=40),
    st.lists(st.floats(0.05, 5), min_size=3, max_size=3),
    st.integers(0, 1000),
)
def test_shares_of_tokens_follow_the_mix_within_a_document(
    lengths: list[tuple[str, int]], weights: list[float], seed: int
) -> None:
    documents = [Encoded(domain, [0] * length) for domain, length in [*lengths, ("a", 3), ("b", 4), ("c", 5)]]
    mix = dict(zip("abc", weights, strict=True))
    numbers = data_mix.order(documents, mix, torch.Generator().manual_seed(seed))
    given_tokens = dict.fromkeys("abc", 0)
    for number in itertools.islice(numbers, 200):
        given_tokens[documents[number].domain] += len(documents[number].ids)
        total = sum(given_tokens.values())
        for domain, tokens in given_tokens.items():
            assert tokens - mix[domain] / sum(weights) * total <= 30


def test_each_domain_of_a_mix_has_passes_of_its_own() -> None:
    documents = [Encoded("ab"[number % 2], [number]) for number in range(8)]
    found = list(itertools.islice(data_mix.order(documents, {"a": 3, "b": 1}, torch.Generator().manual_seed(0)), 32))
    own = {name: [number for number in found if documents[number].domain == name] for name in "ab"}
    assert len(own["a"]) == 24 and len(own["b"]) == 8
    assert [sorted(own["a"][start : start + 4]) for start in range(0, 24, 4)] == [[0, 2, 4, 6]] * 6


def test_tokens_come_end_to_end() -> None:
    take = data_mix.stream([Encoded("d", [1, 2, 3]), Encoded("d", [4, 5])], itertools.cycle([0, 1]))
    assert [take(2), take(4), take(1)] == [[1, 2], [3, 4, 5, 1], [2]]
