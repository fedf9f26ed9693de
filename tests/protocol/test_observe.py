"""What an operator sees: request logs, traces, metrics, the dashboard, banyan top."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import BIN, DEADLINE, ROOT, Daemons, environment, in_threads, rss_kib, wait_for

sys.path.insert(0, str(ROOT / "deploy/python"))

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SECRET = "a word that must stay unsaid"


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("sk-of-nobody-else name=nobody\n")
    keys.chmod(0o600)
    with Daemons(router=["--log-requests", "--api-key-file", str(keys)], gpu_worker=["--step-us", "200"]) as d:
        d.client.key = {"Authorization": "Bearer sk-of-nobody-else"}
        plain = d.client._open
        d.client._open = lambda method, path, body=None, headers=None, timeout=None: plain(
            method, path, body, {**d.client.key, **(headers or {})}, timeout)
        yield d


def log_of(d):
    return (d.dir / "router.log").read_text()


def lines_of(d, rid):
    return [line for line in map(json.loads, (row for row in log_of(d).rpartition("\n")[0].splitlines() if row.startswith("{"))) if line["rid"] == rid]


def line_of(d, rid):
    (line,) = wait_for(f"the line of {rid}", lambda: lines_of(d, rid))
    return line


# ---- request logs ----


@pytest.mark.parametrize("path, body", [
    ("/generate", {"text": SECRET, "sampling_params": {"max_new_tokens": 4, "ignore_eos": True}}),
    ("/v1/completions", {"prompt": SECRET, "max_tokens": 4, "ignore_eos": True}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 4, "ignore_eos": True}),
])
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_one_line_without_its_text(logged, path, body, stream):
    rid = f"log{path.replace('/', '-')}-{stream}"
    assert logged.post(path, {**body, "rid": rid, "stream": stream}).status == 200
    line = line_of(logged, rid)
    assert line["msg"] == "request" and line["route"] == path and line["status"] == 200 and line["stream"] is stream
    assert line["output_tokens"] == 4 and line["prompt_tokens"] > 4 and line["finish_reason"] == "length"
    assert 0 < line["ttft_s"] <= line["e2e_s"] and line["key"] == "nobody"
    assert SECRET not in log_of(logged) and "sk-of-nobody-else" not in log_of(logged)


def test_a_refused_request_is_logged_with_its_status(logged):
    assert logged.post("/generate", {"text": SECRET, "rid": "refused", "sampling_params": {"max_new_tokens": -1}}).status == 400
    # what is wrong was found before the id was read: the line has one of ours
    wait_for("its line", lambda: '"status":400' in log_of(logged))
    assert SECRET not in log_of(logged)


def test_a_client_that_left_is_a_499(logged):
    body = '{"text": "go on", "rid": "left", "stream": true, "sampling_params": {"max_new_tokens": 8000, "ignore_eos": true}}'
    c = logged.client._open("POST", "/generate", body)
    response = c.getresponse()
    assert response.status == 200 and response.readline()
    response.close()
    c.close()
    line = line_of(logged, "left")
    assert line["status"] == 499 and line["output_tokens"] > 0


def test_text_is_logged_when_asked_for():
    with Daemons(router=["--log-requests-text"]) as d:
        text = d.generate(SECRET, 4, rid="told")[0]
        line = line_of(d, "told")
        assert line["texts"] == [{"prompt": SECRET, "outputs": [text]}]


def test_without_the_option_nothing_is_logged():
    with Daemons() as d:
        d.generate("hello", 2, rid="quiet")
        assert lines_of(d, "quiet") == []


# ---- traces ----


def test_a_trace_goes_on(logged):
    body = {"text": "x", "rid": "traced", "sampling_params": {"max_new_tokens": 1}}
    told = logged.post("/generate", body, headers={"traceparent": TRACE}).headers["traceparent"]
    version, trace, span, flags = told.split("-")
    assert (version, trace, flags) == ("00", TRACE.split("-")[1], "01") and span != TRACE.split("-")[2] and len(span) == 16
    assert line_of(logged, "traced")["traceparent"] == told
    streamed = logged.client._open("POST", "/generate", {**body, "stream": True}, {"traceparent": TRACE})
    assert streamed.getresponse().headers["traceparent"].split("-")[1] == trace
    streamed.close()
    assert logged.get("/health", headers={"traceparent": TRACE}).headers["traceparent"].split("-")[1] == trace
    assert logged.get("/nowhere", headers={"traceparent": TRACE}).headers["traceparent"].split("-")[1] == trace


@pytest.mark.parametrize("bad", [
    "", "x", TRACE[:-1], TRACE + "0", TRACE + "-x", TRACE.upper(), "ff" + TRACE[2:], "0x" + TRACE[2:], TRACE.replace("-", "_"),
    "00-" + "0" * 32 + TRACE[35:], TRACE[:36] + "0" * 16 + "-01", TRACE[:-2] + "zz", "00-" + "g" * 32 + TRACE[35:], "01" + TRACE[2:] + "x",
])
def test_what_is_no_trace_is_dropped(logged, bad):
    assert "traceparent" not in logged.get("/health", headers={"traceparent": bad}).headers


def test_a_later_version_may_be_longer(logged):
    assert logged.get("/health", headers={"traceparent": "01" + TRACE[2:] + "-more"}).headers["traceparent"].startswith("00-4bf92f")


def test_a_trace_ends_with_its_request(logged):
    """A kept connection: the next request without one has none."""
    import http.client

    c = http.client.HTTPConnection("127.0.0.1", logged.port, timeout=DEADLINE)
    seen = []
    for headers in ({"traceparent": TRACE}, {}):
        c.request("GET", "/health", headers=headers)
        answer = c.getresponse()
        answer.read()
        seen.append("traceparent" in answer.headers)
    c.close()
    assert seen == [True, False]


# ---- ids ----


def test_an_answer_says_what_it_is_called(logged):
    """No answer had an id in its head: OpenAI's and Anthropic's clients show _request_id, and it was None for a request that was refused."""
    b = {"prompt": "x", "max_tokens": 2}
    for more in ({}, {"stream": True}):
        answer = logged.post("/v1/completions", {**b, **more})
        rid = answer.headers["X-Request-Id"]
        assert f'"id":"cmpl-{rid}"'.encode() in answer.body and line_of(logged, rid)["route"] == "/v1/completions"
    refused = logged.post("/v1/completions", {**b, "max_tokens": -1})
    assert refused.status == 400 and line_of(logged, refused.headers["X-Request-Id"])["status"] == 400
    m = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    said = logged.post("/v1/messages", m)
    assert said.json["id"] == "msg_" + said.headers["Request-Id"] and "X-Request-Id" not in said.headers
    own = logged.post("/generate", {"text": "x", "rid": "my-own", "sampling_params": {"max_new_tokens": 1}})
    assert own.headers["X-Request-Id"] == "my-own"
    assert "X-Request-Id" not in logged.get("/health").headers


def test_an_id_that_comes_goes_back_and_into_the_line(logged):
    theirs = {"X-Request-Id": "gateway-7f3c"}
    answer = logged.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, headers=theirs)
    assert answer.headers["X-Request-Id"] == "gateway-7f3c"
    assert line_of(logged, answer.json["id"].removeprefix("cmpl-"))["x_request_id"] == "gateway-7f3c"
    assert logged.get("/nowhere", headers=theirs).headers["X-Request-Id"] == "gateway-7f3c"
    own = logged.post("/generate", {"text": "x", "rid": "mine", "sampling_params": {"max_new_tokens": 1}}, headers=theirs)
    assert own.headers["X-Request-Id"] == "gateway-7f3c" and line_of(logged, "mine")["x_request_id"] == "gateway-7f3c"
    for bad in ("a" * 65, "a b", "", "caf\xe9"):
        assert "X-Request-Id" not in logged.get("/health", headers={"X-Request-Id": bad}).headers
    for bad in ("a\r\nSet-Cookie: b", "\u00e9", "a b"):  # a body's rid may hold anything; a head may not
        answer = logged.post("/generate", {"text": "x", "rid": bad, "sampling_params": {"max_new_tokens": 1}})
        assert answer.status == 200 and "X-Request-Id" not in answer.headers and "Set-Cookie" not in answer.headers


# ---- metrics, dashboard, top ----


def metrics_of(server):
    from banyan import top

    return top.parse(server.get("/metrics").body.decode())


def test_times_are_observed(server):
    before = metrics_of(server)[0]
    server.generate("x", 9, sampling={"ignore_eos": True})
    after, buckets = metrics_of(server)
    more = lambda name: after[name] - before[name]
    assert more("time_to_first_token_seconds_count") == 1 and more("e2e_request_latency_seconds_count") == 1
    assert 0 <= more("inter_token_latency_seconds_count") <= 8  # tokens that came together with the first have no time between
    assert 0 < more("time_to_first_token_seconds_sum") <= more("e2e_request_latency_seconds_sum")
    assert more("generation_tokens_total") == 9
    for name in ("time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds"):
        counts = [n for _, n in buckets[name]]
        assert counts == sorted(counts) and counts[-1] == after[f"{name}_count"] and buckets[name][-1][0] == float("inf")


def test_what_sglangs_dashboards_ask_for_is_told():
    """Under its names: how long requests wait and their tokens take, how full the server is, what gave way, what is being answered."""
    with Daemons(gpu_worker=["--step-us", "1000", "--slots", "2"], scheduler=["--max-running-requests", "2"]) as d:
        idle = metrics_of(d)[0]
        assert idle["http_requests_active"] == 1, "the one that asks"
        assert idle["utilization"] == idle["evicted_tokens_total"] == idle["queue_time_seconds_count"] == 0
        waited = [meta["queue_time"] for *_, meta in in_threads([lambda: d.generate("x", 50, sampling={"ignore_eos": True}) for _ in range(6)])]
        after = metrics_of(d)[0]
        assert after["queue_time_seconds_count"] == 6 and after["queue_time_seconds_sum"] == pytest.approx(sum(waited), abs=1e-4) and max(waited) > 0.01
        assert 0 < after["request_time_per_output_token_seconds_count"] <= 6  # who lags sees all tokens at once
        assert after["request_time_per_output_token_seconds_sum"] * 49 <= after["e2e_request_latency_seconds_sum"]
        with contextlib.ExitStack() as held:
            body = json.dumps({"text": "go on", "stream": True, "sampling_params": {"max_new_tokens": 8000, "ignore_eos": True}})
            for _ in range(3):
                c = d.client._open("POST", "/generate", body)
                held.callback(c.close)
            now = wait_for("two to run", lambda: (m := metrics_of(d)[0])["num_running_reqs"] == 2 and m)
            assert now["http_requests_active"] == 4 and now["utilization"] == 1
        wait_for("them to be gone", lambda: metrics_of(d)[0]["http_requests_active"] == 1 and d.is_idle())
        held_tokens = d.get("/v1/cache").json["replicas"][0]["held_tokens"]
        assert held_tokens and d.post("/flush_cache").json["flushed_tokens"] == held_tokens
        assert metrics_of(d)[0]["evicted_tokens_total"] == held_tokens


def test_refusals_and_failures_are_counted(server):
    before = metrics_of(server)[0]["http_responses_4xx_total"]
    server.get("/nowhere")
    server.post("/generate", {})
    assert metrics_of(server)[0]["http_responses_4xx_total"] == before + 2


def test_the_tree_is_in_the_metrics(server):
    server.post("/flush_cache")
    server.generate([91] * 64, 1)
    values = metrics_of(server)[0]
    assert values["kv_used_pages"] == 4 and values["num_used_tokens"] == 0, "the tree holds them, no request does"


def test_the_process_is_in_the_metrics(server):
    """By the names that Prometheus' own client libraries have."""
    pid = server.pid("router")

    def told():
        text = server.get("/metrics").body.decode()
        version = subprocess.run([BIN / "banyan", "--version"], capture_output=True, text=True).stdout.split()[1]
        assert f'# TYPE banyan_build_info gauge\nbanyan_build_info{{version="{version}"}} 1\n' in text
        assert "# TYPE process_cpu_seconds_total counter\n" in text
        return {m[1]: float(m[2]) for m in re.finditer(r"^(process_\w+) (\S+)$", text, re.M)}

    before = told()
    assert before["process_resident_memory_bytes"] == pytest.approx(rss_kib(pid) * 1024, rel=0.2)
    assert abs(before["process_start_time_seconds"] + float(server.get("/v1/loads").json["uptime_s"]) - time.time()) < DEADLINE
    assert before["process_max_fds"] == int(re.search(r"^Max open files +(\d+)", Path(f"/proc/{pid}/limits").read_text(), re.M)[1])
    open_now = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    assert abs(before["process_open_fds"] - open_now) < 10, "connections come and go"
    with contextlib.ExitStack() as held:
        for _ in range(300):
            held.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        server.generate("hello", 50)
        after = told()
    assert abs(after["process_open_fds"] - before["process_open_fds"] - 300) < 10
    assert after["process_cpu_seconds_total"] > before["process_cpu_seconds_total"]
    assert after["process_start_time_seconds"] == before["process_start_time_seconds"]


