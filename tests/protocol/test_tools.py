"""Tool calls and reasoning of chat completions: a stand-in that says the user's own words again plays the model."""

import itertools
import json

import openai
import pytest

from harness import Daemons

TOOLS = [{"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}]
CALL = '<tool_call>\n{"name": "get", "arguments": {"x": "a b"}}\n</tool_call>'
END = "<END>"
salts = itertools.count()


@pytest.fixture(scope="module")
def parrot(tmp_path_factory):
    template = tmp_path_factory.mktemp("template") / "last.jinja"
    template.write_text("{{ messages[-1].content }}")
    quiet = ["--log-level", "warn"]
    with Daemons(router=[*quiet, "--tool-call-parser", "hermes", "--reasoning-parser", "qwen3"], gpu_worker=["--parrot", "1"],
                 scheduler=quiet, tokenizer_worker=["--chat-template", str(template)]) as d:
        yield d


def body(text, **more):
    return {"messages": [{"role": "user", "content": text + END}], "stop": END, "tools": TOOLS, "temperature": 0,
            "max_tokens": 2000, "cache_salt": f"parrot-{next(salts)}", **more}


def say(server, text, **more):
    choice = server.ok("/v1/chat/completions", body(text, **more))["choices"][0]
    return choice["message"], choice["finish_reason"]


def streamed(server, text, **more):
    """(message put together from the deltas, finish_reason)"""
    message, reason = {"content": "", "reasoning_content": "", "tool_calls": []}, None
    for event in server.stream("/v1/chat/completions", body(text, **more)):
        choice = event["choices"][0]
        reason = choice["finish_reason"] or reason
        for key in ("content", "reasoning_content"):
            message[key] += choice["delta"].get(key) or ""
        for call in choice["delta"].get("tool_calls", []):
            assert call.pop("index") == len(message["tool_calls"])
            message["tool_calls"].append(call)
    return message, reason


def calls_of(message):
    return [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in message["tool_calls"] or []]


def test_a_text_that_came_otherwise_is_read_as_an_answer_would_be(server, parrot):
    """SGLang's /parse_function_call and /separate_reasoning: for who has the text from /generate. The parser is the request's or the server's."""
    text = "I look. " + CALL + CALL
    read = parrot.ok("/parse_function_call", {"text": text, "tools": TOOLS, "tool_call_parser": "qwen25"})
    assert parrot.ok("/parse_function_call", {"text": text}) == read
    message, _ = say(parrot, text)
    assert read["normal_text"] == message["content"]
    assert [(c["name"], json.loads(c["parameters"])) for c in read["calls"]] == calls_of(message) == [("get", {"x": "a b"})] * 2
    thought = {"text": "<think>\nwhy\n</think>\n\nSo."}
    assert parrot.ok("/separate_reasoning", thought) == {"reasoning_text": "why", "text": "So."}
    assert parrot.ok("/separate_reasoning", {"text": "why</think>So.", "reasoning_parser": "deepseek-r1"}) == {"reasoning_text": "why", "text": "So."}
    for path, more, named in (("/parse_function_call", {}, "tool_call_parser"), ("/separate_reasoning", {"reasoning_parser": "x"}, "reasoning_parser"),
                              ("/separate_reasoning", {"text": 5}, "text"), ("/parse_function_call", {"text": None}, "text")):
        answer = server.post(path, {"text": "a", **more})
        assert answer.status == 400 and named in answer.json["error"]["message"], answer


def test_tools_that_the_template_would_not_show_are_refused(server):
    """They were passed over with a line in the server's log: the client waited for calls of functions that its model had never seen."""
    messages, ours = [{"role": "user", "content": "x"}], {"name": "get", "input_schema": {"type": "object"}}
    for path, b in [("/v1/chat/completions", {"tools": TOOLS}), ("/v1/messages", {"tools": [ours], "max_tokens": 2}),
                    ("/api/chat", {"tools": TOOLS}), ("/v1/responses", {"input": "x", "tools": [{"type": "function", "name": "get"}]})]:
        answer = server.post(path, {**({} if "input" in b else {"messages": messages}), **b})
        assert answer.status == 400 and b"tools: the model does not support tools" in answer.body, answer
    said = {"messages": messages, "max_tokens": 2}
    assert server.post("/v1/chat/completions", {**said, "tools": TOOLS, "tool_choice": "none"}).status == 200
    assert server.post("/v1/chat/completions", {**said, "tools": []}).status == 200


SAID = [
    ("plain words", "plain words", "", 0),
    ("I look.\n" + CALL, "I look.", "", 1),
    (CALL + "\n" + CALL, None, "", 2),
    ("<think>\nhm, a call?\n</think>\n\nYes.\n" + CALL, "Yes.", "hm, a call?", 1),
    ("<think>only thought", "", "only thought", 0),
    ("a <tool_call> is no call", "a <tool_call> is no call", "", 0),
]


@pytest.mark.parametrize("text, content, reasoning, n_calls", SAID)
def test_whole_and_streamed_are_the_same(parrot, text, content, reasoning, n_calls):
    message, reason = say(parrot, text)
    assert message["content"] == content and (message["reasoning_content"] or "") == reasoning
    assert calls_of(message) == [("get", {"x": "a b"})] * n_calls
    assert reason == ("tool_calls" if n_calls else "stop")
    parts, stream_reason = streamed(parrot, text)
    assert parts["content"] == (content or "") and parts["reasoning_content"] == reasoning
    assert calls_of(parts) == calls_of(message) and stream_reason == reason
    assert len({c["id"] for c in parts["tool_calls"]}) == n_calls


def test_values_between_marks_are_what_the_schema_says(tmp_path):
    """The request's JSON is gone when its answer comes: of which types arguments are is kept. A parser of thoughts whose marks are special."""
    template = tmp_path / "last.jinja"
    template.write_text("{{ messages[-1].content }}")
    properties = {"n": {"type": "integer"}, "s": {"type": "string"}}
    tools = [{"type": "function", "function": {"name": "get", "parameters": {"type": "object", "properties": properties}}}]
    text = "<|channel>thought\nhm<channel|>So. <tool_call>\n<function=get>\n<parameter=n>\n5\n</parameter>\n<parameter=s>\n5\n</parameter>\n</function>\n</tool_call>"
    quiet = ["--log-level", "warn"]
    with Daemons(router=[*quiet, "--tool-call-parser", "qwen3_coder", "--reasoning-parser", "gemma4"], gpu_worker=["--parrot", "1"],
                 scheduler=quiet, tokenizer_worker=["--chat-template", str(template)]) as d:
        for message, reason in (say(d, text, tools=tools), streamed(d, text, tools=tools)):
            assert calls_of(message) == [("get", {"n": 5, "s": "5"})] and reason == "tool_calls"
            assert (message["content"], message["reasoning_content"]) == ("So.", "hm")
        asked = {"text": text, "tools": tools, "tool_call_parser": "qwen3_coder"}
        assert json.loads(d.ok("/parse_function_call", asked)["calls"][0]["parameters"]) == {"n": 5, "s": "5"}


def tokens_before(server, text, marker):
    """How many tokens of the text begin before the marker ends."""
    ids, at, n = server.ok("/tokenize", {"prompt": text + END, "add_special_tokens": False})["tokens"], 0, 0
    end = text.index(marker) + len(marker)
    for i in ids:
        n += at < end
        at += len(server.ok("/detokenize", {"tokens": [i], "skip_special_tokens": False})["text"])
    assert at == len(text + END)
    return n


def test_reasoning_tokens_are_counted(parrot):
    text = "<think>\nhm, a call?\n</think>\n\nYes."
    want = tokens_before(parrot, text, "</think>")
    whole = parrot.ok("/v1/chat/completions", body(text))["usage"]
    assert whole["completion_tokens_details"] == {"reasoning_tokens": want} and 3 < want < whole["completion_tokens"]
    last = list(parrot.stream("/v1/chat/completions", body(text, stream_options={"include_usage": True})))[-1]["usage"]
    assert last["completion_tokens_details"] == {"reasoning_tokens": want}
    answer = parrot.ok("/v1/responses", {"input": text + END, "stop": END, "temperature": 0})
    assert answer["usage"]["output_tokens_details"]["reasoning_tokens"] == want
    cut = parrot.ok("/v1/chat/completions", body(text, max_tokens=want - 1))["usage"]
    assert cut["completion_tokens_details"]["reasoning_tokens"] == cut["completion_tokens"] == want - 1
    assert parrot.ok("/v1/chat/completions", body("No thought."))["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0


def test_without_tools_a_call_is_text(parrot):
    assert say(parrot, CALL, tools=None)[0]["content"] == CALL
    message, reason = say(parrot, CALL, tool_choice="none")
    assert (message["content"], message["tool_calls"], reason) == (CALL, None, "stop")


def test_only_one_call_when_so_asked(parrot):
    assert len(say(parrot, CALL + CALL, parallel_tool_calls=False)[0]["tool_calls"]) == 1
    assert len(streamed(parrot, CALL + CALL, parallel_tool_calls=False)[0]["tool_calls"]) == 1


def test_reasoning_stays_where_it_is_when_so_asked(parrot):
    text = "<think>hm</think>Hi"
    assert say(parrot, text, separate_reasoning=False)[0]["content"] == text


@pytest.mark.parametrize("text, content, n_calls", [("<think>hm</think>Hi", "Hi", 0), ("<think>hm</think>\n" + CALL, None, 1), ("<think>only thought", "", 0)])
def test_reasoning_is_left_out_when_so_asked(parrot, text, content, n_calls):
    """vLLM's include_reasoning was no field, and the reasoning came; its tokens count all the same."""
    message, _ = say(parrot, text, include_reasoning=False)
    assert (message["content"], message["reasoning_content"], len(message["tool_calls"] or [])) == (content, None, n_calls)
    parts, _ = streamed(parrot, text, include_reasoning=False)
    assert (parts["content"] or content, parts["reasoning_content"], len(parts["tool_calls"])) == (content, "", n_calls)
    usage = parrot.ok("/v1/chat/completions", body(text, include_reasoning=False))["usage"]
    assert usage["reasoning_tokens"] == parrot.ok("/v1/chat/completions", body(text))["usage"]["reasoning_tokens"] > 0


def test_logprobs_are_complete_when_text_is_held_back(parrot):
    more = {"logprobs": True, "max_tokens": 30}
    whole = parrot.ok("/v1/chat/completions", body(CALL, **more))["choices"][0]["logprobs"]["content"]
    parts = [e for event in parrot.stream("/v1/chat/completions", body(CALL, **more))
             for e in (event["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert parts == whole and len(whole) == 30


def test_with_the_client(parrot):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{parrot.port}/v1", api_key="none", max_retries=0) as client:
        b = body(CALL)
        salt = {"cache_salt": b.pop("cache_salt")}
        (call,) = client.chat.completions.create(model="m", extra_body=salt, **b).choices[0].message.tool_calls
        assert call.function.name == "get" and call.id.startswith("call_") and call.type == "function"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get"}}, 5])
def test_a_forced_call_is_refused(parrot, choice):
    answer = parrot.post("/v1/chat/completions", body("x", tool_choice=choice))
    assert answer.status == 400 and answer.json["error"]["param"] == "tool_choice"
    text = answer.json["error"]["message"]
    assert "grammars" in text and "ask for auto" in text, "why, and what to do instead"


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get"}])
def test_a_forced_call_is_refused_in_anthropics_form(parrot, choice):
    tools = [{"name": "get", "input_schema": {"type": "object"}}]
    answer = parrot.post("/v1/messages", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5, "tools": tools, "tool_choice": choice})
    assert answer.status == 400 and answer.json["error"]["message"].startswith("tool_choice:") and answer.json["error"]["type"] == "invalid_request_error"


# ---- reasoning ----


@pytest.mark.parametrize("text, n_more", [("<think>one two three</think>Yes.", 0), ("Yes.", None), ("<think>never ends, for it is cut", 1)])
def test_reasoning_tokens_are_counted(parrot, text, n_more):
    """By the texts of the tokens: a stream, whatever its events, and a whole answer tell the same."""
    asked = {"max_tokens": 12} if n_more else {}
    usage = parrot.ok("/v1/chat/completions", body(text, **asked))["usage"]
    n = usage["completion_tokens_details"]["reasoning_tokens"]
    assert usage["reasoning_tokens"] == n
    assert n == (usage["completion_tokens"] if n_more else 0) if n_more != 0 else 0 < n < usage["completion_tokens"]
    events = parrot.stream("/v1/chat/completions", body(text, **asked, stream_options={"include_usage": True, "continuous_usage_stats": True}))
    counts = [e["usage"]["reasoning_tokens"] for e in events]
    assert counts[-1] == n and counts == sorted(counts)


def test_reasoning_effort_reaches_the_template(tmp_path):
    """As a variable of that name; none is also what templates know as enable_thinking and thinking. The client's own go first."""
    template = tmp_path / "effort.jinja"
    template.write_text("{{ reasoning_effort }} {{ enable_thinking }} {{ thinking }}" + END)
    quiet = ["--log-level", "warn"]
    with Daemons(router=quiet, gpu_worker=["--parrot", "1"], scheduler=quiet, tokenizer_worker=["--chat-template", str(template)]) as d:
        says = lambda **more: d.ok("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "stop": END, "temperature": 0, **more})[
            "choices"][0]["message"]["content"]
        assert says(reasoning_effort="high").split() == ["high"] and says(reasoning_effort=0.5).split() == ["0.5"]
        assert says(reasoning_effort="none").split() == ["none", "False", "False"]
        assert says(reasoning_effort="none", chat_template_kwargs={"thinking": True}).split() == ["none", "False", "True"]
        assert says(reasoning_effort="low", chat_template_kwargs={"reasoning_effort": "mine"}).split() == ["mine"]
        assert says(chat_template_kwargs={"enable_thinking": True}).split() == ["True"] and says(reasoning_effort=None).split() == []
        for bad in ("much", 1, -0.1, True, ["low"]):
            answer = d.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "reasoning_effort": bad})
            assert answer.status == 400 and answer.json["error"]["param"] == "reasoning_effort"


def test_a_template_that_asks_for_none_gets_it(tmp_path):
    """Some know a message that calls by its content, which is none; test_a_message_without_content has the others."""
    template = tmp_path / "none.jinja"
    template.write_text("{% for m in messages %}{% if m['content'] is none %}calls{% else %}({{ m.content }}){% endif %}{% endfor %}")
    quiet = ["--log-level", "warn"]
    with Daemons(router=quiet, scheduler=quiet, tokenizer_worker=["--chat-template", str(template)]) as d:
        messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None}, {"role": "assistant", "content": ""}]
        assert d.ok("/apply_template", {"messages": messages})["prompt"] == "(x)calls()"
