"""Indicators: losses against transformers' own, sums and their standard errors, values, what may not be compared."""

from __future__ import annotations

import copy
import math
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import PAGE, Checkpoint

from workflow import registry, task
from workflow.data import prompts
from workflow.data.corpora import Document
from workflow.errors import StudyError
from workflow.indicators import aggregation, measures, measuring
from workflow.indicators.measures.span_corruption import sentinels, stream
from workflow.indicators.measures.weight_noise import disturb
from workflow.indicators.measuring import LoadedBase, Loss, MeasuredTexts
from workflow.models.encoding import padding, split
from workflow.models.engine import losses, scoring
from workflow.storage import tables
from workflow.study import config as configs
from workflow.study import indicators
from workflow.task import Example
from workflow.training import finetuning, span_corruption

TEXTS = [" ".join(PAGE[start : start + 6]) for start in range(0, 48, 6)] + [
    "Ça va? Ünïcode, 日本語 and 😀😃🎉. " * 4,
    "a",
]
DOCUMENTS = [Document("even" if number % 2 == 0 else "odd", str(number), text) for number, text in enumerate(TEXTS)]


def filled(block: dict[str, Any]) -> dict[str, Any]:
    """An indicator's block with the schema's defaults."""
    config = {"families": {"f": {"source": "folder", "path": "f"}}, "suites": {"s": {"tests": ["boolq"]}}}
    return configs.validated({**config, "indicators": {"it": block}})["indicators"]["it"]


def subject(checkpoint: Checkpoint) -> LoadedBase:
    """A checkpoint as measures take it."""
    return LoadedBase(checkpoint.model, checkpoint.tokenizer)


def measured(block: dict[str, Any], checkpoint: Checkpoint, material: MeasuredTexts) -> measuring.Measurement:
    """What a measure finds on a checkpoint."""
    settings = filled(block)
    return registry.module(measures, settings["measure"]).measure(subject(checkpoint), settings, material)


def test_every_measure_is_a_module_and_has_its_settings_in_the_schema() -> None:
    block = configs.schema()["properties"]["indicators"]["additionalProperties"]
    names = sorted([*registry.modules(measures), indicators.SCORED])
    assert sorted(block["properties"]["measure"]["enum"]) == names
    assert sorted(branch["properties"]["measure"]["const"] for branch in block["oneOf"]) == names


# --- losses ----------------------------------------------------------------------------------------------------------


def plain_loss(model: Any, ids: list[int]) -> float:
    """The summed loss of a text in nats by transformers alone."""
    row = torch.tensor([ids])
    with torch.no_grad():
        return model(input_ids=row, labels=row).loss.item() * (len(ids) - 1)


def test_perplexity_is_that_of_a_plain_loss(checkpoint: Checkpoint) -> None:
    """Each window by itself and unpadded, in transformers' own loss: within 1e-5 nats a token."""
    block = {"measure": "clm", "corpus": "miniworld", "window": 24, "batch_tokens": 100}
    found = {loss.id: loss for loss in measured(block, checkpoint, MeasuredTexts(DOCUMENTS, {})).losses}
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
    whole = measured({"measure": "clm", "corpus": "miniworld"}, checkpoint, MeasuredTexts(DOCUMENTS, {})).losses
    for loss in whole:
        text = DOCUMENTS[int(loss.id)].text
        first = tokenizer(text, return_offsets_mapping=True)["offset_mapping"][0][1]
        if len(tokenizer(text)["input_ids"]) <= 256:
            assert loss.bytes == len(text[first:].encode())
    short = measured({"measure": "clm", "corpus": "miniworld", "window": 2}, checkpoint, MeasuredTexts(DOCUMENTS, {}))
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
    rows = aggregation.values(table(found), {"it": filled({**CLM, **settings})}, NO_SCORES)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("document", "draw", "both"), [(1.0, 0.0, 0.0), (1.0, 0.3, 0.5), (0.0, 0.3, 1.0), (0.2, 0.0, 2.0)]
)
def test_standard_errors_are_the_spread_of_repeated_measurements(document: float, draw: float, both: float) -> None:
    """Losses with effects of documents, of draws and of both together: the root mean squared error estimate against
    the standard deviation of the loss over 400 repetitions. No variance is negative, which makes it a little too large."""
    generator = np.random.default_rng(1)
    found: list[Loss] = []
    for number in range(400):
        tokens = generator.integers(20, 60, 40)
        effects = document * generator.normal(size=(40, 1)) + draw * generator.normal(size=(1, 4))
        losses_of = tokens[:, None] * (5 + effects + both * generator.normal(size=(40, 4)))
        found += [loss._replace(corpus=str(number)) for loss in some(losses_of, tokens)]
    estimates = [aggregation.estimate(own, "token", "neg_loss")[:2] for _, own in table(found).groupby("corpus")]
    values, errors = np.array(estimates).T
    assert len(values) == 400 and 0.9 < np.sqrt((errors**2).mean()) / values.std() < 1.2


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
        aggregation.values(two_bases(manifest="n"), {"it": filled(CLM)}, NO_SCORES)


