"""banyan.Engine and banyan.Client over the stand-in worker: results as SGLang's Engine gives them, and nothing left behind,
however the program ends. With a real model: tests/hf/test_engine.py.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import BIN, ROOT, TINY, Serve, alive, stand_in, wait_for

sys.path.insert(0, str(ROOT / "deploy/python"))
import banyan  # noqa: E402
import banyan.compat.sglang as sgl  # noqa: E402

PROMPT = list(range(40, 90))
GREEDY = {"temperature": 0, "max_new_tokens": 8, "ignore_eos": True}


@pytest.fixture(scope="module", autouse=True)
def programs(tmp_path_factory):
    before = dict(os.environ)
    os.environ["BANYAN_BIN"] = str(BIN / "banyan")
    os.environ["BANYAN_GPU_WORKER"] = str(stand_in(tmp_path_factory.mktemp("worker"), "--step-us", 1000))
    os.environ["PYTHONPATH"] = str(ROOT / "deploy/python")
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def engine(programs):
    with banyan.Engine(TINY) as e:
        yield e


# ---- results ----


def test_a_prompt_gives_a_dict_and_a_list_gives_a_list(engine):
    one = engine.generate("The capital of France is", GREEDY)
    assert set(one) == {"text", "output_ids", "meta_info"} and len(one["output_ids"]) == 8
    assert one["meta_info"]["finish_reason"] == {"type": "length", "length": 8}
    many = engine.generate(["The capital of France is", "hello"], GREEDY)
    assert [m["text"] for m in many] == [one["text"], engine.generate("hello", GREEDY)["text"]]


def test_samples_of_a_prompt_are_listed(engine):
    told = {"temperature": 1, "n": 3, "seed": 4, "max_new_tokens": 6}
    assert len(engine.generate("hello", told)) == 3 or isinstance(engine.generate("hello", told), list)
    assert len(engine.generate(["hello", "you"], told)) == 6


def test_log_probabilities(engine):
    meta = engine.generate(input_ids=PROMPT, sampling_params=GREEDY, return_logprob=True, logprob_start_len=0)["meta_info"]
    assert len(meta["input_token_logprobs"]) == len(PROMPT) and len(meta["output_token_logprobs"]) == 8


def test_streams_are_cumulative(engine):
    whole = engine.generate("hello", GREEDY)["text"]
    texts = [e["text"] for e in engine.generate("hello", GREEDY, stream=True)]
    assert len(texts) > 2 and texts[-1] == whole and all(whole.startswith(t) for t in texts)
    last = {}
    for event in engine.generate(["hello", "you"], GREEDY, stream=True):
        last[event["index"]] = event["text"]
    assert last[0] == whole and set(last) == {0, 1}


def test_a_chat(engine):
    """A chat model could be had offline by a prompt of one's own only; Client had no chat either."""
    messages = [{"role": "user", "content": "hello"}]
    whole = engine.chat(messages, temperature=0, max_tokens=8)
    words = whole["choices"][0]["message"]["content"]
    assert whole["object"] == "chat.completion" and whole["usage"]["completion_tokens"] == 8 and words
    joined = lambda chunks: "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)  # noqa: E731
    assert joined(engine.chat(messages, temperature=0, max_tokens=8, stream=True)) == words

    async def both():
        answer = await engine.async_chat(messages, temperature=0, max_tokens=8)
        return answer, [c async for c in await engine.async_chat(messages, temperature=0, max_tokens=8, stream=True)]

    answer, streamed = asyncio.run(both())
    assert answer["choices"] == whole["choices"] and joined(streamed) == words
    for wrong in ("hello", {"role": "user", "content": "hello"}, 5):
        with pytest.raises(TypeError, match="messages: a list of"):
            engine.chat(wrong)
    for fields, named in [({"max_tokens": -1}, "max_tokens"), ({"response_format": {"type": "json_object"}}, "response_format")]:
        with pytest.raises(banyan.RequestError, match=named):
            engine.chat(messages, **fields)
    assert engine.get_server_info()["status"] == "ready"


def test_a_stream_left_early_is_aborted(engine):
    for _ in engine.generate("hello", {**GREEDY, "max_new_tokens": 20000}, stream=True):
        break
    load = lambda: json.loads(engine._run(banyan.wire.ask(engine.address, "GET", "/v1/loads")))["loads"][0]  # noqa: E731
    wait_for("the request to be gone", lambda: load()["num_running_reqs"] == 0)


