"""The wire as strangers and broken peers speak it: the peer is dropped, in words where it can read them; nobody else notices."""

import importlib.util
import random
import shutil
import subprocess
import sys

import msgpack
import pytest
import zmq

from harness import BIN, PROGRAMS, ROOT, Daemons, environment, in_threads, private_dir, rss_kib, wait_for


def _load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


m = _load("banyan_messages", ROOT / "proto/messages.py")
wire = _load("banyan_wire", ROOT / "proto/wire.py")

SOCKETS = ["scheduler.sock", "tokenizer-0.sock", "detokenizer-0.sock"]
PROMPT = list(range(40, 90))


class Stranger:
    """A DEALER that says what it likes."""

    def __init__(self, server, name, identity=b"stranger"):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.ROUTING_ID, identity)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(f"ipc://{server.dir / name}")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()

    def say(self, *parts):
        self.socket.send_multipart(parts)

    def hear(self, ms=5000):
        assert self.socket.poll(ms), "no answer"
        return m.decode(self.socket.recv())

    def hello(self, **more):
        fields = dict(version=m.WIRE_VERSION, build="test", role=m.ROLE_TOOL, instance="t", epoch=7, attempt=1)
        self.say(m.encode(m.Hello(**{**fields, **more})))
        return self.hear()[0]


@pytest.fixture(scope="module")
def fresh():
    with Daemons() as d:
        d.generate(PROMPT, 8)
        yield d


@pytest.fixture(autouse=True)
def unharmed(fresh):
    """After each test: the same processes, and the same text as ever."""
    pids = fresh.pids()
    yield
    assert all(p.poll() is None for p in fresh.processes.values())
    assert fresh.pids() == pids
    assert fresh.generate(PROMPT, 8)[2]["completion_tokens"] == 8


@pytest.mark.parametrize("name", SOCKETS)
def test_another_version_is_refused_in_words(fresh, name):
    with Stranger(fresh, name) as s:
        w = s.hello(version=99, role=m.ROLE_ROUTER)
        assert w.session == 0 and "speaks wire version 1" in w.refused and "speaks 99" in w.refused
        assert "run the same Banyan everywhere" in w.refused


def test_a_peer_of_another_version_ends_in_words():
    """The other side: a daemon that is refused says why and exits. The binder here is a test that speaks version 99."""
    run_dir = private_dir()
    socket = zmq.Context.instance().socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.bind(f"ipc://{run_dir}/scheduler.sock")
    p = subprocess.Popen([BIN / "banyan-router", "--run-dir", run_dir, "--port", "0"], stderr=subprocess.PIPE, text=True, env=environment())
    try:
        assert socket.poll(10000)
        identity, frame = socket.recv_multipart()
        hello, _, _ = m.decode(frame)
        w = m.Welcome(version=99, build="9.9", role=m.ROLE_SCHEDULER, epoch=5, attempt=hello.attempt, session=1, credit=1 << 20)
        socket.send_multipart([identity, m.encode(w)])
        assert p.wait(10) != 0
        said = p.stderr.read()
        assert "speaks 99" in said and "run the same Banyan everywhere" in said, said
    finally:
        p.kill()
        p.wait()
        socket.close()
        shutil.rmtree(run_dir)


@pytest.mark.parametrize("name, role", [("tokenizer-0.sock", m.ROLE_GPU_WORKER), ("detokenizer-0.sock", m.ROLE_SCHEDULER)])
def test_the_wrong_kind_of_process_is_refused(fresh, name, role):
    with Stranger(fresh, name) as s:
        assert "talks to routers" in s.hello(role=role).refused


@pytest.mark.parametrize("hello", [
    dict(role=0), dict(role=77), dict(epoch=0), dict(instance="x" * 1000), dict(endpoint="x" * 1000),
    dict(role=m.ROLE_GPU_WORKER), dict(role=m.ROLE_GPU_WORKER, capacity=m.Capacity(page_size=2**32 - 1, n_pages=2**32 - 1, n_slots=2**32 - 1, world=1)),
    dict(role=m.ROLE_GPU_WORKER, capacity=m.Capacity(page_size=16, n_pages=100, n_slots=8, step_tokens_max=64, world=1, replica=9), model=m.Model(n_vocab=640, context_len=100)),
], ids=str)
def test_a_hello_that_makes_no_sense_is_refused(fresh, hello):
    with Stranger(fresh, "scheduler.sock") as s:
        w = s.hello(**hello)
        assert w.session == 0 and w.refused, w


