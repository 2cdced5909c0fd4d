"""Memory, GPU memory and time that a GPU job needs, estimated from the size of its model before it runs.

Estimates are high, so that a job fits at its first attempt: a scheduler kills jobs that exceed their request. The size of a
model trained here follows from the config, that of any other from its fetched files. Times follow the rule of 2 operations
per parameter and token for the forward pass and 6 with the backward pass (Kaplan et al., 2020, arXiv 2001.08361, section 2.1).
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workflow import task
from workflow.data import corpora
from workflow.jobs import devices
from workflow.models import checkpoints
from workflow.settings import Family, Pretraining, Study, Suite
from workflow.study import grid, indicators
from workflow.training import objectives

Needs = Mapping[str, float]

FORWARD, TRAINING = 2, 6  # operations for each parameter and token
NAMES = ("mem_mb", "gpu_mem_mb", "runtime")
PROCESS = 3000  # MB of Python, torch, transformers and CUDA
TRAINED = 16  # bytes a parameter in fp32: weight, gradient and AdamW's two moments
BYTES = {"fp32": 4, "bf16": 2}
# Bytes that the forward pass keeps for each token, layer and unit of width: measured as what autograd saves, the most
# of OLMo, OLMo 2, Llama and GPT-NeoX with feed-forward layers of four times the width. Attention stores no scores.
KEPT = {"fp32": 121, "bf16": 99}
LAYERS = 32  # of a large model; smaller ones have fewer and need less
START = 30.0  # minutes that any job may take: a busy shared disk, a slow start
SLACK = 2.0
TOGETHER = (
    0.2  # share of a sharded model that each GPU gathers at a time: embeddings, and three of the blocks at a time
)
GPU_SPEED = {"fp32": 1e13, "bf16": 1e14}  # operations in a second
CPU_SPEED = 2e10
WRITTEN = 500.0  # tokens in a second
BYTES_PER_TOKEN = 4.2  # English text in a vocabulary of 50,000
MEAN_TOKENS = 1024  # of a prompt with its demonstrations; most data sets have fewer


class Size(NamedTuple):
    """Size of a model: its number of parameters, and its layers times their width."""

    parameters: float
    layers_times_width: float


def asked(study: Study, stage: Callable[..., Needs]) -> dict[str, Callable[..., int]]:
    """Resource functions of a rule: the needs of the stage, doubled at the second attempt, tripled at the third.

    If a function reads a file that does not exist yet, Snakemake calls it again when the job is ready.
    """

    def resource(name: str) -> Callable[..., int]:
        def amount(wildcards: Any, input: Any, attempt: int) -> int:
            return attempt * math.ceil(stage(study, wildcards, input)[name])

        return amount

    return {name: resource(name) for name in NAMES}


def pretraining(study: Study, wildcards: Any, input: Any) -> Needs:
    """Needs of a piece of a pre-training, as if it had to train from the start: MB, MB, minutes.

    From scratch it runs on the CPU; from a checkpoint, on a GPU if there is one.
    """
    block = study["families"][wildcards.family]["pretraining"]
    size, tokens = _start_size(block, input), block["batch"] * block["sequence"]
    held = TRAINED * size.parameters + KEPT["fp32"] * size.layers_times_width * tokens
    minutes = _minutes(TRAINING * size.parameters * tokens * int(wildcards.step) / CPU_SPEED)
    memory = PROCESS + held / 1e6
    return {"mem_mb": memory, "gpu_mem_mb": memory if "continue_from" in block else 0, "runtime": minutes}


def tuning(study: Study, wildcards: Any, input: Any) -> Needs:
    """Needs of a fine-tuning, or of a trial of a learning rate: MB, MB, minutes."""
    recipe = study["recipes"][wildcards.recipe]
    size = model_size(study, wildcards.family, input.base)
    # LoRA: the base, and adapters of at most a tenth of its size.
    state = (TRAINED if recipe["method"] == "full" else BYTES["fp32"] + 0.1 * TRAINED) * size.parameters
    tokens = recipe["batch"] * recipe["max_tokens"]
    activations = KEPT[recipe["precision"]] * size.layers_times_width * tokens
    rows = recipe["examples"] if "examples" in recipe else recipe.get("fraction", 1) * _rows(_listed(input.task))
    operations = TRAINING * size.parameters * recipe["epochs"] * rows * min(recipe["max_tokens"], MEAN_TOKENS)
    needs = _needs(state, activations, operations / GPU_SPEED[recipe["precision"]] / recipe["gpus"])
    # A rehearsal loads the model a second time, in the host's memory.
    needs["mem_mb"] = max(needs["mem_mb"], PROCESS + 2 * BYTES["fp32"] * size.parameters / 1e6)
    return needs if recipe["gpus"] == 1 else _spread(needs, recipe["gpus"], BYTES["fp32"] * size.parameters)


def _spread(needs: Needs, gpus: int, weights: float) -> Needs:
    """Needs of a job on several GPUs in total: each GPU has a process, which loads the whole model before it keeps a shard."""
    host = PROCESS + weights / 1e6
    return dict(needs) | {
        "mem_mb": needs["mem_mb"] + gpus * host, "gpu_mem_mb": needs["gpu_mem_mb"] + (gpus - 1) * PROCESS
    }  # fmt: skip


def prediction(study: Study, wildcards: Any, input: Any) -> Needs:
    """Needs of a part of a cell: MB, MB, minutes."""
    suite = study["suites"][wildcards.suite]
    size = model_size(study, wildcards.family, input.base)
    state = BYTES[suite["precision"]] * size.parameters
    tests = grid.part_tests(suite, wildcards.train, wildcards.tests)
    # Keys and values of every layer (of several packs if text is generated), and as much again for one layer's work.
    packs = 1 + (devices.PACKS if any(_written(name, suite) for name in tests) else 1)
    activations = 2 * packs * BYTES[suite["precision"]] * size.layers_times_width * suite["batch_tokens"]
    rows = len(tests) * suite["limit"] if "limit" in suite else _rows(input.tasks)
    rows *= len(suite["formats"]) * len(suite["shots"])
    read = FORWARD * size.parameters * rows * MEAN_TOKENS / GPU_SPEED[suite["precision"]]
    longest = max([suite["new_tokens"], *(own.new_tokens for name in tests if (own := task.load(name).lm_eval))])
    seconds, gpus = read + rows * longest / WRITTEN, suite["gpus"]
    if gpus == 1:
        return _needs(state, activations, seconds)
    # Rows are divided, so each GPU has a separate pack; the parent loads nothing.
    needs = _needs(state, gpus * (TOGETHER * state + activations), seconds / gpus)
    return _spread(needs | {"mem_mb": PROCESS}, gpus, state)


def _written(test: str, suite: Suite) -> bool:
    """Whether a test generates text."""
    method = task.KINDS[task.load(test).kind].method
    return method in ("generate", "answer") or (method == "label" and suite["labels"] != "score")


def measuring(study: Study, wildcards: Any, input: Any) -> Needs:
    """Needs of a base's indicators, one after the other in one process: MB, MB, minutes."""
    size = model_size(study, wildcards.family, input.base)
    state = activations = seconds = 0.0
    for block in indicators.run_for(study["indicators"]).values():
        weights, kept, operations = _measured(block, size, input, _text_bytes(study, block))
        state, activations = max(state, weights), max(activations, kept)
        seconds += operations / GPU_SPEED[block["precision"]]
    return _needs(state, activations, seconds)


