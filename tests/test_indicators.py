"""Indicators: losses against transformers' own, sums and their standard errors, values, what may not be compared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import PAGE, Checkpoint

from workflow import config as configs
from workflow import grid, indicators, losses, measuring, tables
from workflow.corpora import Document
from workflow.encoding import padding
from workflow.errors import StudyError
from workflow.measuring import Loss, Material, Subject

TEXTS = [" ".join(PAGE[start : start + 6]) for start in range(0, 48, 6)] + [
    "Ça va? Ünïcode, 日本語 and 😀😃🎉. " * 4,
    "a",
]
DOCUMENTS = [Document("even" if number % 2 == 0 else "odd", str(number), text) for number, text in enumerate(TEXTS)]


def filled(block: dict[str, Any]) -> dict[str, Any]:
    """An indicator's block with the schema's defaults."""
    config = {"families": {"f": {"source": "folder", "path": "f"}}, "suites": {"s": {"tests": ["boolq"]}}}
    return configs.validated({**config, "indicators": {"it": block}})["indicators"]["it"]


def subject(checkpoint: Checkpoint) -> Subject:
    """A checkpoint as measures take it."""
    return Subject(checkpoint.model, checkpoint.tokenizer)


def measured(block: dict[str, Any], checkpoint: Checkpoint, material: Material) -> measuring.Measurement:
    """What a measure finds on a checkpoint."""
    settings = filled(block)
    return grid.module(indicators, settings["measure"]).measure(subject(checkpoint), settings, material)


# --- losses ----------------------------------------------------------------------------------------------------------


def plain_loss(model: Any, ids: list[int]) -> float:
    """The summed loss of a text in nats by transformers alone."""
    row = torch.tensor([ids])
    with torch.no_grad():
        return model(input_ids=row, labels=row).loss.item() * (len(ids) - 1)


def test_perplexity_is_that_of_a_plain_loss(checkpoint: Checkpoint) -> None:
    """Each window by itself and unpadded, in transformers' own loss: within 1e-5 nats a token."""
    block = {"measure": "clm", "corpus": "miniworld", "window": 24, "batch_tokens": 100}
    found = {loss.id: loss for loss in measured(block, checkpoint, Material(DOCUMENTS, {})).losses}
    for document in DOCUMENTS:
        ids = checkpoint.tokenizer(document.text)["input_ids"]
        windows = [ids[start : start + 24] for start in range(0, len(ids), 24)]
        windows = [window for window in windows if len(window) > 1]
        tokens = sum(len(window) - 1 for window in windows)
        if not tokens:
            assert document.id not in found
            continue
        own = found[document.id]
        assert (own.group, own.variant, own.draw, own.tokens) == (document.domain, "text", 0, tokens)
        expected = sum(plain_loss(checkpoint.model, window) for window in windows)
        assert own.nll / tokens == pytest.approx(expected / tokens, abs=1e-5)


def test_bytes_are_those_of_the_scored_tokens(checkpoint: Checkpoint) -> None:
    """In one window all but the first token's; the pieces of many windows lack one token each."""
    tokenizer = checkpoint.tokenizer
    whole = measured({"measure": "clm", "corpus": "miniworld"}, checkpoint, Material(DOCUMENTS, {})).losses
    for loss in whole:
        text = DOCUMENTS[int(loss.id)].text
        first = tokenizer(text, return_offsets_mapping=True)["offset_mapping"][0][1]
        if len(tokenizer(text)["input_ids"]) <= 256:
            assert loss.bytes == len(text[first:].encode())
    short = measured({"measure": "clm", "corpus": "miniworld", "window": 2}, checkpoint, Material(DOCUMENTS, {}))
    assert all(one.bytes < other.bytes for one, other in zip(short.losses[:8], whole[:8], strict=True))


def test_a_batch_changes_no_loss(checkpoint: Checkpoint) -> None:
    """Rows of different length, read from different places on, padded beside each other or alone."""
    ids = [checkpoint.tokenizer(text)["input_ids"][:90] for text in TEXTS[:9]]
    readings = [losses.Reading(row, 1 + 7 * number % (len(row) - 1)) for number, row in enumerate(ids)]
    pad = padding(checkpoint.tokenizer)
    together = losses.token_losses(checkpoint.model, readings, pad, 10_000)
    alone = losses.token_losses(checkpoint.model, readings, pad, 1)
    for one, other, reading in zip(together, alone, readings, strict=True):
        assert len(one) == len(reading.ids) - reading.start
        assert np.allclose(one, other, atol=1e-4)


