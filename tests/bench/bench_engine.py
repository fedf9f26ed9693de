"""bench_engine.py --llama DIR [--rounds 5] [--rows prefill,http] - the engine beside its peers, in turn, on the same files.

    cmake --build build --target bench_programs && .venv/bin/python tests/bench/bench_engine.py --llama DIR

DIR holds llama-bench, llama-batched-bench, llama-server, and llama-quantize, which makes the files of other types: llama.cpp as
vendored in the sdist of llama-cpp-python 0.3.36, built with its native flags. Each round runs every row of both programs,
one after the other; a figure is the median over rounds, a ratio the median of the rounds' ratios, so that a machine that
changes its speed changes both. Beside a rate stands its share of what the machine could do at most (bench_ceiling): bytes of
weights read, or operations, whichever is nearer. --rows keeps rows whose name has one of the words; --csv writes lines;
--quick takes one round of shorter work, to see that all of it runs.

How busy the machine was is measured before each run (foreign CPU, in cores): a ratio from a noisy round still holds, an
absolute figure does not.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

import engine_peers as peers

CACHE = pathlib.Path(os.environ.get("BANYAN_CACHE", pathlib.Path.home() / ".cache/banyan"))
MODEL = CACHE / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
LAYER_WEIGHTS, HEAD_WEIGHTS = 106_168_320, 28_311_552  # of SmolLM2-135M: what a prompt token, and a sampled one too, is multiplied by

# must, goal: of the ratio to the peer
BARS = {
    "Q4_1 prefill 512": (3.5, 6), "Q4_0 prefill 512": (1.5, 2.2),
    "Q4_1 decode 1": (1.6, 2.3), "Q4_0 decode 1": (1.2, 1.55),
    "Q4_1 decode 8": (3, 5), "Q4_0 decode 8": (1.8, 2.8),
    "Q4_1 decode 32": (3.5, 6), "Q4_0 decode 32": (1.7, 2.7),
    "AVX2 prefill 512": (2.2, 3),
    "BF16 prefill 512": (1.3, 1.9), "BF16 decode 1": (0.95, 1.05), "F32 prefill 512": (1.2, 1.6),
    "bf16 prefill 512, transformers": (1.3, 1.9), "bf16 decode 1, transformers": (0.95, 1.05),
    "f32 prefill 512, transformers": (1.2, 1.6),
    "decode 32, 512 shared tokens, unshared": (1.3, 1.7),
    "http 8 streams": (3, 5), "http 8 streams, engine alone": (0.8, 0.95),
    "http 24 requests, 1,024 shared tokens": (5, 10),
    "busy prefill 512, quiet": (0.35, 0.6), "busy decode 1, quiet": (0.35, 0.6),
}


def foreign_cpu(seconds=0.2):
    """Cores that others keep busy right now."""

    def busy():
        fields = [int(x) for x in open("/proc/stat").readline().split()[1:]]
        return sum(fields) - fields[3] - fields[4]

    before = busy()
    time.sleep(seconds)
    return (busy() - before) / os.sysconf("SC_CLK_TCK") / seconds


class Bench:
    """Groups of rows: ours and theirs each give {row: tokens a second}, so that a program runs once for all its rows."""

    def __init__(self, o):
        self.o, self.t = o, o.threads
        n = 8 if o.quick else 48
        self.decodes = {"decode 1": f"1x160x{n}", "decode 8": f"8x160x{n // 2}", "decode 32": f"32x160x{n // 3}"}
        self.http_tokens = 16 if o.quick else 128
        self.groups = []
        for kind in ("Q4_1", "Q4_0"):
            self.add([f"{kind} {row}" for row in ("prefill 512", *self.decodes)], self.quantised(kind), self.quantised_llama(kind))
        self.add(["AVX2 prefill 512"], lambda: {"AVX2 prefill 512": self.prefill(o.model, "--cpu-isa", "avx2")},
                 lambda: {"AVX2 prefill 512": peers.llama_bench(o.llama_avx2 or o.llama, o.model, self.t)["prefill"]})
        for kind in ("BF16", "F32"):
            self.add([f"{kind} prefill 512", f"{kind} decode 1"], self.plain(kind), self.plain_llama(kind))
            self.add([f"{kind.lower()} prefill 512, transformers", f"{kind.lower()} decode 1, transformers"],
                     self.plain(kind, ", transformers"), self.plain_torch(kind))
        self.add(["decode 32, 512 shared tokens, unshared"], *self.shared())
        self.add(["http 8 streams"], lambda: {"http 8 streams": self.http(peers.banyan_server(o.model, self.t))},
                 lambda: {"http 8 streams": self.http(peers.llama_server(o.llama, o.model, self.t))})
        self.add(["http 8 streams, engine alone"],
                 lambda: {"http 8 streams, engine alone": self.http(peers.banyan_server(o.model, self.t))},
                 lambda: {"http 8 streams, engine alone": self.own_job(8, 8, self.http_tokens)})
        name = "http 24 requests, 1,024 shared tokens"
        self.add([name], lambda: {name: self.prefix(peers.banyan_server(o.model, self.t))},
                 lambda: {name: self.prefix(peers.llama_server(o.llama, o.model, self.t))})
        self.add(["busy prefill 512, quiet", "busy decode 1, quiet"], self.while_busy(self.own_pair), self.own_pair)
        self.add(["llama.cpp busy prefill 512, quiet", "llama.cpp busy decode 1, quiet"],
                 self.while_busy(self.llama_pair), self.llama_pair)

    def add(self, rows, ours, theirs):
        if not self.o.rows or any(word in row for row in rows for word in self.o.rows.split(",")):
            self.groups.append((rows, ours, theirs))

    # ---- what a group runs ----

    def one(self, shape, *extra, model=None):
        return peers.one_batch(model or self.o.model, self.t, [shape], extra)[shape]

    def own_job(self, n, n_prompt, n_tokens):
        """Generated tokens a second of the engine alone for what http does: prompts first, then all tokens."""
        prefill, decode = self.one(f"{n}x{n_prompt}x{n_tokens}")
        return n * n_tokens / (n * n_prompt / prefill + n * n_tokens / decode)

    def prefill(self, model, *extra):
        return self.one("1x512x1", *extra, model=model)[0]

    def file(self, kind):
        return self.o.model if kind == "Q4_1" else peers.requantised(self.o.llama, self.o.model, kind)

    def quantised(self, kind):
        def run():
            rates = peers.one_batch(self.file(kind), self.t, ["1x512x1", *self.decodes.values()])
            return {f"{kind} prefill 512": rates["1x512x1"][0],
                    **{f"{kind} {row}": rates[shape][1] for row, shape in self.decodes.items()}}
        return run

    def quantised_llama(self, kind):
        def run():
            one = peers.llama_bench(self.o.llama, self.file(kind), self.t)
            many = peers.llama_batched(self.o.llama, self.file(kind), self.t, (8, 32), 160, 4 if self.o.quick else 16)
            return {f"{kind} prefill 512": one["prefill"], f"{kind} decode 1": one["decode"],
                    **{f"{kind} decode {n}": rate for n, rate in many.items()}}
        return run

    def plain(self, kind, suffix=""):
        name = kind.lower() if suffix else kind

        def run():
            rates = peers.one_batch(self.file(kind), self.t, ["1x512x1", "1x160x24"])
            return {f"{name} prefill 512{suffix}": rates["1x512x1"][0], f"{name} decode 1{suffix}": rates["1x160x24"][1]}
        return run

    def plain_llama(self, kind):
        def run():
            one = peers.llama_bench(self.o.llama, self.file(kind), self.t, n_decode=24)
            return {f"{kind} prefill 512": one["prefill"], f"{kind} decode 1": one["decode"]}
        return run

    def plain_torch(self, kind):
        def run():
            one = peers.torch_rates(self.o.model, {"BF16": "bfloat16", "F32": "float32"}[kind], self.t)
            return {f"{kind.lower()} prefill 512, transformers": one["prefill"],
                    f"{kind.lower()} decode 1, transformers": one["decode"]}
        return run

    def shared(self):
        row, n = "decode 32, 512 shared tokens, unshared", 4 if self.o.quick else 16
        return (lambda: {row: self.one(f"32x576x{n}+512")[1]}), (lambda: {row: self.one(f"32x576x{n}")[1]})

    def http(self, server):
        with server as port:
            return peers.http_rate(port, 8, self.http_tokens, 1 if self.o.quick else 2)

    def prefix(self, server):
        with server as port:
            return peers.shared_prefix_rate(port, self.o.round, tokens=4 if self.o.quick else 32)

    def own_pair(self):
        rates = peers.one_batch(self.o.model, self.t, ["1x512x1", "1x160x48"])
        return {"busy prefill 512, quiet": rates["1x512x1"][0], "busy decode 1, quiet": rates["1x160x48"][1]}

    def llama_pair(self):
        one = peers.llama_bench(self.o.llama, self.o.model, self.t)
        return {f"llama.cpp busy {row}, quiet": one[word] for row, word in (("prefill 512", "prefill"), ("decode 1", "decode"))}

    @staticmethod
    def while_busy(pair):
        def run():
            with peers.busy():
                return pair()
        return run


def ceiling_share(row, rate, o, ceiling):
    """Of what the machine could do: weights' bytes read, or operations; None where neither is the measure."""
    kind, _, rest = row.partition(" ")
    peak = {"Q4_1": "dpbusd i8 512", "Q4_0": "dpbusd i8 512", "AVX2": "maddubs i8 256", "BF16": "dpbf16 512",
            "F32": "fma f32 512"}.get(kind)
    if peak not in ceiling:
        return None
    is_prefill = rest.startswith("prefill")
    operations = 2 * (LAYER_WEIGHTS + (0 if is_prefill else HEAD_WEIGHTS))
    shares = [rate * operations / ceiling[peak]]
    if not is_prefill:
        size = {"BF16": 2, "F32": 4}.get(kind)
        n_bytes = size * (LAYER_WEIGHTS + HEAD_WEIGHTS) if size else o.model.stat().st_size
        shares.append(rate / int(rest.split()[1]) * n_bytes / ceiling["read"])
    return max(shares)