def test_uptime_is_of_the_process():
    with Daemons() as d:
        assert 0 < d.get("/v1/loads").json["uptime_s"] < 10 * DEADLINE, "not of the machine"
        d.restart("scheduler")
        answer = wait_for("it to be back", lambda: (a := d.get("/v1/loads")).status == 200 and a)
        assert answer.json["uptime_s"] < 10 * DEADLINE


def test_the_dashboard_shows_what_there_is(server):
    """Each metric it names is served, and what matters is on it."""
    board = json.loads((ROOT / "deploy/conf/grafana.json").read_text())
    shown = {name for panel in board["panels"] for t in panel["targets"] for name in re.findall(r"banyan:(\w+)", t["expr"])}
    served = set(re.findall(r"^banyan:(\w+)", server.get("/metrics").body.decode(), re.M))
    assert shown <= served, shown - served
    assert {n for n in served if not re.search(r"_(bucket|sum|count)$", n)} <= shown, "a metric that no panel shows"
    assert {n for n in served if n.endswith("_bucket")} <= shown
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def top(server, *words):
    return subprocess.run([BIN / "banyan", "top", "--once", "--url", f"http://127.0.0.1:{server.port}", *words], capture_output=True, text=True,
                          timeout=60, env=environment())


def test_top(server):
    server.generate("hello", 5)
    done = top(server)
    assert done.returncode == 0, done.stderr
    for word in ("running 0", "waiting 0", "replica 0", "cache hits", "TTFT", "ITL", "E2E", "output tokens"):
        assert word in done.stdout, done.stdout
    assert re.search(r"TTFT +[\d.,]+ ms", done.stdout)


