"""Paths and input functions that several rules share."""

import os
import pathlib

from workflow import (
    analyses,
    audits,
    checksums,
    contents,
    corpora,
    findings,
    indicators,
)
from workflow import progress, prompts, search, sources, summaries, tables, task
from workflow.forecasting import assembly, leaderboards, settings
from workflow import released as releases
from workflow import resources as needs

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
BASE_PINS = [
    f"resources/pins/bases/{grid.path(base, grid.BASE_KEYS)}.json"
    for base in grid.bases(STUDY).to_dict("records")
    if STUDY["families"][base["family"]]["source"] == "hub"
]
PINS = BASE_PINS + [
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


def tokens_seen(wildcards):
    """The tokens of the bases' steps as far as the config tells, for the table of scores."""
    return progress.of_study(STUDY) if wildcards.table == "scores" else {}


def token_pins(wildcards):
    """What is pinned of bases on the hub, whose revisions may be named by their tokens, for the table of scores."""
    return BASE_PINS if wildcards.table == "scores" else []


def slice_parts(wildcards):
    """The scores of the models tuned on one task, and of their bases, on one suite."""
    meant = grid.slice_of(STUDY, wildcards.train, wildcards.suite)
    return parts("scores", grid.PART_KEYS, meant)


def pretraining(wildcards):
    """How the family is trained here."""
    return STUDY["families"][wildcards.family]["pretraining"]


def noted(folder):
    """A folder that a job makes as an input: what counts is its content, as its checksums tell, and not its date."""
    return [ancient(folder), str(checksums.place(pathlib.Path(folder)))]


def places(paths):
    """Files that a job reads wherever they lie, as a param; what counts of them is in another."""
    return contents.Places(tuple(map(pathlib.Path, paths)))


def corpus_made(wildcards):
    """The text that a family is trained on, where another job makes it."""
    made = corpora.made(pretraining(wildcards)["corpus"])
    return noted(made) if made else []


def corpus_contents(wildcards):
    """The text that a family is trained on, where it is the user's."""
    return contents.of_files(given_texts(pretraining(wildcards), "train"))


def hub_corpus(wildcards):
    """Which dataset of the hub a corpus is, and how it is read."""
    return STUDY["corpora"][wildcards.corpus]


def training(wildcards):
    """How a family is trained; a folder that it goes on from by its name alone."""
    block = pretraining(wildcards)
    start = block.get("continue_from", {})
    named = (
        {"folder": pathlib.Path(start["folder"]).name} if "folder" in start else start
    )
    return block | ({"continue_from": named} if start else {})


def given_folder(path):
    """A folder of the user's as a param that is not compared; none where the config names none."""
    return None if path is None else pathlib.Path(path)


def text_root(wildcards):
    """Where a family's corpus starts; none for text that another job makes, which no folder of rows concerns."""
    made = corpora.made(pretraining(wildcards)["corpus"])
    return given_folder(None if made else STUDY["data_root"])


def measured_root(wildcards):
    """Where the texts start that indicators are measured on; none where other jobs make all of them."""
    made = all(corpora.made(block["corpus"]) for block in MEASURED_TEXTS)
    return given_folder(None if made else STUDY["data_root"])


def start_folder(wildcards):
    """The folder that a family goes on from; none where it starts from scratch or from another family."""
    return given_folder(pretraining(wildcards).get("continue_from", {}).get("folder"))


def start_base(wildcards):
    """The base of another family that a family goes on from."""
    start = pretraining(wildcards).get("continue_from", {})
    own = "family" in start
    return expand(f"resources/bases/{BASE}/base.json", **start) if own else []


def start_files(wildcards):
    """The files of a checkpoint's folder that a family goes on from."""
    start = pretraining(wildcards).get("continue_from", {})
    return sources.checkpoint_files(start["folder"]) if "folder" in start else []


def start_contents(wildcards):
    """What the files hold that a family goes on from."""
    return contents.of_files(start_files(wildcards))


def given_texts(block, split):
    """The files of a split of a corpus of the user's; none of a corpus that another job makes."""
    if corpora.made(block["corpus"]):
        return []
    return corpora.files(
        corpora.folder(block, STUDY["data_root"]), block.get("domains"), split
    )


MEASURED_TEXTS = [block for block in RUN_FOR.values() if "corpus" in block]


def indicator_texts(wildcards):
    """The texts that indicators are measured on, where other jobs make them."""
    made = [corpora.made(block["corpus"]) for block in MEASURED_TEXTS]
    return [
        path for folder in dict.fromkeys(filter(None, made)) for path in noted(folder)
    ]


def indicator_contents(wildcards):
    """The texts that indicators are measured on, where they are the user's."""
    given = [given_texts(block, block["split"]) for block in MEASURED_TEXTS]
    return contents.of_files(dict.fromkeys(path for paths in given for path in paths))


def indicator_prompts(wildcards):
    """The words that indicators put around the rows that they read."""
    return {
        name: [
            prompts.evaluated(task.load(test), block.get("format", "default"), "sound")
            for test in indicators.tasks(block)
            if task.load(test).kind != "messages"
        ]
        for name, block in RUN_FOR.items()
    }


def indicator_tasks(wildcards):
    """The prepared tasks that indicators read."""
    names = [name for block in RUN_FOR.values() for name in indicators.tasks(block)]
    return expand("resources/tasks/{task}.parquet", task=dict.fromkeys(names))


def checkpoint(wildcards):
    """What a base is made from: the family's training here, or what is pinned on the hub."""
    source = STUDY["families"][wildcards.family]["source"]
    if source == "hub":
        return [f"resources/pins/bases/{grid.path(wildcards, grid.BASE_KEYS)}.json"]
    trained = f"resources/pretrained/family={wildcards.family}"
    return noted(trained) if source == "trained" else []


def base_folder(wildcards):
    """Where a base of a local folder lies; none of others."""
    family = STUDY["families"][wildcards.family]
    return sources.folder(wildcards.family, family, int(wildcards.step))


def base_contents(wildcards):
    """What tells the files of a base in a local folder from those that were there before."""
    family, path = STUDY["families"][wildcards.family], grid.path(
        wildcards, grid.BASE_KEYS
    )
    manifest = pathlib.Path(f"resources/bases/{path}/base.json")
    return contents.of_checkpoint(
        sources.files(wildcards.family, family, int(wildcards.step)),
        sources.read_base(manifest) if manifest.is_file() else None,
    )


def source(wildcards):
    """Where a base comes from; what concerns the family's other steps left out, so that a new one leaves this one alone."""
    family = STUDY["families"][wildcards.family]
    # What counts of a folder is what it holds, wherever it lies.
    read = {"source"}
    if family["source"] == "hub":
        read |= {"repo", "repos", "pattern"}
    if family.get("main_step") == int(wildcards.step):
        read.add("main_step")
    if "repos" in family:
        own = [
            entry for entry in family["repos"] if entry["step"] == int(wildcards.step)
        ]
        family = {**family, "repos": own}
    return {key: value for key, value in family.items() if key in read}


def task_rows(wildcards):
    """What a task's rows are read from: the generated world, or what is pinned on the hub; none of the user's own files."""
    if task.load(wildcards.task).hub is None:
        return noted("resources/miniworld")
    pinned = f"resources/pins/tasks/{wildcards.task}.json"
    return [pinned] if STUDY["data_root"] is None else []


def row_root(wildcards):
    """Where the folders of rows are; none for a generated task, which none of them concerns."""
    own = task.load(wildcards.task).hub is not None
    return given_folder(STUDY["data_root"] if own else None)


def row_contents(wildcards):
    """What the files of the user's hold that a task's rows are read from."""
    own = task.load(wildcards.task).hub is not None
    return contents.of_files(
        task.row_files(wildcards.task, STUDY["data_root"]) if own else []
    )


def task_passages(wildcards):
    """The passages that a task's contexts are found in."""
    return places(grid.passage_files(STUDY, wildcards.task))


def passage_contents(wildcards):
    """What the passages hold that a task's contexts are found in."""
    return contents.of_files(grid.passage_files(STUDY, wildcards.task))


def task_code(wildcards):
    """How the task's rows are read: its module and those it builds on, but for what says nothing of its rows."""
    modules = [f"tasks/{path.stem}" for path in task.module_paths(wildcards.task)]
    return contents.of_code(*modules, without=["licence", "sizes", "templates"])


def released(wildcards):
    """What is imported: the reader and how its rows are named here."""
    block = STUDY["imports"][wildcards.released]
    return {key: value for key, value in block.items() if key != "path"}


def released_folder(wildcards):
    """The folder of the released files, as the config names it."""
    return given_folder(STUDY["imports"][wildcards.released]["path"])


def released_contents(wildcards):
    """What the released files hold that an import reads, by their places in its folder."""
    block, root = STUDY["imports"][wildcards.released], STUDY["released_root"]
    return contents.of_files(
        grid.released_files(block, root), releases.place_of(block, root)
    )


def reader_code(wildcards):
    """How the released files are read."""
    own = f"imports/{released(wildcards)['reader']}"
    return contents.of_code(own, "released", "adopting", "measures")


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


def tuning_prompts(wildcards):
    """The words around the rows that a model is tuned on."""
    return prompts.tuned_on(task.load(wildcards.train), wildcards.format)


def weights(folder):
    """Folders of tuned weights as an output: to stay, or to be removed once their last prediction is made."""
    return directory(folder) if STUDY["keep_weights"] else temp(directory(folder))


def tuned_weights(wildcards):
    """The weights of a tuned model; none for an untouched base."""
    return (
        []
        if wildcards.recipe == "none"
        else noted(f"resources/models/{grid.path(wildcards, grid.MODEL_KEYS)}")
    )


def suite(wildcards):
    """How a suite evaluates, and the tests that this part of it puts a model to."""
    block = STUDY["suites"][wildcards.suite]
    own = grid.part_tests(block, wildcards.train, wildcards.tests)
    # On how many GPUs changes nothing that is predicted.
    return {key: block[key] for key in block if key != "gpus"} | {"tests": own}


def suite_prompts(wildcards):
    """The words around the rows that a suite tests, by test and format."""
    block = suite(wildcards)
    how = block["protocol"], any(block["shots"])
    return {
        f"{test} {format}": prompts.evaluated(task.load(test), format, *how)
        for test in block["tests"]
        for format in block["formats"]
    }


def suite_tasks(wildcards):
    """The prepared tasks that a suite tests."""
    return expand("resources/tasks/{test}.parquet", test=suite(wildcards)["tests"])


def analysis_code(wildcards):
    """What an analysis does, and what it shares with others."""
    shared = ["comparison", "curves", "declines", "extrapolation", "laws", "statistics"]
    return contents.of_code(f"analyses/{wildcards.analysis}", *shared)


def figure_code(wildcards):
    """How a figure is drawn."""
    own = f"figures/{wildcards.figure}"
    return contents.of_code(own, "drawing", "figures/style.mplstyle")


def summary_code(wildcards):
    """How a table is made."""
    return contents.of_code(f"summaries/{wildcards.summary}", "summaries/__init__")


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
    """The table of a cohort of the study's own bases."""
    block = COHORTS[wildcards.cohort]
    return block["path"] if block.get("assembled") else []


def cohort_contents(wildcards):
    """What the table of a cohort holds, where it is the user's."""
    block = COHORTS[wildcards.cohort]
    return None if block.get("assembled") else contents.of_file(block["path"])


def printed_contents(wildcards):
    """What the published numbers are that a cohort is compared with."""
    return contents.of_file(COHORTS[wildcards.cohort]["printed"])


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
    """What modules of forecasting do."""
    return contents.of_code(*(f"forecasting/{name}" for name in names))
