"""The blocks of a study's config as types: as `study.config.validated` returns them, every default filled in.

What each key means is in `schemas/config.schema.yaml`, from which the page on the configuration is made. This module
holds their types, for the type checker, and below them two that the workflow makes itself: the table of a cohort and the
manifest of a base. A test compares the keys of the blocks with those of the schema.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

Method = Literal["full", "lora"]
Precision = Literal["fp32", "bf16"]
Protocol = Literal["sound", "published"]
Format = Literal["default", "io", "instruct", "lm_eval", "chat"]


class ContinueFrom(TypedDict):
    """What a pre-training goes on from: a base of the study, or the checkpoint in a folder."""

    family: NotRequired[str]
    step: NotRequired[int]
    folder: NotRequired[str]


class Pretraining(TypedDict):
    """How a family is pre-trained here."""

    corpus: str
    domains: NotRequired[list[str]]
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    context: int
    sequence: int
    batch: int
    steps: int
    save: list[int]
    learning_rate: float
    warmup: float
    weight_decay: float
    clip: float
    precision: Precision
    seed: int
    objective: str
    weights: NotRequired[dict[str, float]]
    mode_tokens: bool
    mix: NotRequired[dict[str, float]]
    tag: bool
    length: NotRequired[list[float]]
    continue_from: NotRequired[ContinueFrom]


class Repository(TypedDict):
    """The hub repository of one step."""

    step: int
    repo: str
    revision: NotRequired[str]


class Folder(TypedDict):
    """The folder of one step."""

    step: int
    folder: str


class Family(TypedDict):
    """Checkpoints of one pre-training run, and where they come from (`source`)."""

    source: Literal["trained", "folder", "hub", "merged"]
    steps: NotRequired[
        Any
    ]  # "all", a list of steps, or a selection; of a hub family a list, once the config is expanded
    pretraining: NotRequired[Pretraining]
    fields: NotRequired[dict[str, str | int | float]]
    table: NotRequired[str]
    mixes: NotRequired[dict[str, dict[str, float]]]
    path: NotRequired[str]
    pattern: NotRequired[str]
    values: NotRequired[dict[str, list[int | str]]]
    folders: NotRequired[list[Folder]]
    tokens_per_step: NotRequired[float]
    tokens: NotRequired[dict[int, float]]
    repo: NotRequired[str]
    main_step: NotRequired[int]
    repos: NotRequired[list[Repository]]
    family: NotRequired[str]
    last: NotRequired[int]


class Passages(TypedDict):
    """The text that the contexts of questions are retrieved from."""

    corpus: str
    domains: NotRequired[list[str]]
    split: str


class Corpus(TypedDict):
    """A text dataset on the hub."""

    repo: str
    subset: NotRequired[str]
    revision: NotRequired[str]
    splits: dict[str, str]
    text: str
    domain: NotRequired[str]
    documents: NotRequired[int]


class DeclaredTask(TypedDict):
    """A task that the config declares: its rows, where fields and answer are in them, and how a prompt looks."""

    kind: NotRequired[str]
    method: NotRequired[str]
    path: NotRequired[str]
    hub: NotRequired[str]
    subset: NotRequired[str]
    revision: NotRequired[str]
    files: NotRequired[dict[str, str]]
    train: NotRequired[str]
    test: NotRequired[str]
    demonstrations: NotRequired[str]
    key: NotRequired[str]
    fields: NotRequired[dict[str, str]]
    optional: NotRequired[list[str]]
    templates: NotRequired[dict[Format, str]]
    answer: NotRequired[str]
    labels: NotRequired[Any]
    choices: NotRequired[Any]
    keys: NotRequired[Any]
    turns: NotRequired[str]
    stops: NotRequired[list[str]]
    metrics: NotRequired[list[str]]
    domain: NotRequired[str]
    sizes: NotRequired[dict[str, int]]
    licence: NotRequired[str]


class LmEval(TypedDict):
    """Tasks of lm-evaluation-harness, by its YAML files."""

    include_path: str
    tasks: list[str]
    prefix: NotRequired[str]
    fewshot_seed: int


class Search(TypedDict):
    """How a learning rate is chosen among several."""

    validation: int
    steps: NotRequired[list[int]]
    per: NotRequired[Literal["family", "base"]]


class ReplayText(TypedDict):
    """Text of which rows are mixed into fine-tuning."""

    corpus: str
    domains: NotRequired[list[str]]
    split: str


class Recipe(TypedDict):
    """How bases are fine-tuned. learning_rate: one, a list to choose from, or one for each task."""

    method: Method
    system: NotRequired[str]
    learning_rate: Any
    search: NotRequired[Search]
    epochs: int
    batch: int
    examples: NotRequired[int]
    fraction: NotRequired[float]
    replay: NotRequired[float]
    replay_text: NotRequired[ReplayText]
    sample_seed: int
    max_tokens: int
    warmup: float
    schedule: str
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    clip: float
    precision: Precision
    gpus: int
    save_every: int
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    lora_modules: NotRequired[list[str]]
    version: int
    mix: NotRequired[dict[str, float]]  # shares of the tasks, set by the mix that a model is fine-tuned on


class Models(TypedDict):
    """Which bases are fine-tuned on which tasks by which recipes. train: names; a mix has its name, once it is expanded."""

    families: NotRequired[list[str]]
    steps: NotRequired[list[int]]
    train: list[str]
    formats: list[Format]
    recipes: list[str]
    seeds: list[int]


class AdoptedModels(TypedDict):
    """Models that were fine-tuned elsewhere."""

    path: NotRequired[str]
    repo: NotRequired[str]
    pattern: str
    table: NotRequired[str]
    family: NotRequired[str]
    step: NotRequired[int]
    steps: NotRequired[list[int]]
    train: NotRequired[str]
    format: Format
    seed: int


class Suite(TypedDict):
    """How models are evaluated. tests: for all models alike, or for each task that a model may be fine-tuned on."""

    tests: Any
    formats: list[Format]
    shots: list[int | str]
    protocol: Protocol
    labels: str
    limit: NotRequired[int]
    seed: int
    system: NotRequired[str]
    new_tokens: int
    metrics: list[str]
    precision: Precision
    gpus: int
    batch_tokens: int
    version: int


class Indicator(TypedDict):
    """A number of untouched bases that may forecast how they turn out after fine-tuning; `measure` says which keys it has."""

    measure: str
    corpus: NotRequired[str]
    domains: NotRequired[list[str]]
    split: NotRequired[str]
    documents: NotRequired[int]
    window: NotRequired[int]
    density: NotRequired[float]
    span: NotRequired[float]
    sentinels: NotRequired[str]
    prefix: NotRequired[str]
    scoring: NotRequired[str]
    tests: NotRequired[list[str]]
    rows: NotRequired[str]
    limit: NotRequired[int]
    shots: NotRequired[int]
    draws: NotRequired[int]
    format: NotRequired[Format]
    train: NotRequired[str]
    steps: NotRequired[int]
    batch: NotRequired[int]
    learning_rate: NotRequired[float]
    validation: NotRequired[int]
    max_tokens: NotRequired[int]
    size: NotRequired[float]
    suite: NotRequired[str]
    metric: NotRequired[str]
    seed: NotRequired[int]
    per: NotRequired[str]
    transform: NotRequired[str]
    precision: NotRequired[Precision]
    batch_tokens: NotRequired[int]
    version: NotRequired[int]


class ModelPattern(TypedDict):
    """Which base or fine-tuned model the runs of a results file are of."""

    model: str
    revision: NotRequired[str]
    path: NotRequired[str]
    family: NotRequired[str]
    step: NotRequired[int]
    main_step: NotRequired[int]
    tokens_per_step: NotRequired[float]
    train: NotRequired[str]
    recipe: NotRequired[str]
    format: NotRequired[Format]
    seed: NotRequired[int]


class Import(TypedDict):
    """Evaluation results that already exist."""

    reader: str
    path: str
    source: NotRequired[str]
    rename: dict[str, str]
    tokens_per_step: NotRequired[Any]
    files: NotRequired[list[str]]
    skip: NotRequired[list[str]]
    models: NotRequired[list[ModelPattern]]
    suite: NotRequired[str]
    tests: NotRequired[list[str]]
    metrics: NotRequired[dict[str, str]]
    percent: NotRequired[list[str]]
    chance: NotRequired[dict[str, float]]
    means: NotRequired[Any]
    parts: NotRequired[Any]
    shots: NotRequired[int]
    columns: NotRequired[dict[str, str]]


class Target(TypedDict):
    """Scores after fine-tuning whose mean a cohort's indicators are to forecast."""

    tests: Any
    recipe: str
    suite: str
    format: Format
    shots: int
    metric: NotRequired[str]


