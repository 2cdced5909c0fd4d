"""Prepare a fine-tuning run or a trial of a learning rate: load the base and encode its rows."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow import task
from workflow.errors import DivergedError
from workflow.jobs import job
from workflow.models import adapters, checkpoints, loading
from workflow.models.encoding import Masked, context_length
from workflow.settings import Recipe
from workflow.storage import tables
from workflow.task import Rows, Task
from workflow.training import finetuning, replay, save_load_check, saved_state, task_mix

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBES = 2  # rows of the save-and-load check


@dataclass(frozen=True)
class TuningSetup:
    """A fine-tuning run before its first step.

    model: the base, with adapters if the recipe has them, in the host's memory if several GPUs share it; rows: training
    rows; held: validation rows by id, empty unless requested; state: the saved state; lineage: metadata of the results.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    rows: list[Masked]
    held: dict[str, Masked]
    state: saved_state.State
    lineage: dict[str, Any]

    @contextlib.contextmanager
    def recorded(self, record: Path) -> Iterator[None]:
        """Inside, a run that diverges writes its history to the record; an earlier record is removed."""
        record.unlink(missing_ok=True)
        try:
            yield
        except DivergedError as error:
            tables.write(error.history, tables.HISTORY, record, **self.lineage, error=str(error))
            raise


def read(
    keys: Mapping[str, Any],
    recipe: Recipe,
    paths: Mapping[str, Any],
    log: logging.Logger,
    held: bool = False,
) -> TuningSetup:
    """Return the setup of a fine-tuning run.

    keys: of a model, or of a trial with its seed; recipe: with the text that it replays as `replayed`, if any; paths: `base`,
    `task` (of a mix one for each task) and `state`, the base's `folder` if the config names it, and `data_root`, which a text
    may lie in; held: whether to include validation rows.
    Errors: StudyError if the base or the rows are not usable.
    """
    recipe, text = replay.parted(recipe)
    base = checkpoints.read_base(paths["base"], paths["folder"])
    checkpoints.import_model(base["path"])
    log.info("imported: %s", job.clock())
    model, tokenizer = loading.untouched(base, device_name="cpu" if recipe["gpus"] > 1 else None)
    log.info("base %s; %s", base["path"], loading.describe())
    log.info("loaded: %s", job.clock())
    context = context_length(model)
    names = ("examples", "validation")[: 2 if held else 1]
    encoded: dict[str, dict[str, Masked]] = {name: {} for name in names}
    drawn = 0
    for prefix, source, parts in _drawn(keys["train"], paths["task"], recipe):
        for name, part in zip(names, parts, strict=False):
            found = finetuning.prepared_rows(tokenizer, context, source, part, keys["format"], recipe) if part else {}
            encoded[name] |= {prefix + row: found[row] for row in found}
            drawn += len(part)
    counts = {name: len(found) for name, found in encoded.items()}
    counts["dropped"] = drawn - sum(counts.values())
    summary = ", ".join(f"{number} {name}" for name, number in counts.items())
    log.info("rows: %s (dropped: no scored token within max_tokens)", summary)
    rows, seed = list(encoded["examples"].values()), int(keys["seed"])
    if text:
        replayed = replay.rows(tokenizer, replay.documents(text, paths["data_root"]), len(rows), context, recipe)
        rows, counts["replayed"] = [*rows, *replayed], len(replayed)
        log.info("replay: %d rows of text in %d epochs", len(replayed), recipe["epochs"])
    facts = {"base": base["files"], "recipe": recipe, "seed": seed}
    state = saved_state.State(Path(paths["state"]), finetuning.fingerprint(facts, rows))
    lineage = {**keys, "recipe_settings": recipe, "base": checkpoints.identity(base), **counts}
    if recipe["method"] == "lora":
        model = finetuning.adapted(model, recipe, seed)
        lineage["adapters"] = adapters.reach(model)
    probes = [row.ids for row in rows[:PROBES]]
    difference = save_load_check.check(model, base, probes, state.path.parent)
    if not held:  # trials are not saved
        save_load_check.check_beside(model, tokenizer, lineage, probes, state.path.parent)
    log.info("save-and-load check passed: logits differ by %.1g standard deviations", difference)
    return TuningSetup(model, tokenizer, rows, encoded.get("validation", {}), state, lineage)


def _drawn(train: str, paths: Any, recipe: Recipe) -> Iterator[tuple[str, Task, Sequence[Rows]]]:
    """Yield each task of a fine-tuning with its training and validation rows, after a prefix of their ids in a mix.

    paths: of the prepared task; of a mix, one for each task.
    """
    if "mix" not in recipe:
        source, rows, _ = task.examples(train, Path(paths))
        yield "", source, finetuning.divided(rows, recipe)
        return
    read = {name: task.examples(name, Path(path)) for name, path in zip(recipe["mix"], paths, strict=True)}
    divided = task_mix.divided({name: rows for name, (_, rows, _) in read.items()}, recipe)
    for name, (source, _, _) in read.items():
        yield f"{name}/", source, divided[name]
