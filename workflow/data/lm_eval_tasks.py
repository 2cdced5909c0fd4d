"""Tasks of lm-evaluation-harness: from the keys of a task file to a Task that reads and shows rows as the harness does.

Source: lm_eval 0.4.13, `api/task.py`, `api/samplers.py` and `utils.apply_template`. What a file may hold is HANDLED; any other
key is named and refused, so that no score differs from the harness's without a word. Python code is never run.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import os
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow.data import lm_eval_yaml
from workflow.data.lm_eval_yaml import Tagged
from workflow.errors import MistakesError, StudyError, first_line, shown
from workflow.settings import LmEval
from workflow.storage.files import ROW_FILES
from workflow.task import Example, FieldError, Row, Rows, Task, check_text

FORMAT = "lm_eval"  # the prompt format of these tasks
SEED = 1234  # of few-shot examples, the harness's default
NEW_TOKENS = 256  # the longest generation where a file states none (`HFLM.max_gen_toks`)
SAMPLES = "samples"  # the split of few-shot examples that stand in the file itself

SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")
DOCUMENT = ("doc_to_text", "doc_to_target", "doc_to_choice")
DELIMITERS = ("target_delimiter", "fewshot_delimiter")
HANDLED = (
    "task", "dataset_path", "dataset_name", "dataset_kwargs", *SPLITS, "output_type", *DOCUMENT, "description", *DELIMITERS,
    "fewshot_config", "num_fewshot", "generation_kwargs", "metric_list", "filter_list", "gen_prefix", "repeats",
)  # fmt: skip
# Keys that change nothing that is computed here.
WITHOUT_EFFECT = ("tag", "task_alias", "metadata", "should_decontaminate", "doc_to_decontamination_query")
# Values of other keys that say what holds anyway.
AS_ALWAYS = {"unsafe_code": False, "repeats": 1}

OUTPUTS = {"multiple_choice": "choice", "generate_until": "answer"}  # output type -> kind of task
METRICS = {"multiple_choice": ("acc", "acc_norm", "acc_bytes", "acc_mutual_info"), "generate_until": ("exact_match",)}
DEFAULT_METRICS = {"multiple_choice": ("acc", "acc_norm"), "generate_until": ("exact_match",)}
OF_METRICS = ("metric", "aggregation", "higher_is_better", "hf_evaluate", "weight_by_size")
OPTIONS = {"regexes_to_ignore": list, "ignore_case": bool, "ignore_punctuation": bool, "ignore_numbers": bool}
# Filter -> its arguments and their types.
FILTERS: dict[str, dict[str, type]] = {
    "take_first": {}, "remove_whitespace": {}, "lowercase": {}, "uppercase": {},
    "regex": {"regex_pattern": str, "group_select": int, "fallback": str},
}  # fmt: skip
TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
NAME = re.compile("[a-z0-9][a-z0-9_.-]{0,63}")
HUB = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
LOCAL = ("json", "csv", "parquet")

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
    if lines := [f"{block['file']}: {line}" for line in _mistakes(config, block)]:
        raise MistakesError(lines)
    harness, pool = _evaluation(config, block["seed"]), _pool(config)
    rows = _rows(config)
    return Task(
        kind=OUTPUTS[harness.output],
        schema={},
        read=_reader(config, harness.output),
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


# --- mistakes ------------------------------------------------------------------------------------------------------------


def _mistakes(config: Mapping[str, Any], block: Mapping[str, Any]) -> Iterator[str]:
    """What a file holds that is not supported: `key: found; allowed`."""
    tagged = dict(_tagged(config))
    for key, code in tagged.items():
        yield f"{key}: {str(code)!r} is code, which is not run; allowed: templates and plain values"
    for key in [key for key in config if key not in (*HANDLED, *WITHOUT_EFFECT, *AS_ALWAYS) and key not in tagged]:
        yield f"{key}: is not supported; allowed: {', '.join(HANDLED)}"
    for key, value in AS_ALWAYS.items():
        if config.get(key, value) != value:
            yield f"{key}: found {shown(config[key])}, expected {value!r}"
    output = config.get("output_type", "generate_until")
    if output not in OUTPUTS:
        yield f"output_type: {output!r} is not supported; allowed: {', '.join(OUTPUTS)}"
    elif not tagged:
        checks = (_of_document, _of_rows, _of_fewshot, _of_generation, _of_metrics, _of_filters)
        for check in checks:
            yield from check(config, output) if check is not _of_rows else _of_rows(config, block)


def _tagged(value: Any, key_path: str = "") -> Iterator[tuple[str, Tagged]]:
    """The values that a tag of YAML marks, by the path of their key."""
    if isinstance(value, Tagged):
        yield key_path, value
    entries = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from _tagged(entry, f"{key_path}/{key}" if key_path else str(key))


def _of_document(config: Mapping[str, Any], output: str, key_path: str = "") -> Iterator[str]:
    """Text, target and choices are there, of a type that the harness reads, and valid templates."""
    needed = DOCUMENT if output == "multiple_choice" else DOCUMENT[:2]
    for key in () if key_path else needed:
        if key not in config:
            yield f"{key}: missing; {output} needs {', '.join(needed)}"
    allowed = {"doc_to_text": (str, int), "doc_to_target": (str, int, list), "doc_to_choice": (str, list, dict)}
    plain = {key: (str,) for key in ("description", "gen_prefix", *DELIMITERS)}
    for key, types in {**allowed, **plain}.items():
        if key in config and (not isinstance(config[key], types) or isinstance(config[key], bool)):
            yield f"{key_path}{key}: found {shown(config[key])}, expected {_listed(types)}"
        elif isinstance(config.get(key), str) and key not in DELIMITERS:
            yield from _of_template(f"{key_path}{key}", config[key])


TYPES = {str: "text", int: "a whole number", list: "a list", dict: "keys with values", bool: "true or false"}


def _listed(types: Sequence[type]) -> str:
    """Types in words."""
    return " or ".join(TYPES[kind] for kind in types)


def _of_template(key: str, text: str) -> Iterator[str]:
    """A template is valid Jinja. Jobs that render nothing may lack Jinja; the start of the run has checked their templates."""
    if importlib.util.find_spec("jinja2") is None:
        return
    from jinja2 import TemplateError

    try:
        _template(text)
    except TemplateError as error:
        yield f"{key}: not a valid Jinja template ({first_line(error)}); expected one, or the name of a column"


def _of_rows(config: Mapping[str, Any], block: Mapping[str, Any]) -> Iterator[str]:
    """Rows come from the hub, from `data_root`, or from files of the study."""
    for key in SPLITS:
        if key in config and not isinstance(config[key], str):
            yield f"{key}: found {shown(config[key])}, expected the name of a split"
    if "test_split" not in config and "validation_split" not in config:
        yield "test_split: missing; expected `test_split` or `validation_split`"
    path, arguments = config.get("dataset_path"), config.get("dataset_kwargs", {})
    if path is not None and not (isinstance(path, str) and HUB.fullmatch(path)):
        yield f"dataset_path: found {shown(path)}, expected a dataset of the hub, or one of {', '.join(LOCAL)}"
    if not isinstance(config.get("dataset_name", ""), str):
        yield f"dataset_name: found {shown(config['dataset_name'])}, expected text"
    if not isinstance(arguments, Mapping):
        yield f"dataset_kwargs: found {shown(arguments)}, expected keys with values"
        return
    legal = ("data_files",) if path in LOCAL else ("revision",)
    for key in [key for key in arguments if key not in (*legal, "trust_remote_code")]:
        yield f"dataset_kwargs/{key}: is not supported with dataset_path {path!r}; allowed: {', '.join(legal)}"
    if path in LOCAL:
        yield from _of_files(config, arguments.get("data_files"), block)


def _of_files(config: Mapping[str, Any], files: Any, block: Mapping[str, Any]) -> Iterator[str]:
    """Files of rows lie in the study's folder, the folder of task files or `data_root`; one for each split that is read."""
    key = "dataset_kwargs/data_files"
    named = {"train": files} if isinstance(files, str) else files
    if not isinstance(named, Mapping) or not all(isinstance(file, str) for file in named.values()):
        yield f"{key}: found {shown(files)}, expected split -> file"
        return
    fewshot = config.get("fewshot_config")
    explicit = fewshot.get("split") if isinstance(fewshot, Mapping) else None
    for split in [config[split_key] for split_key in SPLITS if split_key in config] + ([explicit] if explicit else []):
        if split not in named:
            yield f"{key}: split {split!r} is missing; expected a file for each split that is read"
    roots = [
        Path.cwd(),
        Path(block["root"]).resolve(),
        *([Path(block["data_root"]).resolve()] if block.get("data_root") else []),
    ]
    for file in named.values():
        if not file.endswith(ROW_FILES):
            yield f"{key}: found {file!r}, expected a file whose name ends in {', '.join(ROW_FILES)}"
        elif not any(Path(os.path.normpath(Path.cwd() / file)).resolve().is_relative_to(root) for root in roots):
            yield f"{key}: {file!r} is outside the study's folder; allowed: files in it, in include_path or in data_root"


