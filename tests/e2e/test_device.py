"""--device: what a worker says when it cannot have a GPU, and a whole server on an emulated one (tests/cuda), its failures
included."""

import itertools
import os
import re
import signal
import subprocess
import sys

import pytest

from harness import BIN, BUILD, ROOT, Serve, can_gain_no_rights, in_threads, is_shut_in, wait_for

EMULATED = BUILD / "tests/banyan-cuda-emu.so"
WITH_NCCL = BUILD / "tests/banyan-cuda-emu-nccl.so"
REAL = BUILD / "lib/banyan-cuda.so"
MODEL = ROOT.parent / "shared/data/tiny/llama-gqa"
has_model = pytest.mark.skipif(not MODEL.exists() or not EMULATED.exists(),
                               reason="the emulated CUDA device (no C++ compiler, or no ../shared/data)")


def worker(*flags, module=EMULATED, **env):
    return subprocess.run([BIN / "banyan-gpu-worker", "--model-path", MODEL, *flags], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "BANYAN_CUDA_MODULE": str(module), **{k: str(v) for k, v in env.items()}})


def test_a_device_that_is_none_is_refused():
    got = worker("--device", "tpu")
    assert got.returncode == 1 and "--device tpu: there are cpu, cuda and cuda:N" in got.stderr


def test_without_the_module_a_worker_says_how_to_get_it(tmp_path):
    got = worker("--device", "cuda", module=tmp_path / "none.so")
    assert got.returncode == 1
    assert "the CUDA backend is not there" in got.stderr and "deploy/setup.sh --cuda" in got.stderr
    assert len(got.stderr.strip().splitlines()) == 1


def test_a_module_of_another_build_is_refused():
    got = worker("--device", "cuda", module=BUILD / "lib/libbanyan_kernels.so")
    assert got.returncode == 1 and "is of another build" in got.stderr


@pytest.mark.skipif(not REAL.exists(), reason="the CUDA module (no CUDA compiler)")
@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="what is said without a GPU (there is one)")
def test_the_real_module_loads_and_says_that_there_is_no_driver():
    got = worker("--device", "cuda:0", module=REAL)
    assert got.returncode == 1 and "no CUDA driver is loaded here" in got.stderr
    assert len(got.stderr.strip().splitlines()) == 1


@has_model
def test_a_device_out_of_range_is_refused():
    got = worker("--device", "cuda:7")
    assert got.returncode == 1 and "cuda:7" in got.stderr


OUT_OF_RANGE = "--device cuda:%d: this machine has 2 emulated devices"


@has_model
@pytest.mark.parametrize("flags, said", [
    (["--dp-rank", "1"], " on cuda:1 SIMT emulator"),
    (["--dp-rank", "3"], OUT_OF_RANGE % 3),
    (["--dp-rank", "3", "--local-rank", "1"], " on cuda:1 SIMT emulator"),
    (["--dp-rank", "3", "--local-rank", "0"], " on cuda:0 SIMT emulator"),
    (["--tp-size", "4", "--tp-rank", "2", "--dp-rank", "1"], OUT_OF_RANGE % 6),
    (["--tp-size", "4", "--tp-rank", "2", "--local-rank", "5"], OUT_OF_RANGE % 5),
    (["--device", "cuda:1", "--dp-rank", "3", "--local-rank", "2"], OUT_OF_RANGE % 3),
])
def test_a_worker_of_another_host_takes_a_device_that_is_there(flags, said):
    """Hosts of two devices: without its number there a worker takes that of the whole group."""
    got = worker("--device", "cuda", *flags, "--max-total-tokens", "64", "--one-batch", "1x2x1")
    assert said in got.stderr and (got.returncode != 0) == said.startswith("--device"), got.stderr


@has_model
def test_a_model_that_does_not_fit_is_refused_with_numbers():
    got = worker("--device", "cuda", BANYAN_EMU_BYTES=100000)
    assert got.returncode == 1 and "the weights do not fit" in got.stderr and "--tp-size" in got.stderr


@has_model
@pytest.mark.parametrize("env, what", [({"BANYAN_EMU_FAIL": 300}, "an illegal memory access"), ({"BANYAN_EMU_HANG": 300}, "not done after")])
def test_a_device_that_fails_in_a_step_ends_the_worker(env, what):
    got = worker("--device", "cuda", "--max-total-tokens", "512", "--one-batch", "2x20x8", **env)
    assert got.returncode != 0 and what in got.stderr


