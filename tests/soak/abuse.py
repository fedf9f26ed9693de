"""What a stranger or a tenant can throw at a server, in full (B2, B7, B14, B15), and the faults that come by themselves in a long
life (F7, F9)."""

import contextlib
import json
import os
import random
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path

from clients import at_least, first_bytes, http, n_fds, quantile
from harness import BUILD, CHATML, TINY, Daemons, Serve, in_threads, rss_kib, stand_in, wait_for
from table import check, row
from test_hosts import ZMTP1, ZMTP3_CURVE_HUGE, ZMTP3_NULL, Hosts, make_keys
from test_keys import routes

SERVE = ["--model-path", TINY, "--chat-template", CHATML]
GREEDY = {"temperature": 0, "ignore_eos": True}


def poisoned(s, n, i):
    """What n good streams gave, and what the poison was answered."""
    good = [lambda k=k: s.generate([20 + k] * 40, 200)[1] for k in range(n)]
    return in_threads([*good, lambda: s.post("/generate", {"input_ids": [5, 9, 5], "rid": f"poison-{i}"})])


@check
def poison(scale):
    """F7: a request that kills the worker at each try: it gets 500 with its id, and all others end as if nothing was."""
    n, n_good = at_least(20, scale, 2), 31
    with tempfile.TemporaryDirectory(prefix="soak-") as top, \
            Serve(*SERVE, worker=stand_in(top, "--step-us", 500, "--die-at-id", 9)) as s:
        whole, n_wrong, n_refused, slowest = in_threads([lambda k=k: s.generate([20 + k] * 40, 200)[1] for k in range(n_good)]), 0, 0, 0.0
        for i in range(n):
            began = time.monotonic()
            *streams, answer = poisoned(s, n_good, i)
            slowest = max(slowest, time.monotonic() - began)
            n_wrong += sum(a != b for a, b in zip(streams, whole))
            n_refused += answer.status == 500 and f"(request poison-{i})" in answer.json["error"]["message"]
        deaths = s.logs().count("gpu-worker ended; it is started again")
    row("a poison request among 31 streams", f"{n} times", f"{n_refused} of {n} refused with their id, {n_wrong} streams fail or differ, "
        f"{deaths} deaths of workers, all over after at most {slowest:.1f} s", f"{n}, 0", n_refused == n and not n_wrong)


@check
def starts(scale):
    """F9: what a killed server left behind, two servers in one folder, a clock that jumps by an hour, SIGTERM under load."""
    n = at_least(20, scale, 2)
    with tempfile.TemporaryDirectory(prefix="soak-") as top:
        worker, run_dir = stand_in(top, "--step-us", 1000), f"{top}/run"
        n_stale, n_second, n_lost, n_undrained, longest = 0, 0, 0, 0, 0.0
        for _ in range(n):
            with Serve(*SERVE, worker=worker, run_dir=run_dir) as s:
                second = Serve(*SERVE, worker=worker, run_dir=run_dir)
                n_second += second.wait(60) == 0 or "another server is using this folder" not in second.logs()
                second.stop()
                pids = [s.process.pid, *s.pids().values()]
                for number in (signal.SIGSTOP, signal.SIGKILL):  # all at once: nobody tidies up
                    for pid in pids:
                        os.kill(pid, number)
                s.process.wait()
            with Serve(*SERVE, worker=worker, run_dir=run_dir) as s:
                n_stale += s.generate("again", 4)[2]["completion_tokens"] != 4
                lost, seconds = drained(s)
                n_lost, longest = n_lost + lost, max(longest, seconds)
                n_undrained += s.process.returncode != 0 or bool(os.listdir(run_dir))
    row("stale sockets and pids of a server that was killed whole", f"{n} times", f"{n_stale} starts fail", "0", not n_stale)
    row("a second server in its folder", f"{n} times", f"{n_second} start, or say nothing", "0", not n_second)
    row("SIGTERM under 32 streams", f"{n} times", f"{n_lost} lost, {n_undrained} ended badly or left something; over after at most {longest:.1f} s",
        "0, 0, --drain-timeout 30 s", not n_lost and not n_undrained and longest < 30)
    jumps(n)


