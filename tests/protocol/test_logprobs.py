"""Log probabilities in every dialect: which token they are of, and that a stream tells the same as a whole answer.

The stand-in makes them up: -1 - (id % 50) / 10 for a token, and its first ids as the likeliest ones, from -0.5 downwards."""

import json

import pytest

from harness import TINY, Daemons

PROMPT = list(range(20, 60))
HELLO = [{"role": "user", "content": "hello"}]
FIRST = 10  # the stand-in's first id


def of(id):
    return pytest.approx(-1 - (id % 50) / 10, abs=1e-5)


def ids_of(server, prompt, n):
    return server.generate(prompt, n)[1]


def complete(server, **body):
    return server.ok("/v1/completions", {"prompt": PROMPT, "max_tokens": 12, "temperature": 0, **body})["choices"]


def joined(server, path, body):
    """What the events of a stream's first choice say, put together: (text, lists of logprobs)."""
    text, lists = "", {}
    for event in server.stream(path, body):
        for c in event["choices"]:
            text += c.get("text") or c.get("delta", {}).get("content") or ""
            for key, values in (c["logprobs"] or {}).items():
                lists[key] = lists.get(key, []) + (values or [])
    return text, lists


def test_completions_of_the_output(server):
    (choice,) = complete(server, logprobs=2)
    ids, told = ids_of(server, PROMPT, 12), choice["logprobs"]
    assert told["token_logprobs"] == [of(i) for i in ids]
    assert len(told["tokens"]) == len(told["top_logprobs"]) == len(told["text_offset"]) == 12
    for token, x, top in zip(told["tokens"], told["token_logprobs"], told["top_logprobs"]):
        assert top[token] == x and sorted(v for k, v in top.items() if k != token) == [-1.5, -0.5], "two, and the token itself, as OpenAI has it"
    assert told["text_offset"][0] == 0 and told["text_offset"] == sorted(told["text_offset"])


def test_tokens_are_text(server):
    told = complete(server, prompt="hello world", logprobs=0, echo=True, max_tokens=0)[0]["logprobs"]
    assert "".join(told["tokens"]).endswith("hello world")
    assert told["top_logprobs"] is None
    ids = server.ok("/tokenize", {"prompt": "hello world"})["tokens"]
    for id, token in zip(ids, told["tokens"]):
        assert token == server.ok("/detokenize", {"tokens": [id], "skip_special_tokens": False})["text"]
    assert told["tokens"][0] == "<|begin_of_text|>", "which is none of the text"
    assert told["text_offset"] == [0] + [sum(map(len, told["tokens"][1:i])) for i in range(1, len(ids))]


@pytest.mark.parametrize("stream", [False, True])
def test_offsets_are_places_in_the_text(server, stream):
    """Who looks for the end of the question by them was off by a special token before it, which the text does not have."""
    body = {"prompt": "hello world", "logprobs": 1, "echo": True, "max_tokens": 8, "temperature": 0}
    choice = complete(server, **body)[0]
    text, told = joined(server, "/v1/completions", body) if stream else (choice["text"], choice["logprobs"])
    n = len(server.ok("/tokenize", {"prompt": "hello world"})["tokens"])
    assert told["text_offset"][n] == len("hello world") and text.startswith("hello world")
    for token, at, then in zip(told["tokens"][1:], told["text_offset"][1:], told["text_offset"][2:]):
        assert token.startswith("bytes:") or text[at:then] == token


def test_a_name_stands_once_in_an_object():
    """'e' is a piece of SentencePiece's and a byte that it falls back to: who reads JSON takes the last of two, which was the less likely."""
    def once(pairs):
        assert len(dict(pairs)) == len(pairs), sorted(k for k, _ in pairs)
        return dict(pairs)

    with Daemons(model=TINY.parent / "tiny-spm-llama") as d:
        piece, byte = d.ok("/tokenize", {"prompt": "0e", "add_special_tokens": False})["tokens"][-1], 3 + ord("e")
        asks = {"prompt": [piece] * 3, "logprobs": 128, "echo": True, "max_tokens": 0}
        told = json.loads(d.post("/v1/completions", asks).body, object_pairs_hook=once)["choices"][0]["logprobs"]
        assert told["tokens"] == ["e"] * 3 and piece != byte
        assert told["top_logprobs"][1]["e"] == -0.5 - (byte - FIRST), "the byte's, one of the 128 from the first id on"


