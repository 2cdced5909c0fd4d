"""Which candidates of a selection are fine-tuned."""


include: "functions/selection.smk"


localrules:
    decide,
    select,
    next,


wildcard_constraints:
    round=r"[1-9]\d*",


checkpoint decide:
    """Choose the candidates to fine-tune next from what is known, or end the selection. A round that chose is not made anew."""
    input:
        parts=round_parts,
    output:
        "results/selection/round={round}/part.parquet",
    log:
        "logs/decide/round={round}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        question=question,
        candidates=round_candidates,
        tuned=tuned_before,
    script:
        "../workflow/scripts/decide.py"


rule select:
    """Fine-tune one batch of candidates after the other, until the answer is settled or the budget is spent."""
    input:
        last_round,
    output:
        table="results/selection.parquet",
        markdown="results/selection.md",
    log:
        "logs/select.log",
    conda:
        "../envs/analysis.yaml"
    script:
        "../workflow/scripts/select.py"


rule next:
    """Show what a selection would fine-tune next, with prices and reasons; fine-tune nothing."""
    input:
        parts=known_parts,
    output:
        table="results/selection/next.parquet",
        markdown="results/selection/next.md",
    log:
        "logs/next.log",
    conda:
        "../envs/analysis.yaml"
    params:
        question=selection.fingerprint(STUDY) if STUDY["selection"] else None,
        candidates=NAMES,
        tuned=tuned_now(),
    script:
        "../workflow/scripts/next.py"
