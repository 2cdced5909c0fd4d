"""Paths and input functions that several rules share."""

import os
import pathlib

from workflow import analyses, audits, corpora, findings, indicators, search, sources
from workflow import summaries, tables, task
from workflow.forecasting import assembly, leaderboards, settings
from workflow.wildcards import literal
from workflow import resources as needs

# Relative, so that a study moved with its repository finds its results up to date.
PACKAGE = os.path.relpath(os.path.join(workflow.basedir, "workflow"))

BASE = grid.pattern(grid.BASE_KEYS)
MODEL = grid.pattern(grid.MODEL_KEYS)
PART = grid.pattern(grid.PART_KEYS)
TRIAL = grid.pattern(grid.TRIAL_KEYS)
CHOICE = grid.pattern(grid.CHOICE_KEYS)


wildcard_constraints:
    table="scores|items|histories|indicators|analysis|choices|pairs|forecasts|rankings|importance",
    released="[^/]+",
    corpus="[^/]+",
    step=r"\d+",
    seed=r"\d+",
    rate=r"\d+",
    summary="[^/]+",


IMPORTED = [f"results/imported/import={name}/part.parquet" for name in STUDY["imports"]]
IMPORTED_ROWS = [path.replace("part.parquet", "items.parquet") for path in IMPORTED]
IMPORTED_FILES = [path.replace("part.parquet", "files.parquet") for path in IMPORTED]

PREPARED = expand("resources/tasks/{task}.parquet", task=grid.tasks(STUDY))
MANIFESTS = [
    f"resources/bases/{grid.path(base, grid.BASE_KEYS)}/base.json"
    for base in grid.bases(STUDY).to_dict("records")
]
PINS = [
    f"resources/pins/bases/{grid.path(base, grid.BASE_KEYS)}.json"
    for base in grid.bases(STUDY).to_dict("records")
    if STUDY["families"][base["family"]]["source"] == "hub"
] + [
    f"resources/pins/tasks/{name}.json"
    for name in grid.tasks(STUDY)
    if not task.row_root(task.load(name), STUDY["data_root"])
]
PINS += [f"resources/pins/corpora/{name}.json" for name in grid.collected(STUDY)]

CHOICES = TRIALS[grid.CHOICE_KEYS].drop_duplicates()
CHOSEN = ["results/choices.parquet"] if len(CHOICES) else []


COHORTS = {
    name: settings.table(name, block) for name, block in STUDY["cohorts"].items()
}
SPLITS = [
    {"cohort": name, "split": split}
    for name, block in STUDY["cohorts"].items()
    for split in assembly.splits(STUDY, block)
]
FORECASTED = expand(
    "results/{table}.parquet",
    table=["forecasts", "rankings", "importance"] if COHORTS else [],
)
LEADERBOARDS = [
    f"{leaderboard}_{name}" for name in COHORTS for leaderboard in leaderboards.TABLES
] + [f"printed_numbers_{name}" for name, block in COHORTS.items() if "printed" in block]

# Indicators that a base has to be run for.
RUN_FOR = indicators.run_for(STUDY)
INDICATORS = ["results/indicators.parquet"] if RUN_FOR else []

RECOMMENDED = ["results/recommendations.parquet"] if STUDY["models"] or IMPORTED else []
# What Snakemake measured of the jobs that indicators are measured in, by suite where they are scores.
UNTOUCHED = PARTS[PARTS["recipe"] == "none"]
BENCHMARKS = {
    "measure": [
        f"results/benchmarks/measure/{grid.path(row, grid.BASE_KEYS)}.tsv"
        for row in grid.bases(STUDY).to_dict("records")
    ]
} | {
    suite: [
        f"results/benchmarks/predict/{grid.path(row, grid.PART_KEYS)}.tsv"
        for row in UNTOUCHED[UNTOUCHED["suite"] == suite].to_dict("records")
    ]
    for suite in STUDY["suites"]
}

SUMMARISED = expand(
    "results/tables/{table}.csv",
    table=STUDY["summaries"] + LEADERBOARDS,
)
# What findings are made of.
TABLES = [
    "results/analysis.parquet",
    "results/audit.parquet",
    *FORECASTED,
    *INDICATORS,
    *RECOMMENDED,
    *(["results/scores.parquet"] if RECOMMENDED else []),
    *(path for path in SUMMARISED if path.endswith("gpu_hours.csv")),
]


def parts(folder, keys, rows):
    """The part of each row of a grid table under a folder of results."""
    return [
        f"results/{folder}/{grid.path(row, keys)}/part.parquet"
        for row in rows.to_dict("records")
    ]


