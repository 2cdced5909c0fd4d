"""Pre-training from scratch: tokenizer, loss, checkpoints, determinism."""

import json
import math

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from workflow.data import miniworld
from workflow.data.corpora import Document
from workflow.indicators import aggregation, measuring
from workflow.models import loading
from workflow.study import config as configs
from workflow.study import indicators
from workflow.training import data_mix, pretraining

RECIPE = {
    "vocabulary": 400,
    "hidden": 32,
    "layers": 2,
    "heads": 2,
    "intermediate": 64,
    "context": 64,
    "sequence": 32,
    "batch": 4,
    "steps": 60,
    "save": [0, 20, 60],
    "learning_rate": 1e-2,
    "warmup": 0.1,
    "weight_decay": 0.1,
    "clip": 1.0,
    "precision": "fp32",
    "seed": 0,
    "objective": "clm",
}


@pytest.fixture(scope="module")
def documents():
    world = miniworld.build(0, people=10, towns=4, animals=12, things=12, rounds=2)
    return [
        Document(domain, str(number), page)
        for domain, pages in miniworld.documents(world).items()
        for number, page in enumerate(pages)
    ]


@pytest.fixture(scope="module")
def texts(documents):
    return [document.text for document in documents]


@pytest.fixture(scope="module")
def trained(documents, tmp_path_factory):
    out = tmp_path_factory.mktemp("family")
    return pretraining.pretrain(documents, RECIPE, out), out


