"""Tuning against transformers' Trainer and TRL's SFTTrainer: time of the same steps on the same rows, and their losses.

Run from the repository's root: `PYTHONPATH=. python benchmarks/tuning.py --data FOLDER --compared 50`; `--threads 2` for two
threads. Prints Markdown tables. On a GPU: `python -m benchmarks.gpu`.

A run is so many optimizer steps (--steps) on batches of 8 rows, tokenised before, from the start of a training to its end.
The peers run as they come: rows padded to the longest of a batch, loss on the completion alone; TRL without recomputing
activations, which it does by default. SFTTrainer takes part where TRL is installed (it is in no lock). --compared: so many
steps of the Trainer with Tunecast's loss, every row with the same weight, whose losses and weights are then compared.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import operator
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import pairing

from workflow.models.encoding import Masked, padding
from workflow.training import finetuning, saved_state

BATCH, SEED = 8, 0
OURS, TRAINER, TRL = "Tunecast", "HF Trainer", "TRL SFTTrainer"
TASKS = ("mnli", "social_iqa", "xsum")


# The defaults of the schema, as far as tuning reads them.
RECIPE = {
    "learning_rate": 2e-5, "epochs": 1, "batch": BATCH, "max_tokens": 2048, "warmup": 0.03, "schedule": "linear",
    "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "clip": 1.0, "precision": "fp32",
    "save_every": 10**9,
}  # fmt: skip


def labels(row: Masked) -> list[int]:
    """Labels in transformers' way: -100 where a token is not scored."""
    return [token if scored else -100 for token, scored in zip(row.ids, row.scored, strict=True)]


