"""A user's machine that reads from a hub: the real client in a process of its own, which reads its settings at import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment(home: Path, endpoint: str) -> dict[str, str]:
    """Settings of a machine whose home is empty at first: its cache, the hub that it reads, nothing of this machine's own."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
    }


class Client:
    """A user's machine: its own cache and settings, and everything that it was shown."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.home, self.endpoint = home, endpoint
        self.shown = ""

    def run(self, code: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run Python code from the repository's root."""
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**environment(self.home, self.endpoint), **settings},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.shown += result.stdout + result.stderr
        return result
