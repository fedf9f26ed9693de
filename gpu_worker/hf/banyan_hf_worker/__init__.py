"""The Transformers worker: any causal language model that transformers can run, behind the frames of a gpu worker.

Read in this order: worker.py (a step), runner.py (a forward pass in one of four tiers), attention.py (tier A),
shim.py (tiers B and C), probe.py (which tier is right), folder.py and loader.py (from a path to a model).
"""

import importlib.util
import sys
from pathlib import Path


def tree(*parts):
    """A file of Banyan's tree: beside this package in a wheel, or above it in a checkout or an installation."""
    for folder in Path(__file__).resolve().parents:
        for path in (folder.joinpath(*parts), folder / parts[-1]):
            if path.exists():
                return path
    raise FileNotFoundError("/".join(parts))


def _load(name):
    spec = importlib.util.spec_from_file_location(f"banyan_{name}", tree("proto", f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def __getattr__(name):
    """messages and wire, when first asked for: without msgpack the process can still say what is missing."""
    if name not in ("messages", "wire"):
        raise AttributeError(name)
    if name == "wire" and "messages" not in globals():
        globals()["messages"] = _load("messages")
    globals()[name] = _load(name)
    return globals()[name]
