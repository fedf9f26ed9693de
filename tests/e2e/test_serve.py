"""`banyan serve` as a whole: start, lines, restart, drain, and what is left when it is over. With a stand-in worker."""

import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from harness import BIN, CHATML, ROOT, TINY, Serve, alive, environment, in_threads, stand_in, wait_for

FLAGS = ["--model-path", TINY, "--chat-template", CHATML]
CHILDREN = {"scheduler", "gpu-worker", "tokenizer-worker", "detokenizer", "router"}


@pytest.fixture
def worker(tmp_path):
    return stand_in(tmp_path, "--step-us", 2000)


@pytest.fixture
def serve(worker):
    with Serve(*FLAGS, worker=worker) as s:
        yield s


def test_two_servers_in_one_run_directory(serve, worker, tmp_path):
    """The second says so in one sentence and touches nothing; after a kill -9 of the first the folder is free."""
    run_dir = tmp_path / "run"
    with Serve(*FLAGS, worker=worker, run_dir=run_dir) as first:
        second = Serve(*FLAGS, worker=worker, run_dir=run_dir)
        assert second.wait() != 0
        said = second.logs()
        assert said.count("\n") == 1 and "another server is using this folder" in said and "name another folder" in said, said
        second.stop()
        assert first.generate("still here", 4)[2]["completion_tokens"] == 4
        first.process.kill()
        first.process.wait()
    with Serve(*FLAGS, worker=worker, run_dir=run_dir) as third:
        assert third.generate("again", 4)[2]["completion_tokens"] == 4


def test_a_server_that_died_whole_is_started_again(worker, tmp_path):
    """A container or a machine that is killed leaves nobody to tidy up: a socket that lay there once kept the next one from starting."""
    run_dir = tmp_path / "run"
    with Serve(*FLAGS, worker=worker, run_dir=run_dir) as first:
        pids = [first.process.pid, *first.pids().values()]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                os.kill(pid, number)
        first.process.wait()
        wait_for("all to be gone", lambda: not any(map(alive, pids)))
        left = {p.name for p in run_dir.iterdir()}
        assert "notify-scheduler" in left and "scheduler.sock" in left, left
    with Serve(*FLAGS, worker=worker, run_dir=run_dir) as second:
        assert second.generate("again", 4)[2]["completion_tokens"] == 4


def left_of(s):
    """What a server left behind: processes, files of its run directory."""
    files = (Path(folder) / name for folder, folders, names in os.walk(s.own) for name in folders + names)  # which may go meanwhile
    return [n for n, pid in s.pids().items() if alive(pid)], sorted(str(p) for p in files if p != s.log)


def test_one_line_a_process_and_one_when_ready(serve):
    lines = serve.logs().splitlines()
    up = [m[1] for line in lines if (m := re.search(r"serve: ([\w-]+) is up pid=\d+ seconds=[\d.]+$", line))]
    assert sorted(up) == sorted(CHILDREN)
    (ready,) = [line for line in lines if "serve: ready in" in line]
    assert re.search(r"ready in [\d.]+ s: http://127\.0\.0\.1:\d+ model=stand-in kv_tokens=65536 load_s=[\d.]+ impl=stand-in$", ready)
    assert serve.get("/ready").status == 200 and serve.get("/health").status == 200
    assert serve.get("/health_generate").status == 200


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_nothing_is_left(serve, sig):
    assert left_of(serve)[1], "it runs in this directory"
    serve.process.send_signal(sig)
    assert serve.wait() == 0
    assert left_of(serve) == ([], [])


def test_nothing_is_left_after_kill_9_of_itself(serve):
    serve.generate("hello", 4)
    serve.process.kill()
    serve.wait()
    wait_for("all processes and files to be gone", lambda: left_of(serve) == ([], []), 1)
    with socket.socket() as s:
        s.bind(("127.0.0.1", serve.client.port))  # the port is free


def test_kill_9_under_load_leaves_nothing_either(serve):
    streams = [threading.Thread(target=lambda: pytest.raises(Exception, serve.generate, "on", 8000)) for _ in range(8)]
    for t in streams:
        t.start()
    wait_for("streams", lambda: serve.load()["num_running_reqs"] == 8)
    serve.process.kill()
    serve.wait()
    wait_for("all processes and files to be gone", lambda: left_of(serve) == ([], []), 1)
    for t in streams:
        t.join()


