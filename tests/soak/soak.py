#!/usr/bin/env python3
"""soak.py - the long forms of the faults and the abuse that a server must survive: each a row with its figure and a verdict.

    tests/soak/soak.py                        make soak: everything in full; hours
    tests/soak/soak.py --scale 0.01           the same, a hundredth of it
    tests/soak/soak.py kill idle              some
    tests/soak/soak.py --out FILE             the table goes there too

Short forms run in CI (tests/protocol/test_faults.py, test_hosts.py, tests/sim, tests/fuzz); these are for a quiet machine: what is
measured in time means nothing on a busy one. A stand-in worker computes; everything else is as in production.
"""

import argparse
import multiprocessing
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/protocol")]

from harness import BUILD, Daemons, in_threads, rss_kib, wait_for  # noqa: E402
from test_faults import ALL, kinds, run  # noqa: E402

ROWS, CHECKS = [], {}


def check(f):
    CHECKS[f.__name__.replace("_", "-")] = f
    return f


def row(what, done, figure, bar, is_good):
    ROWS.append((what, done, figure, bar, "pass" if is_good else "FAIL"))
    print(f"{ROWS[-1][4]:<5} {what}: {figure} (bar: {bar}; {done})", flush=True)


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


def n_fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def at_least(n, scale, floor):
    return max(floor, int(n * scale))


# ---- kills ----


class Times(dict):
    """What test_faults.run writes its progress into; keeps when."""

    def __init__(self):
        self.at = []

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        self.at.append(time.monotonic())


def streams(server, on_round):
    """All kinds of streams at once while on_round does its worst; (results, the longest silence of each stream)."""
    server.post("/flush_cache")
    bodies, done = list(kinds()), threading.Event()

    progress = [Times() for _ in bodies]

    def all_streams():
        try:
            return in_threads([lambda b=b, p=p: run(server, b, p) for b, p in zip(bodies, progress)])
        finally:
            done.set()

    results, _ = in_threads([all_streams, lambda: on_round(progress, done)])
    gaps = [max((b - a for a, b in zip(p.at, p.at[1:])), default=0) for p in progress]
    return results, gaps


def after(share, act):
    """Calls act when this share of all events has come."""
    def wait(progress, done):
        wait_for("events", lambda: sum(sum(list(p.values())) for p in progress) > share * 32 * 150 or done.is_set())
        act()
    return wait


@check
def kill(scale):
    """F1 to F3: kill -9 of each kind at a random moment, again and again."""
    bars = {"gpu-worker": 0.5, "scheduler": 0.5, "tokenizer-worker": 0.2, "detokenizer": 0.2}
    rng = random.Random(1)
    with Daemons(gpu_worker=["--step-us", "1000"]) as d:
        whole, calm = streams(d, lambda progress, done: None)
        for name in ALL:
            n, gaps, n_wrong = at_least(200 if name == "scheduler" else 1000, scale, 2), [], 0
            for _ in range(3):  # what each allocates once
                streams(d, after(0.3, lambda: d.restart(name)))
            others = {k: p for k, p in d.pids().items() if k != name}
            before = {k: (rss_kib(p), n_fds(p)) for k, p in others.items()}
            for _ in range(n):
                results, silence = streams(d, after(rng.uniform(0.02, 0.6), lambda: d.restart(name)))
                n_wrong += results != whole
                gaps += silence
            growth = max((rss_kib(p) - before[k][0]) / before[k][0] for k, p in others.items())
            fds = max(n_fds(p) - before[k][1] for k, p in others.items())
            gap = quantile(gaps, 0.99)
            row(f"kill -9 {name}", f"{n} kills, 32 streams each", f"{n_wrong} rounds differ, gap p99 {gap:.3f} s (calm {max(calm):.3f} s)",
                f"0; {bars[name]} s", n_wrong == 0 and gap < bars[name] + max(calm))
            row(f"kill -9 {name}: what others keep", f"{n} kills", f"memory {growth:+.1%}, files {fds:+d}", "+2 %, +4", growth < 0.02 and fds <= 4)


@check
def stop(scale):
    """F6: SIGSTOP of each kind; the streams go on when it does, or elsewhere."""
    with Daemons(gpu_worker=["--step-us", "1000"]) as d:
        whole, _ = streams(d, lambda progress, done: None)
        for seconds in (1, 7, 60) if scale >= 1 else (1,):
            for name in ALL:
                def act():
                    d.processes[name].send_signal(signal.SIGSTOP)
                    time.sleep(seconds)
                    d.processes[name].send_signal(signal.SIGCONT)
                results, _ = streams(d, after(0.2, act))
                row(f"SIGSTOP {name} {seconds} s", "32 streams", "same bytes" if results == whole else "differ", "same bytes", results == whole)


