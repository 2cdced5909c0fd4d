"""From datasets to texts and rows: the generated mini world, corpora, tasks."""

from workflow import task


localrules:
    generate,
    pin_task,
    pin_corpus,
    collect,
    prepare,


wildcard_constraints:
    corpus="[^/]+",


TASK_PINS = [
    f"resources/pins/tasks/{name}.json"
    for name in grid.tasks(STUDY)
    if not task.row_root(task.load(name), STUDY["data_root"])
]
CORPUS_PINS = [f"resources/pins/corpora/{name}.json" for name in grid.collected(STUDY)]


def hub_corpus(wildcards):
    """Which dataset of the hub a corpus is, and how it is read."""
    return STUDY["corpora"][wildcards.corpus]


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
    return content_hashes.of_files(
        task.row_files(wildcards.task, STUDY["data_root"]) if own else []
    )


def places(paths):
    """Files that a job reads wherever they lie, as a param; what counts of them is in another."""
    return content_hashes.Places(tuple(map(pathlib.Path, paths)))


def task_passages(wildcards):
    """The passages that a task's contexts are found in."""
    return places(grid.passage_files(STUDY, wildcards.task))


def passage_contents(wildcards):
    """What the passages hold that a task's contexts are found in."""
    return content_hashes.of_files(grid.passage_files(STUDY, wildcards.task))


def task_code(wildcards):
    """How the task's rows are read: its module and those it builds on, but for what says nothing of its rows."""
    modules = [f"tasks/{path.stem}" for path in task.module_paths(wildcards.task)]
    return content_hashes.of_code(*modules, without=["licence", "sizes", "templates"])


rule generate:
    """Write the text and the tasks of the generated mini world."""
    output:
        directory("resources/miniworld"),
        checksums.place(pathlib.Path("resources/miniworld")),
    log:
        "logs/generate.log",
    conda:
        "../envs/analysis.yaml"
    params:
        seed=STUDY["miniworld"]["seed"],
        code=content_hashes.of_code("data/miniworld"),
    script:
        "../workflow/scripts/generate.py"


rule pin_task:
    """Pin a task's dataset on the hub: its commit, its files, their sizes and hashes."""
    output:
        "resources/pins/tasks/{task}.json",
    log:
        "logs/pin_task/{task}.log",
    conda:
        "../envs/model.yaml"
    script:
        "../workflow/scripts/pin_task.py"


rule pin_corpus:
    """Pin a corpus on the hub: its commit, its files, their sizes and hashes."""
    output:
        "resources/pins/corpora/{corpus}.json",
    log:
        "logs/pin_corpus/{corpus}.log",
    conda:
        "../envs/model.yaml"
    params:
        corpus=hub_corpus,
    script:
        "../workflow/scripts/pin_corpus.py"


rule collect:
    """Write a corpus of the hub as text domains."""
    input:
        pin="resources/pins/corpora/{corpus}.json",
    output:
        directory("resources/corpora/{corpus}"),
        "resources/corpora/.{corpus}.sha256",
    log:
        "logs/collect/{corpus}.log",
    conda:
        "../envs/model.yaml"
    params:
        corpus=hub_corpus,
    script:
        "../workflow/scripts/collect.py"


rule prepare:
    """Read a task's rows as prompt fields and reference answers."""
    input:
        task_rows,
    output:
        "resources/tasks/{task}.parquet",
    log:
        "logs/prepare/{task}.log",
    conda:
        "../envs/model.yaml"
    params:
        data_root=row_root,
        rows=row_contents,
        passages=task_passages,
        texts=passage_contents,
        code=task_code,
    script:
        "../workflow/scripts/prepare.py"
