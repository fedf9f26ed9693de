"""A stream put together is the whole answer: every route, every parameter, however the tokens are split into events.

Two servers give two splits: one whose router takes many tokens at a time, and one whose worker is slow, so that each token is an
event of its own (and whose /generate streams only what is new). The stand-in's tokens depend on the request alone."""

import json

import pytest

from harness import Daemons

PROMPT = list(range(20, 60))
N = 24
MESSAGES = [{"role": "user", "content": "hello you"}]


@pytest.fixture(scope="module")
def slow():
    with Daemons(router=["--log-level", "warn", "--incremental-streaming-output"], scheduler=["--log-level", "warn"],
                 gpu_worker=["--step-us", "1500"]) as d:
        yield d


def found_in(server, prompt):
    """Six characters out of the middle of what the stand-in says."""
    text = server.ok("/generate", {**prompt, "sampling_params": {"temperature": 0, "max_new_tokens": 60}})["text"]
    return next(text[i : i + 6] for i in range(5, 200) if "\ufffd" not in text[i : i + 6])


# name -> parameters as OpenAI's routes call them; STOP and ID are filled in with what is really said
PARAMETERS = {
    "plain": {}, "seeded": {"temperature": 1, "seed": 11, "top_p": 0.9, "top_k": 50, "min_p": 0.01}, "n": {"temperature": 1, "seed": 5, "n": 3},
    "penalties": {"frequency_penalty": 0.5, "presence_penalty": -0.5, "repetition_penalty": 1.2}, "none": {"max_tokens": 0}, "one": {"max_tokens": 1},
    "min": {"min_tokens": 5, "ignore_eos": True}, "stop": {"stop": "STOP"}, "stops": {"stop": ["never said", "STOP"], "no_stop_trim": True},
    "stop of n": {"stop": "STOP", "n": 2, "seed": 1}, "stop id": {"stop_token_ids": "ID"}, "special": {"skip_special_tokens": False},
    "bias": {"logit_bias": {"30": 5}}, "usage": {"stream_options": {"include_usage": True}},
    "usage always": {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}, "long": {"max_tokens": 200},
    "logprobs": {"LOGPROBS": 2}, "logprobs of n": {"LOGPROBS": 1, "n": 2, "temperature": 1, "seed": 2}, "logprobs to a stop": {"LOGPROBS": 1, "stop": "STOP"},
}


def filled(server, name, prompt):
    p = {"max_tokens": N, "temperature": 0, **PARAMETERS[name]}
    said = found_in(server, prompt) if "stop" in p else None
    if said:
        p["stop"] = said if p["stop"] == "STOP" else [said if s == "STOP" else s for s in p["stop"]]
    if "stop_token_ids" in p:
        p["stop_token_ids"] = [server.ok("/generate", {**prompt, "sampling_params": {"temperature": 0, "max_new_tokens": 9}})["output_ids"][6]]
    return p


def put_together(events):
    """Choices as a whole answer has them: (text, reason, matched stop, lists of logprobs)."""
    choices = {}
    for event in events:
        for c in event["choices"]:
            have = choices.setdefault(c["index"], {"text": "", "reason": None, "matched": None, "logprobs": None})
            have["text"] += c.get("text") or c.get("delta", {}).get("content") or ""
            assert not have["reason"], "something came behind the end"
            have["reason"], have["matched"] = c["finish_reason"], c.get("matched_stop")
            for key, values in (c["logprobs"] or {}).items():
                have["logprobs"] = have["logprobs"] or {}
                have["logprobs"][key] = have["logprobs"].get(key, []) + (values or [])
    return [choices[i] for i in sorted(choices)]


def as_whole(answer):
    return [{"text": c.get("text") if "text" in c else c["message"]["content"], "reason": c["finish_reason"], "matched": c["matched_stop"],
             "logprobs": {k: v or [] for k, v in c["logprobs"].items()} if c["logprobs"] else None} for c in answer["choices"]]


def usage_of(u):
    return {k: u[k] for k in ("prompt_tokens", "completion_tokens", "total_tokens")}


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("name", PARAMETERS)
def test_completions(server, slow, name, echo):
    body = {"prompt": PROMPT, "echo": echo, **filled(server, name, {"input_ids": PROMPT})}
    if "LOGPROBS" in body:
        body["logprobs"] = body.pop("LOGPROBS")
    same(server, slow, "/v1/completions", body)


@pytest.mark.parametrize("name", PARAMETERS)
def test_chat(server, slow, name):
    prompt = server.ok("/apply_template", {"messages": MESSAGES, "add_generation_prompt": True})["prompt"]
    body = {"messages": MESSAGES, **filled(server, name, {"text": prompt})}
    if "LOGPROBS" in body:
        body |= {"logprobs": True, "top_logprobs": body.pop("LOGPROBS")}
    same(server, slow, "/v1/chat/completions", body)


def same(server, slow, path, body):
    body_whole = {k: v for k, v in body.items() if k != "stream_options"}
    whole = server.ok(path, body_whole)
    body = {**body, "stream_options": body.get("stream_options", {"include_usage": True})}
    for s in (server, slow):
        *events, last = s.stream(path, body)
        assert last["choices"] == [] and usage_of(last["usage"]) == usage_of(whole["usage"])
        assert put_together(events) == as_whole(whole)
    again = slow.ok(path, body_whole)
    assert as_whole(again) == as_whole(whole) and usage_of(again["usage"]) == usage_of(whole["usage"])


