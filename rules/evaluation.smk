"""From models to predictions and scores."""


rule predict:
    """Predict every test of a suite by one model, in one process."""
    input:
        base=f"resources/bases/{BASE}/base.json",
        model=tuned_weights,
        tasks=suite_tasks,
    output:
        f"results/predictions/{CELL}/part.parquet",
    log:
        f"logs/predict/{CELL}.log",
    benchmark:
        f"results/benchmarks/predict/{CELL}.tsv"
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        **needs.asked(STUDY, needs.prediction),
        gpu=1,
    params:
        suite=suite,
    script:
        "../workflow/scripts/predict.py"


rule score:
    """Compute every metric of a cell's predictions, with intervals."""
    input:
        predictions=f"results/predictions/{CELL}/part.parquet",
        modules=[f"{PACKAGE}/metrics.py", f"{PACKAGE}/statistics.py"],
    output:
        scores=f"results/scores/{CELL}/part.parquet",
        rows=f"results/items/{CELL}/part.parquet",
    log:
        f"logs/score/{CELL}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        statistics=STUDY["statistics"],
    script:
        "../workflow/scripts/score.py"