def drained(s, n=2000):
    """SIGTERM while 32 streams of n tokens run: (how many did not end whole, seconds until it was over)."""
    def stream(i):
        try:
            return s.generate([30 + i] * 20, n, sampling=GREEDY)[2]["completion_tokens"] == n
        except Exception:  # noqa: BLE001 - what is counted
            return False

    def stop():
        wait_for("them to run", lambda: s.load()["num_running_reqs"] >= 32)
        began = time.monotonic()
        s.process.terminate()
        s.process.wait(60)
        return time.monotonic() - began

    *whole, seconds = in_threads([*[lambda i=i: stream(i) for i in range(32)], stop])
    return whole.count(False), seconds


def jumps(n):
    with tempfile.TemporaryDirectory(prefix="soak-") as top:
        clock = Path(top) / "clock"
        clock.write_text(f"{0:<12}")
        env = {"LD_PRELOAD": str(BUILD / "tests/libclock-jump.so"), "CLOCK_FILE": str(clock)}
        with Daemons(env=env, gpu_worker=["--step-us", "1000"]) as d:
            ask = lambda: in_threads([lambda i=i: d.generate([30 + i] * 20, 300, sampling=GREEDY)[1] for i in range(32)])  # noqa: E731
            whole, pids, n_wrong = ask(), d.pids(), 0
            for i in range(n):
                def jump(i=i):
                    wait_for("them to run", lambda: d.load()["num_running_reqs"])
                    clock.write_text(f"{(3600, -3600)[i % 2]:<12}")

                n_wrong += sum(a != b for a, b in zip(in_threads([ask, jump])[0], whole))
            same = d.pids() == pids and "lost" not in d.logs() and d.get("/ready").status == 200
    row("the clock jumps by an hour, to and fro, under 32 streams", f"{n} times",
        f"{n_wrong} streams fail or differ; {'nobody was taken for silent' if same else 'somebody was taken for silent'}", "0, nobody", not n_wrong and same)


# ---- strangers ----


def strangers():
    """(what, the bytes that it says) of those who come to a port that is not theirs."""
    yield "nothing at all", b""
    yield "raw TCP", os.urandom(10000)
    yield "HTTP", b"GET / HTTP/1.1\r\n\r\n" * 50
    yield "ZMTP 1", ZMTP1
    yield "ZMTP 3 without a key", ZMTP3_NULL
    yield "a length of 2 GB", ZMTP3_CURVE_HUGE
    yield "a length of 2^63", b"\xff" * 9 + b"\x7f" + b"\x03\x00CURVE" + bytes(47) + b"\x06" + b"\x7f" + b"\xff" * 7
    yield "100,000 subscriptions", ZMTP3_NULL + b"".join(b"\x00\x09\x01" + b"%08d" % i for i in range(100_000))


def knock_for(port, payload, seconds, n_at_once):
    """So many connections at a time that say this, wait a moment and come again."""
    until, n = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        with contextlib.ExitStack() as stack:
            for _ in range(n_at_once):
                with contextlib.suppress(OSError):
                    s = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=0.5))
                    n += 1
                    s.sendall(payload)
            time.sleep(0.2)
    return n


def under(d, request, port, payload, seconds):
    """(seconds to the first byte, the median while strangers knock at that port; how many there were)."""
    n = []
    flood = threading.Thread(target=lambda: n.append(knock_for(port, payload, seconds, 20)))
    flood.start()
    seen = quantile([s for _ in iter(flood.is_alive, False) for s in first_bytes(d.client, request, 100)], 0.5)
    flood.join()
    return seen, n[0]


@check
def outsiders(scale):
    """B2: whoever has no key of ours at the scheduler's tcp:// port: refused, and those who have one do not notice."""
    seconds, request = max(2.0, 10 * scale), http({"input_ids": [30] * 20, "stream": True, "sampling_params": {"max_new_tokens": 8, "temperature": 0}})
    with tempfile.TemporaryDirectory(prefix="soak-") as top, Hosts(make_keys(Path(top))) as d:
        pid = d.pid("scheduler")
        knock_for(d.port, b"x", 1, 60)  # what is allocated once
        first_bytes(d.client, request, 300)
        other = socket.create_server(("127.0.0.1", 0), backlog=4096)  # what the strangers cost the machine themselves: the same, at nobody's door
        for what, payload in strangers():
            before, fds = rss_kib(pid), n_fds(pid)
            knock_for(d.port, payload, seconds, 20)  # and nobody else: of each request the scheduler keeps the name for ten minutes
            wait_for("its sockets to be closed", lambda: n_fds(pid) <= fds + 2, 60)
            grown = rss_kib(pid) - before
            # In turns, for the machine's own pace moves by more than what is looked for.
            turns = [(under(d, request, other.getsockname()[1], payload, seconds / 5)[0], *under(d, request, d.port, payload, seconds / 5)) for _ in range(5)]
            base, seen, n = quantile([t[0] for t in turns], 0.5), quantile([t[1] for t in turns], 0.5), sum(t[2] for t in turns)
            more = quantile([t[1] / t[0] for t in turns], 0.5)
            row(f"strangers at the scheduler: {what}", f"{n} connections, {seconds:.0f} s in five turns; as many before with no request, for the memory",
                f"memory {grown:+d} KiB, first byte p50 {seen * 1e3:.2f} ms beside {base * 1e3:.2f} ms when they knock elsewhere ({more - 1:+.0%}, medians)", "+1 MiB, +10 %",
                grown < 1024 and more < 1.1 and d.pid("scheduler") == pid and d.processes["scheduler"].poll() is None)


