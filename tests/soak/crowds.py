"""More clients than a server is happy with: slow ones, idle ones, and far too many."""

import resource
import time

from clients import Load, anon_kib, at_least, at_rate, first_bytes, http, n_fds, quantile
from harness import Daemons, rss_kib, wait_for
from table import check, row

SHORT = http({"text": "a", "stream": True, "sampling_params": {"max_new_tokens": 2, "temperature": 0}})


def all_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@check
def slowloris(scale):
    """B3: a byte a second of a head, of a body, and a byte a second read of a stream: the healthy do not notice."""
    n, n_probes = at_least(2000, scale, 50), at_least(2000, scale, 200)
    all_files()
    head = b"POST /generate HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 60
    body = http({"text": "x" * 100000}, is_kept=True)
    stream = http({"input_ids": [30] * 20, "stream": True, "sampling_params": {"max_new_tokens": 8000, "ignore_eos": True}})
    # A running request is the model's business: the slow readers' place is paused, and the healthy one's is there. So many
    # streams get 100,000 tokens a second until they are.
    for what, mode, request, step_us, words in (("of a head", "drip", head, 500, (n, 60)), ("of a body", "drip", body, 500, (n, 100000)),
                                                ("read of a stream", "sip", stream, 20000, (n,))):
        with Daemons(gpu_worker=["--step-us", str(step_us), "--slots", "4096", "--pages", "65536"], scheduler=["--max-running-requests", "4096"]) as d:
            first_bytes(d.client, SHORT, 200)
            base = quantile(first_bytes(d.client, SHORT, n_probes), 0.99)
            before = rss_kib(d.pid("router"))
            with Load(d.client, mode, [request], *words) as slow:
                wait_for("all to be accepted", lambda: n_fds(d.pid("router")) > n)
                if mode == "sip":
                    wait_for("the streams to be paused", lambda: not (load := d.load())["num_running_reqs"] and not load["num_waiting_reqs"], 300)
                seen, rss = quantile(first_bytes(d.client, SHORT, n_probes), 0.99), rss_kib(d.pid("router"))
                if mode == "drip":
                    began = time.monotonic()
                    wait_for("the server to close them", lambda: n_fds(d.pid("router")) < 60, 120)
                    closed = f", closed after {time.monotonic() - began:.0f} s more"
                else:
                    closed = f", {(rss - before) / n:.0f} KiB each"
                slow.process.stdin.close()
            wait_for("them to be gone", lambda: n_fds(d.pid("router")) < 60, 60)
            row(f"a byte a second {what}: first byte p99 of the healthy", f"{n} sockets", f"{seen * 1e3:.1f} ms beside {base * 1e3:.1f} ms{closed}",
                "under 2x", seen < 2 * base)
            wait_for("their requests to be gone", d.is_idle, 60)


@check
def idle(scale):
    """B4: many idle connections and many live streams; the model takes a step each 50 ms, two of which are on their way."""
    n_idle, n_live, step = at_least(10_000, scale, 100), at_least(1000, scale, 20), 0.05
    n_idle = min(n_idle, all_files() - 2 * n_live - 500)
    live = [http({"prompt": [20 + i % 500] * 20, "max_tokens": 6000, "temperature": 0, "ignore_eos": True, "stream": True}, "/v1/completions")
            for i in range(64)]
    with Daemons(gpu_worker=["--step-us", str(int(step * 1e6)), "--slots", "2048", "--pages", "524288"], scheduler=["--max-running-requests", "2048"]) as d:
        pid, n_probes = d.pid("router"), at_least(400, scale, 50)
        base = quantile(first_bytes(d.client, SHORT, at_least(50, scale, 20)), 0.5)
        before = rss_kib(pid)
        with Load(d.client, "hold", live, n_idle, 1) as quiet:
            wait_for("all to be accepted", lambda: n_fds(pid) > n_idle)
            each = (rss_kib(pid) - before) / n_idle
            with Load(d.client, "hold", live, 0, n_live) as streams:
                wait_for("all to run", lambda: d.load()["num_running_reqs"] >= n_live, 60)
                began, cpu = time.monotonic(), cpu_seconds(pid)
                seen = first_bytes(d.client, SHORT, n_probes)
                share = (cpu_seconds(pid) - cpu) / (time.monotonic() - began)
                rss = rss_kib(pid)
                said = streams.end()
            quiet.end()
    row("idle connections", f"{n_idle}", f"{each:.1f} KiB each", "16 KiB", each < 16)
    row("idle connections and live streams: the router", f"{n_idle} and {n_live}", f"{rss / 1024:.0f} MiB, {share:.0%} of a core", "300 MiB", rss < 300 * 1024)
    # The step that computes it, and the two that were on their way: three at most.
    model, p99 = 3 * step, quantile(seen, 0.99)
    row("… a new request's first byte", f"{n_probes} of them, {n_idle} and {n_live}",
        f"p50 {quantile(seen, 0.5) * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms; alone {base * 1e3:.0f} ms; the model's time is up to {model * 1e3:.0f} ms ({said.strip()})",
        f"+50 ms: {model * 1e3 + 50:.0f} ms", p99 < model + 0.05)


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


@check
def overload(scale):
    """B13: 50 times what it can do: refusals are quick, and what is done stays as much."""
    seconds = max(5.0, 60 * scale)
    request = http({"input_ids": [30] * 20, "sampling_params": {"max_new_tokens": 16, "ignore_eos": True}}, is_kept=True)
    with Daemons(gpu_worker=["--step-us", "5000", "--slots", "4"], scheduler=["--max-running-requests", "4", "--max-queued-requests", "8"]) as d:
        at_rate(d.client, request, 0, 2, 12)
        calm = at_rate(d.client, request, 0, seconds / 2, 12)
        capacity = calm["done"] / (seconds / 2)
        before = anon_kib(d.pid("router"))
        storm = at_rate(d.client, request, 50 * capacity, seconds, 2000)
        grown = anon_kib(d.pid("router")) - before
    good, asked = storm["done"] / seconds, storm["sent"] / seconds
    row("overload: what is done", f"{asked:.0f} requests a second, {seconds:.0f} s; capacity {capacity:.1f}", f"{good / capacity:.1%} of capacity, "
        f"{storm['other']} other answers, {storm['late']} not sent; the router {grown:+d} KiB", "95 %, 0, 0",
        good > 0.95 * capacity and not storm["other"] and not storm["late"])
    row("overload: refusals", f"{storm['refused']} of them", f"p50 {storm['refused_p50'] * 1e3:.1f} ms, p99 {storm['refused_p99'] * 1e3:.1f} ms", "10 ms",
        storm["refused"] > 0 and storm["refused_p99"] < 0.01)
    row("overload: what is taken is done in its time", f"{storm['done']} of them", f"p99 {storm['done_p99'] * 1e3:.0f} ms; at capacity {calm['done_p99'] * 1e3:.0f} ms",
        "2x", storm["done_p99"] < 2 * calm["done_p99"])
