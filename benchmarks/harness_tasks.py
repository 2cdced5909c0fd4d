"""Shipped tasks of lm-evaluation-harness, evaluated by Tunecast and by the harness: same log-likelihoods, texts and scores?

Run from the repository's root: `PYTHONPATH=. python benchmarks/harness_tasks.py`, with `--data FOLDER` for rows of one's own, in
the layout of `data_root`. Other rows are made here, in the schemas of the hub. Both sides read the task files of the installed
package, whose rows the harness is pointed to, and a small random model. Prints a Markdown table, and exits with 1 where any
number differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from workflow import registry, task
from workflow.data import lm_eval_tasks
from workflow.evaluation import metrics, prediction
from workflow.statistics import Resampling
from workflow.storage import tables

WORDS = [
    "river",
    "stone",
    "light",
    "water",
    "green",
    "seven",
    "sun",
    "apple",
    "bridge",
    "cloud",
    "seed",
    "iron",
    "bird",
    "paper",
    "north",
]
Row = dict[str, Any]
Make = Callable[[random.Random], Row]


def words(draw: random.Random, count: int) -> str:
    """Some words."""
    return " ".join(draw.choices(WORDS, k=count))


def arc(draw: random.Random) -> Row:
    """A row of ai2_arc or commonsense_qa."""
    labels = "ABCDE"
    texts = draw.sample(WORDS, 5)
    question = f"What is {words(draw, 4)}?"
    return {
        "id": str(draw.random()), "question": question, "question_stem": question,
        "choices": {"text": texts, "label": list(labels)}, "answerKey": draw.choice(labels),
    }  # fmt: skip


def sciq(draw: random.Random) -> Row:
    """A row of sciq."""
    names = ("distractor1", "distractor2", "distractor3", "correct_answer")
    texts = draw.sample(WORDS, 4)
    return {"question": f"Which {words(draw, 3)}?", "support": words(draw, 12), **dict(zip(names, texts, strict=True))}


def piqa(draw: random.Random) -> Row:
    """A row of piqa."""
    return {"goal": words(draw, 4), "sol1": words(draw, 6), "sol2": words(draw, 5), "label": draw.randrange(2)}


def pair(draw: random.Random) -> Row:
    """A row of GLUE, ANLI or BoolQ."""
    names = ("sentence1", "sentence2", "sentence", "question", "passage", "premise", "hypothesis")
    return {name: words(draw, 6) for name in names} | {"label": draw.randrange(2), "idx": draw.randrange(10**6)}


def mmlu(draw: random.Random) -> Row:
    """A row of MMLU."""
    return {
        "question": f"{words(draw, 5)}?",
        "choices": draw.sample(WORDS, 4),
        "answer": draw.randrange(4),
        "subject": "x",
    }


def gsm8k(draw: random.Random) -> Row:
    """A row of GSM8K."""
    first, second = draw.randrange(9), draw.randrange(9)
    sum_ = first + second
    return {
        "question": f"Ann has {first} apples and finds {second}. How many has she?",
        "answer": f"She has {first} + {second} = <<{first}+{second}={sum_}>>{sum_}.\n#### {sum_}",
    }


def nq_open(draw: random.Random) -> Row:
    """A row of nq_open."""
    return {"question": f"where is {words(draw, 2)}", "answer": [words(draw, 1), words(draw, 2)]}


def triviaqa(draw: random.Random) -> Row:
    """A row of trivia_qa."""
    return {
        "question": f"Which {words(draw, 3)}",
        "answer": {"aliases": [words(draw, 1), words(draw, 1)], "value": "x"},
    }


def swag(draw: random.Random) -> Row:
    """A row of swag."""
    endings = {f"ending{number}": words(draw, 4) for number in range(4)}
    return {"startphrase": words(draw, 5), "label": draw.randrange(4), **endings}


def truthful(draw: random.Random) -> Row:
    """A row of truthful_qa, whose numbers of choices differ."""
    texts = draw.sample(WORDS, draw.randrange(2, 6))
    return {
        "question": f"Is {words(draw, 3)}?",
        "mc1_targets": {"choices": texts, "labels": [1] + [0] * (len(texts) - 1)},
    }


MAKERS: dict[str, Make] = {
    "arc_easy": arc, "arc_challenge": arc, "openbookqa": arc, "commonsense_qa": arc, "sciq": sciq, "piqa": piqa,
    "boolq": pair, "rte": pair, "qnli": pair, "sst2": pair, "wnli": pair, "anli_r1": pair, "swag": swag,
    "mmlu_abstract_algebra": mmlu, "mmlu_anatomy": mmlu, "truthfulqa_mc1": truthful,
    "gsm8k": gsm8k, "gsm8k_cot": gsm8k, "nq_open": nq_open, "triviaqa": triviaqa,
}  # fmt: skip


def laid_out(names: Sequence[str], data: Path | None, root: Path, rows: int) -> None:
    """Rows of each task that are read: the user's first ones, else made ones."""
    for number, name in enumerate(names):
        read = task.load(name)
        for split in [split for split in task.splits(read) if split not in read.inline]:
            own = data / name / f"{split}.jsonl" if data else None
            draw = random.Random(f"{number} {split}")
            lines = (
                own.read_text(encoding="utf-8").splitlines()[:rows]
                if own and own.is_file()
                else [json.dumps(MAKERS[name](draw)) for _ in range(rows)]
            )
            path = root / name / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def pointed(blocks: Mapping[str, Any], root: Path, folder: Path) -> None:
    """The task files, with their rows read from a folder, for the harness."""
    folder.mkdir()
    for name, block in blocks.items():
        read = task.load(name)
        splits = [split for split in task.splits(read) if split not in read.inline]
        files = {split: str(root / name / f"{split}.jsonl") for split in splits}
        keys = {"training_split", "validation_split", "test_split"}
        config = {key: value for key, value in block["lm_eval"].items() if key not in keys or value in files}
        config |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def small_model() -> tuple[Any, Any]:
    """A random Llama with a tokenizer of words and bytes."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [json.dumps(make(random.Random(seed))) for make in MAKERS.values() for seed in range(20)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=600, special_tokens=["<eos>"], initial_alphabet=alphabet)
    )
    set_seed(0)
    config = LlamaConfig(
        vocab_size=600, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=1024, initializer_range=0.4, bos_token_id=None, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval(), PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>"
    )


def ours(
    model: Any, tokenizer: Any, names: Sequence[str], root: Path
) -> tuple[dict[str, list[Row]], dict[tuple[str, str], float]]:
    """Predictions and scores of all tasks by Tunecast, with the shots of their files."""
    import pyarrow as pa

    found: dict[str, list[Row]] = {}
    for name in names:
        read, path = task.load(name), root / f"{name}.parquet"
        tables.write(list(task.prepared(name, str(root))), tables.EXAMPLES, path, task=name)
        assert read.lm_eval is not None
        suite: Any = {"protocol": "sound", "labels": "score", "seed": 0, "new_tokens": 1, "batch_tokens": 8192,
                      "tests": [name], "formats": ["lm_eval"], "shots": [read.lm_eval.shots or 0]}  # fmt: skip
        found[name] = list(prediction.predict(model, tokenizer, suite, {name: task.tested(name, path)}))
    frame = tables.frame(
        pa.Table.from_pylist([row for rows in found.values() for row in rows], schema=tables.PREDICTIONS)
    )
    scores, _ = metrics.scored(frame, suite, Resampling(resamples=100, level=0.95, seed=0))
    return found, {(row["test"], row["metric"]): row["value"] for row in scores}


def theirs(model: Any, tokenizer: Any, names: Sequence[str], folder: Path) -> Any:
    """Results of the harness."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    return lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, device="cpu"),
        tasks=list(names),
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        verbosity="ERROR",
    )


