#!/usr/bin/env bash
# optuna==5.0.0: HyperbandPruner prunes by the name of the study, so a seeded search differs from run to run.
#
# Guess: with a seeded sampler and a deterministic objective, the same trials are pruned at the same step in every run.
# What happens: a trial's bracket, and so how early it may be pruned, is drawn from a hash of the study's name and the trial's
# number. Without a name create_study makes a random one: which configurations are trained to the end changes from run
# to run, although all suggested values are equal. With a fixed study_name two runs agree.
# Why it matters: a search for a learning rate that is reported as seeded cannot be repeated; under another name the
# same trials may end in another choice.
# Tunecast: it trains every rate of a recipe's search to its end and chooses by validation rows; it does not use Optuna.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "optuna==5.0.0" "numpy==2.4.6"
cd "$folder"

venv/bin/python - <<'PYTHON'
import sys

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)


def search(name=None):
    """Suggested values and the number of steps after which each of 30 trials ended."""
    study = optuna.create_study(
        study_name=name,
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=27),
    )

    def objective(trial):
        loss = trial.suggest_float("loss", 0, 1)
        for step in range(1, 28):
            trial.report(loss + 1 / step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    study.optimize(objective, n_trials=30)
    return [trial.params["loss"] for trial in study.trials], [len(trial.intermediate_values) for trial in study.trials]


unnamed, named = [search() for _ in range(4)], [search("tuning") for _ in range(2)]
print("optuna", optuna.__version__)
print("guess: four runs with RandomSampler(seed=0) stop each trial after the same number of steps")
for number, (_, steps) in enumerate(unnamed):
    print(f"seen: run {number}, no name: {steps[:15]} ...")
print("seen: values equal in all runs:", all(values == unnamed[0][0] for values, _ in unnamed + named))
print("seen: two runs named alike agree:", named[0] == named[1])
same_values = all(values == unnamed[0][0] for values, _ in unnamed)
if not (same_values and named[0] == named[1] and len({tuple(steps) for _, steps in unnamed}) > 1):
    sys.exit("the behaviour has changed")
PYTHON