def test_a_prefix_is_read_both_ways_and_what_follows_is_not(checkpoint: Checkpoint) -> None:
    """A token in the prefix counts for the loss of one before it; a token behind it does not; of no prefix none does."""
    ids = checkpoint.tokenizer(TEXTS[0])["input_ids"][:40]
    pad = padding(checkpoint.tokenizer)

    def read(changed: int, prefix: int) -> np.ndarray:
        row = list(ids)
        row[changed] = ids[changed] + 1
        rows = [losses.Reading(row, 1, prefix), losses.Reading(ids[:10], 1, 4)]
        return losses.token_losses(checkpoint.model, rows, pad, 1000)[0]

    whole, causal = read(39, 20), read(39, 0)
    assert not np.allclose(whole[:15], causal[:15], atol=1e-3)
    assert np.abs(read(19, 20)[:10] - whole[:10]).max() > 1e-3
    assert np.allclose(read(30, 20)[:28], whole[:28], atol=1e-4)
    assert np.allclose(read(19, 0)[:17], causal[:17], atol=1e-4)


def test_a_prefix_of_one_is_no_prefix(checkpoint: Checkpoint) -> None:
    ids = checkpoint.tokenizer(TEXTS[1])["input_ids"][:40]
    rows = [losses.Reading(ids, 3, 1), losses.Reading(ids, 3)]
    pad = padding(checkpoint.tokenizer)
    alone = [losses.token_losses(checkpoint.model, [row], pad, 1000)[0] for row in rows]
    assert np.allclose(*alone, atol=1e-4)


# --- sums ------------------------------------------------------------------------------------------------------------


def table(found: list[Loss], **constant: Any) -> pd.DataFrame:
    """Losses as the gathered table of one base."""
    facts = {"family": "f", "step": 1, "indicator": "it", "manifest": "m", "tokenization": "t"}
    frame = pd.DataFrame([{**facts, **row, **constant} for row in measuring.sums(found)])
    return frame.astype({"draw": "Int64"})


def some(losses_of: np.ndarray, tokens: np.ndarray) -> list[Loss]:
    """Losses, shape (documents, draws), of documents with so many tokens; four bytes each."""
    return [
        Loss("c", f"g{document % 2}", "text", draw, str(document), int(size), 4 * int(size), float(value))
        for document, (row, size) in enumerate(zip(losses_of, tokens, strict=True))
        for draw, value in enumerate(row)
    ]


CLM = {"measure": "clm", "corpus": "c"}
NO_SCORES = pd.DataFrame(columns=["recipe"])


def value(found: list[Loss], **settings: Any) -> pd.Series:
    """The one value of losses."""
    rows = indicators.values(table(found), {"it": filled({**CLM, **settings})}, NO_SCORES)
    return rows.iloc[0]


def test_values_follow_from_sums_by_hand() -> None:
    """Two documents, 10 and 30 tokens, 20 and 40 nats: 1.5 nats a token, 60 / 160 / ln 2 bits a byte."""
    found = some(np.array([[20.0], [40.0]]), np.array([10, 30]))
    bits = 60 / 160 / math.log(2)
    assert value(found).value == pytest.approx(math.exp(-1.5))
    assert value(found, transform="inv_loss").value == pytest.approx(1 / 1.5)
    assert value(found, transform="neg_loss").value == -1.5
    assert value(found, transform="neg_loss", per="byte").value == pytest.approx(-bits)
    assert value(found, transform="inv_loss", per="byte").value == pytest.approx(1 / bits)
    assert value(found, per="byte").value == pytest.approx(math.exp(-60 / 160))
    # Residuals 20 - 15 and 40 - 45: the variance is 2 (25 + 25) / 40^2.
    assert value(found, transform="neg_loss").error == pytest.approx(math.sqrt(2 * 50) / 40)
    assert value(found, transform="inv_loss").error == pytest.approx(math.sqrt(2 * 50) / 40 / 1.5**2)
    assert value(found).error == pytest.approx(math.sqrt(2 * 50) / 40 * math.exp(-1.5))
    assert (value(found).n, value(found).draws, value(found).spread) == (2, 1, None)


def test_sums_of_groups_add_up() -> None:
    generator = np.random.default_rng(0)
    found = some(generator.gamma(9, size=(20, 3)), generator.integers(5, 50, 20))
    rows = table(found)
    assert sorted(rows["group"].unique()) == ["g0", "g1"] and len(rows) == 2 * 4
    for draw in (0, 1, 2):
        own = [loss for loss in found if loss.draw == draw]
        there = rows[rows["draw"] == draw]
        assert there["nll"].sum() == pytest.approx(sum(loss.nll for loss in own))
        assert there["nll_tokens"].sum() == pytest.approx(sum(loss.nll * loss.tokens for loss in own))
        assert there["documents"].sum() == 20
    whole = rows[rows["draw"].isna()]
    assert whole["tokens"].sum() == sum(loss.tokens for loss in found)
    each = pd.DataFrame(found).groupby("id")["nll"].sum()
    assert whole["nll_nll"].sum() == pytest.approx(float((each**2).sum()))


