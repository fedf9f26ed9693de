"""Two routers of one server behind haproxy, with the configuration that is shipped, as plain processes: a router may leave at any
time, and no client sees it."""

import os
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest

from harness import BIN, ROOT, Client, Daemons, Notify, environment, in_threads, wait_for

pytestmark = pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not here")
PROMPT = list(range(20, 60))


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Stack(Daemons):
    """The daemons, a second router, and haproxy before both. client: through haproxy."""

    def __enter__(self):
        self.routers, self.haproxy = {}, None
        self.ports = dict(zip(("a", "b", "balancer"), free_ports(3)))
        super().__enter__()  # with a router of its own, which the balancer does not know
        try:
            for name in "ab":
                self.start_router(name)
            self.start_haproxy()
            wait_for("the balancer to answer", lambda: self.is_up("balancer"))
        except BaseException:
            self.stop()
            raise
        self.client = Client("127.0.0.1", self.ports["balancer"])
        return self

    def start_router(self, name):
        notify = Notify(self.dir / f"notify-router-{name}")
        argv = [BIN / "banyan-router", "--run-dir", self.dir, "--port", self.ports[name], "--instance", name, "--served-model-name", "stand-in"]
        with open(self.dir / f"router-{name}.log", "ab") as log:
            process = subprocess.Popen([str(w) for w in argv], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                       env=environment(NOTIFY_SOCKET=notify.path))
        self.routers[name] = process
        wait_for(f"router {name} to be ready", lambda: notify.read().get("READY") or process.poll() is not None)
        assert process.poll() is None, f"router {name} ended:\n{self.logs()}"
        notify.close()

    def start_haproxy(self):
        env = {**os.environ, "BANYAN_BIND": f"127.0.0.1:{self.ports['balancer']}",
               **{f"BANYAN_ROUTER_{n.upper()}": f"127.0.0.1:{self.ports[n]}" for n in "ab"}}
        with open(self.dir / "haproxy.log", "ab") as log:
            self.haproxy = subprocess.Popen(["haproxy", "-db", "-f", str(ROOT / "deploy/conf/haproxy.cfg")], stdout=log, stderr=log, env=env)

    def is_up(self, name):
        try:
            return Client("127.0.0.1", self.ports[name]).get("/ready").status == 200
        except OSError:
            return False

    def n_served(self, name):
        text = Client("127.0.0.1", self.ports[name]).get("/metrics").body.decode()
        return int(re.search(r"^banyan:num_requests_total (\d+)$", text, re.M)[1])

    def roll(self, name):
        """As an orchestrator restarts it: the next one's turn is when the balancer sends requests to this one again."""
        self.routers[name].terminate()
        assert self.routers[name].wait(30) == 0
        self.start_router(name)
        wait_for(f"the balancer to use router {name} again", lambda: self.n_served(name) > 0)

    def stop(self):
        for p in [self.haproxy, *self.routers.values()]:
            if p and p.poll() is None:
                p.kill()
                p.wait()
        super().stop()


@pytest.fixture(scope="module")
def stack():
    with Stack(gpu_worker=["--step-us", "1000"]) as s:  # instant tokens would go out as a few events
        yield s


def test_a_stream_comes_through_as_it_is_made(stack):
    """Not buffered: the first event is here long before the last."""
    seen = []
    text = stack.generate(PROMPT, 400, on_event=lambda e: seen.append(time.monotonic()))[0]
    assert len(seen) > 20 and seen[-1] > seen[0] and text


def test_what_changes_the_server_is_not_for_outsiders(stack):
    spellings = ("/%64rain", "//drain", "/drain/", "/./drain", "/x/../drain", "/%2e/drain?x", "/x/%2e%2e/drain")
    for path in ("/flush_cache", "/metrics", "/update_weights_from_disk", "/drain", *spellings):
        assert stack.post(path).status == 403, path
    assert all(stack.is_up(name) for name in ("a", "b", "balancer"))


def test_a_rolling_restart_loses_no_request(stack):
    expected = stack.ok("/generate", {"input_ids": PROMPT, "sampling_params": {"temperature": 0, "max_new_tokens": 60}})["text"]
    over, done = threading.Event(), []

    def client(i):
        while not over.is_set():
            if i % 2:
                text = stack.generate(PROMPT, 60)[0]
            else:
                text = stack.ok("/generate", {"input_ids": PROMPT, "sampling_params": {"temperature": 0, "max_new_tokens": 60}})["text"]
            assert text == expected
            done.append(i)

    def restart():
        try:
            for name in "abab":
                before = len(done)
                stack.roll(name)
                wait_for("requests to go on", lambda: len(done) > before + 8)
        finally:
            over.set()

    in_threads([restart, *[lambda i=i: client(i) for i in range(8)]])
    assert set(done) == set(range(8))


def cut(stack, key, last=None):
    """Two events of a stream whose connection is then closed, as (id, the rest) each."""
    body = {"input_ids": PROMPT, "stream": True, "sampling_params": {"temperature": 0, "max_new_tokens": 300, "ignore_eos": True}}
    c = stack.client._open("POST", "/generate", body, {"Idempotency-Key": key, **({"Last-Event-ID": last} if last else {})})
    response = c.getresponse()
    if response.status != 200:
        return []
    ids = [response.readline().decode().rstrip() for _ in range(6)][::3]
    response.close()
    c.close()
    return [i.removeprefix("id: ") for i in ids]


def test_who_comes_back_with_a_key_finds_its_stream(stack):
    """Whichever router has it: the balancer sends one key to one router."""
    n_found = 0
    for i in range(40):  # a health check that was slow takes a router out, and its keys go to the other for a while
        first = cut(stack, f"key-{i}")
        again = first and cut(stack, f"key-{i}", first[-1])
        if not again:
            continue
        n_found += 1
        if n_found == 8:
            return
        assert [x.split("-")[1] for x in first + again] == ["1", "2", "3", "4"]
        assert len({x.split("-")[0] for x in first + again}) == 1
    raise AssertionError(f"only {n_found} of 40 streams were found again")


def test_a_killed_router_costs_its_open_streams_only(stack):
    """kill -9: who was connected through it gets an error at once; everybody else, and the next request, does not notice."""
    stack.routers["a"].kill()
    stack.routers["a"].wait()
    results = in_threads([lambda: stack.generate(PROMPT, 20)[0] for _ in range(8)])
    assert len(set(results)) == 1
    stack.start_router("a")


def test_with_no_router_at_all_the_answer_is_503_at_once(stack):
    for name in "ab":
        stack.routers[name].terminate()
        stack.routers[name].wait(30)
    began = time.monotonic()
    wait_for("the balancer to know", lambda: stack.get("/ready").status == 503)
    assert time.monotonic() - began < 30
    for name in "ab":
        stack.start_router(name)
    wait_for("it to be there again", lambda: stack.get("/ready").status == 200)
