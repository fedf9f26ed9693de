"""What a model's authors recommend in generation_config.json holds for requests that do not say otherwise, as with SGLang and
vLLM: it was read, and then used by nobody. top_k 1 makes it visible: every seed then has the same text."""

import json

import pytest

import tiny_llama
from harness import Serve

RECOMMENDED = {"temperature": 0.7, "top_k": 1, "top_p": 0.95, "min_p": -1, "_from_model_config": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recommends") / "model"
    tiny_llama.write(path, 7)
    (path / "generation_config.json").write_text(json.dumps(RECOMMENDED))
    return path


@pytest.fixture(scope="module")
def server(folder):
    with Serve(folder, "--chat-template", "chatml") as s:
        yield s


def texts(ask):
    return {ask(seed) for seed in (1, 2, 3)}


def complete(server, **more):
    body = {"prompt": "Once upon a time", "max_tokens": 12, "ignore_eos": True, **more}
    return texts(lambda seed: server.ok("/v1/completions", {**body, "seed": seed})["choices"][0]["text"])


def chat(server, **more):
    body = {"messages": [{"role": "user", "content": "Once"}], "max_tokens": 12, "ignore_eos": True, **more}
    return texts(lambda seed: server.ok("/v1/chat/completions", {**body, "seed": seed})["choices"][0]["message"]["content"])


def ollama(server, **options):
    body = {"model": "m", "prompt": "Once", "stream": False}
    return texts(lambda seed: server.ok("/api/generate", {**body, "options": {"num_predict": 12, "seed": seed, **options}})["response"])


def native(server, **params):
    body = {"text": "Once", "sampling_params": {"max_new_tokens": 12, "ignore_eos": True, **params}}
    return texts(lambda seed: server.ok("/generate", {**body, "sampling_params": {**body["sampling_params"], "seed": seed}})["text"])


@pytest.mark.parametrize("ask", [complete, chat, ollama])
def test_a_request_that_says_nothing_has_the_models_values(server, ask):
    assert len(ask(server)) == 1


@pytest.mark.parametrize("ask", [complete, chat, ollama])
@pytest.mark.parametrize("top_k", [-1, 0, 50])
def test_a_request_that_says_something_has_its_own(server, ask, top_k):
    assert len(ask(server, top_k=top_k)) == 3


def test_null_is_nothing_said(server):
    assert len(complete(server, top_k=None, temperature=None)) == 1


def test_generate_is_as_sglangs(server):
    assert len(native(server)) == 3 and len(native(server, top_k=1)) == 1


def test_they_are_told(server):
    want = {"temperature": 0.7, "top_k": 1, "top_p": 0.95, "min_p": 0, "repetition_penalty": 1}
    assert server.get("/model_info").json["default_sampling_params"] == want


def test_openais_defaults_on_demand(folder):
    with Serve(folder, "--chat-template", "chatml", "--sampling-defaults", "openai") as s:
        assert len(complete(s)) == 3 and len(chat(s)) == 3
        assert s.get("/model_info").json["default_sampling_params"] is None


def test_a_model_without_any_has_openais(tmp_path):
    path = tmp_path / "model"
    tiny_llama.write(path, 7)
    (path / "generation_config.json").write_text('{"do_sample": true, "temperature": null, "top_k": -1}')
    with Serve(path) as s:
        assert len(complete(s)) == 3
        assert s.get("/model_info").json["default_sampling_params"] is None