def table_parts(wildcards):
    """The parts that a gathered table is made of."""
    return {
        "scores": parts("scores", grid.PART_KEYS, PARTS) + IMPORTED,
        "items": parts(
            "items", grid.PART_KEYS, holes.without(PARTS, HOLES, holes.LINE_KEYS)
        )
        + IMPORTED_ROWS,
        "histories": parts(
            "histories", grid.MODEL_KEYS, MODELS[MODELS["recipe"] != "none"]
        ),
        "indicators": parts("indicators", grid.BASE_KEYS, grid.bases(STUDY)),
        "choices": parts("choices", grid.CHOICE_KEYS, CHOICES),
        "analysis": [
            f"results/analyses/analysis={name}/part.parquet"
            for name in grid.modules(analyses)
            if len(PARTS) or IMPORTED
        ],
        "pairs": [f"results/pairs/cohort={name}/part.parquet" for name in COHORTS],
    }.get(
        wildcards.table,
        [
            f"results/{wildcards.table}/{grid.path(row, list(row))}/part.parquet"
            for row in SPLITS
        ],
    )


def slice_parts(wildcards):
    """The scores of the models tuned on one task, and of their bases, on one suite."""
    meant = grid.slice_of(STUDY, wildcards.train, wildcards.suite)
    return parts("scores", grid.PART_KEYS, meant)


def pretraining(wildcards):
    """How the family is trained here."""
    return STUDY["families"][wildcards.family]["pretraining"]


def corpus_files(wildcards):
    """The text that a family is trained on."""
    return text_files(pretraining(wildcards), "train")


def hub_corpus(wildcards):
    """Which dataset of the hub a corpus is, and how it is read."""
    return STUDY["corpora"][wildcards.corpus]


def text_root(wildcards):
    """Where a family's corpus starts; none for text that another job makes, which no folder of rows concerns."""
    return (
        None if corpora.made(pretraining(wildcards)["corpus"]) else STUDY["data_root"]
    )


def start_files(wildcards):
    """What a family goes on from: another's base, or the files of a checkpoint's folder."""
    start = pretraining(wildcards).get("continue_from", {})
    if "folder" in start:
        return literal(sources.checkpoint_files(start["folder"]))
    return expand(f"resources/bases/{BASE}/base.json", **start) if start else []


def text_files(block, split):
    """The files of a split of a corpus: of what another job makes its folder, as it is not there at first."""
    if corpora.made(block["corpus"]):
        return [corpora.made(block["corpus"])]
    folder = corpora.folder(block, STUDY["data_root"])
    return literal(map(str, corpora.files(folder, block.get("domains"), split)))


def indicator_texts(wildcards):
    """The texts that indicators are measured on."""
    found = [
        path
        for block in RUN_FOR.values()
        if "corpus" in block
        for path in text_files(block, block["split"])
    ]
    return list(dict.fromkeys(found))


def measured_root(wildcards):
    """Where the texts start that indicators are measured on; none where other jobs make all of them."""
    texts = [block["corpus"] for block in RUN_FOR.values() if "corpus" in block]
    return None if all(map(corpora.made, texts)) else STUDY["data_root"]


def indicator_tasks(wildcards):
    """The prepared tasks that indicators read."""
    names = [name for block in RUN_FOR.values() for name in indicators.tasks(block)]
    return expand("resources/tasks/{task}.parquet", task=dict.fromkeys(names))


def checkpoint_files(wildcards):
    """What a base is made from: the family's training here, the files of a local folder, or what is pinned on the hub."""
    family = STUDY["families"][wildcards.family]
    if family["source"] == "hub":
        return [f"resources/pins/bases/{grid.path(wildcards, grid.BASE_KEYS)}.json"]
    if family["source"] == "trained":
        return [f"resources/pretrained/family={wildcards.family}"]
    return literal(sources.files(wildcards.family, family, int(wildcards.step)))


def source(wildcards):
    """Where a base comes from; what concerns the family's other steps left out, so that a new one leaves this one alone."""
    family = STUDY["families"][wildcards.family]
    unread = {"steps", "pretraining", "fields"}
    if family.get("main_step") != int(wildcards.step):
        unread.add("main_step")
    if "repos" in family:
        own = [
            entry for entry in family["repos"] if entry["step"] == int(wildcards.step)
        ]
        family = {**family, "repos": own}
    return {key: value for key, value in family.items() if key not in unread}


def task_rows(wildcards):
    """The files that a task's rows are read from, or what is pinned on the hub."""
    if task.load(wildcards.task).hub is None:
        return ["resources/miniworld"]
    if STUDY["data_root"] is None:
        return [f"resources/pins/tasks/{wildcards.task}.json"]
    return literal(task.row_files(wildcards.task, STUDY["data_root"]))


def row_root(wildcards):
    """Where the folders of rows are; none for a generated task, which none of them concerns."""
    return STUDY["data_root"] if task.load(wildcards.task).hub else None


def task_passages(wildcards):
    """The passages that a task's contexts are found in."""
    return literal(grid.passage_files(STUDY, wildcards.task))


def task_modules(wildcards):
    """The module that reads the task's rows, and those it builds on."""
    return [os.path.relpath(module) for module in task.module_paths(wildcards.task)]


def released(wildcards):
    """What is imported: the reader and the folder of the released files."""
    return STUDY["imports"][wildcards.released]


def released_files(wildcards):
    """The released files that an import reads."""
    return literal(grid.released_files(released(wildcards), STUDY["released_root"]))


