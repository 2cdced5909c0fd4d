"""Tokenizers of twelve shapes that checkpoints come with: a `tokenizer.json` with its settings, trained on a page of text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

BOS, EOS, PAD, UNKNOWN = "<s>", "</s>", "<pad>", "<unk>"
BYTES = [f"<0x{number:02X}>" for number in range(256)]
WORDS = ("<|think|>", "<keep>")
NUMBERS = ["In 2024 and 2024, 100 of 007."] * 40


@dataclass(frozen=True)
class Shape:
    """What a tokenizer puts before and behind a text by itself, and how it is made.

    named: special tokens in its tokenizer_config.json.
    """

    make: Callable[[Sequence[str], int], Tokenizer]
    before: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    named: dict[str, Any] = field(default_factory=lambda: {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD})


def byte_level(page: Sequence[str], size: int, prefix: bool = False, digits: bool = False) -> Tokenizer:
    """Byte-level BPE, as of GPT-2; digits: each by itself, though the vocabulary has tokens of several (NUMBERS)."""
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    found.decoder = decoders.ByteLevel()
    found.train_from_iterator(
        [*NUMBERS, *page],
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=[BOS, EOS, PAD], show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip
    if digits:
        apart = pre_tokenizers.Digits(individual_digits=True)
        found.pre_tokenizer = pre_tokenizers.Sequence([apart, found.pre_tokenizer])
    return found


def sentencepiece(page: Sequence[str], size: int, scheme: str = "first", fallback: bool = True) -> Tokenizer:
    """BPE on words that a space mark leads, as of Llama 2; scheme: which pieces get the mark; fallback: bytes for the unknown."""
    found = Tokenizer(models.BPE(unk_token=UNKNOWN, fuse_unk=True, byte_fallback=fallback))
    found.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    found.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = [UNKNOWN, BOS, EOS, PAD, *(BYTES if fallback else [])]
    alphabet = [] if fallback else sorted(set("".join(page)))
    found.train_from_iterator(
        page, trainers.BpeTrainer(
            vocab_size=size, special_tokens=special, show_progress=False, initial_alphabet=alphabet,
            limit_alphabet=40 if fallback else 1000,
        ),
    )  # fmt: skip
    return found


def unigram(page: Sequence[str], size: int) -> Tokenizer:
    """A unigram model, as of T5, with NFKC."""
    found = Tokenizer(models.Unigram())
    found.normalizer = normalizers.NFKC()
    found.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    found.decoder = decoders.Metaspace(prepend_scheme="always")
    special = [UNKNOWN, BOS, EOS, PAD]
    found.train_from_iterator(
        page, trainers.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token=UNKNOWN, show_progress=False)
    )
    return found


def with_words(page: Sequence[str], size: int) -> Tokenizer:
    """Byte-level BPE with a special word, and a plain one that takes the white space beside it."""
    found = byte_level(page, size)
    found.add_special_tokens([AddedToken(WORDS[0], special=True)])
    found.add_tokens([AddedToken(WORDS[1], lstrip=True, rstrip=True, normalized=False)])
    return found


def stripping(page: Sequence[str], size: int) -> Tokenizer:
    """Byte-level BPE behind a normaliser that takes case, accents and white space away."""
    found = byte_level([text.lower() for text in page], size)
    found.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase(),
         normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )  # fmt: skip
    return found


def confined(page: Sequence[str], size: int) -> Tokenizer:
    """Byte-level BPE with digits apart, saved with truncation and padding switched on."""
    found = byte_level(page, size, digits=True)
    found.enable_truncation(max_length=8)
    found.enable_padding(pad_id=2, pad_token=PAD, length=32)
    return found


SHAPES = {
    "bos": Shape(byte_level, before=(BOS,)),
    "eos": Shape(byte_level, behind=(EOS,)),
    "both": Shape(lambda page, size: byte_level(page, size, prefix=True), before=(BOS,), behind=(EOS,)),
    "prefix_first": Shape(sentencepiece, before=(BOS,)),
    "prefix_always": Shape(lambda page, size: sentencepiece(page, size, "always"), before=(BOS,), behind=(EOS,)),
    "prefix_never": Shape(lambda page, size: sentencepiece(page, size, "never"), before=(BOS,)),
    "byte_fallback": Shape(sentencepiece, named={"eos_token": EOS}),
    "unigram": Shape(unigram, behind=(EOS,)),
    "added_words": Shape(with_words, before=(BOS, WORDS[0])),
    "stripping": Shape(stripping),
    "confined": Shape(confined, before=(BOS,)),
    "no_specials": Shape(byte_level, named={}),
}


def tokenizer(shape: Shape, page: Sequence[str], size: int) -> Tokenizer:
    """The shape's tokenizer of about that many ids, with its special tokens before and behind a text."""
    found = shape.make(page, size)
    special = [(token, found.token_to_id(token)) for token in dict.fromkeys([*shape.before, *shape.behind])]
    if special:
        single = " ".join([*shape.before, "$A", *shape.behind])
        found.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    return found


def save(found: Tokenizer, shape: Shape, folder: Path, picked: str | None = "PreTrainedTokenizerFast") -> None:
    """Write a tokenizer as checkpoints hold it; picked: the class that tokenizer_config.json names, None for none."""
    folder.mkdir(parents=True, exist_ok=True)
    found.save(str(folder / "tokenizer.json"))
    settings = {"model_max_length": 4096, **shape.named} | ({"tokenizer_class": picked} if picked else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def ids(found: Tokenizer, shape: Shape, text: str) -> tuple[list[int], list[int]]:
    """By the tokenizers package alone: what goes before a text with its ids, and the character at which each ends."""
    found.no_truncation()
    found.no_padding()
    encoding = found.encode(text, add_special_tokens=False)
    lead = [found.token_to_id(token) for token in shape.before]
    return [*lead, *encoding.ids], [0] * len(lead) + [end for _, end in encoding.offsets]
