#!/usr/bin/env bash
# snakemake-executor-plugin-slurm==2.8.0: a partition's limit "90:30" means 90 hours to the plugin and 90 minutes to Slurm.
#
# Guess: max_runtime in the partition file takes Slurm's notation of times, as the plugin says, with Slurm's meaning.
# What happens: with one colon Slurm reads minutes:seconds, the plugin hours:minutes, sixty times as much. "2-12" and
# "1:30:00" mean the same to both.
# Why it matters: the plugin picks a job's partition by this limit. A tuning of ten hours is sent to a partition that allows an
# hour and a half, where it is refused, or pends for ever.
# Tunecast: its Slurm profile names the partitions itself and gives times in minutes; it uses no partition file.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check "snakemake-executor-plugin-slurm==2.8.0" "snakemake==9.27.1"
cd "$folder"

venv/bin/python - <<'PYTHON'
import re
import sys
from importlib.metadata import version

from snakemake_executor_plugin_slurm.utils import parse_time_to_minutes


def slurm_minutes(text):
    """Minutes by the forms that Slurm's manual lists for --time."""
    days, _, rest = text.rpartition("-")
    numbers = [int(part) for part in re.split(":", rest)]
    if days:
        numbers = [*numbers, 0, 0][:3]
    elif len(numbers) < 3:
        numbers = [0, *numbers, 0][:3]
    hours, minutes, seconds = numbers
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


print("snakemake-executor-plugin-slurm", version("snakemake-executor-plugin-slurm"))
print("guess: the same minutes in each form, seconds rounded")
seen = {text: (slurm_minutes(text), parse_time_to_minutes(text)) for text in ("90", "90:30", "1:30:00", "2-12", "2-12:30")}
for text, (slurm, plugin) in seen.items():
    print(f"seen: {text!r}: Slurm {slurm:g} minutes, plugin {plugin}")
others = all(slurm == plugin for text, (slurm, plugin) in seen.items() if text != "90:30")
if seen["90:30"] != (90.5, 5430) or not others:
    sys.exit("the behaviour has changed")
PYTHON
