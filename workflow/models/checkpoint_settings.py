"""Check that a checkpoint's JSON files ask transformers for neither code nor other weights.

The check does not import transformers, so that a checkpoint is refused when it is fetched and not hours later.
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
# Implementations that transformers includes -> package that one needs. transformers takes any other name for code on the hub.
IMPLEMENTATIONS: dict[str, dict[str, str | None]] = {
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
# Architectures whose embedding has no padding row, so that any padding id is allowed.
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
    """Check the settings of a folder. weights: its weight file, or the index of its weight files.

    Errors: StudyError naming file and key.
    """
    for name in (CONFIG, TOKENIZER, GENERATION):
        if (folder / name).is_file():
            for key, value in _entries(json_object(folder / name)):
                _check_entry(f"{folder / name}: {key!r}", key.removeprefix("_"), value, weights)
    if (folder / CONFIG).is_file():
        _check_padding(folder / CONFIG)


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield all keys of a JSON value with their values, those of nested objects included."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item
            yield from _entries(item)
    elif isinstance(value, list):
        for item in value:
            yield from _entries(item)


def _check_entry(location: str, key: str, value: Any, weights: str) -> None:
    """Raise StudyError for a key that asks for code, quantised weights or other files."""
    if key in CODE and value is not None:
        raise StudyError(f"{location} asks for code from the checkpoint, which is never run")
    if key in IMPLEMENTATIONS:
        for name in value.values() if isinstance(value, dict) else [value]:
            _check_implementation(location, name, IMPLEMENTATIONS[key])
    if key in QUANTIZED and value:
        raise StudyError(
            f"{location} asks for quantised weights; expected unquantised ones; if the weights are not quantised, remove the key"
        )
    if key == "transformers_weights" and value not in (None, weights):
        raise StudyError(
            f"{location} is {shown(value)}, but the weights are in {weights}; remove the key or the other weights"
        )
    if key == "fast_tokenizer_files" and any(name != "tokenizer.json" for name in value or ()):
        raise StudyError(f"{location} is {shown(value)}; expected one tokenizer for all versions: tokenizer.json")


def _check_implementation(location: str, name: Any, known: dict[str, str | None]) -> None:
    """Raise StudyError unless transformers includes the implementation and its package is installed."""
    package = known.get(name) if isinstance(name, str) else None
    if name is None or (name in known and (package is None or find_spec(package))):
        return
    plain = ", ".join(implementation for implementation, needed in known.items() if needed is None)
    need = f", which needs the package {package}" if name in known else ""
    raise StudyError(f"{location} is {shown(name)}{need}; allowed: {plain}, or remove the key")


def _check_padding(path: Path) -> None:
    """Raise StudyError if the padding token has no row in the embedding; transformers cannot build such a model."""
    config = json_object(path)
    if config.get("model_type") in WITHOUT_PADDING:
        return
    for settings in (config, config.get("text_config")):
        rows, pad = (
            settings.get(key) if isinstance(settings, dict) else None for key in ("vocab_size", "pad_token_id")
        )
        if isinstance(rows, int) and isinstance(pad, int) and not -rows <= pad < rows:
            raise StudyError(
                f"{path}: 'pad_token_id' is {pad}, the embedding has {rows} rows; expected an id below {rows}, or null"
            )