def test_other_tokens_compare_per_byte_alone() -> None:
    with pytest.raises(StudyError, match="indicators/it/per: token is not allowed, since g at step 1 tokenize"):
        aggregation.values(two_bases(tokenization="u"), {"it": filled(CLM)}, NO_SCORES)
    per_byte = aggregation.values(two_bases(tokenization="u"), {"it": filled({**CLM, "per": "byte"})}, NO_SCORES)
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
    found = aggregation.values(tables.frame(tables.INDICATORS.empty_table()), {"it": filled(KSHOT)}, scores).iloc[0]
    assert (found.value, found.n, found.unit) == (pytest.approx(0.65), 40, "accuracy")
    assert found.error == pytest.approx(0.05 / 2)
    one = aggregation.values(pd.DataFrame(), {"it": filled({**KSHOT, "tests": ["piqa"]})}, scores).iloc[0]
    assert one.value == 0.8


def test_a_base_that_lacks_a_test_has_no_mean_of_scores() -> None:
    """Its mean over an easier test alone would not compare; a score without a value is none."""
    scores = pd.DataFrame(
        [SCORE | {"step": step, "test": test} for step in (1, 2, 3) for test in ("boolq", "piqa")][:-1]
    )
    scores.loc[(scores["step"] == 2) & (scores["test"] == "piqa"), "value"] = None
    assert list(aggregation.values(pd.DataFrame(), {"it": filled(KSHOT)}, scores)["step"]) == [1]


def test_a_mean_of_scores_that_are_not_there_is_refused() -> None:
    with pytest.raises(StudyError, match=r"indicators/it: suite 's' has no 'accuracy' of winogrande with 5 shots"):
        aggregation.values(
            pd.DataFrame(), {"it": filled({**KSHOT, "tests": ["boolq", "winogrande"]})}, pd.DataFrame([SCORE])
        )


# --- masked spans ----------------------------------------------------------------------------------------------------

MASKED = {"measure": "span_corruption", "corpus": "miniworld", "window": 60, "draws": 2}


def by_hand(checkpoint: Checkpoint, draw: int, words: list[list[int]]) -> dict[str, list[Any]]:
    """Of each document its tokens under the masks and their summed loss, then those of all targets: plain loops."""
    tokenizer, end = checkpoint.tokenizer, checkpoint.tokenizer.eos_token_id
    whole = [
        (token, document.id)
        for document in DOCUMENTS
        for token in [*tokenizer(document.text, add_special_tokens=False)["input_ids"], end]
    ]
    generator, found = np.random.default_rng([0, draw]), {document.id: [0, 0.0, 0, 0.0] for document in DOCUMENTS}
    for start in range(0, len(whole), 60):
        window = whole[start : start + 60]
        mask = span_corruption.noise_mask(len(window), 0.15, 3, generator)
        inputs, targets, number = [], [], -1
        for place, (token, owner) in enumerate(window):
            if mask[place] and not mask[place - 1]:
                number += 1
                inputs += words[number]
                targets += [(word, owner, False) for word in words[number]]
            if mask[place]:
                targets.append((token, owner, True))
            else:
                inputs.append(token)
        targets.append((end, window[-1][1], False))
        with torch.no_grad():
            row = torch.tensor([[*inputs, *(token for token, _, _ in targets)]])
            logits = checkpoint.model(row).logits[0].log_softmax(-1)
        for at, (token, owner, spanned) in enumerate(targets, start=len(inputs) - 1):
            loss = -logits[at, token].item()
            found[owner][2] += 1
            found[owner][3] += loss
            if spanned:
                found[owner][0] += 1
                found[owner][1] += loss
    return found