@pytest.mark.parametrize("name", SOCKETS)
def test_garbage_of_a_stranger(fresh, name):
    with Stranger(fresh, name) as s:
        for frame in (b"", b"\0", b"hello", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x93\x01\x02", b"\x91" * 100000,
                      m.encode(m.Heartbeat()), m.encode(m.Ack()), m.encode(m.Step(step=5), 3, 4), msgpack.packb([1, 0, 0, "x"]),
                      msgpack.packb([2**63, 0, 0]), msgpack.packb([1, -1, 0]), msgpack.packb({"a": 1}), bytes(1 << 20)):
            s.say(frame)
        s.say(b"many", b"parts", b"in", b"one")
        role = m.ROLE_TOOL if name == "scheduler.sock" else m.ROLE_ROUTER
        s.socket.setsockopt(zmq.RCVTIMEO, 5000)
        s.say(m.encode(m.Hello(version=m.WIRE_VERSION, role=role, epoch=9, attempt=77, instance="t")))
        while (w := s.hear()[0]).attempt != 77:
            assert w.KIND == m.Welcome.KIND and w.session == 0, "it is told that it has no session"
        assert w.session, "and is welcome once it says hello"


@pytest.mark.parametrize("name", SOCKETS)
def test_broken_frames_end_the_session_only(fresh, name):
    role = m.ROLE_TOOL if name == "scheduler.sock" else m.ROLE_ROUTER
    good = m.encode(m.Heartbeat(), 1, 1)
    with Stranger(fresh, name) as s:
        for i, broken in enumerate([good[:-1], good + b"x", b"\xc1", msgpack.packb([32, 1, 1, "no record"]), msgpack.packb([9999, 1, 1])]):
            w = s.hello(role=role, epoch=9, attempt=10 + i)
            while w.attempt != 10 + i:  # an answer to what came before
                w = s.hear()[0]
            assert w.session
            s.say(broken)
            while True:  # peers and such may come first
                end = s.hear()[0]
                if end.KIND == m.Welcome.KIND and end.session == 0:
                    break


def test_a_gap_ends_the_session(fresh):
    with Stranger(fresh, "scheduler.sock") as s:
        w = s.hello()
        s.say(m.encode(m.Heartbeat(), w.session, 5))
        assert s.hear()[0].session == 0


def test_a_second_scheduler_leaves_the_first_alone(fresh):
    done = subprocess.run([PROGRAMS["scheduler"], "--run-dir", fresh.dir], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "one scheduler at a time" in done.stderr and "another server is using this folder" in done.stderr
    assert fresh.generate("still here", 4)[2]["completion_tokens"] == 4


def test_a_tool_may_ask(fresh):
    with Stranger(fresh, "scheduler.sock") as s:
        w = s.hello()
        for i, (what, code) in enumerate([("loads", 0), ("dump", 0), ("cache", 0), ("nonsense", -5), ("abort", -1)]):
            s.say(m.encode(m.Ask(id=i, what=what, json="{}"), w.session, i + 1))
            a = s.hear()[0]
            assert (a.id, a.code) == (i, code), a


def mutate(rng, frame):
    frame = bytearray(frame)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(frame))
        roll = rng.random()
        if roll < 0.5:
            frame[at] = rng.randrange(256)
        elif roll < 0.75:
            del frame[at : at + rng.randint(1, 8)]
        else:
            frame[at:at] = rng.randbytes(rng.randint(1, 8))
        if not frame:
            break
    return bytes(frame)


@pytest.mark.parametrize("name", SOCKETS)
def test_mutated_frames_under_load(fresh, name):
    """Streams run while a peer with a session sends mutants of every kind of frame."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    role = m.ROLE_TOOL if name == "scheduler.sock" else m.ROLE_ROUTER
    before = {n: rss_kib(p) for n, p in fresh.pids().items()}
    whole = [fresh.generate([50 + i] * 20, 40)[:2] for i in range(8)]

    def attack():
        with Stranger(fresh, name, b"attacker") as s:
            seq = session = 0
            for i in range(3000):
                while s.socket.poll(0):
                    frame = m.decode(s.socket.recv())[0]
                    if frame.KIND == m.Welcome.KIND:
                        session, seq = frame.session, 0
                if not session:
                    s.say(m.encode(m.Hello(version=m.WIRE_VERSION, role=role, epoch=3, attempt=i + 1, instance="a")))
                    session = wait_for("a welcome", lambda: s.socket.poll(10) and (f := m.decode(s.socket.recv())[0]).KIND == m.Welcome.KIND and f.session)
                    seq = 0
                seq += 1
                cls = rng.choice(list(m.BY_KIND.values()))
                if cls in (m.Hello, m.Welcome):
                    continue
                frame = m.encode(cls(), session, seq)
                s.say(mutate(rng, frame) if rng.random() < 0.5 else frame)

    results = in_threads([lambda i=i: fresh.generate([50 + i] * 20, 40)[:2] for i in range(8)] + [attack])
    assert results[:8] == whole
    grown = {n: rss_kib(p) - before[n] for n, p in fresh.pids().items()}
    assert all(kib < 8192 for kib in grown.values()), grown


def test_the_python_reader_takes_whole_frames_only():
    """The tool of these tests: every kind of frame decodes to itself, and cut anywhere it is refused."""
    rng = random.Random(1)
    for cls in m.BY_KIND.values():
        frame = m.encode(cls(), 1, 2)
        message, session, seq = m.decode(frame)
        assert (message, session, seq) == (cls(), 1, 2)
        for _ in range(20):
            cut = frame[: rng.randrange(len(frame))]
            with pytest.raises(m.FrameError):
                m.decode(cut)
