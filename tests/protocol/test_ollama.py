"""Ollama's dialect: lines of JSON. A stand-in that says the user's own words again plays the model (test_tools.py)."""

import json
from datetime import datetime

import pytest

from protocol.test_tools import CALL, END, parrot, salts  # noqa: F401 - a fixture

TOOLS = [{"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}]


def chat(text, **more):
    return {"model": "m", "messages": [{"role": "user", "content": text + END}], "options": {"temperature": 0, "stop": [END]},
            "cache_salt": f"ollama-{next(salts)}", **more}


def lines_of(server, path, b):
    answer = server.post(path, b)
    assert answer.status == 200 and answer.headers["Content-Type"] == "application/x-ndjson", answer
    lines = [json.loads(line) for line in answer.body.decode().splitlines()]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    return lines


@pytest.mark.parametrize("text, content, thinking, n_calls", [
    ("plain words", "plain words", "", 0), ("I look. " + CALL + CALL, "I look.", "", 2), ("<think>hm</think>Yes.", "Yes.", "hm", 0),
    # arguments over several lines, which made several of an answer's one
    (CALL.replace("{\"x\": ", "{\n  \"x\": ").replace("b\"}", "b\"\r\n}"), "", "", 1),
])
def test_chat_streams_the_same(parrot, text, content, thinking, n_calls):  # noqa: F811
    whole = parrot.ok("/api/chat", chat(text, tools=TOOLS, stream=False))
    message = whole["message"]
    assert (message["content"], message.get("thinking", "")) == (content, thinking) and message["role"] == "assistant"
    assert message.get("tool_calls", []) == [{"function": {"name": "get", "arguments": {"x": "a b"}}}] * n_calls
    assert whole["done"] is True and whole["done_reason"] == "stop" and whole["eval_count"] > 0
    lines = lines_of(parrot, "/api/chat", chat(text, tools=TOOLS))  # a stream unless told otherwise
    assert "".join(line["message"]["content"] for line in lines) == content
    assert "".join(line["message"].get("thinking", "") for line in lines) == thinking
    assert sum((line["message"].get("tool_calls", []) for line in lines), []) == message.get("tool_calls", [])
    same = ["done_reason", "prompt_eval_count", "eval_count", "model"]
    assert {k: lines[-1][k] for k in same} == {k: whole[k] for k in same}


def test_generate_streams_the_same(server):
    b = {"model": "m", "prompt": "hello", "system": "Be kind.", "options": {"temperature": 0, "num_predict": 12}}
    whole = server.ok("/api/generate", {**b, "stream": False})
    assert whole["eval_count"] == 12 and whole["done_reason"] == "length"
    assert "".join(line["response"] for line in lines_of(server, "/api/generate", b)) == whole["response"]
    same = server.ok("/v1/chat/completions", {"max_tokens": 12, "temperature": 0, "messages": [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]})
    assert whole["response"] == same["choices"][0]["message"]["content"]
    assert whole["prompt_eval_count"] == same["usage"]["prompt_tokens"]


def test_raw_is_the_prompt_alone(server):
    """raw: true was refused, though /v1/completions does the same: base models have no template, and fill-in-the-middle brings its own."""
    b = {"model": "m", "prompt": "hello", "raw": True, "options": {"temperature": 0, "num_predict": 20}}
    said = server.ok("/api/generate", {**b, "stream": False})
    same = server.ok("/v1/completions", {"prompt": "hello", "max_tokens": 20, "temperature": 0})
    assert said["response"] == same["choices"][0]["text"] and said["eval_count"] == 20
    assert said["prompt_eval_count"] == same["usage"]["prompt_tokens"]
    assert "".join(line["response"] for line in lines_of(server, "/api/generate", b)) == said["response"]
    unlimited = server.ok("/api/generate", {**b, "stream": False, "options": {"temperature": 0, "num_predict": -1}})
    assert unlimited["eval_count"] > 16  # which is what a completion has that does not say


def test_how_long_it_took_is_told(server):
    """eval_duration was not there: `ollama run --verbose` and all who divide eval_count by it had a KeyError, or infinity."""
    b = {"model": "m", "prompt": "hello", "options": {"num_predict": 5}}
    for last in (server.ok("/api/generate", {**b, "stream": False}), lines_of(server, "/api/generate", b)[-1],
                 server.ok("/api/generate", {**b, "stream": False, "options": {"num_predict": 1}})):
        assert last["prompt_eval_duration"] > 0 and last["eval_duration"] > 0, last
        assert last["prompt_eval_duration"] + last["eval_duration"] <= last["total_duration"] + 1, last


def test_facts(server):
    (model,) = server.get("/api/tags").json["models"]
    assert model["name"] == model["model"] == "stand-in" and model["details"]["family"] == "stand-in"
    (started,) = server.get("/v1/models").json["data"]
    assert datetime.fromisoformat(model["modified_at"]).timestamp() == started["created"]
    shown = server.ok("/api/show", {"model": "stand-in"})
    assert shown["model_info"]["stand-in.context_length"] == 8192 and shown["capabilities"] == ["completion"]
    assert server.get("/api/version").json["version"]


def test_what_the_parsers_give_is_told(parrot):  # noqa: F811
    assert parrot.ok("/api/show", {})["capabilities"] == ["completion", "tools", "thinking"]


@pytest.mark.parametrize("path, more, named", [
    ("chat", {"messages": "x"}, "messages"), ("chat", {"logprobs": True}, "logprobs"), ("chat", {"format": "json"}, "format"),
    ("chat", {"messages": [{"role": "user", "content": "x", "images": ["AA=="]}]}, "images"), ("chat", {"stream": 1}, "stream"),
    ("chat", {"options": {"temperature": "hot"}}, "temperature"), ("chat", {"options": 5}, "options"),
    ("chat", {"think": "hard"}, "think"), ("generate", {"prompt": 5}, "prompt"), ("generate", {"prompt": "x", "raw": True, "system": "s"}, "system"), ("generate", {"prompt": "x", "raw": 1}, "raw"), ("chat", {"raw": True}, "raw"), ("generate", {"prompt": "x", "suffix": "y"}, "suffix"),
])
def test_errors_are_in_its_form(server, path, more, named):
    base = chat("x") if path == "chat" else {"model": "m"}
    answer = server.post(f"/api/{path}", {**base, **more})
    assert answer.status == 400 and named in answer.json["error"], answer


@pytest.mark.parametrize("path, key", [("chat", "message"), ("generate", "response")])
def test_nothing_said_asks_for_the_model_alone(server, path, key):
    """`ollama run` begins so, and `ollama stop` ends so: it was refused, and neither program went on."""
    before = server.load()["steps"]
    for more, reason in [({}, "load"), ({"messages": [], "prompt": "", "keep_alive": 0}, "unload"), ({"keep_alive": "5m", "stream": False}, "load")]:
        said = server.ok(f"/api/{path}", {"model": "m", **more})
        assert said["done"] is True and said["done_reason"] == reason and said["model"] == "m", said
        assert said[key] == ({"role": "assistant", "content": ""} if path == "chat" else "")
    assert server.load()["steps"] == before


def test_a_body_needs_no_header_as_on_ollamas_pages(server):
    """Every curl of Ollama's pages was 415: curl calls a body a form unless told otherwise. A page in a browser may send a form to anyone."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    b = {"model": "m", "prompt": "hello", "stream": False, "options": {"num_predict": 3}}
    assert server.post("/api/generate", b, headers=form).json["eval_count"] == 3
    assert server.post("/api/show", {"model": "m"}, headers=form).status == 200
    assert server.post("/api/generate", b, headers={**form, "Origin": "https://elsewhere.example"}).status == 415
    assert server.post("/api/generate", b, headers={**form, "Sec-Fetch-Site": "cross-site"}).status == 415
    assert server.post("/v1/completions", {"prompt": "x"}, headers=form).status == 415
