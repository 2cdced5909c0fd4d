"""Families from each source: which steps there are, where their weights lie, what is refused, and that they load."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hub_client
import pytest
import torch
from hub_server import HubServer
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, OlmoConfig, OlmoForCausalLM, PreTrainedTokenizerFast

from workflow.errors import StudyError
from workflow.models import checkpoint_settings, checkpoints

ROOT = Path(__file__).parents[2]
TEXT = "a bird can fly and a fish can swim"
TOKEN = "hf_NeverToBeSeenInAnyOutput"


def save_checkpoint(folder: Path, seed: int, shard: str = "1GB", tied: bool = False) -> OlmoForCausalLM:
    """Save a random two-layer model with a tokenizer trained on one sentence, and return the model."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=60, special_tokens=["<eos>"]))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(seed)
    config = OlmoConfig(vocab_size=64, pad_token_id=0, eos_token_id=0, tie_word_embeddings=tied, **sizes)
    model = OlmoForCausalLM(config).eval()
    model.save_pretrained(folder, max_shard_size=shard)
    return model


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint, not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "step100"
    save_checkpoint(folder, seed=100)
    return folder


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A whole checkpoint to damage."""
    return shutil.copytree(checkpoint, tmp_path / "step100")


def refusal(call: Callable[[], object]) -> str:
    """The message of the StudyError that a call must raise, of one line."""
    with pytest.raises(StudyError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def local(path: Path, pattern: str = "step{step}", listed: object = "all") -> dict:
    """A local family as a validated config holds it."""
    return {"source": "folder", "path": str(path), "pattern": pattern, "steps": listed}


def sha256(path: Path) -> str:
    """Hash of a whole file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Which steps there are


@pytest.mark.parametrize(
    ("pattern", "folders", "expected"),
    [
        ("step{step}", ["step1000", "step20", "step300", "step", "step7b", "mystep8", "step-9"], [20, 300, 1000]),
        ("checkpoint-{step}", ["checkpoint-500", "checkpoint-1500", "runs"], [500, 1500]),
        ("step{step}-*", ["step100-tokens1B", "step1000-tokens4B", "step5"], [100, 1000]),
        ("*{step}", ["run100", "run2-step20"], [20, 100]),
        ("*_{step}_*", ["a_12_b3", "a_3_b4"], [3, 12]),
        ("step{step}*5", ["step15", "step2-5"], [2]),
        ("step{step}", ["step000064"], [64]),
        ("v1.{step}", ["v1.30", "v1x40"], [30]),
    ],
)
def test_steps_of_a_folder(tmp_path: Path, pattern: str, folders: list[str], expected: list[int]) -> None:
    for name in folders:
        (tmp_path / name).mkdir()
    (tmp_path / "step77").write_text("a file, not a checkpoint")
    (tmp_path / "checkpoint-77").write_text("a file, not a checkpoint")
    assert checkpoints.steps("mine", local(tmp_path, pattern)) == expected


def test_a_dropped_in_and_a_linked_checkpoint_are_picked_up(tmp_path: Path) -> None:
    (tmp_path / "family" / "step10").mkdir(parents=True)
    family = local(tmp_path / "family")
    assert checkpoints.steps("mine", family) == [10]
    (tmp_path / "family" / "step2").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "family" / "step300").symlink_to(tmp_path / "elsewhere")
    assert checkpoints.steps("mine", family) == [2, 10, 300]
    assert checkpoints.steps("mine", {**family, "steps": [300, 2]}) == [2, 300]


def test_steps_that_a_folder_does_not_give(tmp_path: Path) -> None:
    assert f"families/mine/path: {tmp_path}/no" in refusal(lambda: checkpoints.steps("mine", local(tmp_path / "no")))
    message = refusal(lambda: checkpoints.steps("mine", local(tmp_path, "ckpt{step}")))
    assert str(tmp_path) in message and "ckpt{step}" in message
    for name in ("step10", "step20", "step010"):
        (tmp_path / name).mkdir()
    message = refusal(lambda: checkpoints.steps("mine", local(tmp_path)))
    assert "step010 and step10" in message and "both step 10" in message
    (tmp_path / "step010").rmdir()
    message = refusal(lambda: checkpoints.steps("mine", local(tmp_path, listed=[10, 30])))
    assert message.endswith("families/mine/steps: there is no step 30; allowed: 10, 20")
    assert "there is no step main;" in refusal(lambda: checkpoints.steps("mine", local(tmp_path, listed=["main"])))