class Cohort(TypedDict):
    """Bases to compare. Of the study's own, `targets` are blocks; of a table of others (`path`), names of its columns."""

    path: NotRequired[str]
    key: NotRequired[str]
    run: NotRequired[str]
    families: NotRequired[list[str]]
    fields: list[str]
    indicators: list[str]
    targets: Any
    combinations: dict[str, dict[str, float]]
    chosen_on_targets: list[str]
    contrasts: list[Any]
    test_rows: NotRequired[dict[str, list[int]]]
    full_score: NotRequired[float]
    printed: NotRequired[str]


class Statistics(TypedDict):
    """Resampling: how often, at which confidence level, with which seed."""

    resamples: int
    level: float
    seed: int


class Rouge(TypedDict):
    """How generated texts are compared with their references."""

    stemmer: bool


class MiniWorld(TypedDict):
    """The generated text and tasks."""

    seed: int


class Recommend(TypedDict):
    """What a recommendation takes for good enough."""

    regret: float


class Floor(TypedDict):
    """What a fine-tuned model must not forget: tests, and how far each score may fall below the untouched base's."""

    tests: list[str]
    loss: float


class Budget(TypedDict):
    """What a selection may spend."""

    tunings: NotRequired[int]
    gpu_hours: NotRequired[float]


