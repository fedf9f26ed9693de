"""Clients that take their answer slowly: they get all of it, whatever they or others do meanwhile, and it is made once."""

import json
import shutil
import signal
import socket
import time

import pytest

from harness import DEADLINE, Daemons, private_dir

TEXT = "x y " * 600000  # its token ids take more megabytes than a socket's buffer holds


@pytest.fixture(scope="module")
def slow():
    folder = private_dir()
    with Daemons(router=["--slow-request-timeout", "1", "--admin-socket", str(folder / "admin")]) as d:
        d.admin_path = str(folder / "admin")
        d.whole = d.post("/tokenize", {"prompt": TEXT}).body
        yield d
    shutil.rmtree(folder)


def ask(connection, **to):
    """A connection that has asked for the ids of TEXT, and takes nothing."""
    body = json.dumps({"prompt": TEXT}).encode()
    s = socket.socket(socket.AF_UNIX if "path" in to else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.settimeout(DEADLINE)
    s.connect(to.get("path") or ("127.0.0.1", to["port"]))
    s.sendall(f"POST /tokenize HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\nContent-Type: application/json\r\n"
              f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert s.recv(8, socket.MSG_PEEK) == b"HTTP/1.1"
    return s


def read_all(s):
    got = bytearray()
    while chunk := s.recv(1 << 20):
        got += chunk
    s.close()
    return bytes(got)


def check(got, whole):
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and body == whole, (head, len(body), len(whole), body[len(whole):][:300])


def test_the_last_answer_of_a_connection_comes_whole_and_once(slow):
    """What came behind such a request made it run again; and a second later its client was told, in the middle of the answer, that its
    request had taken too long."""
    s = ask("close", path=slow.admin_path)
    s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(4)
    check(read_all(s), slow.whole)


def test_who_says_no_more_still_gets_what_is_on_its_way(slow):
    s = ask("keep-alive", path=slow.admin_path)
    s.shutdown(socket.SHUT_WR)
    time.sleep(0.5)
    check(read_all(s), slow.whole)


def test_a_router_that_stops_waits_for_who_still_reads(slow):
    """It ended as soon as all answers had been made, and took what had not been read along."""
    s = ask("keep-alive", port=slow.port)
    process = slow.processes["router"]
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert process.poll() is None
    check(read_all(s), slow.whole)
    assert process.wait(DEADLINE) == 0
