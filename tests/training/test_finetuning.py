"""Tuning against plain torch loops, transformers' schedules and peft; killed runs against unbroken ones."""

import contextlib
import functools
import json
import math
import os
import random
import signal
from pathlib import Path

import pytest
import torch
import transformers
from conftest import ARCHITECTURES, loss_of
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from workflow import task
from workflow.errors import DivergedError, StoppedError, StudyError
from workflow.models import loading
from workflow.models.encoding import Masked, padding
from workflow.models.engine import attention, feeding
from workflow.models.engine.losses import Reading, token_losses
from workflow.study import config
from workflow.task import Example
from workflow.training import finetuning, saved_state

LABELS = ("entailment", "neutral", "contradiction")
SUBJECTS = ("cat", "dog", "owl that sings a song", "trout", "hen in the barn")
EXAMPLES = [
    Example({"premise": f"Ann has a {one}.", "hypothesis": f"A {other} can fly."}, LABELS[number % 3], LABELS, number % 3)
    for number, (one, other) in enumerate((one, other) for one in SUBJECTS for other in SUBJECTS)
]  # fmt: skip


def recipe(**changes):
    """A recipe with the defaults of the schema, where not changed."""
    given = {"learning_rate": 1e-3, "epochs": 2, "batch": 4, "max_tokens": 128, "save_every": 3, **changes}
    whole = config.validated(
        {
            "families": {"x": {"source": "folder", "path": "x"}},
            "suites": {"s": {"tests": ["mnli"]}},
            "recipes": {"r": given},
        }
    )
    return whole["recipes"]["r"]


def prepared(tokenizer, name, examples, format="default", context=256, **changes):
    """Rows of the examples, named by their number."""
    named = [(str(number), example) for number, example in enumerate(examples)]
    return finetuning.prepared_rows(tokenizer, context, task.load(name), named, format, recipe(**changes))


def encoded(tokenizer, examples=EXAMPLES, **changes):
    """Rows in random order."""
    drawn, _ = finetuning.divided(examples, recipe(**changes))
    return list(prepared(tokenizer, "mnli", drawn, **changes).values())


def lesson(prompt, completion):
    """A row whose completion alone is scored."""
    return Masked(prompt + completion, [False] * len(prompt) + [True] * len(completion))


def parted(row):
    """Prompt and completion of a row whose scored tokens are its last."""
    length = row.scored.count(False)
    assert row.scored == [False] * length + [True] * (len(row.ids) - length)
    return row.ids[:length], row.ids[length:]


def fresh(checkpoint):
    """The checkpoint's model anew, to be changed."""
    return loading.untouched({"path": str(checkpoint.path)})[0]


def state(folder, fingerprint="a"):
    return saved_state.State(Path(folder) / "state.safetensors", fingerprint)


# Examples


def test_examples_are_encoded_with_answer_and_eos(checkpoint):
    tokenizer = checkpoint.tokenizer
    [row] = encoded(tokenizer, EXAMPLES[:1])
    prompt, completion = parted(row)
    text = "### Input_1: Ann has a cat.\n ### Input_2: A cat can fly.\n ### Inference:"
    assert prompt == tokenizer(text)["input_ids"]
    assert completion == [
        *tokenizer(" entailment", add_special_tokens=False)["input_ids"],
        tokenizer.eos_token_id,
    ]


def test_a_lead_is_learned_with_the_answer(checkpoint):
    read = task.load("winogrande")
    example = read.read({"sentence": "Ann said _ sings.", "option1": "the owl", "option2": "the hen", "answer": "2"})
    prompt, completion = parted(prepared(checkpoint.tokenizer, "winogrande", [example])["0"])
    assert checkpoint.tokenizer.decode(prompt, skip_special_tokens=True) == "Ann said"
    assert checkpoint.tokenizer.decode(completion[:-1]) == " the hen sings."


@pytest.mark.parametrize("format", ["default", "io", "instruct"])
def test_no_row_is_longer_than_the_recipe_and_the_context_allow(checkpoint, format):
    long = Example({"premise": "A cat sleeps. " * 60, "hypothesis": "A dog sings. " * 50}, "neutral", LABELS, 1)
    for limit, context in ((90, 256), (2048, 90)):
        row = prepared(checkpoint.tokenizer, "mnli", [long], format, context, max_tokens=limit)["0"]
        assert 90 - 2 <= len(row.ids) <= 90
        answer = checkpoint.tokenizer(" neutral", add_special_tokens=False)["input_ids"]
        assert parted(row)[1] == [*answer, checkpoint.tokenizer.eos_token_id]


def test_the_sample_of_examples_depends_on_its_own_seed_alone():
    drawn, rest = finetuning.divided(EXAMPLES, recipe(examples=10))
    assert len({id(example) for example in drawn}) == 10 and rest == []
    assert drawn == finetuning.divided(EXAMPLES, recipe(examples=10, learning_rate=1.0, batch=2))[0]
    assert drawn != finetuning.divided(EXAMPLES, recipe(examples=10, sample_seed=1))[0]
    assert drawn[:4] == finetuning.divided(EXAMPLES, recipe(examples=4))[0]
    for every in (recipe(), recipe(examples=99), recipe(fraction=1.0)):
        assert sorted(map(id, finetuning.divided(EXAMPLES, every)[0])) == sorted(map(id, EXAMPLES))


