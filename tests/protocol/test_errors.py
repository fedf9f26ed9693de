"""Every status the API can answer with, in the form of each dialect, and what clients get wrong: 4xx, naming the field.

499 is no answer but a line of the log: test_observe.py has it."""

import json
import threading

import pytest

from harness import Daemons, rss_kib, wait_for

HELLO = [{"role": "user", "content": "hi"}]
ROUTES = {
    "/generate": {"text": "hi"}, "/v1/completions": {"prompt": "hi"}, "/v1/chat/completions": {"messages": HELLO},
    "/v1/responses": {"input": "hi"}, "/v1/messages": {"messages": HELLO, "max_tokens": 9}, "/api/chat": {"messages": HELLO, "stream": False},
    "/api/generate": {"prompt": "hi", "stream": False},
}


def form_of(path):
    return "anthropic" if path.startswith("/v1/messages") else "ollama" if path.startswith("/api/") else "openai"


# by status: (OpenAI's type, Anthropic's)
TYPES = {400: ("invalid_request_error",) * 2, 401: ("authentication_error",) * 2, 403: ("permission_error",) * 2,
         404: ("not_found_error",) * 2, 408: ("timeout_error",) * 2, 413: ("invalid_request_error", "request_too_large"),
         415: ("invalid_request_error",) * 2, 429: ("rate_limit_error",) * 2, 500: ("server_error", "api_error"),
         503: ("service_unavailable", "overloaded_error")}


