"""What a GPU has to get right, against rows fed alone, transformers' Trainer and unbroken runs; `make gpu` runs these first.

Without a GPU the same run on the CPU, but for real memory, promises and the kernels themselves.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ARCHITECTURES, Checkpoint, loss_of, small_model, small_tokenizer
from models.engine.test_attention import ROWS, alone
from models.engine.test_scoring import loop, requests_of_all_sorts, written
from training.test_finetuning import (
    METHODS,
    KilledError,
    copied,
    encoded,
    killed_at,
    recipe,
    state,
    trained_by_trainer,
    without_time,
)

from workflow.models import loading
from workflow.models.encoding import Masked, padding
from workflow.models.engine import attention, feeding, flash, generation, reading, replaying, scoring
from workflow.training import finetuning

pytestmark = pytest.mark.gpu
HERE = torch.cuda.is_available()
needs_gpu = pytest.mark.skipif(not HERE, reason="needs a GPU")
DEVICE = "cuda" if HERE else "cpu"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
MEGABYTE = 2**20


def on_device(architecture: str, dtype: torch.dtype = torch.float32) -> Any:
    """A small random model."""
    return small_model(architecture, small_tokenizer(architecture)).to(DEVICE, dtype)


def on_cpu(model: Any) -> Any:
    """The model in fp32 on the CPU, for one-row loops."""
    return model.to("cpu", torch.float32)


@pytest.fixture(autouse=True)
def shares_whatever_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LEAST", 0)


# The kernel


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("heads", [4, 2])
def test_flash_attention_agrees_with_plain_operations(heads: int, dtype: torch.dtype) -> None:
    assert flash.worst(torch.device("cuda", 0), dtype, heads) <= flash.NEAR
    query, key = (torch.randn(5, number, 64, device="cuda", dtype=dtype) for number in (4, heads))
    assert flash.takes(query, key) == (torch.cuda.get_device_capability() >= (8, 0))


@needs_gpu
@pytest.mark.parametrize("size", [8, 64, 128, 256])
@pytest.mark.parametrize("heads", [4, 2])
def test_gradients_of_flash_attention_agree_with_plain_operations(size: int, heads: int) -> None:
    """Also where the last places of rows ask alone."""
    torch.manual_seed(0)
    for asked in ((5, 1, 33), (2, 1, 20)):
        bounds = [torch.tensor([0, *own], device="cuda").cumsum(0).int() for own in (asked, (5, 1, 33))]
        rows = flash.RowBounds(*bounds, (max(asked), 33))
        given = [
            torch.randn(sum(own), number, size, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            for own, number in ((asked, 4), ((5, 1, 33), heads), ((5, 1, 33), heads))
        ]
        weights = torch.randn_like(given[0])
        slopes = []
        for attend in (flash.attend, flash.plain):
            found = attend(*given, rows)[0]
            slopes.append(torch.autograd.grad((found * weights).sum(), given))
        for found, expected in zip(*slopes, strict=True):
            assert (found - expected).abs().max() < 0.05 * expected.abs().max()


# Rows alone


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_rows_are_rows_alone(architecture: str, precision: str) -> None:
    model = on_device(architecture, PRECISIONS[precision])
    with torch.no_grad():
        expected = torch.cat([model(input_ids=torch.tensor([row], device=DEVICE)).logits[0] for row in ROWS])
        attention.adopt(model)
        found = model(**attention.packed(ROWS, DEVICE), use_cache=False).logits[0]
    near = {"fp32": 1e-4, "bf16": 0.1}[precision]
    assert (found - expected).abs().max() < near * expected.std()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shared_rows_are_rows_alone(architecture: str, precision: str) -> None:
    """Prefixes, contexts with branches, slots; a bf16 log-probability is off by what its logits are rounded to."""
    model, tokenizer = on_device(architecture, PRECISIONS[precision]), small_tokenizer(architecture)
    requests = requests_of_all_sorts()
    found = scoring.log_probabilities(model, requests, 100)
    contexts = [context for context, _ in requests]
    texts = generation.greedy(model, tokenizer, contexts, 8, (), 300)
    model = on_cpu(model)
    near = {"fp32": 1e-3, "bf16": 0.3}[precision]
    assert found == pytest.approx([loop(model, *request) for request in requests], abs=near, rel=near)
    if precision == "fp32":
        assert texts == [written(model, context, 8, tokenizer.eos_token_id) for context in contexts]


@needs_gpu
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_steps_replayed_as_a_graph_write_what_launched_ones_write(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slots that are freed and filled again, prefixes, rows of many lengths; bf16, as graphs need the kernel."""
    model, tokenizer = on_device(architecture, torch.bfloat16), small_tokenizer(architecture)
    contexts = [context for context, _ in itertools.groupby(requests_of_all_sorts(), key=lambda pair: pair[0])]
    monkeypatch.setitem(generation.SLOTS, "cuda", 4)
    taken: list[int] = []
    plain = replaying.Replay.next
    monkeypatch.setattr(replaying.Replay, "next", lambda self, fed: taken.append(len(fed)) or plain(self, fed))
    replayed = generation.greedy(model, tokenizer, contexts, 15, (), 8192)
    assert replaying.DEVICES == ["cuda"] and len(taken) > 10, "no graph was captured; the log says why"
    monkeypatch.setattr(replaying, "DEVICES", [])
    launched = generation.greedy(model, tokenizer, contexts, 15, (), 8192)
    same = sum(own == other for own, other in zip(replayed, launched, strict=True))
    # Other sums in other kernels may turn a near tie.
    assert same >= len(contexts) - 2


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("worth", [0, 1])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_are_those_of_the_cpu(
    architecture: str, worth: int, precision: str, checkpoints: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packs whole, and with the last layer narrowed to the ends of rows; bf16 as in tuning, weights in fp32."""
    monkeypatch.setattr(feeding, "WORTH", worth)
    tokenizer = checkpoints[architecture].tokenizer
    model, rows = on_device(architecture), encoded(tokenizer)[:6]

    def slopes(arithmetic: str) -> torch.Tensor:
        model.zero_grad()
        with torch.autocast(model.device.type, torch.bfloat16, enabled=arithmetic == "bf16"):
            loss = loss_of(model, rows, padding(tokenizer))
        loss.backward()
        return torch.cat([weight.grad.flatten().cpu().float() for weight in model.parameters()])

    found = slopes(precision)
    model = on_cpu(model)
    expected = slopes("fp32")
    near = {"fp32": 1e-3, "bf16": 0.1}[precision]
    assert (found - expected).norm() < near * expected.norm()


# Tuning


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_losses_are_those_of_transformers_trainer(
    precision: str, checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    """Twenty-four steps on the same device, every row with the same weight."""
    settings = recipe(epochs=4, learning_rate=1e-4, warmup=0.0, precision=precision)
    tokenizer = checkpoints["olmo"].tokenizer
    rows, pad = encoded(tokenizer)[:24], padding(tokenizer)
    model, plain = (loading.untouched({"path": str(checkpoints["olmo"].path)})[0] for _ in range(2))
    seen = [rows[place] for place in finetuning.order(len(rows), 4, 3)]
    expected = trained_by_trainer(plain, seen, pad, tmp_path / "trainer", bf16=precision == "bf16")
    history = finetuning.tune(model, rows, settings, 3, pad, state(tmp_path))
    near = {"fp32": 1e-4, "bf16": 0.1}[precision]
    assert len(history) == 24
    assert [row["loss"] for row in history] == pytest.approx(expected, abs=near, rel=0)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_goes_on_to_the_same_bits(
    method: str, precision: str, checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    settings = recipe(**METHODS[method], precision=precision)
    tokenizer = checkpoints["llama"].tokenizer
    rows, pad = encoded(tokenizer), padding(tokenizer)

    def run(folder: Path, progress: Any = None) -> tuple[Any, Any]:
        model = loading.untouched({"path": str(checkpoints["llama"].path)})[0]
        model = finetuning.adapted(model, settings, 1) if method == "lora" else model
        return model, finetuning.tune(model, rows, settings, 1, pad, state(folder), progress)

    model, history = run(tmp_path / "unbroken")
    with pytest.raises(KilledError):
        run(tmp_path / "killed", killed_at(8))
    again, continued = run(tmp_path / "killed")
    assert without_time(continued) == without_time(history) and len(history) == 14
    weights = copied(again)
    assert all(torch.equal(weights[name], weight) for name, weight in copied(model).items())


# Memory


@pytest.fixture
def scarce() -> Iterator[Any]:
    """Takes all memory of the GPU but so many megabytes, from when it is called; gives it back at the end."""
    held: list[torch.Tensor] = []

    def take(left: int) -> None:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        held.append(torch.empty(free - left * MEGABYTE, dtype=torch.uint8, device="cuda"))

    yield take
    held.clear()
    torch.cuda.empty_cache()


def wide_model() -> Any:
    """A model whose packs take hundreds of megabytes: 50,000 words."""
    import transformers

    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.OlmoConfig(vocab_size=50000, **sizes, eos_token_id=2, pad_token_id=1, bos_token_id=None)
    torch.manual_seed(0)
    return transformers.OlmoForCausalLM(config).to("cuda").eval()


@needs_gpu
def test_real_memory_that_runs_out_changes_no_log_probability(scarce: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another job takes the memory once the reader has seen it free: packs are halved until they fit."""
    model, halved = wide_model(), []
    requests = [([number, *range(3, 60)], list(range(60, 100))) for number in range(200, 400)]
    expected = scoring.log_probabilities(model, requests, 100_000)
    fits_in_memory = reading.Reader.fits_in_memory

    def watched(reader: Any, run: Any, items: int) -> bool:
        if not halved:
            halved.append(True)
            scarce(600)
        found = fits_in_memory(reader, run, items)
        halved.append(found)
        return found

    monkeypatch.setattr(reading.Reader, "fits_in_memory", watched)
    found = scoring.log_probabilities(model, requests, 100_000)
    assert False in halved, "memory did not run out"
    assert found == pytest.approx(expected, abs=1e-3, rel=0)


@needs_gpu
def test_real_memory_that_runs_out_halves_a_batch_and_changes_no_loss(scarce: Any, tmp_path: Path) -> None:
    rows = [Masked([number, *range(3, 200)], [place >= 2 for place in range(198)]) for number in range(200, 232)]
    settings = recipe(epochs=1, batch=16, learning_rate=1e-5)
    expected = finetuning.tune(wide_model(), rows, settings, 0, 1, state(tmp_path / "a"))
    model, kept = wide_model(), state(tmp_path / "b")
    parts, plain = [], finetuning.Steps.accumulate

    def watched(steps: Any, batch: Any) -> torch.Tensor:
        parts.append(steps.together)
        if len(parts) == 1:
            scarce(1500)
        return plain(steps, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning.Steps, "accumulate", watched)
        found = finetuning.tune(model, rows, settings, 0, 1, kept)
    assert min(parts) < 16, "memory did not run out"
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in expected], abs=1e-4, rel=0)


