"""Prompts that are not what the suite says: cut, short of demonstrations, or longer than the model's context."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from workflow.auditing import TEST_KEYS, Material, finding, listed

LIMIT = 0.05  # share of rows from which on a score is about other prompts by more than its interval leaves open

FLAWS = {
    "truncated": "have lost the beginning of their input",
    "short": "show fewer demonstrations than asked for",
    "long": "are, with the answer, longer than the model's context",
}


def check(material: Material) -> Iterator[dict[str, Any]]:
    """One finding for each test and flaw, of the model with the largest share: a warning above LIMIT, below it a note."""
    contexts = {(base["family"], base["step"]): _context(base) for base in material.bases()}
    columns = ("prompt_tokens", "shots_used", "truncated", "output_tokens", "candidate_tokens")
    table = pd.DataFrame([_read(test, contexts) for test in material.predictions(*columns)])
    for flaw, text in FLAWS.items():
        for _, rows in table[table[flaw] > 0].groupby(TEST_KEYS) if len(table) else ():
            worst = rows.loc[rows[flaw].idxmax()]
            share = float(worst[flaw])
            evidence = f"{share:.1%} of {worst['n']} prompts {text} (longest: {worst['longest']} tokens)"
            yield finding(_severity(share), rows, evidence, value=share, limit=LIMIT, n=int(worst["n"]))
    unknown = sorted(f"{family} at step {step}" for (family, step), context in contexts.items() if context is None)
    if unknown and len(table):
        evidence = f"the context's length of {listed(unknown)} is not at hand, so whether prompts fit it is not known"
        yield finding("note", table[["family"]], evidence, n=len(unknown))


def _severity(share: float) -> str:
    return "warning" if share > LIMIT else "note"


def _context(base: dict[str, Any]) -> int | None:
    """Positions that a base was made for, by its config; None where the folder is gone or its config does not say."""
    path = Path(base["path"]) / "config.json"
    return json.loads(path.read_text(encoding="utf-8")).get("max_position_embeddings") if path.is_file() else None


def _read(test: pd.DataFrame, contexts: dict[tuple[str, int], int | None]) -> dict[str, Any]:
    """One model on one test: the share of its prompts with each flaw."""
    context = contexts.get((test["family"].iloc[0], test["step"].iloc[0]))
    answers = [max(tokens, default=0) for tokens in test["candidate_tokens"]]
    whole = test["prompt_tokens"] + test["output_tokens"].fillna(0) + answers
    return {key: test[key].iloc[0] for key in (*TEST_KEYS, "step", "train")} | {
        "truncated": float(test["truncated"].mean()),
        "short": float((test["shots_used"] < test["shots"]).mean()),
        "long": float((whole > context).mean()) if context else 0.0,
        "longest": int(test["prompt_tokens"].max()),
        "n": len(test),
    }
