"""API keys: what each opens, whose limits count, and that nothing stands open by accident."""

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from harness import BIN, ROOT, Client, Daemons, environment, private_dir, wait_for

PROMPT = list(range(20, 60))
KEYS = """# whose
sk-alice-11111111 name=alice
sk-bob-2222222222 name=bob rate=2
sk-carol-33333333 name=carol running=1
sk-dave-444444444 name=dave tokens=20
sk-erin-555555555 name=erin
sk-ops-6666666666 name=ops admin
"""
ALICE, BOB, CAROL, DAVE, ERIN, OPS = re.findall(r"^sk-\S+", KEYS, re.M)


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def keyed():
    folder = private_dir()
    path = folder / "keys"
    path.write_text(KEYS)
    path.chmod(0o600)
    with Daemons(router=["--api-key-file", str(path), "--isolate-cache"]) as d:
        yield d
    path.unlink()
    folder.rmdir()


def body(n=8, **more):
    return {"input_ids": PROMPT, "sampling_params": {"temperature": 0, "max_new_tokens": n}, **more}


def generate(d, key, n=8, **more):
    return d.post("/generate", body(n, **more), headers=bearer(key))


# ---- the table of routes ----

OPEN = {"/health", "/ready", "/ping", "/health_generate", "/metrics", "/", "/openapi.json"}  # what balancers and scrapers ask without a key; SGLang's, too


def routes():
    """(method, path, level) of each row of routes.c."""
    text = (ROOT / "router/routes.c").read_text()
    rows = re.findall(r"\{HTTP1_(\w+), \"([^\"]+)\",\s*\w+,\s*ROUTE_(\w+),", text)
    assert len(rows) == text.count("{HTTP1_"), "a row that this test does not read"
    return rows


def test_only_these_are_open():
    assert {path for _, path, level in routes() if level == "OPEN"} <= OPEN


@pytest.mark.parametrize("key", [None, "sk-nobody-0000000", ALICE[:-1], ALICE + "x", "", ALICE.upper()])
def test_no_route_is_open_by_accident(keyed, key):
    """Every row that is not meant to be open answers 401 to no key and to wrong ones, before it looks at anything else."""
    headers = bearer(key) if key is not None else {}
    for method, path, level in routes():
        answer = keyed.request(method, path.replace("*", "x"), b"{}" if method != "GET" else None, headers=headers)
        if level == "OPEN":
            assert answer.status in (200, 503), (method, path, answer)
        else:
            assert answer.status == 401 and b"API key is missing or wrong" in answer.body, (method, path, answer)
            if not path.startswith("/api/"):  # Ollama's errors are a text
                assert answer.json["error"]["type"] == "authentication_error", (method, path, answer)


def test_an_admins_routes_are_closed_to_others(keyed):
    admin = [(m, p) for m, p, level in routes() if level == "ADMIN"]
    assert ("POST", "/flush_cache") in admin
    for method, path in admin:
        answer = keyed.request(method, path.replace("*", "x"), b"{}" if method != "GET" else None, headers=bearer(ALICE))
        assert answer.status == 403 and answer.json["error"]["type"] == "permission_error", (method, path, answer)
    assert keyed.post("/flush_cache", headers=bearer(OPS)).status == 200


@pytest.mark.parametrize("path", ["//generate", "/./generate", "/x/../generate", "/generate/", "/%67enerate", "/GENERATE", "/generate;a",
                                  "/flush_cache/../health", "/health/../flush_cache", "/health%2f..%2fflush_cache", "/health?/../flush_cache"])
def test_a_path_is_what_the_table_says_and_nothing_else(keyed, path):
    """A proxy that lets /health pass must not let anything else pass with it (CVE-2026-48746's kind)."""
    answer = keyed.post(path, body())
    assert answer.status in (401, 404, 405, 400), (path, answer)
    assert b"output_ids" not in answer.body


@pytest.mark.parametrize("headers", [{"x-api-key": ALICE}, {"authorization": f"bearer {ALICE}"}])
def test_a_key_may_come_as_clients_send_it(keyed, headers):
    assert keyed.post("/generate", body(), headers=headers).status == 200


# ---- limits ----


def refused(answer):
    assert answer.status == 429, answer
    assert int(answer.headers["Retry-After"]) >= 1 and int(answer.headers["retry-after-ms"]) >= 1
    assert answer.json["error"]["type"] == "rate_limit_error"
    return answer.json["error"]["message"]


