"""Long runs under load: memory and files stay as they are, and every client's own history holds."""

import collections
import os
import random
import socket
import subprocess
import sys
import threading
import time

from clients import anon_kib, at_least, http, n_fds
from harness import BUILD, ROOT, Daemons, in_threads, wait_for
from history import History
from table import check, row
from test_faults import ALL, kinds


def slope_mib(samples):
    """MiB an hour, by the line through (seconds, KiB)."""
    n = max(len(samples), 1)
    mean_t, mean_m = sum(t for t, _ in samples) / n, sum(m for _, m in samples) / n
    square = sum((t - mean_t) ** 2 for t, _ in samples)
    return sum((t - mean_t) * (m - mean_m) for t, m in samples) / max(square, 1e-9) * 3600 / 1024


class Watch:
    """Memory and files of every process, from its last kill on: {(name, pid): [(seconds, KiB, files)]}."""

    def __init__(self, server):
        self.server, self.seen = server, collections.defaultdict(list)

    def look(self):
        for name, pid in self.server.pids().items():
            try:
                self.seen[name, pid].append((time.monotonic(), anon_kib(pid), n_fds(pid)))
            except OSError:  # it has just been killed
                pass

    def settled(self, name, warm_up):
        """Of its longest life, without so many seconds of its beginning."""
        life = max((s for (n, _), s in self.seen.items() if n == name), key=len)
        return [s for s in life if s[0] > life[0][0] + warm_up]


def stream(server, body, h, take=None, headers=None):
    """Reads a stream into its history, `take` events of it at most; True at its end."""
    c = server.client._open("POST", "/generate", {**body, "stream": True} if body else None, headers)
    response = c.getresponse()
    try:
        assert response.status == 200, f"HTTP {response.status}: {response.read()[:300]!r}"
        n = 0
        while line := response.readline().decode():
            line = line.rstrip("\n")
            if line.startswith("id: "):
                h.numbered(line[4:])
            elif line.startswith("data: "):
                h.event(line[6:])
                n += 1
                if n == take:
                    return h.is_done
        return True
    finally:
        response.close()
        c.close()


@check
def mixed(scale):
    """F11: half an hour of mixed load, 16 requests a second; one client in a hundred hangs up, a process is killed each minute; for a sixth of it the worker and the scheduler, then the worker alone, for the last third the others, so that each lives long enough for its memory to be seen."""
    seconds, rng = max(20.0, 1800 * scale), random.Random(2)
    period = min(60, seconds / 8)
    with Daemons(gpu_worker=["--step-us", "4000"]) as d:
        whole = [one_run(d, body) for body in kinds()]
        over, errors, n, n_left, watch, n_kills = threading.Event(), [], [0], [0], Watch(d), [0]

        def client(seed):
            mine, bodies, due = random.Random(seed), list(zip(kinds(), whole)), time.monotonic()
            # One a second, whatever else the machine does: ended requests are remembered for a minute or ten, so memory follows their rate.
            while not over.wait(max(0, due - time.monotonic())):
                due += 1
                body, expected = mine.choice(bodies)
                try:
                    if mine.random() < 0.01:
                        stream(d, body, History(), mine.randint(1, 100))
                        n_left[0] += 1
                    else:
                        assert one_run(d, body) == expected, "other bytes than undisturbed"
                    n[0] += 1
                except Exception as e:  # noqa: BLE001 - counted
                    errors.append(f"{type(e).__name__}: {e}"[:200])
                    time.sleep(0.1)

        def operator():
            try:
                began = time.monotonic()
                kill_at = began + period
                while (now := time.monotonic()) < began + seconds:
                    time.sleep(min(5, seconds / 60))
                    watch.look()
                    if now > kill_at:
                        kill_at += period
                        n_kills[0] += 1
                        share = (now - began) / seconds
                        turn = ["gpu-worker", "scheduler"] if share < 1 / 6 else ["gpu-worker"] if share < 2 / 3 else ["tokenizer-worker", "detokenizer"]
                        d.restart(turn[n_kills[0] % len(turn)])
            finally:
                over.set()

        in_threads([operator, *[lambda s=s: client(s) for s in range(16)]])
        is_idle = wait_for("all pages to be free or in the tree", d.is_idle)
    row("mixed load: errors", f"{n[0]} requests in {seconds:.0f} s, {n_left[0]} hang-ups, {n_kills[0]} kills", f"{len(errors)} {'; '.join(errors[:2])}",
        "0", not errors and is_idle)
    for name in ("router", "scheduler", "tokenizer-worker", "detokenizer"):
        # The scheduler remembers names for ten minutes, and its heap is flat once those of two such times have come and gone.
        s = watch.settled(name, seconds * (0.65 if name == "scheduler" else 0.2))
        slope, first, last = slope_mib([(t, m) for t, m, _ in s]), s[0][2], s[-1][2]
        row(f"mixed load: the {name}'s memory and files", f"{s[-1][0] - s[0][0]:.0f} s after its warm-up, {s[-1][1] / 1024:.1f} MiB of its own",
            f"{slope:+.2f} MiB an hour, {last - first:+d} files", "1 MiB an hour, flat (in full only)", scale < 1 or (slope < 1 and abs(last - first) <= 36))


def one_run(d, body):
    h = History()
    stream(d, body, h)
    return h.samples()


