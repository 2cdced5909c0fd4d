"""What is tuned is what is evaluated: trained, saved, loaded and merged models compute the same, or the tuning is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from conftest import Checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from workflow.errors import StudyError
from workflow.models import adapters, checkpoints, loading
from workflow.models.encoding import Masked
from workflow.study import config
from workflow.training import finetuning, save_load_check, saved_state

ROWS = [[5, 6, 7, 8, 9, 10], [11, 12]]
SIZES = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"num_key_value_heads": 2, "pad_token_id": 0}
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2}


def recipe(method: str, *modules: str) -> dict:
    """A recipe with its defaults."""
    given = {"method": method, "learning_rate": 1e-2, "epochs": 1, "examples": 4, "lora_rank": 4}
    return config.recipe(given | ({"lora_modules": list(modules)} if modules else {}))


def checkpoint(folder: Path, model_type: str, **settings: object) -> Path:
    """A random model of a few thousand weights."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SIZES | settings)).save_pretrained(folder)
    return folder


def ready(folder: Path, settings: dict) -> PreTrainedModel:
    """A model as it is to be tuned."""
    model = checkpoints.load_model(folder, torch.float32, "cpu")
    return finetuning.adapted(model, settings, 0) if settings["method"] == "lora" else model


def rehearsed(folder: Path, settings: dict, room: Path) -> float:
    """The difference that a rehearsal finds."""
    return save_load_check.check(ready(folder, settings), {"path": str(folder)}, ROWS, room)


def refusal(folder: Path, settings: dict, room: Path) -> str:
    """The line with which a rehearsal refuses a tuning."""
    with pytest.raises(StudyError) as caught:
        rehearsed(folder, settings, room)
    assert not list(room.iterdir()), "nothing is left"
    return str(caught.value)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_usual_models_agree_and_are_left_as_they_were(checkpoint: Checkpoint, tmp_path: Path, method: str) -> None:
    """In fp32 merging costs rounding alone; of full weights the file holds every bit."""
    model = ready(checkpoint.path, recipe(method)).train()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    difference = save_load_check.check(model, {"path": str(checkpoint.path)}, ROWS, tmp_path / "room")
    assert difference <= (0 if method == "full" else 1e-4)
    assert model.training and all(torch.equal(before[name], weight) for name, weight in model.named_parameters())
    assert not list((tmp_path / "room").iterdir())
    assert not any(module._forward_hooks for module in model.modules())


def test_disturbed_weights_all_change_and_change_what_is_computed(checkpoint: Checkpoint) -> None:
    """Else no difference could be seen: of new adapters half are zeros."""
    model = ready(checkpoint.path, recipe("lora"))
    before = save_load_check.layer_outputs(model, ROWS)
    trained = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    with save_load_check.disturbed(model):
        assert not any(torch.equal(model.get_parameter(name), weight) for name, weight in trained.items())
        assert (
            save_load_check.layer_outputs(model, ROWS).logits - before.logits
        ).abs().max() > 0.1 * before.logits.std()
    assert torch.equal(save_load_check.layer_outputs(model, ROWS).logits, before.logits)


@pytest.mark.parametrize("layer", ["lm_head", "embed_tokens"])
def test_adapters_on_one_use_of_a_shared_matrix_are_refused(tmp_path: Path, layer: str) -> None:
    """Merged, they change the embedding and the output layer, trained they change one; apart the two may have them."""
    tied = checkpoint(tmp_path / "tied", "llama", tie_word_embeddings=True)
    message = refusal(tied, recipe("lora", layer, "q_proj"), tmp_path / "room")
    assert message.startswith("recipes/lora_modules: the logits of the trained model")
    assert "model.embed_tokens, lm_head share a weight matrix" in message and "leave it out" in message
    untied = checkpoint(tmp_path / "untied", "llama", tie_word_embeddings=False)
    assert rehearsed(untied, recipe("lora", layer, "q_proj"), tmp_path / "room") < 1e-4


def test_an_output_layer_untied_in_memory_stays_so_through_the_file(tmp_path: Path) -> None:
    """Its config says that it is tied; both matrices are saved, and what differs is not tied when it is loaded."""
    folder = checkpoint(tmp_path / "base", "llama", tie_word_embeddings=True)
    model = checkpoints.load_model(folder, torch.float32, "cpu")
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    assert save_load_check.check(model, {"path": str(folder)}, ROWS, tmp_path / "room") == 0


