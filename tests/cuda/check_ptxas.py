#!/usr/bin/env python3
"""check_ptxas.py BUILD [--write] - registers and spills of the CUDA kernels, held to the table in ptxas.tsv.

BUILD is where the module was compiled; keep_ptxas.sh left what ptxas said beside the objects. For each kind of device a kernel
may take as many registers as the table says (of all its instances the most), spill as many bytes, and must be there; a new one
needs a row. What ptxas says of lost performance (products of warpgroups one after the other, say) is an error.
"""
import re
import sys
from pathlib import Path

TABLE = Path(__file__).with_name("ptxas.tsv")


def logs_of(build):
    return sorted(Path(build).glob("gpu_worker/cuda/**/*.ptxas"))


def measured(build):
    """{(file, kernel, device): [instances, registers, spilled bytes]} over all instances."""
    found = {}
    for log in logs_of(build):
        file, kernel, spills = log.name.split(".")[0], None, 0
        for line in log.read_text().splitlines():
            if name := re.search(r"Compiling entry function '(?:_ZN\d+\w*?E?|_Z)?(?:\d+)?(\w+?_kernel)\w*' for '(\w+)'", line):
                kernel, device = re.sub(r"^.*?\d+(?=[a-z])", "", name[1]), name[2]
            elif stores := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
                spills = int(stores[1]) + int(stores[2])
            elif (used := re.search(r"Used (\d+) registers", line)) and kernel:
                row = found.setdefault((file, kernel, device), [0, 0, 0])
                row[:] = row[0] + 1, max(row[1], int(used[1])), max(row[2], spills)
                kernel = None
    return found


def main():
    found = measured(sys.argv[1])
    if "--write" in sys.argv:
        rows = ["\t".join(map(str, [*key, *numbers])) for key, numbers in sorted(found.items())]
        TABLE.write_text("\n".join(["file\tkernel\tdevice\tinstances\tregisters\tspilled bytes", *rows]) + "\n")
    allowed = {}
    for line in TABLE.read_text().splitlines()[1:]:
        file, kernel, device, *numbers = line.split("\t")
        allowed[file, kernel, device] = [int(n) for n in numbers]
    bad = [line for log in logs_of(sys.argv[1]) for line in log.read_text().splitlines() if "Performance Loss" in line]
    bad += [f"{f}.cu {k}: no such kernel was compiled for {d}" for f, k, d in allowed if (f, k, d) not in found]
    for (file, kernel, device), (n, registers, spills) in sorted(found.items()):
        _, most, spill = allowed.get((file, kernel, device), (0, -1, -1))
        print(f"{file + '.cu':22} {kernel:18} {device:7} {n:3} instances {registers:4} registers {spills:4} bytes spilled")
        if registers > most or spills > spill:
            bad.append(
                f"{file}.cu {kernel}, {device}: {registers} registers and {spills} bytes spilled; "
                f"{TABLE.name} allows {most} and {spill}"
            )
    print("\n".join(bad))
    return 1 if bad or not found else 0


sys.exit(main())
