"""What a study costs before it has run; what a run has before it, and what failed in it."""


include: "functions/planning.smk"


localrules:
    estimate,


rule estimate:
    """Reckon what the study costs before it has run: jobs, GPU-hours, disk."""
    input:
        PREPARED,
    output:
        "results/estimate.csv",
    log:
        "logs/estimate.log",
    conda:
        "../envs/model.yaml"
    params:
        study=STUDY,
    script:
        "../workflow/scripts/estimate.py"
