"""From bases to models."""


rule tune:
    """Tune a base on a task in a format by a recipe with a seed."""
    input:
        base=f"resources/bases/{BASE}/base.json",
        task="resources/tasks/{train}.parquet",
    output:
        model=directory(f"resources/models/{MODEL}"),
        history=f"results/histories/{MODEL}/part.parquet",
    log:
        f"logs/tune/{MODEL}.log",
    benchmark:
        f"results/benchmarks/tune/{MODEL}.tsv"
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        gpu=1,
    params:
        recipe=recipe,
        state=f"resources/states/{MODEL}.safetensors",
    script:
        "../workflow/scripts/tune.py"
