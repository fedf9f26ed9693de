"""POST /generate, SGLang's own form, through every process."""

import json
import re
import threading
import time

import pytest

from harness import Daemons, wait_for
from protocol.test_same import TIMES

PROMPT = list(range(20, 60))  # 40 ids


def ids_of(server, n, **sampling):
    return server.generate(PROMPT, n, sampling=sampling)[1]


def test_whole_and_streamed_are_the_same(server):
    text, ids, meta = server.generate(PROMPT, 24)
    whole = server.ok("/generate", {"input_ids": PROMPT, "sampling_params": {"temperature": 0, "max_new_tokens": 24}})
    assert whole["text"] == text and whole["output_ids"] == ids and len(ids) == 24
    assert whole["meta_info"]["finish_reason"] == {"type": "length", "length": 24}
    assert meta["prompt_tokens"] == 40 and meta["completion_tokens"] == 24


def test_a_stream_is_cumulative_and_only_grows():
    """Events that wait for the router go out as one, so the worker is slowed down: 30 tokens of 20 ms are not one event."""
    seen = []
    with Daemons(gpu_worker=["--step-us", "20000"]) as server:
        server.generate(PROMPT, 30, on_event=lambda e: seen.append((e["text"], e["output_ids"])))
    assert len(seen) > 1
    for (text, ids), (later, later_ids) in zip(seen, seen[1:]):
        assert later.startswith(text) and later_ids[: len(ids)] == ids


def test_only_whole_characters_stream(server):
    """The stand-in picks many single bytes of longer characters: what cannot be finished becomes U+FFFD, once."""
    texts = []
    server.generate("ü", 200, on_event=lambda e: texts.append(e["text"]))
    assert "\ufffd" in texts[-1]
    assert all(texts[-1].startswith(t) for t in texts)


def test_text_and_its_ids_give_the_same(server):
    ids = server.ok("/tokenize", {"prompt": "hello world"})["tokens"]
    assert server.generate("hello world", 12)[1] == server.generate(ids, 12)[1]


def test_a_list_of_prompts_is_answered_in_order(server):
    one = [server.generate(p, 8)[0] for p in ("a b", "c d", "e f")]
    many = server.ok("/generate", {"text": ["a b", "c d", "e f"], "sampling_params": {"temperature": 0, "max_new_tokens": 8}})
    assert [m["text"] for m in many] == one
    events = server.stream("/generate", {"text": ["a b", "c d"], "sampling_params": {"temperature": 0, "max_new_tokens": 8}})
    last = {e["index"]: e["text"] for e in events}
    assert [last[0], last[1]] == one[:2]


def test_no_new_tokens_computes_the_prompt_only(server):
    whole = server.ok("/generate", {"input_ids": PROMPT, "sampling_params": {"max_new_tokens": 0}})
    assert whole["text"] == "" and whole["output_ids"] == []
    assert whole["meta_info"]["finish_reason"] == {"type": "length", "length": 0}


def test_samples_of_one_prompt_differ_and_repeat_with_their_seed(server):
    body = {"input_ids": PROMPT, "sampling_params": {"temperature": 1, "seed": 7, "n": 3, "max_new_tokens": 16}}
    first, second = server.ok("/generate", body), server.ok("/generate", body)
    assert [s["output_ids"] for s in first] == [s["output_ids"] for s in second]
    assert len({tuple(s["output_ids"]) for s in first}) == 3
    body["sampling_params"]["seed"] = 8
    assert server.ok("/generate", body)[0]["output_ids"] != first[0]["output_ids"]


# ---- what ends it ----


def test_a_stop_id_ends_it_and_leaves_no_text(server):
    ids = ids_of(server, 20)
    text, cut, meta = server.generate(PROMPT, 20, sampling={"stop_token_ids": [ids[9]]})
    at = ids.index(ids[9])
    assert cut == ids[: at + 1]
    assert meta["finish_reason"] == {"type": "stop", "matched": ids[9]}
    assert meta["completion_tokens"] == at + 1
    kept = server.generate(PROMPT, 20, sampling={"stop_token_ids": [ids[9]], "no_stop_trim": True})
    assert kept[0] == server.generate(PROMPT, at + 1)[0] and kept[0].startswith(text)