def test_fp8_in_the_cache_is_for_a_gpu():
    got = worker("--kv-cache-dtype", "fp8")
    assert got.returncode == 1 and "--kv-cache-dtype fp8 is for --device cuda" in got.stderr and "int8" in got.stderr
    assert len(got.stderr.strip().splitlines()) == 1


DEVICE = {"BANYAN_CUDA_MODULE": str(EMULATED)}
PROMPT = "Once upon a time"
FLAGS = ["--model-path", str(MODEL), "--max-total-tokens", "2048", "--max-running-requests", "8"]


@has_model
def test_a_server_on_an_emulated_device_answers_as_one_on_the_cpu():
    with Serve(*FLAGS, "--threads", "1", env={"BANYAN_TEST_EXACT": "1"}) as s:
        want = s.generate(PROMPT, 24)[:2]
    with Serve(*FLAGS, "--device", "cuda", env=DEVICE) as s:
        assert s.generate(PROMPT, 24)[:2] == want


@has_model
def test_a_cache_in_fp8_holds_more_tokens():
    """Of numbers in heads of 16: 16 bytes and a scale of 4 in place of 32."""
    tokens = {}
    for kind in ("bfloat16", "fp8"):
        flags = ["--model-path", str(MODEL), "--device", "cuda", "--max-running-requests", "8", "--kv-cache-dtype", kind]
        with Serve(*flags, env={**DEVICE, "BANYAN_EMU_BYTES": str(150 << 20)}) as s:
            assert len(s.generate(PROMPT, 24)[1]) == 24
            tokens[kind] = s.get("/get_server_info").json["max_total_num_tokens"]
    assert 1.55 < tokens["fp8"] / tokens["bfloat16"] < 1.65, tokens


@has_model
def test_two_ranks_on_emulated_devices_stay_of_one_mind():
    """Past step 64, where the scheduler compares what each rank knows; a difference would end the session."""
    with Serve(*FLAGS, "--device", "cuda", "--tp-size", "2", env=DEVICE) as s:
        first = s.generate(PROMPT, 70)[:2]
        assert s.generate(PROMPT, 70)[:2] == first and len(first[1]) == 70
        pids = s.pids()
        assert {"gpu-worker-0.0", "gpu-worker-0.1"} <= set(pids)
        for name, pid in pids.items():  # the filter comes when the device is open, and its ioctls go through
            assert is_shut_in(pid, s.logs()) and can_gain_no_rights(pid), name
        assert "another rank" not in s.logs()


@has_model
@pytest.mark.skipif(not WITH_NCCL.exists(), reason="the emulated device with NCCL (no headers of NCCL)")
@pytest.mark.parametrize("model", ["llama-gqa", "llama-tied"])
def test_two_ranks_over_nccl_answer_as_one(model):
    """Sums and logits on the devices, so that steps are in flight as with one rank; sums in windows of memory."""
    flags = ["--model-path", str(MODEL.parent / model), "--max-total-tokens", "2048", "--max-running-requests", "8",
             "--device", "cuda", "--deterministic"]
    with Serve(*flags, env=DEVICE) as s:
        want = s.generate(PROMPT, 70)[:2]
    with Serve(*flags, "--tp-size", "2", env={"BANYAN_CUDA_MODULE": str(WITH_NCCL), "BANYAN_TEST_CUDA_WAYS": "all"}) as s:
        assert s.generate(PROMPT, 70)[:2] == want
        assert "another rank" not in s.logs() and "memory that all can read" in s.logs()
        assert ahead_of_time(s) > 0


@has_model
@pytest.mark.skipif(not WITH_NCCL.exists(), reason="the emulated device with NCCL (no headers of NCCL)")
def test_a_rank_with_little_memory_for_graphs_goes_as_the_others_do():
    """One for all numbers of rows that a step has, where the other rank has one for each. A sum that one rank alone has recorded
    never ends there."""
    env = {"BANYAN_CUDA_MODULE": str(WITH_NCCL), "BANYAN_EMU_GRAPHS": "1@1"}
    with Serve(*FLAGS, "--device", "cuda", "--tp-size", "2", env=env) as s:
        first = s.pids()["gpu-worker-0.1"]
        got = in_threads([lambda n=n: s.generate(PROMPT, n)[1] for n in (8, 16, 24)])
        assert [len(ids) for ids in got] == [8, 16, 24]
        assert s.pids()["gpu-worker-0.1"] == first, s.logs()


