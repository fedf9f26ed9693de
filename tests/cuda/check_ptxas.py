#!/usr/bin/env python3
"""check_ptxas.py BUILD [--write] - registers and spills of the CUDA kernels, held to the table in ptxas.tsv.

BUILD is where the module was compiled; keep_ptxas.sh left what ptxas said beside the objects. A kernel may take as many
registers as the table says (of all its instances the most), spill as many bytes, and must be there; a new one needs a row.
"""
import re
import sys
from pathlib import Path

TABLE = Path(__file__).with_name("ptxas.tsv")


def measured(build):
    """{(file, kernel): [instances, registers, spilled bytes]} over all instances."""
    found = {}
    for log in sorted(Path(build).glob("gpu_worker/cuda/**/*.ptxas")):
        file, kernel, spills = log.name.split(".")[0], None, 0
        for line in log.read_text().splitlines():
            if name := re.search(r"Compiling entry function '(?:_ZN\d+\w*?E?|_Z)?(?:\d+)?(\w+?_kernel)", line):
                kernel = re.sub(r"^.*?\d+(?=[a-z])", "", name[1])
            elif stores := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
                spills = int(stores[1]) + int(stores[2])
            elif (used := re.search(r"Used (\d+) registers", line)) and kernel:
                row = found.setdefault((file, kernel), [0, 0, 0])
                row[:] = row[0] + 1, max(row[1], int(used[1])), max(row[2], spills)
                kernel = None
    return found


def main():
    found = measured(sys.argv[1])
    if "--write" in sys.argv:
        rows = [f"{f}\t{k}\t{n}\t{r}\t{s}" for (f, k), (n, r, s) in sorted(found.items())]
        TABLE.write_text("\n".join(["file\tkernel\tinstances\tregisters\tspilled bytes", *rows]) + "\n")
    allowed = {}
    for line in TABLE.read_text().splitlines()[1:]:
        file, kernel, *numbers = line.split("\t")
        allowed[file, kernel] = [int(n) for n in numbers]
    bad = [f"{f}.cu {k}: no such kernel was compiled" for f, k in allowed if (f, k) not in found]
    for (file, kernel), (n, registers, spills) in sorted(found.items()):
        _, most, spill = allowed.get((file, kernel), (0, -1, -1))
        print(f"{file + '.cu':22} {kernel:18} {n:3} instances {registers:4} registers {spills:4} bytes spilled")
        if registers > most or spills > spill:
            bad.append(f"{file}.cu {kernel}: {registers} registers and {spills} bytes spilled; {TABLE.name} allows {most} and {spill}")
    print("\n".join(bad))
    return 1 if bad or not found else 0


sys.exit(main())
