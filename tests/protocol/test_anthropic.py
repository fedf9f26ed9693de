"""Anthropic's /v1/messages: a stand-in that says the user's own words again plays the model (test_tools.py)."""

import json

import pytest

from protocol.test_tools import CALL, END, parrot, salts  # noqa: F401 - a fixture

TOOLS = [{"name": "get", "description": "", "input_schema": {"type": "object"}}]


def body(text, **more):
    return {"model": "m", "messages": [{"role": "user", "content": text + END}], "stop_sequences": [END], "max_tokens": 2000,
            "temperature": 0, "cache_salt": f"anthropic-{next(salts)}", **more}


def events_of(server, b):
    """(event, data) of a stream; each has its event line, or their client drops it."""
    answer = server.post("/v1/messages", {**b, "stream": True})
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/event-stream"), answer
    events = []
    for block in answer.body.decode().strip().split("\n\n"):
        event, data = block.split("\n")
        events.append((event.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
        assert events[-1][0] == events[-1][1]["type"]
    return events


def put_together(events):
    """The message that a client makes of the events."""
    assert events[0][0] == "message_start" and events[-2][0] == "message_delta" and events[-1][0] == "message_stop"
    message, open_block = events[0][1]["message"], None
    for event, data in events[1:-2]:
        if event == "content_block_start":
            assert open_block is None and data["index"] == len(message["content"])
            open_block = data["index"]
            message["content"].append(data["content_block"])
            continue
        assert data["index"] == open_block
        block = message["content"][open_block]
        if event == "content_block_stop":
            open_block = None
        elif data["delta"]["type"] == "input_json_delta":
            block["input"] = json.loads(data["delta"]["partial_json"])
        else:
            key = data["delta"]["type"].removesuffix("_delta")
            block[key] += data["delta"][key]
    assert open_block is None
    message.update(events[-2][1]["delta"], usage=events[-2][1]["usage"])
    return message


@pytest.mark.parametrize("text, blocks", [
    ("plain words", ["text"]), (CALL, ["tool_use"]), ("I look. " + CALL + CALL, ["text", "tool_use", "tool_use"]),
    ("<think>hm</think>Yes. " + CALL, ["thinking", "text", "tool_use"]), ("<think>hm</think>" + CALL, ["thinking", "tool_use"]), ("", []),
])
def test_whole_and_streamed_are_the_same(parrot, text, blocks):  # noqa: F811
    b = body(text, tools=TOOLS)
    whole = parrot.ok("/v1/messages", b)
    assert [c["type"] for c in whole["content"]] == blocks
    assert whole["stop_reason"] == ("tool_use" if "tool_use" in blocks else "stop_sequence")
    assert whole["role"] == "assistant" and whole["type"] == "message" and whole["id"].startswith("msg_")
    for c in whole["content"]:
        c.pop("signature", None)
        if c["type"] == "tool_use":
            assert c["input"] == {"x": "a b"} and c["name"] == "get" and c.pop("id")
    streamed = put_together(events_of(parrot, {**b, "cache_salt": f"again-{next(salts)}"}))
    for c in streamed["content"]:
        c.pop("id", None)
    same = ["role", "type", "model", "content", "stop_reason", "stop_sequence", "usage"]
    assert {k: streamed[k] for k in same} == {k: whole[k] for k in same}


def test_max_tokens_ends_it(parrot):  # noqa: F811
    whole = parrot.ok("/v1/messages", body("a long story of many words", max_tokens=3))
    assert whole["stop_reason"] == "max_tokens" and whole["usage"]["output_tokens"] == 3


def test_tokens_are_counted(server):
    messages = [{"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "text", "text": " you"}]}]
    b = {"model": "m", "system": "Be kind.", "messages": messages}
    count = server.ok("/v1/messages/count_tokens", b)["input_tokens"]
    chat = server.ok("/v1/chat/completions", {"max_tokens": 1, "messages": [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello you"}]})
    assert count == chat["usage"]["prompt_tokens"]
    usage = server.ok("/v1/messages", {**b, "max_tokens": 1})["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == count


def test_counting_costs_no_step(server):
    """A tokenizer worker counts; the scheduler hears nothing of it."""
    before = server.load()["steps"]
    for i in range(5):
        server.ok("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": f"never asked before {i}"}]})
    assert server.load()["steps"] == before


def test_tools_and_results_reach_the_template(server):
    """The template of these tests shows role and content: a result is a message of the role tool."""
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "get", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "42"}]}]
    count = server.ok("/v1/messages/count_tokens", {"messages": messages})["input_tokens"]
    same = [messages[0], {"role": "assistant", "content": ""}, {"role": "tool", "content": "42"}]
    chat = server.ok("/v1/chat/completions", {"max_tokens": 1, "messages": same})
    assert count == chat["usage"]["prompt_tokens"]


@pytest.mark.parametrize("more, named", [
    ({"max_tokens": None}, "max_tokens"), ({"messages": []}, "messages"), ({"messages": "x"}, "messages"), ({"messages": [1]}, "messages[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "image"), ({"temperature": "hot"}, "temperature"),
    ({"messages": [{"content": "x"}]}, "role"), ({"tool_choice": {"type": "any"}}, "tool_choice"), ({"max_tokens": -1}, "max_tokens"),
    ({"messages": [{"role": "user", "content": [5]}]}, "messages[0]"), ({"output_format": {"type": "json_schema"}}, "output_format"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format"), ({"output_config": {"effort": "hard"}}, "output_config.effort"),
    ({"tools": [{"input_schema": {}}]}, "tools[0].name"), ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"), ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search_20250305"),
])
def test_errors_are_in_its_form(server, more, named):
    answer = server.post("/v1/messages", body("x", **more))
    assert answer.status == 400 and answer.json["type"] == "error", answer
    assert answer.json["error"]["type"] == "invalid_request_error" and named in answer.json["error"]["message"]


@pytest.mark.parametrize("words", ["It be", [{"type": "text", "text": "It "}, {"type": "text", "text": "be"}]])
def test_an_answer_that_has_begun_is_gone_on_with(server, words):
    """Anthropic's clients put the beginning of the answer last; it was closed, and another answer begun behind it."""
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": words}]
    count = server.ok("/v1/messages/count_tokens", {"messages": messages})["input_tokens"]
    begun = [messages[0], {"role": "assistant", "content": "It be"}]
    same = {"max_tokens": 5, "temperature": 0, "messages": begun, "continue_final_message": True}
    chat = server.ok("/v1/chat/completions", same)
    whole = server.ok("/v1/messages", {"max_tokens": 5, "temperature": 0, "messages": messages})
    assert count == chat["usage"]["prompt_tokens"] < server.ok("/v1/chat/completions", {"max_tokens": 1, "messages": begun})["usage"]["prompt_tokens"]
    assert whole["content"][0]["text"] == chat["choices"][0]["message"]["content"]