def test_async(engine):
    async def run():
        one = await engine.async_generate("hello", GREEDY)
        many = await asyncio.gather(*[engine.async_generate(f"hello {i}", GREEDY) for i in range(20)])
        events = [e async for e in await engine.async_generate("hello", GREEDY, stream=True)]
        assert engine.generate("hello", GREEDY)["text"] == one["text"], "blocking, inside of a running loop"
        return one["text"], events[-1]["text"], len(many)

    one, streamed, n = asyncio.run(run())
    assert one == streamed == engine.generate("hello", GREEDY)["text"] and n == 20


def test_the_cache_and_its_flush(engine):
    engine.generate(input_ids=PROMPT, sampling_params=GREEDY)
    assert engine.generate(input_ids=PROMPT, sampling_params=GREEDY)["meta_info"]["cached_tokens"] == 48
    assert engine.flush_cache() is True
    assert engine.generate(input_ids=PROMPT, sampling_params=GREEDY)["meta_info"]["cached_tokens"] == 0


def test_info(engine):
    assert engine.get_server_info()["model_path"] == engine.get_model_info()["model_path"]
    assert engine.tokenize("hello")
    texts = ["hello world", "a"]  # there was a way in, and none out
    assert engine.detokenize(engine.tokenize(texts[0])) == texts[0] and engine.detokenize(engine.tokenize(texts)) == texts
    assert engine.detokenize([0, *engine.tokenize("a")], skip_special_tokens=False).endswith("a")


def test_abort_by_rid(engine):
    results = []
    thread = threading.Thread(target=lambda: results.append(
        engine.generate(input_ids=PROMPT[:9], sampling_params={**GREEDY, "max_new_tokens": 20000}, rid="mine")))
    thread.start()
    time.sleep(0.3)
    engine.abort("mine")
    thread.join()
    assert results[0]["meta_info"]["finish_reason"]["type"] == "abort"


def test_what_is_wrong_is_said(engine):
    with pytest.raises(ValueError, match="exactly one"):
        engine.generate()
    with pytest.raises(ValueError, match="2 were given for 3"):
        engine.generate(["a", "b", "c"], [GREEDY, GREEDY])
    with pytest.raises(banyan.RequestError, match="no_such"):
        engine.generate("hello", {"no_such": 1})
    with pytest.raises(banyan.RequestError):
        engine.generate(["hello", "you"], {"temperature": -1})
    with pytest.raises(banyan.RequestError, match="makes no embeddings"):
        engine.encode("hello")  # the stand-in's model


def test_a_prompt_of_the_wrong_kind_is_named(engine):
    for prompt in (5, b"hello", {"text": "hello"}, [1, 2, 3], ["hello", None]):
        with pytest.raises(TypeError, match="^prompt"):
            engine.generate(prompt, GREEDY)
    for ids in ("hello", [1.5, 2], [[1], ["a"]]):
        with pytest.raises(TypeError, match="^input_ids: a token id is a whole number"):
            engine.generate(input_ids=ids, sampling_params=GREEDY)
    with pytest.raises(TypeError, match="complex has no place in a request"):
        engine.generate("hello", {"temperature": 1j})
    with pytest.raises(ValueError, match="JSON compliant"):
        engine.generate("hello", {"temperature": float("nan")})


def test_arrays_and_their_numbers_are_taken_as_lists(engine):
    """What numpy and torch give: before, an array of ids of one dimension and a scalar among the parameters were refused."""
    array = lambda value: type("array", (), {"tolist": lambda self: value})()  # noqa: E731
    plain = engine.generate(input_ids=PROMPT, sampling_params=GREEDY)["output_ids"]
    params = {**GREEDY, "max_new_tokens": array(8)}
    assert engine.generate(input_ids=array(PROMPT), sampling_params=params)["output_ids"] == plain
    assert [r["output_ids"] for r in engine.generate(input_ids=array([PROMPT, PROMPT]), sampling_params=params)] == [plain] * 2
    assert engine.generate(input_ids=[array(i) for i in PROMPT], sampling_params=params)["output_ids"] == plain
    assert [r["output_ids"] for r in engine.generate(input_ids=[array(PROMPT)], sampling_params=params)] == [plain]


def test_a_forked_child_may_ask_and_its_end_is_not_the_engines(engine):
    """A child has none of its parent's threads: asking hung for ever, and its exit removed the parent's folder."""
    text = engine.generate("hello", GREEDY)["text"]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, engine.generate("hello", GREEDY)["text"].encode())
            engine.shutdown()
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        assert pipe.read().decode() == text
    assert os.waitpid(child, 0)[1] == 0
    assert Path(engine.run_dir).exists() and engine.generate("hello", GREEDY)["text"] == text


