"""The whole server with every process behind its seccomp filter: the native engine, two ranks of it, and what they do when one dies."""

import os
import signal

import pytest

import tiny_llama
from harness import Serve, can_gain_no_rights, is_shut_in, wait_for

PROMPT = list(range(20, 60))


def answer(s):
    done = s.post("/generate", {"input_ids": PROMPT, "sampling_params": {"temperature": 0, "max_new_tokens": 24, "ignore_eos": True}})
    return done.json["output_ids"] if done.status == 200 else done


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llama.write(tmp_path_factory.mktemp("models") / "a", 1)


@pytest.fixture(scope="module")
def server(model):
    with Serve("--model-path", model, "--threads", "2", "--tp-size", "2") as s:
        yield s


def test_the_engine_is_shut_in(server):
    assert len(answer(server)) == 24
    pids = {**server.pids(), "serve": server.process.pid}
    assert {"gpu-worker-0.0", "gpu-worker-0.1", "router", "scheduler", "tokenizer-worker", "detokenizer"} <= set(pids)
    for name, pid in pids.items():
        assert is_shut_in(pid, server.logs()) and can_gain_no_rights(pid), name


def test_it_answers_as_it_does_without(server, model):
    with Serve("--model-path", model, "--threads", "2", "--tp-size", "2", "--sandbox", "off") as open_one:
        assert answer(server) == answer(open_one)


def test_who_is_killed_is_back_behind_it(server):
    before, pid = answer(server), server.pids()["gpu-worker-0.1"]
    os.kill(pid, signal.SIGKILL)
    wait_for("the same answer", lambda: answer(server) == before)
    back = wait_for("it to be up", lambda: (p := server.pids()["gpu-worker-0.1"]) != pid and p)
    assert is_shut_in(back, server.logs())
