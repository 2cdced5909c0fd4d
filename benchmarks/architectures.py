"""Every causal model of transformers that a small config builds, with tokenizers of twelve shapes, against one-row loops.

Run from the repository's root: `PYTHONPATH=.:tests python benchmarks/architectures.py`; `--only llama gpt2` for some
architectures, `--shapes bos eos` for some tokenizers, `--part 2/5` for a fifth of the architectures. Prints Markdown tables:
what agrees with the largest difference, what is refused with its line, what is neither. Exit status 1 for misfits.

For each pair a checkpoint is written, read as a study reads it, and run four ways: log-probabilities of choices, losses of
training rows, losses of windows of text, greedy texts. The loops read `tokenizer.json` by the tokenizers package and the
model by transformers, a row at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tokenizer_shapes as shapes
import torch
import transformers
from tokenizer_shapes import EOS, SHAPES, Shape
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from workflow import task
from workflow.data import prompts
from workflow.data.corpora import Document
from workflow.errors import StudyError
from workflow.evaluation import prediction
from workflow.evaluation.prediction import Evaluation
from workflow.indicators.measures import clm
from workflow.models import checkpoints, encoding
from workflow.models.encoding import Framing
from workflow.models.engine import feeding, losses
from workflow.task import Example
from workflow.training import finetuning

VOCABULARY = 560
SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embed_dim", "lru_width", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("embedding_size",), 32),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "d_ff", "ffn_hidden_size"), 64
    ),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "mlp_hidden_size", "inner_dim"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "kv_heads"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"), 512),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("n_shared_experts", "n_group", "topk_group"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(
        ("head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "rotary_ndims", "state_size"), 8
    ),
    **{"rotary_dim": 4, "time_step_rank": 4, "sliding_window": 64, "attention_window": 64, "mlp_ratio": 2},
    **{"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_expand": 2, "mamba_num_heads": 4, "mamba_head_dim": 16},
}
# Keys that are left at their defaults, one set after the other until a model builds and runs.
LEFT = (
    (),
    ("head_dim",),
    ("head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "q_lora_rank"),
    ("num_key_value_heads",),
    ("num_experts_per_tok", "moe_intermediate_size"),
    ("state_size", "num_heads", "head_dim"),
    ("layer_types",),
    ("layer_types", "num_hidden_layers", "num_key_value_heads", "head_dim"),
)
OWN: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "xlm-roberta": {"is_decoder": True},
    "bert": {"is_decoder": True},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "bamba": {"attn_layer_indices": [1], "mamba_d_state": 8},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_d_state": 8},
    "granitemoehybrid": {"mamba_d_state": 8},
    "prophetnet": {"num_encoder_layers": 2, "num_decoder_layers": 2},
    "zaya": {"num_experts_per_tok": 1},
    "glm4_moe_lite": {"num_key_value_heads": 4},  # its keys have as many heads as its queries
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2},
}
LARGEST = 3_000_000  # parameters
BUILD = 20  # seconds
LONGEST = 120  # seconds for one tokenizer; some models have no fast products for a CPU
NEAR = 2e-3  # nats; beyond, numbers are taken for a misfit
TIE = 1e-3  # nats between the two likeliest tokens, within which either may be written

TEXTS = (
    "In 2024 the cat's  owl\nsings. Ça va?",
    " The Barn \t holds 100 hens.",
)
RANKED = tuple(
    (f"r/{number}", Example({"question": text}, "the owl", ("the owl", "It's 2024.", " 3 hens"), 0))
    for number, text in enumerate(TEXTS)
)
WRITTEN = tuple((f"w/{number}", Example({"document": text}, "A cat.")) for number, text in enumerate(TEXTS))
SUITE = {"protocol": "sound", "labels": "score", "seed": 0, "new_tokens": 5, "batch_tokens": 2048, "precision": "fp32"}
RANK, WRITE = task.load("arc_easy"), task.load("xsum")
PAGE = [
    *TEXTS,
    *(f"Question: what can the {beast} do? Answer: it sings in the barn." for beast in ("cat", "owl", "hen")),
] * 3


class Found(NamedTuple):
    """What came of one architecture with one tokenizer: agrees, refused, misfit or raised; in nats, or why."""

    model: str
    shape: str
    outcome: str
    difference: float
    why: str


def small(model_type: str, left: Sequence[str] = ()) -> Any:
    """A config of a few thousand parameters; left: keys of SIZES that stay at their defaults."""
    kind = CONFIG_MAPPING[model_type]
    default = kind()
    settable = [key for key in (*SIZES, "layer_types") if key not in left and not _computed(kind, key)]
    sizes = {key: SIZES[key] for key in settable if key in SIZES and _given(default, key) is not None}
    if "layer_types" in settable and (types := _given(default, "layer_types")):
        kinds = list(dict.fromkeys(types))
        sizes["layer_types"] = kinds if len(kinds) > 1 else kinds * 2
        sizes |= {
            key: len(sizes["layer_types"]) for key in ("num_hidden_layers", "n_layer", "num_layers") if key in sizes
        }
    special = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    return kind(**sizes | special | OWN.get(model_type, {}))


def _computed(kind: type, key: str) -> bool:
    """Whether a key of a config class is computed from others, and cannot be given."""
    own = kind.attribute_map.get(key, key)
    return isinstance(getattr(kind, own, None), property)


def _given(config: Any, key: str) -> Any:
    """What a config has under a key; of keys that differ from layer to layer nothing."""
    try:
        return getattr(config, key, None)
    except Exception:  # transformers' error for such keys is none of its public names
        return None


@contextlib.contextmanager
def in_time(seconds: int) -> Iterator[None]:
    """TimeoutError after some seconds."""

    def late(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def built(model_type: str) -> torch.nn.Module:
    """A small random model that reads a row of tokens. Errors: whatever the last try raised."""
    last: Exception = ValueError("not tried")
    for left in LEFT:
        try:
            with in_time(BUILD):
                torch.manual_seed(0)
                config = small(model_type, left)
                with torch.device("meta"):
                    size = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
                if size > LARGEST:
                    raise ValueError(f"{size} parameters")
                model = AutoModelForCausalLM.from_config(config).eval()
                sharpened(model)
                scores = model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits
                if scores.shape != (1, 4, VOCABULARY):
                    raise ValueError(f"scores of shape {tuple(scores.shape)}")
                return model
        except Exception as error:  # of a hundred classes, each has its own
            last = error
    raise last


@torch.no_grad()
def sharpened(model: torch.nn.Module) -> None:
    """Larger matrices, so that what is read makes a difference to what is written."""
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.mul_(4)
    if not torch.isfinite(model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits).all():
        for name, weight in model.named_parameters():
            weight.copy_(before[name])


class Loop:
    """The plain way: raw ids, a row at a time."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.file = shapes.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.shape = shape
        self.opening = [self.file.token_to_id(token) for token in shape.before] or [self.file.token_to_id(EOS)]

    def parts(self, prompt: str, answer: str) -> tuple[list[int], list[int]]:
        """Ids of a prompt and of the answer behind it."""
        ids, ends = shapes.ids(self.file, self.shape, prompt + answer)
        cut = sum(end <= len(prompt) for end in ends)
        return ids[:cut] or self.opening, ids[cut:]

    @torch.no_grad()
    def scores(self, ids: Sequence[int]) -> torch.Tensor:
        """Log-probabilities after each token, shape (tokens, vocabulary)."""
        return self.model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].float().log_softmax(dim=-1)

    def loss(self, ids: Sequence[int], start: int) -> float:
        """Summed loss of the tokens from a place on."""
        scores = self.scores(ids)
        return -sum(float(scores[place - 1, ids[place]]) for place in range(start, len(ids)))

    def written(self, ids: Sequence[int], new_tokens: int) -> tuple[list[int], bool]:
        """Greedy ids up to EOS, and whether two tokens were ever so close that either could be written."""
        own, close = list(ids), False
        for _ in range(new_tokens):
            (first, second), (token, _) = self.scores(own)[-1].topk(2)
            close |= float(first - second) < TIE
            if int(token) == self.file.token_to_id(EOS):
                break
            own.append(int(token))
        return own[len(ids) :], close


