"""How long what clients and model folders get wrong takes to be refused, and what the router keeps of it.

    .venv/bin/python tests/bench/bad_input.py [TIMES]      writes tests/bench/results/bad_input.md

The lists are those of test_errors.py (row to reach: under 50 ms, memory flat), test_hostile_text.py (a tokenizer worker that lives on)
and test_hostile.py (tokenizer.json; the time is the whole process's): under 100 ms. From the last byte of the request to the whole
answer, over loopback, one at a time. The body of a gigabyte is refused by its head; how long a client goes on to send it is its own
affair.
"""

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import DEADLINE, Daemons, rss_kib  # noqa: E402
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "e2e"))
from harness import BIN  # noqa: E402
from protocol.test_errors import BAD  # noqa: E402
from protocol.test_hostile_text import HOSTILE, TEMPLATE, bytes_of  # noqa: E402
from test_hostile import LETTERS, RUNAWAY, UNSOUND  # noqa: E402

RESULT = Path(__file__).parent / "results/bad_input.md"


def measure(port, body, headers, path="/generate"):
    """Milliseconds, and the status."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    c.connect()
    c.putrequest("POST", path)
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


def json_body(body):
    return {"Content-Type": "application/json", "Content-Length": str(len(body))}


def row(name, size, result, ms, *more):
    ms = sorted(ms)
    return f"| {name} | {size:,} | {result} | {statistics.median(ms):.2f} | {ms[-1]:.2f} |" + "".join(f" {m:,} |" for m in more)


def refusals(times):
    rows = []
    with Daemons(router=["--log-level", "error"], scheduler=["--log-level", "error"]) as d:
        bodies = [(name, bytes_of(body if isinstance(body, bytes) else {"text": "x", **body})) for name, body, _ in BAD]
        asked = [(name, body, json_body(body)) for name, body in bodies]
        asked.append(("a body of a gigabyte", b"", {"Content-Type": "application/json", "Content-Length": str(2**30)}))
        for name, body, headers in asked:
            for _ in range(3):
                measure(d.port, body, headers)
            before = rss_kib(d.pid("router"))
            took = [measure(d.port, body, headers) for _ in range(times)]
            grown = rss_kib(d.pid("router")) - before
            statuses = {status for _, status in took}
            assert statuses <= {400, 413}, (name, statuses)
            rows.append(row(name, len(body), statuses.pop(), [t for t, _ in took], grown))
    return rows


def hostile_text(times):
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "bombs.jinja"
        template.write_text(TEMPLATE)
        with Daemons(router=["--log-level", "error"], tokenizer_worker=["--chat-template", str(template)]) as d:
            for name, path, body, _ in HOSTILE:
                body = bytes_of(body)
                took = [measure(d.port, body, json_body(body), path) for _ in range(times)]
                assert {status for _, status in took} == {400}, name
                rows.append(row(name, len(body), 400, [t for t, _ in took]))
            assert d.processes["tokenizer-worker"].poll() is None
    return rows


def hostile_tokenizers(times):
    rows = []
    named = [(json.dumps(what)[:60].replace("|", "\\|"), what) for what in UNSOUND] + [(f"20,000 letters: {name}", what) for name, what in RUNAWAY.items()]
    for name, what in named:
        with tempfile.TemporaryDirectory() as folder:
            text = json.dumps(what)
            (Path(folder) / "tokenizer.json").write_text(text)
            ms, ends = [], set()
            for _ in range(times):
                start = time.perf_counter()
                done = subprocess.run([BIN / "banyan", "tokenize", "--model-path", folder], input=LETTERS, capture_output=True)
                ms.append((time.perf_counter() - start) * 1e3)
                ends.add("refused" if not done.stdout else next(iter(json.loads(done.stdout))))
            rows.append(row(f"`{name}`", len(text), ends.pop(), ms))
    return rows


def main():
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    head = "| what | bytes | {} | ms, median | ms, worst |{}\n| --- | --- | --- | --- | --- |{}\n"
    text = (f"# Refusals\n\n`tests/bench/bad_input.py`, {os.cpu_count()} CPUs, {times} times each.\n\n## By the router\n\n"
            + head.format("status", " KiB grown |", " --- |") + "\n".join(refusals(times))
            + "\n\n## By a tokenizer worker that lives on\n\n" + head.format("status", "", "") + "\n".join(hostile_text(times))
            + "\n\n## `banyan tokenize`, from the start of the process to its end\n\n" + head.format("end", "", "")
            + "\n".join(hostile_tokenizers(times)) + "\n")
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