def test_the_loss_of_spans_is_that_of_a_loop(checkpoint: Checkpoint) -> None:
    """Sentinels as words, since none of these tokenizers has a token for them."""
    rows = measured(MASKED, checkpoint, MeasuredTexts(DOCUMENTS, {})).losses
    found = {(row.id, row.draw, row.variant): row for row in rows}
    assert len(found) == len(rows) == 2 * 2 * len(DOCUMENTS)
    words = [checkpoint.tokenizer(f"<extra_id_{n}>", add_special_tokens=False)["input_ids"] for n in range(9)]
    assert all(len(ids) > 5 for ids in words)
    for draw in (0, 1):
        for key, (spanned, in_spans, everything, in_all) in by_hand(checkpoint, draw, words).items():
            own = [found[key, draw, variant] for variant in ("spans", "targets")]
            assert [row.tokens for row in own] == [spanned, everything]
            assert [row.nll for row in own] == pytest.approx([in_spans, in_all], rel=1e-5, abs=1e-5)
    assert found["0", 0, "spans"].nll != found["0", 1, "spans"].nll


def test_the_stream_holds_every_byte_once(checkpoint: Checkpoint) -> None:
    pieces = list(stream(checkpoint.tokenizer, DOCUMENTS, 50))
    assert [len(piece.ids) for piece in pieces[:-1]] == [50] * (len(pieces) - 1)
    sizes = dict.fromkeys(range(len(DOCUMENTS)), 0)
    for piece in pieces:
        for owner, size in zip(piece.owners, piece.bytes, strict=True):
            sizes[owner] += size
    assert list(sizes.values()) == [len(text.encode()) for text in TEXTS]


def test_bytes_of_spans_are_those_of_the_text_under_the_mask(checkpoint: Checkpoint) -> None:
    """With all but the first token of a window masked."""
    block = {**MASKED, "density": 0.999, "span": 1000, "draws": 1, "window": 50}
    spanned = [
        row.bytes for row in measured(block, checkpoint, MeasuredTexts(DOCUMENTS, {})).losses if row.variant == "spans"
    ]
    kept = sum(piece.bytes[0] for piece in stream(checkpoint.tokenizer, DOCUMENTS, 50))
    assert kept > 0 and sum(spanned) == sum(len(text.encode()) for text in TEXTS) - kept


def test_a_tokenizer_s_own_sentinels_are_used_or_not_as_asked(checkpoint: Checkpoint) -> None:
    tokenizer = copy.deepcopy(checkpoint.tokenizer)
    words = sentinels(tokenizer, "own")(0)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<extra_id_0>"]})
    assert len(sentinels(tokenizer, "own")(0)) == 1
    assert sentinels(tokenizer, "words")(0) == words and len(words) > 5


def test_a_masked_window_that_does_not_fit_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(StudyError, match="the model has a context of 256; lower `window` of the indicator"):
        measured({**MASKED, "window": 250}, checkpoint, MeasuredTexts([Document("d", "1", " ".join(PAGE))], {}))


def test_reading_the_text_as_a_whole_changes_the_loss_of_spans(checkpoint: Checkpoint) -> None:
    causal, whole = (
        measured({**MASKED, "prefix": prefix}, checkpoint, MeasuredTexts(DOCUMENTS[:3], {})).losses[0]
        for prefix in ("causal", "bidirectional")
    )
    assert causal.tokens == whole.tokens and abs(causal.nll - whole.nll) > 1e-3


