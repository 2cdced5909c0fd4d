"""Write the tables of a cohort's forecasters, as CSV in full precision and as Markdown."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.forecasting import leaderboards, results

with job("tabulate", snakemake) as log:
    name, block = snakemake.wildcards.cohort, snakemake.params.cohort
    (result,) = results.load({name: block}, *map(Path, snakemake.input.gathered))
    for made, (csv, markdown) in zip(
        leaderboards.TABLES.values(), zip(*[iter(snakemake.output)] * 2, strict=True), strict=True
    ):
        table = made(result)
        log.info("%s: %d rows", csv, len(table))
        leaderboards.write(table, Path(csv), Path(markdown))
