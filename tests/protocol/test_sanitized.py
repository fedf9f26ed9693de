"""A whole server under AddressSanitizer, LeakSanitizer and UBSan: mixed requests, broken ones, clients that leave, kills; not one
report, and nothing leaked at the end."""

import socket

import pytest

import harness
from harness import BUILD, ROOT, Daemons, in_threads, wait_for
from test_faults import ALL, disturbed, kill_at, kinds, run

SANITIZED = ROOT / "build-asan"
OPTIONS = {"ASAN_OPTIONS": "exitcode=99:detect_stack_use_after_return=1", "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}
BROKEN = [b"{", b"[" * 100_000, b'{"text": 5}', b'{"text": "x", "sampling_params": {"regex": "(("}}', b'{"input_ids": [1, -1]}',
          b'{"text": "\\ud800"}', b"\xff" * 1000, b'{"text": "' + b"a" * 300_000 + b'"}', b'{"input_ids": [5], "sampling_params": {"n": 1000000000}}']


@pytest.fixture(scope="module")
def server():
    if not (SANITIZED / "bin/banyan-router").exists():
        pytest.skip("a server under sanitizers (deploy/build.sh build-asan -DSANITIZE=address,undefined)")
    patch = pytest.MonkeyPatch()
    for name, path in harness.PROGRAMS.items():
        patch.setitem(harness.PROGRAMS, name, SANITIZED / path.relative_to(BUILD))
    with Daemons(env=OPTIONS, gpu_worker=["--step-us", "1000"]) as d:
        yield d
    patch.undo()


def hang_up(server, i):
    body = b'{"input_ids": [30, 31], "stream": true, "sampling_params": {"max_new_tokens": 4000, "ignore_eos": true}}'
    with socket.create_connection(("127.0.0.1", server.client.port), 30) as s:
        s.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        if i % 2:
            assert s.recv(10)


def test_a_server_under_sanitizers(server):
    whole = in_threads([lambda b=b: run(server, b, {}) for b in kinds()])
    for i, name in enumerate(ALL):
        assert disturbed(server, kill_at(server, [name], 0.1 + 0.2 * i)) == whole
    for body in BROKEN:
        assert 400 <= server.post("/generate", body).status < 500, body[:80]
    in_threads([lambda i=i: hang_up(server, i) for i in range(16)])
    chat = {"model": "stand-in", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "logprobs": True, "top_logprobs": 2}
    assert server.post("/v1/chat/completions", chat).status == 200
    assert server.post("/v1/embeddings", {"model": "stand-in", "input": "hello"}).status in (200, 400)
    wait_for("all pages to be free or in the tree", server.is_idle)
    for name in reversed(server.processes):  # SIGTERM: each says what it has leaked
        server.processes[name].terminate()
        assert server.processes[name].wait(60) == 0, server.logs()
    said = server.logs()
    assert "Sanitizer" not in said and "runtime error" not in said, said