def test_top_finds_the_server_as_serve_was_told(server):
    """--port was an unrecognized argument, and BANYAN_PORT, by which the server beside it had been told, was not read."""
    def run(*words, **env):
        return subprocess.run([BIN / "banyan", "top", "--once", *words], capture_output=True, text=True, timeout=60, env=environment(**env))

    where = f"http://127.0.0.1:{server.port} "
    for words, env in ((["--port", str(server.port)], {}), ([], {"BANYAN_PORT": str(server.port)}),
                       (["--host", "127.0.0.1", "--port", str(server.port)], {"BANYAN_PORT": "1", "BANYAN_UDS": "/nowhere"})):
        done = run(*words, **env)
        assert done.returncode == 0 and where in done.stdout, (words, env, done)
    assert "unix:/nowhere/x: no server answers there" in run("--uds", "/nowhere/x").stderr
    assert "http://[::1]:1: no server answers there" in run("--host", "[::1]", "--port", "1").stderr
    done = run(BANYAN_PORT="tcp://10.0.0.1:80")  # Kubernetes' word of a Service called banyan
    assert "http://127.0.0.1:30000" in done.stdout + done.stderr


@contextlib.contextmanager
def live_top(server, *words, **env):
    """banyan top without --once; its lines by a pipe."""
    with subprocess.Popen([BIN / "banyan", "top", "--interval", "0.1", "--url", f"http://127.0.0.1:{server.port}", *words], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(**env)) as p:
        try:
            yield p
        finally:
            p.kill()