NATIVE = {"max_tokens": "max_new_tokens", "min_tokens": "min_new_tokens"}


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("name", [n for n in PARAMETERS if "usage" not in n])
def test_generate(server, slow, name, many):
    p = {NATIVE.get(k, k): v for k, v in filled(server, name, {"input_ids": PROMPT}).items()}
    body = {"input_ids": [PROMPT, PROMPT[:30]] if many else PROMPT}
    if "LOGPROBS" in p:
        body |= {"return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": p.pop("LOGPROBS"), "token_ids_logprob": [30, 31]}
    body["sampling_params"] = p
    whole = server.ok("/generate", body)
    whole = whole if isinstance(whole, list) else [whole]
    last = {}
    for event in server.stream("/generate", body):
        last[event.get("index", 0)] = event
    assert [plain(last[i]) for i in sorted(last)] == [plain(w) for w in whole]
    joined = {}
    for event in slow.stream("/generate", body):
        have = joined.setdefault(event.get("index", 0), {"text": "", "output_ids": []})
        joined[event.get("index", 0)] = {"text": have["text"] + event["text"], "output_ids": have["output_ids"] + event["output_ids"],
                                         "meta_info": event["meta_info"]}
    assert [plain(joined[i]) for i in sorted(joined)] == [plain(w) for w in whole]


TIMES = ("e2e_latency", "queue_time", "first_token_latency", "decode_throughput", "request_received_ts", "request_finished_ts", "response_sent_to_client_ts")


def plain(result):
    """Without what differs from one request to the next."""
    meta = {k: v for k, v in result["meta_info"].items() if k not in ("id", "cached_tokens", "cached_tokens_details") and k not in TIMES}
    return result["text"], result["output_ids"], meta


# ---- the dialects that are read as chat completions ----


def sse(answer):
    for block in answer.body.decode().strip().split("\n\n"):
        yield json.loads(block.split("data: ", 1)[1])


STOPS = [None, "STOP"]


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("more", [{}, {"top_p": 0.5, "top_k": 5}, {"max_tokens": 1}, {"max_tokens": 120}])
def test_messages(server, slow, stop, more):
    prompt = server.ok("/apply_template", {"messages": MESSAGES, "add_generation_prompt": True})["prompt"]
    body = {"model": "m", "messages": MESSAGES, "max_tokens": N, "temperature": 0, **more}
    if stop:
        body["stop_sequences"] = [found_in(server, {"text": prompt})]
    whole = server.ok("/v1/messages", body)
    text = "".join(b["text"] for b in whole["content"])
    for s in (server, slow):
        events = list(sse(s.post("/v1/messages", {**body, "stream": True})))
        assert "".join(e["delta"]["text"] for e in events if e["type"] == "content_block_delta") == text
        end = next(e for e in events if e["type"] == "message_delta")
        assert end["delta"] == {k: whole[k] for k in ("stop_reason", "stop_sequence")}
        assert end["usage"]["output_tokens"] == whole["usage"]["output_tokens"]


@pytest.mark.parametrize("more", [{}, {"temperature": 0, "stop": "STOP"}, {"max_output_tokens": 1}, {"max_output_tokens": 120}])
def test_responses(server, slow, more):
    prompt = server.ok("/apply_template", {"messages": MESSAGES, "add_generation_prompt": True})["prompt"]
    body = {"model": "stand-in", "input": "hello you", "max_output_tokens": N, "temperature": 0, **more}
    if "stop" in body:
        body["stop"] = found_in(server, {"text": prompt})
    whole = server.ok("/v1/responses", body)
    text = "".join(part["text"] for item in whole["output"] for part in item["content"])
    for s in (server, slow):
        events = list(sse(s.post("/v1/responses", {**body, "stream": True})))
        assert "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta") == text
        told = events[-1]["response"]
        assert told["status"] == whole["status"] and told["usage"]["output_tokens"] == whole["usage"]["output_tokens"]


@pytest.mark.parametrize("path, words", [("/api/chat", {"messages": MESSAGES}), ("/api/generate", {"prompt": "hello you"})])
@pytest.mark.parametrize("options", [{}, {"stop": "STOP"}, {"num_predict": 1}, {"num_predict": 120}, {"seed": 4, "temperature": 1}])
def test_ollama(server, slow, path, words, options):
    prompt = server.ok("/apply_template", {"messages": MESSAGES, "add_generation_prompt": True})["prompt"]
    options = {"num_predict": N, "temperature": 0, **options}
    if "stop" in options:
        options["stop"] = [found_in(server, {"text": prompt})]
    said = lambda line: line["message"]["content"] if "message" in line else line["response"]
    counts = ("done_reason", "prompt_eval_count", "eval_count")
    whole = server.ok(path, {**words, "options": options, "stream": False})
    for s in (server, slow):
        lines = [json.loads(line) for line in s.post(path, {**words, "options": options}).body.splitlines()]
        assert "".join(map(said, lines)) == said(whole) and {k: lines[-1][k] for k in counts} == {k: whole[k] for k in counts}