SHARING = """
import sys, time
from workflow.jobs import devices
with devices.own(int(sys.argv[1])) as device:
    start = time.monotonic()
    import torch
    count = torch.cuda.device_count()
    held = torch.ones(int(sys.argv[1]) * 2**19, dtype=torch.uint8, device="cuda")  # half of what is promised
    time.sleep(1)
    print(device, count, int(held[-1]), start, time.monotonic())
"""


@needs_gpu
def test_two_jobs_share_a_gpu_by_the_memory_they_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three that state .45 of it each two run at a time; each sees one GPU."""
    total = torch.cuda.get_device_properties(0).total_memory // MEGABYTE
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", SHARING, str(int(0.45 * total))]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    told = [job.communicate(timeout=120)[0].split() for job in jobs]
    assert all(own[1:3] == ["1", "1"] for own in told), told
    if torch.cuda.device_count() == 1:
        spans = [(float(own[3]), float(own[4])) for own in told]
        overlaps = [max(a[0], b[0]) < min(a[1], b[1]) for a, b in itertools.combinations(spans, 2)]
        assert 0 < sum(overlaps) < 3, spans


# Speed


@needs_gpu
def test_the_host_waits_for_nothing_in_the_middle_of_a_pass(checkpoints: dict[str, Checkpoint]) -> None:
    """Torch raises where the host would wait for the GPU: packs after a prefix, branches, the narrowed last layer."""
    model, tokenizer = on_device("olmo", torch.bfloat16), checkpoints["olmo"].tokenizer
    rows = encoded(tokenizer)[:6]

    def passes() -> None:
        with reading.reading(model, 4000) as reader:
            own = scoring.rows_of(requests_of_all_sorts(), branching=True)
            prefix = reader.prefix(list(range(3, 20)))
            shown = [row._replace(root=[*range(3, 20), *row.root], start=row.start + 17) for row in own]
            scoring.read_pack(reader, shown, prefix, 17)
        with feeding.losses(model, padding(tokenizer)) as read:
            sums, counts = read(rows)
            (sums / counts).mean().backward()

    passes()
    watched = []
    plain = type(model).forward

    def forward(*given: Any, **named: Any) -> Any:
        if not isinstance(
            named.get("packing"), attention.Packing
        ):  # the model's own attention, as the probes compare it
            return plain(*given, **named)
        torch.cuda.set_sync_debug_mode("error")
        try:
            watched.append(True)
            return plain(*given, **named)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "forward", forward)
        passes()
    assert watched


def test_rows_alone_are_the_same_whatever_device_compares_them() -> None:
    """The one-row loop that the tests above compare with runs where the model is."""
    model = on_device("olmo")
    with torch.no_grad():
        expected = alone(on_cpu(model), ROWS[:2])
        model = model.to(DEVICE)
        found = torch.cat([model(input_ids=torch.tensor([row], device=DEVICE)).logits[0] for row in ROWS[:2]])
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=0)
