"""Tables, analyses, audit and recommendations."""


include: "functions/analysis.smk"


localrules:
    gather,
    slice,
    analyse,
    audit,
    recommend,


wildcard_constraints:
    table="scores|items|histories|indicators|analysis|choices|own_choices|pairs|forecasts|rankings|importance",


rule gather:
    """Gather the parts of a table into one file, with the keys of their paths as columns."""
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
    """Gather the scores of one slice of a study: one training task and the untouched bases, on one suite."""
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
    """Run one analysis."""
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
        averaged=[
            name
            for name, family in STUDY["families"].items()
            if family["source"] == "merged"
        ],
        code=analysis_code,
    script:
        "../workflow/scripts/analyse.py"


rule audit:
    """Check the results for what makes them misleading."""
    input:
        scores="results/scores.parquet",
        analysis="results/analysis.parquet",
        predictions=parts("predictions", grid.PART_KEYS, PARTS),
        bases=MANIFESTS,
        tasks=PREPARED,
        released=IMPORTED_FILES,
        adopted=ADOPTED_RECORDS,
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
        code=content_hashes.of_code(
            "audit/inputs",
            *(
                source
                for check in registry.modules(checks)
                for source in registry.sources(checks, check)
            ),
        ),
    script:
        "../workflow/scripts/audit.py"


rule recommend:
    """Recommend a base for each task, with probabilities and the regret of picking by an indicator."""
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
        targets=own_cohort.questions(STUDY),
        not_chosen=NOT_CHOSEN,
        benchmarks=BENCHMARKS,
        code=content_hashes.of_code(
            "analysis/recommendation",
            "analysis/best_base",
            "analysis/seed_variance",
            "analysis/evidence",
            "analysis/scored_rows",
            "statistics",
            "storage/markdown",
        ),
    script:
        "../workflow/scripts/recommend.py"
