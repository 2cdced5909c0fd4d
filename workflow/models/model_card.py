"""The card of a tuned model: a README.md in the hub's form with the model's origin and the code that loads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from workflow import task
from workflow.settings import Base

CLASSES = {"full": ("transformers", "AutoModelForCausalLM"), "lora": ("peft", "AutoPeftModelForCausalLM")}
# For adapters whose base is in a folder.
APART = (
    "This folder holds adapters only. `base_model_name_or_path` in `adapter_config.json` names the folder of their base relative "
    "to the study's folder. Change it to load them from elsewhere.\n\n"
)


# transformers 5 writes the base of rotary positions to a key of config.json that earlier versions do not read.
NEEDS = "It needs transformers 5: earlier versions may load it without an error and with other positions of tokens.\n\n"


def card(lineage: Mapping[str, Any]) -> str:
    """Return the card in Markdown, with the hub's metadata first.

    lineage: keys of the model, `recipe_settings`, `base` (its manifest), `examples` and `dropped`, as in lineage.json.
    """
    base, settings = lineage["base"], lineage["recipe_settings"]
    library, loader = CLASSES[settings["method"]]
    apart = "" if base["repo"] or library != "peft" else APART
    name = f"{lineage['family']}, step {lineage['step']}, tuned on {lineage['train']}"
    rows = {
        "base": f"{_source(base)}, step {base['step']} of pre-training",
        "task": f"{_tasks(lineage)}, prompts in format {lineage['format']}",
        "recipe": f"{lineage['recipe']} ({settings['method']}, learning rate {settings['learning_rate']:g})",
        "seed": lineage["seed"],
        "examples": f"{lineage['examples']}, and {lineage['dropped']} dropped as too long",
    }
    table = "".join(f"| {key} | {value} |\n" for key, value in rows.items())
    return (
        f"---\n{yaml.safe_dump(_metadata(lineage, library), sort_keys=False)}---\n\n# {name}\n\n"
        f"A model of a Tunecast study, which compares fine-tuned models with their bases.\n\n"
        f"| | |\n|---|---|\n{table}\n"
        f"```python\nfrom {library} import {loader}\n\nmodel = {loader}.from_pretrained(folder)\n```\n\n{apart}{NEEDS}"
        "`lineage.json` holds every setting of the recipe and the hash of each file of the base.\n"
    )


def _metadata(lineage: Mapping[str, Any], library: str) -> dict[str, Any]:
    """Return the hub's metadata: library, task, tags; base and dataset if they are on the hub."""
    base = lineage["base"]
    names = lineage["recipe_settings"].get("mix", (lineage["train"],))
    datasets = list(dict.fromkeys(hub for name in names if (hub := task.load(name).hub)))
    metadata = {"library_name": library, "pipeline_tag": "text-generation", "tags": ["tunecast"]}
    if base["repo"]:
        metadata |= {"base_model": base["repo"], "base_model_relation": "adapter" if library == "peft" else "finetune"}
    return metadata | ({"datasets": datasets} if datasets else {})


def _tasks(lineage: Mapping[str, Any]) -> str:
    """Return the fine-tuning task; of a mix, its tasks with their shares."""
    mix = lineage["recipe_settings"].get("mix")
    return ", ".join(f"{share:.3g} {name}" for name, share in mix.items()) if mix else str(lineage["train"])


def _source(base: Base) -> str:
    """Return the origin of the base, without any path."""
    if base["repo"]:
        return f"{base['repo']} at {base['revision']}"
    return {
        "trained": f"family {base['family']}, trained in the study",
        "folder": f"family {base['family']}, a local folder",
        "merged": f"family {base['family']}, means of checkpoints that the study made",
    }[base["source"]]