@pytest.mark.parametrize("columns", [80, 60, 200])
def test_top_fits_a_terminal(server, columns):
    server.generate("hello", 5)
    lines = subprocess.run([BIN / "banyan", "top", "--once", "--url", f"http://127.0.0.1:{server.port}"], capture_output=True, text=True,
                           timeout=60, env=environment(COLUMNS=str(columns))).stdout.splitlines()
    assert max(map(len, lines)) <= max(columns, 80) and len(lines) > 10, lines


def test_top_into_a_pipe_is_plain_text_and_ends_with_it(server):
    with live_top(server) as p:
        said = [p.stdout.readline() for _ in range(40)]
        assert sum(line.startswith("banyan top ") for line in said) > 1 and "\x1b" not in "".join(said)
        p.stdout.close()
        assert p.wait(DEADLINE) == 0 and p.stderr.read() == ""


def test_top_waits_for_who_comes_back():
    """It ended when the scheduler was started again, and told of minus so many tokens a second when the router was."""
    with Daemons() as d, live_top(d) as p:
        def line(word):
            while word not in (said := p.stdout.readline()):
                assert said, p.stderr.read()
            return said

        d.generate("hello", 100)
        line("output tokens")
        for name in ("scheduler", "router"):
            d.kill(name)
            assert "away: " in line("away: ")
            d.start(name)
            for _ in range(5):
                assert "-" not in line("output tokens")


def test_top_says_what_is_wrong(logged):
    done = top(logged)
    assert done.returncode == 1 and "API key" in done.stderr
    assert top(logged, "--api-key", "sk-of-nobody-else").returncode == 0


def test_quantiles():
    from banyan import top

    before = [(0.1, 2.0), (1.0, 2.0), (float("inf"), 2.0)]
    now = [(0.1, 2.0), (1.0, 12.0), (float("inf"), 13.0)]
    assert top.quantile(now, before, 0.5) == pytest.approx(0.1 + 0.9 * 0.55)
    assert top.quantile(now, before, 0.99) == 1.0 and top.quantile(before, before, 0.5) is None