def test_a_rate_counts_for_its_key_alone(keyed):
    statuses = [generate(keyed, BOB).status for _ in range(2)]
    assert statuses == [200, 200]
    assert "2 requests a minute" in refused(generate(keyed, BOB))
    # Counting tokens in Anthropic's form said "in a second", whatever the key's rate was.
    counted = keyed.post("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "a"}]}, headers=bearer(BOB))
    assert counted.status == 429 and int(counted.headers["retry-after-ms"]) > 5000, counted
    assert generate(keyed, ALICE).status == 200


def test_so_many_at_a_time(keyed):
    started = threading.Event()
    headers = bearer(CAROL)
    c = keyed.client._open("POST", "/generate", {**body(4000, stream=True), "sampling_params": {"max_new_tokens": 4000, "ignore_eos": True}},
                           headers)
    response = c.getresponse()
    assert response.status == 200 and response.readline()
    started.set()
    assert "1 requests running" in refused(generate(keyed, CAROL))
    response.close()
    c.close()
    wait_for("its place to be free again", lambda: generate(keyed, CAROL).status == 200)


def test_tokens_are_counted_when_they_are_known(keyed):
    assert generate(keyed, DAVE).status == 200  # 48 tokens: more than it has
    assert "20 tokens a minute" in refused(generate(keyed, DAVE))


# ---- what is whose ----


def cached(answer):
    return answer.json["meta_info"]["cached_tokens"]


def test_each_key_has_a_cache_of_its_own(keyed):
    prompt = {"input_ids": list(range(100, 164))}
    assert cached(generate(keyed, ALICE, **prompt)) == 0
    assert cached(generate(keyed, ALICE, **prompt)) > 0
    assert cached(generate(keyed, ERIN, **prompt)) == 0, "erin could tell what alice had asked"
    assert cached(generate(keyed, ERIN, extra_key="alice\n", **prompt)) == 0
    assert cached(generate(keyed, ERIN, **prompt)) > 0


def test_the_longest_extra_keys_are_kept_apart(keyed):
    """Behind the key's name there was no room for them, and a cache for all that long was shared."""
    prompt = {"input_ids": list(range(300, 364))}
    for letter in "ab":
        assert cached(generate(keyed, ALICE, extra_key=letter * 65536, **prompt)) == 0
    assert cached(generate(keyed, ALICE, extra_key="b" * 65536, **prompt)) > 0


def test_nobody_ends_the_requests_of_others(keyed):
    c = keyed.client._open("POST", "/generate", {**body(), "stream": True, "rid": "mine", "sampling_params": {"max_new_tokens": 3000, "ignore_eos": True}},
                           bearer(ALICE))
    response = c.getresponse()
    assert response.readline()
    assert keyed.post("/abort_request", {"abort_all": True}, headers=bearer(ERIN)).status == 200
    assert all(response.readline() for _ in range(20))  # it goes on
    assert keyed.post("/abort_request", {"rid": "mine"}, headers=bearer(ALICE)).status == 200
    assert b'"abort"' in response.read()
    c.close()


def test_no_key_is_in_a_log(keyed):
    generate(keyed, ALICE)
    generate(keyed, "sk-nobody-0000000")
    assert "sk-" not in keyed.logs()


# ---- the file again, and the socket for admins ----


class UnixClient(Client):
    """HTTP over a Unix socket."""

    def _open(self, method, path, body=None, headers=None, timeout=None):
        c = http.client.HTTPConnection("localhost", timeout=timeout or self.timeout)
        c.sock = socket.socket(socket.AF_UNIX)
        c.sock.settimeout(timeout or self.timeout)
        c.sock.connect(self.host)
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        c.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
        return c


@pytest.fixture(scope="module")
def guarded():
    """A file of keys that changes, and admins on a socket of their own only. The socket's file is left over from one who was killed."""
    folder = private_dir()
    path, admin = folder / "keys", folder / "admin.sock"
    path.write_text(KEYS)
    path.chmod(0o600)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(admin))
    with Daemons(router=["--api-key-file", str(path), "--admin-socket", str(admin), "--admin-socket-only"]) as d:
        d.key_file, d.admin = path, UnixClient(str(admin), 0)
        yield d
    shutil.rmtree(folder)


def test_admins_routes_are_on_their_socket_alone(guarded):
    assert Path(guarded.admin.host).stat().st_mode & 0o777 == 0o600
    for method, path in [(m, p) for m, p, level in routes() if level == "ADMIN"]:
        answer = guarded.request(method, path, b"{}" if method != "GET" else None, headers=bearer(OPS))
        assert answer.status == 404, (method, path, answer)
    assert guarded.admin.post("/flush_cache").status == 200
    assert guarded.admin.post("/drain").json["draining"] is True
    assert guarded.get("/ready").status == 503
    assert guarded.admin.request("DELETE", "/drain").json["draining"] is False
    assert guarded.admin.post("/generate", body()).status == 200
    assert guarded.admin.post("/no/such/path").status == 404


