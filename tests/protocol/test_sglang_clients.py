"""SGLang's own clients, unmodified: the front end's RuntimeEndpoint and bench_serving, each in a process of its own.

They import IPython and transformers, of which a client needs next to nothing: sglang_imports/ stands in their place."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import harness

FRONT_END = '''
import json, sys
import sglang as sgl

endpoint = sgl.RuntimeEndpoint(sys.argv[1])
sgl.set_default_backend(endpoint)

@sgl.function
def talk(s, n):
    s += "hello " + n
    s += sgl.gen("first", max_tokens=12, temperature=0)
    s += " and then"
    s += sgl.gen("second", max_tokens=8, temperature=0, stop=["\\x00"])

@sgl.function
def choose(s):
    s += "the answer is"
    s += sgl.select("which", ["one", "two", "three"])

@sgl.function
def fork(s):
    s += "a common beginning of some length, so that there is something to share"
    forks = s.fork(3)
    forks += sgl.gen("part", max_tokens=4, temperature=0)
    s += " ".join(f["part"] for f in forks)

def logprobs(s):
    s += "hello"
    s += sgl.gen("x", max_tokens=3, temperature=0, return_logprob=True, top_logprobs_num=2, return_text_in_logprobs=True)

one = talk.run("you")
stream = talk.run("you", stream=True)
streamed = "".join(stream.text_iter())
batch = talk.run_batch([{"n": str(i)} for i in range(6)], num_threads=3, progress_bar=False)
told = sgl.function(logprobs).run()
print(json.dumps({
    "model": endpoint.get_model_name(),
    "status": endpoint.get_server_info()["status"],
    "first": one["first"], "second": one["second"], "text": one.text(), "streamed": streamed,
    "batch": [b["first"] for b in batch], "alone": [talk.run(str(i))["first"] for i in range(6)],
    "which": choose.run()["which"],
    "fork": fork.run().text(),
    "meta": told.get_meta_info("x"),
}))
endpoint.cache_prefix("a prefix that is to be there before it is asked for")
endpoint.flush_cache()
'''


def python(*argv):
    imports = Path(__file__).parent / "sglang_imports"
    done = subprocess.run([sys.executable, *map(str, argv)], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(imports)})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_front_end(server):
    out = json.loads(python("-c", FRONT_END, f"http://127.0.0.1:{server.port}"))
    assert out["model"] == "stand-in" and out["status"] == "ready"
    first = server.generate("hello you", 12)[0]
    assert out["first"] == first and out["text"] == "hello you" + first + " and then" + out["second"]
    assert out["streamed"] == out["text"], "cumulative events, which it slices"
    assert out["batch"] == out["alone"]
    assert out["which"] in ("one", "two", "three")
    part = server.generate("a common beginning of some length, so that there is something to share", 4)[0]
    assert out["fork"].endswith(" ".join([part] * 3))
    assert len(out["meta"]["output_token_logprobs"]) == 3 and all(isinstance(t[2], str) for t in out["meta"]["output_token_logprobs"])


@pytest.mark.parametrize("backend", ["sglang", "sglang-oai"])
def test_bench_serving(server, tmp_path, backend):
    out = tmp_path / "out.jsonl"
    said = python("-m", "sglang.bench_serving", "--backend", backend, "--host", "127.0.0.1", "--port", server.port,
                  "--dataset-name", "random-ids", "--random-input-len", 24, "--random-output-len", 8, "--random-range-ratio", 1,
                  "--num-prompts", 12, "--max-concurrency", 4, "--flush-cache", "--disable-tqdm", "--tokenizer", harness.TINY,
                  "--model", harness.TINY, "--output-file", out, "--seed", 7)
    result = json.loads(out.read_text())
    assert result["completed"] == 12 and result["total_output_tokens"] == 12 * 8, said
    assert result["mean_ttft_ms"] > 0 and result["output_throughput"] > 0
