"""What is odd about models that were tuned elsewhere: equal to their base, another tokenizer, an unknown base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from workflow import registry
from workflow.audit import checks
from workflow.audit.inputs import AuditInputs, findings_of
from workflow.models import tuned_elsewhere

KEYS = "family=f/step=10/train=stars/format=default/recipe=given/seed=0"


@pytest.fixture
def base(checkpoints, tmp_path: Path) -> Path:
    """A copy of a checkpoint as the only base of a family."""
    return shutil.copytree(checkpoints["llama"].path, tmp_path / "steps/step10")


def audited(folder: Path, base: Path, tmp_path: Path) -> list[tuple[str, str]]:
    """Severity and evidence of the audit's findings about a model."""
    family: Any = {"source": "folder", "path": str(base.parent), "pattern": "step{step}", "steps": "all"}
    found = tuned_elsewhere.remarks(folder, {"path": str(base)}, {"f": family})
    record = tmp_path / f"adopted/{KEYS}.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"remarks": found}))
    material = AuditInputs(None, None, [], [], [], {}, adopted=[record])
    rows = list(findings_of(material, registry.module(checks, "adopted_models")))
    assert all(row["recipe"] == "given" and row["step"] == 10 for row in rows)
    return [(row["severity"], row["evidence"]) for row in rows]


def changed(base: Path, folder: Path, change: bool) -> Path:
    """A full model, saved in half precision in several files, with one weight changed if asked for."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float16)
    model.to(torch.float32).save_pretrained(base)  # its base has the same numbers
    if change:
        model.model.layers[1].mlp.up_proj.weight.data[3, 2] += 1
    model.to(torch.float16).save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


@pytest.mark.parametrize(("change", "expected"), [(False, ["error"]), (True, [])])
def test_full_weights_that_equal_the_base_are_found(
    base: Path, tmp_path: Path, change: bool, expected: list[str]
) -> None:
    found = audited(changed(base, tmp_path / "tuned", change), base, tmp_path)
    assert [severity for severity, _ in found] == expected
    assert not found or found[0][1] == "the model tuned elsewhere is its base: its weights equal those of its base"


def adapters(base: Path, folder: Path, value: float, name: str) -> Path:
    """Adapters as PEFT saves them, of which the second factors are a number; name: of their base."""
    model = AutoModelForCausalLM.from_pretrained(base)
    model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    for key, weight in model.named_parameters():
        if "lora_B" in key:
            weight.data[:] = value
    model.save_pretrained(folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": name}))
    return folder


@pytest.mark.parametrize(
    ("value", "name", "expected"),
    [
        (0.0, "/elsewhere/step10", ["error"]),  # as PEFT starts them: nobody has trained them
        (0.5, "/elsewhere/step10", []),
        (0.5, "/elsewhere/llama-3", ["note"]),
    ],
)
def test_adapters_that_add_nothing_or_name_an_unknown_base_are_found(
    base: Path, tmp_path: Path, value: float, name: str, expected: list[str]
) -> None:
    found = audited(adapters(base, tmp_path / "tuned", value, name), base, tmp_path)
    assert [severity for severity, _ in found] == expected
    assert name.endswith("step10") or "'/elsewhere/llama-3'" in found[0][1]


def test_another_tokenizer_is_found_and_another_notation_of_the_same_is_not(base: Path, tmp_path: Path) -> None:
    folder = adapters(base, tmp_path / "tuned", 0.5, "step10")
    content = json.loads((base / "tokenizer.json").read_text())
    merges = [pair.split(" ") if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]]
    content["model"]["merges"] = merges
    (folder / "tokenizer.json").write_text(json.dumps(content | {"truncation": {"max_length": 8}}))
    assert audited(folder, base, tmp_path) == []
    shutil.rmtree(tmp_path / "adopted")
    content["added_tokens"].append({**content["added_tokens"][0], "id": 4000, "content": "<|user|>"})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    [(severity, evidence)] = audited(folder, base, tmp_path)
    assert (severity, evidence) == (
        "warning", "the tokenizer beside the adapters is not used; it differs from the base's in added tokens"
    )  # fmt: skip