def compared(folder: Path, shape: Shape, model: Any) -> float:
    """The largest difference between a study's ways and the loop, in nats. Errors: AssertionError for texts or tokens."""
    tokenizer, loop = checkpoints.load_tokenizer(folder), Loop(folder, shape)
    apart = [_scores(model, tokenizer, loop), _windows(model, tokenizer, loop)]
    for way in (_training, _texts):
        if tokenizer.eos_token_id is not None:
            apart.append(way(model, tokenizer, loop))
            continue
        with contextlib.suppress(StudyError):
            way(model, tokenizer, loop)
            raise AssertionError("goes on without an EOS")
    return max(apart)


def _scores(model: Any, tokenizer: Any, loop: Loop) -> float:
    """Log-probabilities of choices."""
    found = prediction.predict_test(Evaluation(model, tokenizer, SUITE), RANK, [], RANKED, "default", 0)
    differences = []
    for row, (_, example) in zip(found, RANKED, strict=True):
        text = prompts.prompt(RANK, example.fields, "default").rstrip(" ")
        for choice, value in zip(example.choices, row["logprobs"], strict=True):
            prompt, answer = loop.parts(text, prompts.completion(choice))
            differences.append(abs(value + loop.loss([*prompt, *answer], len(prompt))))
    return max(differences)


