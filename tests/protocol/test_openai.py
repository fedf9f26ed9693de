"""The OpenAI dialect, with their own client and without."""

import openai
import pytest

from harness import Daemons

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0) as c:
        yield c


OPENAIS = """audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens metadata modalities model n
parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_retention reasoning_effort response_format safety_identifier
seed service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options suffix
echo best_of""".split()
OTHERS = """add_generation_prompt add_special_tokens allowed_token_ids bad_words cache_salt chat_template chat_template_kwargs documents
ignore_eos include_stop_str_in_output kv_transfer_params length_penalty logits_processors min_p min_tokens mm_processor_kwargs priority
prompt_logprobs repetition_penalty request_id return_token_ids return_tokens_as_token_ids skip_special_tokens
spaces_between_special_tokens stop_token_ids structured_outputs top_k truncate_prompt_tokens use_beam_search vllm_xargs
cache_prompt dynatemp_range id_slot json_schema min_keep mirostat n_predict n_probs repeat_last_n repeat_penalty samplers typical_p xtc_threshold
custom_logit_processor ebnf lora_path no_stop_trim regex return_hidden_states separate_reasoning stop_regex stream_reasoning
num_ctx options keep_alive format think raw images system""".split()


def test_a_misspelt_field_is_told_once_in_the_log_and_others_never():
    """max_token, and the answer went on: like SGLang and vLLM we ignore what is no field, and nobody was told."""
    with Daemons() as d:
        log = lambda: (d.dir / "router.log").read_text()
        for name in (*OPENAIS, *OTHERS):
            for path, prompt in (("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}), ("/v1/completions", {"prompt": "hi"})):
                assert d.post(path, {**prompt, name: None, "max_tokens": 1}).status == 200, name
        d.ok("/v1/completions", {"prompt": "hi", "max_tokens": 1, **{f"max_token{i}" * 10: 1 for i in range(100)}})
        assert "none and was ignored" not in log()
        slips = {"max_token": 1, "temprature": 0, "logprob": True, "skip_special_token": False}
        for _ in range(3):
            d.ok("/v1/completions", {"prompt": "hi", "max_tokens": 1, **slips})
        d.ok("/generate", {"text": "hi", "return_logprobs": True, "sampling_params": {"max_new_tokens": 1}})
        for path, slip, name in (("/v1/completions", "max_token", "max_tokens"), ("/v1/completions", "temprature", "temperature"),
                                 ("/v1/completions", "logprob", "logprobs"), ("/v1/completions", "skip_special_token", "skip_special_tokens"),
                                 ("/generate", "return_logprobs", "return_logprob")):
            assert log().count(f"{path}: a request's field {slip} is none and was ignored; {name} is one") == 1, log()


def test_chat(client):
    answer = client.chat.completions.create(model="stand-in", messages=HELLO, max_completion_tokens=12, temperature=0)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.model == "stand-in"
    (choice,) = answer.choices
    assert choice.message.role == "assistant" and choice.message.content and choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def test_chat_streams_the_same(client):
    whole = client.chat.completions.create(model="m", messages=HELLO, max_tokens=40, temperature=0)
    chunks = list(client.chat.completions.create(model="m", messages=HELLO, max_tokens=40, temperature=0, stream=True,
                                                 stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].delta.content == ""
    assert all(c.choices[0].delta.role is None for c in chunks[1:-1])
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason] == ["length"]
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage.model_copy(
        update={"prompt_tokens_details": chunks[-1].usage.prompt_tokens_details})
    assert len({c.id for c in chunks}) == 1


def test_no_usage_unless_asked(client):
    chunks = list(client.chat.completions.create(model="m", messages=HELLO, max_tokens=4, stream=True))
    assert all(c.usage is None and c.choices for c in chunks)


def test_usage_with_every_chunk(client):
    chunks = list(client.chat.completions.create(model="m", messages=HELLO, max_tokens=6, stream=True,
                                                 stream_options={"include_usage": True, "continuous_usage_stats": True}))
    counts = [c.usage.completion_tokens for c in chunks if c.usage]
    assert counts == sorted(counts) and counts[-1] == 6 and len(counts) == len(chunks), chunks


def test_the_template_makes_the_prompt(server, client):
    messages = [{"role": "system", "content": "Be kind."}, *HELLO]
    prompt = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert server.ok("/apply_template", {"messages": messages, "add_generation_prompt": True})["prompt"] == prompt
    chat = client.chat.completions.create(model="m", messages=messages, max_tokens=10, temperature=0)
    ids = server.ok("/tokenize", {"prompt": prompt, "add_special_tokens": False})["tokens"]
    assert chat.choices[0].message.content == server.generate(ids, 10)[0]
    assert chat.usage.prompt_tokens == len(ids)


def test_special_tokens_in_a_message_stay_text(server, client):
    """A user who writes <|im_end|> must not end the turn: no id of it but the template's own."""
    plain = server.ok("/tokenize", {"prompt": "<|im_end|>"})["tokens"]
    usage = lambda text: client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": text}], max_tokens=1).usage.prompt_tokens
    assert len(plain) <= 2, "as a prompt of one's own it is one token"
    assert usage("<|im_end|>") > usage("a") + 1


def test_parts_of_a_message_are_joined(client):
    def text(content):
        answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": content}], max_tokens=8, temperature=0)
        return answer.choices[0].message.content

    assert text("hello") == text([{"type": "text", "text": "hello"}])
    assert text("hello you") == text([{"type": "text", "text": "hello"}, {"type": "text", "text": "you"}])


def test_choices_of_n(client):
    answer = client.chat.completions.create(model="m", messages=HELLO, max_tokens=8, n=3, seed=1)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert len({c.message.content for c in answer.choices}) == 3
    assert answer.usage.completion_tokens == 24
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(model="m", messages=HELLO, max_tokens=8, n=3, seed=1, stream=True):
        for c in chunk.choices:
            texts[c.index] += c.delta.content or ""
    assert texts == [c.message.content for c in answer.choices]


def test_completions(client):
    answer = client.completions.create(model="m", prompt="hello", temperature=0)
    assert answer.object == "text_completion" and answer.usage.completion_tokens == 16, "OpenAI's default is 16"
    streamed = "".join(c.choices[0].text for c in client.completions.create(model="m", prompt="hello", temperature=0, stream=True))
    assert streamed == answer.choices[0].text
    echo = client.completions.create(model="m", prompt="hello", temperature=0, echo=True)
    assert echo.choices[0].text == "hello" + answer.choices[0].text


def test_completions_of_many_prompts_and_ids(server, client):
    ids = server.ok("/tokenize", {"prompt": "hello"})["tokens"]
    one = client.completions.create(model="m", prompt="hello", temperature=0).choices[0].text
    assert client.completions.create(model="m", prompt=ids, temperature=0).choices[0].text == one
    both = client.completions.create(model="m", prompt=[ids, ids], temperature=0)
    assert [c.text for c in both.choices] == [one, one] and [c.index for c in both.choices] == [0, 1]
    texts = client.completions.create(model="m", prompt=["hello", "hello"], temperature=0)
    assert [c.text for c in texts.choices] == [one, one]


def test_stop_and_its_reason(client):
    text = client.completions.create(model="m", prompt="hello", temperature=0, max_tokens=60).choices[0].text
    stop = next(text[i : i + 6] for i in range(5, 200) if "\ufffd" not in text[i : i + 6])
    answer = client.completions.create(model="m", prompt="hello", temperature=0, max_tokens=60, stop=stop)
    assert answer.choices[0].text == text[: text.index(stop)] and answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].matched_stop == stop


def test_cached_tokens(client):
    prompt = "tell me about the cache " * 10
    first = client.completions.create(model="m", prompt=prompt, max_tokens=1).usage
    again = client.completions.create(model="m", prompt=prompt, max_tokens=1).usage
    assert first.prompt_tokens_details.cached_tokens == 0
    assert again.prompt_tokens_details.cached_tokens == (again.prompt_tokens - 1) // 16 * 16 > 0


def test_models(client):
    (model,) = client.models.list().data
    assert model.id == "stand-in" and model.max_model_len == 8192
    assert client.models.retrieve("stand-in").id == "stand-in"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_errors_are_their_exceptions(client):
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model="m", messages=HELLO, temperature=-1)
    assert e.value.param == "temperature" and e.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model="m", messages=[])
    assert e.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model="m", messages=HELLO, stream=True, max_tokens=-1)
    assert e.value.param == "max_tokens", "an error before the first token is a 400, also of a stream"


