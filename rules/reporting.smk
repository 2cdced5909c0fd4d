"""Figures, tables, findings and the report."""


include: "functions/reporting.smk"


localrules:
    draw,
    summarise,
    find,
    present,
    page,
    report,


ruleorder: tabulate > compare > recommend > summarise


wildcard_constraints:
    summary="[^/]+",


rule draw:
    """Draw one figure, as PDF and PNG."""
    input:
        scores="results/scores.parquet",
        analysis="results/analysis.parquet",
        further=figure_tables,
    output:
        pdf="results/figures/{figure}.pdf",
        png="results/figures/{figure}.png",
    log:
        "logs/draw/{figure}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        overlays=STUDY["overlays"],
        code=figure_code,
    script:
        "../workflow/scripts/draw.py"


rule summarise:
    """Write one table of a study, as CSV in full precision and as Markdown."""
    input:
        scores="results/scores.parquet",
        analysis="results/analysis.parquet",
        bases=MANIFESTS,
        tasks=PREPARED,
    output:
        csv="results/tables/{summary}.csv",
        markdown="results/tables/{summary}.md",
    log:
        "logs/summarise/{summary}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        study=summary_settings,
        code=summary_code,
    script:
        "../workflow/scripts/summarise.py"


rule find:
    """Write the findings: sentences made from the tables by fixed rules."""
    input:
        tables=TABLES,
    output:
        "results/findings.parquet",
    log:
        "logs/find.log",
    conda:
        "../envs/analysis.yaml"
    params:
        level=STUDY["statistics"]["level"],
        groups=STUDY["groups"],
        targets=own_cohort.targets(STUDY),
        cohorts=own_cohort.names(STUDY),
        rate_twins=grid.rate_twins(STUDY),
        code=content_hashes.of_code(
            "report/findings/__init__",
            "report/selection",
            *(f"report/findings/{kind}" for kind in registry.modules(findings)),
        ),
    script:
        "../workflow/scripts/find.py"


rule present:
    """Make the pages of the report: findings, figures with captions, sortable tables."""
    input:
        tables=["results/findings.parquet", TABLES, SUMMARISED],
        figures=expand("results/figures/{figure}.png", figure=STUDY["figures"]),
        vector=expand("results/figures/{figure}.pdf", figure=STUDY["figures"]),
    output:
        pages=report(
            directory("results/pages"),
            patterns=["{chapter}/{page}.html"],
            category="{chapter}",
            labels={"page": "{page}"},
            caption="../workflow/report/caption.rst",
        ),
        captions="results/captions.rst",
        description="results/description.rst",
    log:
        "logs/present.log",
    conda:
        "../envs/analysis.yaml"
    params:
        study=files.portable(STUDY),  # a report shows the parameters of what made it
        captions=pathlib.Path("results/captions.rst"),
        code=content_hashes.of_code(
            "report/pages",
            "report/presenting",
            "report/description",
            "report/page.css",
            "report/page.js",
        ),
    script:
        "../workflow/scripts/present.py"


rule page:
    """Write the page that answers: results/report.html, one file that opens without a network."""

    # Predictions, scored rows and prompts of a few models are read as well: they exist where the scores do.
    input:
        tables=PAGE_TABLES,
    output:
        "results/report.html",
    log:
        "logs/page.log",
    conda:
        "../envs/analysis.yaml"
    params:
        study=files.portable(STUDY),
        parameters=known_parameters(),
        code=page_code(),
    script:
        "../workflow/scripts/page.py"


rule report:
    """Write results/report.html, and Snakemake's archive of the run, results/archive.html."""
    input:
        rules.present.output,
        rules.page.output,
    output:
        "results/archive.html",
    log:
        "logs/report.log",
    conda:
        "../envs/analysis.yaml"
    params:
        snakefile=os.path.relpath(workflow.main_snakefile),
    script:
        "../workflow/scripts/report.py"
