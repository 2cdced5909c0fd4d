"""Inputs and parameters of the rules in data.smk."""

from workflow import registry, task
from workflow.data import declared

NOT_ABOUT_ROWS = ["licence", "sizes", "templates", "stops", "metrics"]

TASK_PINS = [
    f"resources/pins/tasks/{name}.json"
    for name in grid.tasks(STUDY)
    if not task.row_root(name, STUDY["data_root"])
]
CORPUS_PINS = [f"resources/pins/corpora/{name}.json" for name in grid.collected(STUDY)]


def hub_corpus(wildcards):
    """Which dataset of the hub a corpus is, and how it is read."""
    return STUDY["corpora"][wildcards.corpus]


def task_rows(wildcards):
    """What a task's rows are read from: the generated world, or what is pinned on the hub; none of the user's own files."""
    if task.generated(wildcards.task):
        return noted("resources/miniworld")
    is_local = task.row_root(wildcards.task, STUDY["data_root"])
    return [] if is_local else [f"resources/pins/tasks/{wildcards.task}.json"]


def row_root(wildcards):
    """Where the folders of rows are; none for a generated task, which none of them concerns."""
    made = task.generated(wildcards.task)
    return given_folder(None if made else STUDY["data_root"])


def row_contents(wildcards):
    """What the files of the user's hold that a task's rows are read from."""
    made = task.generated(wildcards.task)
    return content_hashes.of_files(
        [] if made else task.row_files(wildcards.task, STUDY["data_root"])
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
    if wildcards.task in registry.tasks.blocks:
        found = task.load(wildcards.task)
        harness = ["data/lm_eval_tasks", "data/lm_eval_rows"]
        readers = harness if found.lm_eval else ["data/declared"]
        return declared.fingerprint(found) + content_hashes.of_code(*readers)
    modules = [path.with_suffix("") for path in task.module_paths(wildcards.task)]
    return content_hashes.of_code(*modules, without=NOT_ABOUT_ROWS)


def task_dataset(wildcards):
    """The dataset that a declared task is pinned to; of others, which their module names, nothing that counts."""
    if wildcards.task not in registry.tasks.blocks:
        return content_hashes.UNCOUNTED
    found = task.load(wildcards.task)
    return [found.hub, found.subset, found.revision]