def rows_alike(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """Tunecast's loss from a Trainer's outputs: every row with the same weight."""
    targets = labels[:, 1:]
    own = torch.nn.functional.cross_entropy(outputs.logits[:, :-1].float().transpose(1, 2), targets, reduction="none")
    return (own.sum(dim=1) / (targets != -100).sum(dim=1)).mean()


class Bench:
    """One model and the rows that it is tuned on, by each of the ways."""

    def __init__(self, model: Any, tokenizer: Any, rows: Sequence[Masked], folder: Path) -> None:
        self.model, self.tokenizer, self.folder = model, tokenizer, folder
        self.given, self.rows = rows, [rows[place] for place in finetuning.order(len(rows), 1, SEED)]

    def ours(self) -> Callable[[], list[float]]:
        """Tunecast's own tuning; a run returns the losses of its steps."""
        model, pad = copy.deepcopy(self.model), padding(self.tokenizer)

        def run() -> list[float]:
            state = saved_state.State(self.folder / "state", "benchmark")
            return [row["loss"] for row in finetuning.tune(model, self.given, RECIPE, SEED, pad, state)]

        self.tuned = model
        return run

    def settings(self, **more: Any) -> dict[str, Any]:
        """The recipe in the words of transformers' TrainingArguments; rows in the order that they have."""
        return {
            "output_dir": str(self.folder / "trainer"), "per_device_train_batch_size": BATCH, "num_train_epochs": 1,
            "learning_rate": RECIPE["learning_rate"], "lr_scheduler_type": "linear",
            "warmup_steps": int(RECIPE["warmup"] * -(-len(self.rows) // BATCH)), "max_grad_norm": 1.0,
            "weight_decay": 0.0, "train_sampling_strategy": "sequential", "logging_strategy": "no",
            "save_strategy": "no", "report_to": [], "disable_tqdm": True, "use_cpu": True, "seed": SEED,
            "dataloader_pin_memory": False,
        } | more  # fmt: skip

    def trainer(self, loss: Callable[..., torch.Tensor] | None = None) -> Any:
        """Transformers' Trainer, rows padded on the right by its own collator."""
        from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

        data = [{"input_ids": row.ids, "labels": labels(row)} for row in self.rows]
        return quiet(Trainer(
            model=copy.deepcopy(self.model), args=TrainingArguments(**self.settings()), train_dataset=data,
            data_collator=DataCollatorForSeq2Seq(self.tokenizer), compute_loss_func=loss,
        ))  # fmt: skip

    def sft(self) -> Any:
        """TRL's SFTTrainer, loss on the completion alone."""
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        data = [{"input_ids": row.ids, "completion_mask": [int(scored) for scored in row.scored]} for row in self.rows]
        settings = self.settings(max_length=2048, gradient_checkpointing=False, completion_only_loss=True)
        return quiet(SFTTrainer(
            model=copy.deepcopy(self.model), args=SFTConfig(**settings), train_dataset=Dataset.from_list(data),
            processing_class=self.tokenizer,
        ))  # fmt: skip

    def ways(self, wanted: Sequence[str]) -> dict[str, Callable[[], Any]]:
        """Those of the ways that are wanted and installed."""
        makers = {OURS: self.ours, TRAINER: lambda: self.trainer().train, TRL: lambda: self.sft().train}
        here = importlib.util.find_spec("trl") is not None
        return {name: make() for name, make in makers.items() if name in wanted and (name != TRL or here)}


def quiet(trainer: Any) -> Any:
    """A trainer that prints nothing between the tables."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    return trainer


def compared(bench: Bench) -> dict[str, str]:
    """Largest differences to a Trainer with the same loss: of the steps' losses, and of the weights in the end."""
    theirs: list[float] = []

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        found = rows_alike(outputs, labels)
        theirs.append(float(found.detach()))
        return found

    own = bench.ours()()
    trainer = bench.trainer(loss)
    trainer.train()
    weights = dict(trainer.model.named_parameters())
    apart = max(
        float((parameter - weights[name]).detach().abs().max()) for name, parameter in bench.tuned.named_parameters()
    )
    worst = max(abs(one - other) for one, other in zip(own, theirs, strict=True))
    return {"steps": str(len(own)), "loss, largest difference": f"{worst:.1e}", "weights": f"{apart:.1e}"}


def measured(bench: Bench, options: Any) -> list[dict[str, str]]:
    """A row for each way: seconds, ratio to the Trainer, tokens in a second."""
    ways = bench.ways(options.way)
    seconds, _ = pairing.paired(ways, options.pairs)
    peers = [name for name in (TRAINER, TRL) if name in ways] or [OURS]
    tables = [pairing.compared(seconds, peer) for peer in peers]
    rows = [functools.reduce(operator.or_, columns) for columns in zip(*tables, strict=True)]
    tokens = sum(len(row.ids) for row in bench.rows)
    return [row | {"tokens/s": f"{tokens / statistics.median(seconds[row['way']]):,.0f}"} for row in rows]


def main() -> None:
    """Print a table for each task."""
    parser = pairing.parser(__doc__)
    parser.add_argument("--task", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--way", nargs="+", choices=(OURS, TRAINER, TRL), default=(OURS, TRAINER, TRL))
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps in a run")
    parser.add_argument("--compared", type=int, default=0, help="steps whose losses are compared; 0: none")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.model:
        model, tokenizer = pairing.prepared(options, [])
    else:
        tokenizer = pairing.words(options.data, options.task)
        model = pairing.subject(tokenizer)
    print(pairing.machine())
    print(f"{pairing.parameters(model) / 1e6:.1f} M parameters, {options.threads} threads\n")
    for name in options.task:
        with tempfile.TemporaryDirectory() as folder:
            read = pairing.task.load(name)
            found = pairing.examples(options.data, name, "train", BATCH * max(options.steps, options.compared))
            rows = list(finetuning.prepared_rows(tokenizer, 2048, read, found, "default", RECIPE).values())
            bench = Bench(model, tokenizer, rows[: BATCH * options.steps], Path(folder))
            print(f"{name}, {options.steps} steps\n\n{pairing.table(measured(bench, options))}\n", flush=True)
            if options.compared:
                bench = Bench(model, tokenizer, rows[: BATCH * options.compared], Path(folder))
                print(pairing.table([compared(bench)]) + "\n", flush=True)


if __name__ == "__main__":
    main()
