"""From models to predictions and scores."""

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


def suite_tasks(wildcards):
    """The prepared tasks that a suite tests."""
    return expand("resources/tasks/{test}.parquet", test=suite(wildcards)["tests"])


rule predict:
    """Predict the tests of a suite by one model, in one job; of a base maybe one test alone."""
    input:
        base=f"resources/bases/{BASE}/base.json",
        model=tuned_weights,
        tasks=suite_tasks,
    output:
        f"results/predictions/{PART}/part.parquet",
    log:
        f"logs/predict/{PART}.log",
    benchmark:
        f"results/benchmarks/predict/{PART}.tsv"
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        **needs.asked(STUDY, needs.prediction),
        gpu=gpus,
    params:
        suite=suite,
        prompts=suite_prompts,
        folder=base_folder,
    script:
        "../workflow/scripts/predict.py"


rule score:
    """Compute every metric of predictions, with intervals."""
    input:
        predictions=f"results/predictions/{PART}/part.parquet",
    output:
        scores=f"results/scores/{PART}/part.parquet",
        rows=f"results/items/{PART}/part.parquet",
    log:
        f"logs/score/{PART}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        statistics=STUDY["statistics"],
        code=content_hashes.of_code("evaluation/metrics", "statistics"),
    script:
        "../workflow/scripts/score.py"
