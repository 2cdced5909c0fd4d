"""What jobs ask for: hand-made sums, sizes against the models themselves, activations against what autograd saves."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import PAGE, Checkpoint
from running import ROOT
from yaml import safe_load

from workflow.planning import config_checks, resources
from workflow.training import pretraining

SMOKE = safe_load((ROOT / "tests" / "smoke" / "config.yaml").read_text(encoding="utf-8"))
BILLION = resources.Size(1e9, 32000)  # 16 layers of 2,000
ROW = SimpleNamespace(family="tiny", step="20", train="mini_inference", recipe="full", suite="formats", tests="all")


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The smoke study with models of a billion parameters and a published recipe."""
    monkeypatch.setattr(resources, "model_size", lambda study, family, base: BILLION)
    found = config_checks.read(SMOKE)
    found["recipes"]["full"] |= {"batch": 8, "max_tokens": 2048, "examples": 6000, "epochs": 3}
    return found


def inputs(**files: Any) -> SimpleNamespace:
    """A job's named inputs."""
    return SimpleNamespace(**({"base": "none"} | files))


def test_a_tuning_holds_weights_gradients_moments_and_activations(study: dict[str, Any]) -> None:
    needs = resources.tuning(study, ROW, inputs())
    # 16 bytes x 1e9; 121 bytes x 32,000 x 8 x 2,048 tokens = 63.4 GB.
    assert needs["mem_mb"] == 3000 + 16000
    assert needs["gpu_mem_mb"] == pytest.approx(3000 + 16000 + 63439, abs=1)
    # 6 x 1e9 x 3 x 6,000 x 1,024 = 1.1e17 operations, 11,059 s at 1e13 a second, twice that and half an hour.
    assert needs["runtime"] == pytest.approx(30 + 2 * 11059.2 / 60)


def test_a_tuning_on_several_gpus_has_a_process_for_each(study: dict[str, Any]) -> None:
    study["recipes"]["full"]["gpus"] = 2
    needs = resources.tuning(study, ROW, inputs())
    # In the host's memory the parent's as ever, and for each of two processes 3,000 MB and the base in fp32.
    assert needs["mem_mb"] == 3000 + 16000 + 2 * (3000 + 4000)
    assert needs["gpu_mem_mb"] == pytest.approx(2 * 3000 + 16000 + 63439, abs=1)
    assert needs["runtime"] == pytest.approx(30 + 2 * 11059.2 / 60 / 2)


def test_a_lora_holds_the_base_and_a_tenth_of_a_training(study: dict[str, Any]) -> None:
    study["recipes"]["full"]["method"] = "lora"
    needs = resources.tuning(study, ROW, inputs())
    assert needs["gpu_mem_mb"] == pytest.approx(3000 + 4000 + 1600 + 63439, abs=1)
    assert needs["mem_mb"] == 3000 + 2 * 4000, "on the host a rehearsal loads the base a second time"


def test_a_tuning_on_all_rows_takes_their_number_from_the_prepared_task(study: dict[str, Any], tmp_path: Path) -> None:
    del study["recipes"]["full"]["examples"]
    missing = str(tmp_path / "missing.parquet")
    with pytest.raises(FileNotFoundError) as error:
        resources.tuning(study, ROW, inputs(task=missing))
    assert error.value.filename == missing
    pq.write_table(pa.table({"id": ["a"] * 600}), tmp_path / "task.parquet")
    needs = resources.tuning(study, ROW, inputs(task=str(tmp_path / "task.parquet")))
    assert needs["runtime"] == pytest.approx(30 + 2 * 1105.92 / 60)
    study["recipes"]["full"]["fraction"] = 0.1
    needs = resources.tuning(study, ROW, inputs(task=str(tmp_path / "task.parquet")))
    assert needs["runtime"] == pytest.approx(30 + 2 * 110.592 / 60)


