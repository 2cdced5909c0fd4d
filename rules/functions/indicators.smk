"""Inputs and parameters of the rules in indicators.smk."""

from workflow.data import prompts
from workflow.study import indicators

# Indicators that a base has to be run for.
RUN_FOR = indicators.run_for(STUDY["indicators"])
INDICATORS = ["results/indicators.parquet"] if RUN_FOR else []


MEASURED_TEXTS = [block for block in RUN_FOR.values() if "corpus" in block]


def measured_root(wildcards):
    """Where the texts start that indicators are measured on; none where other jobs make all of them."""
    made = all(corpora.made(block["corpus"]) for block in MEASURED_TEXTS)
    return given_folder(None if made else STUDY["data_root"])


def indicator_texts(wildcards):
    """The texts that indicators are measured on, where other jobs make them."""
    made = [corpora.made(block["corpus"]) for block in MEASURED_TEXTS]
    return [
        path for folder in dict.fromkeys(filter(None, made)) for path in noted(folder)
    ]


def indicator_contents(wildcards):
    """The texts that indicators are measured on, where they are the user's."""
    given = [given_texts(block, block["split"]) for block in MEASURED_TEXTS]
    return content_hashes.of_files(
        dict.fromkeys(path for paths in given for path in paths)
    )


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