def report(o, ours, theirs, noise, load):
    ceiling = peers.ceilings(o.threads)
    lines = [f"ceiling,{name},{value:.4g},a second" for name, value in ceiling.items()]
    print(f"{'row':<40}{'banyan':>10}{'peer':>10}{'ratio':>8}{'must':>7}{'goal':>6}{'ceiling':>9}")
    for row, values in ours.items():
        ratio = statistics.median(a / b for a, b in zip(values, theirs[row]))
        mine, peer = statistics.median(values), statistics.median(theirs[row])
        share = ceiling_share(row, mine, o, ceiling)
        must, goal = BARS.get(row, ("", ""))
        print(f"{row:<40}{mine:>10.1f}{peer:>10.1f}{ratio:>8.2f}{must:>7}{goal:>6}{f'{share:.0%}' if share else '':>9}")
        lines += [f"banyan,{row},{mine:.4g},tokens/s", f"peer,{row},{peer:.4g},tokens/s", f"ratio,{row},{ratio:.3g},x"]
    if load:
        print(f"{'load, the file in the page cache':<40}{statistics.median(load):>10.2f} s (must 0.5)")
        lines.append(f"banyan,load,{statistics.median(load):.3g},s")
    print(f"foreign CPU before a run: {statistics.median(noise):.2f} cores in the median, {max(noise):.2f} at most")
    if o.csv:
        o.csv.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama", type=pathlib.Path, required=True)
    parser.add_argument("--llama-avx2", type=pathlib.Path, help="another build of it, without AVX-512, for the AVX2 row")
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rows")
    parser.add_argument("--csv", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    o = parser.parse_args()
    bench = Bench(o)
    ours, theirs, noise, load = {}, {}, [], []
    for o.round in range(1 if o.quick else o.rounds):
        for rows, mine, peer in bench.groups:
            for who, run in ((ours, mine), (theirs, peer)):
                noise.append(foreign_cpu())
                for row, rate in zip(rows, run().values()):
                    who.setdefault(row, []).append(rate)
        if not o.rows or "load" in o.rows:
            load.append(peers.load_seconds(o.model, o.threads))
        print(f"round {o.round + 1} is done", file=sys.stderr)
    report(o, ours, theirs, noise or [0], load)


if __name__ == "__main__":
    main()
