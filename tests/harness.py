"""Runs Banyan's programs for black-box tests: by hand, each as its own unit, or through `banyan serve`.

    with Daemons(workdir) as d:           scheduler, tokenizer worker, detokenizer, router and a stand-in gpu worker,
        d.generate("hello")               each started as systemd would: its own process, NOTIFY_SOCKET, SIGTERM
        d.kill("scheduler")               kill -9; d.start("scheduler") brings it back

    with Serve(workdir, "--port", "0") as s:      the whole of `banyan serve`; s.url once it says ready

Always: ports are free ones, run directories private, every process is ended by its own pid, and what all of them said is
shown when a test fails (conftest.py).
"""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("BANYAN_BUILD", ROOT / "build"))
BIN = BUILD / "bin"
STAND_IN = BUILD / "tests/fake-worker"
TINY = ROOT / "tests/vectors/tokenizers/tiny-bbpe-llama3"  # 636 tokens, then four special ones
CHATML = ROOT / "tests/protocol/chatml.jinja"
STAND_IN_IDS = ["--vocab", "640", "--first-id", "10", "--ids-end", "636"]  # it picks none of the special ones
DEADLINE = 30  # seconds that anything may take before a test gives up

PROGRAMS = {
    "scheduler": BIN / "banyan-scheduler",
    "tokenizer-worker": BIN / "banyan-tokenizer-worker",
    "detokenizer": BIN / "banyan-detokenizer",
    "gpu-worker": STAND_IN,
    "router": BIN / "banyan-router",
}


def wait_for(what, condition, seconds=DEADLINE):
    """Calls condition until it gives something true, and returns that."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain: {what}")
        time.sleep(0.005)


class Answer:
    """One HTTP answer, read whole."""

    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"HTTP {self.status} {self.body[:500]!r}"


class Client:
    """HTTP to one port, a fresh connection a request: enough for tests, and it hides nothing."""

    def __init__(self, host, port):
        self.host, self.port = host, port
        self.timeout = DEADLINE  # seconds without a byte

    def _open(self, method, path, body=None, headers=None, timeout=None):
        c = http.client.HTTPConnection(self.host, self.port, timeout=timeout or self.timeout)
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        c.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
        return c

    def request(self, method, path, body=None, headers=None, timeout=None):
        c = self._open(method, path, body, headers, timeout)
        try:
            return Answer(c.getresponse())
        finally:
            c.close()

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, body=None, **kw):
        return self.request("POST", path, {} if body is None else body, **kw)

    def ok(self, path, body):
        answer = self.post(path, body)
        assert answer.status == 200, answer
        return answer.json

    def stream(self, path, body, on_event=None):
        """The events of a stream, [DONE] checked and left out. on_event sees each as it comes."""
        c = self._open("POST", path, {**body, "stream": True})
        response = c.getresponse()
        try:
            assert response.status == 200, Answer(response)
            assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"  # without it requests reads Latin-1
            events = []
            for data in read_events(response):
                if data == "[DONE]":
                    assert response.read() == b"\n", "bytes after [DONE]"
                    return events
                events.append(json.loads(data))
                if on_event:
                    on_event(events[-1])
            raise AssertionError(f"the stream ended without [DONE] after {events[-1:]}")
        finally:
            response.close()
            c.close()

    def generate(self, text="hello", n=16, on_event=None, **more):
        """(text, ids, meta_info) of a greedy streamed /generate."""
        sampling = {"temperature": 0, "max_new_tokens": n, **more.pop("sampling", {})}
        key = "text" if isinstance(text, str) else "input_ids"
        last = self.stream("/generate", {key: text, "sampling_params": sampling, **more}, on_event)[-1]
        return last["text"], last["output_ids"], last["meta_info"]

    def load(self):
        return self.get("/v1/loads").json["loads"][0]

    def is_idle(self):
        """Nothing runs or waits, and every page is free or in the tree."""
        answer = self.get("/v1/loads")
        load = answer.json["loads"][0] if answer.status == 200 else {}
        return load and not (load["num_running_reqs"] or load["num_waiting_reqs"] or load["num_used_tokens"])


def read_events(response):
    """The data of each server-sent event."""
    while line := response.readline():
        line = line.decode().rstrip("\n")
        if line:
            assert line.startswith("data: "), f"not an event: {line!r}"
            yield line[len("data: "):]


def in_threads(functions):
    """Runs them all at once; their results in order. The first exception is raised."""
    results, errors = [None] * len(functions), []

    def run(i, f):
        try:
            results[i] = f()
        except BaseException as e:  # noqa: BLE001 - raised below
            errors.append(e)

    threads = [threading.Thread(target=run, args=(i, f)) for i, f in enumerate(functions)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]
    return results


class Notify:
    """The socket of the sd_notify protocol, as systemd holds it."""

    def __init__(self, path):
        self.path, self.state = str(path), {}
        Path(path).unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)

    def read(self):
        while True:
            try:
                text = self.socket.recv(4096).decode()
            except BlockingIOError:
                return self.state
            self.state.update(line.split("=", 1) for line in text.splitlines())

    def close(self):
        self.socket.close()
        Path(self.path).unlink(missing_ok=True)


def private_dir():
    """Short, because a socket's path ends at 107 bytes."""
    return Path(tempfile.mkdtemp(prefix="by-", dir="/tmp"))


def environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.startswith("BANYAN_") and k != "NOTIFY_SOCKET"}
    return {**env, **more}


