"""The clock jumps by an hour, forwards and back, in all processes at once: nothing that waits, runs out or counts looks at it."""

import shutil
import threading

import pytest

from harness import BUILD, Daemons, in_threads, private_dir, wait_for

SHIM = BUILD / "tests/libclock-jump.so"
HOUR = 3600
PROMPT = list(range(20, 60))
KEY = "sk-alice-11111111"
HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def server():
    folder = private_dir()
    keys, clock = folder / "keys", folder / "clock"
    keys.write_text(f"{KEY} name=alice rate=1000 running=64\n")
    keys.chmod(0o600)
    clock.write_text("0")
    with Daemons(env={"LD_PRELOAD": str(SHIM), "CLOCK_FILE": str(clock)}, gpu_worker=["--step-us", "2000"],
                 router=["--api-key-file", str(keys), "--log-requests"]) as d:
        d.clock = clock
        yield d
    shutil.rmtree(folder)


def jump(server, seconds):
    server.clock.write_text(f"{seconds:<12}")  # never shorter than before: a reader sees the old or the new


def completion(n=200, **more):
    return {"prompt": PROMPT, "max_tokens": n, "temperature": 0, "ignore_eos": True, **more}


def ask(server, **more):
    answer = server.post("/v1/completions", completion(**more), headers=HEADERS)
    assert answer.status == 200, answer
    return answer.json


def info(server):
    return server.get("/server_info", headers=HEADERS).json


def uptimes(server):
    metrics = server.get("/metrics").body.decode().splitlines()
    return [info(server)["uptime_s"], *(float(line.split()[1]) for line in metrics if line.startswith("banyan:uptime_seconds "))]


@pytest.mark.parametrize("to", [HOUR, -HOUR])
def test_running_requests_do_not_notice(server, to):
    """Streams, a queue, deadlines, heartbeats, rates, and what waits for its client: all of it while the clock is set."""
    jump(server, 0)
    before, pids = ask(server), server.pids()
    begun = threading.Semaphore(0)

    def one(i):
        if i == 0:
            begun.release()
        return ask(server, timeout_ms=60000, queue_timeout_ms=60000)["choices"][0]["text"]

    def act():
        begun.acquire()
        wait_for("them to run", lambda: server.get("/v1/loads", headers=HEADERS).json["loads"][0]["num_running_reqs"] > 4)
        jump(server, to)
        assert server.get("/ready").status == 200

    texts = in_threads([*[lambda i=i: one(i) for i in range(16)], act])[:16]
    after = ask(server)
    assert set(texts) == {before["choices"][0]["text"]}
    assert abs(after["created"] - before["created"] - to) < 600, "the clock did not jump: the test shows nothing"
    assert server.get("/ready").status == 200 and server.pids() == pids and all(p.poll() is None for p in server.processes.values())
    assert "lost" not in server.logs(), server.logs()
    assert all(0 <= s < HOUR / 2 for s in uptimes(server)), uptimes(server)


def test_who_comes_back_after_the_jump_finds_its_stream(server):
    """--resume-grace is half a minute, whatever the clock says."""
    jump(server, 0)
    for to in (HOUR, -HOUR):
        headers = {**HEADERS, "Idempotency-Key": f"clock-{to}"}
        c = server.client._open("POST", "/v1/completions", completion(400, stream=True), headers)
        response = c.getresponse()
        last = response.readline().decode().strip()
        assert last.startswith("id: ")
        response.close()
        c.close()
        jump(server, to)
        answer = server.post("/v1/completions", completion(400, stream=True), headers={**HEADERS, "Last-Event-ID": last[4:]})
        assert answer.status == 200 and answer.body.endswith(b"data: [DONE]\n\n")


def test_a_rate_fills_by_no_clock_that_can_be_set(server):
    """An hour forwards would be an hour's worth of requests, an hour back none for an hour."""
    jump(server, 0)
    keys = server.clock.parent / "keys"
    keys.write_text(f"{KEY} name=alice rate=1000 running=64\nsk-bob-2222222222 name=bob rate=2\n")
    keys.chmod(0o600)
    says = "API keys were read again"
    seen = server.logs().count(says)
    server.processes["router"].send_signal(1)
    wait_for("the keys", lambda: server.logs().count(says) > seen)
    bob = {"Authorization": "Bearer sk-bob-2222222222"}
    statuses = []
    for to in (0, 0, HOUR, -HOUR):
        jump(server, to)
        statuses.append(server.post("/tokenize", {"prompt": "x"}, headers=bob).status)
    assert statuses == [200, 200, 429, 429]


def test_processes_may_start_before_the_time_is_set(server):
    """A machine without a clock of its own boots in the past: who started then and who started later are one server."""
    jump(server, -HOUR)
    for name in ("scheduler", "gpu-worker", "tokenizer-worker", "detokenizer"):
        server.restart(name)
    jump(server, HOUR)
    wait_for("all to be back", lambda: server.get("/health_generate").status == 200)
    assert ask(server, n=1, max_tokens=8)["usage"]["completion_tokens"] == 8
