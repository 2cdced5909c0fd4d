"""A Snakemake that has started once and forks for each run, which saves each of them a second of imports.

Run as a program it reads a line of JSON for each run (the arguments of `become`) and writes a line with its exit code. Only
packages are imported ahead: the workflow's code is that of the run's place, read anew. `running.command` is the start that
users have; whatever kills, stops or watches a run takes that one.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from pathlib import Path

from snakemake.cli import get_argument_parser, main

AHEAD = (
    "jsonschema",
    "pandas",
    "pyarrow.parquet",
    "scipy.special",
    "smart_open",
)  # most of what takes a start its time


def serve() -> None:
    """Fork for each line until there is none left; a fork goes on as Snakemake."""
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            become(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def become(folder: str, arguments: list[str], output: str, errors: str) -> None:
    """Be `python -m snakemake` with these arguments in a folder; output and errors: files for what it prints."""
    for number, path in enumerate((os.devnull, output, errors)):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    sys.path[0] = folder
    sys.argv = [str(Path(sys.modules["snakemake"].__file__).with_name("__main__.py")), *arguments]
    sys.exit(main())


if __name__ == "__main__":
    for name in AHEAD:
        importlib.import_module(name)
    get_argument_parser()  # imports Snakemake's plugins
    gc.freeze()
    serve()