@pytest.mark.parametrize("pattern", ["step", "{step}{step}", "{a}{step}", "a/step{step}", "a\\step{step}", "..{step}"])
def test_patterns_that_are_refused(tmp_path: Path, pattern: str) -> None:
    assert "families/mine/pattern" in refusal(lambda: checkpoints.steps("mine", local(tmp_path, pattern)))


HUB = {"source": "hub", "repo": "lab/olmo", "pattern": "step{step}"}


def test_steps_of_a_family_with_a_repository_for_each_step() -> None:
    repos = [{"step": 480000, "repo": "lab/later"}, {"step": 50000, "repo": "lab/early"}]
    assert checkpoints.steps("tiny", {"source": "hub", "repos": repos}) == [50000, 480000]
    twice = [*repos, {"step": 50000, "repo": "lab/other"}]
    assert "families/tiny/repos: a step is listed twice" in refusal(
        lambda: checkpoints.steps("tiny", {"source": "hub", "repos": twice})
    )


def test_a_pattern_of_revisions_names_the_step_once() -> None:
    wrong = {**HUB, "steps": [1], "pattern": "stage1"}
    assert "families/olmo/pattern: 'stage1' is not allowed" in refusal(lambda: checkpoints.steps("olmo", wrong))


def test_steps_of_a_hub_family() -> None:
    family = {**HUB, "steps": ["main", 18000, 1000], "main_step": 738020}
    assert checkpoints.steps("olmo", family) == [1000, 18000, 738020]
    assert checkpoints.steps("olmo", {**family, "steps": [5, 1]}) == [1, 5]
    missing = {**HUB, "steps": family["steps"]}
    assert "families/olmo/main_step: missing" in refusal(lambda: checkpoints.steps("olmo", missing))
    twice = {**family, "steps": [738020, "main"]}
    assert "738020 is listed in steps too" in refusal(lambda: checkpoints.steps("olmo", twice))


def test_steps_of_a_trained_family() -> None:
    family = {"source": "trained", "steps": "all", "pretraining": {"save": [400, 50, 100]}}
    assert checkpoints.steps("mini", family) == [50, 100, 400]
    assert checkpoints.steps("mini", {**family, "steps": [400, 50]}) == [50, 400]
    message = refusal(lambda: checkpoints.steps("mini", {**family, "steps": [60]}))
    assert message.endswith("families/mini/steps: there is no step 60; allowed: 50, 100, 400")


