"""From scores to tables, analyses and figures."""


rule gather:
    """Gather the parts of a table into one, keys as columns."""
    input:
        table_parts,
    output:
        "results/{table}.parquet",
    log:
        "logs/gather/{table}.log",
    conda:
        "../envs/analysis.yaml"
    script:
        "../workflow/scripts/gather.py"


rule analyse:
    """Make one analysis of all scored rows."""
    input:
        rows=parts("items", grid.CELL_KEYS, CELLS),
        module=f"{PACKAGE}/analyses/{{analysis}}.py",
        shared=[f"{PACKAGE}/comparison.py", f"{PACKAGE}/statistics.py"],
    output:
        "results/analyses/analysis={analysis}/part.parquet",
    log:
        "logs/analyse/{analysis}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        groups=STUDY["groups"],
        statistics=STUDY["statistics"],
    script:
        "../workflow/scripts/analyse.py"


rule draw:
    """Draw one figure, as PDF and PNG."""
    input:
        scores="results/scores.parquet",
        analysis="results/analysis.parquet",
        module=f"{PACKAGE}/figures/{{figure}}.py",
        shared=f"{PACKAGE}/drawing.py",
        style=f"{PACKAGE}/figures/style.mplstyle",
    output:
        pdf="results/figures/{figure}.pdf",
        png="results/figures/{figure}.png",
    log:
        "logs/draw/{figure}.log",
    conda:
        "../envs/analysis.yaml"
    script:
        "../workflow/scripts/draw.py"