@check
def cuts(scale):
    """Clients whose connections are cut again and again and who come back behind their last event, or with their key, while processes die."""
    seconds, rng = max(10.0, 300 * scale), random.Random(5)
    with Daemons(gpu_worker=["--step-us", "2000"], router=["--resume-bytes", str(4 << 20)]) as d:
        whole = [one_run(d, body) for body in kinds()]
        over, wrong, n, n_cuts, n_kills = threading.Event(), [], [0], [0], [0]

        def client(seed):
            mine, bodies, number = random.Random(seed), list(zip(kinds(), whole)), 0
            while not over.is_set():
                (body, expected), number = mine.choice(bodies), number + 1
                key = {"Idempotency-Key": f"c{seed}-{number}"}
                h = History()
                try:
                    is_over = stream(d, body, h, mine.randint(1, 60), key)
                    while not is_over:
                        n_cuts[0] += 1
                        time.sleep(mine.random() * 0.1)
                        if mine.random() < 0.3:  # its key alone: all of it once more, and it must be the same
                            again = History()
                            is_over = stream(d, body, again, h.n + mine.randint(1, 60), key)
                            assert again.name == h.name and again.n >= h.n, "a second generation"
                            for k, event in h.last.items():
                                assert again.last[k]["text"].startswith(event["text"]), "another text for the same key"
                            h = again
                        else:
                            is_over = stream(d, None, h, mine.randint(1, 60), {"Last-Event-ID": f"{h.name}-{h.n}"})
                    assert h.samples() == expected, "other bytes than undisturbed"
                    n[0] += 1
                except Exception as e:  # noqa: BLE001 - counted
                    wrong.append(f"{type(e).__name__}: {e}"[:200])
                    time.sleep(0.1)

        def operator():
            try:
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    time.sleep(rng.uniform(1, 3))
                    d.restart(rng.choice(ALL))
                    n_kills[0] += 1
            finally:
                over.set()

        in_threads([operator, *[lambda s=s: client(s) for s in range(16)]])
        is_idle = wait_for("all pages to be free or in the tree", d.is_idle, 60)
    row("histories of clients that come back", f"{n[0]} streams, {n_cuts[0]} cuts, {n_kills[0]} kills in {seconds:.0f} s",
        f"{len(wrong)} break a rule {'; '.join(wrong[:2])}", "0", n[0] > 0 and not wrong and is_idle)


@check
def storm(scale):
    """B12: a thousand requests a second, each of which hangs up after 0 to 20 ms; others stream meanwhile."""
    seconds, rate, n_threads = max(5.0, 60 * scale), 1000, 20
    request = http({"input_ids": [30] * 20, "stream": True, "sampling_params": {"max_new_tokens": 8000, "ignore_eos": True}})
    with Daemons(gpu_worker=["--step-us", "1000"]) as d:
        whole = [one_run(d, body) for body in kinds()]
        n, errors, over = [0], [], threading.Event()
        before = {name: anon_kib(pid) for name, pid in d.pids().items()}

        def leaver(seed):
            mine, began, i = random.Random(seed), time.monotonic(), 0
            while (now := time.monotonic()) < began + seconds:
                if now < (due := began + i * n_threads / rate):
                    time.sleep(due - now)
                i += 1
                with socket.create_connection(("127.0.0.1", d.client.port)) as c:
                    c.sendall(request)
                    time.sleep(mine.random() * 0.02)
                n[0] += 1

        def stayer():
            while not over.is_set():
                for body, expected in zip(kinds(), whole):
                    try:
                        assert one_run(d, body) == expected, "other bytes than undisturbed"
                    except Exception as e:  # noqa: BLE001 - counted
                        errors.append(f"{type(e).__name__}: {e}"[:200])

        def storm_and_calm():
            try:
                in_threads([lambda s=s: leaver(s) for s in range(n_threads)])
            finally:
                over.set()

        in_threads([storm_and_calm, *[stayer] * 4])
        began = time.monotonic()
        wait_for("all to be gone", lambda: d.load()["num_running_reqs"] == 0)
        freed = time.monotonic() - began
        is_idle = wait_for("all pages to be free or in the tree", d.is_idle)
        grown = max(anon_kib(pid) - before[name] for name, pid in d.pids().items())
    row("clients that leave at once", f"{n[0]} in {seconds:.0f} s, {n[0] / seconds:.0f} a second", f"{len(errors)} of the others fail or differ {'; '.join(errors[:2])}; "
        f"slots free {freed * 1e3:.0f} ms after the last; the largest grew by {grown} KiB", "0; pages free", not errors and is_idle)


# ---- programs of their own ----


def last_line(done):
    return (done.stdout + done.stderr).strip().splitlines()[-1][:100]


@check
def failing(scale):
    """F8: the nth allocation, read, write and ZMQ call of each process fails, for many n."""
    env = {"BANYAN_TEST_LONG": "yes"} if scale >= 1 else {}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "--timeout=600", ROOT / "tests/protocol/test_failing.py"], capture_output=True, text=True,
                          env={**os.environ, **env}, cwd=ROOT)
    row("the nth call fails", "each process and kind", last_line(done), "all pass", done.returncode == 0)


@check
def simulate(scale):
    """F12: seeds of the whole server on a clock of its own."""
    n = at_least(1_000_000, scale, 1000)
    done = subprocess.run([BUILD / "tests/simulate", "--seeds", str(n)], capture_output=True, text=True)
    row("simulation", f"{n} seeds", last_line(done), "none fails", done.returncode == 0)
