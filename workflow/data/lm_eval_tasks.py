"""Tasks of lm-evaluation-harness: from the keys of a task file to a Task, and the few-shot examples that the harness draws.

Source: lm_eval 0.4.13, `api/task.py` and `api/samplers.py`.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workflow.data import lm_eval_mistakes, lm_eval_rows, lm_eval_yaml
from workflow.data.lm_eval_mistakes import DEFAULT_METRICS, FILTERS, LOCAL, OPTIONS, OUTPUTS, SAMPLES, SPLITS, TOKENS
from workflow.errors import MistakesError, StudyError
from workflow.settings import LmEval
from workflow.task import Example, Rows, Task

FORMAT = "lm_eval"  # the prompt format of these tasks
SEED = 1234  # of few-shot examples, the harness's default
NEW_TOKENS = 256  # the longest generation where a file states none (`HFLM.max_gen_toks`)

NAME = re.compile("[a-z0-9][a-z0-9_.-]{0,63}")

Words = tuple[tuple[str, Any], ...]  # arguments of a filter or metric


@dataclass(frozen=True)
class HarnessTask:
    """How a task of the harness is evaluated, beside how its rows are read.

    text: `doc_to_text` as written; output: `multiple_choice` or `generate_until`; sampler: of few-shot examples (`default`:
    drawn for each row, `first_n`); excludes: whether the row itself is kept from its few-shot examples; shots: `num_fewshot` of
    the file; until: stop strings; new_tokens: longest generation; metrics: (name, options); filters: (name, steps), each step
    (function, arguments).
    """

    text: str
    output: str
    sampler: str
    excludes: bool
    seed: int
    shots: int | None
    until: tuple[str, ...]
    new_tokens: int
    metrics: tuple[tuple[str, Words], ...]
    filters: tuple[tuple[str, tuple[tuple[str, Words], ...]], ...]

    @property
    def prediction(self) -> tuple[object, ...]:
        """What predictions depend on, of a prompt as it is."""
        sampling = (self.sampler, self.excludes, self.seed, self.shots)
        return (self.output, *sampling, self.until, self.new_tokens, self.unconditional)

    @property
    def scoring(self) -> tuple[object, ...]:
        """What scores depend on, of predictions as they are."""
        return (self.metrics, self.filters)

    @property
    def unconditional(self) -> bool:
        """Whether choices are also read without a context."""
        return any(name == "acc_mutual_info" for name, _ in self.metrics)


def named(metric: str, filter: str) -> str:
    """The name of a metric after a filter, as in the harness's results; `none` is left out."""
    return metric if filter == "none" else f"{metric},{filter}"


def blocks(
    settings: LmEval, data_root: str | None
) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]], list[str]]:
    """The tasks that a config's block `lm_eval` lists, as blocks for `task`, the tasks of each group, and a line for each
    name that cannot be read.

    Errors: StudyError for a folder that is missing.
    """
    root, prefix = lm_eval_yaml.folder(settings["include_path"]), settings.get("prefix", "")
    configs, groups, lines = lm_eval_yaml.found(lm_eval_yaml.TaskFiles(root), settings["tasks"])
    shared = {"seed": settings["fewshot_seed"], "root": str(root), "data_root": data_root}
    for name in [name for name in configs if not NAME.fullmatch(prefix + name)]:
        lines.append(
            f"{configs[name]['file']}: task: {name!r} cannot be part of a path; allowed: names that match {NAME.pattern}"
        )
    made = {
        prefix + name: {"lm_eval": entry["config"], "file": entry["file"], "folder": name, **shared}
        for name, entry in configs.items()
        if NAME.fullmatch(prefix + name)
    }
    return made, {prefix + name: [prefix + task for task in listed] for name, listed in groups.items()}, lines


def task(block: Mapping[str, Any]) -> Task:
    """The task of a block {lm_eval: keys of the file, file, folder, seed, root, data_root}.

    Errors: MistakesError with a line for each key that is not supported.
    """
    config = {key: value for key, value in block["lm_eval"].items() if value is not None}
    if lines := [f"{block['file']}: {line}" for line in lm_eval_mistakes.mistakes(config, block)]:
        raise MistakesError(lines)
    harness, pool = _evaluation(config, block["seed"]), _pool(config)
    rows = _rows(config)
    return Task(
        kind=OUTPUTS[harness.output],
        schema={},
        read=lm_eval_rows.reader(config, harness.output),
        train=config.get("training_split"),
        test=config.get("test_split", config.get("validation_split")),
        demonstrations=pool,
        folder=block["folder"],
        templates={FORMAT: "{description}{query}"},
        fields=("description", "query"),
        metrics=tuple(named(metric, filter) for filter, _ in harness.filters for metric, _ in harness.metrics),
        inline={SAMPLES: tuple(config["fewshot_config"][SAMPLES])} if pool == SAMPLES else {},
        lm_eval=harness,
        **rows,
    )


