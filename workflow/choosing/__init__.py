"""Choose which checkpoints to fine-tune next, and when enough of them are fine-tuned.

`candidates` describes what may be fine-tuned. `surrogate` is the posterior of all scores after fine-tuning, given the measured
ones. `acquisition` ranks the candidates that are left. `decision` makes one step of a race: the pick so far, its expected
loss, which candidates are out, whether to stop, and the next batch.
"""
