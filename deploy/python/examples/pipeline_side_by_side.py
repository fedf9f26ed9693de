"""The same task by transformers' pipeline() and by Banyan's three ways: python3 pipeline_side_by_side.py MODEL [TOKENS] [WAY …]

    pipeline   pipeline("text-generation"), one prompt after another
    engine     banyan.Engine in this program
    sglang     the same by SGLang's names: import banyan.compat.sglang as sgl
    http       a server of its own, started by python3 -m banyan.launch_server, and POST /v1/completions

Prints how fast each way was and what it said. Run it with .venv-transformers/bin/python.
"""

import re
import subprocess
import sys
import time

import banyan
import banyan.compat.sglang as sgl

PROMPTS = ["The capital of France is", "Water boils at", "def fibonacci(n):", "Once upon a time"]
MODEL = sys.argv[1]
N = int(sys.argv[2]) if len(sys.argv) > 2 else 256
WAYS = sys.argv[3:] or ["pipeline", "engine", "sglang", "http"]
PARAMS = {"temperature": 0.8, "top_p": 0.95, "top_k": 20, "max_new_tokens": N}


def pipeline_way():
    from transformers import pipeline

    pipe = pipeline("text-generation", model=MODEL)
    began = time.perf_counter()
    texts = [pipe(p, do_sample=True, return_full_text=False, **PARAMS)[0]["generated_text"] for p in PROMPTS]
    return texts, began


def engine_way(kind=banyan.Engine):
    with kind(model_path=MODEL, impl="transformers") as llm:
        began = time.perf_counter()
        return [r["text"] for r in llm.generate(PROMPTS, PARAMS)], began


def http_way():
    import json
    from urllib.request import Request, urlopen

    server = subprocess.Popen([sys.executable, "-m", "banyan.launch_server", "--model-path", MODEL, "--impl", "transformers",
                               "--host", "127.0.0.1", "--port", "0"], stderr=subprocess.PIPE, text=True)
    try:
        url = next(found[1] for line in server.stderr if (found := re.search(r" ready in [\d.]+ s: (http://[\w.:]+)", line)))
        body = {"model": "default", "prompt": PROMPTS, "max_tokens": N, **{k: PARAMS[k] for k in ("temperature", "top_p", "top_k")}}
        began = time.perf_counter()
        with urlopen(Request(f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})) as answer:
            return [c["text"] for c in json.load(answer)["choices"]], began
    finally:
        server.terminate()
        server.communicate()


RUN = {"pipeline": pipeline_way, "engine": engine_way, "sglang": lambda: engine_way(sgl.Engine), "http": http_way}
said = {}
for way in WAYS:
    texts, began = RUN[way]()
    said[way] = texts
    print(f"{way:10} {time.perf_counter() - began:8.2f} s for {len(texts)} texts")
for i, prompt in enumerate(PROMPTS):
    print(f"\n{prompt}")
    for way in WAYS:
        print(f"  {way:10} {said[way][i][:70]!r}")