def operations_of_indicators(study: Study, size: Size, input: Any, tokens: float) -> float:
    """Operations of all indicators of a base. input: has the paths of prepared tasks as `tasks`; tokens: of a row of a task."""
    blocks = indicators.run_for(study["indicators"]).values()
    return sum(_measured(block, size, input, _text_bytes(study, block), tokens)[2] for block in blocks)


def _text_bytes(study: Study, block: Mapping[str, Any]) -> float:
    """Bytes of text that an indicator reads completely; 0 for text that another job makes, since generated text is small."""
    if "corpus" not in block or "documents" in block or corpora.made(block["corpus"]):
        return 0.0
    folder = corpora.folder(block, study["data_root"])
    return float(sum(path.stat().st_size for path in corpora.files(folder, block.get("domains"), block["split"])))


def _measured(
    block: Mapping[str, Any], size: Size, input: Any, text: float, row_tokens: float = MEAN_TOKENS
) -> tuple[float, float, float]:
    """Bytes of weights with optimizer states, bytes of activations, operations of one indicator.

    text: bytes of text; row_tokens: of a row of a task.
    """
    width, draws = BYTES[block["precision"]], block.get("draws", 1)
    held = 4 * width * size.layers_times_width * block["batch_tokens"]  # as of a prediction
    if block["measure"] == "tuning_probe":
        tokens = block["batch"] * block["max_tokens"]
        read = draws * (TRAINING * block["steps"] * block["batch"] + 2 * FORWARD * block["validation"]) * row_tokens
        kept = KEPT[block["precision"]] * size.layers_times_width * tokens
        return (TRAINED + width) * size.parameters, max(held, kept), read * size.parameters
    if "corpus" in block:
        tokens = block["documents"] * block["window"] if "documents" in block else text / BYTES_PER_TOKEN
    else:
        tokens = len(block["tests"]) * block["limit"] if "limit" in block else _rows(input.tasks)
        tokens *= row_tokens
    copies = 2 if block["measure"] == "weight_noise" else 1
    return copies * width * size.parameters, held, FORWARD * size.parameters * tokens * (draws + 1)