def test_a_cell_s_needs_follow_its_precision_and_its_rows(study: dict[str, Any]) -> None:
    exact = resources.prediction(study, ROW, inputs())
    # The weights; keys, values and work of 8,192 tokens: 4 x 4 bytes x 32,000.
    assert exact["mem_mb"] == 3000 + 4000
    assert exact["gpu_mem_mb"] == pytest.approx(3000 + 4000 + 4194, abs=1)
    # 2 tests x 6 rows x 3 formats x 2 shots = 72 rows of 1,024 tokens read and 60 written.
    assert exact["runtime"] == pytest.approx(30 + 2 * (72 * 1024 * 2e9 / 1e13 + 72 * 60 / 500) / 60)
    study["suites"]["formats"]["precision"] = "bf16"
    assert resources.prediction(study, ROW, inputs())["gpu_mem_mb"] == pytest.approx(3000 + 2000 + 2097, abs=1)


@pytest.mark.parametrize(
    ("labels", "tests", "packs"),
    [
        ("score", ["mini_inference"], 1),
        ("generate", ["mini_inference"], 8),
        ("score", ["mini_facts", "mini_summary"], 8),
    ],
)
def test_rows_that_are_written_have_the_keys_of_several_packs(
    study: dict[str, Any], labels: str, tests: list[str], packs: int
) -> None:
    """2 x 4 bytes x 32,000 x 8,192 tokens are the keys and values of a pack; one pack more is what a layer is at work on."""
    study["suites"]["formats"] |= {"labels": labels, "tests": tests}
    found = resources.prediction(study, ROW, inputs())["gpu_mem_mb"]
    assert found == pytest.approx(3000 + 4000 + (packs + 1) * 2097.152, abs=1)


def test_a_cell_on_several_gpus_has_a_process_and_a_pack_for_each(study: dict[str, Any]) -> None:
    study["suites"]["formats"]["gpus"] = 3
    needs = resources.prediction(study, ROW, inputs())
    # The parent, and three processes that load the weights whole before they keep a third.
    assert needs["mem_mb"] == 3000 + 3 * (3000 + 4000)
    # The weights once in shards; on each GPU a fifth of them put together, and a pack.
    assert needs["gpu_mem_mb"] == pytest.approx(4000 + 3 * (3000 + 800 + 4194), abs=2)
    assert needs["runtime"] == pytest.approx(30 + 2 * (72 * 1024 * 2e9 / 1e13 + 72 * 60 / 500) / 60 / 3)


def test_each_attempt_asks_for_more(study: dict[str, Any]) -> None:
    asked = resources.asked(study, resources.tuning)
    assert list(asked) == ["mem_mb", "gpu_mem_mb", "runtime"]
    assert [asked["mem_mb"](ROW, inputs(), attempt) for attempt in (1, 2, 3)] == [19000, 38000, 57000]


def test_size_of_a_model_trained_here_is_that_of_the_model() -> None:
    block = config_checks.read(SMOKE)["families"]["tiny"]["pretraining"]
    tokenizer = pretraining.train_tokenizer(PAGE, 400, 256)
    model = pretraining.initial(block, tokenizer)
    size = resources.trained_here(block | {"vocabulary": len(tokenizer)})
    assert size == (sum(weight.numel() for weight in model.parameters()), 2 * 32)


