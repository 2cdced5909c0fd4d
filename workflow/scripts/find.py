"""Write findings: sentences made from a study's tables by fixed rules."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.report import findings, presenting
from workflow.storage import tables

with job("find", snakemake) as log:
    read = presenting.read([Path(path) for path in snakemake.input.tables])
    asked = snakemake.params
    material = findings.FindingTables(read, asked.level, asked.groups, asked.targets, asked.cohorts, asked.rate_twins)
    rows = findings.all_findings(material, read["audit"])
    log.info("%d findings", len(rows))
    tables.write(rows, tables.FINDINGS, Path(snakemake.output[0]))
