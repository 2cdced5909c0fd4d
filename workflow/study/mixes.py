"""Mixes of tasks that one model is fine-tuned on (`train: {mix: {mnli: 0.5, xsum: 0.5}}`): their names and shares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from workflow.settings import Study

LONGEST = 64  # characters of a name in paths

Shares = dict[str, float]


def expanded(study: Study) -> tuple[Study, list[str]]:
    """Return the study with each mix as a name among the training tasks of its block, all mixes in `mixes`, and a line for
    each mistake."""
    mixes: dict[str, Shares] = {}
    blocks: list[dict[str, Any]] = []
    lines: list[str] = []
    for number, block in enumerate(study["models"]):
        names = []
        for entry in block["train"] if isinstance(block["train"], list) else [block["train"]]:
            if isinstance(entry, str):
                names.append(entry)
                continue
            found = shares(entry["mix"])
            name = entry.get("name", named(found))
            lines += [f"config.yaml: models/{number}/train: {line}" for line in _mistakes(name, found, mixes)]
            mixes[name] = found
            names.append(name)
        blocks.append({**block, "train": list(dict.fromkeys(names))})
    return cast(Study, {**study, "models": blocks, "mixes": mixes}), lines


def shares(mix: Mapping[str, Any]) -> Shares:
    """Return the share of each task, in the order of the config, divided by their sum."""
    total = sum(mix.values())
    return {name: weight / total for name, weight in mix.items()}


def named(mix: Shares) -> str:
    """Return the name of a mix: its tasks with their shares, such as `mnli.5-xsum.5`."""
    return "-".join(name + re.sub(r"^0(?=\.)", "", f"{share:.3g}") for name, share in mix.items())


def _mistakes(name: str, mix: Shares, others: Mapping[str, Shares]) -> list[str]:
    """Return what is wrong with the name of a mix."""
    if len(name) > LONGEST:
        return [f"the mix of {', '.join(mix)} has a name of {len(name)} characters; give it a shorter `name`"]
    if others.get(name, mix) != mix:
        return [f"two mixes have the name {name!r}; give one of them another `name`"]
    return []