def test_sigterm_lets_running_requests_end(serve):
    results = []
    thread = threading.Thread(target=lambda: results.append(serve.generate("hello", 300)))
    thread.start()
    wait_for("the stream to run", lambda: serve.load()["num_running_reqs"] == 1)
    serve.process.terminate()
    wait_for("the drain to begin", lambda: "stopping" in serve.logs())
    assert serve.process.poll() is None
    assert serve.wait() == 0
    thread.join()
    assert results and results[0][2]["finish_reason"] == {"type": "length", "length": 300}
    assert left_of(serve) == ([], [])


def test_a_kept_connection_is_refused_while_it_drains(serve):
    """New requests get 503 with Retry-After; a new connection is not taken."""
    import http.client

    kept = http.client.HTTPConnection("127.0.0.1", serve.client.port, timeout=10)
    kept.request("GET", "/health")
    assert kept.getresponse().read() == b"ok\n"
    busy = threading.Thread(target=lambda: serve.generate("hello", 500))
    busy.start()
    wait_for("the stream to run", lambda: serve.load()["num_running_reqs"] == 1)
    body = '{"text": "x"}'
    head = f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    half = socket.create_connection(("127.0.0.1", serve.client.port), 10)
    half.sendall(head.encode())  # the request has begun, its body has not come
    serve.process.terminate()
    wait_for("the drain to begin", lambda: "stopping" in serve.logs())
    time.sleep(0.2)
    try:
        half.sendall(body.encode())
        answer = half.recv(65536).decode()
    except ConnectionError:
        answer = ""
    assert answer == "" or (" 503 " in answer.split("\r\n")[0] and "retry-after-ms: " in answer and "shutting down" in answer)
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", serve.client.port), 1).close()
    busy.join()
    assert serve.wait() == 0


def test_a_second_signal_means_now(serve):
    thread = threading.Thread(target=lambda: pytest.raises(Exception, serve.generate, "hello", 8000), daemon=True)
    thread.start()
    wait_for("the stream to run", lambda: serve.load()["num_running_reqs"] == 1)
    serve.process.terminate()
    wait_for("the drain to begin", lambda: "stopping" in serve.logs())
    time.sleep(0.1)
    assert serve.process.poll() is None, "it drains"
    serve.process.terminate()
    serve.wait(3)
    thread.join()
    assert left_of(serve) == ([], [])


@pytest.mark.parametrize("name", sorted(CHILDREN - {"router"}))
def test_a_child_that_dies_is_back_at_once_and_streams_go_on(serve, name):
    whole = serve.generate("hello", 200)
    before = serve.pids()[name]
    killed = []

    def on_event(event):
        if len(event["output_ids"]) > 60 and not killed:
            killed.append(time.monotonic())
            os.kill(before, signal.SIGKILL)

    assert serve.generate("hello", 200, on_event=on_event)[:2] == whole[:2]
    assert killed
    wait_for("it to be back", lambda: serve.pids()[name] != before and alive(serve.pids()[name]))
    assert re.search(rf"serve: {name} ended; it is started again status=0 signal=9", serve.logs())


def test_a_router_that_dies_is_back_on_its_port(serve):
    before = serve.pids()["router"]
    os.kill(before, signal.SIGKILL)
    wait_for("it to be back", lambda: serve.pids()["router"] != before and "ready again" in serve.logs())
    port = int(re.search(r"ready again: http://[\d.]+:(\d+)", serve.logs())[1])
    if port != serve.client.port:
        pytest.fail(f"clients know port {serve.client.port}, the new router listens on {port}")
    assert serve.generate("hello", 4)[2]["completion_tokens"] == 4


def test_back_off_only_for_a_child_that_dies_young(tmp_path):
    """A worker that dies at its 3rd step, ever: it has served, so it comes back at once, until the request is to blame."""
    with Serve(*FLAGS, worker=stand_in(tmp_path, "--die-at-step", 3)) as s:
        answer = s.post("/generate", {"text": "hello", "sampling_params": {"temperature": 0, "max_new_tokens": 64}})
        assert answer.status in (200, 500), answer
        assert s.get("/ready").status in (200, 503)
        assert len(re.findall("gpu-worker ended; it is started again", s.logs())) >= 1


def test_a_poisonous_request_is_found_and_refused(tmp_path):
    """The worker dies whenever it computes id 9. That request gets a 500 with its id, all others end as if nothing was."""
    with Serve(*FLAGS, worker=stand_in(tmp_path, "--step-us", 500, "--die-at-id", 9)) as s:
        texts = [[20 + i] * 40 for i in range(16)]
        good = [lambda t=t: s.generate(t, 200)[:2] for t in texts]
        alone = in_threads(good)
        bad = lambda: s.post("/generate", {"input_ids": [5, 9, 5], "rid": "poison"})
        *results, answer = in_threads([*good, bad])
        assert results == alone
        assert answer.status == 500 and "died (request poison)" in answer.json["error"]["message"], answer
        assert s.generate("hello", 4)[2]["completion_tokens"] == 4


