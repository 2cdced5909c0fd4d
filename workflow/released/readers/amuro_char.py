"""The released scores of "Amuro & Char" (Sun & Dredze, arXiv 2408.06663): OLMo-1B at eight steps, base and fine-tuned.

In the release, the names of model and dataset say what a number measures. Three grammars cover all names; any other name is an
error. All rows are read, including those that the paper does not use. The suites:

- `published`: the scores that the paper uses: tests of tasks with default, instruct and io prompts (all_perf_table.csv), and
  benchmarks, ranked multiple choice with 4 shots (official_eval_table.csv);
- `ranked`: RTE and QQP as the benchmarks' file has them, for untouched bases;
- `before_fix`: the same, of bases without `_hf` in the name: presumably before the authors corrected the conversion of
  weights;
- `stray`: the one row of a model with an unusual name; its value suggests a second bootstrap of a base's score;
- `instructed`: tests of instruction following that the paper does not use (it_perf_table.csv). `_before_fix` at its end
  marks names of tuned models and of the final base without `hf_`, `_chat` those with `_cot_chat`. Names of the other
  bases (`checkpoint-1000`) do not show which conversion was used; they are in `instructed`.

Values are as released, a win rate as a share: in all_perf_table.csv the middle of the bootstrap interval over rows, not
the mean. The number of test rows is not released, nor a standard error with the other two files.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

from workflow import task
from workflow.errors import StudyError, shown
from workflow.evaluation.metrics import PRIMARY
from workflow.storage.files import number

SOURCE = (
    'Sun and Dredze (2025), "Amuro & Char: Analyzing the Relationship between Pre-Training and Fine-Tuning of Large '
    'Language Models", RepL4NLP, arXiv 2408.06663; '
    "https://github.com/KaiserWhoLearns/AmuroCharPTFTRelationship, folder results/analysis"
)

# Suites whose prediction of labels is known, as a suite's keys `protocol` and `labels`: the paper's *Token probability*, used
# for all of its classification numbers. For the benchmarks' runs of RTE and QQP it is not known.
LABELS = dict.fromkeys(("published", "before_fix", "stray"), ("published", "score"))

FAMILY = "olmo-1b"
FINAL_STEP = 738020  # "main" and names without a step: the hub's last revision of OLMo-1B
SEED = 42
Z = NormalDist().inv_cdf(0.975)

# Part of a fine-tuned model's name -> task, recipe. Three epochs on one task, or five on instructions; `sft` has the paper's
# learning rate for each task.
TUNINGS = {
    "mnli_3epoch_2e-6": ("mnli", "sft"),
    "mnli_3epoch_2e-5": ("mnli", "sft_2e-5"),
    "paws_3epoch_2e-6": ("paws", "sft"),
    "socialiqa_3epoch_2e-6": ("social_iqa", "sft"),
    "xsum_3epoch_2e-7": ("xsum", "sft"),
    "tulu_5epoch_2e-6": ("tulu", "tulu"),
}

TASKS = {
    "mnli_matched": "mnli",
    "mnli_mismatched": "mnli_mismatched",
    "rte": "rte",
    "gpt3nli": "gpt3_nli",
    "paws": "paws",
    "qqp": "qqp",
    "stsb": "stsb",
    "xsum": "xsum",
    "xlsum": "xlsum_english",
    "cnn": "cnn_dailymail",
    "socialiqa": "social_iqa",
    "sciq": "sciq",
    "tweetqa": "tweet_qa",
}
FORMATS = {"": "default", "_instruct": "instruct", "_inputoutput": "io"}
LLMBAR = {
    "llmbar_Natural": "llmbar_natural",
    "llmbar_Adversarial_Manual": "llmbar_adversarial_manual",
    "llmbar_Adversarial_Neighbor": "llmbar_adversarial_neighbor",
}
# A name that TASKS has too is another task here: its options are ranked.
BENCHMARKS = {"sciq": "sciq_choice"} | {
    name: name for name in ("arc_challenge", "arc_easy", "boolq", "hellaswag", "openbookqa", "qqp", "rte")
}
INSTRUCTED = {name: name for name in ("alpaca", "gsm", "mmlu", "toxigen", "truthfulqa")}

# Metrics of tests that Tunecast has no task for. Toxicity, the share of toxic answers, is better when lower.
METRICS = dict.fromkeys(LLMBAR.values(), "accuracy") | {
    "alpaca": "win_rate",
    "gsm": "exact_match",
    "mmlu": "accuracy",
    "toxigen": "toxicity",
    "truthfulqa": "true_and_informative",
}
PERCENT = ("alpaca",)  # released as 0 to 100, read as a share like all others

PREDICTED_NAME = re.compile(
    r"""
    (?: olmo1b_checkpoint-(?P<base>\d+)_original (?P<fixed>_hf)?    # a base; without _hf: before the fix
      | olmo1b_original_hf                                          # the final base
      | olmo1b_hf_ (?: ckpt(?P<tuned>\d+) | main )                  # tuned, by its base's step or the final one,
        _ (?P<tuning> [a-z]+ _ \d+epoch _ 2e-\d )                   # on what, for how long, at which learning rate
      | checkpoint-(?P<stray>\d+)                                   # the odd one
    )
    (?: _ (?P<shots>\d+) shots )?                                   # none named: 0
    """,
    re.VERBOSE | re.ASCII,
)
BENCHMARK_NAME = re.compile(
    r"""
    checkpoint-(?P<base>\d+)                                        # a base
    | olmo1b_original_hf                                            # the final base
    | olmo1b_hf_ (?: ckpt(?P<tuned>\d+) | main ) _ (?P<tuning> tulu_5epoch_2e-6 )
    """,
    re.VERBOSE | re.ASCII,
)
INSTRUCTED_NAME = re.compile(
    r"""
    (?: checkpoint-(?P<base>\d+)                                    # a base
      | olmo1b_ (?P<fixed>hf_)?                                     # without hf_: before the fix
        (?: original                                                # the final base
          | (?: ckpt(?P<tuned>\d+)_ | (?(fixed)main_) )             # tuned; the final one is "main" only after the fix
            (?P<tuning> tulu_5epoch_2e-6 )
        )
    )
    (?P<chat> _cot_chat )?                                          # reasoning asked for, in the chat form
    """,
    re.VERBOSE | re.ASCII,
)

Parts = Mapping[str, str | None]


def _predicted_suite(parts: Parts) -> str:
    if parts["stray"]:
        return "stray"
    return "before_fix" if parts["base"] and not parts["fixed"] else "published"


def _benchmark_suite(parts: Parts) -> str:
    return "published"


def _instructed_suite(parts: Parts) -> str:
    fixed = parts["base"] or parts["fixed"]
    return "instructed" + ("" if fixed else "_before_fix") + ("_chat" if parts["chat"] else "")


@dataclass(frozen=True)
class Release:
    """The format of one file.

    names: grammar of model names; suite: parts of a name -> suite; shots: few-shot examples if a name gives none; tests: name
    of a dataset -> (test, test_format); apart: suite of a test that another file has too; spread: whether the file has
    standard errors.
    """

    names: re.Pattern[str]
    suite: Callable[[Parts], str]
    shots: int
    tests: Mapping[str, tuple[str, str]]
    apart: Mapping[str, str] = field(default_factory=dict)
    spread: bool = False

    @property
    def columns(self) -> list[str]:
        """The file's header; the first column, without a name, numbers the rows."""
        return ["", "model_id", "eval dataset", "Performance", *(["std"] if self.spread else [])]


