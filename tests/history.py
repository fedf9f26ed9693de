"""What a client saw of a stream, checked against what it was promised, whatever died meanwhile:

    prefix-consistent     text and ids that were delivered never change: each event goes on from the last one
    exactly once          nothing comes twice and nothing is left out, over all connections of one stream
    one terminal event    each sample ends once, and so does the stream; nothing comes behind an end

    h = History()         h.event(data), each event's data as it comes;  h.numbered(id), where events have ids;
    h.samples()           at the end: what came of each sample, for comparing runs

    of_bytes(raw)         the same of a whole HTTP answer, as load.c wrote it down
"""

import json


class History:
    def __init__(self):
        self.last, self.is_done, self.name, self.n = {}, False, None, 0

    def event(self, data):
        """data: of one event of /generate, cumulative. Returns what it was parsed to."""
        assert not self.is_done, f"an event behind [DONE]: {data[:200]}"
        if data == "[DONE]":
            self.is_done = True
            return None
        event = json.loads(data)
        assert "error" not in event, f"an error in a stream: {data[:500]}"
        key, ids = event.get("index", 0), event["output_ids"]
        old = self.last.get(key)
        if old:
            assert old["meta_info"]["finish_reason"] is None, "an event behind a sample's last one"
            assert event["text"].startswith(old["text"]), "text that was delivered changed"
            assert ids[: len(old["output_ids"])] == old["output_ids"], "ids that were delivered changed"
            assert len(ids) > len(old["output_ids"]) or event["meta_info"]["finish_reason"] or event["text"] != old["text"], \
                "an event that says nothing new"
        assert event["meta_info"]["completion_tokens"] == len(ids), "the count is not that of the ids"
        self.last[key] = event
        return event

    def numbered(self, event_id):
        """event_id: NAME-NUMBER; one name, and numbers from 1 on without a gap, over all connections."""
        name, _, number = event_id.rpartition("-")
        assert self.name in (None, name), f"a stream of another name: {event_id} behind {self.name}"
        assert int(number) == self.n + 1, f"number {number} behind {self.n}"
        self.name, self.n = name, self.n + 1

    def samples(self):
        assert self.is_done, "a stream without [DONE]"
        assert self.last and all(e["meta_info"]["finish_reason"] for e in self.last.values()), "a sample without an end"
        return [(e["text"], e["output_ids"], e["meta_info"]["finish_reason"], e["meta_info"]["prompt_tokens"],
                 e["meta_info"]["completion_tokens"], len(e["meta_info"].get("output_token_logprobs", [])))
                for _, e in sorted(self.last.items())]


def body_of(raw):
    """The body of an HTTP/1.1 answer, chunks joined; its end must have come."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    assert status == [b"200"], f"not an answer of 200: {raw[:300]!r}"
    assert b"transfer-encoding: chunked" in head.lower(), head
    parts = []
    while True:
        size, sep, rest = rest.partition(b"\r\n")
        assert sep, "cut within a chunk"
        n = int(size, 16)
        assert rest[n:n + 2] == b"\r\n", "cut within a chunk"
        if n == 0:
            assert rest == b"\r\n", "bytes behind the end"
            return b"".join(parts)
        parts.append(rest[:n])
        rest = rest[n + 2:]


def of_bytes(raw):
    """What came of each sample of a whole answer."""
    h, events = History(), body_of(raw).split(b"\n\n")
    assert events.pop() == b"", "cut within an event"
    for event in events:
        if event.startswith(b":"):  # a comment keeps the connection alive
            continue
        assert event.startswith(b"data: "), event[:200]
        h.event(event[len("data: "):].decode())
    return h.samples()
