"""Many streams, many requests, clients that leave: nothing is mixed up, and nothing stays behind."""

import json
import random
import re
import select
import socket
import time

import pytest

from harness import DEADLINE, Daemons, in_threads, rss_kib, wait_for

PROMPTS = [f"tell me about number {i} " + "and more " * (i % 7) for i in range(32)]


def test_32_at_a_time_are_as_one_at_a_time(server):
    alone = [server.generate(p, 60) for p in PROMPTS]
    together = in_threads([lambda p=p: server.generate(p, 60) for p in PROMPTS])
    assert [t[:2] for t in together] == [a[:2] for a in alone]
    seeded = {"temperature": 1, "seed": 5}
    alone = [server.generate(p, 30, sampling=seeded)[:2] for p in PROMPTS]
    assert [t[:2] for t in in_threads([lambda p=p: server.generate(p, 30, sampling=seeded) for p in PROMPTS])] == alone


def open_stream(server, n=100000):
    """A raw socket with a stream on it whose first event has come."""
    body = '{"text": "go on", "stream": true, "sampling_params": {"temperature": 0, "max_new_tokens": %d}}' % n
    s = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
    s.sendall(f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    assert b" 200 " in s.recv(4096)
    return s


def test_a_client_that_leaves_frees_its_pages_at_once():
    with Daemons(gpu_worker=["--step-us", "1000"]) as server:
        streams = [open_stream(server) for _ in range(20)]
        wait_for("all to run", lambda: server.load()["num_running_reqs"] == 20)
        assert server.load()["num_used_tokens"] > 0
        for s in streams:
            s.close()
        wait_for("all pages to be free or in the tree", server.is_idle, 1)
        server.post("/flush_cache")
        assert server.generate("go on", 4)[2]["completion_tokens"] == 4


def test_a_client_that_leaves_before_the_answer_is_forgotten():
    with Daemons(gpu_worker=["--step-us", "1000"]) as server:
        body = '{"text": "go on", "sampling_params": {"max_new_tokens": 8000, "ignore_eos": true}}'
        for _ in range(10):
            s = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
            s.sendall(f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            s.close()
        wait_for("nothing to be left", server.is_idle, 2)


def test_a_client_that_does_not_read_is_paused_and_goes_on():
    """It takes nothing: the router's buffer fills, the request is paused, others go on. When it reads again it gets all."""
    with Daemons(gpu_worker=["--step-us", "300"]) as server:
        whole = server.generate("go on", 2500)
        server.post("/flush_cache")
        s = open_stream(server, 2500)  # 2,500 cumulative events are some 30 MB: far more than any socket buffer
        wait_for("it to be paused", lambda: server.load()["num_running_reqs"] == 0 and not server.is_idle())
        assert rss_kib(server.pid("router")) < 100_000
        assert server.generate("others", 8)[2]["completion_tokens"] == 8
        f = s.makefile("rb")
        last = b""
        while (line := f.readline()) != b"data: [DONE]\n":
            assert line, "the stream ended without [DONE]"
            if line.startswith(b"data: "):
                last = line
        assert json.loads(last[6:])["text"] == whole[0]


def test_a_client_that_never_reads_is_cut_off():
    """Paused first, then cancelled: its pages are free, others never noticed, and the log says by which option."""
    with Daemons(gpu_worker=["--step-us", "300"], router=["--slow-client-timeout", "1"]) as server:
        s = open_stream(server, 8000)
        wait_for("it to be paused", lambda: server.load()["num_running_reqs"] == 0)
        assert server.generate("others", 8)[2]["completion_tokens"] == 8
        wait_for("its pages to be free", server.is_idle)
        assert "--slow-client-timeout" in (server.dir / "router.log").read_text()
        assert re.search(r"^banyan:num_aborted_requests_total [1-9]", server.get("/metrics").body.decode(), re.M)
        s.settimeout(DEADLINE)
        try:
            while data := s.recv(1 << 20):
                assert b"[DONE]" not in data
        except ConnectionError:
            pass
        s.close()


def test_clients_that_do_not_read_keep_nobody_out():
    """They hold every slot, and paused as they are they give it to the first who wants it."""
    with Daemons(gpu_worker=["--step-us", "300", "--slots", "4"]) as server:
        slow = [open_stream(server, 8000) for _ in range(4)]
        wait_for("them to be paused", lambda: server.load()["num_running_reqs"] == 0)
        assert server.generate("others", 8)[2]["completion_tokens"] == 8
        for s in slow:
            s.close()
        wait_for("their pages to be free", server.is_idle)


def drip(s, until):
    """A byte every tenth of a second, until the server has something to say."""
    while not select.select([s], [], [], 0.1)[0]:
        assert time.monotonic() < until, "a dripping request is waited for"
        s.sendall(b"x")
    return s.recv(65536)


def test_a_request_that_drips_is_refused():
    """408 for a head and for a body that come byte by byte; a body that takes as long, but brings something, is served."""
    with Daemons(router=["--slow-request-timeout", "1"]) as server:
        head = "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        body = b" " * 40_000 + json.dumps({"text": "x", "sampling_params": {"max_new_tokens": 1}}).encode()
        for begin in (f"{head}X-Long: ", f"{head}Content-Length: 100000\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as s:
                s.sendall(begin.encode())
                answer = drip(s, time.monotonic() + DEADLINE)
                assert answer.startswith(b"HTTP/1.1 408 ") and b"--slow-request-timeout" in answer
        with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as s:
            s.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-12])
            for byte in body[-12:]:
                time.sleep(0.15)
                s.sendall(bytes([byte]))
            assert s.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_300_hang_ups():
    """Whole or streamed, before the answer, in its middle or near its end: nothing of them stays."""
    rng = random.Random(300)
    with Daemons(gpu_worker=["--step-us", "500"]) as server:
        def hang_up(seed):
            rng = random.Random(seed)
            n, is_stream = rng.choice([1, 20, 8000]), rng.random() < 0.7
            body = json.dumps({"text": f"go on {seed % 7}", "stream": is_stream, "sampling_params": {"max_new_tokens": n, "ignore_eos": True}})
            with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as s:
                s.sendall(f"POST /generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                if is_stream:
                    for _ in range(rng.randrange(4)):
                        if not s.recv(512):
                            break

        def batch(n):
            in_threads([lambda seed=rng.randrange(10**6): hang_up(seed) for _ in range(n)])
            wait_for("nothing to run and all pages to be free or in the tree", server.is_idle)

        batch(60)
        before = {name: rss_kib(pid) for name, pid in server.pids().items()}
        for _ in range(4):
            batch(60)
        grown = {name: rss_kib(pid) - before[name] for name, pid in server.pids().items()}
        assert all(kib < 12288 for kib in grown.values()), grown
        assert server.post("/flush_cache").json["kept_tokens"] == 0
        assert server.get("/v1/cache").json["replicas"][0]["held_tokens"] == 0
        assert server.generate("go on", 4)[2]["completion_tokens"] == 4


@pytest.mark.parametrize("path, body", [
    ("/generate", {"text": "go on"}), ("/v1/completions", {"prompt": "go on"}), ("/v1/chat/completions", {"messages": [{"role": "user", "content": "go on"}]}),
])
def test_a_token_asks_for_no_memory(path, body):
    """A stream of 1,600 tokens asks the router for memory as often as one of 400, but for what doubles as it grows."""
    with Daemons(gpu_worker=["--step-us", "200"], router=["--incremental-streaming-output"]) as server:
        def allocations():
            return int(re.search(r"^banyan:allocations_total (\d+)", server.get("/metrics").body.decode(), re.M)[1])

        def of_a_stream(n):
            more = {"sampling_params": {"max_new_tokens": n, "ignore_eos": True}} if path == "/generate" else {"max_tokens": n, "ignore_eos": True}
            before = allocations()
            events = server.stream(path, {**body, **more})
            return allocations() - before, len(events)

        of_a_stream(1600)  # what is kept for the next ones has its size now
        for _ in range(6):  # a client that lags for a moment makes the router keep what it does not take: that only adds
            (few, _), (many, n_events) = of_a_stream(400), of_a_stream(1600)
            if many - few < 60:
                break
        assert many - few < 60 and n_events > 60, (few, many, n_events)


def test_1000_requests_leave_nothing(server):
    """Memory flat in every process, every page free or in the tree."""
    server.post("/flush_cache")

    def some(n):
        for i in range(n):
            server.generate(f"request {i % 50} " + "word " * (i % 20), 10, sampling={"stop": ["zzz"], "n": 1 + i % 2})

    some(300)
    before = {name: rss_kib(pid) for name, pid in server.pids().items()}
    some(1000)
    after = {name: rss_kib(pid) for name, pid in server.pids().items()}
    grown = {name: after[name] - before[name] for name in before}
    assert all(kib < 1024 for kib in grown.values()), grown
    wait_for("everything to be free or in the tree", server.is_idle, 2)
    flushed = server.post("/flush_cache").json
    assert flushed["kept_tokens"] == 0, flushed