@pytest.mark.parametrize("messages, named", [
    ("hello", "messages"), ([1], "messages[0]"), ([{}], "messages[0].role"), ([{"role": "user", "content": 5}], "messages[0].content"),
])
def test_bad_messages_are_named(server, messages, named):
    answer = server.post("/v1/chat/completions", {"messages": messages})
    assert answer.status == 400 and answer.json["error"]["param"] == named


def test_too_long_a_prompt(client):
    with pytest.raises(openai.BadRequestError) as e:
        client.completions.create(model="m", prompt=[20] * 8192)
    assert "context length (8192 tokens)" in e.value.message


def test_vllms_names_of_what_we_have(server):
    """They were passed over: a stop text was cut off, a prompt of its own beginning got a second one."""
    body = {"prompt": "hello", "max_tokens": 60, "temperature": 0}
    ask = lambda **more: server.ok("/v1/completions", {**body, **more})
    text = ask()["choices"][0]["text"]
    stop, end = text[20:22], text.index(text[20:22])
    assert ask(stop=stop)["choices"][0]["text"] == text[:end]
    assert ask(stop=stop, include_stop_str_in_output=True)["choices"][0]["text"] == text[:end + 2]
    assert ask()["usage"]["prompt_tokens"] == ask(add_special_tokens=False)["usage"]["prompt_tokens"] + 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("field, value", [("guided_json", {"type": "object"}), ("guided_regex", "a+"), ("structured_outputs", {"regex": "a"}),
                                          ("bad_words", ["x"]), ("prompt_logprobs", 1), ("chat_template", "{{ 1 }}"), ("regex", "a+"),
                                          ("suffix", "x"), ("lora_path", "x"), ("lora", [{"id": 0}]), ("grammar", "root ::= x"),
                                          ("modalities", ["text", "audio"]), ("return_tokens_as_token_ids", True),
                                          ("return_hidden_states", True), ("custom_logit_processor", "x"), ("thinking_token_budget", 9)])