def test_tokenizer_round_trips_any_text(texts):
    tokenizer = pretraining.train_tokenizer(texts, 400, 64)
    for text in [*texts[:20], "Zürich, 東京 — \t two  spaces\n\n### don 't"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tokenizer_has_end_and_padding_and_adds_neither(texts):
    tokenizer = pretraining.train_tokenizer(texts, 400, 64)
    assert len(tokenizer) == 400
    assert tokenizer.eos_token_id != tokenizer.pad_token_id and tokenizer.bos_token_id is None
    assert not {tokenizer.eos_token_id, tokenizer.pad_token_id} & set(tokenizer("The river.")["input_ids"])


def test_batches_hold_every_document_once_a_pass(texts):
    documents = [data_mix.Encoded("d", [number, 0]) for number in range(1, 13)]
    tokenizer = pretraining.train_tokenizer(texts, 400, 64)
    rows = pretraining.batches(documents, RECIPE | {"batch": 2, "sequence": 4, "seed": 1}, tokenizer)
    passes = []
    for _ in range(2):
        found = [next(rows) for _ in range(3)]
        assert all(torch.equal(batch.ids, batch.labels) for batch in found)
        passes.append(torch.cat([batch.ids.flatten() for batch in found]).tolist())
    assert [sorted(ids) for ids in passes] == [[0] * 12 + list(range(1, 13))] * 2
    assert passes[0] != passes[1]


def test_learning_rate_rises_then_falls_to_a_tenth():
    recipe = {"learning_rate": 1.0, "warmup": 0.1, "steps": 100}
    assert pretraining.learning_rate(0, recipe) == 0.1
    assert pretraining.learning_rate(9, recipe) == pretraining.learning_rate(10, recipe) == 1.0
    assert pretraining.learning_rate(55, recipe) == pytest.approx(0.55)
    assert pretraining.learning_rate(100, recipe) == pytest.approx(0.1)


def test_loss_starts_at_that_of_a_guess_and_falls(trained):
    history, _ = trained
    assert [row["step"] for row in history] == list(range(1, 61))
    assert history[0]["loss"] == pytest.approx(math.log(400), abs=0.2)
    assert sum(row["loss"] for row in history[-10:]) / 10 < history[0]["loss"] - 1
    assert history[-1]["tokens"] == 60 * 4 * 32


def test_history_is_written(trained):
    history, out = trained
    assert [json.loads(line) for line in (out / "step=60" / "history.jsonl").read_text().splitlines()] == history


def test_a_folder_for_each_saved_step_and_nothing_else(trained):
    _, out = trained
    assert sorted(path.name for path in out.iterdir()) == ["step=0", "step=20", "step=60"]


def test_saved_model_loads_and_goes_on_from_the_loss(trained, documents):
    history, out = trained
    model = AutoModelForCausalLM.from_pretrained(out / "step=60")
    tokenizer = AutoTokenizer.from_pretrained(out / "step=60")
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    rows = pretraining.batches(data_mix.encode(tokenizer, documents, RECIPE), RECIPE | {"seed": 5}, tokenizer)
    ids = torch.cat([next(rows).ids for _ in range(4)])
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss.item()
    assert loss == pytest.approx(sum(row["loss"] for row in history[-10:]) / 10, abs=0.4)


def test_same_seed_same_weights(trained, documents, tmp_path):
    _, out = trained
    pretraining.pretrain(documents, RECIPE, tmp_path)
    first, second = (load_file(root / "step=60" / "model.safetensors") for root in (out, tmp_path))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def piece(documents, folder, step, progress=lambda row: None, start=None, recipe=RECIPE):
    """Train one piece as its job does, and remove the states that it makes needless."""
    recipe = recipe | {"save": [step]}
    states = pretraining.States(folder / "states", pretraining.fingerprint(recipe, documents, {}))
    history = pretraining.pretrain(documents, recipe, folder, progress, start, states, step)
    states.remove(before=step)
    return history


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pieces_give_the_files_of_training_in_one_go(trained, documents, tmp_path):
    """Also when a piece is killed and repeated, and when a saved step is added at the end."""
    history, out = trained
    seen = []

    def killed(row):
        seen.append(row["step"])
        if row["step"] == 40:
            raise KeyboardInterrupt

    piece(documents, tmp_path, 0)
    piece(documents, tmp_path, 20)
    with pytest.raises(KeyboardInterrupt):
        piece(documents, tmp_path, 60, killed)
    assert seen == list(range(21, 41)) and not (tmp_path / "step=60").exists()
    assert piece(documents, tmp_path, 60) == history
    for step in (0, 20, 60):
        assert contents(tmp_path / f"step={step}") == contents(out / f"step={step}"), step


def test_a_piece_goes_on_from_the_last_step_and_without_its_state_from_the_start(trained, documents, tmp_path):
    _, out = trained
    seen = []
    piece(documents, tmp_path, 20)
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["step=20.safetensors"]
    (tmp_path / "states/step=20.safetensors").unlink()
    piece(documents, tmp_path, 60, lambda row: seen.append(row["step"]))
    assert seen == list(range(1, 61))
    assert contents(tmp_path / "step=60") == contents(out / "step=60")


def test_a_state_of_other_settings_or_texts_is_not_used(documents, tmp_path):
    seen = []
    for recipe, texts in ((RECIPE, documents), (RECIPE | {"learning_rate": 5e-3}, documents), (RECIPE, documents[1:])):
        seen.clear()
        piece(texts, tmp_path, 3, lambda row: seen.append(row["step"]), recipe=recipe)
        assert seen == [1, 2, 3]


def test_pieces_go_on_from_a_base_as_one_go_does(trained, documents, tmp_path):
    _, out = trained

    def start():
        return AutoModelForCausalLM.from_pretrained(out / "step=60"), AutoTokenizer.from_pretrained(out / "step=60")

    recipe = SHORT | {"objective": "sc", "save": [0, 2, 6]}
    pretraining.pretrain(documents, recipe, tmp_path / "one", start=start())
    for step in recipe["save"]:
        piece(documents, tmp_path / "pieces", step, start=start(), recipe=recipe)
        assert contents(tmp_path / f"pieces/step={step}") == contents(tmp_path / f"one/step={step}")


def test_other_seed_other_weights(trained, documents, tmp_path):
    _, out = trained
    pretraining.pretrain(documents, {**RECIPE, "seed": 1, "steps": 0, "save": [0]}, tmp_path)
    first, second = (load_file(root / "step=0" / "model.safetensors") for root in (out, tmp_path))
    assert not torch.equal(first["model.embed_tokens.weight"], second["model.embed_tokens.weight"])


# --- objectives --------------------------------------------------------------------------------------------------------

SHORT = RECIPE | {"steps": 6, "save": [0, 6]}


@pytest.mark.parametrize("objective", ["sc", "plm", "sc+clm", "ul2", "ul2r", "ul2r+clm"])
def test_a_loss_is_that_of_the_scored_tokens_alone(objective, documents, tmp_path):
    """The first loss of the run against the log-probabilities of the first batch, one token after the other."""
    recipe = SHORT | {"objective": objective, "sequence": 64, "steps": 1, "save": [0]}
    history = pretraining.pretrain(documents, recipe, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "step=0")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "step=0")
    batch = next(pretraining.batches(data_mix.encode(tokenizer, documents, recipe), recipe, tokenizer))
    with torch.no_grad():
        scores = model(input_ids=batch.ids).logits.log_softmax(-1)
    losses = [
        -scores[row, place - 1, token].item()
        for row, places in enumerate(batch.labels.tolist())
        for place, token in enumerate(places)
        if place and token != pretraining.UNSCORED
    ]
    assert history[0]["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert model.config.vocab_size == len(tokenizer)


def test_special_tokens_come_behind_those_of_text(texts, documents, tmp_path):
    """So text is cut into the same ids whatever the objective."""
    pretraining.pretrain(documents, SHORT | {"objective": "ul2r", "steps": 0, "save": [0]}, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "step=0")
    plain = pretraining.train_tokenizer(texts, 400, 64)
    assert tokenizer(texts[:20])["input_ids"] == plain(texts[:20])["input_ids"]
    assert tokenizer.convert_tokens_to_ids(["[S2S]", "[NLU]", "[NLG]", "<extra_id_0>"]) == [400, 401, 402, 403]
    assert tokenizer("<extra_id_0>")["input_ids"] == [403]


def test_going_on_from_a_base_begins_with_its_weights(trained, documents, tmp_path):
    _, out = trained
    start = (AutoModelForCausalLM.from_pretrained(out / "step=60"), AutoTokenizer.from_pretrained(out / "step=60"))
    pretraining.pretrain(documents, SHORT, tmp_path / "clm", start=start)
    before, first = (load_file(folder / "model.safetensors") for folder in (out / "step=60", tmp_path / "clm/step=0"))
    assert before.keys() == first.keys() and all(torch.equal(before[name], first[name]) for name in before)
    last = load_file(tmp_path / "clm/step=6/model.safetensors")
    assert not torch.equal(last["model.embed_tokens.weight"], before["model.embed_tokens.weight"])


def test_going_on_with_masked_spans_adds_their_sentinels(trained, documents, tmp_path):
    _, out = trained
    found = []
    for name in ("one", "two"):
        start = (AutoModelForCausalLM.from_pretrained(out / "step=60"), AutoTokenizer.from_pretrained(out / "step=60"))
        pretraining.pretrain(
            documents, SHORT | {"objective": "sc", "steps": 2, "save": [0, 2]}, tmp_path / name, start=start
        )
        found.append(load_file(tmp_path / name / "step=2/model.safetensors"))
    before = load_file(out / "step=60/model.safetensors")["model.embed_tokens.weight"]
    extended = load_file(tmp_path / "one/step=0/model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(extended[:400], before) and len(extended) > 400
    assert len(AutoTokenizer.from_pretrained(tmp_path / "one/step=0")) == len(extended)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_matrices_alone_decay(checkpoint):
    groups = pretraining.weight_groups(checkpoint.model, 0.1)
    whole = [weight for group in groups for weight in group["params"]]
    assert len({id(weight) for weight in whole}) == len(whole) == len(list(checkpoint.model.parameters()))
    assert all(weight.dim() == 2 for weight in groups[0]["params"])
    embedding = checkpoint.model.get_input_embeddings().weight
    assert all(weight.dim() == 1 or weight is embedding for weight in groups[1]["params"])
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


# --- objectives show in indicators -------------------------------------------------------------------------------------

LEARNED = RECIPE | {
    "vocabulary": 600, "hidden": 64, "intermediate": 192, "heads": 4, "context": 256, "sequence": 96, "batch": 8,
    "steps": 250, "save": [250], "learning_rate": 3e-3, "warmup": 0.05,
}  # fmt: skip
MEASURES = {
    "ppl_clm": {"measure": "clm", "corpus": "miniworld", "window": 96, "documents": 200},
    "ppl_sc": {"measure": "span_corruption", "corpus": "miniworld", "window": 80, "documents": 200},
}


def losses(folder, texts):
    """Loss in nats a token, with its standard error, of each of MEASURES."""
    config = {"families": {"f": {"source": "folder", "path": "f"}}, "suites": {"s": {"tests": ["boolq"]}}}
    blocks = configs.validated({**config, "indicators": MEASURES})["indicators"]
    subject, found = measuring.LoadedBase(*loading.untouched({"path": str(folder)})), {}
    for name, settings in blocks.items():
        rows, _, _ = measuring.measure(name, settings, subject, measuring.MeasuredTexts(texts, {}))
        table = pd.DataFrame(rows).astype({"draw": "Int64"})
        own = table[table["variant"] == indicators.variant(settings)]
        value, error, _ = aggregation.estimate(own, "token", "neg_loss")
        found[name] = (-value, error)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.faults) for seed in (1, 2))])
def test_training_on_masked_spans_lowers_the_perplexity_of_spans_and_raises_that_of_text(seed, tmp_path):
    """A world, a model and a data order of each seed; either way by more than two standard errors."""
    world = miniworld.build(seed, people=20, towns=6, animals=30, things=18, rounds=12)
    texts = {
        split: [
            Document(domain, f"{domain}/{number}", page)
            for domain, pages in miniworld.documents(world, split).items()
            for number, page in enumerate(pages)
        ]
        for split in ("train", "validation")
    }
    found = {}
    for objective in ("clm", "sc"):
        pretraining.pretrain(texts["train"], LEARNED | {"objective": objective, "seed": seed}, tmp_path / objective)
        found[objective] = losses(tmp_path / objective / "step=250", texts["validation"])
    for name, better, worse in (("ppl_sc", "sc", "clm"), ("ppl_clm", "clm", "sc")):
        (low, one), (high, other) = found[better][name], found[worse][name]
        assert high - low > 2 * math.hypot(one, other), name