# --- answers after demonstrations ------------------------------------------------------------------------------------


def task_material(name: str, train: int, test: int = 0) -> MeasuredTexts:
    """A task of questions with so many rows."""
    beasts = ["cat", "dog", "fox", "hen", "owl", "trout"]

    def rows(split: str, count: int) -> list[tuple[str, Example]]:
        return [
            (
                f"{split}/{n}",
                Example({"question": f"Which beast has the number {n}?"}, beasts[n % 6], tuple(beasts), n % 6),
            )
            for n in range(count)
        ]

    return MeasuredTexts([], {name: (task.load(name), rows("train", train), rows("test", test))})


def test_the_loss_of_answers_is_that_of_prediction(checkpoint: Checkpoint) -> None:
    """Prompts and demonstrations as a suite makes them; rows of the training split, none of which is a demonstration."""
    material = task_material("mini_facts", 12, 4)
    block = {"measure": "gold_answer", "tests": ["mini_facts"], "shots": 2, "draws": 2}
    found = measured(block, checkpoint, material).losses
    read, train, _ = material.tasks["mini_facts"]
    shown = [random.Random(draw).sample(train, 2) for draw in (0, 1)]
    used = {key for own in shown for key, _ in own}
    assert {row.id for row in found} == {key for key, _ in train} - used
    for draw, own in enumerate(shown):
        before = "".join(prompts.demonstration(read, example, "default") for _, example in own)
        for row in [row for row in found if row.draw == draw]:
            example = dict(train)[row.id]
            text = before + prompts.prompt(read, example.fields, "default")
            parts = split(checkpoint.tokenizer, text, [prompts.completion(example.answer)])[0]
            expected = scoring.log_probabilities(checkpoint.model, [parts], 1000)
            assert row.nll == pytest.approx(-expected[0], rel=1e-4)
            assert (row.tokens, row.bytes) == (len(parts.completion), len(example.answer))


def test_answers_of_the_test_split_only_when_asked_for(checkpoint: Checkpoint) -> None:
    block = {"measure": "gold_answer", "tests": ["mini_facts"], "shots": 1, "rows": "test", "limit": 3}
    found = measured(block, checkpoint, task_material("mini_facts", 5, 6)).losses
    assert len(found) == 3 and all(row.id.startswith("test/") for row in found)


def test_no_row_beside_the_demonstrations_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(StudyError, match="task mini_facts: no row is left after the few-shot examples"):
        measured({"measure": "gold_answer", "tests": ["mini_facts"]}, checkpoint, task_material("mini_facts", 5))


# --- noise and tuning ------------------------------------------------------------------------------------------------


def weights_of(model: Any) -> list[torch.Tensor]:
    """A copy of all weights."""
    return [weight.detach().clone() for weight in model.parameters()]


def test_noise_has_the_size_asked_for_and_leaves_no_trace(checkpoint: Checkpoint) -> None:
    before = weights_of(checkpoint.model)
    with measuring.restored(checkpoint.model):
        disturb(checkpoint.model, 0.1, seed=0, draw=0)
        for old, new in zip(before, weights_of(checkpoint.model), strict=True):
            if old.numel() >= 1024 and old.abs().max() > 0:
                assert ((new - old).square().mean() / old.square().mean()).sqrt().item() == pytest.approx(0.1, rel=0.1)
    assert all(torch.equal(*pair) for pair in zip(before, weights_of(checkpoint.model), strict=True))


def test_noise_is_that_of_seed_and_draw(checkpoint: Checkpoint) -> None:
    found = []
    for seed, draw in ((0, 0), (0, 0), (0, 1), (1, 0)):
        with measuring.restored(checkpoint.model):
            disturb(checkpoint.model, 0.1, seed, draw)
            found.append(weights_of(checkpoint.model)[0])
    same = [torch.equal(found[0], other) for other in found[1:]]
    assert same == [True, False, False]


