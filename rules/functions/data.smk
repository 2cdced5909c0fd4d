"""Inputs and parameters of the rules in data.smk."""

from workflow import task

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
