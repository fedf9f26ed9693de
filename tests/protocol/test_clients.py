"""The clients that people have, as they come from the package index: what each does with our answers, whole, streamed and
with tools. SGLang's are in test_sglang_clients.py, OpenAI's plain calls in test_openai.py."""

import asyncio
import json

import anthropic
import ollama
import openai
import pytest

from protocol.test_tools import CALL, END, TOOLS, parrot, salts  # noqa: F401 - a fixture

SAID = "I look. " + CALL
ANTHROPIC_TOOLS = [{"name": "get", "description": "gets it", "input_schema": {"type": "object", "properties": {"x": {"type": "string"}}}}]


def url(server, path=""):
    return f"http://127.0.0.1:{server.port}{path}"


def salt():
    return {"cache_salt": f"clients-{next(salts)}"}


def words(text):
    return [{"role": "user", "content": text + END}]


# ---- openai ----


@pytest.fixture
def open_ai(parrot):  # noqa: F811
    with openai.OpenAI(base_url=url(parrot, "/v1"), api_key="none", max_retries=0) as c:
        yield c


def openai_body(text, **more):
    return {"model": "m", "messages": words(text), "stop": END, "temperature": 0, "max_tokens": 500, "extra_body": salt(), **more}


def test_openai_tools(open_ai):
    answer = open_ai.chat.completions.create(**openai_body(SAID, tools=TOOLS))
    (choice,) = answer.choices
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and choice.message.content == "I look."
    assert call.type == "function" and call.function.name == "get" and json.loads(call.function.arguments) == {"x": "a b"}


def test_openai_streams_tools(open_ai):
    """Their accumulator puts the message together from the deltas."""
    with open_ai.chat.completions.stream(**openai_body(SAID, tools=TOOLS)) as stream:
        events = list(stream)
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls" and final.message.content == "I look."
    (call,) = final.message.tool_calls
    assert call.function.name == "get" and json.loads(call.function.arguments) == {"x": "a b"}
    assert "tool_calls.function.arguments.done" in {e.type for e in events}


def test_openai_responses_stream(open_ai):
    whole = open_ai.responses.create(model="stand-in", input="hello" + END, max_output_tokens=200, temperature=0)
    events = list(open_ai.responses.create(model="stand-in", input="hello" + END, max_output_tokens=200, temperature=0, stream=True))
    assert events[0].type == "response.created" and events[-1].type in ("response.completed", "response.incomplete")
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text
    assert events[-1].response.output_text == whole.output_text


def test_openai_async(parrot):  # noqa: F811
    """Sixteen at a time on one loop, streams and whole answers mixed: each has its own text."""
    async def whole(c, i):
        return (await c.chat.completions.create(**openai_body(f"number {i}"))).choices[0].message.content

    async def streamed(c, i):
        stream = await c.chat.completions.create(**openai_body(f"number {i}", stream=True))
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=url(parrot, "/v1"), api_key="none", max_retries=0) as c:
            return await asyncio.gather(*[(streamed if i % 2 else whole)(c, i) for i in range(16)])

    assert asyncio.run(all_of_them()) == [f"number {i}" for i in range(16)]


# ---- anthropic ----


@pytest.fixture
def claude(parrot):  # noqa: F811
    with anthropic.Anthropic(base_url=url(parrot), api_key="none", max_retries=0) as c:
        yield c


def claude_body(text, **more):
    return {"model": "m", "messages": words(text), "stop_sequences": [END], "max_tokens": 500, "extra_body": {**salt(), "temperature": 0},
            **more}


def test_anthropic_whole(claude):
    message = claude.messages.create(**claude_body("plain words"))
    assert message.content[0].text == "plain words" and message.stop_reason == "stop_sequence" and message.stop_sequence == END
    assert message.usage.output_tokens > 0 and message.usage.input_tokens > 0
    cut = claude.messages.create(**{**claude_body("a long story of many words"), "max_tokens": 3})
    assert cut.stop_reason == "max_tokens" and cut.usage.output_tokens == 3


def test_anthropic_stream_is_put_together(claude):
    with claude.messages.stream(**claude_body("<think>hm</think>Yes. " + CALL, tools=ANTHROPIC_TOOLS)) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert [b.type for b in message.content] == ["thinking", "text", "tool_use"] and message.stop_reason == "tool_use"
    assert message.content[0].thinking == "hm" and text == message.content[1].text == "Yes."
    assert message.content[2].name == "get" and message.content[2].input == {"x": "a b"}


