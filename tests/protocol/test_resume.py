"""Answers that outlive their connection: Idempotency-Key joins a live one, Last-Event-ID goes on behind an event."""

import json
import re

import pytest

from harness import Daemons, private_dir, wait_for

ALICE, BOB = "sk-alice-11111111", "sk-bob-2222222222"


class Stream:
    """One connection to a stream, read event by event: (id, data)."""

    def __init__(self, server, body, key=None, last=None, path="/generate", caller=ALICE):
        headers = {"Authorization": f"Bearer {caller}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        if last is not None:
            headers["Last-Event-ID"] = last
        self.c = server.client._open("POST", path, body, headers)
        self.response = self.c.getresponse()
        self.status = self.response.status

    def event(self):
        """None at the end of the stream."""
        fields = {}
        while line := self.response.readline().decode():
            line = line.rstrip("\n")
            if not line:
                return fields.get("id"), fields["data"]
            name, value = line.split(": ", 1)
            assert name not in fields, fields
            fields[name] = value
        assert not fields, f"cut within an event: {fields}"
        return None

    def take(self, n):
        return [self.event() for _ in range(n)]

    def rest(self):
        return list(iter(self.event, None))

    def error(self):
        return json.loads(self.response.read())["error"]

    def close(self):
        self.response.close()
        self.c.close()


@pytest.fixture(scope="module")
def server():
    """A step takes a millisecond, so that streams are cut in their middle."""
    folder = private_dir()
    keys = folder / "keys"
    keys.write_text(f"{ALICE} name=alice\n{BOB} name=bob\n")
    keys.chmod(0o600)
    with Daemons(gpu_worker=["--step-us", "1000"], router=["--api-key-file", str(keys), "--resume-bytes", str(8 << 20)]) as d:
        yield d
    keys.unlink()
    folder.rmdir()


@pytest.fixture(scope="module")
def small():
    """It keeps as little as it may."""
    with Daemons(gpu_worker=["--step-us", "1000"], router=["--resume-bytes", str(1 << 19)]) as d:
        yield d


@pytest.fixture(scope="module")
def hasty():
    """Whoever is away for 0.2 s is forgotten."""
    with Daemons(gpu_worker=["--step-us", "1000"], router=["--resume-grace", "0.2"]) as d:
        yield d


def completion(n=100, **more):
    return {"prompt": list(range(20, 40)), "max_tokens": n, "temperature": 0, "stream": True, **more}


def long_events(n, top):
    """/generate's are cumulative: n tokens with the logprobs of `top` others each."""
    return {"input_ids": list(range(20, 40)), "stream": True, "return_logprob": top > 0, "top_logprobs_num": top,
            "sampling_params": {"max_new_tokens": n, "temperature": 0, "ignore_eos": True}}


def said(events):
    """(text, finish reasons) of a completion's events; [DONE] must end it, once."""
    assert [data for _, data in events].count("[DONE]") == 1 and events[-1][1] == "[DONE]", events[-2:]
    choices = [json.loads(data)["choices"][0] for _, data in events[:-1]]
    return "".join(c["text"] for c in choices), [c["finish_reason"] for c in choices if c["finish_reason"]]


def numbers(events):
    """The ids' numbers; all have the same name before it."""
    assert len({i.split("-")[0] for i, _ in events}) == 1
    return [int(i.split("-")[1]) for i, _ in events]


def run(server, **more):
    s = Stream(server, completion(**more), path="/v1/completions")
    return said(s.rest())


def test_without_a_key_nothing_changes(server):
    s = Stream(server, completion(4), path="/v1/completions")
    assert {i for i, _ in s.rest()} == {None}


def test_a_cut_stream_goes_on_behind_the_last_event(server):
    whole = run(server)
    first = Stream(server, completion(), "cut", path="/v1/completions")
    events = first.take(10)
    first.close()
    for _ in range(3):  # more than once, each time behind what has come
        again = Stream(server, None, last=events[-1][0], path="/v1/completions")
        assert again.status == 200
        events += again.take(5)
        again.close()
    again = Stream(server, None, last=events[-1][0], path="/v1/completions")
    events += again.rest()
    assert numbers(events) == list(range(1, len(events) + 1))
    assert said(events) == whole


def test_what_is_over_can_still_be_fetched(server):
    s = Stream(server, completion(30), "over", path="/v1/completions")
    events = s.rest()
    again = Stream(server, None, last=events[4][0], path="/v1/completions")
    assert again.rest() == events[5:]
    assert Stream(server, completion(30), "over", path="/v1/completions").rest() == events
    assert Stream(server, None, last=events[-1][0], path="/v1/completions").rest() == []


@pytest.mark.parametrize("path", ["/generate", "/v1/completions"])
def test_a_key_joins_the_live_one(server, path):
    """Two connections, one generation: both have all of it, and the worker computed it once."""
    body = completion(400) if path != "/generate" else long_events(400, 0)
    one = Stream(server, body, "join" + path, path=path)
    events = one.take(20)
    two = Stream(server, body, "join" + path, path=path)
    assert two.status == 200
    both = two.take(5)
    one.close()  # the one that asked leaves: the other keeps it alive
    both += two.rest()
    assert both[:20] == events
    assert numbers(both) == list(range(1, len(both) + 1))


def test_whole_answers_are_joined_too(server):
    body = completion(200, stream=False)
    first = server.client._open("POST", "/v1/completions", body, {"Authorization": f"Bearer {ALICE}", "Idempotency-Key": "whole"})
    second = server.client._open("POST", "/v1/completions", body, {"Authorization": f"Bearer {ALICE}", "Idempotency-Key": "whole"})
    answers = [c.getresponse().read() for c in (first, second)]
    assert answers[0] == answers[1] and json.loads(answers[0])["usage"]["completion_tokens"] == 200
    third = server.post("/v1/completions", body, headers={"Authorization": f"Bearer {ALICE}", "Idempotency-Key": "whole"})
    assert third.body == answers[0]


def test_only_its_owner_comes_back(server):
    s = Stream(server, completion(300), "mine", path="/v1/completions")
    (last, _), = s.take(1)
    other = Stream(server, None, last=last, path="/v1/completions", caller=BOB)
    assert other.status == 404 and "not here" in other.error()["message"]
    bobs = Stream(server, completion(300), "mine", path="/v1/completions", caller=BOB)  # a key is its owner's
    assert bobs.event()[0].split("-")[0] != last.split("-")[0]
    bobs.close()
    s.close()


def test_a_key_is_one_request(server):
    s = Stream(server, completion(300), "once", path="/v1/completions")
    s.take(1)
    other = Stream(server, completion(301), "once", path="/v1/completions")
    assert other.status == 400 and other.error()["message"].startswith("Idempotency-Key: it came with another request")
    assert Stream(server, completion(300), "once", path="/v1/chat/completions").status == 400
    s.close()


@pytest.mark.parametrize("last, status", [("", 400), ("7", 400), ("x" * 16 + "-1", 400), ("0" * 16 + "-1", 400), ("0123456789abcdef-1", 404),
                                          ("0123456789abcdef-", 400), ("0123456789abcdef--1", 400), ("0123456789ABCDEF-1", 400),
                                          ("0123456789abcdef-" + "9" * 30, 400)])
def test_other_ids_are_refused(server, last, status):
    s = Stream(server, completion(1), last=last, path="/v1/completions")
    assert s.status == status
    assert s.error()["message"].startswith("Last-Event-ID:")


@pytest.mark.parametrize("key", ["", "a b", "k" * 256, "schl\u00fcssel"])
def test_other_keys_are_refused(server, key):
    s = Stream(server, completion(1), key, path="/v1/completions")
    assert s.status == 400 and s.error()["message"].startswith("Idempotency-Key:")


def test_an_event_of_the_future_is_refused(server):
    s = Stream(server, completion(300), "future", path="/v1/completions")
    (last, _), = s.take(1)
    other = Stream(server, None, last=last.split("-")[0] + "-100000", path="/v1/completions")
    assert other.status == 400 and "not been sent yet" in other.error()["message"]
    s.close()


def test_only_the_newest_events_are_kept(small):
    """Those that fell out are named, and what is there can be had."""
    body = long_events(800, 10)
    s = Stream(small, body, "ring")
    events = s.rest()
    assert sum(len(data) for _, data in events) > 2 << 20
    early = Stream(small, None, last=events[0][0])
    assert early.status == 404
    kept = int(re.search(r"from number (\d+) on", early.error()["message"])[1])
    assert 2 < kept <= len(events)
    assert Stream(small, None, last=events[kept - 2][0]).rest() == events[kept - 1:]
    assert Stream(small, body, "ring").status == 404


def test_nobody_there_pauses_and_the_next_one_has_all(small):
    """Nobody reads: what it missed is kept, the request pauses before any is lost, and goes on for who comes back."""
    for attempt in range(20):  # a client may be so slow to leave that the sockets took more than is kept
        s = Stream(small, long_events(400, 10), f"away-{attempt}")
        events = s.take(1)
        s.close()
        load = wait_for("it to pause", lambda: (load := small.load())["num_running_reqs"] == 0 and load)
        again = Stream(small, None, last=events[0][0])
        if again.status == 200 and load["num_used_tokens"]:
            break
        assert again.status == 200 or "are kept from number" in again.error()["message"]
        assert small.post("/abort_request", {"abort_all": True}).status == 200
    events += again.rest()
    assert numbers(events) == list(range(1, len(events) + 1))
    assert json.loads(events[-2][1])["meta_info"]["completion_tokens"] == 400


def test_who_does_not_come_back_frees_its_pages(hasty):
    s = Stream(hasty, completion(8000, ignore_eos=True), "gone", path="/v1/completions")
    (last, _), = s.take(1)
    s.close()
    wait_for("all pages to be free or in the tree", hasty.is_idle)
    wait_for("it to be forgotten", lambda: Stream(hasty, None, last=last, path="/v1/completions").status == 404)
    s = Stream(hasty, completion(5), "gone2", path="/v1/completions")
    events = s.rest()
    wait_for("it to be forgotten", lambda: Stream(hasty, None, last=events[0][0], path="/v1/completions").status == 404)
    again = Stream(hasty, completion(5), "gone2", path="/v1/completions").rest()
    assert numbers(again)[0] == 1 and again[0][0] != events[0][0], "a new generation"


def test_kills_and_cuts_together(server):
    """The scheduler and the worker die while nobody follows: the stream that goes on is the undisturbed one."""
    whole = run(server, n=600)
    s = Stream(server, completion(600), "kills", path="/v1/completions")
    events = s.take(3)
    s.close()
    server.restart("gpu-worker")
    server.restart("scheduler")
    again = Stream(server, None, last=events[-1][0], path="/v1/completions")
    assert again.status == 200
    assert said(events + again.rest()) == whole


def test_an_aborted_one_ends_for_all_that_follow(server):
    body = completion(4000, rid="to-abort", ignore_eos=True)
    one = Stream(server, body, "abort", path="/v1/completions")
    two = Stream(server, body, "abort", path="/v1/completions")
    one.take(2)
    answer = server.post("/abort_request", {"rid": "to-abort"}, headers={"Authorization": f"Bearer {ALICE}"})
    assert answer.status == 200
    for s in (one, two):
        events = s.rest()
        assert events[-1][1] == "[DONE]" and json.loads(events[-2][1])["choices"][0]["finish_reason"] == "abort"


def test_it_is_off_by_option():
    with Daemons(router=["--resume-grace", "0"]) as d:
        s = Stream(d, completion(4), "off", path="/v1/completions")
        assert {i for i, _ in s.rest()} == {None}
