"""The card of a tuned model: a README.md in the hub's form that says what it was made from, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from workflow import task

CLASSES = {"full": ("transformers", "AutoModelForCausalLM"), "lora": ("peft", "AutoPeftModelForCausalLM")}
# Of adapters whose base is in a folder.
APART = (
    "These are adapters alone. `base_model_name_or_path` in `adapter_config.json` names the folder of their base as seen from "
    "the study's folder, in which they load as shown; elsewhere it has to be changed.\n\n"
)


# config.json of transformers 5 keeps the base of rotary positions where earlier versions do not look for it.
NEEDS = "It needs transformers 5: earlier versions may load it without an error and with other positions of tokens.\n\n"


def card(lineage: Mapping[str, Any]) -> str:
    """The card in Markdown, led by the hub's metadata.

    lineage: keys of the model, `recipe_settings`, `base` (its manifest), `examples` and `dropped`, as in lineage.json.
    """
    base, settings = lineage["base"], lineage["recipe_settings"]
    library, loader = CLASSES[settings["method"]]
    apart = "" if base["repo"] or library != "peft" else APART
    name = f"{lineage['family']}, step {lineage['step']}, tuned on {lineage['train']}"
    rows = {
        "base": f"{_source(base)}, step {base['step']} of pre-training",
        "task": f"{lineage['train']}, prompts in format {lineage['format']}",
        "recipe": f"{lineage['recipe']} ({settings['method']}, learning rate {settings['learning_rate']:g})",
        "seed": lineage["seed"],
        "examples": f"{lineage['examples']}, and {lineage['dropped']} dropped as too long",
    }
    table = "".join(f"| {key} | {value} |\n" for key, value in rows.items())
    return (
        f"---\n{yaml.safe_dump(_metadata(lineage, library), sort_keys=False)}---\n\n# {name}\n\n"
        f"One of the models of a Tunecast study, which sets tuned models beside their untouched bases.\n\n"
        f"| | |\n|---|---|\n{table}\n"
        f"```python\nfrom {library} import {loader}\n\nmodel = {loader}.from_pretrained(folder)\n```\n\n{apart}{NEEDS}"
        "`lineage.json` holds every setting of the recipe and the hash of each file of the base.\n"
    )


def _metadata(lineage: Mapping[str, Any], library: str) -> dict[str, Any]:
    """What the hub reads: library, task, tags; base and data set where they are on the hub."""
    base, read = lineage["base"], task.load(lineage["train"])
    known = {"library_name": library, "pipeline_tag": "text-generation", "tags": ["tunecast"]}
    if base["repo"]:
        known |= {"base_model": base["repo"], "base_model_relation": "adapter" if library == "peft" else "finetune"}
    return known | ({"datasets": [read.hub]} if read.hub else {})


def _source(base: Mapping[str, Any]) -> str:
    """Where the base is from, without the folders of a machine."""
    if base["repo"]:
        return f"{base['repo']} at {base['revision']}"
    return {
        "trained": f"family {base['family']}, trained in the study",
        "folder": f"family {base['family']}, a local folder",
    }[base["source"]]
