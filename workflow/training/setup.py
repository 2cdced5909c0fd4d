"""What a tuning starts from, in a job that tunes and in one that tries a learning rate: the base and its rows in memory."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow import task
from workflow.errors import DivergedError
from workflow.jobs import job
from workflow.models import adapters, checkpoints, loading
from workflow.models.encoding import Masked, context_length
from workflow.storage import tables
from workflow.training import finetuning, save_load_check, saved_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBES = 2  # rows that a rehearsal reads


@dataclass(frozen=True)
class Outset:
    """A tuning that has not begun.

    model: the base, with adapters where the recipe has them, in the host's memory where GPUs are to share it; rows: what
    it is tuned on; held: validation rows by id, none where they are not asked for; state: what a killed tuning goes on
    from; lineage: what its results state of it.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    rows: list[Masked]
    held: dict[str, Masked]
    state: saved_state.State
    lineage: dict[str, Any]

    @contextlib.contextmanager
    def recorded(self, record: Path) -> Iterator[None]:
        """Inside, a tuning that diverges leaves its history in the record; a record of an earlier one is removed."""
        record.unlink(missing_ok=True)
        try:
            yield
        except DivergedError as error:
            tables.write(error.history, tables.HISTORY, record, **self.lineage, error=str(error))
            raise


def read(
    keys: Mapping[str, Any],
    recipe: Mapping[str, Any],
    paths: Mapping[str, Any],
    log: logging.Logger,
    held: bool = False,
) -> Outset:
    """The outset of a tuning.

    keys: of a model, or of a trial with its seed; paths: `base`, `task` and `state`, and the base's `folder` where the
    config names it; held: whether validation rows are wanted.
    Errors: StudyError when base or rows do not allow it.
    """
    base = checkpoints.read_base(paths["base"], paths["folder"])
    checkpoints.import_model(base["path"])
    log.info("imported: %s", job.clock())
    model, tokenizer = loading.untouched(base, place="cpu" if recipe["gpus"] > 1 else None)
    log.info("base %s; %s", base["path"], loading.describe())
    log.info("loaded: %s", job.clock())
    source, train, _ = task.examples(keys["train"], Path(paths["task"]))
    parts = finetuning.divided(train, recipe)[: 2 if held else 1]
    context = context_length(model)
    encoded = [finetuning.prepared_rows(tokenizer, context, source, part, keys["format"], recipe) for part in parts]
    counts = dict(zip(("examples", "validation"), map(len, encoded), strict=False))
    counts["dropped"] = sum(map(len, parts)) - sum(counts.values())
    told = ", ".join(f"{number} {name}" for name, number in counts.items())
    log.info("rows: %s, since their cut left no token to learn", told)
    rows, seed = list(encoded[0].values()), int(keys["seed"])
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
    log.info("rehearsed: saved and loaded again, logits differ by %.1g of their standard deviation", difference)
    return Outset(model, tokenizer, rows, encoded[1] if held else {}, state, lineage)