# ---- connections ----


def first_byte(client):
    began = time.monotonic()
    c = client._open("POST", "/generate", {"text": "a", "stream": True, "sampling_params": {"max_new_tokens": 2}})
    c.getresponse().read(1)
    c.close()
    return time.monotonic() - began


def latencies(client, n=200):
    return [first_byte(client) for _ in range(n)]


def connect(client, text=b""):
    s = socket.create_connection((client.host, client.port), timeout=30)
    if text:
        s.sendall(text)
    return s


def read_until(response, stopping):
    while not stopping.is_set() and response.readline():
        pass


@check
def slowloris(scale):
    """B3: a byte a second of a head, and of a body; the healthy must not notice."""
    n = at_least(2000, scale, 50)
    with Daemons() as d:
        base = quantile(latencies(d.client), 0.99)
        heads = [connect(d.client, b"POST /generate HTTP/1.1\r\nHost: a\r\n") for _ in range(n // 2)]
        bodies = [connect(d.client, b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{") for _ in range(n // 2)]
        over = threading.Event()

        def drip():
            while not over.wait(1):
                for s in heads + bodies:
                    try:
                        s.send(b"x")
                    except OSError:
                        pass

        t = threading.Thread(target=drip)
        t.start()
        seen = quantile(latencies(d.client), 0.99)
        over.set()
        t.join()
        for s in heads + bodies:
            s.close()
    row("slowloris: first byte p99 of the healthy", f"{n} sockets", f"{seen * 1e3:.1f} ms beside {base * 1e3:.1f} ms", "under 2x", seen < 2 * base)


@check
def idle(scale):
    """B4: many idle connections and many live streams."""
    n_idle, n_live = at_least(10_000, scale, 100), at_least(1000, scale, 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    n_idle = min(n_idle, hard - 2 * n_live - 500)
    with Daemons(gpu_worker=["--step-us", "2000", "--slots", "2048", "--pages", "65536"], scheduler=["--max-running-requests", "2048"]) as d:
        base, pid = quantile(latencies(d.client, 100), 0.99), d.pid("router")
        before = rss_kib(pid)
        quiet = [connect(d.client) for _ in range(n_idle)]
        wait_for("all to be accepted", lambda: n_fds(pid) > n_idle)
        each = (rss_kib(pid) - before) / n_idle
        live = [d.client._open("POST", "/generate", {"input_ids": [20 + i % 500] * 20, "stream": True,
                                                     "sampling_params": {"max_new_tokens": 8000, "ignore_eos": True}}, timeout=120)
                for i in range(n_live)]
        responses = [c.getresponse() for c in live]
        stopping = threading.Event()
        readers = [threading.Thread(target=read_until, args=(r, stopping), daemon=True) for r in responses]
        for t in readers:
            t.start()
        seen, rss = quantile(latencies(d.client, 100), 0.99), rss_kib(pid)
        stopping.set()
        for s in quiet:
            s.close()
    row("idle connections", f"{n_idle}", f"{each:.1f} KiB each", "16 KiB", each < 16)
    row("idle connections and live streams: the router", f"{n_idle} and {n_live}", f"{rss / 1024:.0f} MiB", "300 MiB", rss < 300 * 1024)
    row("… a new request's first byte, p99", f"{n_idle} and {n_live}", f"{seen * 1e3:.1f} ms beside {base * 1e3:.1f} ms", "+50 ms", seen < base + 0.05)


@check
def overload(scale):
    """B13: far more than it can do: refusals are quick, and what is done stays as much."""
    seconds, body = max(3.0, 60 * scale), {"input_ids": [30] * 20, "sampling_params": {"max_new_tokens": 16}}
    with Daemons(gpu_worker=["--step-us", "5000", "--slots", "4"],
                 scheduler=["--max-running-requests", "4", "--max-queued-requests", "8"]) as d:
        def crowd(n, seconds, good):
            end = time.monotonic() + seconds

            def one():
                while time.monotonic() < end:
                    status = d.client.post("/generate", body).status
                    assert status in (200, 429), status
                    with good.get_lock():
                        good.value += status == 200

            in_threads([one] * n)

        def done_by(n_processes, n_each, probe):
            """Clients in processes of their own, so that the probe's times are the server's; (answers a second, the probe's)."""
            good, fork = multiprocessing.Value("Q", 0), multiprocessing.get_context("fork")
            crowds = [fork.Process(target=crowd, args=(n_each, seconds, good)) for _ in range(n_processes)]
            for c in crowds:
                c.start()
            seen = probe()
            for c in crowds:
                c.join()
                assert c.exitcode == 0, "a client got something else than an answer or a refusal"
            return good.value / seconds, seen

        def refused():
            end, seen = time.monotonic() + seconds - 1, []
            time.sleep(0.5)
            while time.monotonic() < end:
                began = time.monotonic()
                if d.client.post("/generate", body).status == 429:
                    seen.append(time.monotonic() - began)
            return seen

        capacity, _ = done_by(1, 12, list)
        goodput, refusals = done_by(4, 50, refused)
    late = quantile(refusals, 0.99)
    row("overload: what is done", f"200 clients, 4 places, {seconds:.0f} s", f"{goodput / capacity:.1%} of capacity", "95 %", goodput > 0.95 * capacity)
    row("overload: refusals p99", f"{len(refusals)} of them", f"{late * 1e3:.1f} ms", "10 ms", bool(refusals) and late < 0.01)


# ---- long ----


@check
def mixed(scale):
    """F11: mixed load with hang-ups and a kill a minute: memory and files stay."""
    seconds, rng = max(10.0, 1800 * scale), random.Random(2)
    with Daemons(gpu_worker=["--step-us", "1000"]) as d:
        over, errors, n, samples = threading.Event(), [], [0], []

        def client(seed):
            mine, bodies = random.Random(seed), list(kinds())
            while not over.is_set():
                body = {**mine.choice(bodies)}
                try:
                    if mine.random() < 0.01:
                        c = d.client._open("POST", "/generate", {**body, "stream": True})
                        c.getresponse().read(200)
                        c.close()
                    else:
                        run(d, body, {})
                    n[0] += 1
                except Exception as e:  # noqa: BLE001 - counted
                    errors.append(repr(e)[:200])

        def operator():
            try:
                end, kill_at = time.monotonic() + seconds, time.monotonic() + min(60, seconds / 3)
                while time.monotonic() < end:
                    time.sleep(min(5, seconds / 10))
                    samples.append((time.monotonic(), rss_kib(d.pid("router")), n_fds(d.pid("router"))))
                    if time.monotonic() > kill_at:
                        kill_at += 60
                        d.restart(rng.choice(ALL))
            finally:
                over.set()

        in_threads([operator, *[lambda s=s: client(s) for s in range(16)]])
    warm = samples[len(samples) // 3:]
    t, m = [s[0] for s in warm], [s[1] for s in warm]
    mean_t, mean_m = sum(t) / len(t), sum(m) / len(m)
    slope = sum((a - mean_t) * (b - mean_m) for a, b in zip(t, m)) / max(sum((a - mean_t) ** 2 for a in t), 1e-9) * 3600 / 1024
    row("mixed load: errors", f"{n[0]} requests, {seconds:.0f} s", f"{len(errors)} {errors[:1] or ''}", "0", not errors)
    row("mixed load: the router's memory", f"{len(warm)} samples", f"{slope:+.1f} MiB an hour", "1 MiB an hour (in full only)", slope < 1 or scale < 1)
    row("mixed load: the router's files", "first and last", f"{warm[0][2]} and {warm[-1][2]}", "flat", abs(warm[-1][2] - warm[0][2]) <= 40)


@check
def simulate(scale):
    """F12: seeds of the whole server on a clock of its own."""
    n = at_least(1_000_000, scale, 1000)
    done = subprocess.run([BUILD / "tests/simulate", "--seeds", str(n)], capture_output=True, text=True)
    row("simulation", f"{n} seeds", (done.stdout + done.stderr).strip().splitlines()[-1][:100], "none fails", done.returncode == 0)


@check
def fuzz(scale):
    """Every parser under sanitizers."""
    n = at_least(10_000_000, scale, 1000)
    done = subprocess.run([ROOT / "tests/fuzz/run.sh"], capture_output=True, text=True, env={**os.environ, "FUZZ_RUNS": str(n)})
    row("fuzzing", f"{n} executions a parser", (done.stdout + done.stderr).strip().splitlines()[-1][:100], "no finding", done.returncode == 0)


def table():
    lines = ["| what | done | seen | bar | |", "| --- | --- | --- | --- | --- |"]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in ROWS]) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CHECKS)}; none: all")
    p.add_argument("--scale", type=float, default=1.0)
    p.add_argument("--out", type=Path)
    o = p.parse_args()
    unknown = set(o.names) - set(CHECKS)
    if unknown:
        p.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(CHECKS)}")
    for name in o.names or CHECKS:
        try:
            CHECKS[name](o.scale)
        except Exception as e:  # noqa: BLE001 - the others go on; this one has failed
            row(name, "", f"{type(e).__name__}: {str(e).splitlines()[0][:150] if str(e) else ''}", "it ends", False)
    print("\n" + table(), end="")
    if o.out:
        o.out.write_text(table())
    return any(r[4] == "FAIL" for r in ROWS)


if __name__ == "__main__":
    sys.exit(main())