class Daemons:
    """The five kinds of process, started by hand, without a supervisor."""

    def __init__(self, model=TINY, env=None, **flags):
        """flags: of one program, as a list: scheduler=["--max-queued-requests", "1"]. env: of all of them."""
        self.env = env or {}
        self.dir = private_dir()
        self.flags = {name.replace("_", "-"): words for name, words in flags.items()}
        self.model, self.processes, self.notify, self.client = model, {}, {}, None

    def __enter__(self):
        try:
            for name in PROGRAMS:
                self.start(name)
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc):
        self.stop()

    def _argv(self, name):
        argv = [str(PROGRAMS[name]), "--run-dir", str(self.dir)]
        if name in ("tokenizer-worker", "detokenizer"):
            argv += ["--model-path", str(self.model)]
        if name == "tokenizer-worker":
            argv += ["--chat-template", str(CHATML)]
        if name == "gpu-worker":
            argv += STAND_IN_IDS
        if name == "router":
            argv += ["--port", str(self.client.port if self.client else 0)]
        return argv + self.flags.get(name, [])

    def start(self, name, **env):
        """env: of this start of it alone."""
        if name in self.notify:
            self.notify[name].close()
        self.notify[name] = Notify(self.dir / f"notify-{name}")
        with open(self.dir / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                self._argv(name), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env=environment(NOTIFY_SOCKET=self.notify[name].path, **self.env, **env))

    def kill(self, name, sig=signal.SIGKILL):
        self.processes[name].send_signal(sig)
        return self.processes[name].wait(DEADLINE)

    def restart(self, name):
        self.kill(name)
        self.start(name)

    def wait_ready(self):
        def ready():
            for name, p in self.processes.items():
                assert p.poll() is None, f"{name} ended with {p.returncode}"
            return self.notify["router"].read().get("READY")

        wait_for("the router to be ready", ready)
        url = re.match(r"listening on http://([\d.]+):(\d+)", self.notify["router"].state["STATUS"])
        self.client = Client(url[1], int(url[2]))

    def pid(self, name):
        return self.processes[name].pid

    def pids(self):
        return {name: p.pid for name, p in self.processes.items()}

    def stop(self):
        for name in reversed(self.processes):
            p = self.processes[name]
            if p.poll() is None:
                p.terminate()
                try:
                    p.wait(10)
                except subprocess.TimeoutExpired:
                    p.kill()
                    p.wait()
        for n in self.notify.values():
            n.close()
        self.said = self.logs()
        shutil.rmtree(self.dir, ignore_errors=True)

    def logs(self):
        return "".join(f"--- {f.name}\n{f.read_text(errors='replace')[-20000:]}" for f in sorted(self.dir.glob("*.log")))

    def __getattr__(self, name):  # post, get, generate …: of the client
        return getattr(self.__dict__["client"], name)


class Serve:
    """`banyan serve`; worker: a program in place of banyan-gpu-worker (BANYAN_GPU_WORKER)."""

    def __init__(self, *flags, worker=None, run_dir=None, env=None, port=0, program=None):
        self.own = private_dir()
        self.log = self.own / "log"
        self.env = environment(XDG_RUNTIME_DIR=str(self.own), **(env or {}))
        if worker:
            self.env["BANYAN_GPU_WORKER"] = str(worker)
        argv = [*(program or [str(BIN / "banyan"), "serve"]), "--port", str(port), *map(str, flags)]
        if run_dir:
            argv += ["--run-dir", str(run_dir)]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.env)
        self.client = None

    def __enter__(self):
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc):
        self.stop()

    def wait_ready(self, seconds=120):
        def ready():
            assert self.process.poll() is None, f"banyan serve ended with {self.process.returncode}:\n{self.logs()}"
            return re.search(r"ready in [\d.]+ s: http://([\d.]+):(\d+)", self.logs())

        found = wait_for("banyan serve to be ready", ready, seconds)
        self.client = Client(found[1], int(found[2]))
        self.url = f"http://{found[1]}:{found[2]}"

    def logs(self):
        return self.log.read_text(errors="replace") if self.log.exists() else self.said

    def pids(self):
        """The processes as they last came up: name -> pid."""
        return {m[1]: int(m[2]) for m in re.finditer(r"serve: ([\w.-]+) is up pid=(\d+)", self.logs())}

    def wait(self, seconds=DEADLINE):
        return self.process.wait(seconds)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.said = self.logs()
        shutil.rmtree(self.own, ignore_errors=True)

    def __getattr__(self, name):
        return getattr(self.__dict__["client"], name)


def alive(pid):
    """Is there such a process, zombies apart?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_shut_in(pid, log):
    """Does a seccomp filter hold every thread of it? Where the kernel takes none it must say so; under sanitizers there is none."""
    states = {re.search(r"^Seccomp:\t(\d)$", p.read_text(), re.M)[1] for p in Path(f"/proc/{pid}/task").glob("*/status")}
    is_sanitized = re.search(r"^SANITIZE:\w+=\S", (BUILD / "CMakeCache.txt").read_text(), re.M)
    return states == {"2"} or "takes no seccomp filter" in log or is_sanitized is not None


def can_gain_no_rights(pid):
    return "\nNoNewPrivs:\t1\n" in Path(f"/proc/{pid}/status").read_text()


def rss_kib(pid):
    return int(re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def stand_in(directory, *flags):
    """A program that runs the stand-in with these flags besides those that `banyan serve` gives."""
    path = Path(directory) / "worker"
    path.write_text(f'#!/bin/sh\nexec {STAND_IN} {" ".join([*STAND_IN_IDS, *map(str, flags)])} "$@"\n')
    path.chmod(0o755)
    return path
