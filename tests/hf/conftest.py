"""What the tests of the Transformers worker share: the package and the harness on the path, one thread, tiny models.

They run in the venvs of deploy/setup.sh --transformers --tests: all of them with the newest transformers, those marked
both_lines with transformers 4 too.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("BANYAN_BUILD", ROOT / "build"))
for folder in ("tests", "gpu_worker/hf", "deploy/python"):
    sys.path.insert(0, str(ROOT / folder))
os.environ.setdefault("BANYAN_KERNELS", str(BUILD / "lib/libbanyan_kernels.so"))
os.environ.setdefault("BANYAN_BUILD", str(BUILD))
os.environ["OMP_NUM_THREADS"] = "1"

import pytest  # noqa: E402
import torch  # noqa: E402
from banyan_hf_worker import loader  # noqa: E402

import harness  # noqa: E402

torch.set_num_threads(1)
loader.quiet()


def pytest_configure(config):
    config.addinivalue_line("markers", "both_lines: runs with transformers 4 as well")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    for value in item.funcargs.values() if report.failed and hasattr(item, "funcargs") else []:
        if isinstance(value, harness.Serve):
            report.sections.append(("what the server said", value.logs()[-20000:]))