@pytest.mark.parametrize("flags, status, said", [
    (["--port", "PORT"], 1, "--port"),
    (["--model-path", "/nowhere/model.gguf"], 1, "/nowhere/model.gguf"),
    (["--model-path", "BROKEN"], 1, "broken.gguf"),
    (["--frobnicate"], 78, "--frobnicate"),
    (["--port", "70000"], 78, "--port: '70000' is not a whole number from 0 to 65535"),
    (["--schedule-policy", "best"], 78, "--schedule-policy: 'best' is not one of"),
    (["--chat-template", "/nowhere.jinja"], 1, "/nowhere.jinja"),
    (["--host", "nobody.invalid"], 1, "--host"),
    (["--uds", "/nowhere/x.sock"], 1, "there is no folder /nowhere"),  # it was "permission denied", for root as well
    (["--host", "192.0.2.1"], 1, "it is no address of this machine"),
    (["--run-dir", "/tmp/" + 100 * "a"], 1, "it has 105 bytes; 80 at most"),  # it was "No such file or directory", of a path cut short
    (["--api-key", ""], 78, "--api-key: its value is empty"),
    (["/nowhere/a", "/nowhere/b"], 78, "'/nowhere/b' is one word too many"),
    (["/nowhere/a"], 78, "two models are named: /nowhere/a, and --model-path"),
])
def test_what_cannot_start_says_why_in_a_sentence(worker, tmp_path, flags, status, said):
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\3\0\0\0" + b"\xff" * 64)
    flags = [str(taken.getsockname()[1]) if f == "PORT" else str(broken) if f == "BROKEN" else f for f in flags]
    s = Serve(*FLAGS, *flags, worker=worker)
    try:
        assert s.wait() == status  # 78: nothing but another word would help
        # the last line, where systemctl status and kubectl logs --tail look: it was "stopped", six lines below the reason
        last = s.logs().splitlines()[-1]
        assert " error " in last and said in last, s.logs()
        assert left_of(s) == ([], [])
    finally:
        s.stop()
        taken.close()


def test_a_model_nobody_knows(tmp_path):
    """Exit code 79: the native engine does not know it. Without the transformers library that is the end."""
    unknown = tmp_path / "worker"
    unknown.write_text("#!/bin/sh\nexit 79\n")
    unknown.chmod(0o755)
    s = Serve(*FLAGS, worker=unknown, env={"BANYAN_PYTHON": "/bin/false"})
    try:
        assert s.wait() in (1, 79)  # as the last of them ended
        assert "transformers takes over for gpu-worker" in s.logs() or "transformers library is not installed" in s.logs(), s.logs()
        assert left_of(s) == ([], [])
    finally:
        s.stop()


def test_the_model_may_be_named_without_a_flag(worker):
    """As `vllm serve MODEL` has it: the word was passed over, and another model served."""
    assert FLAGS[0] == "--model-path"
    with Serve(FLAGS[1], *FLAGS[2:], worker=worker) as s:
        words = Path(f"/proc/{s.pids()['gpu-worker']}/cmdline").read_bytes().split(b"\0")
        assert words[words.index(b"--model-path") + 1] == str(FLAGS[1]).encode()
    assert subprocess.run([BIN / "banyan-scheduler", "word"], capture_output=True, timeout=30).returncode == 78


def test_keys_are_the_routers_alone(worker):
    """Every child had them in its environment, the Transformers worker with a model's own code among them; a new router has them again."""
    keys = {b"BANYAN_API_KEY=a-clients-key", b"BANYAN_ADMIN_API_KEY=an-admins-key"}
    with Serve(*FLAGS, "--admin-api-key", "an-admins-key", worker=worker, env={"BANYAN_API_KEY": "a-clients-key"}) as s:
        for _ in range(2):
            for name, pid in s.pids().items():
                has = set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")) & keys
                assert has == (keys if name == "router" else set()), name
                assert b"s-key" not in Path(f"/proc/{pid}/cmdline").read_bytes()
            old = s.pids()["router"]
            os.kill(old, signal.SIGKILL)
            wait_for("another router", lambda: s.pids().get("router", old) != old and s.get("/health").status == 200)


