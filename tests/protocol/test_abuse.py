"""One client's request must not make others wait, and one key must not take what is another's. What is written here was once possible."""

import contextlib
import json
import re
import select
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from harness import BIN, Daemons, in_threads, private_dir, wait_for

ALICE, BOB, CAROL, OPS = "sk-alice-11111111", "sk-bob-2222222222", "sk-carol-33333333", "sk-ops-6666666666"
KEYS = f"{ALICE} name=alice\n{BOB} name=bob priority=5\n{CAROL} name=carol rate=3 running=2\n{OPS} name=ops admin\n"


def rss_mib(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


def metric(d, name):
    return float(re.search(rf"^{name} (\S+)$", d.get("/metrics").body.decode(), re.M)[1])


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


# ---- what is large is refused before it is read, or waits behind what is small ----


def refused(server, path, body):
    answer = server.post(path, body)
    assert answer.status == 400, answer
    return answer.json["error"]["message"]


def test_a_million_values_are_refused_before_any_is_kept(server):
    """Ten million numbers held the router, and everybody, for 2.7 s."""
    ones = b",".join([b"1"] * ((1 << 20) + 1))
    for body in (b'{"text":"x","unknown":[' + ones + b"]}", b'{"input_ids":[' + ones + b"]}"):
        assert "more than 1048576 values" in refused(server, "/generate", body)
        assert "more than 1048576 values" in refused(server, "/tokenize", body)


def test_an_object_of_a_hundred_thousand_keys_is_refused(server):
    keys = b",".join(b'"%d":1' % i for i in range(100_000))
    assert "more than 65536 members" in refused(server, "/generate", b'{"text":"x","logit_bias":{' + keys + b"}}")
    assert "more than 65536 members" in refused(server, "/v1/completions", b'{"prompt":"x",' + keys + b"}")


def test_half_a_million_answers_are_not_one_request(server):
    """30 KB of prompts with n=128 made 524,288 sequences, and an answer over every limit."""
    asks = {"text": ["x"] * 4096, "sampling_params": {"max_new_tokens": 1, "n": 128}}
    assert "more than 16384 answers" in refused(server, "/generate", asks)
    asks = {"model": "stand-in", "prompt": ["x"] * 4096, "n": 5, "max_tokens": 1}
    assert "more than 16384 answers" in refused(server, "/v1/completions", asks)
    assert len(server.ok("/generate", {"text": ["x"] * 4, "sampling_params": {"max_new_tokens": 1, "n": 128}})) == 512


def test_an_answer_over_the_limit_is_refused_in_words(server):
    """30 KB asked for 270 MB of log probabilities: the connection was closed without a word when all of them were there."""
    asks = {"input_ids": [i % 600 + 10 for i in range(8000)], "return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 128,
            "sampling_params": {"max_new_tokens": 1, "n": 16}}
    assert "the answer is larger than 268435456 bytes: ask for fewer" in refused(server, "/generate", asks)
    wait_for("all pages to be free or in the tree", server.is_idle)


def test_a_short_request_passes_a_queue_of_long_texts(server):
    """Texts of megabytes wait until nothing smaller is there: in order of arrival each short one stood behind all of them."""
    order, begun = [], threading.Event()

    def long_text(i):
        answer = server.post("/tokenize", {"prompt": "x " * 3_000_000})
        order.append("long")
        begun.set()
        assert answer.status == 200 and answer.json["count"] > 3_000_000

    def short_one():
        assert begun.wait(60)
        server.generate("hello", 2)
        order.append("short")

    in_threads([lambda i=i: long_text(i) for i in range(6)] + [short_one])
    assert order.index("short") < 6, order


def test_a_prompt_far_over_the_context_is_given_up_early(keyed):
    answer = keyed.post("/generate", {"text": "many words " * 500_000}, headers=bearer(OPS))
    assert answer.status == 400, answer
    message = answer.json["error"]["message"]
    assert re.search(r"more than \d+ tokens\) is longer than the model's context length", message), message


def test_what_all_clients_send_has_a_ceiling():
    """Each body had a limit, and all together none: a hundred of them, slowly sent, were 1.5 GB, and 2,000 would have been 30."""
    with Daemons(router=["--max-held-bytes", str(64 << 20)]) as d:
        head = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (16 << 20)
        slow = [socket.create_connection(("127.0.0.1", d.port)) for _ in range(30)]
        for s in slow:
            s.sendall(head + b" " * (15 << 20))
        assert len(d.generate("hello", 4)[1]) == 4
        assert rss_mib(d.processes["router"].pid) < 160
        told = slow[0].recv(4096)
        assert told.startswith(b"HTTP/1.1 429 ") and b"\r\nRetry-After: 1\r\n" in told, told
        assert metric(d, "banyan:gave_way_total") >= 26
        slow[-1].sendall(b" " * ((1 << 20) - 2) + b"{}")
        assert slow[-1].recv(4096).startswith(b"HTTP/1.1 400 ")  # the last one stayed
        for s in slow:
            s.close()


@pytest.mark.parametrize("path, key, n", [("/generate", "text", 24), ("/tokenize", "prompt", 16)])
def test_what_waits_for_a_tokenizer_worker_has_a_ceiling(path, key, n):
    """What it had not taken filled its queue; that ended its session, after which all of it was sent again, and so on."""
    with Daemons(router=["--max-held-bytes", str(4 << 30)]) as d:
        body = json.dumps({key: "x " * 7_400_000}).encode()
        head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body))
        d.processes["tokenizer-worker"].send_signal(signal.SIGSTOP)
        asked = []
        for _ in range(n):
            asked.append(socket.create_connection(("127.0.0.1", d.port)))
            asked[-1].sendall(head + body)
        told = select.select(asked, [], [], 30)[0]
        assert told and told[0].recv(4096).startswith(b"HTTP/1.1 429 ")
        small = d.client._open("POST", "/generate", {"text": "hello", "sampling_params": {"max_new_tokens": 2}})
        d.processes["tokenizer-worker"].send_signal(signal.SIGCONT)
        assert small.getresponse().status == 200
        for s in asked:
            if s not in told:
                s.settimeout(60)
                assert s.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 400", b"HTTP/1.1 429")


