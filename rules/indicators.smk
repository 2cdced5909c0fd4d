"""From untouched bases to the numbers that may forecast how they turn out after tuning."""

from workflow.data import prompts
from workflow.study import indicators

# Indicators that a base has to be run for.
RUN_FOR = indicators.run_for(STUDY)
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


rule measure:
    """Measure the indicators of a base in one process; those for which nothing has changed keep their rows."""
    input:
        base=f"resources/bases/{BASE}/base.json",
        texts=indicator_texts,
        tasks=indicator_tasks,
    output:
        sums=update(f"results/indicators/{BASE}/part.parquet"),
        losses=update(f"results/losses/{BASE}/part.parquet"),
    log:
        f"logs/measure/{BASE}.log",
    benchmark:
        f"results/benchmarks/measure/{BASE}.tsv"
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        **needs.asked(STUDY, needs.measuring),
        gpu=1,
    params:
        indicators={
            name: indicators.measured(block) | {"batch_tokens": block["batch_tokens"]}
            for name, block in RUN_FOR.items()
        },
        data_root=measured_root,
        texts=indicator_contents,
        prompts=indicator_prompts,
        folder=base_folder,
    script:
        "../workflow/scripts/measure.py"