def reader_modules(wildcards):
    """The module that reads the released files, and what all readers share."""
    reader = f"imports/{released(wildcards)['reader']}"
    return expand(
        f"{PACKAGE}/{{name}}.py", name=[reader, "released", "adopting", "measures"]
    )


def gpus(wildcards):
    """The GPUs that a recipe spreads a tuning over, or a suite a prediction."""
    return grid.gpus(STUDY, dict(wildcards.items()))


def rates(wildcards):
    """The learning rates that a recipe chooses from."""
    return STUDY["recipes"][wildcards.recipe]["learning_rate"]


def trial_recipe(wildcards):
    """A recipe at the learning rate of one trial."""
    return grid.at_rate(
        STUDY["recipes"][wildcards.recipe], rates(wildcards)[int(wildcards.rate)]
    )


def trial_parts(wildcards):
    """The trials that a choice is made from."""
    meant = tuple(getattr(wildcards, key) for key in grid.CHOICE_KEYS)
    rows = TRIALS.groupby(grid.CHOICE_KEYS).get_group(meant)
    return parts("trials", grid.TRIAL_KEYS, rows)


def choice(wildcards):
    """The choice that a model's learning rate comes from; none where its recipe has a single one."""
    if "search" not in STUDY["recipes"][wildcards.recipe]:
        return []
    # Ancient, since not the file counts but the rate in it, which is a parameter: the same choice made anew costs nothing.
    place = grid.path(wildcards, grid.CHOICE_KEYS)
    return [ancient(f"results/choices/{place}/part.parquet")]


def recipe(wildcards):
    """The recipe that a model is tuned by, at the chosen learning rate where it lists several."""
    found = grid.recipe_for(STUDY, wildcards.recipe, wildcards.train)
    made = choice(wildcards)
    if not made:
        return found
    # A choice that is there is read before Snakemake knows whether it will be made anew: an unknown rate would count as
    # changed and have the model predicted again. Once made, this is asked again.
    if not os.path.exists(made[0]):
        checkpoints.choose.get(**wildcards)
    return grid.at_rate(found, search.chosen_rate(tables.rows(made[0])))


def weights(folder):
    """Folders of tuned weights as an output: to stay, or to be removed once their last prediction is made."""
    return directory(folder) if STUDY["keep_weights"] else temp(directory(folder))


def tuned_weights(wildcards):
    """The weights of a tuned model; none for an untouched base."""
    return (
        []
        if wildcards.recipe == "none"
        else [f"resources/models/{grid.path(wildcards, grid.MODEL_KEYS)}"]
    )


def suite(wildcards):
    """How a suite evaluates, and the tests that this part of it puts a model to."""
    block = STUDY["suites"][wildcards.suite]
    own = grid.part_tests(block, wildcards.train, wildcards.tests)
    # On how many GPUs changes nothing that is predicted.
    return {key: block[key] for key in block if key != "gpus"} | {"tests": own}


def suite_tasks(wildcards):
    """The prepared tasks that a suite tests."""
    return expand("resources/tasks/{test}.parquet", test=suite(wildcards)["tests"])


def summary_settings(wildcards):
    """The part of the config that a summary reads."""
    keys = grid.module(summaries, wildcards.summary).READS
    return {key: STUDY[key] for key in keys}


def to_do():
    """The jobs that this run has before it: rule -> keys of each, in the order of the rules."""
    jobs = {known.name: [] for known in workflow.rules if known.name != "all"}
    for job in workflow.dag.needrun_jobs():
        if job.rule.name in jobs:
            jobs[job.rule.name].append(dict(job.wildcards_dict))
    return {name: own for name, own in jobs.items() if own}


def failed():
    """The jobs of this run that failed, whatever Snakemake said of them; those that a retry made good left out."""
    return [
        announcing.Failed(
            single.rule.name,
            single.jobid,
            next(map(str, single.log), ""),
            job.groupid if job.is_group() else None,
        )
        for job in workflow.scheduler.failed
        for single in (job if job.is_group() else [job])
    ]


def cohort_block(wildcards):
    """A cohort as the config describes it."""
    return STUDY["cohorts"][wildcards.cohort]


def cohort_settings(wildcards):
    """A cohort as a table."""
    return COHORTS[wildcards.cohort]


def forecast_settings(wildcards):
    """What forecasts depend on of a cohort."""
    return settings.forecasting(COHORTS[wildcards.cohort])


def cohort_table(wildcards):
    """The table of a cohort."""
    return literal(COHORTS[wildcards.cohort]["path"])


def cohort_printed(wildcards):
    """The published numbers that a cohort is compared with."""
    return literal(COHORTS[wildcards.cohort].get("printed", []))


def cohort_bases(wildcards):
    """The study's own bases in a cohort, with the config of each."""
    return assembly.bases(STUDY, cohort_block(wildcards))


def cohort_indicators(wildcards):
    """The settings of the indicators in a cohort."""
    return {
        name: STUDY["indicators"][name]
        for name in cohort_block(wildcards)["indicators"]
    }


def forecasters(*names):
    """Modules of forecasting."""
    return expand(f"{PACKAGE}/forecasting/{{name}}.py", name=names)