def check(path, answer, status):
    """The error's text, its form checked."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/json"
    form, error = form_of(path), answer.json["error"]
    if status in (429, 503):
        assert int(answer.headers["Retry-After"]) >= 1 and int(answer.headers["retry-after-ms"]) >= 1
    if form == "ollama":
        assert isinstance(error, str)
        return error
    assert error["type"] == TYPES[status][form == "anthropic"], answer
    if form == "anthropic":
        assert answer.json["type"] == "error" and set(error) == {"type", "message"}
    else:
        assert set(error) == {"message", "type", "param", "code"} and error["code"] == status
    return error["message"]


# ---- each status on each route ----


@pytest.fixture(scope="module")
def closed():
    with Daemons(router=["--api-key", "user", "--admin-api-key", "boss", "--max-body-bytes", "4096"]) as d:
        yield d


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("path", ROUTES)
def test_400(server, path):
    assert "JSON" in check(path, server.post(path, b"{"), 400)
    assert check(path, server.post(path, b""), 400) == "the body is empty: send an object of JSON"  # not "a value was expected at byte 0"
    assert check(path, server.post(path, {"stream": 5} if path.startswith("/api/") else {}), 400)  # Ollama: nothing said is no mistake


@pytest.mark.parametrize("path", ROUTES)
def test_401_and_413(closed, path):
    answer = closed.post(path, ROUTES[path])
    assert "key" in check(path, answer, 401) and answer.headers["WWW-Authenticate"] == "Bearer"  # which was missing
    assert closed.post(path, ROUTES[path], headers=bearer("user")).status == 200
    answer = closed.post(path, {**ROUTES[path], "rid": "x" * 5000}, headers=bearer("user"))
    assert answer.status == 413 and "--max-body-bytes" in json.dumps(answer.json)


def test_403(closed):
    for method, path in (("POST", "/flush_cache"), ("POST", "/drain"), ("DELETE", "/drain")):
        assert "admin" in check(path, closed.request(method, path, b"", headers=bearer("user")), 403)


@pytest.mark.parametrize("path", ["/nowhere", "/v1/messages/x", "/api/x"])  # /v1/models/other, which OpenAI has a word for: test_admin.py
def test_404(server, path):
    check(path, server.get(path), 404)


@pytest.mark.parametrize("path, here", [("/healthz", "/health"), ("/livez", "/health"), ("/readyz", "/ready"), ("/completion", "/v1/completions"),
                                        ("/v1", "/v1/models"), ("/docs", "/openapi.json"), ("/get_load", "/v1/loads"), ("/slots", "/v1/loads"),
                                        ("/v1/classify", "/classify"), ("/pause_generation", "/update_weights_from_disk")])
def test_what_another_server_calls_it_is_told(server, path, here):
    """A probe of /healthz was a bare 404."""
    assert check(path, server.get(path), 404) == f"there is no {path} here; see {here}"
    assert server.get(here).status != 404


@pytest.mark.parametrize("path, meant", [("/chat/completions", "/v1/chat/completions"), ("/v1/v1/chat/completions", "/v1/chat/completions"),
                                         ("/v1/generate", "/generate"), ("/v1/api/chat", "/api/chat")])
def test_a_base_url_that_is_one_v1_off_is_told(server, path, meant):
    assert f"did you mean {meant}?" in check(path, server.post(path, {}), 404)


@pytest.mark.parametrize("path", ROUTES)
def test_405(server, path):
    for method in ("GET", "DELETE", "PATCH"):
        answer = server.request(method, path)
        assert answer.status == 405 and "POST" in answer.headers["Allow"], answer


@pytest.mark.parametrize("path", ROUTES)
def test_415(server, path):
    text = check(path, server.post(path, ROUTES[path], headers={"Content-Type": "text/plain"}), 415)
    assert "application/json" in text


@pytest.fixture(scope="module")
def slow():
    """One place, one that waits, half a second for each request."""
    with Daemons(router=["--request-timeout", "0.5"], gpu_worker=["--step-us", "2000", "--slots", "1"], scheduler=["--max-queued-requests", "1"]) as d:
        yield d


def long(path):
    more = {"max_tokens": 4000, "ignore_eos": True}
    if path == "/generate":
        more = {"sampling_params": {"max_new_tokens": 4000, "ignore_eos": True}}
    if path == "/v1/responses":
        more = {"max_output_tokens": 4000}
    if path.startswith("/api/"):
        more = {"options": {"num_predict": 4000}}
    return {**ROUTES[path], **more}


@pytest.mark.parametrize("path", ROUTES)
def test_408(slow, path):
    wait_for("room", slow.is_idle)
    assert "longer" in check(path, slow.post(path, long(path)), 408)


def test_429():
    with Daemons(gpu_worker=["--step-us", "2000", "--slots", "1"], scheduler=["--max-queued-requests", "1"]) as d:
        busy = []
        for name in ("num_running_reqs", "num_waiting_reqs"):
            busy.append(threading.Thread(target=lambda: pytest.raises(Exception, d.generate, "on", 8000)))
            busy[-1].start()
            wait_for(f"one {name}", lambda: d.load()[name] == 1)
        for path in ROUTES:
            assert "full" in check(path, d.post(path, ROUTES[path]), 429)
        d.kill("router")
        for t in busy:
            t.join()


def test_500():
    """A request that is there whenever the worker dies is refused with its id; the server goes on."""
    with Daemons(gpu_worker=["--die-at-id", "55"]) as d:
        stop = threading.Event()

        def keep_up():
            while not stop.is_set():
                if d.processes["gpu-worker"].poll() is not None:
                    d.start("gpu-worker")
                stop.wait(0.02)

        keeper = threading.Thread(target=keep_up)
        keeper.start()
        try:
            for path, body in (("/generate", {"input_ids": [55] * 20}), ("/v1/completions", {"prompt": [55] * 20})):
                text = check(path, d.post(path, {**body, "rid": "poison-1"}, timeout=120), 500)
                assert "poison-1" in text and "worker died" in text
            harmless = {"input_ids": [20, 21], "sampling_params": {"temperature": 0, "max_new_tokens": 3}}  # and no 55 comes of it
            assert d.post("/generate", harmless, timeout=120).status == 200, "the server goes on"
        finally:
            stop.set()
            keeper.join()


def test_503():
    """Asked to take no more; what a server says that is not ready yet is in test_admin.py."""
    with Daemons() as d:
        assert d.post("/drain").status == 200
        for path in ROUTES:
            assert "takes no new requests" in check(path, d.post(path, ROUTES[path]), 503)


def test_other_statuses(server):
    """What HTTP itself has words for."""
    assert server.request("POST", "/generate", b"x", headers={"Content-Encoding": "gzip"}).status == 415
    assert server.request("POST", "/generate", b"x", headers={"Expect": "a miracle"}).status == 417
    assert server.get("/" + "x" * 9000).status == 414
    assert server.get("/health", headers={"X": "y" * 40000}).status == 431


# ---- the field is named as its dialect names it ----


@pytest.mark.parametrize("path, body, param", [
    ("/v1/chat/completions", {"min_tokens": 9, "max_tokens": 3}, "min_tokens"), ("/v1/chat/completions", {"max_completion_tokens": -1}, "max_completion_tokens"),
    ("/v1/completions", {"prompt": [640]}, "prompt"), ("/v1/completions", {"max_tokens": -1}, "max_tokens"),
    ("/v1/responses", {"max_output_tokens": -1}, "max_output_tokens"), ("/v1/responses", {"input": [{"content": "x"}]}, "input[0].role"),
    ("/v1/messages", {"stop_sequences": [1]}, "stop_sequences"), ("/v1/messages", {"system": "be", "messages": [{"content": "x"}]}, "messages[0].role"),
    ("/v1/messages", {"max_tokens": 2**63}, "max_tokens"), ("/api/chat", {"options": {"num_predict": 1.5}}, "options.num_predict"),
    ("/api/generate", {"options": {"repeat_penalty": 9}}, "options.repeat_penalty"), ("/api/chat", {"options": {"top_p": 0}}, "options.top_p"),
    ("/generate", {"sampling_params": {"max_new_tokens": -1}}, "max_new_tokens"), ("/generate", {"text": None, "input_ids": [640]}, "input_ids"),
])
def test_the_field_is_named(server, path, body, param):
    answer = server.post(path, {**ROUTES[path], **body})
    text = check(path, answer, 400)
    assert text.startswith(param + ":"), text
    if form_of(path) == "openai":
        assert answer.json["error"]["param"] == param


# ---- what comes in all the same ----

DEEP = 10**6
BAD = [
    ("wrong type", {"sampling_params": {"temperature": "hot"}}, "temperature"),
    ("NaN", b'{"text":"x","sampling_params":{"temperature":NaN}}', "JSON"),
    ("minus infinity", b'{"text":"x","sampling_params":{"temperature":-Infinity}}', "JSON"),
    ("10^9 samples", {"sampling_params": {"n": 10**9}}, "n"),
    ("max -1", {"sampling_params": {"max_new_tokens": -1}}, "max_new_tokens"),
    ("max 2^63", {"sampling_params": {"max_new_tokens": 2**63}}, "max_new_tokens"),
    ("max 1e300", {"sampling_params": {"max_new_tokens": 1e300}}, "max_new_tokens"),
    ("64 k biases", {"sampling_params": {"logit_bias": {str(i): 1 for i in range(65536)}}}, "logit_bias"),
    ("64 k stops", {"sampling_params": {"stop": ["x"] * 65536}}, "stop"),
    ("64 k prompts", {"text": ["x"] * 65536}, "text"),
    ("deep lists", b'{"text":"x","a":' + b"[" * DEEP + b"]" * DEEP + b"}", "deeper"),
    ("deep objects", b'{"text":"x","a":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}", "deeper"),
    ("deep and open", b"[" * DEEP, "deeper"),
    ("a lone surrogate", b'{"text":"\\ud800"}', "surrogate"),
    ("a lone low surrogate", b'{"text":"a\\udc00b"}', "surrogate"),
    ("a key twice", b'{"text":"x","text":"y"}', "text"),
    ("a key twice, inside", b'{"text":"x","sampling_params":{"n":1,"n":2}}', "n"),
    ("bytes that are no UTF-8", b'{"text":"\xff"}', "UTF-8"),
    ("an unknown parameter", {"sampling_params": {"temprature": 1}}, "temprature"),
]


@pytest.mark.parametrize("body, named", [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input_is_refused_by_name(server, body, named):
    """And leaves nothing: eight times it take no more memory than one time may, give or take what malloc keeps."""
    body = body if isinstance(body, bytes) else json.dumps({"text": "x", **body}).encode()
    for i in range(9):
        answer = server.post("/generate", body)
        assert answer.status == 400 and named in answer.json["error"]["message"], answer
        if i == 0:
            before = rss_kib(server.pid("router"))
    assert rss_kib(server.pid("router")) - before < 8192 + 4 * len(body) // 1024


def test_a_body_of_a_gigabyte_is_refused_by_its_head(server):
    """Its length is enough to know: nothing of it is read."""
    before = rss_kib(server.pid("router"))
    answer = server.request("POST", "/generate", b"", headers={"Content-Length": str(2**30)})
    assert answer.status == 413 and "--max-body-bytes" in answer.json["error"]["message"]
    assert rss_kib(server.pid("router")) - before < 65536
