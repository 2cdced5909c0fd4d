"""The tokenizer of a checkpoint's folder, with the rules of its own tokenizer.json.

transformers picks a tokenizer class by the names in tokenizer_config.json and config.json. A class may put rules of its own
in place of those in tokenizer.json (how words, digits and white space are split, what is put before a text), or add special
tokens that the file does not have. A model read with other rules than it was trained with gives wrong numbers, so the class
is tried on PROBES, and where it reads them otherwise than the file does, the file's rules are used.
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
MOST = 256  # added tokens that are tried
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
    """The tokenizer of a folder, by the class that transformers picks unless that differs from tokenizer.json.

    Where it does, a line in the log says so. Errors: StudyError for a tokenizer that cannot tell which characters its tokens
    stand for; whatever transformers raises for one that cannot be loaded.
    """
    tokenizer, failure = _picked(folder)
    if (folder / FILE).is_file():
        tokenizer = as_filed(tokenizer, failure, folder)
    elif tokenizer is None:
        raise failure
    if not tokenizer.is_fast:
        raise StudyError(
            f"{folder}: {type(tokenizer).__name__} does not tell which characters its tokens stand for; expected {FILE}"
        )
    return tokenizer


def _picked(folder: Path) -> tuple[PreTrainedTokenizerBase | None, Exception | None]:
    """The tokenizer by transformers' class, or what that raised."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # a class may not know what to do with a file that is not its own
        return None, error
    if tokenizer.is_fast:
        _merge_always(tokenizer.backend_tokenizer)
    return tokenizer, None


def _merge_always(rules: Tokenizer) -> bool:
    """Switch dropout of BPE merges off, which is for pre-training but is saved and applied at every call; whether it was on."""
    dropout = getattr(rules.model, "dropout", None)
    if dropout:
        rules.model.dropout = None
    return bool(dropout)


def as_filed(
    tokenizer: PreTrainedTokenizerBase | None, failure: Exception | None, folder: Path
) -> PreTrainedTokenizerBase:
    """The tokenizer itself where it agrees with tokenizer.json, else one with the file's rules."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    file = Tokenizer.from_file(str(folder / FILE))
    file.no_padding()
    file.no_truncation()
    if _merge_always(file):
        logging.getLogger("tunecast").warning(
            "%s: dropout of merges, which %s asks for, is off: a text has the same tokens at each reading", folder, FILE
        )
    if unread := _unread(file):
        logging.getLogger("tunecast").warning(
            "%s: the vocabulary of %s lacks characters (%s among them) and has no token for unknown ones: they are left out of "
            "every text, neither read nor scored", folder, FILE, ", ".join(unread),
        )  # fmt: skip
    reason = _difference(tokenizer, file, folder) if tokenizer else first_line(failure)
    if reason is None:
        return tokenizer
    own = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    _merge_always(own.backend_tokenizer)
    # What tokenizer_config.json itself says otherwise than tokenizer.json is no rule of the class.
    if tokenizer and not _unnamed(tokenizer, file, folder) and _read_alike(tokenizer, own, file):
        return tokenizer
    _name_special(own, tokenizer, file, folder)
    picked = type(tokenizer).__name__ if tokenizer else "transformers' class for this folder"
    logging.getLogger("tunecast").warning(
        "%s: the rules of %s are used, not those of %s: %s", folder, FILE, picked, reason
    )
    return own


def _unread(file: Tokenizer) -> list[str]:
    """Letters and digits of the probes for which the file gives no token at all."""
    letters = sorted({character for text in PROBES for character in text if character.isalnum()})
    return [letter for letter in letters if not file.encode(letter, add_special_tokens=False).ids][:5]


def _difference(tokenizer: PreTrainedTokenizerBase, file: Tokenizer, folder: Path) -> str | None:
    """How a tokenizer differs from its file, in words; None where it does not."""
    if added := _unnamed(tokenizer, file, folder):
        return f"it adds {', '.join(map(repr, added))}, which no file of the checkpoint names"
    for text in (*PROBES, *_added(file)):
        found, expected = tokenizer(text)["input_ids"], file.encode(text).ids
        if found != expected:
            return (
                f"{text!r} would be {len(found)} tokens instead of {len(expected)}"
                if len(found) != len(expected)
                else f"{text!r} would be other tokens"
            )
    return None


def _read_alike(tokenizer: PreTrainedTokenizerBase, own: PreTrainedTokenizerBase, file: Tokenizer) -> bool:
    """Whether two tokenizers give the same tokens for all probes."""
    return all(tokenizer(text)["input_ids"] == own(text)["input_ids"] for text in (*PROBES, *_added(file)))


def _added(file: Tokenizer) -> Iterator[str]:
    """Probes of the tokens that were added to the file's vocabulary, which may take white space beside them."""
    words = [token.content for token in file.get_added_tokens_decoder().values()][:MOST]
    yield "".join(f"a {word} b{word}" for word in words)


def _unnamed(tokenizer: PreTrainedTokenizerBase, file: Tokenizer, folder: Path) -> list[str]:
    """Tokens that a tokenizer has and no file of the checkpoint."""
    if len(tokenizer) == file.get_vocab_size():
        return []
    named = set(file.get_vocab())
    for name in NAMES:
        if (folder / name).is_file():
            named.update(_texts(json_object(folder / name)))
    return sorted(set(tokenizer.get_vocab()) - named)


def _texts(value: Any) -> Iterator[str]:
    """All strings in a JSON value, keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _name_special(
    own: PreTrainedTokenizerBase, picked: PreTrainedTokenizerBase | None, file: Tokenizer, folder: Path
) -> None:
    """Name BOS, EOS and padding where tokenizer_config.json does not: as the class does, else by the ids in config.json.

    Only tokens of the file are named.
    """
    config = json_object(folder / "config.json") if (folder / "config.json").is_file() else {}
    special = {number: token.content for number, token in file.get_added_tokens_decoder().items() if token.special}
    for name in SPECIAL:
        default = getattr(picked, name, None)
        found = default if default in special.values() else special.get(_number(config.get(f"{name}_id")))
        if getattr(own, name) is None and found is not None:
            setattr(own, name, found)


def _number(value: Any) -> int | None:
    """An id of config.json: the first where several are listed."""
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, int) else None