@pytest.mark.parametrize(("fraction", "number"), [(0.1, 2), (0.5, 12), (0.22, 6), (0.001, 1)])
def test_a_fraction_is_a_share_of_the_rows_rounded_and_never_none(fraction, number):
    """Of 25 rows: 2.5 and 12.5 go to the even number, as Python rounds."""
    drawn, _ = finetuning.divided(EXAMPLES, recipe(fraction=fraction))
    assert drawn == finetuning.divided(EXAMPLES, recipe(examples=number))[0] and len(drawn) == number


SEARCH = {"learning_rate": [1e-3, 1e-4], "search": {"validation": 5}}


@pytest.mark.parametrize(
    ("changes", "number"), [({"examples": 10}, 10), ({"fraction": 0.4}, 10), ({}, 20), ({"examples": 20}, 20)]
)
def test_a_search_holds_out_the_rows_after_those_it_trains_on(changes, number):
    train, held = finetuning.divided(EXAMPLES, recipe(**SEARCH, **changes))
    everything, _ = finetuning.divided(EXAMPLES, recipe())
    assert (train, held) == (everything[:number], everything[number : number + 5])
    if "examples" in changes:
        assert train == finetuning.divided(EXAMPLES, recipe(**changes))[0], "a search leaves the training rows alone"


@pytest.mark.parametrize(
    ("changes", "number"), [({"examples": 21}, 21), ({"fraction": 0.9}, 22), ({"search": {"validation": 25}}, 1)]
)
def test_a_search_among_too_few_rows_is_refused(changes, number):
    held = changes.get("search", SEARCH["search"])["validation"]
    message = (
        f"^25 training rows are too few for {number} to train on and {held} for validation; lower examples, fraction"
    )
    with pytest.raises(StudyError, match=message):
        finetuning.divided(EXAMPLES, recipe(**SEARCH | changes))


# Loss


def loop_losses(model, rows):
    """Losses of each row's scored tokens: one unpadded row at a time, all logits."""
    losses = []
    for row in rows:
        logprobs = model(input_ids=torch.tensor([row.ids])).logits[0].float().log_softmax(dim=-1)
        losses.append([-logprobs[place - 1, row.ids[place]] for place, scored in enumerate(row.scored) if scored])
    return losses


def loop_loss(model, rows):
    """Mean over rows of the mean loss of a row's scored tokens."""
    return torch.stack([torch.stack(losses).mean() for losses in loop_losses(model, rows)]).mean()


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


WAYS = {
    "packed": lambda patch: patch.setattr(feeding, "WORTH", 0),
    "narrowed": lambda patch: patch.setattr(feeding, "WORTH", 1),
    "padded": lambda patch: patch.setattr(attention, "packable", lambda model: False),
}


