"""Numbers that are not finite: every method and every indicator refuses them, with the row and where they come from."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import transformers
from conftest import Checkpoint

from workflow import task
from workflow.data.corpora import Document
from workflow.errors import StudyError
from workflow.evaluation import prediction
from workflow.evaluation.prediction import Evaluation
from workflow.indicators import measuring
from workflow.indicators.measuring import LoadedBase, MeasuredTexts
from workflow.models import loading
from workflow.models.engine import finite
from workflow.models.engine.generation import greedy
from workflow.task import Example
from workflow.training import pretraining

POISON = " 日本語"  # a word whose embedding is no number, in one row of each test
SUITE = {"protocol": "sound", "labels": "score", "seed": 0, "new_tokens": 4, "batch_tokens": 4096, "precision": "fp32"}
LABELS = ("entailment", "neutral", "contradiction")
WEIGHTS = "; weights that are not finite: "


def poisoned(checkpoint: Checkpoint) -> tuple[torch.nn.Module, transformers.PreTrainedTokenizerBase]:
    """A model in which one token of POISON, which no other text has, stands for no number."""
    model, tokenizer = loading.untouched({"path": str(checkpoint.path)})
    token = max(tokenizer(POISON, add_special_tokens=False)["input_ids"])
    weight = model.get_input_embeddings().weight
    if weight is model.get_output_embeddings().weight:  # else every score would be none
        model.get_output_embeddings().weight = torch.nn.Parameter(weight.detach().clone())
    weight.data[token] = math.nan
    return model, tokenizer


def inference(place: int) -> list[tuple[str, Example]]:
    """Four rows of a label task, POISON in one of them."""
    texts = [f"The cat sleeps{POISON if number == place else ''}." for number in range(4)]
    return [
        (f"test/{number}", Example({"premise": text, "hypothesis": "It flies."}, "neutral", LABELS, 1))
        for number, text in enumerate(texts)
    ]


def summaries(place: int) -> list[tuple[str, Example]]:
    """Four rows to be summed up."""
    return [(key, Example({"document": row.fields["premise"]}, "A cat.")) for key, row in inference(place)]


def questions(place: int) -> list[tuple[str, Example]]:
    """Four rows with a question."""
    return [
        (key, Example({"question": row.fields["premise"]}, "A cat", ("A cat",), None)) for key, row in inference(place)
    ]


WAYS = {
    "label by score": ("mnli", inference, {}),
    "label by free text": ("mnli", inference, {"labels": "generate"}),
    "label forced": ("mnli", inference, {"labels": "constrained"}),
    "published labels": ("mnli", inference, {"protocol": "published"}),
    "text": ("xsum", summaries, {}),
    "answers": ("nq_open", questions, {}),
}


@pytest.mark.parametrize("architecture", ["llama", "olmo"])
@pytest.mark.parametrize("way", WAYS)
def test_every_method_names_the_row_and_the_weights(
    checkpoints: dict[str, Checkpoint], way: str, architecture: str
) -> None:
    name, rows, settings = WAYS[way]
    model, tokenizer = poisoned(checkpoints[architecture])
    run = Evaluation(model, tokenizer, SUITE | settings)
    for place in (0, 2):
        with pytest.raises(StudyError) as caught:
            prediction.predict_test(run, task.load(name), [], rows(place), "default", 0)
        message = str(caught.value)
        assert message.startswith(f"row 'test/{place}': ") and "\n" not in message
        assert message.endswith(WEIGHTS + next(n for n, w in model.named_parameters() if not w.isfinite().all()))
    assert len(prediction.predict_test(run, task.load(name), [], rows(-1), "default", 0)) == 4


def test_models_whose_rows_are_written_one_by_one_name_the_row(tmp_path: Path) -> None:
    """Bloom's rows cannot be packed: transformers' own `generate` writes them."""
    from conftest import small_tokenizer

    tokenizer = small_tokenizer("olmo")
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 16, "n_layer": 1, "n_head": 2}
    torch.manual_seed(0)
    model = transformers.BloomForCausalLM(transformers.BloomConfig(**sizes, tie_word_embeddings=False)).eval()
    model.get_input_embeddings().weight.data[9] = math.inf
    with pytest.raises(finite.NotFiniteError) as caught:
        greedy(model, tokenizer, [[5, 6], [7, 9], [9]], 3, (), 4096)
    assert caught.value.number == 1


def test_the_first_layer_is_named_where_the_weights_are_finite(checkpoints: dict[str, Checkpoint]) -> None:
    """Weights so large that a product overflows: the layer's own name, not that of those behind it."""
    model, _ = loading.untouched({"path": str(checkpoints["llama"].path)})
    model.model.layers[1].mlp.up_proj.weight.data.fill_(3e38)
    assert finite.source(model, [5, 6, 7]) == "; the first layer whose output is not finite: model.layers.1.mlp.up_proj"
    assert finite.source(checkpoints["llama"].model, [5, 6, 7]) == ""