FEWSHOT = ("sampler", "split", SAMPLES, *DOCUMENT, "gen_prefix", *DELIMITERS)


def _of_fewshot(config: Mapping[str, Any], output: str) -> Iterator[str]:
    """Few-shot examples come from a split or stand in the file; they may be shown differently."""
    fewshot, shots = config.get("fewshot_config", {}), config.get("num_fewshot", 0)
    if type(shots) is not int or shots < 0:
        yield f"num_fewshot: found {shown(shots)}, expected a whole number from 0"
    if not isinstance(fewshot, Mapping):
        yield f"fewshot_config: found {shown(fewshot)}, expected keys with values"
        return
    for key in [key for key in fewshot if key not in FEWSHOT]:
        yield f"fewshot_config/{key}: is not supported; allowed: {', '.join(FEWSHOT)}"
    if fewshot.get("sampler", "default") not in ("default", "first_n"):
        yield f"fewshot_config/sampler: {fewshot['sampler']!r} is not supported; allowed: default, first_n"
    if not isinstance(fewshot.get("split") or "", str):
        yield f"fewshot_config/split: found {shown(fewshot['split'])}, expected the name of a split"
    samples = fewshot.get(SAMPLES, [])
    if not isinstance(samples, list) or not all(isinstance(row, Mapping) for row in samples):
        yield f"fewshot_config/samples: found {shown(samples)}, expected a list of rows"
    yield from _of_document(fewshot, output, "fewshot_config/")


