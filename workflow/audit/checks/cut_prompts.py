"""Prompts that differ from the suite's settings: cut, with fewer few-shot examples, or longer than the model's context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from workflow.audit.inputs import TEST_KEYS, AuditInputs, TestRows, finding, listed, span

READS = ("prompt_tokens", "shots_used", "truncated", "cut_tokens", "output_tokens", "candidate_tokens")
KEYS = (*TEST_KEYS, "step", "train")
LIMIT = 0.05  # share of rows; above it a score is about other prompts by more than its interval covers

FLAWS = {
    "truncated": "lack the beginning of their input",
    "short": "have fewer few-shot examples than configured, the first ones cut",
    "long": "exceed the model's context together with the answer, and are read whole",
}


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """One finding for each test and flaw, of the model with the largest share: a warning above LIMIT, below it a note."""
    rows = material.readings(__name__)
    table = pd.DataFrame(rows, columns=[*KEYS, *FLAWS, *(f"{flaw}_tokens" for flaw in FLAWS), "longest", "n"])
    for flaw, text in FLAWS.items():
        for _, rows in table[table[flaw] > 0].groupby(TEST_KEYS):
            worst = rows.loc[rows[flaw].idxmax()]
            share = float(worst[flaw])
            facts = f"{_tokens(worst[f'{flaw}_tokens'])}longest prompt read: {int(worst['longest'])}"
            evidence = f"{share:.1%} of {int(worst['n'])} prompts {text} ({facts} tokens)"
            yield finding(_severity(share), rows, evidence, value=share, limit=LIMIT, n=int(worst["n"]))
    unknown = sorted(
        f"{family} at step {step}" for (family, step), context in material.contexts.items() if context is None
    )
    if unknown and len(table):
        evidence = f"the context length of {listed(unknown)} is unknown, so whether prompts fit is not known"
        yield finding("note", table[["family"]], evidence, n=len(unknown))


def _tokens(counts: pd.Series) -> str:
    """The range of token counts that a flaw is about; nothing for older predictions without counts."""
    known = counts.dropna()
    return f"{span(known, '.0f')} tokens, median {known.median():.0f}; " if len(known) else ""


def _severity(share: float) -> str:
    return "warning" if share > LIMIT else "note"


def _suspect(test: TestRows, context: int | None) -> bool:
    """Whether any prompt may have a flaw, judged by the longest prompt and answer: most tests have none."""
    lengths = (test["prompt_tokens"], test["output_tokens"], np.concatenate(list(test["candidate_tokens"])))
    longest = sum(float(np.nanmax(tokens, initial=0)) for tokens in lengths)
    long = context is not None and longest > context
    return long or bool(test["truncated"].any()) or bool((test["shots_used"] < test.keys["shots"]).any())


def read(test: TestRows, material: AuditInputs) -> dict[str, Any]:
    """One model on one test: the share of prompts with each flaw, and their token counts; of a test without flaws its family."""
    keys = test.keys
    context = material.contexts.get((keys["family"], keys["step"]))
    if not _suspect(test, context):
        return {"family": keys["family"]}
    rows = test.rows
    answers = rows["candidate_tokens"].map(lambda tokens: max(tokens, default=0)).to_numpy()
    whole = rows["prompt_tokens"] + rows["output_tokens"].fillna(0) + answers
    beyond = whole - context if context else whole * 0
    flawed = {
        "truncated": rows["truncated"].astype(bool),
        "short": rows["shots_used"] < keys["shots"],
        "long": beyond > 0,
    }
    if not any(affected.any() for affected in flawed.values()):
        return {"family": keys["family"]}
    lost = {"truncated": rows["cut_tokens"], "short": rows["cut_tokens"], "long": beyond}
    return {key: keys[key] for key in KEYS} | {
        **{flaw: float(affected.mean()) for flaw, affected in flawed.items()},
        **{f"{flaw}_tokens": lost[flaw][affected].astype(float) for flaw, affected in flawed.items()},
        "longest": int(rows["prompt_tokens"].max()),
        "n": len(rows),
    }