def test_it_opens_no_port(engine):
    ports = subprocess.run(["ss", "-ltnp"], capture_output=True, text=True).stdout if Path("/usr/bin/ss").exists() else ""
    pids = [int(p) for p in Path(f"/proc/{engine._process.pid}/task/{engine._process.pid}/children").read_text().split()]
    assert len(pids) == 5 and not any(f"pid={pid}," in ports for pid in pids)


# ---- other ways in ----


def test_sglangs_names_and_a_second_shutdown(engine):
    llm = sgl.Engine(model_path=str(TINY))
    assert llm.generate("hello", GREEDY)["output_ids"] == engine.generate("hello", GREEDY)["output_ids"]
    llm.shutdown()
    llm.shutdown()
    with pytest.raises(banyan.BanyanError, match="shut down"):
        llm.generate("hello")
    with pytest.raises(banyan.BanyanError, match="shut down"):
        list(llm.generate("hello", stream=True))
    with pytest.raises(banyan.BanyanError, match="shut down"):
        asyncio.run(llm.async_generate("hello"))
    assert not Path(llm.run_dir).exists()


def test_launch_server_and_a_client(engine):
    command = [sys.executable, "-m", "banyan.launch_server"]
    assert "--model-path" in subprocess.run([*command, "--help"], capture_output=True, text=True).stdout
    with Serve("--model-path", TINY, worker=os.environ["BANYAN_GPU_WORKER"]) as s:
        client = banyan.Client(s.url)
        assert client.generate("hello", GREEDY)["text"] == engine.generate("hello", GREEDY)["text"]
    with pytest.raises(banyan.BanyanError, match="no server answers"):
        client.generate("hello")


# ---- how it ends ----


def test_a_start_that_fails_says_why():
    with pytest.raises(banyan.BanyanError, match="there is no such file or folder"):
        banyan.Engine("/nowhere/at/all")
    with pytest.raises(banyan.BanyanError, match="no-such-option"):
        banyan.Engine(no_such_option=3)
    with pytest.raises(TypeError, match="opens no port"):
        banyan.Engine(port=3)
    with pytest.raises(banyan.BanyanError, match="what it said is on stderr"):  # it was "it said nothing"
        banyan.Engine(TINY, log_level="loud")


def test_a_start_that_fails_quotes_no_log_that_nobody_sees(tmp_path):
    """"its own line above says why" stood between the lines that it means."""
    with pytest.raises(banyan.BanyanError, match="tokenizer.json") as why:
        banyan.Engine(tmp_path)
    assert "line above" not in str(why.value)


def test_a_server_that_ended_is_named_and_quoted():
    """It said "no server answers there", and nothing of what had happened to it."""
    said = r"the engine's server has ended by signal 9.*\n\S+ (info|warn|error) "  # and its last lines, some of them of those it left behind
    with banyan.Engine(TINY) as e:
        def is_told():  # its router may answer a little longer, at last that it is shutting down
            try:
                return not e.generate("hello", GREEDY)
            except banyan.BanyanError as why:
                return re.search(said, str(why))
        os.kill(e._process.pid, signal.SIGKILL)
        wait_for("an end that says why", is_told)
    with pytest.raises(banyan.BanyanError, match="was shut down"):
        e.generate("hello", GREEDY)


PROGRAM = """
import banyan, os, sys
engine = banyan.Engine({path!r})
children = open(f"/proc/{{engine._process.pid}}/task/{{engine._process.pid}}/children").read().split()
print(engine.run_dir, engine._process.pid, *children, flush=True)
{then}
"""
LONG = 'engine.generate(["hello"] * 50, {"max_new_tokens": 20000, "ignore_eos": True})'
ENDS = {
    "falls off its end": ("pass", None, 0),
    "raises": ("raise SystemExit(3)", None, 3),
    "Ctrl-C": (LONG, signal.SIGINT, -signal.SIGINT),
    "SIGTERM": (LONG, signal.SIGTERM, -signal.SIGTERM),
    "kill -9": (LONG, signal.SIGKILL, -signal.SIGKILL),
}


@pytest.mark.parametrize("how", ENDS)
def test_no_process_outlives_the_program(how):
    then, sig, code = ENDS[how]
    program = PROGRAM.format(path=str(TINY), then=then)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a shell's background job ignores it
    run_dir, *pids = process.stdout.readline().split()
    assert len(pids) == 6, process.stderr.read()
    if sig:
        time.sleep(0.5)
        process.send_signal(sig)
    assert process.wait(60) == code
    wait_for("all of its processes to end", lambda: not any(alive(int(pid)) for pid in pids))
    if sig not in (signal.SIGTERM, signal.SIGKILL):
        assert not Path(run_dir).exists()
    process.stdout.close(), process.stderr.close()
