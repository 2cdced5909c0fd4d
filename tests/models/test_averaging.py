"""Means of checkpoints: equal to a mean by hand bit for bit; what cannot be averaged is refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from workflow.errors import StudyError
from workflow.models import averaging, checkpoints


def base(folder: Path, step: int) -> dict:
    """The manifest of a checkpoint in a folder."""
    return checkpoints.locate("local", {"source": "folder", "path": str(folder.parent)}, step, folder)


def run_of(model, tmp_path: Path, change=lambda weights, step: weights) -> list[dict]:
    """Three checkpoints of one run: the weights of a model with other noise each."""
    bases = []
    for step in (10, 20, 30):
        folder = shutil.copytree(model.path, tmp_path / f"step{step}")
        noise = torch.Generator().manual_seed(step)
        weights = load_file(folder / "model.safetensors")
        noisy = {name: weight + 0.1 * torch.randn(weight.shape, generator=noise) for name, weight in weights.items()}
        save_file(change(noisy, step), folder / "model.safetensors", {"format": "pt"})
        bases.append(base(folder, step))
    return bases


def by_hand(bases: list[dict]) -> dict[str, np.ndarray]:
    """The mean in numpy, rounded to fp32 once."""
    runs = [load_file(Path(one["path"]) / "model.safetensors") for one in bases]
    return {name: (sum(run[name].double().numpy() for run in runs) / len(runs)).astype(np.float32) for name in runs[-1]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_mean_is_that_by_hand_bit_for_bit(checkpoints_of, tmp_path, dtype):
    bases = run_of(checkpoints_of, tmp_path, lambda weights, _: {name: w.to(dtype) for name, w in weights.items()})
    averaging.write(bases, tmp_path / "mean")
    stored, expected = load_file(tmp_path / "mean/model.safetensors"), by_hand(bases)
    assert set(stored) == set(expected)
    for name, weight in stored.items():
        assert weight.dtype == torch.float32 and weight.numpy().tobytes() == expected[name].tobytes(), name
    for name in ("config.json", "tokenizer.json"):
        assert (tmp_path / "mean" / name).read_bytes() == (tmp_path / "step30" / name).read_bytes()
    checkpoints.check(tmp_path / "mean")
    model = checkpoints.load_model(tmp_path / "mean", torch.float32, "cpu")
    assert all(torch.isfinite(weight).all() for weight in model.parameters())


def test_a_sharded_mean_is_that_of_the_whole(checkpoints_of, tmp_path):
    bases = run_of(checkpoints_of, tmp_path)
    last = tmp_path / "step30"
    weights = load_file(last / "model.safetensors")
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, listed in parts.items():
        save_file({name: weights[name] for name in listed}, last / file, {"format": "pt"})
    expected = by_hand(bases)
    (last / "model.safetensors").unlink()
    places = {name: file for file, listed in parts.items() for name in listed}
    (last / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    averaging.write([*bases[:2], base(last, 30)], tmp_path / "mean")
    stored = {name: w for file in parts for name, w in load_file(tmp_path / "mean" / file).items()}
    assert {name: w.numpy().tobytes() for name, w in stored.items()} == {n: w.tobytes() for n, w in expected.items()}
    size = json.loads((tmp_path / "mean/model.safetensors.index.json").read_text())["metadata"]["total_size"]
    assert size == sum(weight.nbytes for weight in expected.values())
    checkpoints.check(tmp_path / "mean")


def test_checkpoints_of_other_shapes_or_tokenizers_are_refused(checkpoints_of, tmp_path):
    def wider(weights, step):
        name = sorted(weights)[0]
        return {**weights, name: torch.cat([weights[name]] * 2)} if step == 10 else weights

    bases = run_of(checkpoints_of, tmp_path, wider)
    with pytest.raises(StudyError, match=r"step10: .* has shape .*; expected .*, as in .*step30$"):
        averaging.write(bases, tmp_path / "mean")
    words = tmp_path / "step20/tokenizer.json"
    words.write_text(words.read_text() + " ")
    with pytest.raises(
        StudyError, match=r"tokenizer\.json differs between the steps 20, 30, which cannot be averaged$"
    ):
        averaging.write([base(tmp_path / "step20", 20), bases[2]], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_a_checkpoint_that_changed_since_it_was_fetched_is_refused(checkpoints_of, tmp_path):
    bases = run_of(checkpoints_of, tmp_path)
    weights = load_file(tmp_path / "step10/model.safetensors")
    save_file({name: weight + 1 for name, weight in weights.items()}, tmp_path / "step10/model.safetensors")
    with pytest.raises(StudyError, match=r"model\.safetensors: is not what `fetch` recorded"):
        averaging.write(bases, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


@pytest.fixture
def checkpoints_of(request):
    """A small model of the session."""
    return request.getfixturevalue("checkpoints")["olmo"]
