"""How the programs of bench_engine.py are run, and what is read from what they print: rates in tokens a second.

Ours: banyan-gpu-worker --one-batch, banyan serve. Theirs: llama.cpp's llama-bench, llama-batched-bench and llama-server, and
transformers on torch (torch_rates.py, by the interpreter of .venv-transformers).
"""

import concurrent.futures
import contextlib
import csv
import http.client
import json
import multiprocessing
import pathlib
import re
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from harness import Serve  # noqa: E402

WORKER = ROOT / "build/bin/banyan-gpu-worker"
CONTEXT = 16384  # tokens of all slots of llama-server


def output(*words, **more):
    return subprocess.run([str(w) for w in words], check=True, capture_output=True, text=True, **more)


def one_batch(model, threads, shapes, extra=()):
    """{shape: (prefill rate, decode rate)} of the engine without a server."""
    out = output(WORKER, "--model-path", model, "--threads", threads, "--log-level", "error", "--max-total-tokens", 32768,
                 "--one-batch", ",".join(shapes), *extra).stdout
    rates = {}
    for shape in shapes:
        words = next(line.split() for line in out.splitlines() if line.startswith(shape + " "))
        rates[shape] = float(words[1]), float(words[3])
    return rates


def load_seconds(model, threads):
    """From the start of a worker to a model that can be asked, its file in the page cache."""
    said = output(WORKER, "--model-path", model, "--threads", threads, "--max-total-tokens", 4096, "--one-batch", "1x16x1").stderr
    return float(re.search(r"loaded .* in ([\d.]+) s", said)[1])


def llama_bench(folder, model, threads, n_prompt=512, n_decode=48):
    """{"prefill": …, "decode": …} of one stream."""
    out = output(folder / "llama-bench", "-m", model, "-t", threads, "-p", n_prompt, "-n", n_decode, "-r", 2, "-o", "json").stdout
    return {"prefill" if row["n_prompt"] else "decode": row["avg_ts"] for row in json.loads(out)}


def llama_batched(folder, model, threads, streams, n_prompt, n_decode):
    """{streams: decode rate}"""
    out = output(folder / "llama-batched-bench", "-m", model, "-t", threads, "-c", 8192, "-npp", n_prompt, "-ntg", n_decode, "-npl",
                 ",".join(map(str, streams)), "--output-format", "jsonl").stdout
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return {row["pl"]: row["speed_tg"] for row in rows}


def requantised(folder, model, to):
    """The same model as another type of file, made once: for speed only."""
    path = model.with_suffix(f".requantised-{to}.gguf")
    if not path.exists():
        kind = ["--token-embedding-type", "q8_0"] if to.startswith("Q") else []
        output(folder / "llama-quantize", "--allow-requantize", *kind, model, path, to)
    return path


def torch_rates(model, dtype, threads):
    """{"prefill": …, "decode": …} of transformers with these weights."""
    python = ROOT / ".venv-transformers/bin/python"
    return json.loads(output(python, ROOT / "tests/bench/torch_rates.py", model, dtype, threads).stdout.splitlines()[-1])


# ---- servers ----


@contextlib.contextmanager
def banyan_server(model, threads):
    with Serve("--model-path", model, "--threads", threads, "--max-total-tokens", 32768) as server:
        yield server.client.port


@contextlib.contextmanager
def llama_server(folder, model, threads, slots=8):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    words = [folder / "llama-server", "-m", model, "-t", threads, "-np", slots, "-c", CONTEXT, "--port", port]
    process = subprocess.Popen([str(w) for w in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while not healthy(port):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit("llama-server does not come up")
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def healthy(port):
    try:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        client.request("GET", "/health")
        return client.getresponse().status == 200
    except OSError:
        return False


def http_rate(port, streams, tokens, rounds):
    """Of so many streams at once, by bench_http; a short run before it warms the server."""
    program = ROOT / "build/bench/bench_http"
    output(program, port, streams, 4, 1)
    rows = csv.reader(output(program, port, streams, tokens, rounds).stdout.splitlines())
    return float(next(value for _, name, value, _ in rows if name == "rate"))


def complete(port, prompt, tokens):
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    client.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = client.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise SystemExit(f"HTTP {answer.status}: {text[:300]}")


def shared_prefix_rate(port, salt, n=24, at_a_time=8, n_shared=1024, n_own=16, tokens=32):
    """Generated tokens a second of requests that begin alike; salt: another beginning each time, which no cache has."""
    prompt = lambda kind, length: [100 + (kind * 7919 + 31 * i + 1009 * salt) % 40000 for i in range(length)]
    shared = prompt(0, n_shared)
    complete(port, prompt(99, 8), 4)
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(at_a_time) as pool:
        for done in [pool.submit(complete, port, shared + prompt(1 + i, n_own), tokens) for i in range(n)]:
            done.result()
    return n * tokens / (time.monotonic() - start)


# ---- the machine ----


def spin():
    while True:
        pass


@contextlib.contextmanager
def busy():
    """One foreign process that never rests."""
    process = multiprocessing.Process(target=spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def ceilings(threads):
    """{"read": bytes a second, instruction: operations a second}"""
    rows = csv.reader(output(ROOT / "build/bench/bench_ceiling", threads).stdout.splitlines())
    return {name: float(value) * 1e9 for _, name, value, _ in rows}
