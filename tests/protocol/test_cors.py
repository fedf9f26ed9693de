"""Web pages as clients (CORS): who may read answers, and that no page changes a server that asks for no key."""

import subprocess

import pytest

from harness import BIN, Daemons

PAGE, OTHER = "https://chat.example", "https://evil.example"
ASK = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


def of(page, **more):
    return {"Origin": page, **more}


def preflight(server, path, page, method="POST"):
    """What a browser asks before it sends JSON and a key; it never brings the key itself."""
    asks = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os"}
    return server.request("OPTIONS", path, headers=of(page, **asks))


@pytest.fixture(scope="module")
def listed():
    with Daemons(router=["--allowed-origins", f"http://localhost:5173, {PAGE}", "--api-key", "a-key-of-ours"]) as d:
        yield d


def test_a_page_of_the_list_may_ask_and_read(listed):
    asked = preflight(listed, "/v1/chat/completions", PAGE)
    assert asked.status == 204 and asked.body == b"" and "Content-Length" not in asked.headers
    assert asked.headers["Access-Control-Allow-Origin"] == PAGE and asked.headers["Vary"] == "Origin"
    assert "POST" in asked.headers["Access-Control-Allow-Methods"]
    assert [h.strip() for h in asked.headers["Access-Control-Allow-Headers"].split(",")] == ["Authorization", "*"]
    key = {"Authorization": "Bearer a-key-of-ours"}
    for body in (ASK, {**ASK, "stream": True}):
        answer = listed.post("/v1/chat/completions", body, headers=of(PAGE, **key))
        assert answer.status == 200 and answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


def test_a_page_of_the_list_can_read_why_it_is_refused(listed):
    bad = listed.post("/v1/chat/completions", ASK, headers=of(PAGE)), listed.get("/nowhere", headers=of(PAGE)), \
        listed.post("/generate", b"{", headers=of(PAGE, **{"Content-Encoding": "gzip"}))
    assert [(a.status, a.headers["Access-Control-Allow-Origin"]) for a in bad] == [(401, PAGE), (404, PAGE), (415, PAGE)]


@pytest.mark.parametrize("page", [OTHER, "null", PAGE + ".evil.example", PAGE.upper(), PAGE + ":8443", PAGE[:-1]])
def test_another_page_reads_nothing(listed, page):
    for answer in (preflight(listed, "/v1/models", page), listed.get("/v1/models", headers=of(page))):
        assert answer.status in (401, 405) and "Access-Control-Allow-Origin" not in answer.headers
        assert answer.headers["Vary"] == "Origin"


def test_a_program_sees_nothing_of_it(listed):
    assert "Access-Control-Allow-Origin" not in listed.get("/health").headers


def test_all_pages_and_none(server):
    with Daemons(router=["--allowed-origins", "*"]) as d:
        answer = d.get("/v1/models", headers=of(OTHER))
        assert answer.headers["Access-Control-Allow-Origin"] == "*" and "Vary" not in answer.headers
        assert preflight(d, "/generate", OTHER, "PUT").status == 204
        assert d.request("OPTIONS", "/generate").status == 405, "nobody asks for a page"
    assert preflight(server, "/generate", OTHER).status == 405, "without the option there are no pages"
    told = f"a web page of {OTHER} may not use this server; --allowed-origins says whose may"
    assert told in (server.dir / "router.log").read_text(), "a browser shows its reader no more than 'CORS error'"
    assert "Access-Control-Allow-Origin" not in server.get("/v1/models", headers=of(OTHER)).headers


@pytest.mark.parametrize("headers", [of(OTHER), {"Sec-Fetch-Site": "cross-site"}])
def test_no_page_changes_a_server_without_keys(server, headers):
    """Any page could drain a server on its reader's machine: a POST without a body needs no leave of the server."""
    for method, path in (("POST", "/drain"), ("DELETE", "/drain"), ("POST", "/flush_cache"), ("GET", "/flush_cache")):
        answer = server.request(method, path, headers=headers)
        assert answer.status == 403 and "--admin-api-key" in answer.json["error"]["message"], answer
    assert server.get("/ready").status == 200
    assert server.get("/flush_cache", headers={"Sec-Fetch-Site": "none"}).status == 200, "typed by hand"


@pytest.mark.parametrize("value", ["https://x/", "x.example", "https://X.example", "https://a,,https://b", '["*"]'])
def test_what_no_browser_would_send_is_refused_at_the_start(value, tmp_path):
    done = subprocess.run([BIN / "banyan-router", "--run-dir", tmp_path, "--port", "0", "--allowed-origins", value],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 78 and "--allowed-origins: '" in done.stderr and "scheme://host[:port]" in done.stderr