def _of_generation(config: Mapping[str, Any], output: str) -> Iterator[str]:
    """Text is generated greedily, up to stop strings."""
    settings, key = config.get("generation_kwargs", {}), "generation_kwargs"
    if not isinstance(settings, Mapping):
        yield f"{key}: found {shown(settings)}, expected keys with values"
        return
    for name in [name for name in settings if name not in ("until", "do_sample", "temperature", *TOKENS)]:
        yield f"{key}/{name}: is not supported; allowed: until, do_sample, temperature, {TOKENS[0]}"
    until = settings.get("until", [])
    if not isinstance(until, str) and not (isinstance(until, list) and all(isinstance(stop, str) for stop in until)):
        yield f"{key}/until: found {shown(until)}, expected text or a list of texts"
    if settings.get("do_sample") or (float(settings.get("temperature") or 0) and "do_sample" not in settings):
        yield f"{key}: samples text (do_sample, temperature); expected greedy generation: do_sample: false"
    for name in TOKENS:
        if settings.get(name) is not None and (type(settings[name]) is not int or settings[name] < 1):
            yield f"{key}/{name}: found {shown(settings[name])}, expected a whole number from 1"


def _of_metrics(config: Mapping[str, Any], output: str) -> Iterator[str]:
    """Metrics are means over rows that are computed as in the harness."""
    listed = config.get("metric_list", [])
    if not isinstance(listed, list) or not all(isinstance(entry, Mapping) and "metric" in entry for entry in listed):
        yield f"metric_list: found {shown(listed)}, expected a list of entries with `metric`"
        return
    for entry in listed:
        name = entry["metric"]
        if name not in METRICS[output]:
            yield f"metric_list: {str(name)!r} is not supported for {output}; allowed: {', '.join(METRICS[output])}"
            continue
        options = OPTIONS if name == "exact_match" else {}
        for key in [key for key in entry if key not in (*OF_METRICS, *options)]:
            yield f"metric_list/{name}/{key}: is not supported; allowed: {', '.join(options) or 'no options'}"
        if entry.get("aggregation", "mean") != "mean":
            yield f"metric_list/{name}/aggregation: {str(entry['aggregation'])!r} is not supported; allowed: mean"
        yield from _arguments(f"metric_list/{name}", entry, options)
        for pattern in entry.get("regexes_to_ignore") or [] if "regexes_to_ignore" in options else []:
            yield from _of_expression(f"metric_list/{name}/regexes_to_ignore", pattern)