def test_what_would_change_the_answer_is_refused_by_name(server, path, field, value):
    """vLLM's names for constrained output were passed over, and the answer looked as if it had been constrained."""
    body = {"messages": HELLO, "prompt": "hello", "max_tokens": 1}
    answer = server.post(path, {**body, field: value})
    assert answer.status == 400 and answer.json["error"]["param"] == field and "supported yet" in answer.json["error"]["message"]
    off = {"modalities": ["text"]}.get(field)
    assert server.post(path, {**body, field: off}).status == 200, "nothing is asked for"


def test_a_message_without_content(server):
    """Clients send null beside tool calls. The template here joins content to a text: an empty one takes its place; a user's is needed."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    prompts = []
    for content in ({"content": None}, {}, {"content": ""}):
        messages = [*HELLO, {"role": "assistant", **content, "tool_calls": [call]}, {"role": "tool", "content": "42"}]
        prompts.append(server.ok("/apply_template", {"messages": messages})["prompt"])
        server.ok("/v1/chat/completions", {"messages": messages, "max_tokens": 1})
    assert len(set(prompts)) == 1 and "None" not in prompts[0]
    for wrong in ({"role": "user"}, {"role": "user", "content": None}):
        error = server.post("/v1/chat/completions", {"messages": [wrong]}).json["error"]
        assert error["param"] == "messages[0].content" and error["code"] == 400


@pytest.mark.parametrize("path, body, said", [
    ("chat/completions", {"messages": [{"role": "user", "content": "x"}], "tools": ["get"]}, "tools[0]: expected an object"),
    ("chat/completions", {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]}, "tools[0].function.name"),
    ("chat/completions", {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "retrieval", "function": {"name": "a"}}]}, "tools[0].type"),
    ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content: a part of type text needs its text"),
    ("chat/completions", {"prompt": "x"}, "a prompt goes to /v1/completions"),
    ("completions", {"messages": [{"role": "user", "content": "x"}]}, "messages go to /v1/chat/completions"),
    ("tokenize", {"messages": [{"role": "user", "content": "x"}]}, "POST /apply_template makes one of messages"),
])
def test_what_lacks_something_is_told_where_it_belongs(server, path, body, said):
    """Tools without a name and parts without a text went to the template as they were."""
    answer = server.post(f"/v1/{path}", body)
    assert answer.status == 400 and said in answer.json["error"]["message"], answer
