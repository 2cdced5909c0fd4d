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
    output:
        directory("resources/miniworld"),
        checksums.place(pathlib.Path("resources/miniworld")),
    log:
        "logs/generate.log",
    conda:
        "../envs/analysis.yaml"
    params:
        seed=STUDY["miniworld"]["seed"],
        code=contents.of_code("miniworld"),
    script:
        "../workflow/scripts/generate.py"


rule pretrain:
    """Train a family from scratch, or from a base on, and keep its checkpoints."""
    input:
        corpus=corpus_made,
        start=start_base,
    output:
        directory("resources/pretrained/family={family}"),
        "resources/pretrained/.family={family}.sha256",
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
        pretraining=training,
        data_root=text_root,
        texts=corpus_contents,
        folder=start_folder,
        start=start_contents,
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
        "resources/corpora/.{corpus}.sha256",
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
        checkpoint,
    output:
        f"resources/bases/{BASE}/base.json",
    log:
        f"logs/fetch/{BASE}.log",
    conda:
        "../envs/model.yaml"
    params:
        source=source,
        folder=base_folder,
        contents=base_contents,
    script:
        "../workflow/scripts/fetch.py"


rule prepare:
    """Read a task's rows as prompt fields and reference answers."""
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


rule adopt:
    """Read evaluation results that already exist into the tables of a study."""
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
        folder=released_folder,
        root=given_folder(STUDY["released_root"]),
        files=released_contents,
        code=reader_code,
        families=list(STUDY["families"]),
    script:
        "../workflow/scripts/adopt.py"
