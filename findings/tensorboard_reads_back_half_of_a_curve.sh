#!/usr/bin/env bash
# tensorboard==2.21.0: reading a log of 20,000 losses back gives 10,000 of them.
#
# Guess: EventAccumulator(folder).Reload() and Scalars("loss") give every loss that was written.
# What happens: it keeps 10,000 scalars of a tag, drawn at random (always the same draw), the last one among them. The first steps
# can be missing; nothing is said. With size_guidance={"scalars": 0} all are read.
# Why it matters: curves, smoothed losses and "steps until the loss fell below x" that are computed from TensorBoard logs of long
# runs come from half of the steps or fewer.
# Tunecast: results/histories.parquet has every optimizer step; nothing is read back from a tracker.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "tensorboard==2.21.0"
cd "$folder"

venv/bin/python - <<'PYTHON'
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

WRITTEN = 20_000
writer = EventFileWriter("log")
for step in range(WRITTEN):
    value = Summary.Value(tag="loss", simple_value=1 / (1 + step))
    writer.add_event(Event(step=step, wall_time=float(step), summary=Summary(value=[value])))
writer.close()


def steps(**settings):
    """The steps that are read back."""
    log = EventAccumulator("log", **settings)
    log.Reload()
    return [event.step for event in log.Scalars("loss")]


kept, again, whole = steps(), steps(), steps(size_guidance={"scalars": 0})
print(f"written {WRITTEN}, read {len(kept)}, first steps {kept[:5]}; with size_guidance 0: {len(whole)}")
assert len(kept) == 10_000 and kept == again and kept[-1] == WRITTEN - 1
assert kept[:5] != [0, 1, 2, 3, 4] and whole == list(range(WRITTEN))
PYTHON
