"""What the parts measure with: models of published shapes with random weights, rows of random words, small ones on a CPU."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from workflow import task
from workflow.data import prompts as templates
from workflow.evaluation import prediction
from workflow.models.encoding import Framing, Masked, fitted
from workflow.task import Example
from workflow.training import pretraining

SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
# OLMo-1B and OLMo-7B (arXiv 2402.00838, table 1).
SHAPES = {
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 16},
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
}
VOCABULARY, CONTEXT = 50304, 2048
PEAK = 790e12  # operations a second in bf16 that an H100 and an H200 reach in a product of 8,192 x 8,192 matrices
# Tokens of a prompt and of an answer with its end, as `costs.TYPICAL` has them, and the longest text in long rows.
LENGTHS = {"mnli": (52, 3), "social_iqa": (49, 9), "xsum": (408, 30), "2k": (2018, 30)}
WORDS = 1500
LABELS = ("entailment", "neutral", "contradiction")
PIECES = ("entailme", "neutral", "contradicti")  # so that labels have several tokens, as those of OLMo have


class Setting(NamedTuple):
    """Where a part runs: on `cuda` at full size, on `cpu` in small."""

    device: str

    @property
    def small(self) -> bool:
        """Whether this stands in for a GPU."""
        return self.device == "cpu"

    def number(self, full: int, small: int) -> int:
        """How many of something."""
        return small if self.small else full


def olmo(setting: Setting, shape: str, dtype: torch.dtype) -> Any:
    """A model of that shape with random weights, in evaluation mode."""
    from transformers.models.olmo.configuration_olmo import OlmoConfig
    from transformers.models.olmo.modeling_olmo import OlmoForCausalLM

    sizes = SMALL if setting.small else SHAPES[shape]
    config = OlmoConfig(
        vocab_size=4096 if setting.small else VOCABULARY, max_position_embeddings=CONTEXT, **sizes,
        tie_word_embeddings=True, eos_token_id=0, pad_token_id=1, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(setting.device):
            return OlmoForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def cast(model: Any, dtype: torch.dtype) -> Any:
    """The model with weights of another precision; frequencies of its positions stay in fp32, as in a checkpoint that is read."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return model


def block(setting: Setting, shape: str) -> dict[str, Any]:
    """The shape as the config's `pretraining` has it, by which `resources` reckons."""
    sizes = SMALL if setting.small else SHAPES[shape]
    return {
        "hidden": sizes["hidden_size"], "intermediate": sizes["intermediate_size"],
        "layers": sizes["num_hidden_layers"], "vocabulary": 4096 if setting.small else VOCABULARY,
        "objective": "clm",
    }  # fmt: skip


def body(model: Any) -> tuple[int, int]:
    """Parameters that every token goes through, and those of the vocabulary, which only tokens that are read do."""
    total = sum(weight.numel() for weight in model.parameters())
    head = model.get_output_embeddings().weight.numel()
    return total - head, head


def lexicon() -> list[str]:
    """Words of two and three syllables."""
    generator = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    return sorted({"".join(generator.sample(syllables, generator.choice((2, 3)))) for _ in range(2 * WORDS)})[:WORDS]


@functools.cache
def tokenizer() -> Any:
    """A tokenizer for which each word of the lexicon and of a template is one token, a label one to five."""
    words = lexicon()
    texts = [" ".join(random.Random(number).sample(words, 50)) for number in range(400)]
    texts += [_frame(name).replace("\0", "") for name in LENGTHS if name != "2k"] * 40
    return pretraining.train_tokenizer([*texts, " ".join(PIECES * 8)], 3500, CONTEXT)


def _frame(name: str) -> str:
    """A task's prompt with nothing in its fields."""
    read = task.load(name)
    found = templates.template(read, "default")
    return templates.prompt(read, dict.fromkeys(templates.field_names(found), "\0"), "default")


