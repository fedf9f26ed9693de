"""tests/gpu/check.sh on a machine that only looks as if it had a GPU: what passes, what fails, and what its deadline cuts."""

import os
import shutil
import subprocess

import pytest

from harness import ROOT

NVIDIA_SMI = """#!/bin/sh
case $* in
    *driver_version*) echo "name, driver" ;;
    *MIG*) echo 'No devices were found'; exit 6 ;;
    *) printf 'Card 9000\\nCard 9000\\n' ;;
esac
"""
DEVICES = """#!/bin/sh
[ "$1" = devices ] || { echo bench/bench_gpu was run; exit; }
printf '90 Card 9000\\n90 Card 9000\\n'
"""
BUILD_SH = """#!/bin/sh
mkdir -p build-gpu/tests build-gpu/bench build-gpu/bin build-gpu/gpu_worker/cuda
printf '%s\\n' 'windows 1a' 'fp8 2b' 'fp8-blocks 3c' 'wgmma 4d' 'overlap 5e' >build-gpu/gpu_worker/cuda/proven-ways
all="tests/gpu_sample tests/gpu_models_shared tests/gpu_ahead_shared bin/banyan bin/banyan-gpu-worker"
[ "$TARGET" != gpu_kernels ] || all=
cp bench_gpu build-gpu/bench/bench_gpu
for p in bench/bench_ops tests/gpu_ops tests/gpu_experts tests/gpu_attention tests/gpu_fp8 $all; do
    printf '#!/bin/sh\\necho %s was run, "$@"\\n' "$p" >build-gpu/$p
    chmod +x build-gpu/$p
done
"""
PASSES = "#!/bin/sh\nexit 0\n"


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def check(tmp_path):
    """Runs the script in a tree of its own; returns its status, the report, what was proven."""
    tree = tmp_path / "tree"
    put(tree / "bin/nvidia-smi", NVIDIA_SMI)
    put(tree / "bin/compute-sanitizer", '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift 2; done\nexec "$@"\n')
    put(tree / "bench_gpu", DEVICES)
    put(tree / "deploy/build.sh", BUILD_SH)
    put(tree / ".venv/bin/python", PASSES)
    (tmp_path / "shared/data/tiny/llama-gqa").mkdir(parents=True)
    (tree / "tests/bench/results").mkdir(parents=True)
    (tree / "tests/gpu").mkdir()
    shutil.copy(ROOT / "tests/gpu/check.sh", tree / "tests/gpu/check.sh")

    def run(**env):
        paths = {"PATH": f"{tree / 'bin'}:{os.environ['PATH']}", "BANYAN_CACHE": str(tree / "cache")}
        got = subprocess.run([tree / "tests/gpu/check.sh"], env={**os.environ, **paths, **env}, capture_output=True, text=True, timeout=120)
        proven = tree / "cache/cuda-proven"
        report = (tree / "tests/bench/results/gpu-Card-9000.md").read_text()
        return got.returncode, report, proven.read_text() if proven.exists() else ""

    run.tree = tree
    return run


def test_all_that_passes_is_reported_and_proven(check):
    rc, report, proven = check()
    assert rc == 0 and report.endswith("\n0 parts failed\n") and "CUT" not in report, report
    for part in ("Against the CPU: gpu_ops", "Against the CPU: gpu_sample", "Under compute-sanitizer: gpu_ops"):
        assert f"## {part}\n" in report
    assert "tests/gpu_ops was run, few\n" in report and "tests/gpu_ops was run,\n" in report.replace("run, \n", "run,\n")
    assert "## Products in FP8: fp8\n```\ntests/gpu_fp8 was run, fp8\n" in report and "Against the CPU: gpu_fp8" not in report
    assert "## Prompts' attention by warpgroups\n```\ntests/gpu_attention was run, wgmma\n" in report
    assert proven == "fp8 2b Card 9000\nfp8-blocks 3c Card 9000\nwgmma 4d Card 9000\noverlap 5e Card 9000\nwindows 1a Card 9000\n"