@pytest.mark.parametrize("way", WAYS)
def test_loss_and_gradients_equal_an_unpadded_loop(checkpoint, monkeypatch, way):
    """Prompts and completions of different lengths, among them one token of each, and gaps between scored tokens."""
    WAYS[way](monkeypatch)
    model, tokenizer = fresh(checkpoint), checkpoint.tokenizer
    end = tokenizer.eos_token_id
    short = [lesson([9], [end]), lesson([9] * 40, [5, 6, end]), lesson([7], [5] * 30)]
    gaps = Masked([9, 8, 7, 6, 5, end, 4, 4, 5, end], [place in (1, 4, 5, 9) for place in range(10)])
    rows = [*encoded(tokenizer, EXAMPLES[:5]), *short, gaps]
    loss = loss_of(model, rows, padding(tokenizer))
    expected = loop_loss(model, rows)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5, rel=0)
    found, wanted = gradients(model, loss), gradients(model, expected)
    assert max(float(gradient.abs().max()) for gradient in wanted.values()) > 0.05
    for name, gradient in wanted.items():
        torch.testing.assert_close(
            found[name], gradient, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


# A recurrent state reads padding as it reads text; another architecture gives all columns, whatever it is asked for.
UNPACKED = {
    "rwkv": lambda: transformers.RwkvConfig(vocab_size=90, hidden_size=32, num_hidden_layers=2, context_length=64),
    "xlstm": lambda: transformers.xLSTMConfig(
        vocab_size=90, hidden_size=32, embedding_dim=32, num_hidden_layers=2, num_blocks=2, num_heads=4, use_cache=False
    ),
}


@pytest.mark.parametrize("name", UNPACKED)
def test_losses_are_those_of_rows_alone_whatever_the_architecture(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = transformers.AutoModelForCausalLM.from_config(UNPACKED[name]()).eval()
    rows = [lesson([9, 8, 7, 6, 5, 4, 9, 8], [5, 6, 7]), lesson([11], [12]), lesson([13, 14, 15], [16, 17])]
    with torch.no_grad(), feeding.losses(model, 0) as read:
        sums, counts = read(rows)
        expected = [float(sum(losses)) for losses in loop_losses(model, rows)]
    assert not attention.packable(model) and counts.tolist() == [3, 1, 2]
    assert sums.tolist() == pytest.approx(expected, abs=1e-4, rel=0)
    readings = [Reading(row.ids, row.scored.index(True)) for row in rows]
    measured = [float(found.sum()) for found in token_losses(model, readings, 0, 1000)]
    assert measured == pytest.approx(expected, abs=1e-4, rel=0)


def test_shards_of_a_model_whose_rows_have_to_be_apart_are_refused(monkeypatch):
    monkeypatch.setattr(feeding.process_group, "rank_and_size", lambda: (0, 2))
    model = transformers.AutoModelForCausalLM.from_config(UNPACKED["rwkv"]()).eval()
    monkeypatch.setattr(feeding, "ignores_padding", lambda model, pad: False)
    with pytest.raises(StudyError, match=r"^recipes/gpus: rows of RwkvForCausalLM cannot share a batch"):
        feeding.losses(model, 0).__enter__()


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama"])
def test_the_eos_is_learned_where_it_is_the_padding_too(architecture, checkpoints, tmp_path):
    """A model tuned to answer with EOS at once does so, and its loss is EOS's own."""
    model, tokenizer = fresh(checkpoints[architecture]), checkpoints[architecture].tokenizer
    end = tokenizer.eos_token_id
    assert padding(tokenizer) == end
    asked = [parted(row)[0] for row in encoded(tokenizer)]
    rows = [lesson(prompt, [end]) for prompt in asked]
    with torch.no_grad():
        after = [model(input_ids=torch.tensor([prompt])).logits[0, -1].log_softmax(dim=-1)[end] for prompt in asked]
        assert float(loss_of(model, rows, end)) == pytest.approx(-sum(map(float, after)) / len(rows), abs=1e-5)
    finetuning.tune(model, rows, recipe(epochs=4), 0, end, state(tmp_path))
    with torch.no_grad():
        assert float(loss_of(model, rows, end)) < 0.05
        assert all(int(model(input_ids=torch.tensor([prompt])).logits[0, -1].argmax()) == end for prompt in asked)


# Order and learning rate


@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 9), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_example_occurs_once_an_epoch(rows, epochs, batch, seed):
    updates = finetuning.plan(rows, {"epochs": epochs, "batch": batch}, seed)
    steps = math.ceil(rows / batch)
    assert len(updates) == epochs * steps
    for epoch in range(epochs):
        own = updates[epoch * steps : (epoch + 1) * steps]
        assert sorted(row for update in own for row in update) == list(range(rows))
        assert all(len(update) == batch for update in own[:-1])


def test_the_order_depends_on_seed_and_epoch_alone():
    first = finetuning.order(50, 3, 0)
    torch.manual_seed(99)
    random.seed(99)
    assert finetuning.order(50, 3, 0) == first != finetuning.order(50, 3, 1)
    assert finetuning.order(50, 2, 0) == first[:100]
    assert first[:50] != first[50:100] != first[100:]


@pytest.mark.parametrize("updates", [1, 7, 100, 219])
@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.5])
@pytest.mark.parametrize(
    ("schedule", "theirs"), [("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)]
)
def test_the_learning_rate_follows_transformers_schedule(schedule, theirs, warmup, updates):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    course = theirs(optimizer, num_warmup_steps=int(warmup * updates), num_training_steps=updates)
    settings = recipe(schedule=schedule, warmup=warmup, learning_rate=3e-4)
    for update in range(updates):
        expected = optimizer.param_groups[0]["lr"]
        assert finetuning.rate(update, updates, settings) == pytest.approx(expected, rel=1e-12, abs=1e-18)
        optimizer.step()
        course.step()


def test_a_constant_learning_rate_by_hand():
    settings = recipe(schedule="constant", warmup=0.4, learning_rate=2.0)
    assert [finetuning.rate(update, 5, settings) for update in range(5)] == [0.0, 1.0, 2.0, 2.0, 2.0]


# A whole run


def labels_of(row):
    """Labels in transformers' way: -100 where a token is not scored."""
    return [token if scored else -100 for token, scored in zip(row.ids, row.scored, strict=True)]


def loop_tuning(model, rows, settings, seed, pad):
    """The losses of a plain loop: rows padded on the right, other labels -100, transformers' schedule, torch's AdamW."""
    updates = finetuning.plan(len(rows), settings, seed)
    decay, betas = settings["weight_decay"], (settings["beta1"], settings["beta2"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["learning_rate"], betas=betas, weight_decay=decay)
    course = get_linear_schedule_with_warmup(optimizer, int(settings["warmup"] * len(updates)), len(updates))
    losses = []
    for update in updates:
        batch = [rows[row] for row in update]
        longest = max(len(row.ids) for row in batch)
        short = [longest - len(row.ids) for row in batch]
        ids = torch.tensor([row.ids + [pad] * gap for row, gap in zip(batch, short, strict=True)])
        mask = torch.tensor([[1] * (longest - gap) + [0] * gap for gap in short])
        labels = torch.tensor([labels_of(row) + [-100] * gap for row, gap in zip(batch, short, strict=True)])
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        own = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
        loss = (own.sum(dim=1) / (labels[:, 1:] != -100).sum(dim=1)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip"])
        optimizer.step()
        course.step()
        losses.append(loss.item())
    return losses


def test_losses_equal_a_plain_loop(checkpoint, tmp_path):
    """21 steps: three epochs of 25 rows in batches of 4, the last of each a batch of one."""
    settings = recipe(epochs=3, warmup=0.1, weight_decay=0.1)
    rows, pad = encoded(checkpoint.tokenizer, **settings), padding(checkpoint.tokenizer)
    model, plain = fresh(checkpoint), fresh(checkpoint)
    history = finetuning.tune(model, rows, settings, 5, pad, state(tmp_path))
    expected = loop_tuning(plain.train(), rows, settings, 5, pad)
    assert len(history) == 21
    assert [row["loss"] for row in history] == pytest.approx(expected, abs=1e-5, rel=0)
    assert expected[-1] < expected[0] - 1
    assert [row["update"] for row in history] == list(range(21))
    seen = [rows[row] for update in finetuning.plan(25, settings, 5) for row in update]
    assert history[-1]["tokens"] == sum(len(row.ids) for row in seen)


def right_padded(batch, pad):
    """A batch in transformers' way."""
    longest = max(len(row["input_ids"]) for row in batch)
    gaps = [longest - len(row["input_ids"]) for row in batch]
    return {
        "input_ids": torch.tensor([row["input_ids"] + [pad] * gap for row, gap in zip(batch, gaps, strict=True)]),
        "attention_mask": torch.tensor([[1] * (longest - gap) + [0] * gap for gap in gaps]),
        "labels": torch.tensor([row["labels"] + [-100] * gap for row, gap in zip(batch, gaps, strict=True)]),
    }


def copied(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def trained_by_trainer(model, seen, pad, folder, callbacks=(), **settings):
    """Losses of transformers' Trainer on rows in this order, batches of 4, every row with the same weight; no warm-up."""
    losses = []

    def loss(outputs, labels, num_items_in_batch=None):
        logits = outputs.logits[:, :-1].float().transpose(1, 2)
        own = torch.nn.functional.cross_entropy(logits, labels[:, 1:], reduction="none")
        found = (own.sum(dim=1) / (labels[:, 1:] != -100).sum(dim=1)).mean()
        losses.append(float(found.detach()))
        return found

    arguments = TrainingArguments(**{
        "output_dir": str(folder), "per_device_train_batch_size": 4, "num_train_epochs": 1, "learning_rate": 1e-4,
        "lr_scheduler_type": "linear", "max_grad_norm": 1.0, "train_sampling_strategy": "sequential",
        "use_cpu": not torch.cuda.is_available(), "report_to": [], "save_strategy": "no", "logging_strategy": "no",
        "disable_tqdm": True, "dataloader_pin_memory": torch.cuda.is_available(), **settings,
    })  # fmt: skip
    data = [{"input_ids": row.ids, "labels": labels_of(row)} for row in seen]
    collate = functools.partial(right_padded, pad=pad)
    Trainer(model, arguments, collate, data, compute_loss_func=loss, callbacks=list(callbacks)).train()
    return losses


@pytest.mark.slow
def test_fifty_steps_are_those_of_transformers_trainer(checkpoint, tmp_path):
    """Losses of its own loop, padding, schedule and optimizer, every row with the same weight; weights after a dozen steps."""
    settings = recipe(epochs=9, learning_rate=1e-4, warmup=0.1)
    rows, pad = encoded(checkpoint.tokenizer, EXAMPLES[:24]), padding(checkpoint.tokenizer)
    model, plain, after, theirs = fresh(checkpoint), fresh(checkpoint), [], []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **others):
            theirs.extend([copied(plain)] if state.global_step == 12 else [])

    seen = [rows[place] for place in finetuning.order(len(rows), 9, 3)]
    losses = trained_by_trainer(plain, seen, pad, tmp_path / "trainer", [Watch()], warmup_steps=5)
    history = finetuning.tune(
        model,
        rows,
        settings,
        3,
        pad,
        state(tmp_path),
        lambda done, _: after.extend([copied(model)] if done == 12 else []),
    )
    assert len(losses) == len(history) == 54
    assert [row["loss"] for row in history] == pytest.approx(losses, abs=1e-5, rel=0)
    assert sum(losses[-6:]) < sum(losses[:6]) - 1, "from the first epoch to the last"
    for name, parameter in theirs[0].items():
        if "query_key_value.bias" not in name:  # of keys without effect: Adam makes steps of its gradient's rounding
            torch.testing.assert_close(after[0][name], parameter, atol=2e-5, rtol=0)


class KilledError(Exception):
    """Stands for the end of a process."""


def killed_at(last):
    """A progress callback that ends the run after that many steps."""

    def report(done, total):
        if done == last:
            raise KilledError

    return report


def without_time(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


METHODS = {"full": {}, "lora": {"method": "lora", "lora_rank": 4, "lora_dropout": 0.3}}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stops", [[7], [3, 8, 13], [2], [14]])
def test_a_killed_run_goes_on_to_the_same_bits(checkpoints, tmp_path, method, stops):
    """Killed between saved states, right after one, before the first, and at the end; and more than once."""
    settings = recipe(**METHODS[method])
    tokenizer = checkpoints["llama"].tokenizer
    rows, pad = encoded(tokenizer), padding(tokenizer)

    def run(folder, progress=None):
        model = fresh(checkpoints["llama"])
        model = finetuning.adapted(model, settings, 1) if method == "lora" else model
        return model, finetuning.tune(model, rows, settings, 1, pad, state(folder), progress)

    model, history = run(tmp_path / "unbroken")
    for stop in stops:
        torch.manual_seed(stop)
        with pytest.raises(KilledError):
            run(tmp_path / "killed", killed_at(stop))
    assert state(tmp_path / "killed").path.is_file() == (max(stops) >= 3)
    again, continued = run(tmp_path / "killed")
    assert without_time(continued) == without_time(history) and len(history) == 14
    weights = dict(again.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name]), name
    assert [row["seconds"] for row in continued] == sorted(row["seconds"] for row in continued)


def test_dropout_matters_to_the_killed_run(checkpoints, tmp_path):
    """What the test above compares is not the same without dropout's random numbers."""
    tokenizer = checkpoints["llama"].tokenizer
    rows, losses = encoded(tokenizer), []
    for seed in (1, 2):
        settings = recipe(**METHODS["lora"], learning_rate=1e-30)
        model = finetuning.adapted(fresh(checkpoints["llama"]), settings, 1)
        torch.nn.init.normal_(model.get_parameter(next(n for n, _ in model.named_parameters() if "lora_B" in n)))
        torch.manual_seed(seed)
        model.train()
        losses.append(float(loss_of(model, rows[:4], padding(tokenizer)).detach()))
    assert losses[0] != losses[1]


def test_a_state_of_another_tuning_is_left_alone(checkpoints, tmp_path):
    tokenizer = checkpoints["olmo"].tokenizer
    rows, pad = encoded(tokenizer), padding(tokenizer)
    with pytest.raises(KilledError):
        finetuning.tune(fresh(checkpoints["olmo"]), rows, recipe(), 0, pad, state(tmp_path, "a"), killed_at(7))
    model, plain = fresh(checkpoints["olmo"]), fresh(checkpoints["olmo"])
    other = recipe(learning_rate=1e-4)
    history = finetuning.tune(model, rows, other, 0, pad, state(tmp_path, "b"))
    expected = finetuning.tune(plain, rows, other, 0, pad, state(tmp_path / "elsewhere", "b"))
    assert without_time(history) == without_time(expected)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), plain.parameters(), strict=True))


def test_a_fingerprint_names_all_that_the_result_depends_on():
    rows = [lesson([1, 2], [3]), lesson([4], [5])]
    facts = {"recipe": recipe(), "seed": 0, "base": {"model.safetensors": "abc"}}
    found = {
        finetuning.fingerprint(facts, rows),
        finetuning.fingerprint({**facts, "seed": 1}, rows),
        finetuning.fingerprint({**facts, "recipe": recipe(lora_rank=3)}, rows),
        finetuning.fingerprint(facts, rows[::-1]),
        finetuning.fingerprint(facts, [lesson([1], [2, 3]), lesson([4], [5])]),
    }
    assert len(found) == 5
    assert finetuning.fingerprint(dict(reversed(facts.items())), rows) in found


def test_a_loss_that_is_no_number_ends_the_run(checkpoints, tmp_path):
    """The history up to there is kept, what is no number as None."""
    tokenizer = checkpoints["olmo"].tokenizer
    settings = recipe(learning_rate=1e30, warmup=0.0)
    message = (
        r"^tuning stopped at step 1: the loss is (nan|inf), the gradient norm \w+, expected finite numbers and a loss"
    )
    with pytest.raises(DivergedError, match=message) as raised:
        finetuning.tune(
            fresh(checkpoints["olmo"]), encoded(tokenizer), settings, 0, padding(tokenizer), state(tmp_path)
        )
    first, last = raised.value.history
    assert first["loss"] > 0 and (last["update"], last["loss"]) == (1, None)
    assert last["learning_rate"] == pytest.approx(1e30 * 13 / 14)


def test_a_gradient_that_is_no_number_ends_the_run_even_at_its_last_step(checkpoints, tmp_path):
    tokenizer, model = checkpoints["olmo"].tokenizer, fresh(checkpoints["olmo"])
    next(model.parameters()).register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(
        StudyError, match=r"^tuning stopped at step 0: the loss is \d+\.\d+, the gradient norm nan, expected finite"
    ):
        finetuning.tune(model, encoded(tokenizer)[:4], recipe(epochs=1), 0, padding(tokenizer), state(tmp_path))


def test_a_loss_ten_times_that_of_guessing_ends_the_run(checkpoints, tmp_path):
    """Guessing among 402 tokens costs ln 402 = 6.0 nats; weights a hundred times as large, some hundreds."""
    tokenizer, model = checkpoints["llama"].tokenizer, fresh(checkpoints["llama"])
    with torch.no_grad():
        model.get_output_embeddings().weight *= 100
    message = r"^tuning stopped at step 0: the loss is \d{3}\.\d+, the gradient norm .* a loss of at most 60; lower"
    with pytest.raises(DivergedError, match=message):
        finetuning.tune(model, encoded(tokenizer), recipe(), 0, padding(tokenizer), state(tmp_path))


# Memory


class Small:
    """A GPU's memory in miniature: it holds packs of so many tokens; notes the sizes of those that fit."""

    def __init__(self, tokens):
        self.tokens, self.fitted = tokens, []

    def __call__(self, model, given, fed):
        size = fed["input_ids"].numel()
        if size > self.tokens:
            torch.rand(3)  # what dropout may have drawn before
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.fitted.append(size)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_batch_that_does_not_fit_goes_through_in_parts_to_the_same_end(checkpoint, tmp_path, method):
    """Batches of four go through in twos; losses and weights are those of undivided batches."""
    settings = recipe(**METHODS[method] | {"lora_dropout": 0.0})
    rows, pad = encoded(checkpoint.tokenizer), padding(checkpoint.tokenizer)
    longest = max(len(row.ids) for row in rows)

    def run(folder, tokens):
        model, small = fresh(checkpoint), Small(tokens)
        model.register_forward_pre_hook(small, with_kwargs=True)
        model = finetuning.adapted(model, settings, 1) if method == "lora" else model
        return model, finetuning.tune(model, rows, settings, 1, pad, state(folder)), small.fitted

    (whole, expected, large), (parted, found, small) = run(tmp_path / "a", 10_000), run(tmp_path / "b", 2 * longest)
    assert len(small) > 1.5 * len(large) and max(small) <= 2 * longest < max(large)
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in expected], abs=1e-5, rel=0)
    weights = dict(parted.named_parameters())
    for name, parameter in whole.named_parameters():
        if "query_key_value.bias" not in name:  # of keys without effect: Adam makes steps of its gradient's rounding
            torch.testing.assert_close(weights[name], parameter, atol=2e-5, rtol=0)


