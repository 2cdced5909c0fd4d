"""Read evaluation results that already exist into the tables of a study."""

from workflow.jobs import job

from pathlib import Path

from workflow import adopting, grid, released, tables

with job("adopt", snakemake) as log:
    asked, name = snakemake.params, snakemake.wildcards.released
    block, place = asked.released | {"path": str(asked.folder)}, f"config.yaml: imports/{name}/rename"
    reader, root = grid.reader(block), asked.root and str(asked.root)
    if hasattr(reader, "FILES"):
        folder = released.place_of(block, root)
        found = adopting.Adopted(list(adopting.described(reader.read(folder))), [], [], {})
    else:
        found = adopting.adopted(block, reader, block.get("suite", block["reader"]), root)
    scores = grid.renamed(place, found.scores, block["rename"], asked.families)
    scores = adopting.with_tokens(scores, block.get("tokens_per_step"))
    items, listed = (grid.with_names(rows, block["rename"]) for rows in (found.items, found.files))
    log.info("%d scores and %d rows of %d files from %s", len(scores), len(items), len(listed), grid.cited(block))
    schema = tables.pa.schema([*tables.KEYS, *tables.SCORES])
    tables.write(scores, schema, Path(snakemake.output.scores), source=grid.cited(block), fields=found.fields)
    tables.write(items, tables.pa.schema([*tables.KEYS, *tables.ITEMS]), Path(snakemake.output.rows))
    tables.write(listed, tables.RELEASED, Path(snakemake.output.files))
