"""Prompts that differ from the suite's settings: cut, with fewer few-shot examples, or longer than the model's context."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from workflow.audit.inputs import TEST_KEYS, AuditInputs, finding, listed, span
from workflow.settings import Base

LIMIT = 0.05  # share of rows; above it a score is about other prompts by more than its interval covers

FLAWS = {
    "truncated": "lack the beginning of their input",
    "short": "have fewer few-shot examples than configured, the first ones cut",
    "long": "exceed the model's context together with the answer, and are read whole",
}


def check(material: AuditInputs) -> Iterator[dict[str, Any]]:
    """One finding for each test and flaw, of the model with the largest share: a warning above LIMIT, below it a note."""
    contexts = {(base["family"], base["step"]): _context(base) for base in material.bases()}
    columns = ("prompt_tokens", "shots_used", "truncated", "cut_tokens", "output_tokens", "candidate_tokens")
    table = pd.DataFrame([_read(test, contexts) for test in material.predictions(*columns)])
    for flaw, text in FLAWS.items():
        for _, rows in table[table[flaw] > 0].groupby(TEST_KEYS) if len(table) else ():
            worst = rows.loc[rows[flaw].idxmax()]
            share = float(worst[flaw])
            facts = f"{_tokens(worst[f'{flaw}_tokens'])}longest prompt read: {worst['longest']}"
            evidence = f"{share:.1%} of {worst['n']} prompts {text} ({facts} tokens)"
            yield finding(_severity(share), rows, evidence, value=share, limit=LIMIT, n=int(worst["n"]))
    unknown = sorted(f"{family} at step {step}" for (family, step), context in contexts.items() if context is None)
    if unknown and len(table):
        evidence = f"the context length of {listed(unknown)} is unknown, so whether prompts fit is not known"
        yield finding("note", table[["family"]], evidence, n=len(unknown))


def _tokens(counts: pd.Series) -> str:
    """The range of token counts that a flaw is about; nothing for older predictions without counts."""
    known = counts.dropna()
    return f"{span(known, '.0f')} tokens, median {known.median():.0f}; " if len(known) else ""


def _severity(share: float) -> str:
    return "warning" if share > LIMIT else "note"


def _context(base: Base) -> int | None:
    """The context length of a base by its config, in tokens; None where the folder or the entry is missing."""
    path = Path(base["path"]) / "config.json"
    return json.loads(path.read_text(encoding="utf-8")).get("max_position_embeddings") if path.is_file() else None


def _read(test: pd.DataFrame, contexts: dict[tuple[str, int], int | None]) -> dict[str, Any]:
    """One model on one test: the share of prompts with each flaw, and their token counts."""
    context = contexts.get((test["family"].iloc[0], test["step"].iloc[0]))
    answers = [max(tokens, default=0) for tokens in test["candidate_tokens"]]
    whole = test["prompt_tokens"] + test["output_tokens"].fillna(0) + answers
    beyond = whole - context if context else whole * 0
    rows = {
        "truncated": test["truncated"].astype(bool),
        "short": test["shots_used"] < test["shots"],
        "long": beyond > 0,
    }
    lost = {"truncated": test["cut_tokens"], "short": test["cut_tokens"], "long": beyond}
    return {key: test[key].iloc[0] for key in (*TEST_KEYS, "step", "train")} | {
        **{flaw: float(own.mean()) for flaw, own in rows.items()},
        **{f"{flaw}_tokens": lost[flaw][own].astype(float) for flaw, own in rows.items()},
        "longest": int(test["prompt_tokens"].max()),
        "n": len(test),
    }
