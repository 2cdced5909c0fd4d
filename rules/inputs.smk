"""What a study starts from: generated text, checkpoints, tasks."""


localrules:
    generate,
    pin_base,
    pin_task,
    pin_corpus,
    collect,
    prefetch,
    fetch,
    prepare,
    adopt,


rule generate:
    """Write the text and the tasks of the generated mini world."""
    input:
        module=f"{PACKAGE}/miniworld.py",
    output:
        directory("resources/miniworld"),
    log:
        "logs/generate.log",
    conda:
        "../envs/analysis.yaml"
    params:
        seed=STUDY["miniworld"]["seed"],
    script:
        "../workflow/scripts/generate.py"


rule pretrain:
    """Train a family from scratch, or from a base on, and keep its checkpoints."""
    input:
        corpus=corpus_files,
        start=start_files,
    output:
        directory("resources/pretrained/family={family}"),
    log:
        "logs/pretrain/family={family}.log",
    benchmark:
        "results/benchmarks/pretrain/family={family}.tsv"
    conda:
        "../envs/model.yaml"
    threads: 2
    resources:
        **needs.asked(STUDY, needs.pretraining),
    params:
        pretraining=pretraining,
        data_root=text_root,
    script:
        "../workflow/scripts/pretrain.py"


rule pin_base:
    """Pin a base on the hub: its commit, its files, their sizes and hashes."""
    output:
        f"resources/pins/bases/{BASE}.json",
    log:
        f"logs/pin_base/{BASE}.log",
    conda:
        "../envs/model.yaml"
    params:
        source=source,
    script:
        "../workflow/scripts/pin_base.py"


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
    log:
        "logs/collect/{corpus}.log",
    conda:
        "../envs/model.yaml"
    params:
        corpus=hub_corpus,
    script:
        "../workflow/scripts/collect.py"


rule prefetch:
    """Fetch everything that the study reads from the hub, so that all other jobs need no network."""
    input:
        PINS,
    output:
        "resources/prefetched.json",
    log:
        "logs/prefetch.log",
    conda:
        "../envs/model.yaml"
    script:
        "../workflow/scripts/prefetch.py"


rule fetch:
    """Find a base's files, fetching them from the hub if need be, and record what they are."""
    input:
        checkpoint_files,
    output:
        f"resources/bases/{BASE}/base.json",
    log:
        f"logs/fetch/{BASE}.log",
    conda:
        "../envs/model.yaml"
    params:
        source=source,
    script:
        "../workflow/scripts/fetch.py"


rule prepare:
    """Read a task's rows as prompt fields and reference answers."""
    input:
        rows=task_rows,
        passages=task_passages,
        modules=task_modules,
    output:
        "resources/tasks/{task}.parquet",
    log:
        "logs/prepare/{task}.log",
    conda:
        "../envs/model.yaml"
    params:
        data_root=row_root,
    script:
        "../workflow/scripts/prepare.py"


rule adopt:
    """Read evaluation results that already exist into the tables of a study."""
    input:
        files=released_files,
        modules=reader_modules,
    output:
        scores="results/imported/import={released}/part.parquet",
        rows="results/imported/import={released}/items.parquet",
        files="results/imported/import={released}/files.parquet",
    log:
        "logs/adopt/{released}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        released=released,
        root=STUDY["released_root"],
        families=list(STUDY["families"]),
    script:
        "../workflow/scripts/adopt.py"
