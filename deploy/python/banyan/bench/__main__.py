"""banyan bench serve | offline: reads the options, runs the rounds, writes what came of them."""

import argparse
import asyncio
import json
import sys
import time

from .. import wire
from . import figures, load, plot, workloads


class Bar:
    """`[#####.....] 17/200  34.1 a second` on a terminal."""

    def __init__(self, n, wanted):
        self.n, self.done, self.failed, self.start, self.wanted = n, 0, 0, time.monotonic(), wanted

    def step(self, record):
        self.done += 1
        self.failed += bool(record.error)
        if self.wanted:
            full = 30 * self.done // self.n
            rate = self.done / max(time.monotonic() - self.start, 1e-9)
            failed = f"  {self.failed} failed" if self.failed else ""
            sys.stderr.write(f"\r[{'#' * full}{'.' * (30 - full)}] {self.done}/{self.n}  {rate:.1f} a second{failed} ")
            sys.stderr.flush()

    def close(self):
        if self.wanted and self.done:
            sys.stderr.write("\n")


def at_least(low, kind=int):
    def read(text):
        value = kind(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{text} is below {low}")
        return value

    read.__name__ = f"a number from {low}"
    return read


def add_common(p):
    p.add_argument("--workload", default="random", metavar="KIND",
                   help="random, shared-prefix, chat (several turns), or a file of JSON lines {prompt or messages, max_tokens}")
    p.add_argument("--requests", type=at_least(1), default=100, help="how many (default %(default)s)")
    p.add_argument("--concurrency", type=at_least(1), help="so many at a time at most (default: no limit)")
    p.add_argument("--input-tokens", type=at_least(1), default=256, help="words of each prompt (default %(default)s)")
    p.add_argument("--output-tokens", type=at_least(1), default=64, help="of each answer (default %(default)s)")
    p.add_argument("--spread", type=float, default=0.0, metavar="S", help="both between 1-S and 1+S times that (default 0)")
    p.add_argument("--prefix-tokens", type=at_least(1), default=512, help="shared-prefix, chat: of what stands before (default %(default)s)")
    p.add_argument("--groups", type=at_least(1), default=4, help="shared-prefix, chat: different prefixes (default %(default)s)")
    p.add_argument("--turns", type=at_least(1), default=4, help="chat: of each conversation (default %(default)s)")
    p.add_argument("--seed", type=int, default=1, help="the same seed, the same words and arrivals (default 1)")
    p.add_argument("--json", metavar="FILE", help="write the figures there; - is stdout, in place of the table")
    p.add_argument("--plot", metavar="FILE.svg", help="write how the times are spread")
    p.add_argument("--quiet", action="store_true", help="no progress bar")


def parser():
    top = argparse.ArgumentParser(prog="banyan bench", description="load on a server, and what came of it")
    kinds = top.add_subparsers(dest="kind", required=True)
    p = kinds.add_parser("serve", help="a server that runs, over HTTP", description="Streams requests from a server and times each.")
    wire.add_server(p)
    p.add_argument("--against", metavar="URL", help="another server, with the same key: rounds alternate between the two, and ratios are told")
    p.add_argument("--rounds", type=at_least(1), default=1, help="of all requests on each server (default 1)")
    p.add_argument("--rate", type=at_least(0.001, float), help="requests a second, arriving at random (default: all at once)")
    p.add_argument("--api", choices=("openai", "native"), default="openai", help="/v1/completions, or SGLang's /generate")
    add_common(p)
    p = kinds.add_parser("offline", help="the Engine: all requests at once, no network",
                         description="Starts a private server for a model and gives it all requests at once. Options of `banyan serve` "
                                     "may follow behind --.")
    p.add_argument("--model-path", "--model", help="folder, file or Hub id; default: as `banyan serve`")
    add_common(p)
    p.add_argument("options", nargs="*", metavar="-- OPTION", help="of `banyan serve`")
    return top


async def measure(targets, o, rounds, rate):
    """Rounds alternate; who begins alternates too, so that a machine that slows down is unfair to nobody."""
    conversations = workloads.make(o)
    n = sum(len(c.turns) for c in conversations)
    seconds = {t: 0.0 for t in targets}
    bar = Bar(n * rounds * len(targets), sys.stderr.isatty() and not o.quiet)
    for i in range(rounds):
        for target in targets if i % 2 == 0 else reversed(targets):
            seconds[target] += await load.run(target, conversations, rate, o.concurrency, o.seed + i, bar.step)
    bar.close()
    return seconds


def tell(targets, seconds, o):
    summaries = [figures.summary(t, seconds[t]) for t in targets]
    ratio = figures.ratios(*summaries) if len(summaries) == 2 else None
    options = {k: v for k, v in vars(o).items() if k not in ("api_key", "json", "plot", "quiet")}
    report = {"options": options, "servers": summaries, "ratios": ratio}
    if o.json == "-":
        print(json.dumps(report, indent=1))
    else:
        print(figures.table(summaries, ratio))
        for s in summaries:
            for error in s["errors"]:
                print(f"{s['name']}: {error}", file=sys.stderr)
    if o.json and o.json != "-":
        with open(o.json, "w", encoding="utf-8") as f:
            json.dump(report, f, indent=1)
    if o.plot:
        with open(o.plot, "w", encoding="utf-8") as f:
            f.write(plot.svg(f"{o.workload}, {o.requests} requests", targets))
    return 0 if all(s["completed"] and not s["failed"] for s in summaries) else 1


async def reach(targets):
    """Before anything is measured: a server that is not there is a sentence, not a table of nothing."""
    for target in targets:
        _, writer = await target.address.open()
        writer.close()


def serve(o):
    o.url = wire.url_of(o)
    urls = [o.url] + ([o.against] if o.against else [])
    targets = [load.Target(url, wire.parse(url, o.api_key), o.api) for url in urls]
    asyncio.run(reach(targets))
    return tell(targets, asyncio.run(measure(targets, o, o.rounds, o.rate)), o)


def engine_options(words):
    """--dp-size 2 --disable-radix-cache: as the Engine's keyword arguments."""
    options, name = {}, None
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            name = name.replace("-", "_")
            options[name] = value or True
        elif name is None or options[name] is not True:
            raise SystemExit(f"banyan bench offline: '{word}' belongs to no option")
        else:
            options[name] = word
    return options


def offline(o):
    from .. import Engine

    with Engine(o.model_path, **engine_options(o.options)) as engine:
        target = load.Target("engine", engine.address, "native", streams=False)
        return tell([target], asyncio.run(measure([target], o, 1, None)), o)


def main():
    o = parser().parse_args()
    try:
        return {"serve": serve, "offline": offline}[o.kind](o)
    except (wire.BanyanError, ValueError, OSError) as wrong:
        print(f"banyan bench: {wrong}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
