"""POST /drain and /metrics: a router is emptied without being stopped, and what a balancer or an autoscaler asks is true."""

import re

import pytest

from harness import Daemons, in_threads, wait_for

PROMPT = list(range(20, 60))


@pytest.fixture(scope="module")
def own():
    with Daemons(gpu_worker=["--step-us", "2000"]) as d:
        yield d


def metrics(d):
    text = d.get("/metrics").body.decode()
    return {m[1]: float(m[2]) for m in re.finditer(r"^banyan:(\w+) (\S+)$", text, re.M)}


def test_a_drained_router_finishes_what_runs_and_takes_nothing_new(own):
    whole = own.generate(PROMPT, 100)[0]
    seen = []

    def drain_in_the_middle(event):
        seen.append(event)
        if len(seen) != 3:
            return
        assert own.get("/ready").status == 200
        assert own.post("/drain").json == {"draining": True, "running": 1}
        answer = own.get("/ready")
        assert answer.status == 503 and "POST /drain" in answer.json["error"]["message"]
        answer = own.post("/generate", {"input_ids": PROMPT})
        assert answer.status == 503 and answer.headers["Retry-After"]
        assert own.get("/health").status == 200  # alive: nobody is to kill it

    assert own.generate(PROMPT, 100, on_event=drain_in_the_middle)[0] == whole
    wait_for("it to be empty", lambda: own.post("/drain").json["running"] == 0)
    assert own.request("DELETE", "/drain").json == {"draining": False, "running": 0}
    assert own.get("/ready").status == 200 and own.generate(PROMPT, 100)[0] == whole


def test_metrics_tell_what_runs_and_waits():
    with Daemons(scheduler=["--max-running-requests", "1"], gpu_worker=["--step-us", "5000"]) as d:
        assert metrics(d)["num_running_reqs"] == 0
        seen = {}

        def look(event):
            m = metrics(d)
            if m["num_queue_reqs"] == 2 and m["num_running_reqs"]:
                seen.update(m)

        in_threads([lambda: d.generate(PROMPT, 80, on_event=look) for _ in range(3)])
        assert seen["num_running_reqs"] == 1 and seen["scheduler_up"] == 1
        assert 0 < seen["token_usage"] < 1 and seen["max_total_num_tokens"] == 4096 * 16
        wait_for("the end of all", lambda: metrics(d)["num_running_reqs"] == metrics(d)["num_queue_reqs"] == 0)


def test_metrics_answer_without_a_scheduler(own):
    own.kill("scheduler")
    try:
        wait_for("it to be missed", lambda: metrics(own)["scheduler_up"] == 0)
    finally:
        own.start("scheduler")
    wait_for("it to be back", lambda: own.get("/ready").status == 200 and metrics(own)["scheduler_up"] == 1)
