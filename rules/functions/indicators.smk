"""Inputs and parameters of the rules in indicators.smk."""

from workflow.data import prompts
from workflow.study import indicators

# Indicators that a base has to be run for.
RUN_FOR = indicators.run_for(STUDY["indicators"])
INDICATORS = ["results/indicators.parquet"] if RUN_FOR else []


# Indicators that fine-tuned models are compared with their bases by.
COMPARED = {name: RUN_FOR[name] for name in STUDY["forgetting"]}
FORGOTTEN = ["results/forgetting.parquet"] if COMPARED else []
TUNED = MODELS[MODELS["recipe"] != "none"] if COMPARED else MODELS[:0]


def measured_by(blocks):
    """Settings of indicators as a param of the rules that measure them."""
    return {
        name: indicators.measured(block) | {"batch_tokens": block["batch_tokens"]}
        for name, block in blocks.items()
    }


def with_corpus(blocks):
    """The blocks that read text."""
    return [block for block in blocks.values() if "corpus" in block]


def measured_root(blocks):
    """Where the texts start that indicators are measured on; none where other jobs make all of them."""
    made = all(corpora.made(block["corpus"]) for block in with_corpus(blocks))
    return given_folder(None if made else STUDY["data_root"])


def indicator_texts(blocks):
    """The texts that indicators are measured on, where other jobs make them."""
    made = [corpora.made(block["corpus"]) for block in with_corpus(blocks)]
    return [
        path for folder in dict.fromkeys(filter(None, made)) for path in noted(folder)
    ]


def indicator_contents(blocks):
    """The texts that indicators are measured on, where they are the user's."""
    given = [given_texts(block, block["split"]) for block in with_corpus(blocks)]
    return content_hashes.of_files(
        dict.fromkeys(path for paths in given for path in paths)
    )


def indicator_prompts(blocks):
    """The words that indicators put around the rows that they read."""
    return {
        name: [
            prompts.evaluated(task.load(test), block.get("format", "default"), "sound")
            for test in indicators.tasks(block)
            if task.load(test).kind != "messages"
        ]
        for name, block in blocks.items()
    }


def indicator_tasks(blocks):
    """The prepared tasks that indicators read."""
    names = [name for block in blocks.values() for name in indicators.tasks(block)]
    return expand("resources/tasks/{task}.parquet", task=dict.fromkeys(names))