def test_the_rise_is_the_loss_with_noise_minus_that_without(checkpoint: Checkpoint) -> None:
    block = {"measure": "weight_noise", "corpus": "miniworld", "draws": 2, "size": 0.3, "window": 64}
    found = pd.DataFrame(measured(block, checkpoint, MeasuredTexts(DOCUMENTS, {})).losses)
    wide = found.pivot_table(index=["id", "draw"], columns="variant", values="nll")
    assert np.allclose(wide["rise"], wide["noisy"] - wide["clean"])
    plain = measured(
        {"measure": "clm", "corpus": "miniworld", "window": 64}, checkpoint, MeasuredTexts(DOCUMENTS, {})
    ).losses
    assert np.allclose(wide["clean"].xs(0, level="draw"), pd.Series({row.id: row.nll for row in plain}).sort_index())
    assert np.abs(wide["rise"]).min() > 0


PROBE = {
    "measure": "tuning_probe",
    "train": "mini_facts",
    "steps": 4,
    "validation": 6,
    "learning_rate": 1.0e-3,
    "draws": 2,
}


def test_a_probe_learns_and_leaves_no_trace(checkpoint: Checkpoint) -> None:
    before = weights_of(checkpoint.model)
    found = pd.DataFrame(
        measured({**PROBE, "learning_rate": 1.0e-2}, checkpoint, task_material("mini_facts", 40)).losses
    )
    assert all(torch.equal(*pair) for pair in zip(before, weights_of(checkpoint.model), strict=True))
    wide = found.pivot_table(index=["id", "draw"], columns="variant", values="nll")
    assert len(wide) == 6 * 2
    assert np.allclose(wide["drop"], wide["before"] - wide["after"])
    assert (wide["drop"].groupby("draw").sum() > 0).all()
    assert (wide["before"].xs(0, level="draw") == wide["before"].xs(1, level="draw")).all()
    assert (wide["after"].xs(0, level="draw") != wide["after"].xs(1, level="draw")).all()


def test_the_loss_after_a_probe_is_that_of_a_tuning(checkpoints: dict[str, Checkpoint], tmp_path: Path) -> None:
    """The same rows by `finetuning.tune` itself, on a copy; the loss of a held-out row is that of answer and EOS."""
    checkpoint, material = checkpoints["olmo"], task_material("mini_facts", 40)
    found = {
        row.id: row for row in measured({**PROBE, "draws": 1}, checkpoint, material).losses if row.variant == "after"
    }
    read, train, _ = material.tasks["mini_facts"]
    order = [train[place] for place in np.random.default_rng(0).permutation(40)]
    rest = order[6:]
    seen = [rest[place] for place in np.random.default_rng([0, 0]).permutation(34)[:32]]
    settings = configs.recipe({"learning_rate": 1.0e-3, "epochs": 1, "schedule": "constant", "warmup": 0.1})
    model = copy.deepcopy(checkpoint.model)
    rows = finetuning.prepared_rows(checkpoint.tokenizer, 256, read, seen, "default", settings)
    pad = padding(checkpoint.tokenizer)
    history = finetuning.tune(model, list(rows.values()), settings, 0, pad, finetuning.State(tmp_path / "s", ""))
    assert [round(row["learning_rate"], 6) for row in history] == [0.001] * 4
    held = finetuning.prepared_rows(checkpoint.tokenizer, 256, read, order[:6], "default", settings)
    expected = finetuning.validate(model, list(held.values()), settings, pad)
    assert list(held) == list(found)
    assert [row.nll for row in found.values()] == pytest.approx([row["nll"] for row in expected], rel=1e-5)
    assert [row.tokens for row in found.values()] == [row["tokens"] for row in expected]


