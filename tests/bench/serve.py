"""Everything around the engine, measured with a stand-in worker: rate, latency a token, where the CPU time goes.

    .venv/bin/python tests/bench/serve.py [REPEATS]       writes tests/bench/results/serve.md

Needs `ninja -C build bench_programs`. The best of the repeats is kept: noise only adds.
"""

import csv
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import BUILD, CHATML, TINY, Daemons, Serve, rss_kib, stand_in  # noqa: E402

OURS = ("router", "tokenizer-worker", "scheduler", "detokenizer")
RESULT = Path(__file__).parent / "results/serve.md"


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(server, streams, tokens, rounds):
    """One run of bench_http; its figures, and the CPU time a token of each process, in microseconds."""
    before, steps = {name: cpu_s(pid) for name, pid in server.pids().items()}, server.load()
    done = subprocess.run([BUILD / "bench/bench_http", *map(str, (server.client.port, streams, tokens, rounds))],
                          capture_output=True, text=True, check=True)
    row = {name: float(value) for _, name, value, _ in csv.reader(done.stdout.splitlines())}
    for name, pid in server.pids().items():
        row[f"cpu {name}"] = (cpu_s(pid) - before[name]) / row["tokens"] * 1e6
    after = server.load()
    row["step us"] = (after["compute_us"] - steps["compute_us"]) / (after["steps"] - steps["steps"])
    row["cpu ours"] = sum(row[f"cpu {name}"] for name in OURS)
    return row


def best(repeats, key, largest, run):
    return sorted((run() for _ in range(repeats)), key=lambda r: r[key], reverse=largest)[0]


def idle_percent(server, seconds=5):
    before = {name: cpu_s(pid) for name, pid in server.pids().items()}
    time.sleep(seconds)
    return 100 * sum(cpu_s(pid) - before[name] for name, pid in server.pids().items()) / seconds


def ready_s(tmp):
    start = time.monotonic()
    with Serve("--model-path", TINY, "--chat-template", CHATML, worker=stand_in(tmp)):
        return time.monotonic() - start


def main():
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with Daemons() as d:
        load(d, 64, 50, 2)  # warm
        many = best(repeats, "rate", True, lambda: load(d, 64, 500, 5))
        one = best(repeats, "gap p50", False, lambda: load(d, 1, 2000, 2))
        idle = idle_percent(d)
        rss = {name: rss_kib(pid) / 1024 for name, pid in d.pids().items()}
    with Daemons(gpu_worker=["--step-us", "5000"]) as d:
        paced = best(repeats, "seconds", False, lambda: load(d, 1, 300, 1))
        added = paced["seconds"] / paced["tokens"] * 1e6 - paced["step us"]
    ready = min(ready_s("/tmp") for _ in range(repeats))
    cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    lines = [
        "# Everything around the engine", "",
        f"`tests/bench/serve.py {repeats}` on {os.cpu_count()} CPUs of {cpu}, Linux {platform.release()}; best of {repeats}. The client and the",
        "stand-in worker share the CPUs with what is measured. Streams are `/v1/completions` over HTTP; tokens of a stream that are at hand",
        "together go out in one event.", "",
        "| figure | value |", "| --- | --- |",
        f"| 64 streams | {many['rate']:,.0f} tokens/s, {many['tokens'] / many['events']:.1f} tokens an event |",
        f"| 64 streams, time to the first byte p50 / p99 | {many['first byte p50'] / 1e3:.1f} / {many['first byte p99'] / 1e3:.1f} ms |",
        f"| one stream, no work in the worker: a token | {one['seconds'] / one['tokens'] * 1e6:.0f} µs ({one['rate']:,.0f} tokens/s, {one['tokens'] / one['events']:.1f} an event) |",
        f"| one stream, steps of 5 ms: added to a token | {added:.0f} µs |",
        f"| one stream, time to the first byte p50 | {one['first byte p50'] / 1e3:.2f} ms |",
        f"| CPU of router + tokenizer worker + scheduler + detokenizer, 64 streams | {many['cpu ours']:.1f} µs a token |",
        f"| idle, all five processes | {idle:.2f} % of a core |",
        f"| resident, without the worker | {sum(rss[name] for name in OURS):.0f} MiB |",
        f"| `banyan serve` ready, seen from outside | {ready * 1e3:.0f} ms |", "",
        "## Where a token's CPU time goes (64 streams / one stream)", "",
        "| process | µs a token | µs a token, one stream | resident MiB |", "| --- | --- | --- | --- |",
        *(f"| {name} | {many[f'cpu {name}']:.1f} | {one[f'cpu {name}']:.1f} | {rss[name]:.1f} |" for name in (*OURS, "gpu-worker")),
        f"| client (bench_http) | {many['client cpu']:.1f} | {one['client cpu']:.1f} | |", "",
    ]
    RESULT.write_text("\n".join(lines))
    print("\n".join(lines))


main()
