"""Processes of one server that meet over tcp:// with keys: they serve as over their private sockets, and nobody else gets in."""

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest
import zmq

from harness import BIN, ROOT, Daemons, in_threads, private_dir, rss_kib, wait_for
from relay import Relay

sys.path.insert(0, str(ROOT / "gpu_worker/hf"))
from banyan_hf_worker import messages, wire as wires  # noqa: E402

PROMPT = list(range(20, 60))
ALL = ("scheduler", "tokenizer-worker", "detokenizer", "gpu-worker", "router")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def make_keys(folder, name="keys"):
    path = folder / name
    subprocess.run([BIN / "banyan", "keys", path], check=True, capture_output=True)
    return path


def read_keys(path):
    return dict(line.split() for line in path.read_text().splitlines() if not line.startswith("#"))


class Hosts(Daemons):
    """Every process with tcp:// endpoints of its own, and no run directory in common."""

    def __init__(self, keys, scheduler="127.0.0.1", texts="127.0.0.1"):
        self.keys, self.port = keys, free_port()
        at = ["--scheduler-endpoint", f"tcp://{scheduler}:{self.port}", "--curve-key-file", str(keys)]
        binds = ["--bind", f"tcp://{texts}:0"]
        super().__init__(**{name.replace("-", "_"): at + (binds if name in ("tokenizer-worker", "detokenizer") else []) for name in ALL})

    def _argv(self, name):
        words = super()._argv(name)
        at = words.index("--run-dir")
        return words[:at] + words[at + 2:]