def _plain(names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return tests in the default format, for dataset names without a format."""
    return {name: (test, "default") for name, test in names.items()}


RELEASES = {
    "all_perf_table.csv": Release(
        PREDICTED_NAME,
        _predicted_suite,
        shots=0,
        tests={name + suffix: (test, format) for name, test in TASKS.items() for suffix, format in FORMATS.items()}
        | _plain(LLMBAR),
        spread=True,
    ),
    "official_eval_table.csv": Release(
        BENCHMARK_NAME,
        _benchmark_suite,
        shots=4,
        tests=_plain(BENCHMARKS),
        apart={"rte": "ranked", "qqp": "ranked"},
    ),
    "it_perf_table.csv": Release(INSTRUCTED_NAME, _instructed_suite, shots=0, tests=_plain(INSTRUCTED)),
}
FILES = tuple(RELEASES)


class Model(NamedTuple):
    """The parts of a model's name; train and recipe of a base are None."""

    step: int
    train: str | None
    recipe: str | None
    suite: str
    shots: int


def model(name: str, release: Release) -> Model:
    """Parse the name of a model.

    Errors: ValueError naming what was expected if the name does not follow the file's grammar.
    """
    match = release.names.fullmatch(name)
    if not match:
        raise ValueError("a model's name as the release writes them")
    parts = match.groupdict()
    if parts["tuning"] and parts["tuning"] not in TUNINGS:
        raise ValueError(f"a model tuned as one of {', '.join(TUNINGS)}")
    train, recipe = TUNINGS[parts["tuning"]] if parts["tuning"] else (None, None)
    steps = [parts[group] for group in ("base", "tuned", "stray") if parts.get(group)]
    step = int(steps[0]) if steps else FINAL_STEP
    return Model(step, train, recipe, release.suite(parts), int(parts.get("shots") or release.shots))


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield all rows of the released files in the columns of `tables.IMPORTED`.

    error: the release's `std`, the bootstrap's standard error over a test's rows; low, high: 95 % by the normal
    approximation, value ∓ 1.96 errors, since the bootstrap's own interval is not released; error, low and high are
    None where no error is released, n always.
    Errors: StudyError for a file that is missing, and for a row with a name or number that is not as the release
    writes them or with the keys of an earlier row.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise StudyError(f"{folder / name}: missing; expected the release of {SOURCE}")
    seen: dict[tuple[Any, ...], str] = {}
    for name, release in RELEASES.items():
        for location, row in _rows(folder / name, release.columns):
            keys = _keys(location, row, release)
            earlier = seen.setdefault(tuple(keys.values()), location)
            if earlier != location:
                raise StudyError(f"{location}: found the model and test of {earlier} again, expected each once")
            yield keys | _numbers(location, row, keys["test"])


def _rows(path: Path, columns: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row below the header with its location (`file, line 2`)."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file, strict=True)
        try:
            header = next(lines, [])
            if header != columns:
                raise StudyError(f"{path}: found the columns {shown(header)}, expected {columns}")
            for fields in lines:
                location = f"{path}, line {lines.line_num}"
                if len(fields) != len(columns):
                    raise StudyError(f"{location}: found {len(fields)} fields, expected {len(columns)}")
                yield location, dict(zip(columns, fields, strict=True))
            if lines.line_num < 2:
                raise StudyError(f"{path}: found no rows, expected at least one")
        except (UnicodeDecodeError, csv.Error) as error:
            raise StudyError(f"{path}: not a CSV file in UTF-8: {error}") from error


def _keys(location: str, row: Mapping[str, str], release: Release) -> dict[str, Any]:
    """Return the keys of a row: cell, test, format, shots and metric."""
    name, dataset = row["model_id"], row["eval dataset"]
    try:
        step, train, recipe, suite, shots = model(name, release)
    except ValueError as error:
        raise StudyError(f"{location}: column 'model_id': found {shown(name)}, expected {error}") from error
    if dataset not in release.tests:
        allowed = ", ".join(release.tests)
        raise StudyError(f"{location}: column 'eval dataset': found {shown(dataset)}, expected one of {allowed}")
    test, test_format = release.tests[dataset]
    cell = {
        "family": FAMILY,
        "step": step,
        "train": train or "none",
        "format": "default" if train else "none",
        "recipe": recipe or "none",
        "seed": SEED if train else 0,
        "suite": release.apart.get(test, suite),
    }
    return cell | {"test": test, "test_format": test_format, "shots": shots, "metric": _metric(test)}


@cache
def _metric(test: str) -> str:
    """Return the metric that the release reports for a test."""
    return METRICS.get(test) or PRIMARY[str(task.method(test))]


def _numbers(location: str, row: Mapping[str, str], test: str) -> dict[str, float | None]:
    """Return value, standard error and interval of a row, as shares."""
    whole = 100 if test in PERCENT else 1
    value = _number(location, row, "Performance", whole) / whole
    if "std" not in row:
        return {"value": value, "error": None, "low": None, "high": None, "n": None}
    error = _number(location, row, "std", whole) / whole
    return {"value": value, "error": error, "low": value - Z * error, "high": value + Z * error, "n": None}


def _number(location: str, row: Mapping[str, str], column: str, most: int) -> float:
    """Return the number in a column; StudyError unless it lies between 0 and `most`."""
    value = number(row[column])
    if not 0 <= value <= most:
        raise StudyError(
            f"{location}: column '{column}': found {shown(row[column])}, expected a number from 0 to {most}"
        )
    return value
