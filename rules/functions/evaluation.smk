"""Inputs and parameters of the rules in evaluation.smk."""

from workflow.data import prompts


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


def task_metrics(wildcards):
    """The metrics that tasks name for their tests; where none does, nothing that counts."""
    tests = suite(wildcards)["tests"]
    named = {name: own for name in tests if (own := task.load(name).metrics)}
    return named or content_hashes.UNCOUNTED


def suite_tasks(wildcards):
    """The prepared tasks that a suite tests."""
    return expand("resources/tasks/{test}.parquet", test=suite(wildcards)["tests"])