def _windows(model: Any, tokenizer: Any, loop: Loop) -> float:
    """Losses of text in windows."""
    documents = [Document("d", str(number), text) for number, text in enumerate(TEXTS)]
    pieces = list(clm.windows(tokenizer, documents, 16))
    read = losses.token_losses(
        model, [losses.Reading(piece.ids) for piece in pieces], encoding.padding(tokenizer), 2048
    )
    own = [shapes.ids(loop.file, loop.shape, text)[0] for text in TEXTS]
    cut = [ids[start : start + 16] for ids in own for start in range(0, len(ids), 16)]
    cut = [ids for ids in cut if len(ids) > 1]
    assert [piece.ids for piece in pieces] == cut, "windows have other tokens"
    return max(abs(float(values.sum()) - loop.loss(ids, 1)) for values, ids in zip(read, cut, strict=True))


def _training(model: Any, tokenizer: Any, loop: Loop) -> float:
    """Losses of training rows."""
    framing = Framing(RANK, "default", "sound", (), 256)
    rows = [finetuning.encode(tokenizer, framing, example) for _, example in RANKED]
    with feeding.losses(model, encoding.padding(tokenizer)) as read, torch.no_grad():
        sums, _ = read(rows)
    differences = []
    for found, row, (_, example) in zip(sums.tolist(), rows, RANKED, strict=True):
        prompt, answer = loop.parts(prompts.prompt(RANK, example.fields, "default"), prompts.completion(example.answer))
        ids = [*prompt, *answer, loop.file.token_to_id(EOS)]
        assert row.ids == ids and row.scored.index(True) == len(prompt), "training rows have other tokens"
        differences.append(abs(found - loop.loss(ids, len(prompt))))
    return max(differences)


def _texts(model: Any, tokenizer: Any, loop: Loop) -> float:
    """Greedy texts: 0 where they agree."""
    found = prediction.predict_test(Evaluation(model, tokenizer, SUITE), WRITE, [], WRITTEN, "default", 0)
    stops = prompts.stops(WRITE, "default")
    for row, (_, example) in zip(found, WRITTEN, strict=True):
        prompt = shapes.ids(loop.file, loop.shape, prompts.prompt(WRITE, example.fields, "default"))[0] or loop.opening
        ids, close = loop.written(prompt, SUITE["new_tokens"])
        text = prediction.cut_at_stop(loop.file.decode(ids, skip_special_tokens=True), stops)
        assert close or row["output"] == text, f"text {row['output']!r} instead of {text!r}"
    return 0.0