@pytest.fixture(scope="module")
def keys():
    folder = private_dir()
    yield make_keys(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def hosts(keys):
    with Hosts(keys) as d:
        yield d


# ---- they serve ----


def test_the_same_bytes_as_over_private_sockets(hosts, server):
    assert hosts.generate(PROMPT, 40)[:2] == server.generate(PROMPT, 40)[:2]
    assert hosts.ok("/tokenize", {"prompt": "hello"}) == server.ok("/tokenize", {"prompt": "hello"})


@pytest.mark.parametrize("name", [n for n in ALL if n != "router"])
def test_a_killed_process_is_only_a_pause(hosts, name):
    whole = hosts.generate(PROMPT, 200)[:2]
    events = []

    def kill_in_the_middle(event):
        events.append(event)
        if len(events) == 3:
            hosts.restart(name)

    assert hosts.generate(PROMPT, 200, on_event=kill_in_the_middle)[:2] == whole


@pytest.fixture(scope="module")
def relayed(keys):
    """The gpu worker's way to the scheduler leads through a relay."""
    with contextlib.ExitStack() as stack:
        class Relayed(Hosts):
            def _argv(self, name):
                words = super()._argv(name)
                if name == "gpu-worker":
                    words[words.index("--scheduler-endpoint") + 1] = f"tcp://127.0.0.1:{self.relay.port}"
                    words += ["--step-us", "2000"]
                return words

        d = Relayed(keys)
        d.relay = stack.enter_context(Relay(d.port))
        stack.enter_context(d)
        yield d


def through(relayed, act):
    """Streams while act does something to their way."""
    begun = threading.Event()

    def stream():
        return relayed.generate(list(range(20, 60)), 200, on_event=lambda e: begun.set(), sampling={"ignore_eos": True})[1]

    def disturb():
        assert begun.wait(60)
        act(relayed.relay)

    return in_threads([stream, stream, stream, disturb])[:3]


def slow_and_in_crumbs(relay):
    relay.delay, relay.dribble = 0.001, True


def cut_and_cut_again(relay):
    for _ in range(3):
        relay.cut()
        wait_for("it to come again", lambda: relay.pairs)


def silent(relay):
    """Longer than the silence that peers put up with: the scheduler gives the worker up, and takes it again."""
    relay.stall()
    time.sleep(7)
    relay.flow()


@pytest.mark.parametrize("act", [slow_and_in_crumbs, cut_and_cut_again, silent])
def test_a_bad_way_between_hosts_changes_no_byte(relayed, server, act):
    expected = server.generate(list(range(20, 60)), 200, sampling={"ignore_eos": True})[1]
    try:
        assert through(relayed, act) == [expected] * 3
    finally:
        relayed.relay.delay, relayed.relay.dribble = 0.0, False
        relayed.relay.flow()
    wait_for("all pages to be free or in the tree", relayed.is_idle)


def test_the_wire_in_python_has_keys_too(hosts):
    """What the Transformers worker hands to it."""
    wire = wires.Wire(f"tcp://127.0.0.1:{hosts.port}", role=messages.ROLE_TOOL, instance="test", expect=messages.ROLE_SCHEDULER,
                      key_file=hosts.keys)
    assert next(wire.events(timeout=30))[0] == "up"
    wire.close()
    with pytest.raises(wires.Refused, match="--curve-key-file"):
        wires.Wire("tcp://127.0.0.1:1", role=messages.ROLE_TOOL, instance="test", expect=messages.ROLE_SCHEDULER)


# ---- nobody else gets in ----

HELLO = messages.Hello(version=messages.WIRE_VERSION, build="test", role=messages.ROLE_TOOL, instance="knock", epoch=5, attempt=1)


def knock(endpoint, hello, server_key=None, pair=None, seconds=1.0):
    """What a DEALER hears for these bytes within the time: a frame, or None."""
    s = zmq.Context.instance().socket(zmq.DEALER)
    s.linger = 0
    s.routing_id = b"gpu-worker:0:1234:1"
    if server_key:
        s.curve_serverkey, (s.curve_publickey, s.curve_secretkey) = server_key, pair
    s.connect(endpoint)
    s.send(hello)
    try:
        return s.recv() if s.poll(seconds * 1000) else None
    finally:
        s.close()


def test_a_wrong_key_and_a_plain_peer_hear_nothing(hosts):
    k = read_keys(hosts.keys)
    endpoint, hello = f"tcp://127.0.0.1:{hosts.port}", messages.encode(HELLO)
    server_key, ours = k["public"].encode(), (k["public"].encode(), k["secret"].encode())
    answer = messages.decode(knock(endpoint, hello, server_key, ours, seconds=30))[0]
    assert isinstance(answer, messages.Welcome) and answer.session  # with the key it is one of us
    assert knock(endpoint, hello, server_key, zmq.curve_keypair()) is None
    assert knock(endpoint, hello) is None
    assert hosts.generate(PROMPT, 8)[1]
    wait_for("the scheduler to say it", lambda: "its key is not in --curve-key-file" in hosts.logs())


ZMTP1 = b"\x01\x00" + b"\x08\x00abcdefg"
ZMTP3_NULL = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + bytes(32)
ZMTP3_CURVE_HUGE = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(15) + bytes(32) + b"\x06\x00\x00\x00\x00\x7f\xff\xff\xff"


def flood(port, n, payload):
    """n raw connections that say this and wait to be thrown out."""
    with contextlib.ExitStack() as stack:
        for _ in range(n):
            s = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            with contextlib.suppress(OSError):
                s.sendall(payload)
        time.sleep(0.2)


def n_fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_flood_of_raw_connections_does_no_harm(hosts):
    pid = hosts.pid("scheduler")
    text = hosts.generate(PROMPT, 30)[:2]
    flood(hosts.port, 50, b"x" * 100)  # what it allocates once
    before, fds = rss_kib(pid), n_fds(pid)
    payloads = [b"", b"\x00" * 4096, b"GET / HTTP/1.1\r\n\r\n" * 50, os.urandom(10000), ZMTP1, ZMTP3_NULL, ZMTP3_CURVE_HUGE,
                b"\xff" * 9 + b"\x7f" + os.urandom(500)]
    results = in_threads([lambda: [hosts.generate(PROMPT, 30)[:2] for _ in range(5)],
                          *[lambda p=p: flood(hosts.port, 60, p) for p in payloads]])
    assert results[0] == [text] * 5
    wait_for("its sockets to be closed", lambda: n_fds(pid) <= fds + 2)
    assert rss_kib(pid) - before < 4096
    assert hosts.pid("scheduler") == pid and hosts.processes["scheduler"].poll() is None


def test_more_connections_than_it_may_have_files(keys):
    """It runs out of descriptors, refuses, and serves when they are free again."""
    with Hosts(keys) as d:
        text = d.generate(PROMPT, 30)[:2]
        pid = d.pid("scheduler")
        room = n_fds(pid) + 20
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (room, room))
        flood(d.port, 60, b"")
        assert d.processes["scheduler"].poll() is None
        wait_for("the same answer again", lambda: d.generate(PROMPT, 30)[:2] == text)


