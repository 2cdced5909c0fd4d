"""Tuning by two processes on a CPU against one: losses, weights, a state that both can go on from."""

import os
import signal

import pytest
import torch
from test_tuning import METHODS, encoded, fresh, recipe, state

from workflow import sharding, states, tuning
from workflow.encoding import padding


def apart(one, other):
    """The largest difference between the weights of two models."""
    weights = dict(other.named_parameters())
    return max(float((parameter - weights[name]).detach().abs().max()) for name, parameter in one.named_parameters())


def told_at(last):
    return lambda done, steps: os.kill(os.getpid(), signal.SIGTERM) if done == last else None


def test_two_processes_find_what_one_finds_from_its_state_and_to_its_state(checkpoints, tmp_path):
    """One process is stopped after the third step, two go on from there, until they are stopped; one does the rest.

    Batches are of four and, as an epoch's last, of one, with which the second process has nothing to do: the seventh.
    """
    checkpoint = checkpoints["olmo"]
    settings = recipe(save_every=100, epochs=4)
    work = (encoded(checkpoint.tokenizer), settings, 1, padding(checkpoint.tokenizer))
    plain, again = fresh(checkpoint), fresh(checkpoint)
    expected = tuning.tune(plain, *work, state(tmp_path / "one"))

    kept, stopped = state(tmp_path / "two"), r"^told to stop after step \d+ of 28; the same command goes on"
    with pytest.raises(tuning.StoppedError, match=stopped):
        tuning.tune(fresh(checkpoint), *work, kept, told_at(2))
    with pytest.raises(tuning.StoppedError, match=stopped) as raised:
        sharding.tune(fresh(checkpoint), work[0], settings | {"gpus": 2}, *work[2:], kept, told_at(8))
    assert 8 < int(str(raised.value).split()[5]) < 28
    assert [path.name for path in kept.path.parent.iterdir()] == ["state.safetensors"]
    history = tuning.tune(again, *work, kept)
    for key in ("loss", "gradient_norm", "learning_rate", "tokens"):
        assert [row[key] for row in history] == pytest.approx([row[key] for row in expected], rel=1e-5), key
    assert apart(again, plain) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_tuned_weights_come_back_to_a_model_as_it_was(checkpoints, tmp_path, method):
    models = [fresh(checkpoints["llama"]) for _ in range(2)]
    settings = recipe(**METHODS[method])
    one, other = (tuning.adapted(model, settings, 1) if method == "lora" else model for model in models)
    with torch.no_grad():
        for parameter in states.trained(one).values():
            parameter += 0.5
    states.write_weights(one, tmp_path / "weights.safetensors")
    assert 0.49 < apart(one, other) < 0.51
    sharding._take_weights(other, tmp_path / "weights.safetensors")
    assert apart(one, other) == 0