@pytest.mark.parametrize(
    ("document", "draw", "both"), [(1.0, 0.0, 0.0), (1.0, 0.3, 0.5), (0.0, 0.3, 1.0), (0.2, 0.0, 2.0)]
)
def test_standard_errors_are_the_spread_of_repeated_measurements(document: float, draw: float, both: float) -> None:
    """Losses with effects of documents, of draws and of both together: the root mean squared error estimate against
    the standard deviation of the loss over 400 repetitions. No variance is negative, which makes it a little too large."""
    generator = np.random.default_rng(1)
    settings = filled({**CLM, "transform": "neg_loss"})
    estimates = []
    for _ in range(400):
        tokens = generator.integers(20, 60, 40)
        effects = document * generator.normal(size=(40, 1)) + draw * generator.normal(size=(1, 4))
        losses_of = tokens[:, None] * (5 + effects + both * generator.normal(size=(40, 4)))
        rows = table(some(losses_of, tokens))
        estimates.append(indicators.estimate(rows, settings["per"], "neg_loss")[:2])
    values, errors = np.array(estimates).T
    assert 0.9 < np.sqrt((errors**2).mean()) / values.std() < 1.2


def test_a_loss_that_is_no_number_makes_no_value() -> None:
    found = some(np.array([[20.0, math.nan], [40.0, 41.0]]), np.array([10, 30]))
    assert math.isnan(value(found).value)


# --- what may be compared --------------------------------------------------------------------------------------------


def two_bases(**second: Any) -> pd.DataFrame:
    """Two bases of one indicator, the second with other facts."""
    found = some(np.array([[20.0], [40.0]]), np.array([10, 30]))
    return pd.concat([table(found), table(found), table(found, family="g", **second)])


def test_rows_with_another_manifest_are_refused() -> None:
    with pytest.raises(StudyError, match="indicator it: g at step 1 were measured with other settings"):
        indicators.values(two_bases(manifest="n"), {"it": filled(CLM)}, NO_SCORES)


def test_other_tokens_compare_per_byte_alone() -> None:
    with pytest.raises(StudyError, match="indicators/it/per: token is not allowed, since g at step 1 cut"):
        indicators.values(two_bases(tokenization="u"), {"it": filled(CLM)}, NO_SCORES)
    per_byte = indicators.values(two_bases(tokenization="u"), {"it": filled({**CLM, "per": "byte"})}, NO_SCORES)
    assert list(per_byte["family"]) == ["f", "g"]


# --- scores as indicators --------------------------------------------------------------------------------------------

KSHOT = {"measure": "kshot", "suite": "s", "metric": "accuracy", "shots": 5}
SCORE = {
    "family": "f", "step": 1, "recipe": "none", "suite": "s", "test": "boolq", "test_format": "default", "shots": 5,
    "metric": "accuracy", "value": 0.5, "error": 0.03, "n": 10,
}  # fmt: skip


def test_a_mean_of_scores_is_a_plain_one_of_untouched_bases() -> None:
    others = [{"recipe": "full"}, {"shots": 0}, {"metric": "chance"}, {"suite": "t"}, {"test_format": "io"}]
    rows = [SCORE, SCORE | {"test": "piqa", "value": 0.8, "error": 0.04, "n": 30}]
    scores = pd.DataFrame([*rows, *(SCORE | {"value": 0.0} | other for other in others)])
    found = indicators.values(tables.frame(tables.INDICATORS.empty_table()), {"it": filled(KSHOT)}, scores).iloc[0]
    assert (found.value, found.n, found.unit) == (pytest.approx(0.65), 40, "accuracy")
    assert found.error == pytest.approx(0.05 / 2)
    one = indicators.values(pd.DataFrame(), {"it": filled({**KSHOT, "tests": ["piqa"]})}, scores).iloc[0]
    assert one.value == 0.8


def test_a_mean_of_scores_that_are_not_there_is_refused() -> None:
    with pytest.raises(StudyError, match=r"indicators/it: suite 's' has no 'accuracy' of winogrande with 5 shots"):
        indicators.values(
            pd.DataFrame(), {"it": filled({**KSHOT, "tests": ["boolq", "winogrande"]})}, pd.DataFrame([SCORE])
        )