def _pool(config: Mapping[str, Any]) -> str:
    """The split of few-shot examples: the one that is named, else samples in the file, training, validation or test rows."""
    fewshot = config.get("fewshot_config") or {}
    explicit = fewshot.get("split", config.get("fewshot_split"))
    if explicit is None and fewshot.get(SAMPLES) is not None:
        return SAMPLES
    return explicit or next(config[key] for key in SPLITS if key in config)


def _rows(config: Mapping[str, Any]) -> dict[str, Any]:
    """Where rows come from, as arguments of Task."""
    arguments = config.get("dataset_kwargs") or {}
    if config.get("dataset_path") in LOCAL:
        files = arguments["data_files"]
        return {"path": os.curdir, "files": files if isinstance(files, Mapping) else {"train": files}}
    return {
        "hub": config.get("dataset_path"),
        "subset": config.get("dataset_name"),
        "revision": arguments.get("revision"),
    }


def _evaluation(config: Mapping[str, Any], seed: int) -> HarnessTask:
    """How the task of a file without mistakes is evaluated."""
    output = config.get("output_type", "generate_until")
    fewshot = config.get("fewshot_config") or {}
    generation = config.get("generation_kwargs") or {}
    until = generation.get("until", [config.get("fewshot_delimiter", "\n\n")])
    tokens = next((generation[key] for key in TOKENS if generation.get(key) is not None), NEW_TOKENS)
    listed = config.get("metric_list", [{"metric": name} for name in DEFAULT_METRICS[output]])
    filters = config.get("filter_list", [{"name": "none", "filter": [{"function": "take_first"}]}])
    return HarnessTask(
        text=str(config["doc_to_text"]),
        output=output,
        sampler=fewshot.get("sampler", "default"),
        # The harness compares the names, so two that are missing are the same.
        excludes=fewshot.get("split", config.get("fewshot_split")) == config.get("test_split"),
        seed=seed,
        shots=config.get("num_fewshot"),
        until=tuple([until] if isinstance(until, str) else until),
        new_tokens=int(tokens),
        metrics=tuple((entry["metric"], _words(entry, OPTIONS)) for entry in listed),
        filters=tuple(
            (
                entry["name"],
                tuple((step["function"], _words(step, FILTERS[step["function"]])) for step in entry["filter"]),
            )
            for entry in filters
        ),
    )


def _words(entry: Mapping[str, Any], allowed: Mapping[str, type]) -> Words:
    """The arguments of a metric or filter, as a tuple that can be hashed."""
    return tuple(
        (key, tuple(entry[key]) if isinstance(entry[key], list) else entry[key]) for key in allowed if key in entry
    )


# --- few-shot examples ---------------------------------------------------------------------------------------------------


def shown_rows(
    harness: HarnessTask, pool: Sequence[tuple[str, Example]], rows: Sequence[tuple[str, Example]], shots: int
) -> list[Rows]:
    """The few-shot examples of each row: one generator draws them for row after row, so they depend on the rows before.

    Errors: StudyError for a pool that is too small.
    """
    draw = random.Random(harness.seed)
    return [_shown(harness, draw, pool, row[1].fields["row"], shots) for row in rows]


def _shown(
    harness: HarnessTask, draw: random.Random, pool: Sequence[tuple[str, Example]], row_key: str, shots: int
) -> Rows:
    """The few-shot examples of one row. row_key: its hash."""
    if not shots:
        return []
    others = [row for row in pool if row[1].fields["row"] != row_key] if harness.excludes else list(pool)
    needed = shots + (harness.excludes and harness.sampler == "default")
    if len(others) < shots or len(pool) < needed:
        raise StudyError(f"{shots} few-shot examples need at least {needed} rows to draw from; found {len(pool)}")
    if harness.sampler == "first_n":
        return others[:shots]
    drawn = draw.sample(list(pool), needed)
    if harness.excludes:
        drawn = [row for row in drawn if row[1].fields["row"] != row_key][:shots]
    return drawn if len(drawn) == shots else draw.sample(others, shots)


def demonstration(id: str, example: Example) -> str:
    """A row as a few-shot example. Errors: StudyError for one that cannot be shown as such."""
    if "solved" not in example.fields:
        raise StudyError(f"row '{id}': cannot be shown as a few-shot example; see fewshot_config of the task file")
    return example.fields["solved"]