def tried(model_type: str, names: Sequence[str], place: Path) -> Iterator[Found]:
    """One architecture with each tokenizer."""
    folder = place / model_type
    built(model_type).save_pretrained(folder)
    try:
        model = checkpoints.load_model(folder, torch.float32, "cpu")
    except StudyError as error:
        yield Found(model_type, "any", "refused", 0.0, str(error).replace(str(folder), ""))
        return
    for name in names:
        shapes.save(TOKENIZERS[name], SHAPES[name], folder, picked=None)
        try:
            checkpoints.check(folder)
            with in_time(LONGEST):
                difference = compared(folder, SHAPES[name], model)
            yield Found(model_type, name, "agrees" if difference <= NEAR else "misfit", difference, "")
        except StudyError as error:
            yield Found(model_type, name, "refused", 0.0, str(error).replace(str(folder), ""))
        except AssertionError as error:
            yield Found(model_type, name, "misfit", 0.0, str(error))
        except Exception as error:  # a user would see it as a traceback
            yield Found(model_type, name, "raised", 0.0, f"{type(error).__name__}: {str(error).splitlines()[0][:120]}")


TOKENIZERS = {name: shapes.tokenizer(shape, PAGE, 480) for name, shape in SHAPES.items()}


def part(types: Sequence[str], wanted: str) -> list[str]:
    """The architectures of one part of several, such as 2/5."""
    number, parts = map(int, wanted.split("/"))
    return list(itertools.islice(types, number - 1, None, parts))


def report(found: Sequence[Found], unbuilt: dict[str, str], seconds: float) -> None:
    """Tables of what came of it."""
    agreeing = [one for one in found if one.outcome == "agrees"]
    models = len({one.model for one in found})
    print(
        f"\n{len(found)} pairs of {models} architectures, {seconds:.0f} s of CPU; {len(unbuilt)} architectures not built"
    )
    if agreeing:
        worst = max(agreeing, key=lambda one: one.difference)
        print(f"agree: {len(agreeing)}; worst difference {worst.difference:.2g} nats ({worst.model}, {worst.shape})")
    for outcome in ("misfit", "raised", "refused"):
        own = [one for one in found if one.outcome == outcome]
        print(f"\n{outcome}: {len(own)}\n\n| architecture | tokenizers | nats | why |\n|---|---|---|---|")
        for (model, why), group in itertools.groupby(own, key=lambda one: (one.model, one.why)):
            ones = list(group)
            print(
                f"| {model} | {', '.join(one.shape for one in ones)} | {max(one.difference for one in ones):.2g} | {why} |"
            )
    print("\nnot built:", "; ".join(f"{name} ({why})" for name, why in unbuilt.items()) or "none")


def main() -> int:
    """The sweep; 1 where something is wrong without a word, or a traceback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--part", default="1/1")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity(50)
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    found: list[Found] = []
    unbuilt: dict[str, str] = {}
    begun = time.process_time()
    for model_type in part(given.only, given.part):
        with tempfile.TemporaryDirectory() as place:
            try:
                found += tried(model_type, given.shapes, Path(place))
            except Exception as error:  # of a class that no small config builds
                unbuilt[model_type] = f"{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"
        own = [one for one in found if one.model == model_type]
        worst = max((one.difference for one in own), default=0.0)
        print(model_type, *{one.outcome for one in own}, f"{worst:.2g}", file=sys.stderr, flush=True)
    report(found, unbuilt, time.process_time() - begun)
    return int(any(one.outcome in ("misfit", "raised") for one in found))


if __name__ == "__main__":
    sys.exit(main())
