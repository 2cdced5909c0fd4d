"""The cost of a study, and what a run prints."""


include: "functions/planning.smk"


localrules:
    estimate,


rule estimate:
    """Print the estimated cost of a study before it runs: jobs, GPU-hours, disk space."""
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
