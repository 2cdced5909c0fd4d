"""Losses of fine-tuned models against those of their bases: by hand, with intervals, and what cannot be compared."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from workflow.errors import StudyError
from workflow.indicators import forgetting
from workflow.planning import config_checks

BITS = math.log(2)


def losses(rows, **keys):
    """Rows (indicator, group, id, bytes, nll in bits) of `tables.MEASURED`."""
    names = ("indicator", "group", "id", "bytes", "nll")
    parts = [dict(zip(names, row, strict=True)) | {"corpus": "text", "draw": 0} | keys for row in rows]
    return pd.DataFrame(parts).assign(nll=lambda table: table["nll"] * BITS)


BASE = {"family": "f", "step": 9}
MODEL = {**BASE, "train": "t", "format": "default", "recipe": "full"}
BEFORE = [("ppl", "news", "1", 10, 10.0), ("ppl", "news", "2", 30, 30.0), ("ppl", "code", "3", 60, 90.0)]


def test_a_rise_is_the_difference_of_bits_over_bytes_by_hand():
    after = [("ppl", "news", "1", 10, 15.0), ("ppl", "news", "2", 30, 36.0), ("ppl", "code", "3", 60, 80.0)]
    rows = forgetting.changes(losses(BEFORE, **BASE), losses(after, **MODEL, seed=0), 0.95)
    by_group = {row["group"]: row for row in rows}
    assert set(by_group) == {None, "news", "code"} and rows[0]["group"] is None
    assert by_group[None]["base"] == pytest.approx(130 / 100) and by_group[None]["tuned"] == pytest.approx(131 / 100)
    assert by_group[None]["value"] == pytest.approx((5 + 6 - 10) / 100) and by_group[None]["n"] == 3
    assert by_group["news"]["value"] == pytest.approx(11 / 40)
    # Residuals of the two documents: 5 - 10 r and 6 - 30 r, for r = 11/40; n / (n - 1) is 2.
    error = math.sqrt(2 * ((5 - 2.75) ** 2 + (6 - 8.25) ** 2)) / 40
    width = scipy.stats.t.ppf(0.975, 1) * error
    assert by_group["news"]["low"] == pytest.approx(11 / 40 - width)
    assert by_group["news"]["p_value"] == pytest.approx(2 * scipy.stats.t.sf(11 / 40 / error, 1), rel=1e-6)
    assert by_group["code"]["low"] is None and by_group["code"]["p_value"] is None, "a single document has no interval"
    assert rows[0] | MODEL == rows[0] and rows[0]["seeds"] == 1


def test_seeds_and_draws_are_averaged_for_each_document():
    after = [
        losses([(*row[:4], row[4] + rise) for row in BEFORE], **MODEL, seed=seed) for seed, rise in ((0, 1), (1, 3))
    ]
    whole, *_ = forgetting.changes(losses(BEFORE, **BASE), pd.concat(after), 0.95)
    assert whole["value"] == pytest.approx(3 * 2 / 100) and whole["seeds"] == 2 and whole["n"] == 3


def test_intervals_cover_the_true_change():
    """Documents of random sizes with a true rise of .1 bits per byte: 95 % intervals hold it in 95 % of 400 worlds."""
    generator, hits = np.random.default_rng(0), 0
    for _ in range(400):
        size = generator.integers(20, 200, 40)
        rise = 0.1 * size + generator.normal(0, 0.2, 40) * size
        rows = [("ppl", "news", str(i), int(n), 0.0) for i, n in enumerate(size)]
        after = [(*row[:4], float(bits)) for row, bits in zip(rows, rise, strict=True)]
        [row] = forgetting.changes(losses(rows, **BASE), losses(after, **MODEL, seed=0), 0.95)
        hits += row["low"] < 0.1 < row["high"]
    assert scipy.stats.binomtest(hits, 400, 0.95).pvalue > 0.01


def test_models_measured_on_other_documents_are_refused():
    with pytest.raises(StudyError, match="was not measured on the documents of its base"):
        forgetting.changes(losses(BEFORE, **BASE), losses(BEFORE[:2], **MODEL, seed=0), 0.95)


def test_only_losses_of_text_and_answers_are_compared():
    config = {
        "families": {"f": {"source": "hub", "repo": "o/r", "steps": [1]}},
        "recipes": {"full": {}},
        "models": [{"train": ["mini_facts"], "recipes": ["full"]}],
        "suites": {"s": {"tests": ["mini_facts"]}},
        "indicators": {
            "ppl": {"measure": "clm", "corpus": "miniworld"},
            "noise": {"measure": "weight_noise", "corpus": "miniworld"},
        },
    }
    assert config_checks.read(config | {"forgetting": ["ppl"]})["forgetting"] == ["ppl"]
    with pytest.raises(StudyError, match=r"^config\.yaml: forgetting: 'noise' is not known; allowed: ppl"):
        config_checks.read(config | {"forgetting": ["noise"]})
    with pytest.raises(StudyError, match=r"^config\.yaml: forgetting: needs a fine-tuned model; found none in models$"):
        config_checks.read(config | {"forgetting": ["ppl"], "models": []})