def test_steps_need_no_heavy_library(tmp_path: Path) -> None:
    (tmp_path / "step1").mkdir()
    code = (
        "import sys; from workflow.models import checkpoints\n"
        f"assert checkpoints.steps('mine', {local(tmp_path)!r}) == [1]\n"
        "print([name for name in ('torch', 'transformers', 'huggingface_hub', 'safetensors') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# Local checkpoints


def test_manifest_of_a_local_checkpoint(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "optimizer.pt").write_bytes(b"not needed")
    (copy / "README.md").write_text("not needed")
    monkeypatch.chdir(copy.parent)
    manifest = checkpoints.locate("mine", local(Path(".")), 100, checkpoints.folder("mine", local(Path(".")), 100))
    files = {name: {"bytes": (copy / name).stat().st_size, "sha256": sha256(copy / name)} for name in manifest["files"]}
    assert manifest == {
        "family": "mine",
        "step": 100,
        "source": "folder",
        "repo": None,
        "revision": None,
        "path": str(copy),
        "files": files,
        "contents": {},
        "dates": {name: (copy / name).stat().st_mtime_ns for name in files},
    }
    whole = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert set(manifest["files"]) == whole
    assert [Path(path).name for path in checkpoints.files("mine", local(Path(".")), 100)] == sorted(whole)


def test_trained_checkpoint_is_found_by_its_keys(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "family=mini" / "step=100"
    shutil.copytree(checkpoint, folder)
    family = {"source": "trained", "steps": "all", "pretraining": {"save": [100, 200]}}
    manifest = checkpoints.locate("mini", family, 100, tmp_path)
    assert (manifest["path"], manifest["source"], manifest["revision"]) == (str(folder), "trained", None)
    assert "step=200: no such folder" in refusal(lambda: checkpoints.locate("mini", family, 200, tmp_path))


def test_absent_step_is_refused_with_those_nearest(tmp_path: Path) -> None:
    for step in (1, 2, 90, 100, 110, 120, 900):
        (tmp_path / f"step{step}").mkdir()
    message = refusal(lambda: checkpoints.folder("mine", local(tmp_path), 105))
    assert message.endswith("nearest steps: 2, 90, 100, 110, 120")


def change_json(path: Path, **changes: object) -> None:
    """Set entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut(path: Path, size: int) -> None:
    """Keep the beginning of a file only."""
    path.write_bytes(path.read_bytes()[:size])


DAMAGES = {
    "pickles only": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "holds pickled weights only (pytorch_model.bin); convert to safetensors",
    ),
    "torch file only": (
        lambda folder: (folder / "model.safetensors").rename(folder / "model.pt"),
        "holds pickled weights only (model.pt); convert to safetensors",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "weights are missing"),
    "adapter only": (
        lambda folder: (folder / "model.safetensors").rename(folder / "adapter_model.safetensors"),
        "weights are missing",
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    "broken config": (lambda folder: cut(folder / "config.json", 20), "config.json: not JSON"),
    "list as config": (
        lambda folder: (folder / "config.json").write_text("[]"),
        "expected a JSON object, found a list",
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "the tokenizer is missing"),
    "model code": (
        lambda folder: change_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "code.Model"}),
        "config.json: 'auto_map'",
    ),
    "tokenizer code": (
        lambda folder: change_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.T", None]}),
        "tokenizer_config.json: 'auto_map'",
    ),
    "last byte gone": (
        lambda folder: cut(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 1),
        "model.safetensors: damaged or cut short",
    ),
    "cut in the header": (
        lambda folder: cut(folder / "model.safetensors", 30),
        "model.safetensors: damaged or cut short",
    ),
    "empty weights": (lambda folder: cut(folder / "model.safetensors", 0), "model.safetensors: damaged or cut short"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_refused(copy: Path, damage: str) -> None:
    harm, expected = DAMAGES[damage]
    harm(copy)
    message = refusal(lambda: checkpoints.locate("mine", local(copy.parent), 100, copy))
    assert str(copy) in message and expected in message


def test_safetensors_beside_pickles_are_accepted(copy: Path) -> None:
    (copy / "pytorch_model.bin").write_bytes(b"ignored")
    assert "pytorch_model.bin" not in checkpoints.locate("mine", local(copy.parent), 100, copy)["files"]


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A checkpoint in several files."""
    save_checkpoint(tmp_path / "step5", seed=5, shard="10KB")
    return tmp_path / "step5"


def test_shards_are_listed_and_one_that_is_gone_is_named(sharded: Path) -> None:
    shards = sorted(path.name for path in sharded.glob("model-*.safetensors"))
    assert len(shards) > 1
    manifest = checkpoints.locate("mine", local(sharded.parent), 5, sharded)
    assert {"model.safetensors.index.json", *shards} <= set(manifest["files"])
    cut(sharded / shards[0], 100)
    assert f"{shards[0]}: damaged" in refusal(lambda: checkpoints.check(sharded))
    (sharded / shards[-1]).unlink()
    assert f"names {shards[-1]}, which is not" in refusal(lambda: checkpoints.check(sharded))


@pytest.mark.parametrize("weight_map", [{}, {"a": "../outside.safetensors"}, ["model.safetensors"]])
def test_index_that_leads_nowhere_is_refused(sharded: Path, weight_map: object) -> None:
    shutil.copy(next(sharded.glob("model-*.safetensors")), sharded.parent / "outside.safetensors")
    change_json(sharded / "model.safetensors.index.json", weight_map=weight_map)
    assert "model.safetensors.index.json: " in refusal(lambda: checkpoints.check(sharded))


# What a folder may hold and ask for


def test_adapters_beside_full_weights_are_refused(copy: Path, checkpoint: Path) -> None:
    """transformers would add them to the weights; left in a folder after the check they are refused when it is loaded."""
    (copy / "adapter_config.json").write_text('{"base_model_name_or_path": "lab/other", "peft_type": "LORA"}')
    for call in (lambda: checkpoints.check(copy), lambda: checkpoints.load_model(copy, torch.float32, "cpu")):
        message = refusal(call)
        assert message.startswith(f"{copy}: holds adapters (adapter_config.json)") and "merge the adapters" in message
    (copy / "model.safetensors").rename(copy / "adapter_model.safetensors")
    assert "holds adapters" in refusal(lambda: checkpoints.check(copy))


SETTINGS = [
    ("config.json", {"auto_map": {"AutoModel": "lab/code--model.Model"}}, "'auto_map' asks for code"),
    ("config.json", {"text_config": {"auto_map": {"AutoModel": "model.Model"}}}, "'auto_map' asks for code"),
    ("tokenizer_config.json", {"auto_map": ["tok.Tok", None]}, "'auto_map' asks for code"),
    ("generation_config.json", {"custom_generate": "lab/decoding"}, "'custom_generate' asks for code"),
    ("config.json", {"_attn_implementation": "lab/attention"}, "'_attn_implementation' is 'lab/attention'; allowed: eager,"),
    ("config.json", {"attn_implementation": {"text_config": "lab/a@v1:f"}}, "'attn_implementation' is 'lab/a@v1:f'"),
    ("config.json", {"attn_implementation": "flash_attention_3"}, "needs the package flash_attn_interface; allowed: eager"),
    ("config.json", {"_experts_implementation": "lab/experts"}, "'_experts_implementation' is 'lab/experts'; allowed: eager"),
    ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "'quantization_config' asks for quantised weights"),
    ("config.json", {"compression_config": {"format": "dense"}}, "'compression_config' asks for quantised weights"),
    ("config.json", {"transformers_weights": "other.safetensors"}, "'transformers_weights' is 'other.safetensors'"),
    ("tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.json", "tokenizer.4.0.0.json"]}, "expected one tokenizer"),
    ("config.json", {"pad_token_id": 64}, "'pad_token_id' is 64, the embedding has 64 rows; expected an id below 64"),
    ("config.json", {"text_config": {"vocab_size": 8, "pad_token_id": 9}}, "'pad_token_id' is 9, the embedding has 8 rows"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "expected"), SETTINGS)