def test_a_killed_run_that_had_halved_its_parts_goes_on_to_the_same_bits(checkpoints, tmp_path):
    """The state knows the size of the parts: after the kill, memory is large enough for whole batches."""
    settings = recipe(**METHODS["lora"])
    tokenizer = checkpoints["llama"].tokenizer
    rows, pad = encoded(tokenizer), padding(tokenizer)

    def run(folder, tokens, progress=None):
        model = fresh(checkpoints["llama"])
        model.register_forward_pre_hook(Small(tokens), with_kwargs=True)
        model = finetuning.adapted(model, settings, 1)
        return model, finetuning.tune(model, rows, settings, 1, pad, state(folder), progress)

    bound = 2 * max(len(row.ids) for row in rows)
    model, history = run(tmp_path / "unbroken", bound)
    with pytest.raises(KilledError):
        run(tmp_path / "killed", bound, killed_at(7))
    again, continued = run(tmp_path / "killed", 10_000)
    assert without_time(continued) == without_time(history)
    weights = dict(again.named_parameters())
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())


def test_an_architecture_without_repeatable_kernels_is_tuned_with_a_warning(checkpoints, tmp_path, monkeypatch, caplog):
    """As torch refuses an operation on a GPU: the step is taken again, and nothing is asked for twice."""
    asked, tokenizer = [], checkpoints["llama"].tokenizer
    rows, pad = encoded(tokenizer), padding(tokenizer)

    @contextlib.contextmanager
    def refused(device):
        asked.append(device)
        yield
        raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but you set")

    def run(folder):
        return finetuning.tune(fresh(checkpoints["llama"]), rows, recipe(epochs=1), 1, pad, state(folder))

    expected = run(tmp_path / "a")
    monkeypatch.setattr(finetuning.repeating, "repeatable", refused)
    with caplog.at_level("WARNING", "tunecast"):
        assert without_time(run(tmp_path / "b")) == without_time(expected)
    assert len(asked) == 1 and caplog.text.count("a killed run will not continue bit for bit: cumsum_cuda_kernel") == 1


