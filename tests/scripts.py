"""A rule's script with the job that Snakemake would give it, run in this process: what a job does, without its start."""

from __future__ import annotations

import contextlib
import io
import logging
import runpy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params, ResourceList, Snakemake, Wildcards

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Job:
    """A job of a rule; its paths start at the study's folder. input: names with files, or files alone."""

    rule: str
    output: Mapping[str, str] | Sequence[str]
    input: Mapping[str, Any] | Sequence[str] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    wildcards: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """Its log."""
        return Path("logs") / f"{self.rule}.log"

    @property
    def outputs(self) -> list[Path]:
        """What it makes."""
        return [Path(path) for path in (self.output.values() if isinstance(self.output, Mapping) else self.output)]

    def run(self) -> str | None:
        """Run the script in the study's folder, which is the working directory; returns the line of a failure."""
        for path in self.outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
        given = Snakemake(
            _listed(InputFiles, self.input), _listed(OutputFiles, self.output), Params(fromdict=dict(self.params)),
            Wildcards(fromdict=dict(self.wildcards)), 1, ResourceList(fromdict=dict(self.resources)),
            Log([str(self.log)]), dict(self.config), self.rule, None,
        )  # fmt: skip
        root, raising = logging.getLogger(), logging.raiseExceptions
        handlers, level = list(root.handlers), root.level
        try:
            with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()) as told:
                runpy.run_path(str(ROOT / "workflow/scripts" / f"{self.rule}.py"), {"snakemake": given})
        except SystemExit as ended:
            assert ended.code == 1
            return told.getvalue().removesuffix("\n")
        finally:
            # What `job.job` sets for a process of its own.
            logging.captureWarnings(False)
            logging.raiseExceptions = raising
            root.handlers, root.level = handlers, level
        return None


def _listed(kind: type, files: Mapping[str, Any] | Sequence[str]) -> Any:
    """Files as a script sees them, by name or by place; a name may stand for several."""
    if not isinstance(files, Mapping):
        return kind(list(files))
    listed = kind()
    for name, found in files.items():
        start = len(listed)
        if isinstance(found, str):
            listed.append(found)
            listed._set_name(name, start)
        else:
            listed.extend(found)
            listed._set_name(name, start, end=len(listed))
    return listed