def test_settings_that_are_refused_before_anything_is_loaded(
    copy: Path, name: str, settings: dict, expected: str
) -> None:
    change_json(copy / name, **settings)
    message = refusal(lambda: checkpoints.locate("mine", local(copy.parent), 100, copy))
    assert message.startswith(str(copy / name)) and expected in message


HARMLESS = [
    (
        "config.json",
        {"auto_map": None, "quantization_config": None, "compression_config": {}, "transformers_weights": None},
    ),
    ("config.json", {"_attn_implementation": "sdpa", "experts_implementation": "eager", "attn_implementation": None}),
    ("config.json", {"transformers_weights": "model.safetensors", "pad_token_id": -1}),
    ("config.json", {"pad_token_id": None}),
    ("config.json", {"model_type": "gpt_neox", "pad_token_id": 64}),
    ("tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.json"]}),
]


@pytest.mark.parametrize(("name", "settings"), HARMLESS)
def test_settings_that_ask_for_nothing(copy: Path, name: str, settings: dict) -> None:
    change_json(copy / name, **settings)
    checkpoints.check(copy)


@pytest.mark.parametrize("model_type", checkpoint_settings.WITHOUT_PADDING)
def test_architectures_that_build_with_any_padding_token(model_type: str) -> None:
    """Which for others fails where the padding token is beyond the embedding; here it must not."""
    shape = {"vocab_size": 9, "pad_token_id": 12, "dim_head": 4, "hidden_size": 8, "num_attention_heads": 2}
    shape |= {"attention_types": [[["global", "local"], 1]]} if model_type == "gpt_neo" else {}
    sizes = {
        "num_hidden_layers": 2,
        "n_layer": 1,
        "n_embd": 8,
        "n_head": 2,
        "rotary_dim": 4,
        "d_model": 8,
        "n_heads": 2,
    }
    config = AutoConfig.for_model(model_type, **shape, **sizes, dff=8, intermediate_size=8, n_layers=1)
    AutoModelForCausalLM.from_config(config)


