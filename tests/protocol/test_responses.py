"""OpenAI's /v1/responses, without a store. A stand-in that says the user's own words again plays the model (test_tools.py)."""

import openai
import pytest

from protocol.test_tools import CALL, END, parrot, salts  # noqa: F401 - a fixture

TOOLS = [{"type": "function", "name": "get", "parameters": {"type": "object"}, "strict": False}]


@pytest.fixture
def client(parrot):  # noqa: F811
    with openai.OpenAI(base_url=f"http://127.0.0.1:{parrot.port}/v1", api_key="none", max_retries=0) as c:
        yield c


def body(text, **more):
    return {"model": "stand-in", "input": text + END, "temperature": 0, "tools": TOOLS,
            "extra_body": {"cache_salt": f"responses-{next(salts)}", "stop": END}, **more}


def items(response):
    """Without ids, and without what their client adds to a stream's."""
    told = [item.model_dump(exclude={"id", "call_id", "parsed_arguments"}) for item in response.output]
    for item in told:
        for part in item.get("content") or []:
            part.pop("parsed", None)
    return told


@pytest.mark.parametrize("text, words, kinds", [
    ("plain words", "plain words", ["message"]), (CALL, "", ["function_call"]), ("<think>hm</think>Yes. " + CALL + CALL, "Yes.", ["reasoning", "message", "function_call", "function_call"]),
])
def test_whole_and_streamed_are_the_same(client, text, words, kinds):
    whole = client.responses.create(**body(text))
    assert [item.type for item in whole.output] == kinds and whole.status == "completed"
    assert whole.output_text == words
    with client.responses.stream(**body(text)) as stream:  # their client puts it together, and minds the order
        events = list(stream)
        streamed = stream.get_final_response()
    assert items(streamed) == items(whole) and streamed.usage == whole.usage
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text
    assert [e.sequence_number for e in events if e.type.startswith("response.")] == sorted({e.sequence_number for e in events})
    assert events[0].type == "response.created" and events[-1].type == "response.completed"


def test_a_conversation_comes_whole(server):
    turns = [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
             {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]},
             *({"type": "function_call", "call_id": i, "name": "get", "arguments": "{}"} for i in "12"),
             *({"type": "function_call_output", "call_id": i, "output": "42"} for i in "12")]
    answer = server.ok("/v1/responses", {"instructions": "Be kind.", "input": turns, "max_output_tokens": 4, "temperature": 0})
    same = [("system", "Be kind."), ("user", "hello"), ("assistant", "Hi"), *[("tool", "42")] * 2]  # what he said and called is one message
    chat = server.ok("/v1/chat/completions", {"max_tokens": 4, "temperature": 0, "messages": [{"role": r, "content": c} for r, c in same]})
    assert answer["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]
    assert answer["output"][0]["content"][0]["text"] == chat["choices"][0]["message"]["content"]
    assert answer["status"] == "incomplete" and answer["incomplete_details"] == {"reason": "max_output_tokens"}


@pytest.mark.parametrize("more, named", [
    ({}, "input"), ({"input": []}, "input"), ({"input": [5]}, "input[0]"), ({"input": [{"type": "item_reference"}]}, "input[0]"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0]"), ({"input": "x", "previous_response_id": "r"}, "previous_response_id"),
    ({"input": "x", "background": True}, "background"), ({"input": "x", "text": {"format": {"type": "json_schema"}}}, "text.format: 'json_schema' takes grammars"),
    ({"input": "x", "max_tokens": 5}, "max_output_tokens: that is its name here, not max_tokens"), ({"input": "x", "messages": []}, "input: that is its name here, not messages"),
    ({"input": "x", "response_format": {"type": "text"}}, "text.format"), ({"input": "x", "top_logprobs": 2}, "top_logprobs"), ({"input": "x", "n": 2}, "n:"),
    ({"input": "x", "include": ["message.output_text.logprobs"]}, "logprobs"), ({"input": "x", "min_p": 7}, "min_p"), ({"input": "x", "seed": "a"}, "seed"),
    ({"input": "x", "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}]}, "tools[1]: one of type 'web_search'"), ({"input": "x", "temperature": -1}, "temperature"), ({"input": "x", "instructions": 5}, "instructions"),
])
def test_what_is_not_there_is_refused_by_name(server, more, named):
    answer = server.post("/v1/responses", more)
    assert answer.status == 400 and named in answer.json["error"]["message"], answer


def test_what_was_asked_for_stands_in_the_answer(client):
    asked = {"instructions": "Be kind.", "metadata": {"a": "b"}, "tool_choice": "auto", "max_output_tokens": 900, "user": "me", "reasoning": {"effort": "low"}}
    whole = client.responses.create(**body("plain words", **asked))
    streamed = [e.response for e in client.responses.create(**body("plain words", **asked), stream=True) if hasattr(e, "response")]
    for told in (whole, streamed[0], streamed[-1]):
        assert told.instructions == "Be kind." and told.metadata == {"a": "b"} and told.max_output_tokens == 900 and told.user == "me"
        assert told.reasoning.effort == "low" and told.tool_choice == "auto" and [t.name for t in told.tools] == ["get"]
    plain = client.responses.create(model="stand-in", input="x" + END, max_output_tokens=4)
    assert plain.instructions is None and plain.metadata == {} and plain.tools == [] and plain.store is False


def test_reasoning_tokens_are_counted(client):
    """Those up to the end mark: with the words behind it they are all that was said."""
    usage = client.responses.create(**body("<think>one two three</think>Yes.")).usage
    thought = usage.output_tokens_details.reasoning_tokens
    assert 0 < thought < usage.output_tokens
    assert client.responses.create(**body("<think>one two three</think>Yes, and more than that.")).usage.output_tokens_details.reasoning_tokens == thought
    assert client.responses.create(**body("Yes.")).usage.output_tokens_details.reasoning_tokens == 0


def test_an_unknown_model_is_404(client):
    with pytest.raises(openai.NotFoundError) as e:
        client.responses.create(model="other", input="x")
    assert e.value.code == "model_not_found" and e.value.param == "model" and "/v1/models" in e.value.message


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get"}])
def test_a_forced_call_is_refused(server, choice):
    answer = server.post("/v1/responses", {"input": "x", "tools": TOOLS, "tool_choice": choice})
    assert answer.status == 400 and answer.json["error"]["param"] == "tool_choice" and "grammars" in answer.json["error"]["message"]


def test_the_sampling_parameters_of_chats_hold_here(server):
    """SGLang's responses take them; seed, penalties and logit_bias were passed over in silence."""
    def said(**more):
        return server.ok("/v1/responses", {"input": "hello", "max_output_tokens": 8, **more})["output"][0]["content"][0]["text"]

    assert said(seed=5) == said(seed=5) and len({said(seed=i) for i in range(4)}) > 1
    for name, value in [("logit_bias", 5), ("repetition_penalty", 0), ("frequency_penalty", "x"), ("stop_token_ids", "x"), ("chat_template_kwargs", 5)]:
        answer = server.post("/v1/responses", {"input": "hello", name: value})
        assert answer.status == 400 and answer.json["error"]["param"] == name, answer