def test_ignore_eos_means_stop_ids_too(server):
    ids = ids_of(server, 20)
    assert server.generate(PROMPT, 20, sampling={"stop_token_ids": [ids[9]], "ignore_eos": True})[1] == ids


def test_no_stop_id_before_min_new_tokens(server):
    ids = ids_of(server, 20)
    got, _, meta = server.generate(PROMPT, 40, sampling={"stop_token_ids": [ids[3]], "min_new_tokens": 12})[1:] + (0,)
    assert got[:3] == ids[:3] and ids[3] not in got[:12] and len(got) >= 12


def long_words(text, n):
    """Pieces of the text that lie across token borders, because every token is shorter."""
    return [text[i : i + n] for i in range(3, len(text) - n, 7) if "\ufffd" not in text[i : i + n]]


def test_a_stop_string_across_token_borders_cuts_the_text(server):
    text = server.generate(PROMPT, 120)[0]
    words = long_words(text, 12)
    assert words, "no piece to stop at"
    for stop in words[:6]:
        seen = []
        got, ids, meta = server.generate(PROMPT, 120, sampling={"stop": ["never", stop]}, on_event=lambda e: seen.append(e["text"]))
        assert got == text[: text.index(stop)]
        assert meta["finish_reason"] == {"type": "stop", "matched": stop}
        assert all(got.startswith(t) for t in seen), "text of the stop string was sent before it was known"
        assert meta["completion_tokens"] == len(ids) < 120
        kept = server.generate(PROMPT, 120, sampling={"stop": stop, "no_stop_trim": True})[0]
        assert kept == text[: text.index(stop) + len(stop)]


def test_a_stop_pattern_cuts_the_text_where_its_first_match_ends(server):
    text = server.generate(PROMPT, 120)[0]
    for word in long_words(text, 12)[:4]:
        seen = []
        pattern = re.escape(word[:4]) + "(?s:.){2,8}?" + re.escape(word[-2:])
        found = min((m for s in range(len(text)) if (m := re.compile(pattern).match(text, s))), key=lambda m: (m.end(), m.start()))
        got, ids, meta = server.generate(PROMPT, 120, sampling={"stop_regex": ["never", pattern]},
                                         on_event=lambda e: seen.append(e["text"]))
        assert got == text[: found.start()]
        assert meta["finish_reason"] == {"type": "stop", "matched": pattern}
        assert all(got.startswith(t) for t in seen), "text of the match was sent before it was known"
        assert meta["completion_tokens"] == len(ids) < 120
        kept = server.generate(PROMPT, 120, sampling={"stop_regex": pattern, "no_stop_trim": True})[0]
        assert kept == text[: found.end()]
    answer = server.post("/generate", {"text": "a", "sampling_params": {"stop_regex": "(?<!x)y"}})
    assert answer.status == 400 and "stop_regex" in answer.json["error"]["message"], answer


def test_a_stop_string_ends_the_work_upstream(server):
    text = server.generate(PROMPT, 60)[0]
    before = server.load()["steps"]
    server.generate(PROMPT, 5000, sampling={"stop": long_words(text, 8)[0]})
    assert server.load()["steps"] - before < 500, "the scheduler went on after the stop"


# ---- what usage says ----


def test_cached_tokens_are_whole_pages_of_the_same_prefix(server):
    prompt = [11] + list(range(100, 151))  # 52 ids: three pages of 16 and a rest
    assert server.generate(prompt, 1)[2]["cached_tokens"] == 0
    assert server.generate(prompt, 1)[2]["cached_tokens"] == 48
    assert server.generate(prompt[:40], 1)[2]["cached_tokens"] == 32
    assert server.generate(prompt[:32], 1)[2]["cached_tokens"] == 16, "the last token must be computed to have logits"
    assert server.generate(prompt[:20] + [12], 1)[2]["cached_tokens"] == 16
    assert server.generate([13] + prompt[1:], 1)[2]["cached_tokens"] == 0