@functools.cache
def room(name: str) -> int:
    """Tokens that a prompt as long as `LENGTHS` has it leaves to its fields."""
    return LENGTHS[name][0] - len(tokenizer()(_frame(name).replace("\0", ""))["input_ids"])


def text(generator: random.Random, words: Sequence[str], length: int) -> str:
    """So many words."""
    return " ".join(generator.choices(words, k=max(1, length)))


def examples(name: str, number: int, seed: int = 0) -> list[tuple[str, Example]]:
    """Rows of a task with random words, as long as `LENGTHS` has them, give or take a third."""
    generator, words, answer = random.Random(seed), lexicon(), LENGTHS[name][1]
    found = []
    for row in range(number):
        length = max(4, round(room(name) * generator.uniform(0.67, 1.33)))
        if name == "mnli":
            fields = {
                "premise": text(generator, words, 2 * length // 3),
                "hypothesis": text(generator, words, length // 3),
            }
            gold = generator.randrange(3)
            found.append((str(row), Example(fields, LABELS[gold], LABELS, gold)))
        elif name == "social_iqa":
            fields = {
                part: text(generator, words, length // 4) for part in ("context", "answerA", "answerB", "answerC")
            }
            found.append((str(row), Example(fields, text(generator, words, answer - 1))))
        else:
            fields = {"document": text(generator, words, length)}
            found.append((str(row), Example(fields, text(generator, words, answer - 1))))
    return found


def lesson_rows(kind: str, number: int, limit: int = CONTEXT, seed: int = 0) -> list[Masked]:
    """Rows of random token ids to tune on: as long as `LENGTHS` has them, give or take a third; of `2k` all as long."""
    generator, (prompt, answer) = random.Random(seed), LENGTHS[kind]
    found = []
    for _ in range(number):
        share = 1.0 if kind == "2k" else generator.uniform(0.67, 1.33)
        length = min(limit - answer, max(2, round(prompt * share)))
        ids = generator.choices(range(2, 2000), k=length + answer)
        found.append(Masked(ids, [False] * length + [True] * answer))
    return found


def prompts(tokenizer: Any, name: str, number: int, shots: int, room: int) -> list[str]:
    """The prompts of a test with demonstrations."""
    shown, test = examples(name, shots, 1), examples(name, number)
    framing = Framing(task.load(name), "default", "sound", tuple(example for _, example in shown), room)
    return [fitted(tokenizer, framing, example).text for _, example in test]


def recipe(method: str, precision: str, tokens: int, batch: int = 8) -> dict[str, Any]:
    """The defaults of the schema, as far as tuning and `resources` read them."""
    return {
        "method": method, "learning_rate": 2e-6, "epochs": 1, "batch": batch, "max_tokens": tokens, "warmup": 0.0,
        "schedule": "constant", "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "clip": 1.0,
        "precision": precision, "save_every": 10**9, "lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.0, "gpus": 1,
        "examples": 6000,
    }  # fmt: skip


def suite(tests: Sequence[str], precision: str, batch_tokens: int = 8192) -> dict[str, Any]:
    """The defaults of the schema, as far as prediction and `resources` read them."""
    return {
        "protocol": "sound", "labels": "score", "seed": 0, "new_tokens": 60, "batch_tokens": batch_tokens,
        "precision": precision, "tests": list(tests), "formats": ["default"], "shots": [0], "gpus": 1, "limit": 2000,
    }  # fmt: skip


def evaluated(model: Any, tokenizer: Any, name: str, rows: int, shots: int) -> list[dict[str, Any]]:
    """Predictions of a test as a study makes them, from texts to outputs."""
    run = prediction.Evaluation(model, tokenizer, suite([name], "bf16"))
    read = task.load(name)
    return prediction.predict_test(run, read, examples(name, 100, 1), examples(name, rows), "default", shots)


def spread(values: Sequence[float]) -> float:
    """The median."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else sum(itertools.islice(ordered, middle - 1, middle + 1)) / 2
