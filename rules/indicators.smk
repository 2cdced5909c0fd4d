"""Indicators: proxy metrics of untouched bases."""


include: "functions/indicators.smk"


rule measure:
    """Measure the indicators of a base in one job; unchanged indicators are not measured again."""
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
