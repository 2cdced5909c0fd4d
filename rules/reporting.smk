"""From scores to tables, analyses and figures."""


localrules:
    gather,
    slice,
    analyse,
    draw,
    summarise,
    recommend,
    audit,
    find,
    present,
    report,
    estimate,


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
    params:
        table="{table}",
    script:
        "../workflow/scripts/gather.py"


rule slice:
    """Gather the scores of one slice of a study: a task tuned on, untouched bases beside it, on one suite."""
    input:
        slice_parts,
    output:
        "results/slices/train={train}/suite={suite}/scores.parquet",
    log:
        "logs/slice/train={train}/suite={suite}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        table="scores",
    script:
        "../workflow/scripts/gather.py"


rule analyse:
    """Make one analysis of all scored rows."""
    input:
        rows="results/items.parquet",
        imported=IMPORTED,
        module=f"{PACKAGE}/analyses/{{analysis}}.py",
        shared=[
            f"{PACKAGE}/{name}.py"
            for name in (
                "comparison",
                "curves",
                "declines",
                "extrapolation",
                "laws",
                "statistics",
            )
        ],
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
    params:
        overlays=STUDY["overlays"],
    script:
        "../workflow/scripts/draw.py"


rule summarise:
    """Make one table of a study, as CSV in full precision and as Markdown to read."""
    input:
        scores="results/scores.parquet",
        analysis="results/analysis.parquet",
        bases=MANIFESTS,
        tasks=PREPARED,
        module=f"{PACKAGE}/summaries/{{summary}}.py",
        shared=f"{PACKAGE}/summaries/__init__.py",
    output:
        csv="results/tables/{summary}.csv",
        markdown="results/tables/{summary}.md",
    log:
        "logs/summarise/{summary}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        study=summary_settings,
    script:
        "../workflow/scripts/summarise.py"


rule audit:
    """Look for what makes a study's results untrustworthy."""
    input:
        scores="results/scores.parquet",
        analysis="results/analysis.parquet",
        predictions=parts("predictions", grid.PART_KEYS, PARTS),
        bases=MANIFESTS,
        tasks=PREPARED,
        released=IMPORTED_FILES,
        forecasting=FORECASTED,
        indicators=INDICATORS,
        modules=expand(f"{PACKAGE}/audits/{{check}}.py", check=grid.modules(audits)),
        shared=f"{PACKAGE}/auditing.py",
    output:
        "results/audit.parquet",
    log:
        "logs/audit.log",
    conda:
        "../envs/analysis.yaml"
    params:
        groups=STUDY["groups"],
        cohorts=COHORTS,
        indicators=STUDY["indicators"],
        holes=HOLES,
    script:
        "../workflow/scripts/audit.py"


rule recommend:
    """Answer which base to tune for each task: scores, chances, regrets of picking by an indicator, in words."""
    input:
        rows="results/items.parquet",
        imported=IMPORTED,
        scores="results/scores.parquet",
        analysis="results/analysis.parquet",
        indicators=INDICATORS,
        modules=[
            f"{PACKAGE}/{name}.py"
            for name in ("recommending", "luck", "comparison", "statistics")
        ],
    output:
        table="results/recommendations.parquet",
        csv="results/tables/recommendations.csv",
        markdown="results/tables/recommendations.md",
    log:
        "logs/recommend.log",
    conda:
        "../envs/analysis.yaml"
    params:
        statistics=STUDY["statistics"],
        regret=STUDY["recommend"]["regret"],
        indicators=STUDY["indicators"],
        targets=assembly.questions(STUDY),
        benchmarks=BENCHMARKS,
    script:
        "../workflow/scripts/recommend.py"


rule find:
    """State in words what the tables show, by fixed rules."""
    input:
        tables=TABLES,
        modules=expand(f"{PACKAGE}/findings/{{kind}}.py", kind=grid.modules(findings)),
        shared=f"{PACKAGE}/findings/__init__.py",
    output:
        "results/findings.parquet",
    log:
        "logs/find.log",
    conda:
        "../envs/analysis.yaml"
    params:
        level=STUDY["statistics"]["level"],
        groups=STUDY["groups"],
    script:
        "../workflow/scripts/find.py"


rule present:
    """Make the pages of the report: findings, figures with captions, tables that sort."""
    input:
        tables=["results/findings.parquet", TABLES, SUMMARISED],
        figures=expand("results/figures/{figure}.png", figure=STUDY["figures"]),
        vector=expand("results/figures/{figure}.pdf", figure=STUDY["figures"]),
        shared=[
            f"{PACKAGE}/{name}"
            for name in (
                "report/pages.py",
                "report/presenting.py",
                "report/description.py",
                "report/page.css",
                "report/page.js",
            )
        ],
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
    script:
        "../workflow/scripts/present.py"


rule report:
    """Make the report of a study that has run: one HTML file that answers without a terminal, results/report.html."""
    input:
        rules.present.output,
    output:
        "results/report.html",
    log:
        "logs/report.log",
    conda:
        "../envs/analysis.yaml"
    params:
        snakefile=os.path.relpath(workflow.main_snakefile),
    script:
        "../workflow/scripts/report.py"


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
