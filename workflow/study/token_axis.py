"""Progress of pre-training on an axis that runs share: tokens if they are known, else steps.

Runs with different batch sizes have seen the same text at different steps. Tokens of a step come from a family's
`tokens_per_step` or table `tokens`, from names of revisions or folders, or from an import.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from workflow.models import checkpoints
from workflow.settings import Family, Study
from workflow.storage import tables
from workflow.study import families

Seen = Mapping[str, Mapping[int, float]]  # family -> step -> tokens

STEPS, TOKENS = "pre-training step", "pre-training tokens"
UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


# A step in a sentence, and the name of its family if it is beside it: `olmo at step 1000`, `step 1,000 of olmo`.
STEP = re.compile(
    r"(?:(?P<before>[a-z0-9_.-]+) at )?\bstep (?P<step>\d++(?:,\d{3})*+)(?! \(\d[.\d]*[KMBT]? tokens)"
    r"(?: of (?P<after>[a-z0-9_.-]*[a-z0-9]))?(?P<open> \()?"
)
NAMED = re.compile(r"(?<![a-z])tokens([0-9]+(?:\.[0-9]+)?[KMBT]?)(?![0-9A-Za-z])")


def named(name: str) -> float | None:
    """The tokens in the name of a revision or folder, such as `step1000-tokens4B`; None without any."""
    match = NAMED.search(name)
    return number(match[1]) if match else None


def number(text: str) -> float:
    """A number of tokens as names have it: 4B is 4e9."""
    sizes = {unit: size for size, unit in UNITS}
    return float(text.rstrip("KMBT")) * sizes.get(text[-1], 1.0)


def of_study(study: Study) -> dict[str, dict[int, float]]:
    """The tokens of the steps of a study's families, as far as the config or the names of folders have them."""
    return {name: tokens for name, family in study["families"].items() if (tokens := of_family(name, family))}


def of_family(name: str, family: Family) -> dict[int, float]:
    """The tokens of a family's steps: from `tokens_per_step`, the batches of a pre-training in the study, the table
    `tokens`, or names of folders.
    """
    steps = checkpoints.steps(name, family)
    if per_step := families.tokens_per_step(family):
        return {step: float(step * per_step) for step in steps}
    if "tokens" in family:
        table = {int(step): float(tokens) for step, tokens in family["tokens"].items()}
        return {step: float(at(table, step) or 0.0) for step in steps}
    there = {step: named(folder.name) for step in steps if (folder := checkpoints.folder(name, family, step))}
    return {step: tokens for step, tokens in there.items() if tokens is not None}


def with_tokens(table: pa.Table, known: Seen, pins: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Scores with the tokens of their steps, where they are known and missing.

    known: tokens of the study's families; pins: of bases on the hub (`hub.pin`), each with its `path`, whose revision may
    have the tokens.
    """
    known_tokens = {
        family: {int(step): float(tokens) for step, tokens in tokens_of_family.items()}
        for family, tokens_of_family in known.items()
    }
    for pin in pins:
        keys = tables.keys_of(pin["path"])
        tokens = named(str(pin.get("revision") or ""))
        if tokens is not None:
            known_tokens.setdefault(keys["family"], {}).setdefault(int(keys["step"]), tokens)
    rows = zip(*(table[name].to_pylist() for name in ("family", "step", "tokens")), strict=True)
    column = [known_tokens.get(family, {}).get(step) if stated is None else stated for family, step, stated in rows]
    index = table.column_names.index("tokens")
    return table.set_column(index, table.schema.field("tokens"), pa.array(column, pa.float64()))


def seen(scores: pd.DataFrame) -> dict[str, dict[int, float]]:
    """The tokens of each family's steps that the gathered scores contain."""
    if "tokens" not in scores:
        return {}
    known = scores[["family", "step", "tokens"]].dropna().drop_duplicates()
    known_tokens: dict[str, dict[int, float]] = {}
    for family, step, tokens in known.itertuples(index=False, name=None):
        known_tokens.setdefault(family, {})[int(step)] = float(tokens)
    return known_tokens


def at(tokens: Mapping[int, float], step: float) -> float | None:
    """The tokens at any step of a family, from its known steps; None if there are none.

    Between two known steps in proportion; beyond the last at the rate of the last two; before the first at the rate from 0.
    """
    if not tokens:
        return None
    known = {0: 0.0, **tokens}
    steps = np.array(sorted(known), dtype=float)
    values = np.array([known[int(step)] for step in steps])
    if len(steps) > 1 and step > steps[-1]:
        return float(values[-1] + (step - steps[-1]) * (values[-1] - values[-2]) / (steps[-1] - steps[-2]))
    return float(np.interp(step, steps, values))


@dataclass(frozen=True)
class Axis:
    """An axis that families share.

    tokens: of their steps; None for an axis of steps.
    """

    tokens: Seen | None

    @property
    def label(self) -> str:
        """Label of the axis."""
        return STEPS if self.tokens is None else TOKENS

    def place(self, family: str, step: float) -> float:
        """Position of a step on the axis."""
        return float(step) if self.tokens is None else float(at(self.tokens[family], step) or 0.0)


def axis(scores: pd.DataFrame, shown: pd.DataFrame) -> Axis:
    """The axis for some rows, columns family and step: tokens if they are known for each step."""
    tokens = seen(scores)
    there = {(family, step) for family, tokens_of_family in tokens.items() for step in tokens_of_family}
    steps = shown[["family", "step"]].drop_duplicates().itertuples(index=False, name=None)
    wanted = {(family, int(step)) for family, step in steps}
    return Axis(tokens if wanted and wanted <= there else None)


def amount(tokens: float) -> str:
    """A readable number of tokens: 2.1B, 300B."""
    for size, unit in UNITS:
        if tokens >= size:
            return f"{tokens / size:.3g}{unit}"
    return f"{tokens:.0f}"


def told(tokens: Seen, family: str, step: float) -> str:
    """A step in a sentence, with its tokens if they are known: `step 1000 (2.1B tokens)`."""
    number = at(tokens.get(family, {}), step)
    return f"step {step:.0f}" + ("" if number is None else f" ({amount(number)} tokens)")


def annotated(text: str, tokens: Seen, family: str | None) -> str:
    """A sentence whose steps have their tokens in brackets, each step where it is first named, as far as they are known.

    family: that the sentence is about, if it is about one; a family named beside a step comes first.
    """
    named_so_far: set[tuple[str | None, int]] = set()

    def with_tokens(match: re.Match[str]) -> str:
        step = int(match["step"].replace(",", ""))
        name = next((name for name in (match["before"], match["after"]) if name in tokens), family)
        count = at(tokens.get(name or "", {}), step)
        if count is None or (name, step) in named_so_far:
            return match[0]
        named_so_far.add((name, step))
        end = match.end("step") - match.start()
        words, rest = match[0][:end], match[0][end:]
        bracket = f" ({amount(count)} tokens"
        return f"{words}{bracket}; {rest[2:]}" if rest == " (" else f"{words}{bracket}){rest}"

    return STEP.sub(with_tokens, text)
