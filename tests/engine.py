"""The daemons of harness.py with the native engine in place of the stand-in, on a tiny model."""

import contextlib
import sys
import tempfile
from pathlib import Path

from harness import BIN, PROGRAMS, ROOT, Daemons

sys.path.append(str(ROOT / "tests/e2e"))
import tiny_llama  # noqa: E402


@contextlib.contextmanager
def engine():
    """The daemons with the native engine on a tiny model."""
    with tempfile.TemporaryDirectory(prefix="soak-") as top:
        model = tiny_llama.write(Path(top) / "model", 1)
        before = PROGRAMS["gpu-worker"]
        PROGRAMS["gpu-worker"] = BIN / "banyan-gpu-worker"
        try:
            with Engine(model=model, gpu_worker=["--model-path", model, "--threads", "1", "--max-total-tokens", "65536", "--context-length", "512"]) as d:
                yield d
        finally:
            PROGRAMS["gpu-worker"] = before


class Engine(Daemons):
    def _argv(self, name):
        words = super()._argv(name)
        return [w for w in words if name != "gpu-worker" or w not in STAND_IN_WORDS]


STAND_IN_WORDS = ("--vocab", "640", "--first-id", "10", "--ids-end", "636")