def compared(name: str, rows: Sequence[Row], samples: Sequence[Row]) -> tuple[float, int]:
    """The largest difference of log-likelihoods, and how many texts differ, of one task."""
    first = samples[0]["filter"]
    ordered = sorted((row for row in samples if row["filter"] == first), key=lambda row: row["doc_id"])
    gap, texts = 0.0, 0
    for own, other in zip(rows, ordered, strict=True):
        if isinstance(other["resps"][0][0], str):
            texts += own["output"] != other["resps"][0][0]
        else:
            pairs = zip([*own["logprobs"], *own["priors"]], other["resps"], strict=True)
            # The harness adds up in single precision, so for long continuations the last digits of large sums differ.
            gap = max([gap, *(_gap(value, float(response[0][0])) for value, response in pairs)])
    return gap, texts


def _gap(own: float, other: float) -> float:
    """The difference of two log-likelihoods, relative to those beyond 100 nats."""
    return abs(own - other) / max(1.0, abs(other) / 100)


def main() -> int:
    """Print a row for each task; 1 where a number differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of rows, as data_root")
    parser.add_argument("--rows", type=int, default=12, help="rows of each split")
    parser.add_argument("--tasks", nargs="*", default=list(MAKERS))
    options = parser.parse_args()
    settings: Any = {"include_path": "default", "tasks": options.tasks, "fewshot_seed": lm_eval_tasks.SEED}
    blocks, _, lines = lm_eval_tasks.blocks(settings, None)
    if lines:
        sys.exit("\n".join(lines))
    registry.declare({"tasks": blocks})
    data = options.data.resolve() if options.data else None
    wrong = 0
    with tempfile.TemporaryDirectory() as place:
        os.environ["HF_DATASETS_CACHE"] = f"{place}/cache"
        os.chdir(place)
        laid_out(options.tasks, data, Path(place) / "rows", options.rows)
        pointed(blocks, Path(place) / "rows", Path(place) / "files")
        model, tokenizer = small_model()
        start = time.process_time()
        rows, scores = ours(model, tokenizer, options.tasks, Path(place) / "rows")
        middle = time.process_time()
        results = theirs(model, tokenizer, options.tasks, Path(place) / "files")
        end = time.process_time()
        print("| task | shots | rows | largest difference of log-likelihoods | other texts | scores, both |")
        print("|---|---|---|---|---|---|")
        for name in options.tasks:
            gap, texts = compared(name, rows[name], results["samples"][name])
            pairs = {
                key.removesuffix(",none"): (scores[name, key.removesuffix(",none")], value)
                for key, value in results["results"][name].items()
                if "," in key and "_stderr" not in key
            }
            told = ", ".join(
                f"{metric} {own:.3f}" + ("" if abs(own - other) < 1e-9 else f" (harness {other:.3f})")
                for metric, (own, other) in pairs.items()
            )
            wrong += gap > 1e-4 or texts > 0 or any(abs(own - other) >= 1e-9 for own, other in pairs.values())
            shots = task.load(name).lm_eval.shots or 0  # type: ignore[union-attr]  # all are tasks of the harness
            print(f"| {name} | {shots} | {len(rows[name])} | {gap:.1e} | {texts} | {told} |", flush=True)
    print(
        f"\n{len(options.tasks)} tasks, {wrong} differ; CPU time: Tunecast {middle - start:.1f} s, harness {end - middle:.1f} s"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
