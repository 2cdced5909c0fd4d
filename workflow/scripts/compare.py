"""Compare published numbers of a cohort with those of this study."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.forecasting import leaderboards, results

with job("compare", snakemake) as log:
    name, block = snakemake.wildcards.cohort, snakemake.params.cohort
    (result,) = results.load({name: block}, *map(Path, snakemake.input.gathered))
    log.info("%d of %d follow", result.comparison["follows"].sum(), len(result.comparison))
    leaderboards.write(result.comparison, Path(snakemake.output.csv), Path(snakemake.output.markdown))
