"""Check a study's results for known flaws."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.audit import inputs
from workflow.forecasting import results
from workflow.storage import tables

with job("audit", snakemake) as log:
    found = snakemake.input
    paths = {name: [Path(path) for path in found[name]] for name in ("predictions", "bases", "tasks")}
    material = inputs.AuditInputs(
        tables.read(found.scores),
        tables.read(found.analysis),
        paths["predictions"],
        paths["bases"],
        paths["tasks"],
        snakemake.params.groups,
        results.load(snakemake.params.cohorts, *map(Path, found.forecasting)) if found.forecasting else (),
        tables.read(Path(found.indicators[0])) if found.indicators else None,
        snakemake.params.indicators,
        snakemake.params.holes,
        tables.frame(tables.gather([Path(path) for path in found.released], [], tables.RELEASED)),
    )
    rows = inputs.findings(material)
    for row in rows:
        place = " ".join(f"{key}={row[key]}" for key in ("cohort", *inputs.KEYS) if key in row)
        log.info("%s %s %s: %s", row["severity"], row["check"], place, row["evidence"])
    tables.write(rows, tables.AUDIT, Path(snakemake.output[0]))
