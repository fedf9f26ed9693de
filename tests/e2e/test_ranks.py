"""`banyan serve --tp-size 2` and `--dp-size 2` with the real model: several gpu workers are one server."""

import contextlib
import os
import signal
import threading
import time

import pytest

import tiny_llama
from harness import Serve, in_threads, wait_for

PROMPT = "Once upon a time there were two little foxes who"


def one(s, text, n):
    return s.generate(text, n)[:2]


@pytest.fixture(scope="module")
def alone():
    with Serve("--threads", "1", "--max-total-tokens", "4096") as s:
        return one(s, PROMPT, 40)


@pytest.fixture(scope="module")
def ranks():
    with Serve("--tp-size", "2", "--max-total-tokens", "4096") as s:
        yield s


def test_two_ranks_answer_as_one(ranks, alone):
    assert one(ranks, PROMPT, 40) == alone
    assert {"gpu-worker-0.0", "gpu-worker-0.1"} <= set(ranks.pids())


@pytest.mark.parametrize("rank", [0, 1])
def test_kill_9_of_a_rank_in_the_middle_of_a_stream(ranks, alone, rank):
    pid, killed = ranks.pids()[f"gpu-worker-0.{rank}"], []

    def on_event(event):
        if not killed:
            killed.append(os.kill(pid, signal.SIGKILL))

    assert ranks.generate(PROMPT, 40, on_event=on_event)[:2] == alone
    assert killed
    wait_for("it to be back", lambda: ranks.pids()[f"gpu-worker-0.{rank}"] != pid)


@contextlib.contextmanager
def slowed(pid, share=0.9, period=0.01):
    """The process runs a tenth of the time."""
    over = threading.Event()

    def brake():
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(period * share)
            os.kill(pid, signal.SIGCONT)
            time.sleep(period * (1 - share))

    thread = threading.Thread(target=brake)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_slow_rank_makes_the_answer_late_and_nothing_else(tmp_path):
    with Serve("--model-path", tiny_llama.write(tmp_path / "m", 1), "--threads", "1", "--tp-size", "2", "--max-total-tokens", "4096") as s:
        answer = lambda: s.generate([20 + i for i in range(40)], 30, sampling={"ignore_eos": True})[1]  # noqa: E731
        before, pids = answer(), s.pids()
        for rank in (0, 1):
            with slowed(pids[f"gpu-worker-0.{rank}"]):
                assert answer() == before
        assert s.pids() == pids  # nobody was taken for dead


def test_a_rank_that_stands_still_is_noticed_while_it_does(tmp_path):
    """In the middle of a sum one of two stops and stays so: the other gives the group up by itself, the group comes together again
    when it can, and the streams go on with the same bytes."""
    with Serve("--model-path", tiny_llama.write(tmp_path / "m", 1), "--threads", "1", "--tp-size", "2", "--max-total-tokens", "16384") as s:
        answer = lambda: s.generate([20 + i for i in range(40)], 400, sampling={"ignore_eos": True})[1]  # noqa: E731
        before, says = answer(), "another rank of the group is lost"
        for rank in (1, 0):
            stopped, seen, over = s.pids()[f"gpu-worker-0.{rank}"], s.logs().count(says), threading.Event()

            def streams():
                while not over.is_set():
                    assert answer() == before

            def act():
                wait_for("it to run", lambda: s.load()["num_running_reqs"])
                os.kill(stopped, signal.SIGSTOP)
                try:
                    wait_for("the other to give it up", lambda: s.logs().count(says) > seen, 60)
                finally:
                    os.kill(stopped, signal.SIGCONT)
                    over.set()

            in_threads([streams, streams, act])
            assert answer() == before


def test_two_replicas_share_the_work_and_one_may_die(alone):
    with Serve("--dp-size", "2", "--max-total-tokens", "4096") as s:
        got = [None] * 8

        def run(i):
            got[i] = one(s, PROMPT, 40)

        threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
        for t in threads:
            t.start()
        os.kill(s.pids()["gpu-worker-1"], signal.SIGKILL)
        for t in threads:
            t.join()
        assert got == [alone] * 8