def test_an_answer_that_grows_too_large_for_the_room_there_is_ends():
    """Log probabilities of long prompts are kept until the last has come: 128 a token, and no ceiling over all."""
    with Daemons(router=["--max-held-bytes", str(64 << 20)]) as d:
        asks = {"input_ids": [[i % 600 + 10 for i in range(8000)] for _ in range(20)], "return_logprob": True, "logprob_start_len": 0,
                "top_logprobs_num": 128, "sampling_params": {"max_new_tokens": 1}}
        answer = d.post("/generate", asks)
        assert answer.status == 429 and "this answer grew large" in answer.json["error"]["message"], answer
        assert len(d.generate("hello", 4)[1]) == 4
        wait_for("all pages to be free or in the tree", d.is_idle)


def test_what_was_asked_is_held_once():
    """Its JSON stayed as a tree until the answer had come: 80 bytes for each token id."""
    n, ids = 20, [i % 600 + 10 for i in range(8000)]
    with Daemons(scheduler=["--max-running-requests", "1"], gpu_worker=["--step-us", "2000"]) as d:
        with contextlib.ExitStack() as asked:
            for _ in range(n):
                c = d.client._open("POST", "/generate", {"input_ids": ids, "sampling_params": {"max_new_tokens": 100, "ignore_eos": True}})
                asked.callback(c.close)
            wait_for("all to wait or run", lambda: sum(d.load()[f"num_{what}_reqs"] for what in ("running", "waiting")) == n)
            held = metric(d, "banyan:held_bytes")
        assert held / n < 30 * len(ids), f"{held / n / len(ids)} bytes a token id"


@pytest.mark.parametrize("path, more", [("/v1/completions", {"prompt": "x"}), ("/v1/embeddings", {"input": "x"}), ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})])
def test_a_name_of_a_model_is_no_megabytes(server, path, more):
    """It stands in each event: a body of 10 MB made 10 MB of each token."""
    answer = server.post(path, {"model": "m" * 4097, **more})
    assert answer.status == 400 and answer.json["error"]["message"] == "model: a name of 4097 bytes is over the limit of 4096", answer


def test_an_asterisk_is_no_path(server):
    """Made absolute it wrote over the first byte of the first header's name."""
    answer = server.request("OPTIONS", "*")
    assert answer.status == 404 and answer.json["error"]["message"] == "there is no * here"


