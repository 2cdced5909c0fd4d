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
        parts=table_parts,
        pins=token_pins,
    output:
        "results/{table}.parquet",
    log:
        "logs/gather/{table}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        table="{table}",
        tokens=tokens_seen,
    script:
        "../workflow/scripts/gather.py"


rule slice:
    """Gather the scores of one slice of a study: a task tuned on, untouched bases beside it, on one suite."""
    input:
        parts=slice_parts,
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
    output:
        "results/analyses/analysis={analysis}/part.parquet",
    log:
        "logs/analyse/{analysis}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        groups=STUDY["groups"],
        statistics=STUDY["statistics"],
        code=analysis_code,
    script:
        "../workflow/scripts/analyse.py"


rule draw:
    """Draw one figure, as PDF and PNG."""
    input:
        scores="results/scores.parquet",
        analysis="results/analysis.parquet",
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
    """Make one table of a study, as CSV in full precision and as Markdown to read."""
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
        code=contents.of_code(
            "auditing", *(f"audits/{check}" for check in grid.modules(audits))
        ),
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
        code=contents.of_code("recommending", "luck", "comparison", "statistics"),
    script:
        "../workflow/scripts/recommend.py"


rule find:
    """State in words what the tables show, by fixed rules."""
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
        targets=assembly.questions(STUDY),
        code=contents.of_code(
            "findings/__init__",
            *(f"findings/{kind}" for kind in grid.modules(findings)),
        ),
    script:
        "../workflow/scripts/find.py"


rule present:
    """Make the pages of the report: findings, figures with captions, tables that sort."""
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
        code=contents.of_code(
            "report/pages",
            "report/presenting",
            "report/description",
            "report/page.css",
            "report/page.js",
        ),
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