def test_a_row_that_does_not_fit_alone_is_named(checkpoints, tmp_path):
    tokenizer, model = checkpoints["olmo"].tokenizer, fresh(checkpoints["olmo"])
    model.register_forward_pre_hook(Small(20), with_kwargs=True)
    rows = [lesson([9] * length, [5, 6]) for length in (1, 30, 2)]
    with pytest.raises(StudyError, match=r"^a row of up to 32 tokens does not fit into memory; lower max_tokens"):
        finetuning.tune(model, rows, recipe(), 0, padding(tokenizer), state(tmp_path))


# State


def test_a_state_is_that_of_the_moment_it_is_saved(checkpoints, tmp_path):
    """Weights and moments that change right after are not in it; nothing unfinished is left behind."""
    model, kept = fresh(checkpoints["olmo"]), state(tmp_path / "deep")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    kept.save(model, torch.optim.AdamW(model.parameters()), saved_state.TrainingProgress([{"loss": 1.5}], 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    kept.close()
    assert [path.name for path in kept.path.parent.iterdir()] == ["state.safetensors"]
    with safe_open(kept.path, "pt") as file:
        for name, parameter in before.items():
            assert torch.equal(file.get_tensor(f"weight/{name}"), parameter), name
        assert json.loads(file.metadata()["standing"]) == {"history": [{"loss": 1.5}], "together": 3}


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_a_state_that_is_cut_short_is_set_aside_with_one_line(checkpoints, tmp_path, caplog, kept):
    """So many of its bytes are left. What follows is a tuning from the start, and no state is lost without a word."""
    tokenizer, model = checkpoints["olmo"].tokenizer, fresh(checkpoints["olmo"])
    broken = state(tmp_path)
    broken.save(model, torch.optim.AdamW(model.parameters()), saved_state.TrainingProgress([], 3))
    broken.close()
    whole = broken.path.read_bytes()
    broken.path.write_bytes(whole[:kept])
    history = finetuning.tune(model, encoded(tokenizer)[:4], recipe(epochs=1), 0, padding(tokenizer), state(tmp_path))
    assert len(history) == 1
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{broken.path}: damaged or cut short (") and "\n" not in line
    assert line.endswith("; moved to state.safetensors.damaged; training starts over")
    assert (tmp_path / "state.safetensors.damaged").read_bytes() == whole[:kept]
    broken.remove()
    assert not list(tmp_path.iterdir())


def test_a_state_that_cannot_be_written_ends_the_run(checkpoints, tmp_path):
    tokenizer, blocked = checkpoints["olmo"].tokenizer, tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StudyError, match=r"file/state\.safetensors: cannot be written: (Not a directory|File exists)"):
        finetuning.tune(fresh(checkpoints["olmo"]), encoded(tokenizer), recipe(), 0, padding(tokenizer), state(blocked))


def test_a_run_told_to_stop_saves_its_state_at_once_and_goes_on_to_the_same_bits(checkpoints, tmp_path):
    """SIGTERM comes in the fifth step, between two states of the schedule; afterwards it ends a process as ever."""
    tokenizer = checkpoints["olmo"].tokenizer
    rows, pad = encoded(tokenizer), padding(tokenizer)

    def told_at(last):
        return lambda done, total: os.kill(os.getpid(), signal.SIGTERM) if done == last else None

    def run(folder, progress=None):
        model = fresh(checkpoints["olmo"])
        return model, finetuning.tune(model, rows, recipe(save_every=100), 1, pad, state(folder), progress)

    model, history = run(tmp_path / "unbroken")
    with pytest.raises(StoppedError, match=r"^told to stop after step 5 of 14; the same command continues"):
        run(tmp_path / "stopped", told_at(4))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    seen = []
    again, continued = run(tmp_path / "stopped", lambda done, total: seen.append(done))
    assert seen[0] == 6 and without_time(continued) == without_time(history)
    weights = dict(again.named_parameters())
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())


def test_a_trial_that_diverges_has_null_losses(checkpoints, tmp_path):
    tokenizer, rows = checkpoints["olmo"].tokenizer, encoded(checkpoints["olmo"].tokenizer)
    settings = recipe(learning_rate=1e30, warmup=0.0)
    model = fresh(checkpoints["olmo"])
    with pytest.raises(DivergedError) as raised:
        finetuning.tune_and_validate(model, rows[5:], rows[:5], settings, 0, padding(tokenizer), state(tmp_path))
    assert [row["update"] for row in raised.value.history] == list(range(len(raised.value.history)))
    assert finetuning.unmeasured(rows[:5]) == [
        {"tokens": sum(row.scored), "nll": None, "loss": None} for row in rows[:5]
    ]


def test_a_validation_loss_that_is_no_number_is_null(checkpoints):
    tokenizer, model = checkpoints["llama"].tokenizer, fresh(checkpoints["llama"])
    rows = [lesson([9, 8], [7, 6]), lesson([9, 5], [7, 6, 5])]
    with torch.no_grad():
        model.get_input_embeddings().weight[8] = math.nan
        spoilt, sound = finetuning.validate(model, rows, recipe(), padding(tokenizer))
    assert spoilt == {"tokens": 2, "nll": None, "loss": None}
    assert sound["tokens"] == 3 and math.isfinite(sound["loss"])


def test_a_killed_trial_goes_on_to_the_same_bits(checkpoints, tmp_path):
    tokenizer, rows = checkpoints["llama"].tokenizer, encoded(checkpoints["llama"].tokenizer)

    def run(folder, progress=None):
        model, pad = fresh(checkpoints["llama"]), padding(tokenizer)
        return finetuning.tune_and_validate(model, rows[5:], rows[:5], recipe(), 0, pad, state(folder), progress)

    expected = run(tmp_path / "unbroken")
    with pytest.raises(KilledError):
        run(tmp_path / "killed", killed_at(7))
    assert state(tmp_path / "killed").path.is_file()
    assert run(tmp_path / "killed") == expected
    before = finetuning.validate(fresh(checkpoints["llama"]), rows[:5], recipe(), padding(tokenizer))
    assert sum(row["loss"] for row in expected) < sum(row["loss"] for row in before)


def test_bf16_keeps_weights_and_moments_in_fp32(checkpoints, tmp_path):
    tokenizer = checkpoints["olmo2"].tokenizer
    rows, pad = encoded(tokenizer), padding(tokenizer)
    model, plain = fresh(checkpoints["olmo2"]), fresh(checkpoints["olmo2"])
    half = finetuning.tune(model, rows, recipe(precision="bf16"), 0, pad, state(tmp_path / "half"))
    full = finetuning.tune(plain, rows, recipe(), 0, pad, state(tmp_path / "full"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    losses = [row["loss"] for row in full]
    assert [row["loss"] for row in half] == pytest.approx(losses, rel=0.05) and half[3]["loss"] != full[3]["loss"]


# What is kept


def logits_of(model, tokenizer):
    with torch.no_grad():
        return model(**tokenizer("Ann has a cat. The cat", return_tensors="pt", return_token_type_ids=False)).logits


LINEAGE = {
    "family": "f", "step": "10", "train": "mini_facts", "format": "default", "recipe": "r", "seed": "3", "examples": 8,
    "dropped": 0, "recipe_settings": {"method": "full", "learning_rate": 1e-3},
    "base": {"family": "f", "step": 10, "source": "folder", "repo": None, "revision": None},
}  # fmt: skip


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lora_trains_and_keeps_adapters_alone(architecture, checkpoints, tmp_path):
    checkpoint = checkpoints[architecture]
    tokenizer, settings = checkpoint.tokenizer, recipe(method="lora", lora_rank=4, learning_rate=1e-2)
    model = finetuning.adapted(fresh(checkpoint), settings, 3)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    finetuning.tune(model, encoded(tokenizer), settings, 3, padding(tokenizer), state(tmp_path))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == ("lora" not in name), name
    adapted = sum("lora_A" in name for name in before)
    linear = sum(isinstance(part, torch.nn.Linear) for part in checkpoint.model.modules())
    assert adapted == linear - 1, "all linear layers but the vocabulary's"
    folder = tmp_path / "tuned"
    loading.save(model, tokenizer, folder, LINEAGE)
    assert (folder / "adapter_model.safetensors").is_file() and not (folder / "model.safetensors").exists()
    assert json.loads((folder / "lineage.json").read_text()) == LINEAGE
    again, _ = loading.ready({"path": str(checkpoint.path)}, str(folder), "fp32")
    expected = logits_of(model, tokenizer)
    torch.testing.assert_close(logits_of(again, tokenizer), expected, atol=1e-4, rtol=0)
    assert float((expected - logits_of(checkpoint.model, tokenizer)).abs().max()) > 0.1


def test_adapters_start_from_the_seed_and_change_nothing(checkpoints):
    checkpoint, settings = checkpoints["olmo"], recipe(method="lora")
    found = [finetuning.adapted(fresh(checkpoint), settings, seed) for seed in (0, 0, 1)]
    first, same, other = ({n: p for n, p in model.named_parameters() if "lora_A" in n} for model in found)
    assert all(torch.equal(first[name], same[name]) and not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(
        logits_of(found[0].eval(), checkpoint.tokenizer), logits_of(checkpoint.model, checkpoint.tokenizer)
    )


def test_a_tuned_model_is_an_ordinary_checkpoint(checkpoint, tmp_path):
    tokenizer, model = checkpoint.tokenizer, fresh(checkpoint)
    finetuning.tune(model, encoded(tokenizer), recipe(), 0, padding(tokenizer), state(tmp_path))
    loading.save(model, tokenizer, tmp_path / "tuned", LINEAGE)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned").eval()
    again, read = loading.ready({"path": str(checkpoint.path)}, str(tmp_path / "tuned"), "fp32")
    expected = logits_of(model, tokenizer)
    assert torch.equal(logits_of(plain, tokenizer), expected) and torch.equal(logits_of(again, read), expected)
    assert not torch.equal(logits_of(checkpoint.model, tokenizer), expected)


def test_adapters_wider_than_the_layers_are_refused(checkpoints):
    """The layers of the checkpoint are as wide as its embedding; those of its feed-forward part are longer, not wider."""
    model = fresh(checkpoints["llama"])
    width = model.config.hidden_size
    settings = recipe(method="lora", lora_alpha=16, lora_dropout=0.0, lora_rank=width)
    assert finetuning.adapted(fresh(checkpoints["llama"]), settings, 0)
    with pytest.raises(
        StudyError, match=rf"^recipes/lora_rank: {width + 1} is not allowed for LlamaForCausalLM; allowed: {width} "
    ):
        finetuning.adapted(model, settings | {"lora_rank": width + 1}, 0)
