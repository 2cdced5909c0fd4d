"""Make one table of forecasters to read, as CSV in full precision and as Markdown."""

from workflow.jobs import job

from pathlib import Path

from workflow import files, summaries
from workflow.forecasting import leaderboards, results

with job("tabulate", snakemake) as log:
    made = leaderboards.tables("printed" in snakemake.params.variants)[snakemake.wildcards.leaderboard]
    table = made(results.load(snakemake.params.variants, *map(Path, snakemake.input.gathered)))
    log.info("%d rows", len(table))
    files.write_text(table.to_csv(index=False), Path(snakemake.output.csv))
    text = summaries.markdown(leaderboards.readable(table))
    files.write_text(text, Path(snakemake.output.markdown))
