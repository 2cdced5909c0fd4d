"""`python -m benchmarks.gpu`: run what is left, print the table."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import gpu
from benchmarks.gpu import parts, running


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 when everything has run and nothing failed, 3 when the same command has more to do, 1 for failures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=gpu.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results/gpu.jsonl"), help="file that results are added to"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PART", help=", ".join(part.name for part in parts.PARTS)
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end in good order within so many")
    parser.add_argument("--wheels", type=Path, help="folder with wheels of packages that this Python lacks")
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], help="cpu: small models stand in; the default is a GPU if any"
    )
    parser.add_argument("--table", action="store_true", help="print the last device's table and run nothing")
    options = parser.parse_args(arguments)
    chosen, results = parts.chosen(options.only), options.results.resolve()
    wheels = options.wheels.resolve() if options.wheels else None
    if options.table:
        print(_table(chosen, results, "", wheels))
        return 0
    deadline = time.monotonic() + 60 * options.minutes
    device = options.device or running.at_hand()
    results.parent.mkdir(parents=True, exist_ok=True)
    done = running.run(chosen, results, device, deadline, wheels)
    found = running.read(results)
    print("\n" + _table(chosen, results, device, wheels), flush=True)
    if not done:
        print("\nThere is more to do: the same command goes on.")
        return 3
    known = running.latest(found, running.facts(device))
    return int(any(known[part.name, cell]["state"] != "ok" for part in chosen for cell in part.cells))


def _table(chosen: Sequence[running.Part], results: Path, device: str, wheels: Path | None) -> str:
    """The report, made where the wheels' packages are: it reckons with the study's config, which needs one of them."""
    with running.brought(wheels) as environment:
        command = [sys.executable, "-m", "benchmarks.gpu.table", str(results), device, *(part.name for part in chosen)]
        ended = subprocess.run(command, cwd=running.ROOT, env=environment, capture_output=True, text=True)
    return (ended.stdout + ended.stderr).rstrip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