def _of_filters(config: Mapping[str, Any], output: str) -> Iterator[str]:
    """Filters are known, and each list of them ends with the first response."""
    listed = config.get("filter_list", [])
    if not isinstance(listed, list) or not all(
        isinstance(entry, Mapping) and {"name", "filter"} <= set(entry) for entry in listed
    ):
        yield f"filter_list: found {shown(listed)}, expected a list of entries with `name` and `filter`"
        return
    for entry in listed:
        key, steps = f"filter_list/{entry['name']}", entry["filter"]
        if not isinstance(steps, list) or not all(isinstance(step, Mapping) and "function" in step for step in steps):
            yield f"{key}: found {shown(steps)}, expected a list of entries with `function`"
            continue
        legal = FILTERS if output == "generate_until" else {"take_first": FILTERS["take_first"]}
        names = [step["function"] for step in steps]
        for name in [name for name in names if name not in legal]:
            yield f"{key}: filter {str(name)!r} is not supported for {output}; allowed: {', '.join(legal)}"
        if names.count("take_first") != 1 or names[-1] != "take_first":
            yield f"{key}: found {', '.join(map(str, names))}, expected take_first once, as the last filter"
        for step in [step for step in steps if step["function"] in legal]:
            options = legal[step["function"]]
            for name in [name for name in step if name not in ("function", *options)]:
                yield f"{key}/{step['function']}/{name}: is not supported; allowed: {', '.join(options) or 'no options'}"
            yield from _arguments(f"{key}/{step['function']}", step, options)
            if "regex_pattern" in step:
                yield from _of_expression(f"{key}/regex_pattern", step["regex_pattern"])


def _arguments(key_path: str, entry: Mapping[str, Any], options: Mapping[str, type]) -> Iterator[str]:
    """Arguments are of their types."""
    for key, kind in options.items():
        if key in entry and (not isinstance(entry[key], kind) or (kind is int and isinstance(entry[key], bool))):
            yield f"{key_path}/{key}: found {shown(entry[key])}, expected {TYPES[kind]}"


def _of_expression(key: str, pattern: Any) -> Iterator[str]:
    """A regular expression is valid."""
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        yield f"{key}: {shown(pattern)} is not a regular expression ({first_line(error)})"


# --- reading a row -------------------------------------------------------------------------------------------------------


