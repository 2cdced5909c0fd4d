"""Small random models of four architectures, saved as the hub keeps them, with tokenizers trained on a page of text."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import running
from filelock import FileLock

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from workflow.models.encoding import Masked

gc.disable()  # until all tests are imported, of which it would take a fifth

SLOW = {"smoke", "searched", "analysed"}  # fixtures of studies
CONTEXT = 256
ARCHITECTURES = ("gpt_neox", "llama", "olmo", "olmo2")
NAMES = ("Ann", "Bo", "Cy", "Dora")
BEASTS = ("cat", "dog", "fox", "hen", "owl", "trout")
ACTS = ("can fly", "eats fish", "sleeps in the barn", "swims in the river", "sings a song")
PAGE = [
    *(f"{name} has a {beast}. The {beast} {act}." for name in NAMES for beast in BEASTS for act in ACTS),
    *(f"Question: What {act.split()[0]}s?\nAnswer: the {beast}\n\n" for beast in BEASTS for act in ACTS),
    "### Input_1: A man sleeps.\n ### Input_2: A man runs.\n ### Inference: contradiction\n\n",
    "The relation is entailment, neutral or contradiction: yes or no. ### Summary: Ça va? Ünïcode, 日本語 and 😀😃🎉.",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what needs a whole study, or lies beside the tests of whole studies."""
    for item in items:
        if SLOW & set(getattr(item, "fixturenames", ())) or item.path.parent.name == "end_to_end":
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """From here on look for garbage: what imports have made is none."""
    gc.freeze()
    gc.enable()


class Checkpoint(NamedTuple):
    """A model in evaluation mode, its tokenizer, and the folder that both were read from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    path: Path


def small_tokenizer(architecture: str) -> PreTrainedTokenizerBase:
    """A tokenizer with the habits of the architecture's own.

    olmo, olmo2: EOS and padding; gpt_neox: NFC, no padding token; llama: starts every text with a BOS, no padding token.
    """
    from tokenizers import normalizers, processors

    from workflow.training.pretraining import train_tokenizer

    tokenizer = train_tokenizer(PAGE, 400, CONTEXT)
    if architecture == "gpt_neox":
        tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    if architecture == "llama":
        tokenizer.add_special_tokens({"bos_token": "<s>"})
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
        )
    if architecture in ("gpt_neox", "llama"):
        tokenizer.pad_token = None
    return tokenizer


def small_model(architecture: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Two layers of random weights, large enough that texts differ and some generations end in EOS."""
    import torch
    import transformers

    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = {
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**sizes),
        "llama": lambda: transformers.LlamaConfig(**sizes, num_key_value_heads=2),
        "olmo": lambda: transformers.OlmoConfig(**sizes, tie_word_embeddings=True),
        "olmo2": lambda: transformers.Olmo2Config(**sizes),
    }[architecture]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            model.get_output_embeddings().weight[tokenizer.eos_token_id] *= 3
    return model


def loss_of(model: PreTrainedModel, rows: Sequence[Masked], pad: int) -> torch.Tensor:
    """Mean over rows of the mean loss of a row's scored tokens, as tuning reads it."""
    from workflow.models.engine import feeding

    with feeding.losses(model, pad) as read:
        sums, counts = read(rows)
    return (sums / counts).mean()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Checkpoint]]:
    """One checkpoint of each architecture; its model is not to be changed. Torch keeps to one thread."""
    import torch

    from workflow.models import loading

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {}
    for architecture in ARCHITECTURES:
        folder = tmp_path_factory.mktemp(architecture) / "step10"
        tokenizer = small_tokenizer(architecture)
        small_model(architecture, tokenizer).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found[architecture] = Checkpoint(*loading.untouched({"path": str(folder)}), folder)
    yield found
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", params=ARCHITECTURES)
def checkpoint(request: pytest.FixtureRequest, checkpoints: dict[str, Checkpoint]) -> Checkpoint:
    """Each of the checkpoints in turn."""
    return checkpoints[request.param]


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder of this run of the tests, filled by whichever of its processes comes first; the others wait for it."""
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    folder = (factory.getbasetemp() if alone else factory.getbasetemp().parent) / "made_once" / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "made").exists():
            make(folder / "place")
            (folder / "made").touch()
    return folder / "place"


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke study after a whole run, by the command that users type; not to be changed."""

    def make(place: Path) -> None:
        command = running.command(running.lay_out(place, running.SMOKE))
        ended = subprocess.run(command, cwd=place, env=running.ENVIRONMENT, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr

    return made_once(tmp_path_factory, "smoke", make)


@pytest.fixture
def changed(smoke: Path, tmp_path: Path) -> Path:
    """A copy of the finished smoke study to change; file times are those of the original."""
    return shutil.copytree(smoke, tmp_path / "place")
