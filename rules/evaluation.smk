"""Predictions and scores."""


include: "functions/evaluation.smk"


rule predict:
    """Predict the tests of a suite with one model, in one job; with a base, in some suites one test per job."""
    input:
        base=f"resources/bases/{BASE}/base.json",
        model=tuned_weights,
        tasks=suite_tasks,
    output:
        f"results/predictions/{PART}/part.parquet",
    log:
        f"logs/predict/{PART}.log",
    benchmark:
        f"results/benchmarks/predict/{PART}.tsv"
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        **needs.asked(STUDY, needs.prediction),
        gpu=gpus,
    params:
        suite=suite,
        prompts=suite_prompts,
        folder=base_folder,
    script:
        "../workflow/scripts/predict.py"


rule score:
    """Compute all metrics of predictions, with confidence intervals."""
    input:
        predictions=f"results/predictions/{PART}/part.parquet",
    output:
        scores=f"results/scores/{PART}/part.parquet",
        rows=f"results/items/{PART}/part.parquet",
    log:
        f"logs/score/{PART}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        statistics=STUDY["statistics"],
        stemmer=STUDY["rouge"]["stemmer"],
        metrics=task_metrics,
        further=suite_metrics,
        code=content_hashes.of_code(
            "evaluation/metrics", "evaluation/lm_eval_metrics", "statistics"
        ),
    script:
        "../workflow/scripts/score.py"