def test_weights_that_are_lost_in_the_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that leaves a layer as it was, as of weights in a precision too low to hold the change."""
    folder = checkpoint(tmp_path / "base", "llama")
    model = checkpoints.load_model(folder, torch.float32, "cpu")
    save, up = type(model).save_pretrained, model.model.layers[0].mlp.up_proj.weight.detach().clone()

    def without_up(self: PreTrainedModel, place: str) -> None:
        save(self, place, state_dict=self.state_dict() | {"model.layers.0.mlp.up_proj.weight": up})

    monkeypatch.setattr(type(model), "save_pretrained", without_up)
    with pytest.raises(StudyError) as caught:
        save_load_check.check(model, {"path": str(folder)}, ROWS, tmp_path / "room")
    assert str(caught.value).startswith(
        "recipes/method: full tuning of LlamaForCausalLM: the logits of the trained model"
    )
    assert str(caught.value).endswith("from layer model.layers.0.mlp.up_proj on")


LINEAGE = {
    "family": "f", "step": 1, "train": "rte", "format": "default", "recipe": "r", "seed": 0, "examples": 4, "dropped": 0,
    "recipe_settings": {"method": "full", "learning_rate": 1e-3},
    "base": {"family": "f", "step": 1, "source": "folder", "repo": None, "revision": None, "files": {}, "folder": "base"},
}  # fmt: skip


def test_what_is_saved_beside_the_weights_is_saved_and_read_before_the_tuning(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint's own tokenizer passes; one that cannot be written, or reads otherwise once written, is a line."""
    rows = checkpoint.tokenizer(["The hen sings.", "A cat sleeps?"])["input_ids"]
    given = checkpoint.model, checkpoint.tokenizer, LINEAGE, rows, tmp_path
    save_load_check.check_beside(*given)
    refused = f"recipes/method: full tuning of {type(checkpoint.model).__name__}: "
    load = checkpoints.load_tokenizer

    def lowered(folder: str) -> object:
        tokenizer = load(folder)
        return lambda text: tokenizer(text.lower())

    monkeypatch.setattr(checkpoints, "load_tokenizer", lowered)
    with pytest.raises(StudyError) as caught:
        save_load_check.check_beside(*given)
    assert str(caught.value).startswith(f"{refused}saved and loaded again, the tokenizer gives other tokens for ")
    monkeypatch.setattr(type(checkpoint.tokenizer), "save_pretrained", lambda *_: 1 / 0)
    with pytest.raises(StudyError) as caught:
        save_load_check.check_beside(*given)
    told = "config, tokenizer and card of a tuned model cannot be saved and loaded: ZeroDivisionError: division by zero"
    assert str(caught.value) == f"{refused}{told}"
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_a_wrong_layer_is_named(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is evaluated differs in one layer, as after a merge that went wrong there."""
    if type(checkpoint.model).__name__ != "LlamaForCausalLM":
        pytest.skip("one architecture will do")
    read = loading.evaluated

    def harmed(*given: object) -> PreTrainedModel:
        model = read(*given)
        model.model.layers[1].mlp.up_proj.weight.data *= 1.5
        return model

    monkeypatch.setattr(loading, "evaluated", harmed)
    message = refusal(checkpoint.path, recipe("lora"), tmp_path / "room")
    assert message.endswith("standard deviations, expected at most 0.002, from layer model.layers.1.mlp.up_proj on")


def test_a_model_that_fails_with_adapters_is_one_line(tmp_path: Path) -> None:
    """PhiMoE's router gives more than its adapters take, and its class says so by an AttributeError."""
    folder = checkpoint(tmp_path / "base", "phimoe", **MIXTURE)
    message = refusal(folder, recipe("lora"), tmp_path / "room")
    assert message.startswith(
        "recipes/lora_modules: PhimoeForCausalLM with adapters on k_proj, o_proj, q_proj, router, v_proj"
    )
    assert message.endswith("leave some of them out")
    assert rehearsed(folder, recipe("lora", "q_proj", "v_proj"), tmp_path / "room") < 1e-4


# Mamba


def mamba(folder: Path) -> Path:
    """A Mamba, whose time steps and outputs are read past their layers."""
    return checkpoint(folder, "mamba", state_size=4, time_step_rank=4)


def test_mamba_without_a_choice_of_layers_is_a_line_that_can_be_acted_upon(tmp_path: Path) -> None:
    folder, room = mamba(tmp_path / "base"), tmp_path / "room"
    room.mkdir()
    message = refusal(folder, recipe("lora"), room)
    assert message.startswith(
        "recipes/lora_modules: left out, which means all linear layers, cannot be adapted in Mamba"
    )
    *_, named = message.split("; set lora_modules to some of ")
    assert {"in_proj", "x_proj"} <= set(named.split(", ")) and not {"out_proj", "conv1d"} & set(named.split(", "))
    assert rehearsed(folder, recipe("lora", "in_proj", "x_proj"), room) < 1e-4


def test_adapters_that_are_never_read_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where all are, nothing would be tuned; where some are, they stay as they are, and what is evaluated is right."""
    folder, room = mamba(tmp_path / "base"), tmp_path / "room"
    if "dt_proj" in adapters.allowed(checkpoints.load_model(folder, torch.float32, "cpu")):
        pytest.skip("this version of transformers calls the layer")
    told = "recipes/lora_modules: MambaForCausalLM never calls dt_proj, so adapters there have no effect"
    room.mkdir()
    assert (
        refusal(folder, recipe("lora", "dt_proj"), room)
        == f"{told}, and nothing would be tuned; allowed: layers that the model calls"
    )
    with caplog.at_level(logging.WARNING, "tunecast"):
        assert rehearsed(folder, recipe("lora", "dt_proj", "x_proj"), room) < 1e-4
    own = [record.getMessage() for record in caplog.records if record.name == "tunecast"]
    assert own == [f"{told}; they are not tuned"]


def test_a_tuning_with_adapters_that_are_never_read_goes_on_from_its_state(tmp_path: Path) -> None:
    """They never have a gradient, so AdamW keeps nothing of them; what it keeps of the others is restored to the bit."""
    folder, settings = mamba(tmp_path / "base"), recipe("lora", "dt_proj", "x_proj")
    rows = [Masked(row, [False] + [True] * (len(row) - 1)) for row in ROWS]
    whole = ready(folder, settings)
    finetuning.tune(whole, rows, settings | {"batch": 1}, 0, 0, saved_state.State(tmp_path / "a", "x"))
    stopped = ready(folder, settings)
    optimizer = torch.optim.AdamW(saved_state.trained(stopped).values(), lr=1e-2)
    stopped(input_ids=torch.tensor(ROWS[:1]), labels=torch.tensor(ROWS[:1])).loss.backward()
    optimizer.step()
    state = saved_state.State(tmp_path / "b", "x")
    state.save(stopped, optimizer, saved_state.TrainingProgress([], 1))
    state.close()
    again = ready(folder, settings)
    other = torch.optim.AdamW(saved_state.trained(again).values(), lr=1e-2)
    assert state.load(again, other) == saved_state.TrainingProgress([], 1)
    assert all(torch.equal(again.get_parameter(name), own) for name, own in saved_state.trained(stopped).items())
    kept = [len(optimizer.state[own]) for own in saved_state.trained(stopped).values()]
    assert [len(other.state[own]) for own in saved_state.trained(again).values()] == kept and {0, 3} == set(kept)


@pytest.mark.parametrize(
    ("model_type", "settings", "expected"),
    [
        ("llama", {"tie_word_embeddings": True}, "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"),
        (
            "llama",
            {"tie_word_embeddings": False},
            "down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj",
        ),
        ("gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2}, "c_attn, c_fc, c_proj"),
    ],
)
def test_layers_that_may_have_adapters(tmp_path: Path, model_type: str, settings: dict, expected: str) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SIZES | settings))
    assert ", ".join(adapters.allowed(model)) == expected
    with pytest.raises(
        StudyError, match=rf"\['nope'\] cannot be adapted in .* set lora_modules to some of {expected}$"
    ):
        finetuning.adapted(model, recipe("lora", "nope"), 0)


# How many weights adapters reach


def test_reach_by_hand(tmp_path: Path) -> None:
    """Of two layers of width 16: attention 4 x 16 x 16, feed-forward 3 x 16 x 32, two norms of 16, and one norm at the end."""
    folder = checkpoint(tmp_path / "dense", "llama", tie_word_embeddings=False)
    whole = 2 * (4 * 256 + 3 * 512 + 2 * 16) + 16
    assert adapters.reach(ready(folder, recipe("lora"))) == {
        "layers": whole,
        "reached": 2 * (4 * 256 + 3 * 512),
        "experts": 0,
    }
    found = adapters.reach(ready(folder, recipe("lora", "q_proj", "v_proj")))
    assert found == {"layers": whole, "reached": 2 * 2 * 256, "experts": 0}
    # Four experts of 3 x 16 x 32 in each layer, and a router of 4 x 16.
    folder = checkpoint(tmp_path / "mixture", "phimoe", **MIXTURE, attention_bias=False)
    found = adapters.reach(ready(folder, recipe("lora", "q_proj", "v_proj")))
    assert (found["reached"], found["experts"]) == (2 * 2 * 256, 2 * 4 * 3 * 512)
    assert found["layers"] >= 2 * (4 * 256 + 4 * 3 * 512 + 4 * 16)


def test_reach_of_experts_that_have_adapters(tmp_path: Path) -> None:
    """PEFT adapts Mixtral's experts with all linear layers."""
    folder = checkpoint(tmp_path / "mixture", "mixtral", **MIXTURE)
    found = adapters.reach(ready(folder, recipe("lora")))
    assert found["experts"] == 0 and found["reached"] >= 2 * (4 * 256 + 4 * 3 * 512)
    assert rehearsed(folder, recipe("lora"), tmp_path / "room") < 1e-4
