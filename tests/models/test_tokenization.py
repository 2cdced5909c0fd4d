"""A checkpoint's tokenizer reads as its tokenizer.json says, whatever class transformers picks; special tokens by hand."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import tokenizer_shapes as shapes
import transformers
from conftest import PAGE
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_shapes import BOS, EOS, PAD, SHAPES, Shape
from tokenizers import Tokenizer, models, processors

from workflow import task
from workflow.data.corpora import Document
from workflow.errors import StudyError
from workflow.indicators.measures import clm
from workflow.models import checkpoints, encoding, tokenization
from workflow.models.encoding import Framing
from workflow.task import Example, Turn
from workflow.training import data_mix, finetuning

CONFIGS = {
    "gpt2": transformers.GPT2Config,
    "gpt_neox": transformers.GPTNeoXConfig,
    "llama": transformers.LlamaConfig,
    "olmo": transformers.OlmoConfig,
    "qwen2": transformers.Qwen2Config,
}
SIZE = 460
TEXTS = [*tokenization.PROBES, *PAGE[-3:], "a </s> b<s>c <|think|> d <keep>  e"]
MNLI = task.load("mnli")
ROW = Example({"premise": "A man runs.", "hypothesis": "A dog sleeps."}, "neutral", ("a", "neutral", "b"), gold=1)


def checkpoint(folder: Path, made: Tokenizer, shape: Shape, model: str, picked: str | None) -> Path:
    """A folder with a tokenizer, and the config of a model."""
    shapes.save(made, shape, folder, picked)
    ids = {name: made.token_to_id(token) for name, token in (("bos", BOS), ("eos", EOS), ("pad", PAD))}
    config = CONFIGS[model](vocab_size=600, **{f"{name}_token_id": number for name, number in ids.items()})
    (folder / "config.json").write_text(config.to_json_string())
    return folder


@pytest.fixture(scope="module")
def made() -> dict[str, Tokenizer]:
    """A tokenizer of each shape."""
    return {name: shapes.tokenizer(shape, PAGE, SIZE) for name, shape in SHAPES.items()}


# Which rules are used


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("model", CONFIGS)
@pytest.mark.parametrize("picked", [None, "PreTrainedTokenizerFast", "GPT2Tokenizer"])
def test_the_rules_are_those_of_the_file(tmp_path: Path, made: dict, name: str, model: str, picked: str | None) -> None:
    """Of every shape, with classes that build their own rules: Qwen2's, GPT-2's, GPT-NeoX's, Llama's."""
    loaded = checkpoints.load_tokenizer(checkpoint(tmp_path, made[name], SHAPES[name], model, picked))
    file = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    file.no_truncation()
    file.no_padding()
    for text in TEXTS:
        assert loaded(text)["input_ids"] == file.encode(text).ids
        bare = file.encode(text, add_special_tokens=False).ids
        assert loaded.decode(bare) == file.decode(bare, skip_special_tokens=False), text
    assert loaded.get_vocab() == file.get_vocab()


@pytest.mark.parametrize("picked", ["PreTrainedTokenizerFast", "GPT2Tokenizer"])
def test_dropout_of_merges_is_off(tmp_path: Path, made: dict, picked: str, caplog: pytest.LogCaptureFixture) -> None:
    """A file that asks for it gives the tokens of the same file without it, at every reading."""
    plain = Tokenizer.from_str(made["bos"].to_str())
    dropping = Tokenizer.from_str(plain.to_str())
    dropping.model.dropout = 0.5
    folder = checkpoint(tmp_path, dropping, SHAPES["bos"], "llama", picked)
    assert len({tuple(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXTS[0]).ids) for _ in range(9)}) > 1
    with caplog.at_level(logging.WARNING, logger="tunecast"):
        loaded = checkpoints.load_tokenizer(folder)
    assert all(loaded(text)["input_ids"] == plain.encode(text).ids for text in TEXTS for _ in range(3))
    assert [record.getMessage() for record in caplog.records if "BPE dropout" in record.getMessage()] != []


def test_characters_that_a_vocabulary_leaves_out_are_told(
    tmp_path: Path, made: dict, caplog: pytest.LogCaptureFixture
) -> None:
    """BPE over Latin letters without a token for the rest; byte-level BPE and one with an unknown token read all."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    bare = Tokenizer(models.BPE({piece: number for number, piece in enumerate(("<s>", "</s>", "<pad>", *letters))}, []))
    assert bare.encode("d日é").tokens == ["d"]
    for number, (tokenizer, told) in enumerate(((bare, True), (made["bos"], False), (made["prefix_first"], False))):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="tunecast"):
            checkpoints.load_tokenizer(
                checkpoint(tmp_path / str(number), tokenizer, SHAPES["bos"], "llama", "PreTrainedTokenizerFast")
            )
        assert any("dropped from every text" in record.getMessage() for record in caplog.records) == told


