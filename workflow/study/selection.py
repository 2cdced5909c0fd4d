"""Candidates of a study's `selection`, and which of them are chosen so far. It runs at each start: no torch, no network.

Each round of a selection is a part under `results/selection/`. Its facts hold the candidates of the round, its batch, and, where
no further round follows, why it ended. What is chosen is what the batches hold.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow.settings import Selection, Study
from workflow.storage import tables
from workflow.study import grid

CANDIDATE_KEYS = ["family", "step", "recipe"]
FOLDER = Path("results/selection")

Candidate = tuple[str, int, str]


def pairs(block: Selection) -> list[tuple[str, str]]:
    """Return the (training task, test) pairs of the goal."""
    tests = block["tests"]
    if isinstance(tests, Mapping):
        return [(train, test) for train, own in tests.items() for test in own]
    return [(name, name) for name in tests]


def trains(block: Selection) -> list[str]:
    """Return the tasks that a candidate is fine-tuned on."""
    return list(dict.fromkeys(train for train, _ in pairs(block)))


def models(study: Study) -> pd.DataFrame:
    """Return the fine-tuned models of all candidates, with every seed: columns MODEL_KEYS."""
    block, rows = study["selection"], grid.models(study)
    if block is None:
        return rows[:0]
    own = rows[(rows["recipe"] != "none") & (rows["format"] == block["format"]) & rows["train"].isin(trains(block))]
    for key, names in (("family", "families"), ("step", "steps"), ("recipe", "recipes")):
        if names in block:
            own = own[own[key].isin(block[names])]  # type: ignore[literal-required]  # the three keys above
    whole = own.groupby(CANDIDATE_KEYS)["train"].transform("nunique") == len(trains(block))
    return own[whole.astype(bool)].reset_index(drop=True)


def candidates(study: Study) -> pd.DataFrame:
    """Return base and recipe of each candidate, in the order of the study: columns CANDIDATE_KEYS."""
    return models(study)[CANDIDATE_KEYS].drop_duplicates(ignore_index=True)


def named(rows: Iterable[Sequence[Any]]) -> list[Candidate]:
    """Return candidates from rows of their keys, as a table or a part's facts hold them."""
    return [(family, int(step), recipe) for family, step, recipe in rows]


def round_path(number: int) -> Path:
    """Return the part of a round, relative to the study's folder."""
    return FOLDER / f"round={number}" / "part.parquet"


def rounds(folder: Path = Path()) -> Iterator[dict[str, Any]]:
    """Yield the facts of each recorded round, in order. folder: the study's."""
    number = 1
    while (path := folder / round_path(number)).is_file():
        yield tables.recorded(path)
        number += 1


def batch(facts: Mapping[str, Any]) -> list[Candidate]:
    """Return the candidates that a round chose; none of the last one."""
    return named(facts["batch"])


def chosen(study: Study, folder: Path = Path()) -> list[Candidate]:
    """Return the candidates that the recorded rounds chose, in their order."""
    known = set(named(candidates(study).to_numpy()))
    return [one for facts in rounds(folder) for one in batch(facts) if one in known]


def not_chosen(study: Study, folder: Path = Path()) -> list[dict[str, Any]]:
    """Return the models of candidates that no round has chosen: MODEL_KEYS of each. They are no part of the study's tables."""
    if study["selection"] is None:
        return []
    own, taken = models(study), set(chosen(study, folder))
    left = [row not in taken for row in own[CANDIDATE_KEYS].itertuples(index=False, name=None)]
    return own[np.array(left, dtype=bool)][grid.MODEL_KEYS].to_dict("records")


def counted(left: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the number of bases of models that are not chosen, by `task/recipe`."""
    bases = {(model["train"], model["recipe"], model["family"], model["step"]) for model in left}
    return dict(sorted(Counter(f"{train}/{recipe}" for train, recipe, *_ in bases).items()))


def cells(study: Study, wanted: Sequence[Candidate]) -> pd.DataFrame:
    """Return the parts of candidates that their choice needs: on the suite of the goal, or on all if weights are not kept."""
    block = study["selection"]
    assert block is not None
    own = models(study)
    meant = [row in set(wanted) for row in own[CANDIDATE_KEYS].itertuples(index=False, name=None)]
    own = own[np.array(meant, dtype=bool)]
    rows = grid.parts(study).merge(own, on=grid.MODEL_KEYS)
    return rows[rows["suite"] == block["suite"]] if study["keep_weights"] else rows


def untouched(study: Study, wanted: Sequence[Candidate]) -> pd.DataFrame:
    """Return the parts of the candidates' untouched bases: for indicators that are scores, and for the floor."""
    block = study["selection"]
    assert block is not None
    used = [study["indicators"][name] for name in indicator_names(study)]
    tests = [(own["suite"], own.get("tests")) for own in used if "suite" in own]
    tests += [(block["suite"], block["floor"]["tests"])] if "floor" in block else []
    bases = {one[:2] for one in wanted}
    rows = grid.parts(study)
    rows = rows[rows["recipe"] == "none"]
    meant = [
        (family, step) in bases
        and any(suite == own and (names is None or test in (*names, grid.WHOLE)) for own, names in tests)
        for family, step, suite, test in rows[[*grid.BASE_KEYS, "suite", "tests"]].itertuples(index=False, name=None)
    ]
    return rows[np.array(meant, dtype=bool)]


def indicator_names(study: Study) -> list[str]:
    """Return the indicators that a selection uses: those it names, else all."""
    block = study["selection"]
    assert block is not None
    return block.get("indicators", list(study["indicators"]))


def fingerprint(study: Study) -> str:
    """Return a hash of what is asked."""
    return hashlib.sha256(json.dumps(study["selection"], sort_keys=True).encode()).hexdigest()[:16]
