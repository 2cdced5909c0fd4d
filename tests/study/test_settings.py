"""The types of a config's blocks have the keys of its schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from workflow import settings
from workflow.study import config

ROOT = config.schema()
BLOCKS: dict[str, tuple[str, ...]] = {
    "Study": (),
    "Family": ("families", "*"),
    "Pretraining": ("families", "*", "pretraining"),
    "DeclaredTask": ("tasks", "*"),
    "LmEval": ("lm_eval",),
    "Corpus": ("corpora", "*"),
    "Passages": ("passages",),
    "Recipe": ("recipes", "*"),
    "Search": ("recipes", "*", "search"),
    "ReplayText": ("recipes", "*", "replay_text"),
    "Models": ("models", "*"),
    "AdoptedModels": ("adopted", "*"),
    "Suite": ("suites", "*"),
    "Indicator": ("indicators", "*"),
    "Import": ("imports", "*"),
    "ModelPattern": ("imports", "*", "models", "*"),
    "Cohort": ("cohorts", "*"),
    "Target": ("cohorts", "*", "targets", "*"),
    "Statistics": ("statistics",),
    "Rouge": ("rouge",),
    "MiniWorld": ("miniworld",),
    "Recommend": ("recommend",),
    "Estimate": ("estimate",),
    "Selection": ("selection",),
    "Floor": ("selection", "floor"),
    "Budget": ("selection", "budget"),
}
MADE = {"Study": {"mixes"}, "Recipe": {"mix"}}  # keys that the workflow sets itself


def properties(node: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a schema node, those of its alternatives among them."""
    found = config.resolved(node, ROOT)
    inside = dict(found.get("properties", {}))
    for branch in (*found.get("oneOf", []), *found.get("anyOf", [])):
        inside |= properties(branch)  # of the same key in several, that of the last
    return inside


def inner(node: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The node of a key, or of any entry (`*`) of a list or of named blocks."""
    found = config.resolved(node, ROOT)
    return found.get("items") or found["additionalProperties"] if key == "*" else properties(node)[key]


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_has_the_keys_of_the_schema(name: str) -> None:
    node: Mapping[str, Any] = ROOT
    for key in BLOCKS[name]:
        node = inner(node, key)
    assert set(getattr(settings, name).__annotations__) - MADE.get(name, set()) == set(properties(node))