# ---- one key and the others ----


@pytest.fixture(scope="module")
def keyed():
    folder = private_dir()
    keys = folder / "keys"
    keys.write_text(KEYS)
    keys.chmod(0o600)
    with Daemons(router=["--api-key-file", str(keys)], tokenizer_worker=["--context-length", "8192"], gpu_worker=["--step-us", "20000"],
                 scheduler=["--max-queued-requests", "20", "--max-running-requests", "1"]) as d:
        yield d
    shutil.rmtree(folder)


class Held:
    """A request of a key that runs for minutes, and whose answer comes whole: nothing of it can be read too slowly."""

    def __init__(self, d, key, **more):
        body = {"input_ids": [30] * 20, "sampling_params": {"max_new_tokens": 8000, "ignore_eos": True}, **more}
        self.c = d.client._open("POST", "/generate", body, bearer(key))

    def close(self):
        self.c.close()


def load(d):
    return d.get("/v1/loads", headers=bearer(OPS)).json["loads"][0]


def idle(d):
    now = load(d)
    return not (now["num_running_reqs"] or now["num_waiting_reqs"] or now["num_used_tokens"])


def test_a_flood_of_one_key_leaves_places_in_the_queue(keyed):
    """Alice once took all of them, and Bob's requests were answered 429."""
    flood = [Held(keyed, ALICE)]
    try:
        wait_for("the first to run", lambda: load(keyed)["num_running_reqs"] == 1)
        flood += [Held(keyed, ALICE) for _ in range(39)]
        wait_for("alice to have what she may", lambda: load(keyed)["num_waiting_reqs"] >= 16)
        answer = keyed.post("/generate", {"input_ids": [31] * 20}, headers=bearer(ALICE))
        assert answer.status == 429, answer
        bobs = Held(keyed, BOB)
        wait_for("bob's to be taken", lambda: load(keyed)["num_waiting_reqs"] > 16)
        bobs.close()
    finally:
        for held in flood:
            held.close()
    wait_for("all pages to be free or in the tree", lambda: idle(keyed))


def test_the_text_service_counts_for_a_key_too(keyed):
    """A rate that /tokenize did not know was none."""
    statuses = [keyed.post(path, {"prompt": "x"}, headers=bearer(CAROL)).status for path in ("/tokenize", "/v1/tokenize", "/tokenize", "/tokenize")]
    assert statuses == [200, 200, 200, 429]
    said = keyed.post("/v1/messages/count_tokens", {"model": "stand-in", "messages": [{"role": "user", "content": "x"}]}, headers=bearer(CAROL))
    assert said.status == 429 and said.json["type"] == "error"
    assert keyed.post("/tokenize", {"prompt": "x"}, headers=bearer(ALICE)).status == 200


def test_a_wrong_key_of_any_length_is_wrong(keyed):
    for key in (ALICE * 2, ALICE * 1000, "x" * 30000, ALICE[:-1] + "\x7f", "Bearer " + ALICE):
        assert keyed.post("/generate", {"text": "x"}, headers=bearer(key)).status in (401, 400), key[:50]
    assert keyed.post("/generate", {"text": "x", "sampling_params": {"max_new_tokens": 1}}, headers=bearer(ALICE)).status == 200


def test_a_key_goes_no_higher_than_its_line_says(keyed):
    """Under --schedule-policy priority whoever said the largest number was served first, whoever it was."""
    held = [Held(keyed, key, priority=asked) for key, asked in ((ALICE, 9), (ALICE, -3), (BOB, 9), (BOB, 4), (OPS, 9))]

    def priorities():
        dump = subprocess.run([BIN / "banyan", "inspect", "--run-dir", keyed.dir, "--json"], capture_output=True, text=True, timeout=60)
        said = json.loads(dump.stdout)
        return sorted((r["tenant"], r["priority"]) for r in said["waiting"] + said["running"] + said["paused"])

    try:
        wait_for("all to be there", lambda: len(priorities()) == len(held))
        assert priorities() == [("alice", -3), ("alice", 0), ("bob", 4), ("bob", 5), ("ops", 9)]
    finally:
        for h in held:
            h.close()
    wait_for("all pages to be free or in the tree", lambda: idle(keyed))
