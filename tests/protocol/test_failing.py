"""The nth allocation, read, write or ZMQ call of each process fails: it ends with one line and is started again, or goes on; either way
all requests end as undisturbed ones do. A router's death is its clients': they ask again."""

import os
import re
import signal
import threading
import time

import pytest

from engine import engine as engine_on_a_tiny_model
from harness import BUILD, PROGRAMS, Daemons, in_threads, wait_for

SHIM = BUILD / "tests/libfail-nth.so"
KINDS = ["alloc", "read", "write", "zmq"]
NTH = [1, 2, 3, 5, 7, 12, 20, 50, 150, 500] if os.environ.get("BANYAN_TEST_LONG") == "yes" else [1, 7]


def bodies():
    for i in range(6):
        yield {"text": f"story number {i} of the banyan tree", "sampling_params": {"temperature": 0, "max_new_tokens": 60, "n": 1 + i % 2}}


@pytest.fixture(scope="module")
def server():
    with Daemons(gpu_worker=["--step-us", "1000"]) as d:
        yield d


def answers(server):
    def one(body):
        answer = server.post("/generate", body)
        found = answer.json
        assert answer.status == 200, answer
        return [x["output_ids"] for x in (found if isinstance(found, list) else [found])]

    return in_threads([lambda b=b: one(b) for b in bodies()])


@pytest.fixture(scope="module")
def undisturbed(server):
    return answers(server)


@pytest.fixture(scope="module")
def engine():
    """With the native engine in place of the stand-in."""
    with engine_on_a_tiny_model() as d:
        yield d


class Keeper(threading.Thread):
    """Starts a process again when it ends, as systemd would; without the shim."""

    def __init__(self, server, name):
        super().__init__(daemon=True)
        self.server, self.name_, self.over, self.status = server, name, threading.Event(), None

    def run(self):
        while not self.over.wait(0.01):
            if (status := self.server.processes[self.name_].poll()) is not None:
                self.status = status
                self.server.start(self.name_)
                return

    def end(self):
        self.over.set()
        self.join()
        return self.status


@pytest.mark.parametrize("nth", NTH)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - {"gpu-worker"}))
def test_the_nth_call_fails(server, undisturbed, name, kind, nth):
    fail(server, undisturbed, name, kind, nth)


@pytest.mark.parametrize("nth", NTH)
@pytest.mark.parametrize("kind", KINDS)
def test_the_nth_call_of_the_engine_fails(engine, kind, nth):
    fail(engine, answers(engine), "gpu-worker", kind, nth)


def fail(server, undisturbed, name, kind, nth):
    server.kill(name, signal.SIGTERM)
    server.start(name, LD_PRELOAD=str(SHIM), FAIL_NTH=f"{kind}:{nth}")
    wait_for("it to be back", lambda: serves(server))
    server.post("/flush_cache")
    log = server.dir / f"{name}.log"
    before = len(log.read_text())
    keeper = Keeper(server, name)
    keeper.start()
    try:
        server.processes[name].send_signal(signal.SIGUSR2)
        if name == "router":  # its clients lose their connections with it
            results = wait_for("the answers of who asks again", lambda: try_answers(server), 60)
        else:
            results = answers(server)
        # Without this a test of a late call, or of one that is rare, would pass with nothing having failed.
        has_come = comes(lambda: f"fail-nth: {kind}\n" in log.read_text()[before:] or more(server, name, undisturbed))
        if kind == "alloc" and has_come:
            wait_for("it to die", lambda: keeper.status is not None)
        wait_for("it to be back", lambda: serves(server))
    finally:
        status = keeper.end()
    if not has_come:
        server.restart(name)
        assert nth > 12, "the fault did not come"
        pytest.skip("once it serves it makes fewer such calls")
    said = re.findall(r"^.* error .*$", log.read_text()[before:], re.M)
    if status is None:  # it goes on without the one that is not to come any more
        server.restart(name)
    wait_for("it to be back", lambda: serves(server))
    assert results == undisturbed
    assert status is None or (status > 0 and len(said) == 1), (status, said)  # no signal: no crash, no assertion
    assert kind != "alloc" or (status == 1 and "out of memory" in said[0]), (status, said)
    wait_for("all pages to be free or in the tree", server.is_idle)


def comes(fault, seconds=60):
    """Does it, sooner or later?"""
    end = time.monotonic() + seconds
    while not fault():
        if time.monotonic() > end:
            return False
    return True


def more(server, name, undisturbed):
    """More of what makes it call: requests, and sessions that end and begin, since a warm process allocates and writes next to
    nothing for a request. False."""
    server.restart("scheduler" if name != "scheduler" else "detokenizer")
    assert try_answers(server) in (None, undisturbed)
    wait_for("it to be back", lambda: serves(server))
    return False


def serves(server):
    try:
        return server.get("/health_generate").status == 200
    except OSError:
        return False


def try_answers(server):
    try:
        return answers(server)
    except (OSError, AssertionError, ValueError):
        return None
    except Exception as e:  # http.client's of a connection that ends
        if type(e).__module__ == "http.client":
            return None
        raise
