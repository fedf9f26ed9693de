"""banyan top: what a running server does, drawn again each second from its /metrics and /v1/loads.

Rates and latencies are of the time between two looks: counters and histograms are only ever added to.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import sys
import time

from . import wire

BAR_MAX, BESIDE_BARS = 40, 50  # columns: of a bar, and of a replica's line without its two bars
QUANTILES = (0.5, 0.9, 0.99)
TIMES = [("time_to_first_token_seconds", "TTFT"), ("inter_token_latency_seconds", "ITL"), ("e2e_request_latency_seconds", "E2E")]
SAMPLE = re.compile(r'^banyan:(\w+)(?:\{le="([^"]+)"\})? (\S+)$', re.M)


def parse(text):
    """({name: value}, {histogram: [(upper bound, how many lie below)]}) of Prometheus text."""
    values, buckets = {}, {}
    for name, bound, value in SAMPLE.findall(text):
        if bound:
            buckets.setdefault(name.removesuffix("_bucket"), []).append((float(bound), float(value)))
        else:
            values[name] = float(value)
    return values, buckets


def quantile(now, before, share):
    """Of what was observed between two looks, as Prometheus does it: even within a bucket. None: nothing was."""
    counts = [(bound, n - (before[i][1] if before else 0)) for i, (bound, n) in enumerate(now)]
    total = counts[-1][1] if counts else 0
    if not total:
        return None
    wanted, low, below = share * total, 0.0, 0.0
    for bound, n in counts:
        if n >= wanted:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (wanted - below) / ((n - below) or 1)
        low, below = bound, n
    return low


def milliseconds(seconds):
    return "-" if seconds is None else f"{seconds * 1e3:,.1f} ms"


def bar(share):
    """As long as the terminal has room for two of them in a line."""
    wide = max(4, min(BAR_MAX, (shutil.get_terminal_size((2 * BAR_MAX + BESIDE_BARS, 24)).columns - BESIDE_BARS) // 2))
    full = round(wide * min(max(share, 0.0), 1.0))
    return f"[{'|' * full}{' ' * (wide - full)}] {share:6.1%}"


class Look:
    def __init__(self, metrics, loads):
        self.at, self.loads = time.monotonic(), loads
        self.values, self.buckets = parse(metrics)


async def look(address):
    metrics = await wire.ask(address, "GET", "/metrics")
    return Look(metrics.decode(), json.loads(await wire.ask(address, "GET", "/v1/loads")))


def draw(address, now, before):
    """The lines of the view; before: the look before this one, or None: since the server's start."""
    v = now.values
    seconds = now.at - before.at if before else max(now.loads["uptime_s"], 1e-9)
    rate = lambda name: (v[name] - (before.values[name] if before else 0)) / seconds
    up = int(now.loads["uptime_s"])
    lines = [f"banyan top  {address}  version {now.loads['version']}  up {up // 86400} d {up // 3600 % 24:02}:{up // 60 % 60:02}:{up % 60:02}",
             "", f"running {v['num_running_reqs']:.0f}   waiting {v['num_queue_reqs']:.0f}   retracted {v['num_retracted_total']:.0f}   "
                 f"aborted {v['num_aborted_requests_total']:.0f}   4xx {v['http_responses_4xx_total']:.0f}   "
                 f"5xx {v['http_responses_5xx_total']:.0f}"]
    for load in now.loads["loads"]:
        name = f"replica {load['dp_rank']}" if load["is_up"] else f"replica {load['dp_rank']} is down"
        lines.append(f"{name:16} KV {bar(load['token_usage'])}  slots {bar(load['num_running_reqs'] / max(load['max_running_requests'], 1))}")
    lines += [f"{'cache hits':16}    {bar(v['cache_hit_rate'])}  of all prompt tokens", "",
              f"{'a second':12} requests {rate('num_requests_total'):,.1f}   output tokens {rate('generation_tokens_total'):,.1f}",
              f"{'':12} prompt tokens {rate('prompt_tokens_total'):,.1f}   of them cached {rate('cached_tokens_total'):,.1f}", "",
              f"{'':12}" + "".join(f"{f'p{q * 100:.0f}':>14}" for q in QUANTILES)]
    for name, label in TIMES:
        then = before.buckets[name] if before else None
        lines.append(f"{label:12}" + "".join(f"{milliseconds(quantile(now.buckets[name], then, q)):>14}" for q in QUANTILES))
    return lines


def begins_anew(now, before):
    """Another process answers than before: what it counts starts at 0."""
    return before is not None and any(now.values[name] < n for name, n in before.values.items() if name.endswith("_total"))


async def run(o):
    """A terminal is drawn over; into a pipe or a file one view follows the other. A server that was here may come back."""
    address, before, was_here = wire.parse(wire.url_of(o), o.api_key), None, False
    while True:
        try:
            now = await look(address)
            text = "\n".join(draw(address, now, None if begins_anew(now, before) else before))
            was_here = True
        except wire.BanyanError as away:
            if not was_here:
                raise
            now, text = None, f"banyan top  {address}\n\naway: {away}"
        if o.once:
            print(text)
            return
        print(f"\x1b[H\x1b[2J{text}\n\nCtrl-C ends it" if sys.stdout.isatty() else f"{text}\n", flush=True)
        before = now
        await asyncio.sleep(o.interval)


def main():
    p = argparse.ArgumentParser(prog="banyan top", description="A live view of a server: load, rates, latencies.")
    wire.add_server(p)
    p.add_argument("--interval", type=float, default=1.0, metavar="S", help="seconds between two looks (default 1)")
    p.add_argument("--once", action="store_true", help="one look, rates since the server's start, and end")
    try:
        asyncio.run(run(p.parse_args()))
    except (wire.BanyanError, ValueError) as wrong:
        print(f"banyan top: {wrong}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # nobody reads on; Python would say so once more, as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