def test_size_of_a_fetched_base_is_that_of_its_weights(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = tmp_path / "base.json"
    with pytest.raises(FileNotFoundError) as error:
        resources.fetched(str(base))
    assert str(error.value.filename) == str(base)
    names = [path.name for path in checkpoint.path.iterdir()]
    base.write_text(json.dumps({"path": str(checkpoint.path), "files": {name: {} for name in names}}))
    assert resources.fetched(str(base)) == (sum(weight.numel() for weight in checkpoint.model.parameters()), 2 * 32)


def test_a_config_with_other_names_gives_layers_and_width_from_the_parameters(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": torch.zeros(12, 8, 4).numpy()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"n_layer": 2}')
    base = tmp_path / "base.json"
    base.write_text(json.dumps({"path": str(tmp_path), "files": {"model.safetensors": {}, "config.json": {}}}))
    assert resources.fetched(str(base)) == (384, 32.0)  # 384 = 12 x 32 layers x width 1


@pytest.mark.parametrize("architecture", ["Olmo", "Olmo2", "Llama", "GPTNeoX"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_autograd_saves_no_more_than_is_asked_for(architecture: str, precision: str) -> None:
    saved = [kept_bytes(architecture, precision, layers) for layers in (1, 3)]
    each = (saved[1] - saved[0]) / 2 / (128 * 64)
    assert 0.4 * resources.KEPT[precision] < each <= resources.KEPT[precision]


def kept_bytes(architecture: str, precision: str, layers: int) -> int:
    """Bytes that autograd keeps of a forward pass over 128 tokens through layers of width 64, weights left out."""
    import transformers

    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=64, hidden_size=64, intermediate_size=256, num_hidden_layers=layers, num_attention_heads=2,
        max_position_embeddings=128, eos_token_id=0, pad_token_id=0, bos_token_id=0,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config)
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        model(input_ids=torch.zeros(2, 64, dtype=torch.long), use_cache=False, logits_to_keep=1)
        weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        return sum(size for place, (size, _) in kept.items() if place not in weights)


def test_a_base_s_indicators_take_the_memory_of_the_largest_and_the_time_of_all(study: dict[str, Any]) -> None:
    common = {"precision": "fp32", "batch_tokens": 8192, "draws": 3}
    text = {**common, "corpus": "c", "documents": 100, "window": 512}
    study["indicators"] = {"noise": {**text, "measure": "weight_noise"}}
    needs = resources.measuring(study, ROW, inputs(texts=[]))
    # The weights twice; keys, values and work of 8,192 tokens: 4 x 4 bytes x 32,000.
    assert needs["mem_mb"] == 3000 + 8000
    assert needs["gpu_mem_mb"] == pytest.approx(3000 + 8000 + 4194, abs=1)
    # 2 x 1e9 x 100 x 512 tokens, without noise and with three: 41 s at 1e13 a second, twice that and half an hour.
    assert needs["runtime"] == pytest.approx(30 + 2 * 40.96 / 60)
    probe = {**common, "measure": "tuning_probe", "train": "t", "batch": 8, "max_tokens": 2048, "steps": 100}
    study["indicators"]["probe"] = {**probe, "validation": 200}
    needs = resources.measuring(study, ROW, inputs(texts=[], tasks=[]))
    # As a tuning, and a copy of the weights; 3 x (6 x 800 + 2 x 2 x 200) x 1,024 x 1e9 operations more.
    assert needs["mem_mb"] == 3000 + 16000 + 4000
    assert needs["gpu_mem_mb"] == pytest.approx(3000 + 20000 + 63439, abs=1)
    assert needs["runtime"] == pytest.approx(30 + 2 * (40.96 + 3 * 5600 * 1024 * 1e9 / 1e13) / 60)


def test_indicators_of_all_documents_take_as_long_as_their_files_are(study: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "c" / "books").mkdir(parents=True)
    (tmp_path / "c" / "books" / "train.jsonl").write_bytes(b"x" * 420_000)
    block = {
        "measure": "clm",
        "corpus": "c",
        "split": "train",
        "window": 512,
        "precision": "fp32",
        "batch_tokens": 8192,
    }
    study |= {"data_root": str(tmp_path), "indicators": {"ppl": block}}
    needs = resources.measuring(study, ROW, inputs())
    # 420,000 bytes are 100,000 tokens.
    assert needs["runtime"] == pytest.approx(30 + 2 * (2 * 2e9 * 100_000 / 1e13) / 60)


def test_what_goes_on_from_a_base_is_as_large_as_it(study: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "fetched", lambda base, place=None: BILLION)
    block = study["families"]["tiny"]["pretraining"]
    small = resources.pretraining(study, ROW, inputs(start=[]))
    study["families"]["tiny"]["pretraining"] = block | {"continue_from": {"family": "other", "step": 0}}
    large = resources.pretraining(study, ROW, inputs(start=["base.json"]))
    assert large["mem_mb"] - small["mem_mb"] > 15_000
    assert (small["gpu_mem_mb"], large["gpu_mem_mb"]) == (0, large["mem_mb"])
