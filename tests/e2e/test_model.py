"""`banyan serve` with the model it takes by default: right answers, through every process, whatever dies."""

import asyncio
import os
import re
import signal
import struct
import subprocess
import time

import openai
import pytest

from harness import BIN, Serve, in_threads, rss_kib, wait_for

PARIS = [{"role": "user", "content": "What is the capital of France?"}]
ASK = {"model": "any", "messages": PARIS, "max_tokens": 24, "temperature": 0}
STORIES = [f"Once upon a time there were {n} little {who} who" for n in ("two", "three", "five", "seven")
           for who in ("birds", "bears", "foxes", "trees", "ships", "kings", "cats", "towns")]


@pytest.fixture(scope="module")
def server():
    with Serve() as s:
        yield s


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as c:
        yield c


def test_paris(client):
    answer = client.chat.completions.create(**ASK)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop", "the model says that it is done"
    assert answer.usage.prompt_tokens > 10 and 0 < answer.usage.completion_tokens < 24


def test_its_name_is_no_path_of_this_machine(client):
    assert [m.id for m in client.models.list()] == ["SmolLM2-135M-Instruct"]


def test_paris_streams(client):
    whole = client.chat.completions.create(**ASK).choices[0].message.content
    assert "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(**ASK, stream=True)) == whole


def test_paris_async(server):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as c:
            answers = await asyncio.gather(*[c.chat.completions.create(**ASK) for _ in range(4)])
            text = ""
            async for chunk in await c.chat.completions.create(**ASK, stream=True):
                text += chunk.choices[0].delta.content or ""
            return text, [a.choices[0].message.content for a in answers]

    text, answers = asyncio.run(ask())
    assert "Paris" in text and answers == [text] * 4


QUESTIONS = [("The capital of France is", [" Paris", " Madrid", " Lisbon", " cheese"], 0), ("Two plus two is", [" blue", " four", " Monday"], 1),
             ("The sun rises in the", [" east", " banana", " pocket"], 0), ("Water freezes and becomes", [" wood", " music", " ice"], 2)]


@pytest.mark.parametrize("question, choices, right", QUESTIONS)
def test_multiple_choice_by_log_likelihood(client, question, choices, right):
    """As evaluation harnesses ask: echo and logprobs, nothing generated; the likeliest end of the sentence is the answer."""
    answers = client.completions.create(model="any", prompt=[question + c for c in choices], echo=True, logprobs=1, max_tokens=0, temperature=0)
    scores = []
    for choice in answers.choices:
        told = choice.logprobs
        n = next(i for i, at in enumerate(told.text_offset) if at >= len(question))
        assert "".join(told.tokens) == question + choices[choice.index] and told.token_logprobs[0] is None
        scores.append(sum(told.token_logprobs[n:]))
    assert scores.index(max(scores)) == right, scores


def test_a_prefix_is_computed_once(client):
    long = [{"role": "system", "content": "You answer in one word. " * 20}, *PARIS]
    first = client.chat.completions.create(**{**ASK, "messages": long})
    again = client.chat.completions.create(**{**ASK, "messages": long})
    assert first.usage.prompt_tokens_details.cached_tokens < 48, "the template's own beginning at most"
    assert again.usage.prompt_tokens_details.cached_tokens == (again.usage.prompt_tokens - 1) // 16 * 16
    assert again.choices[0].message.content == first.choices[0].message.content


def test_32_streams_are_as_one_at_a_time(server):
    alone = [server.generate(s, 12)[:2] for s in STORIES]
    server.post("/flush_cache")
    assert [r[:2] for r in in_threads([lambda s=s: server.generate(s, 12) for s in STORIES])] == alone
    seeded = {"temperature": 0.8, "top_p": 0.9, "seed": 11}
    alone = [server.generate(s, 8, sampling=seeded)[:2] for s in STORIES[:8]]
    assert [r[:2] for r in in_threads([lambda s=s: server.generate(s, 8, sampling=seeded) for s in STORIES[:8]])] == alone


@pytest.mark.parametrize("name", ["gpu-worker", "scheduler", "tokenizer-worker", "detokenizer"])
def test_kill_9_in_the_middle_of_a_stream(server, name):
    text, ids, _ = server.generate(STORIES[0], 40)
    pid, killed = server.pids()[name], []

    def on_event(event):
        if len(event["output_ids"]) >= 10 and not killed:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    assert server.generate(STORIES[0], 40, on_event=on_event)[:2] == (text, ids)
    assert killed
    wait_for("it to be back", lambda: server.pids()[name] != pid)


def test_kill_9_of_the_worker_under_eight_streams(server):
    alone = [server.generate(s, 20)[:2] for s in STORIES[:8]]
    killed = []

    def on_event(event):
        if len(event["output_ids"]) >= 6 and not killed:
            killed.append(server.pids()["gpu-worker"])
            os.kill(killed[0], signal.SIGKILL)

    assert [r[:2] for r in in_threads([lambda s=s: server.generate(s, 20, on_event=on_event) for s in STORIES[:8]])] == alone
    assert killed


def test_what_it_costs(server, capsys):
    """Figures, not a verdict: time to ready, CPU when idle, memory."""
    ready = re.search(r"ready in ([\d.]+) s", server.logs())[1]
    pids = [server.process.pid, *server.pids().values()]
    ticks = lambda: sum(sum(map(int, open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()[11:13])) for p in pids)
    wait_for("it to be idle", lambda: server.load()["num_running_reqs"] == 0)
    before, start = ticks(), time.monotonic()
    time.sleep(2)
    idle = (ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - start)
    with capsys.disabled():
        print(f"\nready in {ready} s; idle {100 * idle:.2f} % of a core; rss MiB",
              {name: rss_kib(p) // 1024 for name, p in {"serve": server.process.pid, **server.pids()}.items()})


# ---- models that cannot be served ----


def gguf(**meta):
    """A GGUF file of metadata alone."""
    out = b"GGUF" + struct.pack("<IQQ", 3, 0, len(meta))
    for key, value in meta.items():
        key = key.replace("__", ".").encode()
        out += struct.pack("<Q", len(key)) + key + struct.pack("<I", 8) + struct.pack("<Q", len(value)) + value.encode()
    return out


@pytest.mark.parametrize("name, content, said", [
    ("missing.gguf", None, "missing.gguf"),
    ("empty.gguf", b"", "empty.gguf"),
    ("text.gguf", b"this is no model", "text.gguf"),
    ("cut.gguf", gguf(general__architecture="llama")[:30], "cut.gguf"),
    ("bare.gguf", gguf(general__architecture="llama"), "bare.gguf"),
    ("unknown.gguf", gguf(general__architecture="martian"), "martian"),
])
def test_a_bad_model_is_one_sentence(tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    done = subprocess.run([BIN / "banyan-gpu-worker", "--run-dir", tmp_path, "--model-path", path],
                          capture_output=True, text=True, timeout=20)
    assert done.returncode > 0, done
    assert said in done.stderr and len([line for line in done.stderr.splitlines() if " error " in line]) == 1, done.stderr
    s = Serve("--model-path", path)
    try:
        assert s.wait() == 1
        assert said in s.logs()
    finally:
        s.stop()