@pytest.mark.parametrize("key", ["extra_key", "cache_salt"])
def test_another_namespace_shares_nothing(server, key):
    prompt = [14, len(key)] + list(range(200, 264))
    assert server.generate(prompt, 1)[2]["cached_tokens"] == 0
    assert server.generate(prompt, 1, **{key: "mine"})[2]["cached_tokens"] == 0
    assert server.generate(prompt, 1, **{key: "mine"})[2]["cached_tokens"] == 64


def test_output_is_reused_as_the_next_prompt(server):
    prompt = [15] + list(range(300, 331))
    ids = server.generate(prompt, 33)[1]
    assert server.generate(prompt + ids, 1)[2]["cached_tokens"] == 64


# ---- its name ----


def test_rid_names_it_and_abort_ends_it(server):
    def abort(event, sent=[]):
        if not sent:
            sent.append(server.post("/abort_request", {"rid": "mine-"}).status)
            assert sent == [200]

    _, ids, meta = server.generate(PROMPT, 8000, rid="mine-1", on_event=abort)
    assert meta["id"] == "mine-1" and meta["finish_reason"]["type"] == "abort" and len(ids) < 8000


def test_abort_needs_to_know_what(server):
    answer = server.post("/abort_request", {})
    assert answer.status == 400 and "rid" in answer.json["error"]["message"]


def test_each_prompt_may_have_its_id(server):
    body = {"text": ["a b", "c d"], "rid": ["first", "second"], "sampling_params": {"max_new_tokens": 2}}
    assert [r["meta_info"]["id"] for r in server.ok("/generate", body)] == ["first", "second"]
    two = server.ok("/generate", {**body, "sampling_params": {"max_new_tokens": 2, "n": 2}})
    assert [r["meta_info"]["id"] for r in two] == ["first_0", "first_1", "second_0", "second_1"]
    for rid in (["first"], ["first", "first"], ["first", ""], ["first", 5], [], ["a", "b", "c"], ["x" * 64, "y"]):
        answer = server.post("/generate", {**body, "rid": rid})
        assert answer.status == 400 and answer.json["error"]["param"] == "rid", (rid, answer)


def test_one_prompt_of_a_batch_is_aborted_by_its_id():
    """The others go on, until they end themselves; the answer has all."""
    with Daemons(gpu_worker=["--step-us", "2000"], router=["--incremental-streaming-output"]) as server:
        for stream in (False, True):
            body = {"text": ["a b", "c d"], "rid": ["stays", "goes"], "stream": stream,
                    "sampling_params": {"temperature": 0, "ignore_eos": True, "max_new_tokens": 8000}}
            answers = []
            running = threading.Thread(target=lambda: answers.append(server.post("/generate", body)))
            running.start()
            for rid, n_left in (("goes", 1), ("stays", 0)):
                wait_for("them to run", lambda: server.load()["num_running_reqs"] == n_left + 1)
                assert server.post("/abort_request", {"rid": rid}).status == 200
            running.join()
            if stream:
                events = [json.loads(line[6:]) for line in answers[0].body.decode().splitlines() if line.startswith("data: {")]
                last = {e["index"]: e for e in events}
            else:
                last = dict(enumerate(answers[0].json))
            assert [last[i]["meta_info"]["finish_reason"]["type"] for i in (0, 1)] == ["abort", "abort"]
            assert all(last[i]["meta_info"]["completion_tokens"] < 8000 for i in (0, 1))
            wait_for("its pages to be free", server.is_idle)


# ---- lists: one value for all prompts, or one for each ----