@functools.cache
def _environment() -> Any:
    """The harness's Jinja environment, in which templates can change nothing and reach no internals of Python."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["regex_replace"] = lambda text, pattern, repl, count=0: re.sub(pattern, repl, text, count=count)
    return environment


@functools.lru_cache(maxsize=1024)
def _template(text: str) -> Any:
    """A compiled template. Errors: jinja2.TemplateError."""
    return _environment().from_string(text)


def rendered(key: str, text: str, row: Row) -> str:
    """A template filled in with a row. Errors: FieldError with what the template lacks."""
    try:
        return str(_template(text).render(**row))
    except Exception as error:  # whatever an expression of a template raises
        raise FieldError(key, f"{type(error).__name__}: {first_line(error)}", "a template that fits the row") from error


@dataclass(frozen=True)
class Shape:
    """How a row is shown: text, target and choices (a column, template, list, mapping or index), prefix and delimiters."""

    text: Any
    target: Any
    choice: Any
    prefix: str | None
    delimiter: str
    end: str


@dataclass(frozen=True)
class Reader:
    """Reads a row as the harness does: `Task.read`.

    The fields of an example: `description`; `query`, the text up to the answer; `answer`, as it follows the query; `solved`, the
    row as a few-shot example; `row`, a hash that tells whether two rows are the same; `inputs` where the choices are contexts of
    one continuation (a `doc_to_text` that is a number, as for WinoGrande).
    """

    output: str
    description: str
    own: Shape
    shown: Shape

    def __call__(self, row: Row) -> Example:
        """The example of a row. Errors: FieldError for a row that does not fit."""
        fields = {
            "description": _resolved("description", self.description, row) or "",
            "row": hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest()[:16],
        }
        choices = _choices(self.own.choice, row)
        text, target = _text(self.own, row, choices), _target(self.own, row, choices)
        if self.output == "generate_until":
            references = _references(target, choices)
            fields |= {"query": self._query(text, row), "answer": self.own.delimiter + references[0]}
            return _checked(Example(fields | self._solved(row), references[0], references, 0))
        assert choices is not None  # the keys of the file were checked
        gold = text if isinstance(text, int) else _gold(target, choices)
        if isinstance(text, int):
            fields |= {"query": choices[gold], "answer": f"{self.own.delimiter}{target}", "inputs": "choices"}
        else:
            fields |= {"query": self._query(text, row), "answer": self.own.delimiter + choices[gold]}
        return _checked(Example(fields | self._solved(row), choices[gold], tuple(choices), gold))

    def _query(self, text: str | int, row: Row) -> str:
        """The row without its answer, up to the prefix of the answer if there is one."""
        text, prefix = str(text), _resolved("gen_prefix", self.own.prefix, row)
        if not prefix:
            return text
        return text + (self.own.delimiter if _apart(text, prefix) else "") + prefix

    def _solved(self, row: Row) -> dict[str, str]:
        """The field with the row as a few-shot example; none where the row cannot be shown as one."""
        try:
            return {"solved": self._demonstration(row)}
        except FieldError:  # only rows that are drawn need it; `shown_rows` raises
            return {}

    def _demonstration(self, row: Row) -> str:
        """The row with its answer, as a few-shot example."""
        shape = self.shown
        choices = _choices(shape.choice, row)
        text, target = _text(shape, row, choices), _target(shape, row, choices)
        if isinstance(text, int):
            assert choices is not None
            text, choices = choices[text], None
        if choices and isinstance(target, int):
            target = choices[_gold(target, choices)]
        answer = target[0] if isinstance(target, list) else target
        if answer == "":
            return text
        prefix = _resolved("gen_prefix", shape.prefix, row)
        between = shape.delimiter if not prefix or _apart(text, prefix) else ""
        return text + between + _joined(prefix, str(answer)) + shape.end


def _reader(config: Mapping[str, Any], output: str) -> Reader:
    """The reader of a file without mistakes."""

    def shape(keys: Mapping[str, Any]) -> Shape:
        return Shape(
            text=keys.get("doc_to_text"),
            target=_frozen(keys.get("doc_to_target")),
            choice=_frozen(keys.get("doc_to_choice")),
            prefix=keys.get("gen_prefix"),
            delimiter=keys.get("target_delimiter", " "),
            end=keys.get("fewshot_delimiter", "\n\n"),
        )

    changes = {key: value for key, value in (config.get("fewshot_config") or {}).items() if value is not None}
    return Reader(output, config.get("description", ""), shape(config), shape({**config, **changes}))


def _frozen(value: Any) -> Any:
    """Lists and mappings of choices as tuples."""
    return tuple(value.values() if isinstance(value, Mapping) else value) if isinstance(value, list | dict) else value


def _resolved(key: str, text: str | None, row: Row) -> str | None:
    """A column of the row, or a template filled in."""
    if not text:
        return None
    return str(row[text]) if text in row else rendered(key, text, row)


def _choices(choice: Any, row: Row) -> list[str] | None:
    """The choices of a row; None where the task has none."""
    if choice is None:
        return None
    listed = choice
    if isinstance(choice, str):
        listed = row[choice] if choice in row else _literal("doc_to_choice", rendered("doc_to_choice", choice, row))
    if (
        not isinstance(listed, list | tuple)
        or len(listed) < 1
        or not all(isinstance(entry, str) and entry for entry in listed)
    ):
        raise FieldError("doc_to_choice", listed, "a list of texts that are not empty")
    return list(listed)


def _text(shape: Shape, row: Row, choices: Sequence[str] | None) -> str | int:
    """The text of a row; the place of the right one among choices that are contexts themselves."""
    value: Any = shape.text
    if isinstance(value, str):
        value = row[value] if value in row else rendered("doc_to_text", value, row)
        if isinstance(value, str) and value.isdigit() and choices is not None and shape.text not in row:
            value = _literal("doc_to_text", value)
    several = type(value) is int and choices is not None and 0 <= value < len(choices)
    if not isinstance(value, str) and not several:
        raise FieldError("doc_to_text", value, "text" + (", or the index of a choice" if choices else ""))
    return value


def _target(shape: Shape, row: Row, choices: Sequence[str] | None) -> Any:
    """The target of a row: text, the index of a choice, or a list."""
    value: Any = list(shape.target) if isinstance(shape.target, tuple) else shape.target
    if isinstance(value, str) and value in row:
        value = row[value]
    elif isinstance(value, str):
        value = rendered("doc_to_target", value, row)
        if value.isdigit() and choices is not None:
            return _literal("doc_to_target", value)
        if len(value) >= 2 and value[0] == "[" and value[-1] == "]":
            try:
                return ast.literal_eval(value)
            except (SyntaxError, ValueError):
                return value
    if value is None or (isinstance(value, list) and not value):
        raise FieldError("doc_to_target", value, "a text, a number, or a list that is not empty")
    return value


def _literal(key: str, text: str) -> Any:
    """A list or number that a template wrote."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise FieldError(key, text, "a list or number as Python writes it") from error


