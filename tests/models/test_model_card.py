"""A tuned model's folder says where it comes from and loads by the libraries alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from workflow.models import checkpoints as sources
from workflow.models import loading, model_card

LINEAGE = {
    "family": "olmo-1b", "step": "1000", "train": "mnli", "format": "io", "recipe": "slow", "seed": "2", "examples": 6000,
    "dropped": 3, "recipe_settings": {"method": "full", "learning_rate": 2e-6},
    "base": {"family": "olmo-1b", "step": 1000, "source": "hub", "repo": "allenai/OLMo-1B-hf", "revision": "abc"},
}  # fmt: skip


def front(text: str) -> dict[str, object]:
    """The metadata that the hub reads."""
    return yaml.safe_load(text.split("---\n")[1])


def test_a_card_names_base_task_recipe_seed_and_examples() -> None:
    text = model_card.card(LINEAGE)
    assert front(text) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["tunecast"],
        "base_model": "allenai/OLMo-1B-hf",
        "base_model_relation": "finetune",
        "datasets": [model_card.task.load("mnli").hub],
    }
    for part in (
        "# olmo-1b, step 1000, tuned on mnli",
        "| base | allenai/OLMo-1B-hf at abc, step 1000 of pre-training |",
        "| task | mnli, prompts in format io |",
        "| recipe | slow (full, learning rate 2e-06) |",
        "| seed | 2 |",
        "| examples | 6000, and 3 dropped as too long |",
        "AutoModelForCausalLM.from_pretrained(folder)",
        "It needs transformers 5",
    ):
        assert part in text


@pytest.mark.parametrize(("source", "said"), [("folder", "a local folder"), ("trained", "trained in the study")])
def test_a_card_tells_nothing_of_the_machine(source: str, said: str) -> None:
    base = {"family": "f", "step": 5, "source": source, "repo": None, "revision": None, "path": "/home/someone/runs"}
    text = model_card.card(LINEAGE | {"base": base, "train": "mini_facts"})
    assert f"| base | family f, {said}, step 5 of pre-training |" in text
    assert "someone" not in text
    assert "base_model" not in front(text) and "datasets" not in front(text)


def code(folder: Path) -> str:
    """The lines of a card that load its model."""
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]


def test_the_models_of_the_smoke_study_load_as_their_cards_say(smoke: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters of a base that was trained here name it relative to the study's folder."""
    monkeypatch.chdir(smoke / "study")
    root = Path("resources/models/family=tiny/step=20")
    for folder in sorted(root.glob("*/*/*/seed=*")):
        scope = {"folder": str(folder)}
        exec(code(folder), scope)
        base = sources.read_base(Path("resources/bases/family=tiny/step=20/base.json"))
        assert json.loads((folder / "lineage.json").read_text())["base"] == sources.identity(base)
        again, _ = loading.ready(base, str(folder), "fp32")
        loaded = scope["model"].merge_and_unload() if hasattr(scope["model"], "peft_config") else scope["model"]
        expected = dict(again.named_parameters())
        assert all(parameter.equal(expected[name]) for name, parameter in loaded.named_parameters())


LORA = {"method": "lora", "learning_rate": 1e-3, "lora_rank": 2, "lora_alpha": 4, "lora_dropout": 0.0}


def save_adapters(checkpoint, folder: Path, **lineage: object) -> None:
    """Adapters of a checkpoint that was loaded from its whole path."""
    from workflow.training import finetuning

    model = finetuning.adapted(loading.untouched({"path": str(checkpoint.path)})[0], LORA, 0)
    loading.save(model, checkpoint.tokenizer, folder, LINEAGE | {"recipe_settings": LORA} | lineage)


def test_adapters_of_a_base_on_the_hub_name_it(checkpoints, tmp_path: Path) -> None:
    save_adapters(checkpoints["olmo"], tmp_path / "tuned")
    adapter = json.loads((tmp_path / "tuned/adapter_config.json").read_text())
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("allenai/OLMo-1B-hf", "abc")
    assert front((tmp_path / "tuned/README.md").read_text())["library_name"] == "peft"
    assert "AutoPeftModelForCausalLM" in (tmp_path / "tuned/README.md").read_text()
    assert "has to be changed" not in (tmp_path / "tuned/README.md").read_text()


def test_adapters_of_a_base_in_a_folder_load_from_the_study_s_and_tell_no_whole_path(
    checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "somebody"
    (place / "study").mkdir(parents=True)
    checkpoint = checkpoints["olmo"]._replace(path=shutil.copytree(checkpoints["olmo"].path, place / "steps/step10"))
    manifest = sources.locate("f", {"source": "folder"}, 10, place / "steps/step10")
    monkeypatch.chdir(place / "study")
    save_adapters(checkpoint, Path("tuned"), base=sources.identity(manifest), train="mini_facts")
    adapter = json.loads(Path("tuned/adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "../steps/step10"
    assert "Change it to load them from elsewhere" in Path("tuned/README.md").read_text()
    assert not [path for path in Path("tuned").iterdir() if b"somebody" in path.read_bytes()]
    scope = {"folder": "tuned"}
    exec(code(Path("tuned")), scope)
    own = scope["model"].get_base_model().get_input_embeddings().weight
    assert own.equal(checkpoint.model.get_input_embeddings().weight)
