"""A bad config stops `snakemake` before any job with one line; the schema's defaults and descriptions hold."""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import running
import yaml
from jsonschema import Draft202012Validator

from workflow.data import prompts
from workflow.errors import StudyError
from workflow.planning import config_checks
from workflow.study import config as configs
from workflow.study import grid

SMOKE = yaml.safe_load((running.ROOT / "tests" / "smoke" / "config.yaml").read_text(encoding="utf-8"))
PRETRAINING = SMOKE["families"]["tiny"]["pretraining"]
TINY, FULL = "families/tiny", "recipes/full"
SEARCHED = SMOKE["recipes"]["full"] | {"learning_rate": [1.0e-3, 1.0e-4]}
GONE = object()
GOAL = {"tests": ["mini_inference"], "suite": "formats", "budget": {"tunings": 3}}


def with_entry(path: str, value: Any) -> dict[str, Any]:
    """The smoke study's config with one entry set, added or gone."""
    config = copy.deepcopy(SMOKE)
    *outer, last = path.split("/")
    block: Any = config
    for name in outer:
        block = block[int(name)] if isinstance(block, list) else block.setdefault(name, {})
    if value is GONE:
        del block[last]
    else:
        block[last] = value
    return config


# What is wrong: (entry, its value, what the line says).
BAD: dict[str, tuple[str, Any, str]] = {
    "unknown top-level key": (
        "recipies", {}, "top level: unknown key 'recipies'; allowed: adopted, cohorts, corpora, data_root, estimate, "
    ),
    "no suites": ("suites", GONE, "indicators/kshot/suite: 'formats' is not known; allowed: none"),
    "empty suites": ("suites", {}, "suites: {} is not allowed; allowed: at least one entry"),
    "suites without content": ("suites", None, "suites: None is not allowed; allowed: keys with values"),
    "misspelt recipe key": (
        f"{FULL}/learning_rat", 1.0e-3, "recipes/full: unknown key 'learning_rat'; allowed: batch, beta1, "
    ),
    "wrong word": (
        f"{FULL}/schedule", "linaer", "recipes/full/schedule: 'linaer' is not allowed; allowed: linear, cosine, constant"
    ),
    "wrong type": (f"{FULL}/epochs", "three", "recipes/full/epochs: 'three' is not allowed; allowed: a whole number"),
    "half an epoch": (f"{FULL}/epochs", 1.5, "recipes/full/epochs: 1.5 is not allowed; allowed: a whole number"),
    "negative learning rate": (
        f"{FULL}/learning_rate", -1.0e-3, "recipes/full/learning_rate: -0.001 is not allowed; allowed: more than 0"
    ),
    "learning rate that YAML reads as text": (
        f"{FULL}/learning_rate", "1e-3",
        "recipes/full/learning_rate: '1e-3' is not allowed; allowed: a number, such as 1.0e-3 (1e-3 is text in YAML)",
    ),
    "beta of 1": (f"{FULL}/beta2", 1, "recipes/full/beta2: 1 is not allowed; allowed: less than 1"),
    "reserved name of a recipe": ("recipes/none", {}, "recipes: 'none' is reserved; choose another name"),
    "reserved name of a suite": (
        "suites/all", {"tests": ["mini_facts"]}, "suites: 'all' is reserved; choose another name"
    ),
    "number as a name": ("recipes", {1: {}}, "recipes: 1 is not allowed; allowed: text"),
    "upper case in a name": (
        "recipes/Full", {}, "recipes: 'Full' is not allowed; allowed: names that match ^[a-z0-9][a-z0-9_.-]*$"
    ),
    "slash in a name": (
        "families", {"a/b": SMOKE["families"]["tiny"]},
        "families: 'a/b' is not allowed; allowed: names that match ^[a-z0-9][a-z0-9_.-]*$",
    ),
    "name that climbs": (
        "families", {"..": SMOKE["families"]["tiny"]},
        "families: '..' is not allowed; allowed: names that match ^[a-z0-9][a-z0-9_.-]*$",
    ),
    "unknown task to tune on": (
        "models/0/train", ["mnlii"], "models/0/train: 'mnlii' is not known; allowed: arc_challenge, arc_easy, boolq, "
    ),
    "task without training split": (
        "models/0/train", ["mini_inference_ood"],
        "models/0/train: 'mini_inference_ood' has no training split; allowed: arc_challenge, ",
    ),
    "unknown recipe": ("models/0/recipes", ["ful"], "models/0/recipes: 'ful' is not known; allowed: full, lora"),
    "unknown family": ("models/0/families", ["big"], "models/0/families: 'big' is not known; allowed: tiny"),
    "unknown step": ("models/0/steps", [10], "models/0/steps: 10 is not known; allowed: 0, 20"),
    "unknown format": (
        "suites/formats/formats", ["default", "instructt"],
        "suites/formats/formats/1: 'instructt' is not allowed; allowed: default, io, instruct, lm_eval, chat",
    ),
    "format of the untouched base": (
        "models/0/formats", ["none"], "models/0/formats/0: 'none' is not allowed; allowed: default, io, instruct, lm_eval, chat"
    ),
    "unknown test": (
        "suites/written/tests", ["mini_fact"], "suites/written/tests: 'mini_fact' is not known; allowed: arc_challenge, "
    ),
    "no test": ("suites/written/tests", [], "suites/written/tests: [] is not allowed; allowed: at least one entry"),
    "test named twice": (
        "suites/written/tests", ["mini_facts"] * 2,
        "suites/written/tests: ['mini_facts', 'mini_facts'] is not allowed; allowed: each entry once",
    ),
    "suite for a task nobody tunes on": (
        "suites/formats/tests", {"mini_summary": ["mini_summary"]},
        "suites/formats/tests: 'mini_summary' is not known; allowed: mini_facts, mini_inference",
    ),
    "unknown protocol": (
        "suites/written/protocol", "publishd",
        "suites/written/protocol: 'publishd' is not allowed; allowed: sound, published",
    ),
    "negative shots": (
        "suites/written/shots", [0, -1], "suites/written/shots/1: -1 is not allowed; allowed: 0 or more"
    ),
    "group of a task nobody tunes on": (
        "groups/odd", {"mini_question": ["mini_question"]},
        "groups/odd: 'mini_question' is not known; allowed: mini_facts, mini_inference",
    ),
    "group with a test of no suite": (
        "groups/odd", {"mini_facts": ["boolq"]}, "groups/odd/mini_facts: 'boolq' is not known; allowed: mini_facts, "
    ),
    "unknown figure": (
        "figures", ["curvs"], "figures: 'curvs' is not known; allowed: cross_task, curves, "
    ),
    "too few resamples": (
        "statistics/resamples", 10, "statistics/resamples: 10 is not allowed; allowed: 100 or more"
    ),
    "unknown source": (
        f"{TINY}/source", "trainde", "families/tiny/source: 'trainde' is not allowed; allowed: trained, folder, hub"
    ),
    "trained family without its training": (
        TINY, {"source": "trained"}, "families/tiny: key 'pretraining' is missing; required: pretraining"
    ),
    "step that is not saved": (
        f"{TINY}/steps", [0, 30], "families/tiny/steps: there is no step 30; allowed: 0, 10, 20"
    ),
    "word for steps": (
        f"{TINY}/steps", "every", "families/tiny/steps: 'every' is not allowed; allowed: all or a list or keys with values"
    ),
    "negative step": (
        f"{TINY}/steps", [-1], "families/tiny/steps/0: -1 is not allowed; allowed: 0 or more or main"
    ),
    "step saved after the end": (
        f"{TINY}/pretraining/save", [0, 40],
        "families/tiny/pretraining/save: 40 is not allowed; allowed: steps (20) or less",
    ),
    "heads that do not divide": (
        f"{TINY}/pretraining/heads", 5,
        "families/tiny/pretraining/heads: 5 is not allowed; allowed: divisors of hidden (32)",
    ),
    "sequence longer than the context": (
        f"{TINY}/pretraining/sequence", 512,
        "families/tiny/pretraining/sequence: 512 is not allowed; allowed: context (256) or less",
    ),
    "hub family without steps": (
        TINY, {"source": "hub", "repo": "a/b"}, "families/tiny: key 'steps' is missing; required: repo, steps"
    ),
    "main without its step": (
        TINY, {"source": "hub", "repo": "a/b", "steps": [1, "main"]},
        "families/tiny/main_step: missing; expected the training step that the listed revision main holds",
    ),
    "repository without owner": (
        TINY, {"source": "hub", "repo": "b", "steps": [1]}, "families/tiny/repo: 'b' is not allowed; allowed: names that match "
    ),
    "folder that is not there": (
        TINY, {"source": "folder", "path": "nowhere"},
        "families/tiny/path: nowhere is not a folder; expected sub-folders step{step}",
    ),
    "pattern without a step": (
        TINY, {"source": "folder", "path": ".", "pattern": "epoch"},
        "families/tiny/pattern: 'epoch' is not allowed; expected a name with {step} in it once",
    ),
    "a list of one learning rate": (
        f"{FULL}/learning_rate", [1.0e-3],
        "recipes/full/learning_rate: [0.001] is not allowed; allowed: a number or at least two, each once",
    ),
    "a learning rate listed twice": (
        f"{FULL}/learning_rate", [1.0e-3, 1.0e-3],
        "recipes/full/learning_rate: [0.001, 0.001] is not allowed; allowed: a number or at least two, each once",
    ),
    "a listed learning rate below 0": (
        f"{FULL}/learning_rate", [1.0e-3, -1.0], "recipes/full/learning_rate/1: -1.0 is not allowed; allowed: more than 0"
    ),
    "learning rates without a search": (
        f"{FULL}/learning_rate", [1.0e-3, 1.0e-4],
        "recipes/full/search: None is not allowed; allowed: a block of settings, since learning_rate is a list",
    ),
    "a search among one learning rate": (
        f"{FULL}/search",
        {"validation": 5},
        "recipes/full/learning_rate: 0.001 is not allowed; allowed: a list of rates, since `search`",
    ),
    "a search without validation rows": (
        f"{FULL}/search", {"steps": [20]}, "recipes/full/search: key 'validation' is missing; required: validation"
    ),
    "a search on a step that is not there": (
        "recipes/full", SEARCHED | {"search": {"validation": 5, "steps": [10]}},
        "recipes/full/search/steps: 10 is not known; allowed: 0, 20",
    ),
    "examples and their share": (
        f"{FULL}/fraction", 0.5, "recipes/full/fraction: 0.5 is not allowed; allowed: either `fraction` or `examples`"
    ),
    "more than all examples": (f"{FULL}/fraction", 1.5, "recipes/full/fraction: 1.5 is not allowed; allowed: 1 or less"),
    "conversations as a test": (
        "suites/written/tests", ["tulu"],
        "suites/written/tests: 'tulu' has no test split; allowed: arc_challenge, arc_easy, boolq, ",
    ),
    "chat with checkpoints that have no template": (
        "suites/formats/formats", ["default", "chat"],
        "suites/formats/formats: 'chat' needs a chat template, which the checkpoints of 'tiny' do not have",
    ),
    "system message without chat": (
        f"{FULL}/system", "Be brief.",
        "recipes/full/system: is not used by models/0/formats (default); allowed with format chat",
    ),
    "metric that no suite can add": (
        "suites/formats/metrics", ["bits_per_bite"],
        "suites/formats/metrics: 'bits_per_bite' is not known; allowed: accuracy_unconditional, answer_probability, ",
    ),
    "conversations in the formats of prompts": (
        "models", [{"train": ["mini_facts", "tulu"], "recipes": ["full"], "formats": ["default", "io"]}],
        "models/0/train: 'tulu' holds conversations, which have no templates; default, io are not allowed; allowed: default",
    ),
    "a value that is no number": (
        f"{FULL}/warmup", float("nan"), "recipes/full/warmup: nan is not allowed; allowed: a finite number"
    ),
    "an infinite value": (
        f"{TINY}/pretraining/clip", float("inf"), "families/tiny/pretraining/clip: inf is not allowed; allowed: a finite number"
    ),
    "a whole number with a point": (
        f"{FULL}/batch", 8.0, "recipes/full/batch: 8.0 is not allowed; allowed: a whole number (8.0 is not one)"
    ),
    "a line end in a name": (
        "recipes", SMOKE["recipes"] | {"full\n": {}}, "recipes: 'full\\n' is not allowed; allowed: names that match ^"
    ),
    "a name of 300 characters": (
        "suites/" + "a" * 300, {"tests": ["mini_facts"]}, f"suites: '{'a' * 76}... is not allowed; allowed: at most 64 characters"
    ),
    "adapters wider than the layers": (
        "recipes/lora/lora_rank", 33,
        "recipes/lora/lora_rank: 33 is not allowed; allowed: 32 or less, the width of the layers of 'tiny'"
    ),
    "a metric of another kind of task": (
        "indicators/kshot/metric", "rouge_l",
        "indicators/kshot/metric, test 'mini_inference': 'rouge_l' is not known; allowed: accuracy, accuracy_calibrated, ",
    ),
    "a selection without a budget": (
        "selection", {"tests": ["mini_inference"], "suite": "formats"},
        "selection: key 'budget' is missing; required: tests, suite, budget",
    ),
    "a budget of nothing": (
        "selection", GOAL | {"budget": {"tunings": 0}}, "selection/budget/tunings: 0 is not allowed; allowed: 1 or more"
    ),
    "a selection on an unknown suite": (
        "selection", GOAL | {"suite": "fromats"},
        "selection/suite: 'fromats' is not known; allowed: formats, published, written; did you mean 'formats'?",
    ),
    "a selection for a test that its models do not have": (
        "selection", GOAL | {"tests": {"mini_inference": ["mini_facts"]}},
        "selection/tests/mini_inference: 'mini_facts' is not known; allowed: mini_inference, mini_paraphrase",
    ),
    "a selection by an unknown indicator": (
        "selection", GOAL | {"indicators": ["ppl"]}, "selection/indicators: 'ppl' is not known; allowed: answers, kshot, "
    ),
    "a selection by a field that no family has": (
        "selection", GOAL | {"recipes": ["full"], "fields": ["colour"]}, "selection/fields: 'colour' is not known; allowed: "
    ),
    "a selection with one candidate": (
        "selection", GOAL, "selection: a choice among 1 is not allowed; allowed: at least 2, bases and recipes that"
    ),
    "a certain selection": ("selection", GOAL | {"delta": 1.0}, "selection/delta: 1.0 is not allowed; allowed: less than 1"),
    "a metric that the goal's tests lack": (
        "selection", GOAL | {"metric": "rouge_l"}, "selection/metric, test 'mini_inference': 'rouge_l' is not known; allowed: "
    ),
    "corpus without data_root": (
        f"{TINY}/pretraining/corpus", "pages",
        "pretraining/corpus: 'pages' is relative to data_root, which is not set; set data_root, or pass --config data_root=",
    ),
}  # fmt: skip