@pytest.mark.parametrize("model", CONFIGS)
@pytest.mark.parametrize("named", [{}, {"eos_token": EOS}, {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}])
def test_special_tokens_are_those_of_the_files(tmp_path: Path, model: str, named: dict) -> None:
    """Where tokenizer_config.json names none the ids of config.json do; never a token that only a class knows."""
    shape = Shape(shapes.byte_level, before=(BOS,), named=named)
    made = shapes.tokenizer(shape, PAGE, SIZE)
    folder = checkpoint(tmp_path, made, shape, model, picked=None)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": made.get_vocab_size()}))
    loaded = checkpoints.load_tokenizer(folder)
    assert max(loaded.get_vocab().values()) < made.get_vocab_size()
    expected = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD} if model != "llama" else named
    assert {name: getattr(loaded, name) for name in expected} == expected


def test_a_difference_is_said_once_and_agreement_not_at_all(
    tmp_path: Path, made: dict, caplog: pytest.LogCaptureFixture
) -> None:
    plain = checkpoint(tmp_path / "plain", made["bos"], SHAPES["bos"], "llama", "PreTrainedTokenizerFast")
    digits = Shape(lambda page, size: shapes.byte_level(page, size, digits=True))
    own = shapes.tokenizer(digits, PAGE, SIZE)
    own.add_special_tokens(["<|endoftext|>"])  # which GPT-2's class takes for granted
    apart = checkpoint(tmp_path / "apart", own, digits, "gpt2", "GPT2Tokenizer")
    with caplog.at_level(logging.WARNING, "tunecast"):
        checkpoints.load_tokenizer(plain)
        assert not caplog.records
        checkpoints.load_tokenizer(apart)
    [record] = caplog.records
    assert record.getMessage().startswith(
        f"{apart}: the rules of tokenizer.json are used, not those of GPT2Tokenizer: 'In 2024, 1,234.5 of 007"
    )
    assert "\n" not in record.getMessage()


def test_a_class_that_agrees_with_the_file_is_kept(tmp_path: Path) -> None:
    """GPT-2's own class with GPT-2's own rules, and with the EOS that it takes for granted."""
    shape = Shape(shapes.byte_level, named={})
    made = shapes.tokenizer(shape, PAGE, SIZE)
    made.add_special_tokens(["<|endoftext|>"])
    loaded = checkpoints.load_tokenizer(checkpoint(tmp_path, made, shape, "gpt2", "GPT2Tokenizer"))
    assert type(loaded).__name__ == "GPT2Tokenizer" and loaded.eos_token == "<|endoftext|>"


def test_a_class_that_cannot_read_the_file_at_all(tmp_path: Path, made: dict) -> None:
    """A unigram model under the name of a class that takes BPE."""
    loaded = checkpoints.load_tokenizer(checkpoint(tmp_path, made["unigram"], SHAPES["unigram"], "qwen2", None))
    assert loaded("a cat")["input_ids"] == made["unigram"].encode("a cat").ids


def test_tokens_that_the_config_adds_to_the_file_are_kept(tmp_path: Path) -> None:
    """Named in tokenizer_config.json and not in tokenizer.json, as after `add_tokens` without saving the file anew."""
    shape = Shape(shapes.byte_level, named={"eos_token": EOS, "pad_token": "[PAD]", "extra_special_tokens": ["<call>"]})
    made = shapes.tokenizer(shape, PAGE, SIZE)
    loaded = checkpoints.load_tokenizer(checkpoint(tmp_path, made, shape, "llama", None))
    assert {"[PAD]", "<call>"} <= set(loaded.get_vocab()) and loaded.pad_token == "[PAD]"
    assert loaded("a <call>")["input_ids"][-1] == loaded.get_vocab()["<call>"]


def test_a_tuned_copy_reads_as_its_base(tmp_path: Path, made: dict) -> None:
    base = checkpoints.load_tokenizer(checkpoint(tmp_path / "base", made["both"], SHAPES["both"], "qwen2", None))
    base.save_pretrained(tmp_path / "tuned")
    (tmp_path / "tuned" / "config.json").write_bytes((tmp_path / "base" / "config.json").read_bytes())
    again = checkpoints.load_tokenizer(tmp_path / "tuned")
    assert [again(text)["input_ids"] for text in TEXTS] == [base(text)["input_ids"] for text in TEXTS]
    assert (again.bos_token, again.eos_token, again.pad_token) == (BOS, EOS, PAD)


def test_a_tokenizer_without_offsets_is_refused(tmp_path: Path) -> None:
    transformers.CTRLConfig(vocab_size=9).save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"<unk>": 0, "a</w>": 1}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(StudyError, match=r"does not map its tokens to characters; expected tokenizer\.json$"):
        checkpoints.load_tokenizer(tmp_path)


# Special tokens that a tokenizer puts around every text


def around(before: tuple[str, ...], behind: tuple[str, ...]) -> transformers.PreTrainedTokenizerBase:
    """One vocabulary with these special tokens around a text."""
    shape = Shape(shapes.byte_level, before, behind)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=shapes.tokenizer(shape, PAGE, SIZE), **shape.named)


