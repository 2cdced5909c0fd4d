"""Indicators: proxy metrics of untouched bases."""


include: "functions/indicators.smk"


rule measure:
    """Measure the indicators of a base in one job; unchanged indicators are not measured again."""
    input:
        base=f"resources/bases/{BASE}/base.json",
        texts=lambda wildcards: indicator_texts(RUN_FOR),
        tasks=lambda wildcards: indicator_tasks(RUN_FOR),
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
        indicators=measured_by(RUN_FOR),
        data_root=lambda wildcards: measured_root(RUN_FOR),
        texts=lambda wildcards: indicator_contents(RUN_FOR),
        prompts=lambda wildcards: indicator_prompts(RUN_FOR),
        folder=base_folder,
    script:
        "../workflow/scripts/measure.py"


rule measure_tuned:
    """Measure a fine-tuned model as its base is measured: what it forgot, in bits per byte of text and of right answers."""
    input:
        base=f"resources/bases/{BASE}/base.json",
        model=finished_model,
        texts=lambda wildcards: indicator_texts(COMPARED),
        tasks=lambda wildcards: indicator_tasks(COMPARED),
    output:
        f"results/tuned_losses/{MODEL}/part.parquet",
    log:
        f"logs/measure_tuned/{MODEL}.log",
    benchmark:
        f"results/benchmarks/measure_tuned/{MODEL}.tsv"
    wildcard_constraints:
        recipe="(?!none/)[^/]+",
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        **needs.asked(STUDY, needs.measuring),
        gpu=1,
    params:
        indicators=measured_by(COMPARED),
        data_root=lambda wildcards: measured_root(COMPARED),
        texts=lambda wildcards: indicator_contents(COMPARED),
        prompts=lambda wildcards: indicator_prompts(COMPARED),
        folder=base_folder,
    script:
        "../workflow/scripts/measure_tuned.py"


rule forgetting:
    """Compare the losses of fine-tuned models with those of their bases, document by document."""
    input:
        bases=parts("losses", grid.BASE_KEYS, TUNED[grid.BASE_KEYS].drop_duplicates()),
        tuned=parts("tuned_losses", grid.MODEL_KEYS, TUNED),
    output:
        "results/forgetting.parquet",
    log:
        "logs/forgetting.log",
    conda:
        "../envs/analysis.yaml"
    params:
        indicators=list(COMPARED),
        level=STUDY["statistics"]["level"],
        code=content_hashes.of_code("indicators/forgetting", "statistics"),
    script:
        "../workflow/scripts/forgetting.py"