def test_other_cards_have_fewer_ways(check):
    for capability, ways in ((80, []), (89, ["fp8 2b"]), (120, ["fp8 2b", "overlap 5e"])):
        put(check.tree / "bench_gpu", DEVICES.replace("90 ", f"{capability} "))
        (check.tree / "cache/cuda-proven").unlink(missing_ok=True)
        rc, report, proven = check()
        assert rc == 0 and proven.split() == " ".join([f"{way} Card 9000" for way in [*ways, "windows 1a"]]).split(), report


def test_without_libzmq_the_kernels_are_checked(check):
    put(check.tree / "bin/pkg-config", "#!/bin/sh\nexit 1\n")
    rc, report, proven = check()
    assert rc == 0 and "No libzmq here" in report and "## Against the CPU: gpu_ops\n" in report, report
    assert "gpu_sample" not in report and "not here: build-gpu/bin/banyan-gpu-worker" in report and "not here: build-gpu/bin/banyan," in report
    assert "windows" not in proven  # nothing has shown them


def test_a_model_that_is_not_here_is_no_failure(check):
    (check.tree / "../shared/data/tiny/llama-gqa").rmdir()
    rc, report, proven = check()
    assert rc == 0 and report.count("not here: ../shared/data/tiny/llama-gqa\n") == 6 and "windows" not in proven, report


def test_an_instance_of_a_card_has_its_own_name(check):
    put(check.tree / "bench_gpu", "#!/bin/sh\necho 90 Card 9000 MIG 1g.10gb\n")
    rc, report, proven = check(CUDA_VISIBLE_DEVICES="MIG-1234")
    assert rc == 0 and "not here: a second card" in report and proven.count(" Card 9000 MIG 1g.10gb\n") == 4, report + proven


def test_without_a_build_or_a_device_nothing_else_is_tried(check):
    put(check.tree / "bench_gpu", "#!/bin/sh\necho the driver is too old\nexit 1\n")
    rc, report, proven = check()
    assert rc == 1 and report.endswith("\nFAILED: CUDA sees no device: the driver is too old\n1 parts failed\n") and not proven, report
    put(check.tree / "deploy/build.sh", "#!/bin/sh\necho no nvcc\nexit 1\n")
    rc, report, proven = check()
    assert rc == 1 and "no nvcc" in report and report.count("\n## ") == 1 and report.endswith("\n1 parts failed\n"), report


@pytest.mark.parametrize("says, rc", [("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", 9), ("No devices were found", 6)])
def test_a_driver_without_a_card_is_told_in_one_sentence(check, says, rc):
    put(check.tree / "bin/nvidia-smi", f'#!/bin/sh\necho "{says}"\nexit {rc}\n')
    env = {**os.environ, "PATH": f"{check.tree / 'bin'}:{os.environ['PATH']}"}
    got = subprocess.run([check.tree / "tests/gpu/check.sh"], env=env, capture_output=True, text=True, timeout=60)
    assert got.returncode == 1 and got.stderr == f"gpu-check: nvidia-smi finds no GPU: {says}\n" and not got.stdout


def test_what_fails_is_counted_and_proves_nothing(check):
    put(check.tree / ".venv/bin/python", "#!/bin/sh\n[ $1 = -c ] || exit 3\n")
    put(check.tree / "deploy/build.sh", BUILD_SH + "printf '#!/bin/sh\\nexit 3\\n' | tee build-gpu/tests/gpu_fp8 build-gpu/tests/gpu_experts >build-gpu/tests/gpu_attention\n")
    rc, report, proven = check()
    assert rc == 18 and "FAILED (status 3; command: server attention)" in report and report.endswith("\n18 parts failed\n"), report
    assert not proven


def test_what_takes_too_long_is_cut_and_named(check):
    put(check.tree / "deploy/build.sh", BUILD_SH + "printf '#!/bin/sh\\nsleep 600\\n' >build-gpu/tests/gpu_ops\n")
    rc, report, proven = check(BANYAN_GPU_SECONDS="2")
    assert rc > 4 and "was run" in report.split("## Against the CPU: gpu_ops")[0], report
    cut = report[report.index("Cut for time: "):]
    assert "Against the CPU: gpu_ops; Against the CPU: gpu_sample" in cut and not proven
