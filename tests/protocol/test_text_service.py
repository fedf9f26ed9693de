"""The paths of text alone, beside PyPI's tokenizers and jinja2: /tokenize, /detokenize, their /v1 twins, /tokenizer_info, /apply_template."""

import jinja2
import pytest
import tokenizers

from harness import ROOT, Daemons

FOLDER = ROOT / "tests/vectors/tokenizers/tiny-bbpe-llama3"
TEMPLATE = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
TEXTS = ["", "Hello, world!", "  don't  ", "日本語 and \U0001f469\u200d\U0001f469", "line\n\nline\t12345", "<|eot_id|> in a text"]
CHAT = [{"role": "user", "content": " Who are you?\n"}, {"role": "assistant", "content": "A tree."}]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    file = tmp_path_factory.mktemp("template") / "chat.jinja"
    file.write_text(TEMPLATE)
    with Daemons(tokenizer_worker=["--chat-template", str(file)]) as d:
        yield d


@pytest.fixture(scope="module")
def theirs():
    return tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("special", [True, False])
def test_texts_become_their_ids(server, theirs, prefix, special):
    for text in TEXTS[:-1]:
        answer = server.ok(f"{prefix}/tokenize", {"prompt": text, "add_special_tokens": special})
        want = theirs.encode(text, add_special_tokens=special).ids
        assert answer["tokens"] == want and answer["count"] == len(want), text


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("skip", [True, False])
def test_ids_become_their_text(server, theirs, prefix, skip):
    for text in TEXTS:
        ids = theirs.encode(text).ids
        assert server.ok(f"{prefix}/detokenize", {"tokens": ids, "skip_special_tokens": skip})["text"] == theirs.decode(ids, skip_special_tokens=skip)


def test_the_tokenizer_is_described(server, theirs):
    info = server.get("/tokenizer_info").json
    assert info["kind"] == "BPE" and info["vocab_size"] == max(theirs.get_vocab().values()) + 1
    assert info["chat_template"] == TEMPLATE and info["max_model_len"] == server.ok("/tokenize", {"prompt": ""})["max_model_len"]
    assert all(token is None or theirs.token_to_id(token) is not None for token in (info["bos_token"], info["eos_token"]))
    assert (info["eos_token"] is None) == (info["eos_token_ids"] == [])


@pytest.mark.parametrize("add", [True, False])
def test_messages_become_jinjas_prompt(server, add):
    bos = server.get("/tokenizer_info").json["bos_token"]
    want = jinja2.Environment().from_string(TEMPLATE).render(messages=CHAT, add_generation_prompt=add, bos_token=bos or "")
    assert server.ok("/apply_template", {"messages": CHAT, "add_generation_prompt": add})["prompt"] == want


def test_the_wrong_method_is_told(server):
    assert server.get("/tokenize").status == 405 and server.post("/tokenizer_info", {}).status == 405


def test_messages_that_are_none_are_named(server):
    """It began with "chat template, line 0", which no template has."""
    answer = server.post("/apply_template", {"messages": "x"})
    assert answer.status == 400 and answer.json["error"]["message"] == "messages: a list of messages is needed", answer