def test_scores_of_tokens_that_never_come_are_no_fault() -> None:
    """Minus infinity for single tokens is a mask; for all, or NaN and infinity for one, it is not."""
    inf, nan = math.inf, math.nan
    finite.check(torch.tensor([[0.0, -inf], [1.0, 2.0]]), [4, 7])
    for row in ([-inf, -inf], [nan, 1.0], [inf, 1.0]):
        with pytest.raises(finite.NotFiniteError) as caught:
            finite.check(torch.tensor([[0.0, -inf], row]), [4, 7])
        assert caught.value.number == 7


# Indicators

DOCUMENTS = [
    Document("d", f"doc/{number}", f"The cat sleeps{POISON if number == 2 else ''}. It flies.") for number in range(4)
]
COMMON = {"corpus": "c", "seed": 0, "batch_tokens": 4096, "precision": "fp32", "window": 64, "draws": 1, "per": "byte"}
INDICATORS = {
    "clm": (COMMON, "document 'doc/2': scores of the model"),
    "weight_noise": (COMMON | {"size": 0.01}, "document 'doc/2': scores of the model"),
    "span_corruption": (
        COMMON | {"window": 8, "density": 0.15, "span": 2, "sentinels": "words", "prefix": "causal"}, "document 'doc/",
    ),
    "gold_answer": (
        {**COMMON, "tests": ["mnli"], "rows": "test", "shots": 0, "format": "default"}, "task mnli, row 'test/2': scores",
    ),
    "tuning_probe": (
        {**COMMON, "train": "mnli", "validation": 3, "steps": 1, "batch": 1, "learning_rate": 1e-3, "max_tokens": 128,
         "format": "default"}, "task mnli, row 'test/2': its loss before the probe",
    ),
}  # fmt: skip


@pytest.mark.parametrize("measure", INDICATORS)
def test_every_indicator_names_what_it_read_and_the_weights(checkpoints: dict[str, Checkpoint], measure: str) -> None:
    settings, expected = INDICATORS[measure]
    model, tokenizer = poisoned(checkpoints["llama"])
    rows = inference(2)
    material = MeasuredTexts(DOCUMENTS, {"mnli": (task.load("mnli"), rows, rows)})
    with pytest.raises(StudyError) as caught:
        measuring.measure("own", {"measure": measure, **settings}, LoadedBase(model, tokenizer), material)
    assert str(caught.value).startswith(expected)
    assert str(caught.value).endswith(f"{WEIGHTS}model.embed_tokens.weight")


# Training


def test_pre_training_that_leaves_the_finite_numbers_is_refused(checkpoints: dict[str, Checkpoint]) -> None:
    model, _ = loading.untouched({"path": str(checkpoints["olmo"].path)})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.tensor([[5, 6, 7, 8]])
    before = model.get_input_embeddings().weight[5].detach().clone()
    model.get_input_embeddings().weight.data[7] = math.nan
    with pytest.raises(
        StudyError, match=r"^pretraining: the loss is nan, the gradient norm nan, expected finite numbers"
    ):
        pretraining.update(model, optimizer, pretraining.Batch(ids, ids), 1e-3, 1.0, torch.float32)
    assert torch.equal(model.get_input_embeddings().weight[5], before), "no step is taken"