def test_a_probe_that_diverges_has_no_loss_after(checkpoints: dict[str, Checkpoint]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        block = {**PROBE, "learning_rate": 1.0e30, "draws": 1}
        found = measured(block, checkpoints["olmo"], task_material("mini_facts", 40)).losses
    assert {row.variant: math.isnan(row.nll) for row in found} == {"before": False, "after": True, "drop": True}


def test_too_few_rows_for_a_probe_are_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(StudyError, match="37 training rows are too few for 6 held-out ones and 4 steps of 8"):
        measured(PROBE, checkpoint, task_material("mini_facts", 37))


# --- what is measured anew -------------------------------------------------------------------------------------------

BASE = {"files": {"model.safetensors": {"sha256": "a"}}}


def test_only_what_has_changed_is_measured_anew(checkpoints: dict[str, Checkpoint], tmp_path: Path) -> None:
    checkpoint, calls = checkpoints["olmo"], []

    def update(
        blocks: dict[str, Any], base: Any = BASE, texts: list[Document] = DOCUMENTS
    ) -> measuring.BaseMeasurements:
        calls.clear()
        part = measuring.update(
            measuring.read(*paths), base, {name: filled(block) for name, block in blocks.items()},
            lambda settings: MeasuredTexts(texts, {}), lambda precision: subject(checkpoint), calls.append,
        )  # fmt: skip
        measuring.write(part, *paths, base=base)
        return part

    paths = tmp_path / "sums.parquet", tmp_path / "losses.parquet"
    clm, masked = {"measure": "clm", "corpus": "miniworld"}, {**MASKED, "draws": 1}
    update({"a": clm})
    assert calls == ["a"]
    first = measuring.read(*paths)
    both = update({"a": clm, "b": masked})
    assert calls == ["b"]
    assert both.of("a").sums == first.sums and both.of("a").losses == first.losses
    for blocks, base, texts, expected in (
        ({"a": {**clm, "per": "byte", "transform": "neg_loss", "batch_tokens": 99}, "b": masked}, BASE, DOCUMENTS, []),
        ({"a": {**clm, "window": 9}, "b": masked}, BASE, DOCUMENTS, ["a"]),
        ({"a": {**clm, "window": 9}, "b": {**masked, "version": 2}}, BASE, DOCUMENTS, ["b"]),
        ({"a": {**clm, "window": 9}}, BASE, DOCUMENTS, []),
        ({"a": {**clm, "window": 9}}, {"files": {"model.safetensors": {"sha256": "b"}}}, DOCUMENTS, ["a"]),
        ({"a": {**clm, "window": 9}}, {"files": {"model.safetensors": {"sha256": "b"}}}, DOCUMENTS[:4], ["a"]),
    ):
        part = update(blocks, base, texts)
        assert calls == expected
        assert set(part.fingerprints) == set(blocks) == {row["indicator"] for row in part.sums}
    assert part.manifests["a"]["settings"]["window"] == 9


def test_a_manifest_tells_settings_and_texts_apart_but_not_bases(checkpoints: dict[str, Checkpoint]) -> None:
    def manifest(architecture: str, block: dict[str, Any], texts: list[Document]) -> str:
        rows, _, _ = measuring.measure("a", filled(block), subject(checkpoints[architecture]), MeasuredTexts(texts, {}))
        return rows[0]["manifest"]

    clm = {"measure": "clm", "corpus": "miniworld", "documents": 4}
    first = manifest("olmo", clm, DOCUMENTS)
    assert manifest("llama", clm, DOCUMENTS) == first
    assert manifest("olmo", {**clm, "per": "byte"}, DOCUMENTS) == first
    others = [manifest("olmo", {**clm, "seed": 1}, DOCUMENTS), manifest("olmo", clm, DOCUMENTS[1:])]
    assert len({first, *others}) == 3


def test_a_sample_is_drawn_by_its_seed_and_holds_each_text_once() -> None:
    texts = [Document("d", str(number), f"text {number % 30}") for number in range(60)]
    first, again, other = (measuring.sampled(texts, {"documents": 10, "seed": seed}) for seed in (0, 0, 1))
    assert first == again != other
    assert len({document.text for document in first}) == 10
    assert [int(document.id) for document in first] == sorted(int(document.id) for document in first)
    assert len(measuring.sampled(texts, {"seed": 0})) == 30
