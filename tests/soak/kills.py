"""Processes that die or hang under 32 open streams of all kinds: nobody but a router's own clients may notice."""

import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import history
from engine import engine
import tiny_llama
from clients import at_least, first_bytes, http, n_fds, play, quantile
from harness import BIN, CHATML, TINY, Client, Daemons, Notify, Serve, alive, environment, in_threads, rss_kib, stand_in, wait_for
from table import check, row
from test_faults import ALL, kinds
from test_ranks import slowed

# A detokenizer remembers ended requests for a minute: before that its memory grows whatever happens.
WARM_S = 70
PACE_S = 0.5  # a round begins no sooner after the one before: a busier minute would be more to remember, killed or not
REST_S = 3
BARS = {"gpu-worker": 0.5, "scheduler": 0.5, "tokenizer-worker": 0.2, "detokenizer": 0.2}
REQUESTS = [http({**body, "stream": True}) for body in kinds()]


class Streams:
    """All kinds of streams at one server; whole: what came undisturbed, which every other round must give."""

    def __init__(self, server):
        self.server, self.n_events, self.next = server, 0, 0.0  # next: when a round may begin
        self.n_names = 0  # that the scheduler remembers
        raw = self._play(None)
        self.n_events = sum(history.body_of(r).count(b"\n\n") for r, _ in raw)
        self.whole = [history.of_bytes(r) for r, _ in raw]
        self.calm = max(gap for _, gap in self._play(None))
        self.n_tokens = sum(s[3] + s[4] for stream in self.whole for s in stream)

    def _play(self, on_share):
        time.sleep(max(0.0, self.next - time.monotonic()))
        self.next = time.monotonic() + PACE_S
        self.server.post("/flush_cache")
        self.n_names += len(REQUESTS)
        return play(self.server.client, REQUESTS, self.n_events or 1 << 40, on_share)

    def kill(self, name):
        self.server.restart(name)
        if name == "scheduler":
            self.n_names = len(REQUESTS)

    def disturbed(self, share, act):
        """(how many streams differ or fail, why the first does; the longest silence of each); act() is called at share percent."""
        n_acts = []

        def on_share(percent):
            if percent >= share and not n_acts:
                n_acts.append(act())

        n_wrong, why, gaps = 0, "", []
        for _ in range(5):
            for (raw, gap), expected in zip(self._play(on_share), self.whole):
                gaps.append(gap)
                try:
                    assert history.of_bytes(raw) == expected, "other bytes than undisturbed"
                except AssertionError as e:
                    n_wrong, why = n_wrong + 1, why or str(e)
            if n_acts:
                return n_wrong, why, gaps
            share /= 2  # on a busy machine an event holds several tokens: few come, and a round may be over before its time
        raise AssertionError("the streams were always over before it was done")


def prefill_rate(server):
    """Prompt tokens a second, by what 480 of them take."""
    body = {"input_ids": [20 + i * 7 % 600 for i in range(480)], "sampling_params": {"max_new_tokens": 1, "temperature": 0}}
    server.post("/flush_cache")
    return 480 / first_bytes(server.client, http(body), 1)[0]


def kept(server, name):
    """What the others hold: memory and files of each, the names in the run directory and in /dev/shm."""
    others = {k: p for k, p in server.pids().items() if k != name}
    return ({k: rss_kib(p) for k, p in others.items()}, {k: n_fds(p) for k, p in others.items()},
            sorted(os.listdir(server.dir)), sorted(os.listdir("/dev/shm")))


def at_rest(streams, name):
    """kept() once a kill is over and everybody has given back what its peak left (proto/wire.c: a second later)."""
    streams.disturbed(30, lambda: streams.kill(name))
    wait_for("all pages to be free or in the tree", streams.server.is_idle)
    time.sleep(REST_S)
    return kept(streams.server, name)