def test_a_mistake_in_the_options_has_a_status_of_its_own(worker, tmp_path):
    """systemd started a unit with a slip in banyan.yaml again, ten times a second, for ever."""
    units = (ROOT / "deploy/systemd/banyan-.service.d/10-common.conf").read_text()
    final = {int(n) for n in re.search(r"^RestartPreventExitStatus=(.*)$", units, re.M)[1].split()}
    (tmp_path / "banyan.yaml").write_text("max_conections: 3\n")
    for words in (["serve"], ["router"], ["scheduler"], ["tokenizer-worker"], ["gpu-worker"], ["detokenizer"]):
        program = [BIN / "banyan", *words] if words == ["serve"] else [BIN / f"banyan-{words[0]}"]
        done = subprocess.run([*program, "--config", tmp_path / "banyan.yaml"], capture_output=True, text=True, timeout=30, env=environment())
        assert done.returncode in final and "max_conections: there is no such option" in done.stderr, done
    s = Serve(*FLAGS, "--admin-socket-only", worker=worker)  # which the router finds out
    try:
        assert s.wait() in final and "stopped: router could not start: --admin-socket-only" in s.logs()
    finally:
        s.stop()


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_stands_in_brackets(worker, host):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
    s = Serve(*FLAGS, "--host", host, worker=worker)
    try:
        url = wait_for("the server", lambda: re.search(r"ready in [\d.]+ s: (http://\S+)", s.logs()))[1]
        assert re.fullmatch(r"http://\[::1\]:\d+", url)
        with urllib.request.urlopen(f"{url}/health", timeout=30) as answer:
            assert answer.status == 200
    finally:
        s.stop()


def test_two_tokenizer_workers(worker):
    with Serve(*FLAGS, "--tokenizer-worker-num", 2, worker=worker) as s:
        assert {"tokenizer-worker", "tokenizer-worker-1"} <= set(s.pids())
        texts = [f"text {i}" for i in range(16)]
        alone = [s.generate(t, 20)[:2] for t in texts]
        os.kill(s.pids()["tokenizer-worker"], signal.SIGKILL)
        assert [r[:2] for r in in_threads([lambda t=t: s.generate(t, 20) for t in texts])] == alone


def test_a_run_dir_of_ones_own_is_kept_but_empty(worker, tmp_path):
    with Serve(*FLAGS, worker=worker, run_dir=tmp_path / "run") as s:
        assert (tmp_path / "run/scheduler.sock").exists()
        assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
        s.process.terminate()
        assert s.wait() == 0
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("program", sorted(p.name for p in BIN.glob("banyan*")))
def test_help_and_version(program):
    for flag, said in (("--help", "usage: |commands:"), ("--version", rf"^{program} \d+\.\d+\.\d+\n$")):
        done = subprocess.run([BIN / program, flag], capture_output=True, text=True, timeout=10)
        assert done.returncode == 0 and done.stderr == ""
        assert re.search(said, done.stdout), done.stdout


def test_few_open_files_are_said_at_the_start(worker):
    few = ["sh", "-c", 'ulimit -n 1024; exec "$0" "$@"', str(BIN / "banyan"), "serve"]
    line = r"warn  router: 1024 open files are allowed: .*`ulimit -n`"
    with Serve(*FLAGS, worker=worker, program=few) as s:
        assert len(re.findall(line, s.logs())) == 1, s.logs()
        assert s.generate("hello", 4)[2]["completion_tokens"] == 4
    with Serve(*FLAGS, "--max-connections", "500", worker=worker, program=few) as s:  # enough for those
        assert "open files" not in s.logs()


def test_a_stop_that_was_asked_for_is_no_alarm(serve):
    """It said "replica is lost", as a warning; tokenizer worker and detokenizer (one stop in three) "lost the scheduler"."""
    assert serve.generate("hello", 4)[2]["completion_tokens"] == 4
    before = len(serve.logs())
    serve.process.terminate()
    assert serve.wait() == 0
    said = serve.logs()[before:]
    assert not re.search(r" (warn|error) ", said), said


def test_an_open_server_says_so(worker):
    """On every address without a key: whoever reaches it may also drain it. Nothing said a word."""
    for flags, is_told in ((["--host", "0.0.0.0"], True), (["--host", "0.0.0.0", "--api-key", "sk-one-of-them"], False), ([], False), (["--host", "127.0.0.2"], False)):
        with Serve(*FLAGS, *flags, worker=worker) as s:
            assert ("no key is asked for" in s.logs()) == is_told, (flags, s.logs())
