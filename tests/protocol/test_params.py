"""Every sampling parameter: taken where it may be, refused by name where it may not."""

import pytest

TAKEN = [
    ("temperature", [0, 0.5, 1, 2.0]), ("top_p", [0.1, 1, 1.0]), ("top_k", [-1, 0, 1, 50]), ("min_p", [0, 0.5, 1]),
    ("frequency_penalty", [-2, 0, 2]), ("presence_penalty", [-2, 0.5, 2]), ("repetition_penalty", [0.5, 1, 2]),
    ("min_new_tokens", [0, 3]), ("n", [1, 2]), ("ignore_eos", [True, False]), ("stop_token_ids", [[], [5], [1, 2, 3], 7]),
    ("logit_bias", [{}, {"5": 1.5, "9": -100}]), ("seed", [0, 1, -1, 2**63 - 1]), ("sampling_seed", [5]),
    ("stop", ["x", ["x", "y"], [], ""]), ("skip_special_tokens", [True, False]),
    ("stop_regex", ["x\\d+", ["(?i:end)\\b", "[\\u4e00-\\u9fff]{3}"], [], ""]),
    ("spaces_between_special_tokens", [True, False]), ("no_stop_trim", [True, False]), ("max_new_tokens", [0, 1, 3]),
    ("regex", [""]), ("json_schema", [None]),
]
REFUSED = [
    ("temperature", [-0.1, "hot", [1], True, {}]), ("top_p", [0, -1, 1.1, "1"]), ("top_k", [-2, 1.5, 2**40]),
    ("min_p", [-0.1, 1.1]), ("frequency_penalty", [-2.1, 2.1]), ("presence_penalty", [3, None.__class__.__name__]),
    ("repetition_penalty", [0, -1, 2.5]), ("min_new_tokens", [-1, 4, 1.5]), ("n", [0, -1, 129, 10**9, 1.5]),
    ("ignore_eos", [1, "yes"]), ("stop_token_ids", [[-1], ["a"], [1.5], [2**33], [640], {}]),
    ("logit_bias", [[1], {"a": 1}, {"-1": 1}, {"5": "x"}, {"5": 1e30}, {"640": 1}]), ("seed", [1.5, "1", 2**64]),
    ("stop", [5, [5], ["x"] * 33, "x" * 1025]), ("max_new_tokens", [-1, 2.5, "3", 2**63, 10**30]),
    ("stop_regex", [5, [5], ["x"] * 33, "x" * 1025, "a*", "(a)\\1", "(?=a)b", "(a", "end$", "(x{1000}){1000}"]),
    ("skip_special_tokens", ["true"]), ("no_stop_trim", [0]),
    ("regex", ["a+"]), ("json_schema", ["{}"]), ("ebnf", ["root ::= x"]), ("frobnicate", [1]),
]
OPENAI = {"min_new_tokens": "min_tokens", "max_new_tokens": "max_tokens"}
NATIVE_ONLY = {"sampling_seed", "frobnicate"}


def flat(table):
    return [pytest.param(name, value, id=f"{name}={str(value)[:24]}") for name, values in table for value in values]


@pytest.mark.parametrize("name, value", flat(TAKEN))
def test_taken(server, name, value):
    sampling = {"max_new_tokens": 3, name: value}
    assert server.post("/generate", {"text": "hi", "sampling_params": sampling}).status == 200
    if name in NATIVE_ONLY:
        return
    for path, prompt in (("/v1/completions", {"prompt": "hi"}), ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]})):
        answer = server.post(path, {**prompt, "max_tokens": 3, OPENAI.get(name, name): value})
        assert answer.status == 200, answer


@pytest.mark.parametrize("name, value", flat(REFUSED))
def test_refused_by_name(server, name, value):
    answer = server.post("/generate", {"text": "hi", "sampling_params": {"max_new_tokens": 3, name: value}})
    assert answer.status == 400 and name in answer.json["error"]["message"], answer
    if name in NATIVE_ONLY:
        return
    name = OPENAI.get(name, name)
    answer = server.post("/v1/completions", {"prompt": "hi", "max_tokens": 3, name: value})
    error = answer.json["error"]
    assert answer.status == 400 and error["type"] == "invalid_request_error", answer
    assert name in error["message"] or error["param"] == name or name == "min_tokens" and "min_new_tokens" in error["message"]


@pytest.mark.parametrize("body, named", [
    ({}, "text"), ({"text": "a", "input_ids": [1]}, "text"), ({"text": 5}, "text"), ({"text": ""}, "text"),
    ({"text": []}, "text"), ({"text": ["a", 5]}, "text"), ({"input_ids": ["a"]}, "input_ids"), ({"input_ids": [-1]}, "input_ids"),
    ({"input_ids": [640]}, "input_ids"), ({"input_ids": []}, "input_ids"), ({"input_ids": [1.5]}, "input_ids"),
    ({"text": "a", "max_new_tokens": 3}, "max_new_tokens: it belongs into sampling_params"),
    ({"text": "a", "temperature": 0, "sampling_params": {}}, "temperature: it belongs into sampling_params"),
    ({"text": []}, "text: the list is empty"), ({"text": "a", "sampling_params": {"max_tokens": 3}}, "here it is max_new_tokens"),
    ({"text": "a", "sampling_params": {"min_tokens": 3}}, "here it is min_new_tokens"), ({"text": "a", "sampling_params": {"tmp": 0}}, "/openapi.json"),
    ({"text": "a", "sampling_params": {"max_new_token": 3}}, "'max_new_token' (did you mean max_new_tokens?)"),
    ({"text": "a", "sampling_params": {"temprature": 0}}, "(did you mean temperature?)"),
    ({"text": "a", "sampling_params": {"max_new_tokens": 1000000000}}, "1000000000 is not a whole number from 0 to 16777216"),
    ({"text": "a", "sampling_params": {"top_p": 0}}, "top_p: 0 is not a number above 0 and up to 1"),
    ({"text": "a", "sampling_params": {"temperature": -0.1}}, "temperature: -0.1 is not a number from 0 to 1000000"),
    ({"text": "a", "sampling_params": 5}, "sampling_params"), ({"text": "a", "stream": "yes"}, "stream"),
    ({"text": "a", "rid": ""}, "rid"), ({"text": "a", "rid": "x" * 1000}, "rid"), ({"text": "a", "priority": "high"}, "priority"),
])
def test_bad_requests_name_the_field(server, body, named):
    answer = server.post("/generate", body)
    assert answer.status == 400 and named in answer.json["error"]["message"], answer


@pytest.mark.parametrize("name", ["routed_dp_rank", "data_parallel_rank"])
def test_a_replica_cannot_be_asked_for(server, name):
    """It was passed over in silence: the request went where the tree says."""
    for path, body in (("/generate", {"text": "hi"}), ("/v1/completions", {"prompt": "hi"})):
        answer = server.post(path, {**body, name: 1})
        assert answer.status == 400 and name in answer.json["error"]["message"], answer
