"""The clients of a soak: load.c from Python, and what can be seen of a process from outside."""

import json
import os
import re
import struct
import subprocess
import tempfile
from pathlib import Path

from harness import BUILD

LOAD = BUILD / "tests/soak-load"


def http(body, path="/generate", is_kept=False, **headers):
    """The bytes of a request."""
    data = json.dumps(body).encode()
    head = {"Host": "x", "Content-Type": "application/json", "Content-Length": len(data), **({} if is_kept else {"Connection": "close"}), **headers}
    return f"POST {path} HTTP/1.1\r\n".encode() + b"".join(f"{k}: {v}\r\n".encode() for k, v in head.items()) + b"\r\n" + data


def requests_file(requests):
    f = tempfile.NamedTemporaryFile(prefix="soak-", suffix=".requests")
    for r in requests:
        f.write(struct.pack("<I", len(r)) + r)
    f.flush()
    return f


class Load:
    """One run of load.c. In a `with`: it is begun, and stands when it said so; end() gives what it said in the end."""

    def __init__(self, client, mode, requests, *words):
        self.file = requests_file(requests)
        self.process = subprocess.Popen([str(w) for w in (LOAD, mode, client.port, self.file.name, *words)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        line = self.process.stdout.readline()
        assert line == "ready\n", f"the clients do not stand: {line!r}"
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()

    def end(self):
        said, _ = self.process.communicate()
        assert self.process.returncode == 0, "the clients failed (above: why)"
        return said


def play(client, requests, n_events, on_share=None):
    """All requests at once: (raw answer, seconds of its longest silence) of each. on_share(percent): of n_events have come."""
    with tempfile.NamedTemporaryFile(prefix="soak-", suffix=".answers") as out:
        load = Load(client, "play", requests, out.name, n_events)
        for line in load.process.stdout:
            if on_share:
                on_share(int(line))
        load.end()
        data, at, answers = Path(out.name).read_bytes(), 0, []
    while at < len(data):
        n, _, _, gap = struct.unpack_from("<4Q", data, at)
        answers.append((data[at + 32:at + 32 + n], gap / 1e9))
        at += 32 + n
    return answers


def first_bytes(client, request, n):
    """Seconds to the first byte of n answers, one after the other."""
    return [int(line) / 1e9 for line in Load(client, "probe", [request], n).end().split()]


def at_rate(client, request, per_second, seconds, n_conns):
    """What came of so many requests a second (0: of n_conns that ask again at once); times in seconds."""
    said = {w[0]: w[1:] for w in (line.split() for line in Load(client, "rate", [request], per_second, seconds, n_conns).end().splitlines())}
    found = {k: int(said[k][0]) for k in said}
    for k in ("done", "refused"):
        found[f"{k}_p50"], found[f"{k}_p99"] = (float(v) / 1e3 for v in said[k][1:])
    return found


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


def at_least(n, scale, floor):
    return max(floor, int(n * scale))


def n_fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def anon_kib(pid):
    """Memory of its own: what it has read of files and shares does not count."""
    return int(re.search(r"^RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])
