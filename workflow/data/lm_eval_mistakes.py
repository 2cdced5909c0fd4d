"""What a task file of lm-evaluation-harness may hold, and the mistakes of one that holds something else.

Source: lm_eval 0.4.13, `api/task.py`. Any key that is not HANDLED is named and refused, so that no score differs from the
harness's without a word.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workflow.data import lm_eval_rows
from workflow.data.lm_eval_yaml import Tagged
from workflow.errors import first_line, shown
from workflow.storage.files import ROW_FILES

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
HUB = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
LOCAL = ("json", "csv", "parquet")


def mistakes(config: Mapping[str, Any], block: Mapping[str, Any]) -> Iterator[str]:
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
        lm_eval_rows.template(text)
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
