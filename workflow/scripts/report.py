"""Write the report of a finished study to one self-contained HTML file."""

from workflow.jobs.job import job

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from workflow.errors import StudyError

with job("report", snakemake) as log, tempfile.TemporaryDirectory() as folder:
    config = Path(folder) / "config.yaml"
    config.write_text(yaml.safe_dump(dict(snakemake.config)), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--snakefile", snakemake.params.snakefile]
    command += [
        "--replace-workflow-config",
        "--configfile",
        str(config),
        "--nolock",
    ]  # the calling run holds the lock
    command += ["--report", snakemake.output[0]]
    ended = subprocess.run(command, capture_output=True, text=True)
    log.info("%s", ended.stderr)
    if ended.returncode:
        told = ended.stderr.strip().splitlines() or [
            f"snakemake --report exited with code {ended.returncode} and no message"
        ]
        raise StudyError(told[-1])
