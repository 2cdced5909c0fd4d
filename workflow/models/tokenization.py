"""Load the tokenizer of a checkpoint's folder with the rules of its tokenizer.json.

transformers chooses a tokenizer class by the names in tokenizer_config.json and config.json. A class may replace the rules
of tokenizer.json (splitting of words, digits and white space, tokens before a text), or add special tokens that the file
does not have. A model that is given other tokens than in training has wrong scores. So the class is compared with the file
on PROBES, and where they differ the file's rules are used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow.errors import StudyError, first_line
from workflow.storage.files import json_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

FILE = "tokenizer.json"
NAMES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")  # files that may name further tokens
SPECIAL = ("bos_token", "eos_token", "pad_token")
MOST = 256  # added tokens that are compared
PROBES = (
    "In 2024, 1,234.5 of 007 (3.14%) cost $99 or 0x1F; 100000000",
    "  two  spaces,   three    four\ttab\t\ttabs  ",
    "line\nline\n\nparagraph\r\n \n  end\n",
    "It's they'll WE'VE don't I'd CamelCase snake_case x==y!=z a.b@c.de <p>...</p>",
    "Ça va? naïve cafe\u0301 Ünïcode Ελλάδα Привет שלום مرحبا नमस्ते สวัสดี 日本語 한국어 ﬁ ½ Ⅷ ＡＢＣ",
    "😀👩‍👩‍👧\u00a0\u200b\u3000\ufeff´`“”—…",
    "a",
    " a",
    "",
)


def load(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder by transformers' class, unless that differs from tokenizer.json; then log it.

    Errors: StudyError for a tokenizer that does not map tokens to characters; any error of transformers for one that cannot
    be loaded.
    """
    picked = _picked(folder)
    if (folder / FILE).is_file():
        tokenizer = as_filed(picked, folder)
    elif isinstance(picked, Exception):
        raise picked
    else:
        tokenizer = picked
    if not tokenizer.is_fast:
        raise StudyError(f"{folder}: {type(tokenizer).__name__} does not map its tokens to characters; expected {FILE}")
    return tokenizer


def _picked(folder: Path) -> PreTrainedTokenizerBase | Exception:
    """Return the tokenizer by transformers' class, or the error that the class raised."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # a class may fail on the file of another class
        return error
    if tokenizer.is_fast:
        _merge_always(tokenizer.backend_tokenizer)
    return tokenizer


def _merge_always(rules: Tokenizer) -> bool:
    """Switch off BPE dropout, which is meant for pre-training but saved and applied at every call; return whether it was on."""
    dropout = getattr(rules.model, "dropout", None)
    if dropout:
        rules.model.dropout = None
    return bool(dropout)


def as_filed(picked: PreTrainedTokenizerBase | Exception, folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer if it agrees with tokenizer.json, else one with the file's rules."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    file = Tokenizer.from_file(str(folder / FILE))
    file.no_padding()
    file.no_truncation()
    if _merge_always(file):
        logging.getLogger("tunecast").warning(
            "%s: BPE dropout, which %s asks for, is switched off, so that a text always has the same tokens",
            folder,
            FILE,
        )
    if unread := _unread(file):
        logging.getLogger("tunecast").warning(
            "%s: the vocabulary of %s lacks characters (%s among them) and has no token for unknown ones: they are "
            "dropped from every text", folder, FILE, ", ".join(unread),
        )  # fmt: skip
    tokenizer = None if isinstance(picked, Exception) else picked
    reason = first_line(picked) if isinstance(picked, Exception) else _difference(picked, file, folder)
    if tokenizer is not None and reason is None:
        return tokenizer
    by_file = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    _merge_always(by_file.backend_tokenizer)
    # Where tokenizer_config.json itself contradicts tokenizer.json, the class is not the cause.
    if tokenizer and not _unnamed(tokenizer, file, folder) and _read_alike(tokenizer, by_file, file):
        return tokenizer
    _name_special(by_file, tokenizer, file, folder)
    kind = type(tokenizer).__name__ if tokenizer else "transformers' class for this folder"
    logging.getLogger("tunecast").warning(
        "%s: the rules of %s are used, not those of %s: %s", folder, FILE, kind, reason
    )
    return by_file


def _unread(file: Tokenizer) -> list[str]:
    """Return letters and digits of the probes for which the file has no token."""
    letters = sorted({character for text in PROBES for character in text if character.isalnum()})
    return [letter for letter in letters if not file.encode(letter, add_special_tokens=False).ids][:5]


def _difference(tokenizer: PreTrainedTokenizerBase, file: Tokenizer, folder: Path) -> str | None:
    """Describe the difference between a tokenizer and its file; None if there is none."""
    if added := _unnamed(tokenizer, file, folder):
        return f"it adds {', '.join(map(repr, added))}, which no file of the checkpoint names"
    for text in (*PROBES, *_added(file)):
        ids, expected = tokenizer(text)["input_ids"], file.encode(text).ids
        if ids != expected:
            return (
                f"{text!r} would be {len(ids)} tokens instead of {len(expected)}"
                if len(ids) != len(expected)
                else f"{text!r} would be different tokens"
            )
    return None


def _read_alike(tokenizer: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, file: Tokenizer) -> bool:
    """Return whether two tokenizers give the same tokens for all probes."""
    return all(tokenizer(text)["input_ids"] == other(text)["input_ids"] for text in (*PROBES, *_added(file)))


def _added(file: Tokenizer) -> Iterator[str]:
    """Yield a probe of the tokens added to the file's vocabulary, which may absorb white space around them."""
    words = [token.content for token in file.get_added_tokens_decoder().values()][:MOST]
    yield "".join(f"a {word} b{word}" for word in words)


def _unnamed(tokenizer: PreTrainedTokenizerBase, file: Tokenizer, folder: Path) -> list[str]:
    """Return the tokens of a tokenizer that no file of the checkpoint names."""
    if len(tokenizer) == file.get_vocab_size():
        return []
    named = set(file.get_vocab())
    for name in NAMES:
        if (folder / name).is_file():
            named.update(_texts(json_object(folder / name)))
    return sorted(set(tokenizer.get_vocab()) - named)


def _texts(value: Any) -> Iterator[str]:
    """Yield all strings in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _name_special(
    tokenizer: PreTrainedTokenizerBase, picked: PreTrainedTokenizerBase | None, file: Tokenizer, folder: Path
) -> None:
    """Set BOS, EOS and padding where tokenizer_config.json does not: as the class does, else by the ids in config.json.

    Only tokens of the file are used.
    """
    config = json_object(folder / "config.json") if (folder / "config.json").is_file() else {}
    special = {number: token.content for number, token in file.get_added_tokens_decoder().items() if token.special}
    for name in SPECIAL:
        default = getattr(picked, name, None)
        token = default if default in special.values() else special.get(_number(config.get(f"{name}_id")))
        if getattr(tokenizer, name) is None and token is not None:
            setattr(tokenizer, name, token)


def _number(value: Any) -> int:
    """An id of config.json: the first where several are listed, -1 where there is none."""
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, int) else -1
