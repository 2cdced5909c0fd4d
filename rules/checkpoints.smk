"""Checkpoints from the hub, from a folder, or pre-trained in the study."""


include: "functions/checkpoints.smk"


localrules:
    pin_base,
    fetch,
    prefetch,


rule pretrain:
    """Pre-train a family, from scratch or from a checkpoint, up to one saved step, from where the piece before it stopped."""
    input:
        corpus=corpus_made,
        start=start_base,
        previous=previous_piece,
    output:
        directory(f"resources/pretrained/{BASE}"),
        checksums.place(pathlib.Path(f"resources/pretrained/{BASE}")),
    log:
        f"logs/pretrain/{BASE}.log",
    benchmark:
        f"results/benchmarks/pretrain/{BASE}.tsv"
    # Later steps wait for it.
    priority: 100
    conda:
        "../envs/model.yaml"
    threads: pretraining_threads
    resources:
        **needs.asked(STUDY, needs.pretraining),
    params:
        pretraining=training,
        data_root=text_root,
        texts=corpus_contents,
        folder=start_folder,
        start=start_contents,
        states="resources/states/pretrained/family={family}",
    script:
        "../workflow/scripts/pretrain.py"


rule pin_base:
    """Record the commit of a checkpoint on the hub, with the sizes and hashes of its files."""
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


rule fetch:
    """Find the files of a checkpoint, or download them, and record their hashes."""
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


rule average:
    """Average the last checkpoints of a family up to a step, weight by weight."""
    input:
        bases=averaged_bases,
    output:
        directory("resources/averaged/family={family}/step={step}"),
        "resources/averaged/family={family}/.step={step}.sha256",
    log:
        f"logs/average/{BASE}.log",
    conda:
        "../envs/model.yaml"
    params:
        root=averaged_root,
        folders=averaged_folders,
    script:
        "../workflow/scripts/average.py"


rule prefetch:
    """Download everything that the study reads from the hub; all other jobs then need no network."""
    input:
        BASE_PINS,
        MODEL_PINS,
        TASK_PINS,
        CORPUS_PINS,
    output:
        "resources/prefetched.json",
    log:
        "logs/prefetch.log",
    conda:
        "../envs/model.yaml"
    script:
        "../workflow/scripts/prefetch.py"
