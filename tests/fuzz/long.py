#!/usr/bin/env python3
"""long.py - the long form of fuzzing: ten million executions of each fuzzer, in pieces, resumed where the last one ended.

    tests/fuzz/long.py                             all of them, until each has its ten million; hours
    tests/fuzz/long.py --seconds 200 core http     one piece of so long of each of these; again goes on
    tests/fuzz/long.py --runs 1000000 --page FILE  another goal, another page

The page (tests/bench/results/fuzz.md) is the record: a row a fuzzer with its executions so far. What was found new is in
build-fuzz/corpus and goes on from there; a finding stops the program and is in build-fuzz/findings: it belongs into corpora/NAME, with the fix. A fuzzer
whose parser was rewritten begins anew: take out its row.
"""

import argparse
import datetime
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "tests/bench/results/fuzz.md"
HEAD = """# Fuzzing, so far

Made by `tests/fuzz/long.py`, piece by piece; libFuzzer under the address and undefined sanitizers, one core. The goal is 10,000,000
executions of each without a finding; an input that once failed is in `tests/fuzz/corpora`, and its bug is mended.

| fuzzer | executions | a second | inputs kept | findings | last run |
| --- | --- | --- | --- | --- | --- |
"""


def read(page):
    """{name: [executions, seconds, inputs, findings, date]}"""
    rows = {}
    for line in page.read_text().splitlines() if page.exists() else ():
        m = re.fullmatch(r"\| (\w+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| (\d+) \| (\S+) \|", line)
        if m:
            n = int(m[2].replace(",", ""))
            rows[m[1]] = [n, n / max(int(m[3].replace(",", "")), 1), int(m[4].replace(",", "")), int(m[5]), m[6]]
    return rows


def write(page, rows):
    lines = [f"| {name} | {n:,} | {n / max(s, 1e-9):,.0f} | {kept:,} | {found} | {date} |" for name, (n, s, kept, found, date) in sorted(rows.items())]
    page.write_text(HEAD + "\n".join(lines) + "\n")


def piece(name, seconds, runs):
    """(executions, seconds, inputs kept, findings) of one run."""
    env = {**os.environ, "FUZZ_RUNS": str(runs), "FUZZ_BUILT": "yes"}
    done = subprocess.run([ROOT / "tests/fuzz/run.sh", str(seconds), name], env=env, capture_output=True, text=True)
    log = (ROOT / f"build-fuzz/{name}.log").read_text(errors="replace")
    ended = re.search(r"^Done (\d+) runs in (\d+) second", log, re.M)
    if done.returncode or not ended:
        print(done.stdout + done.stderr, file=sys.stderr)
        return 0, 0, 0, 1
    return int(ended[1]), float(ended[2]), len(list((ROOT / f"build-fuzz/corpus/{name}").iterdir())), 0


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("names", nargs="*", metavar="NAME")
    p.add_argument("--seconds", type=int, default=200, help="of a piece")
    p.add_argument("--runs", type=int, default=10_000_000)
    p.add_argument("--page", type=Path, default=PAGE)
    o = p.parse_args()
    once = bool(o.names)
    names = o.names or sorted(f.stem[5:] for f in (ROOT / "tests/fuzz").glob("fuzz_*.c"))
    subprocess.run([ROOT / "tests/fuzz/run.sh", "--build"], check=True)
    rows = read(o.page)
    while left := [n for n in names if rows.get(n, [0])[0] < o.runs]:
        for name in left:
            n, seconds, kept, found = piece(name, o.seconds, o.runs - rows.get(name, [0])[0])
            before = rows.get(name, [0, 0, 0, 0, ""])
            rows[name] = [before[0] + n, before[1] + seconds, kept or before[2], before[3] + found, str(datetime.date.today())]
            write(o.page, rows)
            print(f"fuzz: {name:<16} {rows[name][0]:,} of {o.runs:,} executions, {n / max(seconds, 1):,.0f} a second", flush=True)
            if found:
                return 1
        if once:
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