def warm_up(streams, name, n_kills):
    """Until what all keep for a while is what it always is: remembered names, buffers, and what each kill allocates once."""
    began, n_to_come = time.monotonic(), len(REQUESTS) * (3 * n_kills + 3)
    while time.monotonic() < began + WARM_S or doubles_within(streams.n_names, n_to_come):
        streams.disturbed(30, lambda: None)
    for _ in range(max(5, n_kills // 2)):
        streams.disturbed(30, lambda: streams.kill(name))


def doubles_within(n_names, n_to_come):
    """Does the scheduler's table of names grow meanwhile? At 3/4 of each power of two it takes twice the memory, killed or not."""
    limit = 3 << 10
    while limit < n_names:
        limit *= 2
    return n_names + n_to_come > limit


def kill_rows(server, which, n_kills, seed):
    streams, rng = Streams(server), random.Random(seed)
    rate = prefill_rate(server)
    for name in ALL:
        warm_up(streams, name, n_kills)
        first = at_rest(streams, name)
        for _ in range(n_kills):
            streams.disturbed(30, lambda: None)
        n_wrong, why, gaps, before = 0, "", [], at_rest(streams, name)
        for _ in range(n_kills):
            n, said, silence = streams.disturbed(rng.randint(2, 40), lambda: streams.kill(name))
            n_wrong, why, gaps = n_wrong + n, why or said, gaps + silence
        after = at_rest(streams, name)
        calm = {k: max(0, m - first[0][k]) for k, m in before[0].items()}  # as many undisturbed rounds; the scheduler remembers names for ten minutes
        growth, who = max(((after[0][k] - m - calm[k]) / m, k) for k, m in before[0].items())
        fds = max(after[1][k] - n for k, n in before[1].items())
        redo = streams.n_tokens / rate if BARS[name] == 0.5 else 0
        gap, bar = quantile(gaps, 0.99), BARS[name] + redo
        row(f"kill -9 {name}, {which}", f"{n_kills} times, 32 streams each",
            f"{n_wrong} streams fail or differ{' (' + why[:80] + ')' if why else ''}, gap p99 {gap * 1e3:.0f} ms (undisturbed at most {streams.calm * 1e3:.0f} ms)",
            f"0; {bar * 1e3:.0f} ms", n_wrong == 0 and gap <= bar)
        sizes = ", ".join(f"{k} {m}{after[0][k] - m:+d}" + (f" (undisturbed {calm[k]:+d})" if calm[k] else "") for k, m in before[0].items())
        row(f"kill -9 {name}, {which}: what the others keep", f"{n_kills} times",
            f"memory {growth:+.1%} ({who}) beyond what as many undisturbed rounds add; KiB: {sizes}; files {fds:+d}, pages none, "
            f"names {len(after[2]) - len(before[2]):+d}, in /dev/shm {len(after[3]) - len(before[3]):+d}",
            "+2 %, +4, none, 0, 0", growth < 0.02 and fds <= 4 and before[2:] == after[2:])


def growing(n, act):
    """KiB of each process at the start, in the middle and at the end of n rounds, of which act(server) disturbs each."""
    with Daemons(gpu_worker=["--step-us", "1000"]) as d:
        streams, seen, rng = Streams(d), [], random.Random(6)
        for i in range(n):
            streams.disturbed(rng.randint(2, 40), lambda: act(d))
            if i + 1 in (1, n // 2, n):
                seen.append({name: rss_kib(pid) for name, pid in d.pids().items() if name != "gpu-worker"})
    return seen


@check
def growth(scale):
    """F1 again and again: is what the others add a leak, or the warm-up of a process of a few MiB? The second half of the kills tells."""
    n = at_least(400, scale, 40)
    calm, killed = growing(n, lambda d: None), growing(n, lambda d: d.restart("gpu-worker"))
    for name, first in killed[0].items():
        (c0, c1, c2), (k0, k1, k2) = ([s[name] for s in seen] for seen in (calm, killed))
        beyond = (k2 - k1 - max(c2 - c1, 0)) / k1
        row(f"kill -9 gpu-worker: the {name} grows", f"{n} times", f"{k1 - k0:+d} KiB in the first half, {k2 - k1:+d} in the second; undisturbed "
            f"{c1 - c0:+d} and {c2 - c1:+d}; {beyond:+.1%} beyond in {n // 2}", "+2 % in the second half", beyond < 0.02)


@check
def kill(scale):
    """F1 to F3: kill -9 of each kind of process at a random moment under 32 streams; a stand-in computes."""
    with Daemons(gpu_worker=["--step-us", "1000"]) as d:
        kill_rows(d, "stand-in", at_least(50, scale, 2), 1)


@check
def kill_engine(scale):
    """F1 to F3 once more, of the native engine: kill -9 of each kind of process at a random moment under 32 streams."""
    with engine() as d:
        kill_rows(d, "engine", at_least(50, scale, 2), 2)


class Two(Daemons):
    """A second router beside the first."""

    def start_other(self, port=0):
        notify = Notify(self.dir / "notify-other")
        with open(self.dir / "other.log", "ab") as log:
            self.other = subprocess.Popen([str(w) for w in (BIN / "banyan-router", "--run-dir", self.dir, "--port", port, "--instance", "other",
                                                            "--served-model-name", "stand-in")], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                          env=environment(NOTIFY_SOCKET=notify.path))
        wait_for("the other router to be ready", lambda: notify.read().get("READY"))
        port = int(notify.state["STATUS"].split("http://")[1].split()[0].rstrip("/").rpartition(":")[2])
        notify.close()
        return Client("127.0.0.1", port)


def without_one(d, streams, share, freed):
    """A round in which the other router dies at share percent: how many (of the rest differ, were its own, were asked again)."""
    client, seen, n_before = d.start_other(), [], len(freed)

    def kill_other(percent):
        if percent >= share and len(freed) == n_before:
            d.other.kill()
            began = time.monotonic()
            wait_for("its streams to be gone", lambda: d.load()["num_running_reqs"] <= 20)
            freed.append(time.monotonic() - began)

    d.post("/flush_cache")
    mine, its = in_threads([lambda: play(d.client, REQUESTS[:16], 1 << 40),
                            lambda: play(client, REQUESTS[16:], streams.n_events // 2, kill_other)])
    d.other.wait()
    n_wrong = sum(history.of_bytes(raw) != whole for (raw, _), whole in zip(mine, streams.whole))
    for raw, _ in its:
        try:
            seen.append(history.of_bytes(raw))
        except AssertionError:
            seen.append(None)
    again = play(d.client, [r for r, s in zip(REQUESTS[16:], seen) if s is None] or REQUESTS[:1], 1 << 40)
    expected = [w for w, s in zip(streams.whole[16:], seen) if s is None] or streams.whole[:1]
    n_wrong += sum(history.of_bytes(raw) != whole for (raw, _), whole in zip(again, expected))
    n_wrong += sum(s not in (None, whole) for s, whole in zip(seen, streams.whole[16:]))
    return n_wrong, seen.count(None), len(again)


@check
def router(scale):
    """F4: kill -9 of one of two routers: its streams end, the other's do not notice, and who asks the other one gets the same."""
    n_kills, rng, freed, done = at_least(50, scale, 2), random.Random(3), [], []
    with Two(gpu_worker=["--step-us", "1000"]) as d:
        streams, warm = Streams(d), time.monotonic() + WARM_S
        while time.monotonic() < warm:
            without_one(d, streams, rng.randint(2, 40), [])
        time.sleep(REST_S)
        before = kept(d, "router")
        for _ in range(n_kills):
            done.append(without_one(d, streams, rng.randint(2, 40), freed))
        is_idle = wait_for("all pages to be free or in the tree", d.is_idle)
        time.sleep(REST_S)
        after = kept(d, "router")
    n_wrong, n_lost, n_again = map(sum, zip(*done))
    row("kill -9 of one of two routers", f"{n_kills} times, 16 streams through each",
        f"{n_wrong} of the other's and of those asked again fail or differ ({n_lost} were its own, {n_again} asked again)", "0", n_wrong == 0)
    row("… its slots are free", f"{len(freed)} times", f"p50 {quantile(freed, 0.5) * 1e3:.0f} ms, p99 {quantile(freed, 0.99) * 1e3:.0f} ms", "100 ms",
        quantile(freed, 0.99) < 0.1)
    growth, who = max(((after[0][k] - m) / m, k) for k, m in before[0].items())
    fds = max(after[1][k] - n for k, n in before[1].items())
    row("… what the others keep", f"{n_kills} times, {WARM_S} s after the first", f"memory {growth:+.1%} ({who}), files {fds:+d}", "+2 %, +4",
        growth < 0.02 and is_idle and fds <= 4)


@check
def supervisor(scale):
    """F5: kill -9 of `banyan serve` under load: nothing is left, and the same folder and port serve at once."""
    n, n_left, slowest, starts = at_least(20, scale, 2), [], 0, []
    with tempfile.TemporaryDirectory(prefix="soak-") as top:
        worker, run_dir, port = stand_in(top, "--step-us", 2000), f"{top}/run", 0
        shm = sorted(os.listdir("/dev/shm"))
        for _ in range(n + 1):
            began = time.monotonic()
            with Serve("--model-path", TINY, "--chat-template", CHATML, worker=worker, run_dir=run_dir, port=port) as s:
                starts.append(time.monotonic() - began)
                port, pids = s.client.port, s.pids()
                load = threading.Thread(target=lambda: _ask_until_cut(s.client), daemon=True)
                load.start()
                wait_for("a request to run", lambda: s.load()["num_running_reqs"])
                s.process.kill()
                s.process.wait()
                began = time.monotonic()
                while (left := [name for name, pid in pids.items() if alive(pid)]) and time.monotonic() < began + 1:
                    time.sleep(0.005)
                n_left += left
                slowest = max(slowest, time.monotonic() - began)
                load.join()
        left_shm = [f for f in os.listdir("/dev/shm") if f not in shm]
    row("kill -9 of banyan serve", f"{n} times, under load", f"{len(n_left)} processes after 1 s (all gone after {slowest * 1e3:.0f} ms), "
        f"{len(left_shm)} files in /dev/shm", "0, 0", not n_left and not left_shm)
    row("… started again on its port and folder", f"{n} times", f"ready after at most {max(starts):.1f} s", "it is", True)


def _ask_until_cut(client):
    try:
        client.generate("on and on", 8000, sampling={"ignore_eos": True})
    except Exception:  # noqa: BLE001 - its server is killed
        pass


# A ping each 1.7 s, 5 s without an answer (common/net/channel.c), 10 s to come back.
STOP_S = 17
STOP_BAR = f"0; {STOP_S} s if it lasts: a ping each 1.7 s, 5 s of silence, 10 s to come back"


@check
def stop(scale):
    """F6: SIGSTOP of each kind: /ready says so once it has hung for its time, the streams go on when it does, with the same bytes."""
    with Daemons(gpu_worker=["--step-us", "1000"]) as d:
        streams = Streams(d)
        for seconds in (1, 7, 60) if scale >= 1 else (7,):
            for name in ALL:
                told = []

                def act():
                    began, p = time.monotonic(), d.processes[name]
                    p.send_signal(signal.SIGSTOP)
                    while time.monotonic() < began + seconds:
                        if not told and d.get("/ready").status != 200:
                            told.append(time.monotonic() - began)
                        time.sleep(0.05)
                    p.send_signal(signal.SIGCONT)

                n_wrong, why, _ = streams.disturbed(20, act)
                late = f"/ready says so after {told[0]:.1f} s" if told else "/ready stays 200"
                row(f"SIGSTOP {name} {seconds} s", "32 streams", f"{n_wrong} streams fail or differ {why[:80]}; {late}",
                    STOP_BAR, n_wrong == 0 and (seconds < STOP_S or bool(told and told[0] < STOP_S)))
                wait_for("it to be ready again", lambda: d.get("/ready").status == 200)


@check
def ranks(scale):
    """F10: of two ranks one dies, one is ten times slower, one stands still for longer than a sum may take: the streams go on with the same bytes."""
    n = at_least(20, scale, 2)
    with tempfile.TemporaryDirectory(prefix="soak-") as top:
        model = tiny_llama.write(Path(top) / "model", 1)
        with Serve("--model-path", model, "--threads", "1", "--tp-size", "2", "--max-total-tokens", "65536", "--context-length", "512") as s:
            bodies = [{"input_ids": [20 + i * 7 % 600 for i in range(10 + 5 * k)], "sampling_params": {"temperature": 0, "max_new_tokens": 100, "ignore_eos": True}}
                      for k in range(8)]
            ask = lambda: in_threads([lambda b=b: s.post("/generate", b, timeout=120).json["output_ids"] for b in bodies])  # noqa: E731
            whole = ask()
            for what, act in (("is killed", _kill), ("is ten times slower", _slow), ("stands still for 8 s", _stand)):
                n_wrong, longest = 0, 0.0
                for i in range(n if act is not _stand else max(2, n // 4)):
                    s.post("/flush_cache")
                    began = time.monotonic()
                    n_wrong += sum(a != b for a, b in zip(in_threads([ask, lambda: act(s, i % 2)])[0], whole))
                    longest = max(longest, time.monotonic() - began)
                    wait_for("both ranks to be there", lambda: s.get("/health_generate").status == 200)
                row(f"of two ranks one {what}", f"{i + 1} times, 8 streams each", f"{n_wrong} streams fail or differ; all over after at most {longest:.1f} s", "0", n_wrong == 0)


def _kill(s, rank):
    wait_for("them to run", lambda: s.load()["num_running_reqs"])
    os.kill(s.pids()[f"gpu-worker-0.{rank}"], signal.SIGKILL)


def _slow(s, rank):
    with slowed(s.pids()[f"gpu-worker-0.{rank}"]):
        time.sleep(2)


def _stand(s, rank):
    with slowed(s.pids()[f"gpu-worker-0.{rank}"], 1, 8):
        time.sleep(1)