@pytest.mark.parametrize("head, status", [
    ("POST /generate", 401), ("PUT /generate", 401), ("POST /v1/messages", 401), (f"POST /drain\r\nAuthorization: Bearer {ALICE}", 403),
    ("POST /nowhere", 404), (f"DELETE /generate\r\nAuthorization: Bearer {ALICE}", 405), (f"POST /generate\r\nAuthorization: Bearer {ALICE}", 100)])
@pytest.mark.parametrize("body", ["Content-Length: 9000000", "Content-Length: 9000000\r\nExpect: 100-continue", "Transfer-Encoding: chunked\r\nExpect: 100-continue"])
def test_a_stranger_is_refused_before_the_body(keyed, head, status, body):
    """16 MB of each were read and kept before anybody looked at the key; curl asks first (Expect) so as not to send them."""
    first, *more = head.split("\r\n")
    with socket.create_connection(("127.0.0.1", keyed.port), 10) as s:
        s.sendall("\r\n".join([first + " HTTP/1.1", "Host: x", "Content-Type: application/json", body, *more, "", ""]).encode())
        if status == 100 and "Expect" not in body:
            s.sendall(b"{")  # it is waited for
            s.settimeout(0.2)
            with pytest.raises(TimeoutError):
                s.recv(1)
            return
        answer = s.recv(65536)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert status == 100 or b"Connection: close" in answer


def test_a_stranger_with_a_small_body_keeps_the_connection(keyed):
    """It was closed, and each try with a wrong key, or of a wrong path, made another."""
    with socket.create_connection(("127.0.0.1", keyed.port), 10) as s:
        f = s.makefile("rb")
        for _ in range(3):
            s.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20000\r\n\r\n")
            assert f.readline().startswith(b"HTTP/1.1 401 ")
            head = dict(line.split(b": ", 1) for line in iter(f.readline, b"\r\n"))
            assert head[b"Connection"] == b"keep-alive\r\n", head
            f.read(int(head[b"Content-Length"]))
            s.sendall(b" " * 20000)
        s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert f.readline().startswith(b"HTTP/1.1 200 ")


def hang_up(d, says):
    """SIGHUP, and how often the router has said so by then."""
    log = d.dir / "router.log"
    before = log.read_text().count(says)
    d.processes["router"].send_signal(signal.SIGHUP)
    wait_for(says, lambda: log.read_text().count(says) > before)


def test_the_file_is_read_again_on_sighup(guarded):
    """A key that comes, one that goes while a stream of it runs, then a broken file and none: they change nothing."""
    c = guarded.client._open("POST", "/generate", {**body(stream=True), "sampling_params": {"max_new_tokens": 2000, "ignore_eos": True}}, bearer(ERIN))
    response = c.getresponse()
    assert response.readline()
    guarded.key_file.write_text(KEYS.replace(ERIN, "sk-frank-66666666"))
    hang_up(guarded, "API keys were read again keys=6")
    assert generate(guarded, ERIN).status == 401
    assert generate(guarded, "sk-frank-66666666").status == 200
    assert b"[DONE]" in response.read()
    c.close()
    for text in ("sk-alice-11111111 rate=none\n", "", None):
        guarded.key_file.unlink() if text is None else guarded.key_file.write_text(text)
        hang_up(guarded, "the API keys stay as they were")
        assert generate(guarded, ALICE).status == 200 and generate(guarded, ERIN).status == 401
    assert "sk-" not in guarded.logs()


def test_the_socket_alone_needs_a_socket():
    done = subprocess.run([BIN / "banyan-router", "--admin-socket-only", "--run-dir", "/tmp", "--port", "0"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 78 and "--admin-socket PATH is missing" in done.stderr


# ---- the options ----


def test_one_key_by_option_opens_all():
    with Daemons(router=["--api-key", "one-key-for-all", "--log-level", "debug"]) as d:
        assert d.post("/generate", body()).status == 401
        assert generate(d, "one-key-for-all").status == 200
        assert d.post("/flush_cache", headers=bearer("one-key-for-all")).status == 200
        assert "one-key-for-all" not in d.logs()


@pytest.mark.parametrize("program", [[BIN / "banyan-router"], [BIN / "banyan", "serve"]])
def test_an_empty_key_starts_no_server(program, tmp_path):
    """BANYAN_API_KEY: ${KEY} of a compose file, and no KEY: it started, and was open to all."""
    done = subprocess.run([*program, "--run-dir", tmp_path, "--port", "0"], capture_output=True, text=True, timeout=60, env=environment(BANYAN_API_KEY=""))
    assert done.returncode == 78 and "BANYAN_API_KEY: its value is empty; leave it out, or give one" in done.stderr