def test_each_prompt_may_have_its_parameters(server):
    """What a list gives to each prompt is what it gets alone."""
    prompts, params = [PROMPT, PROMPT[:30], PROMPT[:20]], [{"max_new_tokens": 3}, {"max_new_tokens": 9, "stop_token_ids": [1]}, None]
    params = [p and {"temperature": 0, **p} for p in params]
    each = {"return_logprob": [True, False, True], "logprob_start_len": [0, -1, 5], "top_logprobs_num": [2, 0, None], "token_ids_logprob": [None, [30], [30, 31]]}
    many = server.ok("/generate", {"input_ids": prompts, "sampling_params": params, **each})
    for i, prompt in enumerate(prompts[:2]):
        alone = server.ok("/generate", {"input_ids": prompt, "sampling_params": params[i], **{k: v[i] for k, v in each.items()}})
        for told in (alone, many[i]):
            for key in ("id", "cached_tokens", "cached_tokens_details"):
                told["meta_info"].pop(key)
        assert shape(many[i]) == shape(alone)
    assert [len(m["output_ids"]) for m in many] == [3, 9, 128]
    assert [m["meta_info"].get("output_token_logprobs_length") for m in many] == [3, None, 128]
    assert len(many[0]["meta_info"]["input_token_logprobs"]) == 40 and len(many[2]["meta_info"]["input_token_logprobs"]) == 15
    assert len(many[2]["meta_info"]["output_token_ids_logprobs"][0]) == 2 and "output_top_logprobs" not in many[2]["meta_info"]


def shape(result):
    """Without times."""
    meta = {k: v for k, v in result["meta_info"].items() if k not in TIMES}
    return result["text"], result["output_ids"], meta


def test_namespaces_in_a_list(server):
    ids = [16] + list(range(400, 463))
    ask = lambda keys: [m["meta_info"]["cached_tokens"] for m in server.ok("/generate", {
        "input_ids": [ids, ids], "extra_key": keys, "sampling_params": {"max_new_tokens": 1}})]
    assert ask(["list-a", "list-b"]) == [0, 0]
    assert ask(["list-b", "list-c"]) == [48, 0]


def test_a_batch_streams_each_with_its_parameters(server):
    body = {"input_ids": [PROMPT, PROMPT], "sampling_params": [{"temperature": 0, "max_new_tokens": 2}, {"temperature": 0, "max_new_tokens": 5}]}
    last = {e["index"]: e for e in server.stream("/generate", body)}
    assert [len(last[i]["output_ids"]) for i in (0, 1)] == [2, 5]
    assert last[1]["output_ids"][:2] == last[0]["output_ids"]


@pytest.mark.parametrize("more, named", [
    ({"sampling_params": [{}]}, "sampling_params"), ({"sampling_params": [{}, {}, {}]}, "sampling_params"), ({"sampling_params": []}, "sampling_params"),
    ({"sampling_params": [{}, {"temperature": -1}]}, "temperature"), ({"sampling_params": [{}, 5]}, "sampling_params"), ({"sampling_params": [{"n": 2}, {}]}, "n"),
    ({"return_logprob": [True]}, "return_logprob"), ({"return_logprob": [True, 5]}, "return_logprob"), ({"logprob_start_len": [0, 1, 2]}, "logprob_start_len"),
    ({"top_logprobs_num": [1, -1]}, "top_logprobs_num"), ({"token_ids_logprob": [[1], ["x"]]}, "token_ids_logprob"), ({"token_ids_logprob": [[1], [2], [3]]}, "token_ids_logprob"),
    ({"extra_key": ["a"]}, "extra_key"), ({"extra_key": ["a", 5]}, "extra_key"), ({"extra_key": 5}, "extra_key"), ({"cache_salt": ["a", "b"]}, "cache_salt"),
    ({"sampling_params": {"n": 2}, "return_logprob": [True, False]}, "return_logprob"), ({"stream": [True, False]}, "stream"), ({"priority": [1, 2]}, "priority"),
    ({"text": "one", "sampling_params": [{}]}, "sampling_params"), ({"text": "one", "token_ids_logprob": [[1]]}, "token_ids_logprob"),
])
def test_lists_that_do_not_fit_are_refused_by_name(server, more, named):
    answer = server.post("/generate", {"text": ["one", "two"], "return_logprob": True, **more})
    assert answer.status == 400 and answer.json["error"]["param"] == named, answer


@pytest.mark.parametrize("path, key", [("/generate", "input_ids"), ("/v1/completions", "prompt")])
def test_prompts_that_are_the_same_are_drawn_apart(server, path, key):
    """Rollouts of one prompt, sent as a list: each is a draw of its own, unless the client says a seed."""
    def texts(**more):
        answer = server.ok(path, {key: [PROMPT] * 4, **({"sampling_params": {"max_new_tokens": 16, **more}} if path == "/generate" else {"max_tokens": 16, **more})})
        return [a["text"] for a in (answer if path == "/generate" else answer["choices"])]

    assert len(set(texts(temperature=1))) == 4
    assert len(set(texts(temperature=1, seed=3))) == 1


