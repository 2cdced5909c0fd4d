"""Inputs and parameters of the rules in evaluation.smk."""

from workflow.data import prompts
from workflow import registry
from workflow.evaluation import further
from workflow.evaluation import metric_names as metrics_of


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
    # On how many GPUs changes nothing that is predicted, nor do metrics but for one that needs choices without a prompt.
    kept = {key: block[key] for key in block if key not in ("gpus", "metrics")}
    needed = [name for name in block["metrics"] if name == metrics_of.UNCONDITIONAL]
    return kept | ({"metrics": needed} if needed else {}) | {"tests": own}


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
    named = {
        name: read.lm_eval.scoring if read.lm_eval else read.metrics
        for name in tests
        if (read := task.load(name)).metrics
    }
    own = {name: metric_code(name) for metrics in named.values() for name in metrics}
    code = {name: source for name, source in own.items() if source}
    return [named, code] if code else named or content_hashes.UNCOUNTED


def suite_metrics(wildcards):
    """The optional metrics that a suite names, with the code of those of the study."""
    named = STUDY["suites"][wildcards.suite]["metrics"]
    return {name: metric_code(name) for name in named}


def metric_code(name):
    """The code of a metric of the study; none of others, whose code is a param of its own."""
    if name not in registry.modules(further):
        return None
    return content_hashes.of_code(*registry.sources(further, name))


def suite_tasks(wildcards):
    """The prepared tasks that a suite tests."""
    return expand("resources/tasks/{test}.parquet", test=suite(wildcards)["tests"])