# ---- text ----


@check
def texts(scale):
    """B7: 10 MB of text without a blank, of one character, of what grows when it is normalized: read in linear time."""
    n, rng = int(10_000_000 * max(scale, 0.1)), random.Random(7)
    kinds = {"one word of one letter": "a", "one word": "banyan", "words": "some words of a text ", "blanks": " ", "line ends": "\r\n\n", "digits": "0123456789",
             "punctuation": "#$%&{}[]", "a ligature that grows under NFKC": "\ufdfa", "combining marks": "e\u0301\u0323", "emoji that are joined": "\U0001f469\u200d",
             "surrogates' neighbours": "\ud7ff\ue000", "special tokens": "<|im_end|>", "what others' trees cannot hold": "\U0010ffff"}
    kinds["letters at random"] = "".join(chr(rng.randrange(97, 123)) for _ in range(100_000))
    # Nobody's context is so long: all of it is read, and then refused.
    with Daemons(router=["--max-body-bytes", str(64 << 20)]) as d:
        for what, unit in kinds.items():
            seconds, sizes = [], [n // 4, n]
            for size in sizes:
                body = json.dumps({"text": unit * (size // len(unit.encode()))}, ensure_ascii=False).encode()
                began = time.monotonic()
                answer = d.post("/generate", body, timeout=120)
                seconds.append(time.monotonic() - began)
                good = answer.status == 400 and "longer than the model's context" in answer.json["error"]["message"]
            row(f"text: {what}", f"{n / 1e6:.0f} MB", f"{seconds[1]:.2f} s with HTTP and JSON, a quarter of it {seconds[0]:.2f} s", "1 s for 10 MB, linear",
                good and seconds[1] < max(1.0, n / 1e7) and seconds[1] < 8 * seconds[0] + 0.1)


# ---- tenants ----


STEP_S = 0.02  # what a step of 512 tokens takes a small model


def under_flood(d, n, n_probes, alice, bob):
    """Seconds to the first byte of bob's short requests: (alone, while alice has n streams of 8,000 prompt tokens each)."""
    short = http({"input_ids": [30] * 20, "stream": True, "sampling_params": {"max_new_tokens": 8, "temperature": 0}}, **bob)
    alone, over = first_bytes(d.client, short, 50), threading.Event()

    def flood(i):
        body = {"input_ids": [40 + i * 5 % 500] + [21 + (i + k) % 600 for k in range(7999)], "sampling_params": {**GREEDY, "max_new_tokens": 8}}
        while not over.is_set():
            with contextlib.suppress(Exception):  # its server ends before it does
                d.client.request("POST", "/generate", body, alice, timeout=600)

    for i in range(n):
        threading.Thread(target=flood, args=(i,), daemon=True).start()
    wait_for("them to be there", lambda: (a := d.get("/v1/loads", headers=bob).json["loads"][0])["num_running_reqs"] + a["num_waiting_reqs"] >= n * 0.9, 120)
    seen = first_bytes(d.client, short, n_probes)
    over.set()
    return alone, seen


@check
def tenants(scale):
    """B14: one key has 100 streams of 8,000 prompt tokens each, another asks for something short; a step takes 20 ms."""
    n, n_probes = at_least(100, scale, 20), at_least(50, scale, 20)
    alice, bob = ({"Authorization": f"Bearer {key}"} for key in ("sk-alice-11111111", "sk-bob-2222222222"))
    with tempfile.TemporaryDirectory(prefix="soak-") as top:
        keys = Path(top) / "keys"
        keys.write_text("sk-alice-11111111 name=alice\nsk-bob-2222222222 name=bob\n")
        keys.chmod(0o600)
        # Whoever comes waits for the steps that are on their way: by default two, and then its own.
        for depth in (1, 2):
            with Daemons(router=["--api-key-file", str(keys)], scheduler=["--steps-in-flight", str(depth)],
                         gpu_worker=["--step-us", str(int(STEP_S * 1e6)), "--pages", "65536", "--context", "16384"]) as d:
                alone, seen = under_flood(d, n, n_probes, alice, bob)
            p50, p99, base = quantile(seen, 0.5), quantile(seen, 0.99), quantile(alone, 0.99)
            bar = 2 * base if depth == 1 else base + 2 * STEP_S + 0.005
            row(f"another key's first byte under a flood, --steps-in-flight {depth}", f"{n} streams of 8,000 prompt tokens, {n_probes} short requests",
                f"p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms; alone p99 {base * 1e3:.0f} ms",
                "2x" if depth == 1 else "alone and the two steps that were on their way", p99 <= bar)


# ---- paths ----


def disguises(path, rng):
    """Spellings of a path: each is the path itself, or nothing."""
    bare = path.lstrip("/")
    yield from (f"//{bare}", f"/./{bare}", f"/x/../{bare}", f"/{bare}/", f"/%2e/{bare}", f"/x/%2e%2e/{bare}", f"/x/..%2f{bare}", f"/{bare};x=1", f"/{bare}?x=/health",
                f"/{bare}#/health", f"http://other/{bare}", f"http://a:b@other//{bare}", f"/health/../{bare}", f"/metrics/%2e./{bare}", f"/{bare.upper()}",
                f"/{bare}%20", f"/{bare}%00", f"\\{bare}", f"/..;/{bare}", f"/{bare}%3f", f"/%c0%ae%c0%ae/{bare}", f"/health%0d%0a/../{bare}")
    for _ in range(20):
        yield "/" + "".join(f"%{ord(c):02x}" if rng.random() < 0.5 else c for c in bare)


def status_of(port, method, path, headers):
    """As bytes: no client tidies the path up."""
    body = b"{}"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", port), 30) as s:
        s.sendall(head.encode() + b"".join(f"{k}: {v}\r\n".encode() for k, v in headers.items()) + b"\r\n" + body)
        answer = b""
        while chunk := s.recv(65536):
            answer += chunk
    return int(answer.split(b" ", 2)[1])


@check
def paths(scale):
    """B15: every route in every disguise: without a key none answers, and with one none answers otherwise than under its own name."""
    rng, key, n, n_open, n_other = random.Random(15), "sk-alice-11111111", 0, [], []
    with tempfile.TemporaryDirectory(prefix="soak-") as top:
        keys = Path(top) / "keys"
        keys.write_text(f"{key} name=alice\nsk-ops-6666666666 admin\n")
        keys.chmod(0o600)
        with Daemons(router=["--api-key-file", str(keys)]) as d:
            for method, path, level in routes():
                path = path.replace("*", "x")
                plain = status_of(d.client.port, method, path, {"Authorization": f"Bearer {key}"})
                for disguise in disguises(path, rng):
                    n += 2
                    bare = status_of(d.client.port, method, disguise, {})
                    if level != "OPEN" and bare not in (400, 401, 404, 405):
                        n_open.append(f"{method} {disguise}: {bare}")
                    if status_of(d.client.port, method, disguise, {"Authorization": f"Bearer {key}"}) not in (plain, 400, 404, 405):
                        n_other.append(f"{method} {disguise}")
            near = [key[:i] + chr(ord(key[i]) ^ 1) + key[i + 1:] for i in range(len(key))] + [key[:i] for i in range(1, len(key))] + [key * i for i in (2, 100, 1000)]
            let_in = [k for k in near if status_of(d.client.port, "GET", "/v1/models", {"Authorization": f"Bearer {k}"}) != 401]
    row("routes in disguise", f"{n} requests", f"{len(n_open)} answer without a key, {len(n_other)} otherwise than under their own name {(n_open + n_other)[:2] or ''}",
        "0, 0", not n_open and not n_other)
    row("keys that are nearly one", f"{len(near)} of them", f"{len(let_in)} open something", "0", not let_in)