def _needs(state: float, activations: float, seconds: float) -> dict[str, float]:
    """Needs of a job on a GPU; the host holds the state once, when it is read from or written to disk."""
    return {
        "mem_mb": PROCESS + state / 1e6,
        "gpu_mem_mb": PROCESS + (state + activations) / 1e6,
        "runtime": _minutes(seconds),
    }


def _minutes(seconds: float) -> float:
    """Minutes to request for a job of this many seconds."""
    return START + SLACK * seconds / 60


def _listed(files: Any) -> list[str]:
    """The files of a named input, which Snakemake hands over as text where there is only one; a mix has several."""
    return [files] if isinstance(files, str) else list(files)


def _rows(parts: Sequence[str]) -> int:
    """Rows of prepared tasks, all splits together."""
    from pyarrow.parquet import read_metadata

    total = 0
    for part in parts:
        # Python's own error names the file, by which Snakemake knows that it is an input.
        with open(part, "rb") as file:
            total += read_metadata(file).num_rows
    return total


def model_size(study: Study, family: str, base: str) -> Size:
    """Size of a family's models: computed from the config if it is trained here, else read from a fetched base.

    base: path of the manifest that `fetch` writes. Errors: FileNotFoundError while it is needed and not yet there.
    """
    block = study["families"][family]
    from_scratch = block["source"] == "trained" and "continue_from" not in block["pretraining"]
    return trained_here(block["pretraining"]) if from_scratch else fetched(base, _place(family, block, base))


def _start_size(block: Pretraining, input: Any) -> Size:
    """Size of the model that a pre-training starts with."""
    if "continue_from" not in block:
        return trained_here(block)
    if "folder" in block["continue_from"]:
        folder = block["continue_from"]["folder"]
        return checkpoint(Path(folder), [Path(file).name for file in checkpoints.checkpoint_files(folder)])
    return fetched(input.start[0])


def trained_here(block: Pretraining) -> Size:
    """Size of a model trained here: tied embeddings, attention and gated feed-forward layers, norms without weights."""
    layer = 4 * block["hidden"] ** 2 + 3 * block["hidden"] * block["intermediate"]
    words = block["vocabulary"] + len(objectives.special_tokens(block))
    parameters = words * block["hidden"] + block["layers"] * layer
    return Size(parameters, block["layers"] * block["hidden"])


def _place(name: str, family: Family, base: str) -> Path | None:
    """Present folder of the base of a manifest, if the config names it."""
    if family["source"] != "folder":
        return None
    return checkpoints.folder(name, family, checkpoints.read_base(base)["step"])


@functools.cache
def fetched(base: str, folder: Path | None = None) -> Size:
    """Size of a base: parameters as the headers of its weight files list them, layers and width from its config.

    folder: its present folder, if not the one in its manifest.

    If the config has other names for these, LAYERS layers are assumed: a model has 12 x layers x width^2 parameters
    (Kaplan et al., table 1).
    """
    manifest = checkpoints.read_base(base, folder)
    return checkpoint(Path(manifest["path"]), manifest["files"])


def checkpoint(folder: Path, files: Iterable[str]) -> Size:
    """Size of the model in a folder, from its weight files among some files, and its config."""
    parameters = sum(listed(folder / name) for name in files if name.endswith(".safetensors"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if {"num_hidden_layers", "hidden_size"} <= set(config):
        return Size(parameters, config["num_hidden_layers"] * config["hidden_size"])
    return Size(parameters, math.sqrt(parameters * LAYERS / 12))


def listed(path: Path) -> int:
    """Numbers that a safetensors file holds: eight bytes with the header's length, then the header as JSON."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
