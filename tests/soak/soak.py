#!/usr/bin/env python3
"""soak.py - the long forms of the faults and the abuse that a server must survive: each a row with its figure and a verdict.

    tests/soak/soak.py                        everything in full; two hours
    tests/soak/soak.py --scale 0.1            the same, a tenth of it
    tests/soak/soak.py kill idle              some
    tests/soak/soak.py --page FILE            what was seen goes into that page, each check into its section (make soak)

Short forms run in CI (tests/protocol/test_faults.py, test_hosts.py, tests/sim, tests/fuzz); these are for a quiet machine: what is
measured in time means nothing on a busy one. Fuzzing has a program of its own: tests/fuzz/run.sh.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/protocol"), str(ROOT / "tests/e2e")]

import table  # noqa: E402
import kills, crowds, abuse, mixed  # noqa: E401, E402, F401 - each brings its checks


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(table.CHECKS)}; none: all")
    p.add_argument("--scale", type=float, default=1.0)
    p.add_argument("--page", type=Path)
    o = p.parse_args()
    unknown = set(o.names) - set(table.CHECKS)
    if unknown:
        p.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(table.CHECKS)}")
    for name in o.names or table.CHECKS:
        table.run(name, o.scale)
        if o.page:
            table.update(o.page, o.scale)
    return bool(table.failed())


if __name__ == "__main__":
    sys.exit(main())