def test_the_prompts_ids_are_told_when_asked_for(server):
    ids = server.ok("/tokenize", {"prompt": "hello world"})["tokens"]
    body = {"text": "hello world", "sampling_params": {"max_new_tokens": 2}}
    assert server.ok("/generate", {**body, "return_prompt_token_ids": True})["prompt_token_ids"] == ids
    assert "prompt_token_ids" not in server.ok("/generate", body)


def test_lists_of_texts_and_of_ids(server):
    """As SGLang's: a list of them gives lists."""
    ask = lambda path, **body: server.ok(path, body)  # noqa: E731
    texts = ["hello world", "", "hello"]
    one = [ask("/tokenize", prompt=text) for text in texts]
    many = ask("/tokenize", prompt=texts)
    assert many["tokens"] == [o["tokens"] for o in one] and many["count"] == [o["count"] for o in one] == [len(t) for t in many["tokens"]]
    assert ask("/tokenize", prompt=[])["tokens"] == [] and many["max_model_len"] == one[0]["max_model_len"]
    assert ask("/detokenize", tokens=many["tokens"])["text"] == [ask("/detokenize", tokens=t)["text"] for t in many["tokens"]]
    for path, body, named in (("/tokenize", {"prompt": ["a", 1]}, "a text or a list of texts, got a number"),
                              ("/tokenize", {"prompt": None}, "a text or a list of texts, got null"), ("/tokenize", {}, "a text is needed"),
                              ("/detokenize", {"tokens": [[1], 2]}, "lists of token ids, got a number"),
                              ("/detokenize", {"tokens": [1, [2]]}, "token ids, got an array"), ("/detokenize", {"tokens": ["1"]}, "got a string"),
                              ("/detokenize", {"tokens": [9999999]}, "9999999 is not in the vocabulary")):
        error = server.post(path, body).json["error"]
        assert error["code"] == 400 and named in error["message"] and error["param"] in ("prompt", "tokens")


@pytest.mark.parametrize("field, value", [("image_data", ["x"]), ("lora_path", "a"), ("input_embeds", [[0.5]]), ("session_params", {"id": "x"}),
                                          ("custom_logit_processor", "x"), ("return_hidden_states", True), ("max_thinking_tokens", 5)])
def test_what_is_not_there_is_refused_by_name(server, field, value):
    answer = server.post("/generate", {"text": "x", field: value})
    assert answer.status == 400 and answer.json["error"]["param"] == field and "not supported" in answer.json["error"]["message"]
    off = {str: "", list: [], dict: {}, bool: False}.get(type(value))
    assert server.post("/generate", {"text": "x", field: off, "sampling_params": {"max_new_tokens": 1}}).status == 200, "nothing is asked for"


# ---- what meta_info says ----


def test_meta_info_is_complete(server):
    before = time.time()
    meta = server.generate(PROMPT, 9, rid="all-of-it", sampling={"ignore_eos": True})[2]
    assert {"id": "all-of-it", "finish_reason": {"type": "length", "length": 9}, "prompt_tokens": 40, "completion_tokens": 9, "reasoning_tokens": 0,
            "num_retractions": 0, "weight_version": "default", "dp_rank": 0}.items() <= meta.items()
    assert meta["cached_tokens_details"] == {"device": meta["cached_tokens"], "host": 0}
    assert before - 60 < meta["request_received_ts"] <= meta["request_finished_ts"] <= meta["response_sent_to_client_ts"] < time.time() + 60
    assert 0 <= meta["queue_time"] and 0 < meta["first_token_latency"] <= meta["e2e_latency"]
    assert meta["decode_throughput"] is None or meta["decode_throughput"] >= 0


def test_meta_info_tells_the_replica(tmp_path):
    with Daemons(scheduler=["--dp-size", "2"], gpu_worker=["--replica", "1"]) as d:
        assert d.generate("hello", 3)[2]["dp_rank"] == 1
