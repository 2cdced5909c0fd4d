"""Prompts that are not what the suite says: cut, short of demonstrations, or longer than the model's context."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from workflow.audit.inputs import TEST_KEYS, Material, finding, listed, span

LIMIT = 0.05  # share of rows from which on a score is about other prompts by more than its interval leaves open

FLAWS = {
    "truncated": "have lost the beginning of their input",
    "short": "show fewer demonstrations than asked for, the first ones cut",
    "long": "are, with the answer, longer than the model's context and read whole",
}


def check(material: Material) -> Iterator[dict[str, Any]]:
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
        evidence = f"the context's length of {listed(unknown)} is not at hand, so whether prompts fit it is not known"
        yield finding("note", table[["family"]], evidence, n=len(unknown))


def _tokens(counts: pd.Series) -> str:
    """How many tokens a flaw is about, by row; nothing for predictions that were made before they were counted."""
    known = counts.dropna()
    return f"{span(known, '.0f')} tokens, median {known.median():.0f}; " if len(known) else ""


def _severity(share: float) -> str:
    return "warning" if share > LIMIT else "note"


def _context(base: dict[str, Any]) -> int | None:
    """Positions that a base was made for, by its config; None where the folder is gone or its config does not say."""
    path = Path(base["path"]) / "config.json"
    return json.loads(path.read_text(encoding="utf-8")).get("max_position_embeddings") if path.is_file() else None


def _read(test: pd.DataFrame, contexts: dict[tuple[str, int], int | None]) -> dict[str, Any]:
    """One model on one test: the share of its prompts with each flaw, and by how many tokens."""
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
