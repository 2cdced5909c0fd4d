"""Fine-tuning; if a recipe lists learning rates, one is chosen first."""


include: "functions/tuning.smk"


localrules:
    choose,
    narrow,
    choose_own,
    pin_model,
    take,


rule try_rate:
    """Fine-tune a checkpoint with one of the listed learning rates (seed 0) and measure the loss on held-out rows."""
    input:
        base=f"resources/bases/{BASE}/base.json",
        task=training_rows,
        text=replay_texts,
    output:
        f"results/trials/{TRIAL}/part.parquet",
    log:
        f"logs/try_rate/{TRIAL}.log",
    benchmark:
        f"results/benchmarks/try_rate/{TRIAL}.tsv"
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        **needs.asked(STUDY, needs.tuning),
        gpu=gpus,
    params:
        recipe=trial_recipe,
        prompts=tuning_prompts,
        folder=base_folder,
        state=f"resources/states/trials/{TRIAL}.safetensors",
        record=f"results/diverged/trials/{TRIAL}/part.parquet",
    script:
        "../workflow/scripts/try_rate.py"


checkpoint choose:
    """Choose the learning rate with the lowest loss on held-out rows."""
    input:
        trials=trial_parts,
    output:
        f"results/choices/{CHOICE}/part.parquet",
    log:
        f"logs/choose/{CHOICE}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        rates=rates,
        statistics=STUDY["statistics"],
    script:
        "../workflow/scripts/choose.py"


checkpoint narrow:
    """One round of the search for a base's own learning rate: what the trials so far say, and which rates to try next."""
    input:
        trials=round_trials,
    output:
        f"results/narrowing/{OWN_CHOICE}/round={{round}}/part.parquet",
    log:
        f"logs/narrow/{OWN_CHOICE}/round={{round}}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        rates=rates,
        statistics=STUDY["statistics"],
    script:
        "../workflow/scripts/narrow.py"


checkpoint choose_own:
    """Choose the learning rate of one base among those that its search tried."""
    input:
        trials=own_trials,
    output:
        f"results/own_choices/{OWN_CHOICE}/part.parquet",
    log:
        f"logs/choose_own/{OWN_CHOICE}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        rates=rates,
        statistics=STUDY["statistics"],
    script:
        "../workflow/scripts/choose.py"


rule tune:
    """Fine-tune a checkpoint on a task, with one prompt format, recipe and seed."""
    input:
        base=f"resources/bases/{BASE}/base.json",
        task=training_rows,
        text=replay_texts,
        choice=choice,
    output:
        model=weights(f"resources/models/{MODEL}"),
        checksums=checksums.place(pathlib.Path(f"resources/models/{MODEL}")),
        history=f"results/histories/{MODEL}/part.parquet",
    log:
        f"logs/tune/{MODEL}.log",
    benchmark:
        f"results/benchmarks/tune/{MODEL}.tsv"
    wildcard_constraints:
        recipe=TUNED_HERE,
    conda:
        "../envs/model.yaml"
    threads: 1
    resources:
        **needs.asked(STUDY, needs.tuning),
        gpu=gpus,
    params:
        recipe=recipe,
        prompts=tuning_prompts,
        folder=base_folder,
        state=f"resources/states/{MODEL}.safetensors",
        record=f"results/diverged/{MODEL}/part.parquet",
    script:
        "../workflow/scripts/tune.py"


rule pin_model:
    """Record the commit of a model on the hub that was tuned elsewhere, with the sizes and hashes of its files."""
    output:
        f"resources/pins/models/{MODEL}.json",
    log:
        f"logs/pin_model/{MODEL}.log",
    wildcard_constraints:
        recipe=TUNED_ELSEWHERE,
    conda:
        "../envs/model.yaml"
    params:
        source=adopted_source,
    script:
        "../workflow/scripts/pin_model.py"


rule take:
    """Check a model that was tuned elsewhere and put its files where those of the study's own models are."""
    input:
        base=f"resources/bases/{BASE}/base.json",
        pin=adopted_pin,
    output:
        model=weights(f"resources/models/{MODEL}"),
        checksums=checksums.place(pathlib.Path(f"resources/models/{MODEL}")),
        record=f"resources/adopted/{MODEL}.json",
    log:
        f"logs/take/{MODEL}.log",
    wildcard_constraints:
        recipe=TUNED_ELSEWHERE,
    conda:
        "../envs/model.yaml"
    params:
        folder=base_folder,
        place=adopted_folder,
        contents=adopted_contents,
        families=adopted_families,
    script:
        "../workflow/scripts/take.py"


rule merge:
    """Write a model with its LoRA adapters merged into the base, as a checkpoint that needs no PEFT."""
    input:
        base=f"resources/bases/{BASE}/base.json",
        model=finished_model,
    output:
        directory(f"resources/merged/{MODEL}"),
        checksums.place(pathlib.Path(f"resources/merged/{MODEL}")),
    log:
        f"logs/merge/{MODEL}.log",
    wildcard_constraints:
        recipe="(?!none/)[^/]+",
    conda:
        "../envs/model.yaml"
    params:
        folder=base_folder,
    script:
        "../workflow/scripts/merge.py"
