"""kill -9 of each process under 32 open streams: every stream ends, with the text of an undisturbed run (DESIGN D5)."""

import json
import random
import resource
import signal
import subprocess
import threading
import time

import pytest

from harness import PROGRAMS, TINY, Daemons, environment, in_threads, wait_for
from history import History

N = 150  # tokens a stream


def kinds():
    """32 different requests: greedy, penalties, seeded, two samples, stop strings, text and ids."""
    for i in range(32):
        sampling = {"temperature": 0, "max_new_tokens": N}
        if i % 8 == 4:
            sampling |= {"frequency_penalty": 0.4, "presence_penalty": 0.3, "repetition_penalty": 1.1}
        if i % 4 == 1:
            sampling |= {"temperature": 1, "seed": i}
        if i % 4 == 2:
            sampling |= {"temperature": 1, "seed": i, "n": 2}
        if i % 4 == 3:
            sampling |= {"stop": ["\\u0000never", "e"]} if i % 8 == 3 else {"min_new_tokens": 5, "stop": ["qqqq"]}
        prompt = {"text": f"story number {i} of the banyan tree " + "and so on " * (i % 5)} if i % 2 else {"input_ids": [30 + i] * (20 + i)}
        yield {**prompt, "sampling_params": sampling, "return_logprob": i % 5 == 0}


def run(server, body, progress):
    """What came of each sample, all events checked (history.py)."""
    h = History()

    def on_event(event):
        progress[id(h), event.get("index", 0)] = len(h.event(json.dumps(event))["output_ids"])

    server.stream("/generate", body, on_event)
    h.event("[DONE]")
    return h.samples()


@pytest.fixture(scope="module")
def slow():
    """A step takes a millisecond, so that kills hit streams in their middle."""
    with Daemons(gpu_worker=["--step-us", "1000"]) as d:
        yield d


@pytest.fixture(scope="module")
def undisturbed(slow):
    results = in_threads([lambda b=b: run(slow, b, {}) for b in kinds()])
    wait_for("the end", slow.is_idle)
    return results


def disturbed(server, act):
    """Runs all kinds while act(progress) does its worst; their results."""
    progress = {}
    done = threading.Event()

    def all_streams():
        try:
            return in_threads([lambda b=b: run(server, b, progress) for b in kinds()])
        finally:
            done.set()

    server.post("/flush_cache")
    results, _ = in_threads([all_streams, lambda: act(progress, done)])
    return results


def kill_at(server, names, share, seed=0):
    """Kills once `share` of all tokens have come."""
    rng = random.Random(seed)

    def act(progress, done):
        total = 32 * N
        wait_for("the streams to get there", lambda: sum(list(progress.values())) > share * total or done.is_set())
        assert not done.is_set(), "the streams were over before the kill"
        for name in names:
            server.kill(name)
        time.sleep(rng.random() * 0.05)
        for name in names:
            server.start(name)

    return act


ALL = ["gpu-worker", "scheduler", "tokenizer-worker", "detokenizer"]


@pytest.mark.parametrize("share", [0.02, 0.4])
@pytest.mark.parametrize("name", ALL)
def test_kill_one(slow, undisturbed, name, share):
    assert disturbed(slow, kill_at(slow, [name], share)) == undisturbed
    assert slow.generate("afterwards", 8)[2]["completion_tokens"] == 8
    wait_for("all pages to be free or in the tree", slow.is_idle, 2)


@pytest.mark.parametrize("names", [["scheduler", "tokenizer-worker"], ["scheduler", "detokenizer"],
                                   ["tokenizer-worker", "detokenizer"], ["gpu-worker", "scheduler"], ALL], ids="+".join)
def test_kill_some_at_once(slow, undisturbed, names):
    assert disturbed(slow, kill_at(slow, names, 0.3)) == undisturbed
    wait_for("all pages to be free or in the tree", slow.is_idle, 2)


def test_kill_again_and_again(slow, undisturbed):
    """Each kind in turn, faster than the streams end."""
    def act(progress, done):
        rng = random.Random(3)
        for name in 3 * ALL:
            if done.wait(0.04 + rng.random() * 0.05):
                return
            slow.restart(name)

    assert disturbed(slow, act) == undisturbed


def test_requests_before_the_first_token(slow, undisturbed):
    """The tokenizer worker and the scheduler die with requests that nobody has answered yet."""
    def act(progress, done):
        slow.restart("tokenizer-worker")
        time.sleep(0.01)
        slow.restart("scheduler")

    assert disturbed(slow, act) == undisturbed


def test_a_process_that_comes_while_no_file_may_be_opened_is_found_all_the_same():
    """The router tried once: what came while its clients held every descriptor was not there for it, and when the old one died nobody was."""
    with Daemons() as d:
        log = d.dir / "router.log"
        limits = resource.prlimit(d.pid("router"), resource.RLIMIT_NOFILE)
        resource.prlimit(d.pid("router"), resource.RLIMIT_NOFILE, (10, limits[1]))
        argv = [str(PROGRAMS["tokenizer-worker"]), "--run-dir", str(d.dir), "--model-path", str(TINY), "--instance", "late"]
        with open(d.dir / "tokenizer-worker-late.log", "ab") as out:
            late = subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment())
        try:
            wait_for("the router to fail", lambda: "cannot connect to a process" in log.read_text())
            d.kill("tokenizer-worker")
            wait_for("the list without it", lambda: log.read_text().count("cannot connect to a process") > 1)
            assert "too many open files" in log.read_text().lower(), log.read_text()
            resource.prlimit(d.pid("router"), resource.RLIMIT_NOFILE, limits)
            assert wait_for("an answer", lambda: d.post("/generate", {"text": "x", "sampling_params": {"max_new_tokens": 4}}).status == 200)
        finally:
            late.kill()
            late.wait()


def test_a_new_scheduler_lets_no_link_be_closed_to_one_that_has_not_found_it_yet():
    """With one of each kind it is ready. Routers let a second detokenizer go, with all that was on its way from it, and came back."""
    with Daemons() as d:
        log, said = d.dir / "detokenizer-late.log", d.dir / "scheduler.log"
        argv = [str(PROGRAMS["detokenizer"]), "--run-dir", str(d.dir), "--model-path", str(TINY), "--instance", "late"]
        with open(log, "ab") as out:
            late = subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment())
        try:
            wait_for("the router to join", lambda: "router joined" in log.read_text())
            late.send_signal(signal.SIGSTOP)
            d.restart("scheduler")
            wait_for("the new one to be ready", lambda: said.read_text().count("ready to serve") == 2)
            assert d.generate("hello", 4)[2]["completion_tokens"] == 4
            assert said.read_text().count("here instance=late") == 1, "it was to come late"
            late.send_signal(signal.SIGCONT)
            wait_for("it to be back", lambda: log.read_text().count("scheduler found") == 2)
            assert d.generate("hello", 4)[2]["completion_tokens"] == 4
            assert "router left" not in log.read_text(), log.read_text()
        finally:
            late.kill()
            late.wait()
