"""How long the router takes to refuse what clients get wrong, and what it keeps of it: each row of test_errors.py's list.

    .venv/bin/python tests/bench/bad_input.py [TIMES]      writes tests/bench/results/bad_input.md

From the last byte of the request to the whole answer, over loopback, one at a time. Row to reach: under 50 ms, memory flat. The body
of a gigabyte is refused by its head; how long a client goes on to send it is its own affair.
"""

import http.client
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import DEADLINE, Daemons, rss_kib  # noqa: E402
from protocol.test_errors import BAD  # noqa: E402

RESULT = Path(__file__).parent / "results/bad_input.md"


def measure(port, body, headers):
    """Milliseconds, and the status."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    c.connect()
    c.putrequest("POST", "/generate")
    for key, value in headers.items():
        c.putheader(key, value)
    c.endheaders()
    start = time.perf_counter()  # a long body is taken in while it is sent
    if body:
        c.send(body)
    answer = c.getresponse()
    answer.read()
    took = (time.perf_counter() - start) * 1e3
    c.close()
    return took, answer.status


def main():
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    rows = []
    with Daemons(router=["--log-level", "error"], scheduler=["--log-level", "error"]) as d:
        bodies = [(name, body if isinstance(body, bytes) else json.dumps({"text": "x", **body}).encode()) for name, body, _ in BAD]
        asked = [(name, body, {"Content-Type": "application/json", "Content-Length": str(len(body))}) for name, body in bodies]
        asked.append(("a body of a gigabyte", b"", {"Content-Type": "application/json", "Content-Length": str(2**30)}))
        for name, body, headers in asked:
            for _ in range(3):
                measure(d.port, body, headers)
            before = rss_kib(d.pid("router"))
            took = [measure(d.port, body, headers) for _ in range(times)]
            grown = rss_kib(d.pid("router")) - before
            statuses = {status for _, status in took}
            assert statuses <= {400, 413}, (name, statuses)
            ms = sorted(t for t, _ in took)
            rows.append(f"| {name} | {len(body):,} | {statuses.pop()} | {statistics.median(ms):.2f} | {ms[-1]:.2f} | {grown:,} |")
    text = (f"# Refusals\n\n`tests/bench/bad_input.py`, {os.cpu_count()} CPUs, {times} times each.\n\n"
            "| what | bytes | status | ms, median | ms, worst | KiB grown |\n| --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows) + "\n")
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
