"""Which library multiplies fp32 matrices faster on this CPU: measured once on a machine, then read from the user's cache.

Torch multiplies with MKL on x86 and has oneDNN for other purposes, which sums in fp32 as well. Which of them is faster
depends on the CPU and on the number of rows: on an AMD EPYC with AVX-512 oneDNN is 2.2 times as fast from 64 rows on, on
one without AVX-512 it is slower below 256 rows. Results of both agree up to rounding. The choice is in the log of each
job that makes one. It is kept, so that jobs on one machine compute alike.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import hashlib
import itertools
import json
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workflow.errors import StudyError
from workflow.jobs import cpu
from workflow.storage import files

ROWS = (1, 8, 64, 512)  # numbers of rows whose products are timed
SIZE = 512  # of the square matrix that they are multiplied by
ROUNDS = 5
GAIN = 1.1  # oneDNN is used where it is this many times as fast, since other results than torch's own need a reason
LAID_OUT_FOR = 256  # rows of a product; the layout suits more and fewer rows equally well
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")  # instructions that a library may use
BETWEEN = [math.sqrt(few * many) for few, many in itertools.pairwise(ROWS)]

Product = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Rates:
    """Operations in a second at each of ROWS: of torch's own library, of oneDNN, and of oneDNN with weights laid out for it."""

    own: tuple[float, ...]
    onednn: tuple[float, ...]
    laid_out: tuple[float, ...]

    def suits(self, rows: int) -> bool:
        """Whether oneDNN is faster for products of some rows, with weights as they are."""
        return self._faster(self.onednn, rows)

    def suits_laid_out(self, rows: int) -> bool:
        """The same for weights that are laid out for it."""
        return self._faster(self.laid_out, rows)

    def _faster(self, rates: Sequence[float], rows: int) -> bool:
        nearest = bisect.bisect(BETWEEN, rows)
        return rates[nearest] >= GAIN * self.own[nearest]

    @property
    def worth_laying_out(self) -> bool:
        """Whether laid-out weights are faster for any number of rows."""
        return any(map(self.suits_laid_out, ROWS))


NEVER = Rates(*[(math.inf,) * len(ROWS)] + [(0.0,) * len(ROWS)] * 2)  # where torch has no oneDNN


@functools.cache
def rates() -> Rates:
    """The rates of this machine, measured if its cache has none; said in the log."""
    if not torch.backends.mkldnn.is_available():
        return NEVER
    path = cache() / f"products-{_machine()}.json"
    found = _kept(path)
    if found is None:
        found = measured()
        _keep(found, path)
    logging.getLogger("tunecast").info("%s", told(found))
    return found


def cache() -> Path:
    """The folder in which Tunecast keeps what it has measured: `$XDG_CACHE_HOME/tunecast`, by default `~/.cache/tunecast`."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path(os.path.expanduser("~"), ".cache")) / "tunecast"


def _keep(found: Rates, path: Path) -> None:
    """Write rates to the cache. Where that cannot be written, each job measures."""
    content = {"cpu": cpu.name(), "torch": torch.__version__, "rows": ROWS, **vars(found)}
    if path.is_absolute():  # else the user has no home
        with contextlib.suppress(StudyError, OSError), files.whole(path, sealed=False) as unfinished:
            unfinished.write_text(files.dumped(content), encoding="utf-8")


def measured(clock: Callable[[], float] = time.thread_time) -> Rates:
    """Time products of both libraries in turns on one thread, by its CPU time, and take the fastest of each: .2 s."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            at = [_timed(torch.full((rows, SIZE), 0.5), clock) for rows in ROWS]
    finally:
        torch.set_num_threads(threads)
    return Rates(*(tuple(rate) for rate in zip(*at, strict=True)))


def _timed(rows: torch.Tensor, clock: Callable[[], float]) -> list[float]:
    """Rates of the three ways for some rows."""
    weight = torch.full((SIZE, SIZE), 0.5)
    laid_out = lay_out(weight)
    ways: list[Product] = [
        lambda given: torch.nn.functional.linear(given, weight),
        lambda given: product(given, weight),
        lambda given: product(given, laid_out),
    ]
    times = max(1, ROWS[-1] // len(rows))
    seconds = [math.inf] * len(ways)
    for number, (place, way) in ((number, entry) for number in range(ROUNDS + 1) for entry in enumerate(ways)):
        begun = clock()
        for _ in range(times):
            way(rows)
        if number:  # the first time, libraries prepare
            seconds[place] = min(seconds[place], clock() - begun)
    return [2 * times * rows.numel() * SIZE / max(taken, 1e-9) for taken in seconds]


def product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return a (..., k) times the transpose of b (n, k), plus bias (n), by oneDNN: (..., n). Without autograd."""
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")


def lay_out(weight: torch.Tensor) -> torch.Tensor:
    """A copy of a weight in the order in which oneDNN reads it fastest, for `product`."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, LAID_OUT_FOR)


def told(found: Rates) -> str:
    """A line on the rates and on what is chosen."""
    own = "MKL" if torch.backends.mkl.is_available() else "torch's own"
    ways = {own: found.own, "oneDNN": found.onednn, "oneDNN, weights laid out": found.laid_out}
    parts = [f"{name} {' / '.join(f'{rate / 1e9:.0f}' for rate in rates)}" for name, rates in ways.items()]
    counts = " / ".join(map(str, ROWS))
    chosen = " / ".join("oneDNN" if found.suits_laid_out(rows) else own for rows in ROWS)
    trained = " / ".join("oneDNN" if found.suits(rows) else own for rows in ROWS)
    return f"fp32 products of {counts} rows: {chosen}, in training {trained} (GFLOP/s: {'; '.join(parts)})"


def _machine() -> str:
    """A hash of what the rates depend on: the CPU and the libraries."""
    limits = [os.environ.get(name) for name in LIMITS]
    known = [cpu.name(), sorted(cpu.flags()), limits, torch.__version__, torch.__config__.show(), ROWS, SIZE]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


def _kept(path: Path) -> Rates | None:
    """The rates in a file of the cache; None if it is missing or not whole."""
    try:
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = Rates(*(tuple(map(float, known[name])) for name in ("own", "onednn", "laid_out")))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    whole = all(len(rates) == len(ROWS) and all(rate > 0 for rate in rates) for rates in vars(found).values())
    return found if whole else None