PLAIN = around((), ())
pieces = st.sampled_from(["a cat", " the owl", "\n\n", "  ", "é", "日本", "", "###", " can fly."])
texts = st.lists(pieces, max_size=5).map("".join)


@pytest.mark.parametrize("before", [(), (BOS,), (BOS, PAD)])
@pytest.mark.parametrize("behind", [(), (EOS,), (EOS, PAD)])
@given(prompt=texts, answer=texts.map(lambda text: f" {text}"))
@settings(max_examples=25, deadline=None)
def test_parts_are_those_without_what_is_put_behind(before: tuple, behind: tuple, prompt: str, answer: str) -> None:
    """The same as of the tokenizer without a post-processor, after what is put before."""
    tokenizer, lead = around_cached(before, behind), PLAIN.convert_tokens_to_ids(list(before))
    [found], [plain] = (encoding.split(own, prompt, [answer]) for own in (tokenizer, PLAIN))
    assert found.completion == plain.completion
    assert found.prompt == ([*lead, *plain.prompt] if lead and prompt else lead or plain.prompt)


_around: dict = {}


def around_cached(before: tuple[str, ...], behind: tuple[str, ...]) -> transformers.PreTrainedTokenizerBase:
    """`around`, made once."""
    if (before, behind) not in _around:
        _around[before, behind] = around(before, behind)
    return _around[before, behind]


@pytest.mark.parametrize("before", [(), (BOS,)])
def test_nothing_that_is_read_or_learned_has_an_eos_of_the_tokenizer(before: tuple) -> None:
    """Answers, prompts, training rows, conversations, documents, windows: as if the tokenizer added no EOS."""
    adds, plain = around(before, (EOS,)), around(before, ())
    turns = (Turn("user", "a cat"), Turn("assistant", "the owl can fly."), Turn("user", "x"), Turn("assistant", "no"))
    documents = [Document("d", str(number), text) for number, text in enumerate(PAGE[:4])]
    framing = Framing(MNLI, "default", "sound", (), 90)
    shown = Framing(MNLI, "default", "sound", (ROW, ROW), 60)
    ways = {
        "prompt": lambda own: encoding.fitted(own, framing, ROW),
        "prompt that loses demonstrations": lambda own: encoding.fitted(own, shown, ROW),
        "training row": lambda own: finetuning.encode(own, framing, ROW),
        "cut training row": lambda own: finetuning.encode(own, Framing(MNLI, "default", "sound", (), 40), ROW),
        "conversation": lambda own: encoding.masked(own, turns, 90),
        "documents": lambda own: data_mix.encode(own, documents, {}),
        "documents of middle length": lambda own: data_mix.encode(own, documents, {"length": [0.2, 0.8]}),
        "windows": lambda own: list(clm.windows(own, documents, 8)),
    }
    for name, way in ways.items():
        assert way(adds) == way(plain), name
    ids = finetuning.encode(adds, framing, ROW).ids
    assert ids.count(adds.eos_token_id) == 1 and ids[-1] == adds.eos_token_id


def test_an_answer_s_first_token_is_scored_and_the_eos_once() -> None:
    """By hand: the prompt ends before the answer's space, the answer is all its tokens and one EOS."""
    tokenizer = around((BOS,), (EOS,))
    [part] = encoding.split(tokenizer, "a cat", [" can fly."])
    assert tokenizer.convert_ids_to_tokens(part.prompt)[0] == BOS
    assert (tokenizer.decode(part.prompt[1:]), tokenizer.decode(part.completion)) == ("a cat", " can fly.")
    row = finetuning.encode(tokenizer, Framing(MNLI, "default", "sound", (), 90), ROW)
    scored = [token for token, counted in zip(row.ids, row.scored, strict=True) if counted]
    assert tokenizer.decode(scored) == f" neutral{EOS}"


def test_a_conversation_s_eos_is_one_token_even_where_special_tokens_are_split() -> None:
    tokenizer = around((BOS,), ())
    whole = encoding.masked(tokenizer, (Turn("user", "a"), Turn("assistant", "b")), 90)
    tokenizer._tokenizer.encode_special_tokens = True
    tokenizer.split_special_tokens = True
    assert encoding.masked(tokenizer, (Turn("user", "a"), Turn("assistant", "b")), 90) == whole
    assert whole.ids[-1] == tokenizer.eos_token_id


def test_what_goes_before_where_a_normaliser_leaves_nothing_of_a_text() -> None:
    from tokenizers import Regex, normalizers

    tokenizer = around((BOS,), (EOS,))
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex("[a-z]"), "")
    assert encoding.leading(tokenizer) == [tokenizer.bos_token_id]
    assert encoding.tokenized(tokenizer, ["", "abc"]) == [([tokenizer.bos_token_id], [0])] * 2
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel()
    assert encoding.tokenized(tokenizer, ["abc"]) == [([], [])]
