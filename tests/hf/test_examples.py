"""The examples of deploy/python run as they are, with tiny models; the page of models is what its table says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import models
from harness import BIN, ROOT

EXAMPLES = ROOT / "deploy/python/examples"
RUNS = {  # file: arguments, what it prints
    "batch.py": (["llama-gqa"], "The capital of France is"),
    "stream.py": (["llama-gqa"], "\n"),
    "custom_code.py": (["custom-code"], "tier R"),
    "native_and_transformers.py": (["llama-gqa", "4"], "of 4 texts are pipeline's"),
    "pipeline_side_by_side.py": (["llama-gqa", "4", "engine", "http"], "http  "),
}


@pytest.mark.parametrize("name", RUNS)
def test_an_example_runs(name):
    (model, *more), words = RUNS[name]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "deploy/python"), "BANYAN_BIN": str(BIN / "banyan"), "BANYAN_PYTHON": sys.executable,
           "BANYAN_MAX_TOTAL_TOKENS": "4096", "BANYAN_THREADS": "1"}
    done = subprocess.run([sys.executable, EXAMPLES / name, models.path_of(model), *more], env=env, capture_output=True, text=True,
                          timeout=280)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout


def test_every_example_is_run_here():
    assert {p.name for p in EXAMPLES.glob("*.py")} == set(RUNS)


def test_the_page_of_models_is_what_its_table_says():
    made = subprocess.run([sys.executable, ROOT / "gpu_worker/hf/models_page.py"], capture_output=True, text=True, check=True).stdout
    assert made == Path(ROOT / "deploy/docs/models.md").read_text(), "run gpu_worker/hf/models_page.py > deploy/docs/models.md"
