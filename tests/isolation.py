"""A home for the hub's client that is empty, whatever the machine's own holds: caches, tokens, mirrors of its user.

And one thread for each process of the tests, which run beside each other.
"""

import atexit
import os
import shutil
import tempfile

FOREIGN = ("HF_", "HUGGING_FACE_", "HUGGINGFACE_", "TRANSFORMERS_", "DATASETS_")


def isolate() -> None:
    """Take the user's settings of the hub away and set an empty home; before anything imports the client."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="tunecast-hub-")
    atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)


isolate()
