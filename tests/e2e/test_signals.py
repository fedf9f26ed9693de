"""Signals in orders that nobody plans: none loses a request that runs, and what ends leaves nothing behind."""

import os
import re
import signal
from pathlib import Path

import pytest

from harness import CHATML, TINY, Serve, alive, in_threads, stand_in, wait_for

FLAGS = ["--model-path", TINY, "--chat-template", CHATML]
PROMPTS = [[20 + i] * 20 for i in range(8)]


@pytest.fixture
def worker(tmp_path):
    return stand_in(tmp_path, "--step-us", 2000)


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def ask(s, n=200):
    return in_threads([lambda p=p: s.generate(p, n)[:2] for p in PROMPTS])


def test_who_stands_still_for_a_moment_loses_nothing(worker):
    """SIGSTOP and SIGCONT of each process in turn, `banyan serve` itself among them, while streams run."""
    with Serve(*FLAGS, worker=worker) as s:
        whole, pids = ask(s), s.pids()

        def disturb():
            wait_for("them to run", lambda: s.load()["num_running_reqs"] == len(PROMPTS))
            for pid in [*pids.values(), s.process.pid]:
                os.kill(pid, signal.SIGSTOP)
                try:
                    wait_for("it to stand still", lambda: is_stopped(pid))
                finally:
                    os.kill(pid, signal.SIGCONT)

        assert in_threads([lambda: ask(s), disturb])[0] == whole
        assert s.pids() == pids and "is started again" not in s.logs()


def test_a_hang_up_while_it_drains(worker):
    """SIGHUP means to read the keys again to a router, then too."""
    with Serve(*FLAGS, worker=worker) as s:
        whole = ask(s)

        def stop():
            wait_for("them to run", lambda: s.load()["num_running_reqs"] == len(PROMPTS))
            s.process.terminate()
            wait_for("the drain to begin", lambda: "stopping" in s.logs())
            os.kill(s.pids()["router"], signal.SIGHUP)

        assert in_threads([lambda: ask(s), stop])[0] == whole
        assert s.wait() == 0
        assert not any(alive(pid) for pid in s.pids().values())


@pytest.mark.parametrize("line", ["scheduler is up", "gpu-worker is here", "router is up"])
def test_a_stop_while_it_starts(worker, tmp_path, line):
    s = Serve(*FLAGS, worker=worker, run_dir=tmp_path / "run")
    try:
        wait_for("it to be so far", lambda: line in s.logs())
        s.process.terminate()
        assert s.wait() == 0, s.logs()
        pids = [int(pid) for pid in re.findall(r"is up pid=(\d+)", s.logs())]
        assert not any(alive(pid) for pid in pids)
        assert os.listdir(tmp_path / "run") == []
    finally:
        s.stop()


STANDING = ["scheduler", "gpu-worker", "tokenizer-worker", "detokenizer", "router"]


@pytest.fixture
def one_stands_still(worker, tmp_path, request):
    """A server of whose processes one does not run any more; its folder, which is to stay."""
    drain = [] if request.param != "router" else ["--drain-timeout", "1"]  # nobody but itself knows what it still has to do
    with Serve(*FLAGS, *drain, worker=worker, run_dir=tmp_path / "run") as s:
        assert s.generate("hello", 4)[2]["completion_tokens"] == 4
        pid = s.pids()[request.param]
        os.kill(pid, signal.SIGSTOP)
        wait_for("it to stand still", lambda: is_stopped(pid))
        yield s, request.param


def left_of(s, run_dir):
    return [name for name, pid in s.pids().items() if alive(pid)], os.listdir(run_dir)


@pytest.mark.parametrize("one_stands_still", STANDING, indirect=True)
def test_a_stop_while_one_stands_still(one_stands_still, tmp_path):
    """It is waited for five seconds once the router has done its work (it was: for --drain-timeout more), and leaves nothing either."""
    s, name = one_stands_still
    s.process.terminate()
    assert s.wait() == 0
    assert left_of(s, tmp_path / "run") == ([], [])
    assert f"{name} did not stop in time, and was killed" in s.logs()


@pytest.mark.parametrize("one_stands_still", STANDING, indirect=True)
def test_a_stop_now_while_one_stands_still(one_stands_still, tmp_path):
    s, name = one_stands_still
    s.process.terminate()
    wait_for("the drain to begin", lambda: "stopping" in s.logs())
    s.process.terminate()
    assert s.wait() == 0
    assert left_of(s, tmp_path / "run") == ([], [])
