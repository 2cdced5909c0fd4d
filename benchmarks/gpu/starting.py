"""What a job takes before it computes: a process, its imports, a checkpoint of OLMo-1B's size from the disk to the GPU."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import subjects
from benchmarks.gpu.subjects import Setting

JOB = """
import sys, json
from workflow.jobs.job import clock
begun = clock()
from workflow.evaluation import prediction
from workflow.models import checkpoints, loading
checkpoints.import_model(sys.argv[1])
imported = clock()
model, tokenizer = loading.untouched({"path": sys.argv[1]}, sys.argv[2])
import torch
if torch.cuda.is_available():
    torch.cuda.synchronize()
loaded = clock()
from workflow.models.engine.reading import reading
with reading(model, 8192) as reader:
    reader.after([[5, 6, 7]]).tolist()
print(json.dumps([float(mark.split()[0]) for mark in (begun, imported, loaded, clock())]))
"""


def job(setting: Setting) -> dict[str, Any]:
    """Seconds from the start of a process to each mark, the second of two; the files are in the host's memory by then."""
    with tempfile.TemporaryDirectory() as folder:
        model, words = subjects.olmo(setting, "1B", torch.float32), subjects.tokenizer()
        model.save_pretrained(folder)
        words.save_pretrained(folder)
        size = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
        del model
        if not setting.small:
            torch.cuda.empty_cache()
        found = {}
        for dtype in ("fp32", "bf16")[: setting.number(2, 1)]:
            marks = [_started(folder, dtype) for _ in range(setting.number(2, 1))][-1]
            names = ("begun", "imported", "loaded", "first answer", "ended")
            found |= {f"{name}, {dtype}": mark for name, mark in zip(names, marks, strict=True)}
        return found | {"GB on disk": round(size / 1e9, 2)}


def _started(folder: str, dtype: str) -> list[float]:
    """Seconds after its start at which a job has begun, imported, loaded, answered, and ended."""
    start = time.perf_counter()
    ended = subprocess.run([sys.executable, "-c", JOB, folder, dtype], capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stderr.strip().splitlines()[-1])
    return [*json.loads(ended.stdout.splitlines()[-1]), round(time.perf_counter() - start, 2)]


CELLS: dict[str, Callable[[Setting], dict[str, Any]]] = {"job": job}