# Lines about what else no longer fits, where it is more than the one.
FOLLOWING = {
    BAD[name][2]: number
    for name, number in {
        "no suites": 5, "task without training split": 4, "suite for a task nobody tunes on": 2,
        "a selection by a field that no family has": 1,
        "step saved after the end": 1, "conversations as a test": 4, "conversations in the formats of prompts": 4,
    }.items()
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the workflow whose study never runs a job."""
    return running.lay_out(tmp_path_factory.mktemp("config") / "place", SMOKE)


@pytest.mark.parametrize(("path", "value", "line"), BAD.values(), ids=BAD)
def test_a_bad_config_is_refused_in_one_line(path: str, value: Any, line: str, place: Path, monkeypatch) -> None:
    monkeypatch.chdir(place / "study")
    with pytest.raises(StudyError) as caught:
        study = config_checks.read(with_entry(path, value))
        grid.cells(study)
        grid.trials(study)
    lines = str(caught.value).splitlines()
    assert [own for own in lines if own.startswith(f"config.yaml: {line}")] and len(lines) == 1 + FOLLOWING.get(line, 0)


SHOWN = list(BAD)[::4]


@pytest.fixture(scope="module")
def place_of_bad_configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place whose study has one bad config after another, none of which makes anything."""
    return running.lay_out(tmp_path_factory.mktemp("bad") / "place", running.SMOKE)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_snakemake_shows_the_line_and_nothing_else(name: str, place_of_bad_configs: Path) -> None:
    running.configure(place_of_bad_configs, with_entry(*BAD[name][:2]))
    ended = running.run(place_of_bad_configs, "--dry-run")
    assert ended.returncode == 1
    lines = [line for line in (ended.stdout + ended.stderr).splitlines() if not line.startswith("Using workflow")]
    assert len(lines) == 1 + FOLLOWING.get(BAD[name][2], 0), lines
    assert any(line.startswith(f"config.yaml: {BAD[name][2]}") for line in lines)
    assert not list((place_of_bad_configs / "study").glob("re*")), "nothing may be made"


MISSPELT = {
    "top level: unknown key 'statistcs'; allowed: ": "'statistics'",
    "recipes/full: unknown key 'epoch'; allowed: ": "'epochs'",
    "recipes/lora/method: 'lor' is not allowed; allowed: full, lora": "'lora'",
    "families/tiny/pretraining/steps: 'many' is not allowed; allowed: a whole number": None,
    "indicators/ppl_clm/precision: 'FP32' is not allowed; allowed: fp32, bf16": "'fp32'",
}
NOT_KNOWN = {
    "models/0/train: 'mini_inferense' is not known; allowed: arc_challenge, ": "'mini_inference'",
    "models/1/recipes: 'loro' is not known; allowed: full, lora": "'lora'",
    "suites/written/tests: 'mini_sumary' is not known; allowed: ": "'mini_summary'",
    "figures: 'curve' is not known; allowed: ": "'curves'",
}


def misspelt(*places: str) -> dict[str, Any]:
    """The smoke study's config with the mistakes at these places, and one that the schema does not see at the others."""
    config = copy.deepcopy(SMOKE)
    config["models"][0]["train"] = ["mini_inferense"]
    config["models"][1]["recipes"] = ["loro"]
    config["suites"]["written"]["tests"].append("mini_sumary")
    config["figures"].append("curve")
    config["recipes"]["full"]["epoch"] = config["recipes"]["full"].pop("epochs")
    config["recipes"]["lora"]["method"] = "lor"
    config["families"]["tiny"]["pretraining"]["steps"] = "many"
    config["indicators"]["ppl_clm"]["precision"] = "FP32"
    return config | {key: {} for key in places}


def check_lines(found: list[str], expected: dict[str, str | None]) -> None:
    """Each line is expected once, and ends with the name that was meant, if one comes near."""
    for start, word in expected.items():
        (line,) = [own for own in found if own.startswith(f"config.yaml: {start}")]
        assert ("did you mean" in line) == (word is not None) and (
            word is None or line.endswith(f"; did you mean {word}?")
        )
    assert len(found) == len(expected), found


@pytest.mark.slow
def test_all_mistakes_are_told_at_once_whether_the_schema_sees_them_or_not(place: Path) -> None:
    running.configure(place, misspelt())
    ended = running.run(place, "--dry-run")
    assert ended.returncode == 1
    found = [line for line in ended.stderr.splitlines() if not line.startswith("Using workflow")]
    check_lines(found, {start: word for start, word in (MISSPELT | NOT_KNOWN).items() if not start.startswith("top")})


def test_where_a_whole_block_is_misspelt_the_schema_s_lines_come_alone(monkeypatch, place: Path) -> None:
    monkeypatch.chdir(place / "study")
    with pytest.raises(StudyError) as caught:
        config_checks.read(misspelt("statistcs"))
    check_lines(str(caught.value).splitlines(), MISSPELT)


ODD = [
    None,
    True,
    0,
    -1,
    8.0,
    float("nan"),
    "x",
    "a\n",
    "",
    [],
    {},
    ["x"],
    {"x": 1},
    "none",
    [None],
    {1: 2},
    "../x",
    10**30,
]


def places_in(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to everything inside a config."""
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from places_in(value, (*path, key))


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_wrong_is_told_in_lines(seed: int, place: Path, monkeypatch) -> None:
    """One to three entries become something odd, get another name or go; what is left is a study or is refused."""
    monkeypatch.chdir(place / "study")
    draw, config = random.Random(seed), copy.deepcopy(SMOKE)
    for _ in range(draw.choice([1, 1, 2, 3])):
        *outer, last = draw.choice(list(places_in(config)))
        node = functools.reduce(lambda block, key: block[key], outer, config)
        value = node[last]
        if draw.random() < 0.4:
            node[last] = copy.deepcopy(draw.choice(ODD))
            continue
        del node[last]
        if isinstance(node, dict) and draw.random() < 0.5:
            node[draw.choice(["zz", 3, None, "a b"])] = value
    try:
        study = config_checks.read(config)
    except StudyError as error:
        assert str(error) and all(line.isprintable() and ": " in line for line in str(error).splitlines())
    else:
        assert len(grid.parts(study)) >= 0 and len(grid.trials(study)) == 0


TWICE = """\
families: {tiny: {source: trained, steps: [0]}}
models: [{train: [a], recipes: [b]}]
recipes:
  full: &full {epochs: 1, batch: 2, epochs: 3}
  lora: {<<: *full, epochs: 4}
models: []
"""


@pytest.mark.slow
def test_a_key_that_is_there_twice_is_told_with_its_lines(place: Path) -> None:
    """Of the study's own config and of another that is named on the command line; an alias is told once, a merge is no key."""
    (place / "study/config.yaml").write_text(TWICE)
    (place / "other.json").write_text('{"data_root": null,\n"statistics": {},\n"data_root": "rows"}')
    ended = running.run(place, "--dry-run")
    assert ended.returncode == 1 and [line for line in ended.stderr.splitlines() if ", line" in line] == [
        "config.yaml, line 4: key 'epochs' appears twice, first in line 4; expected each key once",
        "config.yaml, line 6: key 'models' appears twice, first in line 2; expected each key once",
    ]
    running.configure(place, SMOKE)
    ended = running.run(place, "--dry-run", "--configfile", "other.json")
    assert ended.returncode == 1 and ended.stderr.splitlines()[-1] == (
        "../other.json, line 3: key 'data_root' appears twice, first in line 1; expected each key once"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Config file must be given as JSON or YAML with keys at top level."),
        ("- families\n", "Config file must be given as JSON or YAML with keys at top level."),
        ("families: [\n", "Config file is not valid JSON or YAML."),
    ],
    ids=["empty", "a list", "not YAML"],
)
def test_a_config_that_is_no_mapping_is_refused_by_snakemake_itself(text: str, reason: str, place: Path) -> None:
    (place / "study" / "config.yaml").write_text(text)
    ended = running.run(place, "--dry-run")
    assert ended.returncode == 1
    assert reason in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_rows_that_data_root_lacks_are_named(place: Path, monkeypatch) -> None:
    monkeypatch.chdir(place / "study")
    study = with_entry("suites/real", {"tests": ["gpt3_nli"]}) | {"data_root": "rows"}
    with pytest.raises(StudyError, match=r"^rows/gpt3_nli/train\.jsonl: missing; expected the rows of task 'gpt3_nli'"):
        config_checks.read(study)


# --- the schema --------------------------------------------------------------------------------------------------------


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping inside the schema with its path."""
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            yield from nodes(value, f"{path}/{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from nodes(value, f"{path}/{number}")


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """A node with its reference followed."""
    name = node.get("$ref", "").rsplit("/", 1)[-1]
    return configs.schema()["$defs"][name] | node if name else node


def properties() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property that a config may have, with its path; the fixed sources of the three kinds of family left out."""
    for path, node in nodes(configs.schema()):
        if path.endswith("/properties"):
            yield from ((f"{path}/{name}", entry) for name, entry in node.items() if "const" not in entry)


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(configs.schema())


@pytest.mark.parametrize(("path", "node"), list(properties()), ids=[path for path, _ in properties()])
def test_every_property_is_described_and_its_default_is_valid(path: str, node: dict[str, Any]) -> None:
    found = resolved(node)
    assert found["description"].endswith("."), path
    if "default" in found:
        schema = {**found, "$defs": configs.schema()["$defs"]}
        Draft202012Validator(schema).validate(found["default"])


def test_every_object_refuses_unknown_keys() -> None:
    for path, node in nodes(configs.schema()):
        if "properties" in node and "oneOf" not in node:
            assert node["additionalProperties"] is False, path


def test_every_rule_of_the_schema_has_its_words() -> None:
    annotations = {"$schema", "$defs", "$ref", "title", "description", "default", "format"}
    structure = {"properties", "propertyNames", "additionalProperties", "items", "oneOf", "anyOf", "required", "not"}
    for path, node in nodes(configs.schema()):
        if path.endswith(("/properties", "/$defs", "/default")):
            continue
        for rule in set(node) - annotations - structure:
            (error,) = Draft202012Validator({rule: node[rule]}).iter_errors(BREAKS[rule])
            assert configs.allowed_by(error), (path, rule)


BREAKS = {
    "type": object(),
    "enum": object(),
    "const": object(),
    "pattern": "/",
    "minimum": -1,
    "maximum": 10**9,
    "exclusiveMinimum": -1,
    "exclusiveMaximum": 10**9,
    "minItems": [],
    "maxItems": [0] * 99,
    "minProperties": {},
    "minLength": "",
    "maxLength": "a" * 999,
    "uniqueItems": [1, 1],
}


def test_formats_are_those_of_the_prompts() -> None:
    assert configs.schema()["$defs"]["format"]["enum"] == list(prompts.FORMATS)


def test_defaults_fill_a_config_all_the_way_down() -> None:
    study = configs.validated(
        {
            "families": {"tiny": {"source": "trained", "pretraining": {"corpus": "miniworld", "save": [5]}}},
            "recipes": {"plain": {}},
            "models": [{"train": ["mnli"], "recipes": ["plain"]}],
            "suites": {"s": {"tests": ["mnli"]}},
        }
    )
    # The published study's setting: 3 epochs of batch 8, 2e-6 for full tuning, linear schedule, 3 % warm-up.
    recipe = study["recipes"]["plain"]
    assert (recipe["method"], recipe["epochs"], recipe["batch"], recipe["learning_rate"]) == ("full", 3, 8, 2e-6)
    assert (recipe["schedule"], recipe["warmup"], recipe["weight_decay"]) == ("linear", 0.03, 0.0)
    assert "examples" not in recipe  # all
    assert study["families"]["tiny"]["steps"] == "all"
    assert study["families"]["tiny"]["pretraining"]["layers"] == 4
    assert (study["models"][0]["formats"], study["models"][0]["seeds"]) == (["default"], [0])
    assert (study["suites"]["s"]["protocol"], study["suites"]["s"]["shots"]) == ("sound", [0])
    assert study["statistics"] == {"resamples": 1000, "level": 0.95, "seed": 0}
    assert (study["data_root"], study["groups"], study["figures"]) == (None, {}, [])
    assert study["miniworld"] == {"seed": 0}


def test_defaults_leave_what_is_set_alone() -> None:
    study = configs.validated(with_entry("recipes/full/epochs", 7))
    assert study["recipes"]["full"]["epochs"] == 7
    assert study["families"]["tiny"]["pretraining"] | PRETRAINING == study["families"]["tiny"]["pretraining"]


def test_a_family_gets_the_defaults_of_its_own_source() -> None:
    families = {
        "here": {"source": "folder", "path": "steps"},
        "there": {"source": "hub", "repo": "a/b", "steps": [1]},
    }
    filled = configs.validated({"families": families, "suites": {"s": {"tests": ["mnli"]}}})["families"]
    assert filled["here"] == {"source": "folder", "path": "steps", "pattern": "step{step}", "steps": "all"}
    assert filled["there"] == {"source": "hub", "repo": "a/b", "steps": [1], "pattern": "step{step}"}