def _gold(target: Any, choices: Sequence[str]) -> int:
    """The place of the right choice."""
    if isinstance(target, int) and 0 <= target < len(choices):
        return int(target)
    if isinstance(target, str) and target in choices:
        return list(choices).index(target)
    raise FieldError("doc_to_target", target, "the place of one choice, or its text: " + ", ".join(map(shown, choices)))


def _references(target: Any, choices: Sequence[str] | None) -> tuple[str, ...]:
    """The texts that count as right."""
    if choices is not None:
        if type(target) is not int or not 0 <= target < len(choices):
            raise FieldError("doc_to_target", target, f"the index of a choice, 0 to {len(choices) - 1}")
        return (choices[target],)
    return tuple(map(str, target)) if isinstance(target, list) else (str(target),)


def _apart(first: str, second: str) -> bool:
    """Whether two texts need a delimiter: neither has white space where they meet, and the first is not empty."""
    return bool(first) and not (first[-1].isspace() or second[0].isspace())


def _joined(prefix: str | None, text: str) -> str:
    """A prefix and a text, with a space between them where they need one."""
    if not prefix or not text:
        return prefix or text
    return f"{prefix} {text}" if _apart(prefix, text) else prefix + text


def _checked(example: Example) -> Example:
    """An example of valid text. Errors: FieldError."""
    for name, text in (*example.fields.items(), *(("doc_to_choice", choice) for choice in example.choices)):
        check_text(text, name)
    return example


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
