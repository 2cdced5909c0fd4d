"""Texts and rows: the generated mini world, corpora, tasks."""


include: "functions/data.smk"


localrules:
    generate,
    pin_task,
    pin_corpus,
    collect,
    prepare,


wildcard_constraints:
    corpus="[^/]+",


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
    """Record the commit of a task's dataset on the hub, with the sizes and hashes of its files."""
    output:
        "resources/pins/tasks/{task}.json",
    log:
        "logs/pin_task/{task}.log",
    conda:
        "../envs/model.yaml"
    params:
        dataset=task_dataset,
    script:
        "../workflow/scripts/pin_task.py"


rule pin_corpus:
    """Record the commit of a corpus on the hub, with the sizes and hashes of its files."""
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
    """Download a corpus from the hub and write it as text domains."""
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
    """Read the rows of a task: prompt fields and reference answers."""
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