def test_weights_that_were_not_gathered_are_refused(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"] = torch.empty(0)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    message = refusal(lambda: checkpoints.check(copy))
    assert "model.layers.1.mlp.up_proj.weight is empty (shape [0])" in message and "ZeRO-3" in message


# Constants among the weights

CONSTANTS = {
    "gpt2": ({"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}, "transformer.h.{}.attn", False),
    "gptj": ({"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "rotary_dim": 4}, "transformer.h.{}.attn", False),
    "gpt_neo": (
        {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]], "window_size": 4},
        "transformer.h.{}.attn.attention", True,
    ),
    "gpt_neox": (
        {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
        "gpt_neox.layers.{}.attention", False,
    ),
    "codegen": ({"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "rotary_dim": 2}, "transformer.h.{}.attn", False),
}  # fmt: skip


@pytest.mark.parametrize("architecture", CONSTANTS)
def test_constants_that_older_versions_saved_are_no_weights(tmp_path: Path, architecture: str) -> None:
    """Causal masks, a local one among them, scores of masked places, rotary frequencies; the model is the one without them."""
    sizes, place, window = CONSTANTS[architecture]
    torch.manual_seed(0)
    saved = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, vocab_size=64, **sizes)).eval()
    saved.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    mask = torch.ones(1, 1, 32, 32, dtype=torch.bool).tril()
    for layer in range(2):
        local_one = window and layer == 1
        own = mask ^ mask.tril(-4) if local_one else mask
        name = "causal_mask" if architecture == "codegen" else "bias"
        weights[f"{place.format(layer)}.{name}"] = own if local_one else own.to(torch.uint8)
        weights[f"{place.format(layer)}.masked_bias"] = torch.tensor(-1e9)
        weights[f"{place.format(layer)}.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = checkpoints.load_model(tmp_path, torch.float32, "cpu")
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, saved(ids).logits)


@pytest.mark.parametrize("values", [torch.zeros(16), torch.full((1, 1, 8, 8), 0.5).tril(), torch.ones(1, 1, 8, 8)])
def test_a_bias_that_is_no_mask_is_a_weight(copy: Path, values: torch.Tensor) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["model.layers.0.self_attn.bias"] = values
    weights["model.layers.0.attn.bias"] = values.clone()
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    message = refusal(lambda: checkpoints.load_model(copy, torch.float32, "cpu"))
    assert "2 unexpected, such as model.layers.0.attn.bias" in message


# Loading


@pytest.mark.parametrize(("shard", "tied"), [("1GB", False), ("10KB", False), ("1GB", True)])
def test_loaded_model_is_the_saved_one(tmp_path: Path, shard: str, tied: bool) -> None:
    saved = save_checkpoint(tmp_path, seed=1, shard=shard, tied=tied)
    loaded = checkpoints.load_model(tmp_path, torch.float32, "cpu")
    ids = torch.tensor([checkpoints.load_tokenizer(tmp_path)(TEXT)["input_ids"]])
    with torch.no_grad():
        assert torch.equal(saved(ids).logits, loaded(ids).logits)
    assert not loaded.training
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    half = checkpoints.load_model(tmp_path, torch.bfloat16, "cpu")
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("model_type", ["bert", "electra"])
def test_an_encoder_that_reads_ahead_is_refused(tmp_path: Path, model_type: str) -> None:
    """transformers loads it as a causal model; what it says of a token depends on those behind it."""
    sizes = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    for decoder in (False, True):
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **sizes, is_decoder=decoder)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
        if decoder:
            assert not checkpoints.load_model(tmp_path, torch.float32, "cpu").training
        else:
            message = refusal(lambda: checkpoints.load_model(tmp_path, torch.float32, "cpu"))
            assert "attends to later tokens" in message and "is_decoder: true" in message


def test_loaded_tokenizer_is_the_saved_one(checkpoint: Path) -> None:
    tokenizer = checkpoints.load_tokenizer(checkpoint)
    expected = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode(TEXT).ids
    assert tokenizer(TEXT)["input_ids"] == expected
    assert tokenizer.decode(expected) == TEXT


def test_parameter_without_weights_is_refused(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    checkpoints.check(copy)
    message = refusal(lambda: checkpoints.load_model(copy, torch.float32, "cpu"))
    assert "1 missing, such as model.layers.1.mlp.up_proj.weight" in message


def test_weights_without_parameter_are_refused(copy: Path) -> None:
    change_json(copy / "config.json", num_hidden_layers=1)
    message = refusal(lambda: checkpoints.load_model(copy, torch.float32, "cpu"))
    assert "7 unexpected, such as model.layers.1." in message


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    change_json(copy / "config.json", intermediate_size=48)
    assert "the model cannot be loaded" in refusal(lambda: checkpoints.load_model(copy, torch.float32, "cpu"))


def test_unknown_architecture_and_missing_folder_are_refused(copy: Path) -> None:
    change_json(copy / "config.json", model_type="nothing_known")
    assert "the model cannot be loaded" in refusal(lambda: checkpoints.load_model(copy, torch.float32, "cpu"))
    assert "no such folder" in refusal(lambda: checkpoints.load_model("lab/olmo", torch.float32, "cpu"))
    assert "no such folder" in refusal(lambda: checkpoints.load_tokenizer(copy / "no"))


def test_tokenizer_that_does_not_fit_is_refused(copy: Path) -> None:
    ids = max(checkpoints.load_tokenizer(copy).get_vocab().values()) + 1
    change_json(copy / "config.json", vocab_size=ids)
    assert checkpoints.load_tokenizer(copy).eos_token == "<eos>"
    change_json(copy / "config.json", vocab_size=ids - 1)
    message = refusal(lambda: checkpoints.load_tokenizer(copy))
    assert f"has {ids} ids" in message and f"{ids - 1} rows" in message
    (copy / "tokenizer.json").write_text("{}")
    assert "the tokenizer cannot be loaded" in refusal(lambda: checkpoints.load_tokenizer(copy))


# The hub, through its own client in a process of its own: the client reads its settings when it is imported

LOCATE = """
import json, sys, traceback
from pathlib import Path
from workflow.models import checkpoint_settings, checkpoints
from workflow.errors import StudyError
try:
    family, step = json.loads(sys.argv[1]), int(sys.argv[2])
    print(json.dumps(checkpoints.locate("olmo", family, step, Path("unused"), checkpoints.pin("olmo", family, step))))
except StudyError as error:
    print(error)
    traceback.print_exc()
    sys.exit(3)
"""


class Client(hub_client.Client):
    """A user's machine that finds the steps of a family."""

    def _run(self, step: int, family: dict, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return self.run(LOCATE, json.dumps({**HUB, **family}), str(step), **settings)

    def locate(self, step: int, family: dict, **settings: str) -> dict:
        """The manifest of a step, found in a fresh process."""
        result = self._run(step, family, settings)
        assert result.returncode == 0, result.stdout + result.stderr
        return json.loads(result.stdout)

    def refusal(self, step: int, family: dict, **settings: str) -> str:
        """The one line with which a step is refused in a fresh process."""
        result = self._run(step, family, settings)
        assert result.returncode == 3, result.stdout + result.stderr
        assert result.stdout.count("\n") == 1
        return result.stdout.strip()


BRANCHES = ["step100-tokens0B", "step1000-tokens4B", "step1000000-tokens4194B", "main"]


@pytest.fixture(scope="session")
def hub_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of a hub with one repository, other weights in each revision; not to be changed."""
    root = tmp_path_factory.mktemp("hub")
    for number, branch in enumerate(BRANCHES):
        folder = root / "lab" / "olmo" / branch
        save_checkpoint(folder, seed=number)
        (folder / "optimizer.pt").write_bytes(b"not needed")
        (folder / "onnx").mkdir()
        (folder / "onnx" / "model.safetensors").write_bytes(b"not needed")
    return root


@pytest.fixture
def hub(hub_root: Path, tmp_path: Path) -> Iterator[HubServer]:
    """A running hub whose folders may be changed."""
    with HubServer(shutil.copytree(hub_root, tmp_path / "hub")) as server:
        yield server


@pytest.fixture
def client(hub: HubServer, tmp_path: Path) -> Client:
    """A machine that reads from that hub."""
    (tmp_path / "home").mkdir()
    return Client(tmp_path / "home", hub.url)


FAMILY = {"steps": [100, 1000, "main"], "main_step": 1001000}


@pytest.mark.parametrize(
    ("step", "branch"), [(100, "step100-tokens0B"), (1000, "step1000-tokens4B"), (1001000, "main")]
)
def test_hub_step_is_found_by_prefix(hub: HubServer, client: Client, step: int, branch: str) -> None:
    served = hub.root / "lab" / "olmo" / branch
    manifest = client.locate(step, FAMILY)
    assert (manifest["source"], manifest["repo"]) == ("hub", "lab/olmo")
    assert manifest["revision"] == hub.commit("lab/olmo", branch)
    assert manifest["files"]["model.safetensors"]["sha256"] == sha256(served / "model.safetensors")
    assert not list(Path(manifest["path"]).rglob("optimizer.pt"))
    assert not (Path(manifest["path"]) / "onnx").exists()
    assert torch.equal(
        checkpoints.load_model(manifest["path"], torch.float32, "cpu").lm_head.weight,
        load_file(served / "model.safetensors")["lm_head.weight"],
    )


@pytest.mark.slow
def test_hub_tags_name_steps_too(hub: HubServer, client: Client) -> None:
    hub.tags["lab/olmo"] = {"step7": "main", "step8-a": "main", "step8-b": "step100-tokens0B", "step9-a": "main"}
    hub.tags["lab/olmo"] |= {"step9-b": "main", "step7x": "step100-tokens0B", "my-step7": "step100-tokens0B"}
    assert client.locate(7, {"steps": [7]})["revision"] == hub.commit("lab/olmo", "main")
    message = client.refusal(8, {"steps": [8]})
    assert "step8-a, step8-b" in message
    assert client.locate(9, {"steps": [9]})["revision"] == hub.commit("lab/olmo", "main")


@pytest.mark.slow
def test_hub_revisions_may_be_named_by_a_pattern(hub: HubServer, client: Client) -> None:
    """Two stages count their steps each from zero: the pattern says which is meant."""
    hub.tags["lab/olmo"] = {"stage1-step7-tokens2B": "main", "stage2-step7-tokens9B": "step100-tokens0B"}
    family = {"steps": [7], "pattern": "stage1-step{step}"}
    assert client.locate(7, family)["revision"] == hub.commit("lab/olmo", "main")
    assert "has no revision stage1-step8 or stage1-step8-*; nearest steps: 7" in client.refusal(8, family)


@pytest.mark.slow
def test_hub_steps_may_lie_in_repositories_of_their_own(hub: HubServer, client: Client) -> None:
    early = hub.commit("lab/olmo", "step100-tokens0B")
    stated = {7: "step1000-tokens4B", 8: early}
    revisions = [{"step": step, "repo": "lab/olmo", "revision": revision} for step, revision in stated.items()]
    family = {"repos": [{"step": 5, "repo": "lab/olmo"}, {"step": 6, "repo": "lab/nothing"}, *revisions]}
    manifest = client.locate(5, family)
    assert (manifest["repo"], manifest["revision"]) == ("lab/olmo", hub.commit("lab/olmo", "main"))
    assert client.locate(7, family)["revision"] == hub.commit("lab/olmo", "step1000-tokens4B")
    assert client.locate(8, family)["revision"] == early
    assert "lab/nothing: not found on 127.0.0.1" in client.refusal(6, family)


def test_hub_step_that_is_missing(client: Client) -> None:
    message = client.refusal(10, {"steps": [10]})
    assert "lab/olmo has no revision step10 or step10-*" in message
    assert message.endswith("nearest steps: 100, 1000, 1000000")


@pytest.mark.slow
def test_hub_is_not_needed_again(hub: HubServer, client: Client) -> None:
    first = client.locate(100, FAMILY)
    client.locate(1001000, FAMILY)
    assert any(request.endswith("model.safetensors") for request in hub.requests)
    hub.requests.clear()
    assert client.locate(100, FAMILY) == first
    assert not any("/resolve/" in request for request in hub.requests)
    hub.requests.clear()
    assert client.locate(100, FAMILY, HF_HUB_OFFLINE="1") == first
    assert client.locate(1001000, FAMILY, HF_HUB_OFFLINE="1")["revision"] == hub.commit("lab/olmo", "main")
    message = client.refusal(1000, FAMILY, HF_HUB_OFFLINE="1")
    assert "no revision step1000 or step1000-* in the local cache (HF_HUB_OFFLINE is set)" in message
    assert message.endswith("nearest steps: 100")
    assert hub.requests == []


@pytest.mark.slow
def test_mirror_serves_what_another_endpoint_did(hub: HubServer, client: Client) -> None:
    first = client.locate(100, FAMILY)
    with HubServer(hub.root) as mirror:
        client.home = client.home / "another"
        hub.requests.clear()
        second = client.locate(100, FAMILY, HF_ENDPOINT=mirror.url)
        assert hub.requests == []
        assert any(request.endswith("/model.safetensors") for request in mirror.requests)
    assert (second["revision"], second["files"]) == (first["revision"], first["files"])


@pytest.mark.slow
def test_moved_branch_is_a_new_revision(hub: HubServer, client: Client) -> None:
    first = client.locate(1001000, FAMILY)
    save_checkpoint(hub.root / "lab" / "olmo" / "main", seed=77)
    second = client.locate(1001000, FAMILY)
    assert second["revision"] == hub.commit("lab/olmo", "main") != first["revision"]
    assert second["files"]["model.safetensors"] != first["files"]["model.safetensors"]
    assert client.locate(1001000, FAMILY, HF_HUB_OFFLINE="1") == second


def test_broken_transfer_is_resumed(hub: HubServer, client: Client) -> None:
    hub.cuts["/model.safetensors"] = 5000
    manifest = client.locate(100, FAMILY)
    assert hub.cuts == {}
    served = hub.root / "lab" / "olmo" / "step100-tokens0B" / "model.safetensors"
    assert manifest["files"]["model.safetensors"] == {"bytes": served.stat().st_size, "sha256": sha256(served)}


@pytest.mark.slow
def test_interrupted_download_is_refused_offline_and_mended_online(hub: HubServer, client: Client) -> None:
    first = client.locate(1000, FAMILY)
    hub.statuses["/model.safetensors"] = 404
    client.refusal(100, FAMILY)
    message = client.refusal(100, FAMILY, HF_HUB_OFFLINE="1")
    assert "not complete in the local cache" in message
    assert client.locate(1000, FAMILY, HF_HUB_OFFLINE="1") == first
    hub.statuses.clear()
    assert client.locate(100, FAMILY)["revision"] == hub.commit("lab/olmo", "step100-tokens0B")


@pytest.mark.slow
def test_unreachable_hub_is_one_line(hub: HubServer, client: Client) -> None:
    hub.statuses["/refs"] = 503
    assert "lab/olmo: 127.0.0.1 answered with status 503" in client.refusal(100, FAMILY)
    hub.statuses["/refs"] = 401
    assert "answered with status 401; check the token" in client.refusal(100, FAMILY)
    closed = "http://user:" + TOKEN + "@127.0.0.1:1"
    assert "cannot be read from 127.0.0.1 (ConnectError)" in client.refusal(100, FAMILY, HF_ENDPOINT=closed)
    assert TOKEN not in client.shown


def test_missing_repository_is_one_line(client: Client) -> None:
    assert "not found on 127.0.0.1" in client.refusal(100, {**FAMILY, "repo": "lab/nothing"})


def test_cache_that_cannot_be_written_is_one_line(client: Client) -> None:
    (client.home / "hf").write_text("a file where the cache's folder should be")
    message = client.refusal(100, FAMILY)
    assert "cannot be written to the local cache: " in message


@pytest.mark.slow
def test_gated_repository_takes_the_token_and_never_shows_it(hub: HubServer, client: Client) -> None:
    hub.gated["lab/olmo"] = TOKEN
    assert "lab/olmo: gated by 127.0.0.1" in client.refusal(100, FAMILY)
    wrong = TOKEN + "Wrong"
    assert "lab/olmo: gated by 127.0.0.1" in client.refusal(100, FAMILY, HF_TOKEN=wrong)
    assert client.locate(100, FAMILY, HF_TOKEN=TOKEN)["revision"] == hub.commit("lab/olmo", "step100-tokens0B")
    # White space inside a token makes an illegal header, which the HTTP library quotes in its error.
    assert "(LocalProtocolError); check" in client.refusal(1000, FAMILY, HF_TOKEN=TOKEN + "\v" + TOKEN)
    assert TOKEN not in client.shown


def test_pickles_on_the_hub_are_refused_before_any_download(hub: HubServer, client: Client) -> None:
    folder = hub.root / "lab" / "olmo" / "step100-tokens0B"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    message = client.refusal(100, FAMILY)
    assert "lab/olmo at step100-tokens0B: holds pickled weights only (optimizer.pt, pytorch_model.bin)" in message
    assert not any("/resolve/" in request for request in hub.requests)


@pytest.mark.slow
def test_damage_on_the_hub_is_found_after_the_download(hub: HubServer, client: Client) -> None:
    folder = hub.root / "lab" / "olmo" / "step100-tokens0B"
    cut(folder / "model.safetensors", 3000)
    assert "model.safetensors: damaged or cut short" in client.refusal(100, FAMILY)
    change_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "code.Model"})
    assert "'auto_map' asks for code" in client.refusal(100, FAMILY)


@pytest.mark.slow
def test_of_all_model_classes_that_of_the_checkpoint_alone_is_imported(checkpoints) -> None:
    code = (
        "import sys; from workflow.models import checkpoints; checkpoints.import_model(sys.argv[1]); "
        "print(*(name for name in sys.modules if '.modeling_' in name and name.count('.') == 3))"
    )
    command = [sys.executable, "-c", code, str(checkpoints["llama"].path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = [name for name in ended.stdout.split() if ".auto." not in name]
    assert found == ["transformers.models.llama.modeling_llama"]
