"""What the JSON files of a checkpoint may ask of transformers: nothing that looks for code or for other weights.

Read without transformers, so that a checkpoint is refused when it is fetched, not when hours later it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workflow.errors import StudyError, shown
from workflow.storage.files import json_object

CONFIG, TOKENIZER, GENERATION = "config.json", "tokenizer_config.json", "generation_config.json"
CODE = ("auto_map", "custom_generate", "custom_pipelines")  # keys that name code
# Implementations that transformers has itself, by the package that one needs; it takes any other name for code on the hub.
IMPLEMENTATIONS = {
    "attn_implementation": {
        "eager": None,
        "sdpa": None,
        "flex_attention": None,
        "flash_attention_2": "flash_attn",
        "flash_attention_3": "flash_attn_interface",
    },
    "experts_implementation": {"eager": None, "batched_mm": None, "grouped_mm": None},
}
QUANTIZED = ("quantization_config", "compression_config")
# Architectures whose embedding has no row for padding, so that any id may be named for it.
WITHOUT_PADDING = (
    *(
        "bloom",
        "codegen",
        "cpmant",
        "ctrl",
        "gpt-sw3",
        "gpt2",
        "gpt_bigcode",
        "gpt_neo",
        "gpt_neox",
        "gpt_neox_japanese",
    ),
    *("gptj", "mpt", "openai-gpt", "rwkv"),
)


def check(folder: Path, weights: str) -> None:
    """Check the settings of a folder whose weights are listed in, or are, the file `weights`.

    Errors: StudyError naming file and key.
    """
    for name in (CONFIG, TOKENIZER, GENERATION):
        if (folder / name).is_file():
            for key, value in _entries(json_object(folder / name)):
                _check_entry(f"{folder / name}: {key!r}", key.removeprefix("_"), value, weights)
    if (folder / CONFIG).is_file():
        _check_padding(folder / CONFIG)


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """All keys of a JSON value with what they hold, those of nested objects too."""
    if isinstance(value, dict):
        for key, own in value.items():
            yield key, own
            yield from _entries(own)
    elif isinstance(value, list):
        for own in value:
            yield from _entries(own)


def _check_entry(place: str, key: str, value: Any, weights: str) -> None:
    """StudyError where a key asks for what is never done."""
    if key in CODE and value is not None:
        raise StudyError(f"{place} asks for code from the checkpoint, which is never run")
    if key in IMPLEMENTATIONS:
        for name in value.values() if isinstance(value, dict) else [value]:
            _check_implementation(place, name, IMPLEMENTATIONS[key])
    if key in QUANTIZED and value:
        raise StudyError(
            f"{place} asks for quantised weights; expected plain ones: where the weights are plain, remove the key"
        )
    if key == "transformers_weights" and value not in (None, weights):
        raise StudyError(
            f"{place} is {shown(value)}, other weights than {weights}; remove the key or the other weights"
        )
    if key == "fast_tokenizer_files" and any(name != "tokenizer.json" for name in value or ()):
        raise StudyError(f"{place} is {shown(value)}; expected one tokenizer for all versions: tokenizer.json")


def _check_implementation(place: str, name: Any, known: dict[str, str | None]) -> None:
    """StudyError unless transformers has the implementation itself, and what it needs is installed."""
    if name is None or (name in known and (known[name] is None or find_spec(known[name]))):
        return
    plain = ", ".join(own for own, package in known.items() if package is None)
    need = f", which needs the package {known[name]}" if name in known else ""
    raise StudyError(f"{place} is {shown(name)}{need}; allowed: {plain}, or remove the key")


def _check_padding(path: Path) -> None:
    """StudyError where the padding token has no row in the embedding, which transformers cannot build then."""
    config = json_object(path)
    if config.get("model_type") in WITHOUT_PADDING:
        return
    for own in (config, config.get("text_config")):
        rows, pad = (own.get(key) if isinstance(own, dict) else None for key in ("vocab_size", "pad_token_id"))
        if isinstance(rows, int) and isinstance(pad, int) and not -rows <= pad < rows:
            raise StudyError(
                f"{path}: 'pad_token_id' is {pad}, the embedding has {rows} rows; expected an id below {rows}, or null"
            )