@has_model
def test_streams_go_on_when_the_device_fails(tmp_path):
    """The worker's device fails in the middle of a stream; that of the worker which follows does not."""
    with Serve(*FLAGS, "--device", "cuda", env=DEVICE) as s:
        want = s.generate(PROMPT, 40)[:2]
    once = tmp_path / "fail-once"
    once.write_text("900")
    with Serve(*FLAGS, "--device", "cuda", env={**DEVICE, "BANYAN_EMU_FAIL_FILE": str(once)}) as s:
        first = s.pids()["gpu-worker"]
        assert s.generate(PROMPT, 40)[:2] == want
        assert not once.exists()
        wait_for("the next worker", lambda: s.pids().get("gpu-worker", first) != first)


def talk(server, stop_id, on_event=None):
    """Text and ids of streams side by side: one that a stop id ends, one that its text ends, one drawn, one that counts its tokens."""
    samplings = [{}, {"stop_token_ids": [stop_id]}, {"stop": ["e", " "]}, {"temperature": 1, "seed": 7}, {"frequency_penalty": 0.5}]
    lengths = [40, 40, 40, 40, 6]
    return in_threads([lambda i=i: server.generate(PROMPT + " " * i, lengths[i], on_event, sampling=samplings[i])[:2] for i in range(5)])


def ahead_of_time(server):
    """How many steps its worker says it began while another was in flight, when it lost the scheduler."""
    os.kill(server.pids()["scheduler"], signal.SIGKILL)
    found = wait_for("the worker to notice", lambda: re.search(r"lost the scheduler.*; (\d+) steps began", server.logs()))
    return int(found[1])


@has_model
def test_two_steps_in_flight_answer_as_one():
    """What ends while its next step is in flight included (a stop id, a stop text, a client that leaves), and kill -9 of the worker."""
    flags = [*FLAGS, "--device", "cuda", "--deterministic"]
    with Serve(*flags, "--steps-in-flight", "1", env=DEVICE) as s:
        stop_id = s.generate(PROMPT + " ", 12)[1][9]
        want = talk(s, stop_id)
        assert len(want[0][1]) == 40 and len(want[1][1]) <= 10 and len(want[2][1]) < 40
        assert ahead_of_time(s) == 0
    with Serve(*flags, env=DEVICE) as s:
        assert talk(s, stop_id) == want
        wait_for("all pages to be free or in the tree", s.is_idle)
        gone = s.client._open("POST", "/generate", {"text": PROMPT, "stream": True, "sampling_params": {"max_new_tokens": 100}})
        response = gone.getresponse()
        response.readline()
        response.close()
        gone.close()
        wait_for("its pages to be free", s.is_idle)
        assert ahead_of_time(s) > 0
        first, events = s.pids()["gpu-worker"], itertools.count()

        def kill_once(_):
            if next(events) == 15:
                os.kill(first, signal.SIGKILL)

        assert talk(s, stop_id, kill_once) == want
        wait_for("the next worker", lambda: s.pids()["gpu-worker"] != first)
        wait_for("all pages to be free or in the tree", s.is_idle)


@has_model
def test_the_check_of_two_ranks_on_one_card_runs():
    """`make gpu-check` on a device that both ranks share; what torch is needed for is told where it is not."""
    script = ROOT / "tests/gpu/check_server.py"
    env = {**os.environ, **DEVICE, "BANYAN_BUILD": str(BUILD)}
    got = subprocess.run([sys.executable, script, "ranks", MODEL], capture_output=True, text=True, timeout=300, env=env)
    assert got.returncode == 0 and got.stdout.count("ids") == 3, got.stdout + got.stderr
    got = subprocess.run([sys.executable, script, "attention"], capture_output=True, text=True, timeout=300, env=env)
    assert got.returncode == 0 and ("not here: " in got.stdout or "TFLOP/s" in got.stdout), got.stdout + got.stderr