def test_a_guest_is_let_in_by_a_line(tmp_path):
    """A host with a pair of its own: without its line it is nobody."""
    keys = make_keys(tmp_path)
    guest = tmp_path / "guest"
    line = subprocess.run([BIN / "banyan", "keys", guest, keys], check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    assert line.startswith("allow ") and read_keys(guest)["secret"] != read_keys(keys)["secret"]
    g = read_keys(guest)
    ask = (messages.encode(HELLO), g["server"].encode(), (g["public"].encode(), g["secret"].encode()))
    with Hosts(keys) as d:
        assert knock(f"tcp://127.0.0.1:{d.port}", *ask) is None
        with open(keys, "a") as f:
            f.write(line + "\n")
        d.restart("scheduler")
        assert knock(f"tcp://127.0.0.1:{d.port}", *ask, seconds=30)


# ---- what is refused before it starts ----


def said(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    return done.stderr + done.stdout


def test_tcp_without_keys_is_refused(tmp_path):
    assert "tcp:// needs --curve-key-file" in said(BIN / "banyan-scheduler", "--scheduler-endpoint", "tcp://127.0.0.1:0")


def test_keys_that_all_can_read_are_refused(tmp_path):
    path = make_keys(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    at = ["--scheduler-endpoint", "tcp://127.0.0.1:0", "--curve-key-file", path]
    assert "chmod 600" in said(BIN / "banyan-scheduler", *at)


def test_keys_are_never_overwritten(tmp_path):
    path = make_keys(tmp_path)
    before = path.read_text()
    assert "is there already" in said(BIN / "banyan", "keys", path)
    assert path.read_text() == before


# ---- two hosts ----


def in_netns(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True)


@pytest.fixture
def other_host():
    """A network namespace joined to ours by a veth pair: (its name, our address, its address)."""
    name = f"by{os.getpid()}"
    ours, theirs = f"{name}a", f"{name}b"
    net = f"10.{os.getpid() % 200 + 20}.{os.getpid() // 200 % 250}"
    if os.geteuid() or not shutil.which("ip") or in_netns("netns", "add", name).returncode:
        pytest.skip("network namespaces need root and iproute2")
    try:
        for words in (["link", "add", ours, "type", "veth", "peer", "name", theirs], ["link", "set", theirs, "netns", name],
                      ["addr", "add", f"{net}.1/24", "dev", ours], ["link", "set", ours, "up"],
                      ["-n", name, "addr", "add", f"{net}.2/24", "dev", theirs], ["-n", name, "link", "set", theirs, "up"],
                      ["-n", name, "link", "set", "lo", "up"]):
            if in_netns(*words).returncode:
                pytest.skip("this machine does not let us join network namespaces")
        yield name, f"{net}.1", f"{net}.2", ours
    finally:
        in_netns("link", "del", ours)
        in_netns("netns", "del", name)


def test_workers_on_another_host(keys, other_host, server):
    """Scheduler and router here; tokenizer worker, detokenizer and gpu worker there. The cable is pulled for a second."""
    namespace, here, there, cable = other_host

    class TwoHosts(Hosts):
        def _argv(self, name):
            words = super()._argv(name)
            return words if name in ("scheduler", "router") else ["ip", "netns", "exec", namespace, *words]

    with TwoHosts(keys, scheduler=here, texts=there) as d:
        assert d.generate(PROMPT, 40)[:2] == server.generate(PROMPT, 40)[:2]
        events = []

        def pull_the_cable(event):
            events.append(event)
            if len(events) == 3:
                in_netns("link", "set", cable, "down")
                time.sleep(1)
                in_netns("link", "set", cable, "up")

        whole = server.generate(PROMPT, 200)[:2]
        assert d.generate(PROMPT, 200, on_event=pull_the_cable)[:2] == whole
