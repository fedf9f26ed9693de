"""bench_engine.py --llama DIR [--rounds 5] [--rows prefill,decode] - the engine beside llama.cpp, in turn, on the same files.

DIR holds llama-bench and llama-batched-bench (and llama-quantize, which makes the Q4_0 file): llama.cpp as vendored in the
sdist of llama-cpp-python 0.3.36, built with its native flags. Each round runs every row of both programs, one after the
other; a row's figure is the median over rounds, its ratio the median of the rounds' ratios, so that a machine that changes
its speed changes both. Prints a table, and CSV lines with --csv FILE.

How busy the machine was is measured before each run (foreign CPU, in cores): a ratio from a noisy round still holds, an
absolute figure does not.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = pathlib.Path(os.environ.get("BANYAN_CACHE", pathlib.Path.home() / ".cache/banyan")) / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
SHAPES = {"prefill 512": "1x512x1", "decode 1": "1x160x48", "decode 8": "8x160x32", "decode 32": "32x160x16"}


def foreign_cpu(seconds=0.2):
    """Cores that others keep busy right now."""

    def busy():
        fields = [int(x) for x in open("/proc/stat").readline().split()[1:]]
        return sum(fields) - fields[3] - fields[4]

    before = busy()
    time.sleep(seconds)
    return (busy() - before) / os.sysconf("SC_CLK_TCK") / seconds


def banyan(model, threads, extra=()):
    """{row: tokens a second}"""
    out = subprocess.run(
        [ROOT / "build/bin/banyan-gpu-worker", "--model-path", model, "--threads", str(threads), "--log-level", "error",
         "--max-total-tokens", "32768", "--one-batch", ",".join(SHAPES.values()), *extra],
        check=True, capture_output=True, text=True,
    ).stdout
    rates = {}
    for row, shape in SHAPES.items():
        words = next(line.split() for line in out.splitlines() if line.startswith(shape + " "))
        rates[row] = float(words[1] if row.startswith("prefill") else words[3])
    return rates


def llama(folder, model, threads):
    run = lambda *words: subprocess.run([str(w) for w in words], check=True, capture_output=True, text=True).stdout
    rates = {}
    for row in json.loads(run(folder / "llama-bench", "-m", model, "-t", threads, "-p", 512, "-n", 48, "-r", 2, "-o", "json")):
        rates["prefill 512" if row["n_prompt"] else "decode 1"] = row["avg_ts"]
    out = run(folder / "llama-batched-bench", "-m", model, "-t", threads, "-c", 8192, "-npp", 160, "-ntg", 16, "-npl", "8,32",
              "--output-format", "jsonl")
    for line in out.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            rates[f"decode {row['pl']}"] = row["speed_tg"]
    return rates


def requantised(folder, model):
    """The Q4_0 file: for speed only, made from the Q4_1 one."""
    to = model.with_suffix(".requantised-Q4_0.gguf")
    if not to.exists():
        subprocess.run([folder / "llama-quantize", "--allow-requantize", "--token-embedding-type", "q8_0", model, to, "Q4_0"],
                       check=True, capture_output=True)
    return to


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--csv", type=pathlib.Path)
    parser.add_argument("--cpu-isa", default="auto")
    o = parser.parse_args()
    files = {"Q4_1": o.model, "Q4_0": requantised(o.llama, o.model)}
    ours, theirs, noise = {}, {}, []
    for round_ in range(o.rounds):
        for name, path in files.items():
            for who, run in ((ours, lambda p: banyan(p, o.threads, ("--cpu-isa", o.cpu_isa))),
                             (theirs, lambda p: llama(o.llama, p, o.threads))):
                noise.append(foreign_cpu())
                for row, rate in run(path).items():
                    who.setdefault((name, row), []).append(rate)
        print(f"round {round_ + 1} of {o.rounds}", file=sys.stderr)
    lines = []
    print(f"{'row':<18}{'banyan t/s':>12}{'llama.cpp':>12}{'ratio':>8}   foreign CPU, median: {statistics.median(noise):.2f} cores")
    for key, values in ours.items():
        ratio = statistics.median(a / b for a, b in zip(values, theirs[key]))
        print(f"{key[0]} {key[1]:<13}{statistics.median(values):>12.1f}{statistics.median(theirs[key]):>12.1f}{ratio:>8.2f}")
        lines += [f"engine,{key[0]} {key[1]},{statistics.median(values):.4g},tokens/s",
                  f"llama.cpp,{key[0]} {key[1]},{statistics.median(theirs[key]):.4g},tokens/s",
                  f"ratio,{key[0]} {key[1]},{ratio:.3g},x"]
    if o.csv:
        o.csv.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
