"""Check a model that was tuned elsewhere and lay it out like those that the study tunes."""

from workflow.jobs.job import job

from pathlib import Path

from workflow.models import checkpoints, tuned_elsewhere
from workflow.storage import files, hub

with job("take", snakemake) as log:
    asked, keys = snakemake.params, dict(snakemake.wildcards.items())
    base = checkpoints.read_base(snakemake.input.base, asked.folder)
    pinned = hub.read_pin(snakemake.input.pin[0]) if snakemake.input.pin else None
    place = hub.fetched(pinned)[0] if pinned else asked.place
    tuned_elsewhere.check(place)
    if tuned_elsewhere.is_adapter(place):
        settings = tuned_elsewhere.check_settings(place / checkpoints.ADAPTER)
        tied = keys["family"], int(keys["step"])
        tuned_elsewhere.check_base(str(place / checkpoints.ADAPTER), settings, tied, asked.families)
    source = {"repo": pinned["repo"], "revision": pinned["commit"]} if pinned else {"folder": place.name}
    taken = tuned_elsewhere.take(place, base, Path(snakemake.output.model), {**keys, "adopted": source})
    log.info(
        "%s from %s: %d files", "adapters" if tuned_elsewhere.is_adapter(place) else "full weights", place, len(taken)
    )
    record = {
        "files": {path.name: checkpoints.fingerprint(path) for path in taken},
        "contents": asked.contents,
        "remarks": tuned_elsewhere.remarks(place, base, asked.families),
        "dates": {path.name: path.stat().st_mtime_ns for path in taken},
    }
    files.write_json(record, Path(snakemake.output.record))