class Selection(TypedDict):
    """Which of the study's models are fine-tuned: candidates one after the other, until one is settled on."""

    tests: Any
    suite: str
    format: Format
    shots: int
    metric: NotRequired[str]
    weights: NotRequired[dict[str, float]]
    floor: NotRequired[Floor]
    families: NotRequired[list[str]]
    steps: NotRequired[list[int]]
    recipes: NotRequired[list[str]]
    fields: list[str]
    indicators: NotRequired[list[str]]
    budget: Budget
    batch: int
    epsilon: float
    delta: float
    seed: int


class Estimate(TypedDict):
    """What costs are estimated from."""

    parameters: dict[str, float]
    flops: float
    written: float
    context: int


class Study(TypedDict):
    """A whole config."""

    families: dict[str, Family]
    data_root: str | None
    passages: Passages | None
    tasks: dict[str, DeclaredTask]
    lm_eval: LmEval | None
    miniworld: MiniWorld
    corpora: dict[str, Corpus]
    recipes: dict[str, Recipe]
    models: list[Models]
    mixes: dict[str, dict[str, float]]  # name -> task -> share, of the mixes that `models` lists
    adopted: dict[str, AdoptedModels]
    suites: dict[str, Suite]
    indicators: dict[str, Indicator]
    forgetting: list[str]
    imports: dict[str, Import]
    released_root: str | None
    cohorts: dict[str, Cohort]
    recommend: Recommend
    selection: Selection | None
    keep_weights: bool
    statistics: Statistics
    rouge: Rouge
    groups: dict[str, dict[str, list[str]]]
    estimate: Estimate
    holes: Literal["refuse", "allow"]
    figures: list[str]
    summaries: list[str]
    overlays: dict[str, str]


class CohortTable(TypedDict):
    """A cohort's block as `forecasting.settings.table` returns it: that of a CSV file, whoever wrote it.

    assembled: whether the study writes the file, from its own bases; scored: then the block of each target.
    """

    path: str
    key: str
    run: NotRequired[str]
    fields: list[str]
    indicators: list[str]
    targets: list[str]
    combinations: dict[str, dict[str, float]]
    chosen_on_targets: NotRequired[list[str]]
    contrasts: list[list[str]]
    test_rows: dict[str, list[int]]
    full_score: NotRequired[float]
    printed: NotRequired[str]
    assembled: NotRequired[bool]
    scored: NotRequired[dict[str, Target]]


class FileRecord(TypedDict):
    """Size and SHA-256 of a file."""

    bytes: int
    sha256: str


class Base(TypedDict):
    """The manifest of a base: base.json, and place.json beside it for `path` and `dates` (`models.checkpoints.locate`)."""

    family: str
    step: int
    source: Literal["trained", "folder", "hub", "merged"]
    repo: str | None
    revision: str | None
    path: str
    files: dict[str, FileRecord]
    contents: NotRequired[dict[str, Any]]
    dates: NotRequired[dict[str, int]]