@pytest.mark.parametrize("n", [0, 1, 6])
def test_echo_tells_the_prompts_first_null(server, n):
    (choice,) = complete(server, logprobs=3, echo=True, max_tokens=n)
    told, ids = choice["logprobs"], PROMPT + ids_of(server, PROMPT, 6)[:n]
    assert told["token_logprobs"] == [None] + [of(i) for i in ids[1:]]
    assert told["top_logprobs"][0] is None
    assert all(len({*top} - {token}) == 3 for token, top in list(zip(told["tokens"], told["top_logprobs"]))[1:])
    assert choice["finish_reason"] == "length"
    assert choice["text"] == server.ok("/detokenize", {"tokens": PROMPT})["text"] + complete(server, max_tokens=n)[0]["text"]


def test_echo_of_a_cached_prompt_is_the_same(server):
    first, again = (complete(server, logprobs=1, echo=True, max_tokens=1) for _ in range(2))
    assert first == again


def test_each_prompt_and_sample_has_its_own(server):
    choices = complete(server, prompt=[PROMPT, PROMPT[:30]], logprobs=1, n=2, temperature=1, seed=3)
    assert [c["index"] for c in choices] == [0, 1, 2, 3]
    assert len({str(c["logprobs"]["token_logprobs"]) for c in choices}) == 4
    assert all(len(c["logprobs"]["tokens"]) == 12 for c in choices)


@pytest.mark.parametrize("echo", [False, True])
def test_completions_stream_the_same(server, echo):
    body = {"prompt": PROMPT, "max_tokens": 40, "temperature": 0, "logprobs": 2, "echo": echo}
    whole = complete(server, **body)[0]
    assert joined(server, "/v1/completions", body) == (whole["text"], whole["logprobs"])


def test_chat(server):
    body = {"messages": HELLO, "max_tokens": 30, "temperature": 0, "logprobs": True, "top_logprobs": 3}
    whole = server.ok("/v1/chat/completions", body)["choices"][0]
    entries = whole["logprobs"]["content"]
    assert len(entries) == 30
    assert bytes(b for e in entries for b in e["bytes"]).decode(errors="replace") == whole["message"]["content"]
    for e in entries:
        assert e["token"] == bytes(e["bytes"]).decode(errors="ignore") or e["token"].startswith("bytes:\\x")
        assert [t["logprob"] for t in e["top_logprobs"]] == [-0.5, -1.5, -2.5]
    assert joined(server, "/v1/chat/completions", body) == (whole["message"]["content"], whole["logprobs"])


def test_a_stop_string_ends_them_too(server):
    text = complete(server, max_tokens=60)[0]["text"]
    stop = next(text[i : i + 6] for i in range(5, 200) if "\ufffd" not in text[i : i + 6])
    answer = server.ok("/v1/completions", {"prompt": PROMPT, "max_tokens": 60, "temperature": 0, "stop": stop, "logprobs": 1})
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == answer["usage"]["completion_tokens"] < 60
    assert joined(server, "/v1/completions", {"prompt": PROMPT, "max_tokens": 60, "temperature": 0, "stop": stop,
                                              "logprobs": 1})[1] == answer["choices"][0]["logprobs"]


def test_best_of_tells_the_likeliest(server):
    """Of five samples the two with the highest mean; usage counts all that were drawn; logprobs only when asked for."""
    drawn = {"temperature": 1, "seed": 9}
    all_five = complete(server, n=5, logprobs=0, **drawn)
    mean = lambda c: sum(c["logprobs"]["token_logprobs"]) / len(c["logprobs"]["token_logprobs"])
    best = sorted(all_five, key=mean, reverse=True)[:2]
    answer = server.ok("/v1/completions", {"prompt": [PROMPT, PROMPT], "max_tokens": 12, "n": 2, "best_of": 5, **drawn})
    assert [c["text"] for c in answer["choices"]][:2] == [c["text"] for c in best]
    assert [c["index"] for c in answer["choices"]] == [0, 1, 2, 3] and answer["usage"]["completion_tokens"] == 2 * 5 * 12
    assert all(c["logprobs"] is None for c in answer["choices"])
    (asked,) = complete(server, n=1, best_of=5, logprobs=0, **drawn)
    assert asked["logprobs"] == best[0]["logprobs"] and asked["text"] == best[0]["text"]