def test_anthropic_tools_go_round(claude):
    """What it asked for goes back as a result, as their guide writes it; the template gets all of it."""
    asked = claude.messages.create(**claude_body(SAID, tools=ANTHROPIC_TOOLS))
    call = next(b for b in asked.content if b.type == "tool_use")
    history = [*words(SAID), {"role": "assistant", "content": asked.content},
               {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "it is 42" + END}]}]
    assert claude.messages.create(**{**claude_body(""), "messages": history, "tools": ANTHROPIC_TOOLS}).content[0].text == "it is 42"


def test_anthropic_counts_tokens(claude):
    n = claude.messages.count_tokens(model="m", messages=words("plain words")).input_tokens
    usage = claude.messages.create(**claude_body("plain words")).usage
    assert n == usage.input_tokens + usage.cache_read_input_tokens


def test_anthropic_errors_are_its_exceptions(claude):
    with pytest.raises(anthropic.BadRequestError) as e:
        claude.messages.create(**{**claude_body("x"), "max_tokens": -1})
    assert e.value.body["error"]["type"] == "invalid_request_error" and "max_tokens" in e.value.body["error"]["message"]


def test_anthropic_async(parrot):  # noqa: F811
    async def one(c, i):
        async with c.messages.stream(**claude_body(f"number {i}")) as stream:
            return "".join([t async for t in stream.text_stream])

    async def all_of_them():
        async with anthropic.AsyncAnthropic(base_url=url(parrot), api_key="none", max_retries=0) as c:
            return await asyncio.gather(*[one(c, i) for i in range(8)])

    assert asyncio.run(all_of_them()) == [f"number {i}" for i in range(8)]


# ---- ollama ----

OPTIONS = {"temperature": 0, "stop": [END], "num_predict": 500}


@pytest.fixture
def llama(parrot):  # noqa: F811
    return ollama.Client(host=url(parrot))


def test_ollama_chat(llama):
    answer = llama.chat(model="m", messages=words(f"a whole one {next(salts)}"), options=OPTIONS)
    assert answer.done and answer.done_reason == "stop" and answer.message.content.startswith("a whole one")
    assert answer.eval_count > 0 and answer.prompt_eval_count > 0 and answer.total_duration > 0
    lines = list(llama.chat(model="m", messages=words("a streamed one"), options=OPTIONS, stream=True))
    assert "".join(line.message.content or "" for line in lines) == "a streamed one" and lines[-1].done


def test_ollama_tools_and_thinking(llama):
    def get(x: str) -> str:
        """Gets it.

        Args:
            x: what to get
        """
        return x

    for stream in (False, True):
        said = llama.chat(model="m", messages=words("<think>hm</think>Yes. " + CALL), options=OPTIONS, tools=[get], think=True, stream=stream)
        lines = list(said) if stream else [said]
        (call,) = [c for line in lines for c in line.message.tool_calls or []]
        assert call.function.name == "get" and get(**call.function.arguments) == "a b"
        assert "".join(line.message.thinking or "" for line in lines) == "hm"
        assert "".join(line.message.content or "" for line in lines) == "Yes."


def test_ollama_generate(llama):
    assert llama.generate(model="m", prompt="said again" + END, options=OPTIONS).response == "said again"
    assert "".join(line.response for line in llama.generate(model="m", prompt="said again" + END, options=OPTIONS, stream=True)) == "said again"


def test_ollama_facts(llama):
    assert [m.model for m in llama.list().models] == ["stand-in"]
    assert llama.show("stand-in").capabilities == ["completion", "tools", "thinking"]
    assert [m.model for m in llama.ps().models] == ["stand-in"]


def test_ollama_errors_are_its_exceptions(llama):
    with pytest.raises(ollama.ResponseError) as e:
        llama.chat(model="m", messages=words("x"), options={"temperature": -1})
    assert e.value.status_code == 400 and "temperature" in e.value.error


def test_ollama_async(parrot):  # noqa: F811
    async def one(c, i):
        return "".join([line.message.content or "" async for line in await c.chat(
            model="m", messages=words(f"number {i}"), options=OPTIONS, stream=True)])

    async def all_of_them():
        c = ollama.AsyncClient(host=url(parrot))
        return await asyncio.gather(*[one(c, i) for i in range(8)])

    assert asyncio.run(all_of_them()) == [f"number {i}" for i in range(8)]


def test_ollama_greets(server):
    """Its command and Open WebUI ask the root whether somebody is there."""
    answer = server.get("/")
    assert answer.status == 200 and b"Ollama is running" in answer.body
