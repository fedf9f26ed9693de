"""Models with states, served natively: a chat's turns go on from what was kept, and kill -9 of the worker changes no answer."""

import os
import signal

import pytest
import torch

import models
from harness import BIN, Serve, in_threads, wait_for

PROMPT = list(range(40, 240))
FLAGS = ["--impl", "native", "--max-total-tokens", "16384", "--threads", "1", "--kv-cache-dtype", "float32", "--max-running-requests", "16"]


@pytest.fixture(scope="module", params=["qwen3_5-text", "lfm2", "granite4"])
def name(request):
    """Gated delta nets; gated short convolutions; Mamba-2 and experts."""
    return request.param


@pytest.fixture(scope="module")
def server(name):
    s = Serve("--model-path", models.make(name), *FLAGS)
    try:
        s.wait_ready()
        yield s
    finally:
        s.stop()


def greedy(server, ids, n, on_event=None):
    return server.generate(ids, n, on_event=on_event, sampling={"ignore_eos": True})


@torch.inference_mode()
def transformers_ids(name, ids, n):
    """With a mask, or it would leave out of the text what looks like padding."""
    model, text = models.load(name), torch.tensor([ids])
    out = model.generate(text, attention_mask=torch.ones_like(text), max_new_tokens=n, do_sample=False, pad_token_id=0, eos_token_id=1 << 30)
    return out[0, len(ids):].tolist()


def test_each_turn_goes_on_from_a_state_and_says_what_transformers_says(name, server):
    said, cached = PROMPT[:120], []
    for turn in range(4):  # 430 tokens at the end, of 512
        want = transformers_ids(name, said, 70)
        text, ids, meta = greedy(server, said, 70)
        assert ids == want
        cached.append(meta["cached_tokens"])
        said += ids + list(range(300 + turn, 310 + turn))
    assert cached[0] == 0 and all(c >= 112 for c in cached[1:]) and cached[3] > cached[1], cached
    server.post("/flush_cache")
    cold = greedy(server, said, 40)
    warm = greedy(server, said, 40)
    assert cold[1] == warm[1] and cold[2]["cached_tokens"] == 0 and warm[2]["cached_tokens"] >= len(said) - 17


def test_in_company_and_after_the_same_beginning(server):
    prompts = [PROMPT[:100 + 8 * i] + [300 + i] * 50 for i in range(12)]
    alone = [greedy(server, p, 24)[1] for p in prompts]
    for again in range(2):  # from nothing, then from what was kept
        if not again:
            server.post("/flush_cache")
        assert in_threads([lambda p=p: greedy(server, p, 24)[1] for p in prompts]) == alone


def test_kill_9_of_the_worker_in_the_middle_of_streams(server):
    prompts = [[i + 20, *PROMPT] for i in range(6)]
    alone = [greedy(server, p, 60)[1] for p in prompts]
    pid, killed = server.pids()["gpu-worker"], []

    def on_event(event):
        if len(event["output_ids"]) >= 10 and not killed:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    assert in_threads([lambda p=p: greedy(server, p, 60, on_event)[1] for p in prompts]) == alone
    assert killed
    wait_for("it to be back", lambda: server.pids()["gpu-worker"] != pid)


def test_two_ranks_say_the_same(name, server):
    """Each has the whole of a state; the feed-forwards are parted."""
    want = greedy(server, PROMPT, 40)[1]
    two = Serve("--model-path", models.make(name), *FLAGS, "--tp-size", "2")
    try:
        two.wait_ready()
        assert [greedy(two, PROMPT, 40)[1] for _ in range(2)] == [want, want]
    finally:
        two.stop()


EMULATED = BIN.parent / "tests/banyan-cuda-emu.so"


@pytest.mark.skipif(not EMULATED.exists(), reason="the emulated CUDA device")
def test_a_device_says_the_same(name, server):
    """Two steps in flight, states kept and started from."""
    def answers(s):
        first = greedy(s, PROMPT, 30)
        again = greedy(s, PROMPT + first[1] + [5, 6, 7], 20)
        assert again[2]["cached_tokens"] >= 192
        return first[1], again[1], in_threads([lambda i=i: greedy(s, [i, *PROMPT[:60]], 12)[1] for i in range(5)])

    device = Serve("--model-path", models.make(name), *FLAGS, "--device", "cuda", "--deterministic", env={"BANYAN_CUDA_MODULE": str(EMULATED)})
    try:
        device.wait_ready()
        assert answers(device) == answers(server)
    finally:
        device.stop()
