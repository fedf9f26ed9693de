"""HTTP as attackers and broken clients speak it: each gets a 4xx or a closed connection, the server goes on."""

import json
import random
import re
import socket
import ssl

import pytest

from harness import rss_kib, wait_for

OK = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def exchange(server, sent, patience=5):
    """All that comes back until the server closes. When it waits for more, it hears that there is none."""
    with socket.create_connection(("127.0.0.1", server.port), patience) as s:
        got, said_all = b"", False
        try:
            s.sendall(sent)
            while True:
                try:
                    chunk = s.recv(65536)
                except TimeoutError:
                    assert not said_all, f"neither an answer nor an end; so far {got!r}"
                    said_all = True
                    s.settimeout(10)
                    s.shutdown(socket.SHUT_WR)
                    continue
                if not chunk:
                    return got
                got += chunk
        except ConnectionError:
            return got


def status(answer):
    return int(answer.split(b" ", 2)[1]) if answer else 0


def post(head, body, connection="close"):
    return f"POST /generate HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\nContent-Type: application/json\r\n{head}\r\n".encode() + body


GOOD = b'{"text":"x","sampling_params":{"max_new_tokens":1}}'
HOSTILE = {
    "length and chunks": (post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + OK), 400),
    "two lengths": (post(f"Content-Length: {len(GOOD)}\r\nContent-Length: 5\r\n", GOOD), 400),
    "negative length": (post("Content-Length: -1\r\n", GOOD), 400),
    "length of letters": (post("Content-Length: 5x\r\n", GOOD), 400),
    "huge length": (post("Content-Length: 99999999999999999999\r\n", GOOD), 400),
    "over the limit": (post("Content-Length: 999999999\r\n", GOOD), 413),
    "odd coding": (post("Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    "xchunked": (post("Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), 400),
    "chunk size of letters": (post("Transfer-Encoding: chunked\r\n", b"zz\r\n" + GOOD), 400),
    "blank behind a chunk size": (post("Transfer-Encoding: chunked\r\n", b"%x 0\r\n" % len(GOOD) + GOOD + b"\r\n0\r\n\r\n"), 400),
    "chunk longer than it says": (post("Transfer-Encoding: chunked\r\n", b"2\r\nabcdef\r\n0\r\n\r\n"), 400),
    "chunk size over 64 bits": (post("Transfer-Encoding: chunked\r\n", b"fffffffffffffffff\r\nx"), 400),
    "bare line feeds": (OK.replace(b"\r\n", b"\n"), 400),
    "folded header": (b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
    "blank before the colon": (b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", 400),
    "no host name": (b"GET /health HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
    "two words for a host": (b"GET /health HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
    "two hosts": (b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    "NUL in a header": (b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", 400),
    "NUL in the path": (b"GET /health%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "fragment": (b"GET /health#x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "fragment of a query": (b"GET /health?a#x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "two blanks before the path": (b"GET  /health HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "two blanks behind the path": (b"GET /health  HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "broken escape": (b"GET /health%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "too many headers": (b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 10000 + b"\r\n", 431),
    "a huge header": (b"GET /health HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 1000000 + b"\r\n\r\n", 431),
    "a huge path": (b"GET /" + b"a" * 1000000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "HTTP/0.9": (b"GET /health\r\n\r\n", 505),
    "HTTP/2.0": (b"GET /health HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)), 400),
    "CONNECT": (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "unknown method": (b"BREW /health HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "known path, wrong method": (b"DELETE /generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405),
    "unknown path": (b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
    "gzip body": (post(f"Content-Encoding: gzip\r\nContent-Length: {len(GOOD)}\r\n", GOOD), 415),
    "form": (f"POST /generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD, 415),
    "odd Expect": (post(f"Expect: magic\r\nContent-Length: {len(GOOD)}\r\n", GOOD), 417),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(server, name):
    sent, want = HOSTILE[name]
    answer = exchange(server, sent, 0.3 if want is None else 5)
    if want is None:
        assert status(answer) in (0, 400, 405, 505), answer[:200]
    else:
        assert status(answer) == want, answer[:300]
        assert b'"message":' in answer and len(re.findall(rb"^HTTP/1.1 \d", answer, re.M)) == 1, "one answer, and nothing after it"
    assert server.get("/health").status == 200


def test_who_speaks_tls_is_told_in_the_log(server):
    """The client itself shows no more than its library's 'wrong version number'."""
    said = "a client spoke TLS, and this port speaks plain HTTP: its URL begins with http://"
    with pytest.raises(ssl.SSLError):
        ssl.create_default_context().wrap_socket(socket.create_connection(("127.0.0.1", server.port), 5), server_hostname="x")
    wait_for("the log to say so", lambda: said in (server.dir / "router.log").read_text())
    assert b"this port speaks plain HTTP" in exchange(server, HOSTILE["TLS"][0])


def test_a_head_is_refused_before_its_body_comes(server):
    with socket.create_connection(("127.0.0.1", server.port), 5) as s:
        s.sendall(post("Content-Length: 999999999\r\n", b""))
        assert status(s.recv(65536)) == 413


def test_a_refused_body_does_not_eat_the_answer(server):
    """A client that is still sending when it is refused must be able to read why: more here than any socket's buffers hold."""
    answer = exchange(server, post("Content-Length: 99999999\r\n", b"x" * 50_000_000))
    assert status(answer) == 413, answer[:200]
    assert b"larger than 16777216 bytes (--max-body-bytes)" in answer


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_chunks_of_any_size(server, size):
    body = b"".join(b"%x\r\n%s\r\n" % (len(GOOD[i : i + size]), GOOD[i : i + size]) for i in range(0, len(GOOD), size))
    answer = exchange(server, post("Transfer-Encoding: chunked\r\n", body + b"0\r\nTrailer: x\r\n\r\n"))
    assert status(answer) == 200, answer


def test_byte_by_byte(server):
    with socket.create_connection(("127.0.0.1", server.port), 5) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for b in post(f"Content-Length: {len(GOOD)}\r\n", GOOD):
            s.sendall(bytes([b]))
        assert status(s.recv(65536)) == 200


def test_pipelined_requests_are_answered_in_order(server):
    bodies = [f'{{"text":"x","rid":"r{i}","sampling_params":{{"max_new_tokens":1}}}}'.encode() for i in range(50)]
    sent = [post(f"Content-Length: {len(b)}\r\n", b, "keep-alive" if b != bodies[-1] else "close") for b in bodies]
    answer = exchange(server, b"".join(sent))
    ids = [part.split(b'"')[0] for part in answer.split(b'"id":"')[1:]]
    assert ids == [b"r%d" % i for i in range(50)]


def test_what_is_pipelined_behind_a_long_answer_waits_however_much_it_is(server):
    """Above 64 KiB of it the connection was closed in the middle of the answer."""
    n = 5000
    first = b'{"text":"x","sampling_params":{"max_new_tokens":300,"ignore_eos":true}}'
    health, last = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = exchange(server, post(f"Content-Length: {len(first)}\r\n", first, "keep-alive") + health * n + last)
    assert answer.count(b"HTTP/1.1 200 ") == n + 2 and b'"completion_tokens":300' in answer


def test_a_connection_is_kept(server):
    with socket.create_connection(("127.0.0.1", server.port), 5) as s:
        f = s.makefile("rb")
        for _ in range(3):
            s.sendall(OK)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += f.readline()
            assert b"Connection: keep-alive" in head and f.read(3) == b"ok\n"
        s.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert b"Connection: close" in f.read()


def half_closed(server, sent):
    """All that comes back to who ends their side of the connection behind what they have to say."""
    with socket.create_connection(("127.0.0.1", server.port), 10) as s:
        s.sendall(sent)
        s.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: s.recv(65536), b""))


def test_who_ends_their_side_early_is_told(server):
    """nc -N, and `printf … | socat`: their requests were cancelled, as those of clients that leave, and they read nothing at all."""
    for path in ("/health", "/v1/models"):
        assert status(half_closed(server, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())) == 200
    before = server.get("/metrics").body
    body = b'{"text":"go on","sampling_params":{"max_new_tokens":8000,"ignore_eos":true}}'
    answer = half_closed(server, post(f"Content-Length: {len(body)}\r\n", body, "keep-alive"))
    assert status(answer) == 499 and b"counts as leaving" in answer and b"Connection: close" in answer, answer
    wait_for("it to be cancelled", server.is_idle)
    named = rb"^banyan:http_responses_4xx_total .*$"
    assert re.search(named, server.get("/metrics").body, re.M)[0] == re.search(named, before, re.M)[0], "no request was at fault"


@pytest.mark.parametrize("sent", [OK[:-2], OK[:-1], OK[:3], post("Content-Length: 500\r\n", GOOD), post("Transfer-Encoding: chunked\r\n", b"5\r\nab")])
def test_who_ends_in_the_middle_of_a_request_is_told(server, sent):
    """An empty line forgotten, a Content-Length too large: the connection was closed without a word."""
    answer = half_closed(server, sent)
    assert status(answer) == 400 and b"ended in the middle of the request" in answer, answer
    assert half_closed(server, b"") == b"" and half_closed(server, OK + b"\r\n").endswith(b"ok\n")


def test_a_stream_whose_client_ends_its_side_is_cut(server):
    body = b'{"text":"go on","stream":true,"sampling_params":{"max_new_tokens":8000,"ignore_eos":true}}'
    with socket.create_connection(("127.0.0.1", server.port), 10) as s:
        s.sendall(post(f"Content-Length: {len(body)}\r\n", body))
        got = s.recv(65536)
        s.shutdown(socket.SHUT_WR)
        got += b"".join(iter(lambda: s.recv(65536), b""))
    assert status(got) == 200 and b"[DONE]" not in got and not got.endswith(b"0\r\n\r\n")
    wait_for("it to be cancelled", server.is_idle)


def test_expect_continue(server):
    with socket.create_connection(("127.0.0.1", server.port), 5) as s:
        s.sendall(post(f"Expect: 100-continue\r\nContent-Length: {len(GOOD)}\r\n", b""))
        assert s.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(GOOD)
        assert status(s.recv(65536)) == 200


BODIES = {
    "nothing": b"", "no JSON": b"hello", "cut": GOOD[:-3], "garbage behind": GOOD + b"x", "two values": GOOD + GOOD,
    "an array": b"[1]", "a number": b"5", "null": b"null", "depth bomb": b'{"text":' + b"[" * 100000 + b"]" * 100000 + b"}",
    "depth bomb of objects": b'{"a":' * 5000 + b"1" + b"}" * 5000, "invalid UTF-8": b'{"text":"\xff\xfe"}',
    "overlong UTF-8": b'{"text":"\xc0\xaf"}', "surrogate in UTF-8": b'{"text":"\xed\xa0\x80"}', "lone surrogate": b'{"text":"\\ud800"}',
    "raw control": b'{"text":"a\x01b"}', "huge number": b'{"text":"x","sampling_params":{"temperature":1e999999}}',
    "NaN": b'{"text":"x","sampling_params":{"temperature":NaN}}', "Infinity": b'{"text":"x","sampling_params":{"temperature":Infinity}}',
    "comment": b'{"text":"x"/**/}', "trailing comma": b'{"text":"x",}', "single quotes": b"{'text':'x'}",
    "byte order mark": b"\xef\xbb\xbf" + GOOD, "bad escape": b'{"text":"\\x"}', "many prompts": json.dumps({"text": ["x"] * 5000}).encode(),
    "UTF-16": '{"text":"x"}'.encode("utf-16"),
}


@pytest.mark.parametrize("name", BODIES)
def test_bad_bodies(server, name):
    answer = server.post("/generate", BODIES[name])
    if name == "byte order mark" and answer.status == 200:
        return  # RFC 8259 lets a reader ignore it
    assert answer.status == 400 and answer.json["error"]["message"], answer
    assert server.get("/health").status == 200


def test_a_prompt_over_the_context(server):
    for body in ({"text": "many words " * 20000}, {"input_ids": [5] * 8192}, {"input_ids": [5] * 300000}):
        answer = server.post("/generate", body)
        assert answer.status == 400 and "longer than the model's context length" in answer.json["error"]["message"], answer


def test_a_prompt_over_the_context_is_known_by_the_words_that_clients_look_for(server):
    """Agents shorten what they send when they see these; the code was 400, and Anthropic's words were nowhere."""
    messages = [{"role": "user", "content": "many words " * 20000}]
    error = server.post("/v1/chat/completions", {"messages": messages}).json["error"]
    assert error["code"] == "context_length_exceeded" and error["type"] == "invalid_request_error"
    error = server.post("/v1/messages", {"messages": messages, "max_tokens": 1}).json["error"]
    assert error["message"].startswith("prompt is too long: the input ("), error


def test_text_of_every_kind_is_taken(server):
    for text in ("\0", "a\0b", "\ud7ff\ue000", "😀" * 100, "\u202e\ufeff", "<|im_end|>", " " * 5000, "\U0010ffff"):
        assert server.post("/generate", {"text": text, "sampling_params": {"max_new_tokens": 2}}).status == 200, repr(text)


def test_random_bytes(server):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    before = rss_kib(server.pid("router"))
    for _ in range(200):
        sent = bytearray(post(f"Content-Length: {len(GOOD)}\r\n", GOOD))
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(sent))
            if rng.random() < 0.5:
                sent[at] = rng.randrange(256)
            else:
                del sent[at : at + rng.randint(1, 9)]
        answer = exchange(server, bytes(sent), 0.05)
        assert status(answer) in (0, 200, *range(400, 432), 501, 505), answer[:200]
    assert server.get("/health").status == 200
    assert rss_kib(server.pid("router")) - before < 2048


def test_each_answer_has_its_date(server):
    """RFC 9110 asks it of a server with a clock; caches and log readers go by it."""
    import email.utils
    import time

    for path in ("/health", "/nowhere"):
        told = email.utils.parsedate_to_datetime(server.get(path).headers["Date"])
        assert told.tzinfo is not None and abs(told.timestamp() - time.time()) < 60
    streamed = server.post("/generate", {"text": "hi", "stream": True, "sampling_params": {"max_new_tokens": 1}})
    assert streamed.headers["Date"].endswith("GMT")


def test_a_wrong_method_is_told_the_right_ones(server):
    for method in ("GET", "DELETE"):
        answer = server.request(method, "/generate")
        assert answer.status == 405 and answer.headers["Allow"] == "POST, PUT" and "POST, PUT" in answer.json["error"]["message"], answer