def test_none_unless_asked(server):
    assert complete(server)[0]["logprobs"] is None
    chat = server.ok("/v1/chat/completions", {"messages": HELLO, "max_tokens": 3})
    assert chat["choices"][0]["logprobs"] is None


def test_native_text_in_logprobs(server):
    body = {"input_ids": PROMPT, "return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 1,
            "sampling_params": {"max_new_tokens": 4, "temperature": 0}}
    plain = server.ok("/generate", body)["meta_info"]
    assert all(text is None for _, _, text in plain["input_token_logprobs"])
    told = server.ok("/generate", {**body, "return_text_in_logprobs": True})["meta_info"]
    assert [i for _, i, _ in told["input_token_logprobs"]] == PROMPT and told["input_token_logprobs"][0][0] is None
    assert [x for x, _, _ in told["input_token_logprobs"][1:]] == [of(i) for i in PROMPT[1:]]
    for _, id, text in told["output_token_logprobs"] + told["input_token_logprobs"]:
        assert text == server.ok("/detokenize", {"tokens": [id], "skip_special_tokens": False})["text"]


@pytest.mark.parametrize("path, body, named", [
    ("chat", {"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format: 'json_schema' takes grammars"),
    ("chat", {"response_format": {"type": "json_object"}}, "ask for JSON in a message"),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages[0].content"),
    ("chat", {"lora_path": "x"}, "lora_path"), ("chat", {"functions": [{"name": "f"}]}, "functions"), ("chat", {"top_logprobs": 2}, "top_logprobs"),
    ("chat", {"logprobs": True, "top_logprobs": 1000}, "top_logprobs"), ("chat", {"logprobs": 3}, "logprobs"),
    ("", {"best_of": 1, "n": 2}, "best_of"), ("", {"best_of": 3, "stream": True}, "best_of"), ("", {"best_of": 200}, "best_of"), ("", {"suffix": "x"}, "suffix"), ("", {"logprobs": -1}, "logprobs"), ("", {"echo": 1}, "echo"),
])
def test_what_is_not_there_is_refused_by_name(server, path, body, named):
    base = {"messages": HELLO} if path else {"prompt": "x"}
    answer = server.post("/v1/chat/completions" if path else "/v1/completions", {**base, **body})
    assert answer.status == 400 and named in answer.json["error"]["message"], answer


def test_a_start_behind_the_prompt_is_refused(server):
    """SGLang refuses it; here the answer had no log probability of the prompt, and no word of why."""
    b = {"input_ids": [20, 21, 22], "return_logprob": True, "sampling_params": {"max_new_tokens": 1}}
    assert server.ok("/generate", {**b, "logprob_start_len": 3})["meta_info"]["input_token_logprobs"] == []
    answer = server.post("/generate", {**b, "logprob_start_len": 4})
    assert answer.status == 400 and answer.json["error"]["param"] == "logprob_start_len", answer
    assert "has 3 tokens" in answer.json["error"]["message"]
    assert server.post("/generate", {**b, "return_logprob": False, "logprob_start_len": 4}).status == 200


def test_a_stream_that_repeats_megabytes_tells_them_seldom(server):
    """/generate's events tell all so far: the log probabilities of a long prompt were written anew for each token, 17 MB and
    100 ms of everybody's router each time."""
    with Daemons(gpu_worker=["--step-us", "10000"]) as d:
        asks = {"input_ids": [i % 600 + 10 for i in range(7000)], "return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 20,
                "sampling_params": {"max_new_tokens": 200, "ignore_eos": True}}
        events = d.stream("/generate", asks)
        size = len(json.dumps(events[0], separators=(",", ":")))
        assert size > 2 << 20, size
        assert len(events) < 3 + 200 * (65536 / size) * 1.1
        last = events[-1]["meta_info"]
        assert last["completion_tokens"] == 200 == len(last["output_token_logprobs"]) and len(last["input_token_logprobs"]) == 7000
        assert events[0]["meta_info"]["input_token_logprobs"] == last["input_token_logprobs"]
        small = d.stream("/generate", {**asks, "input_ids": [30] * 20})
        assert len(small) > 100  # as they come
