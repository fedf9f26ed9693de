"""One model by the native engine and by transformers, beside pipeline(): python3 native_and_transformers.py MODEL [TOKENS]

The table says how fast each one was, and in how many answers its text is pipeline's. Run it with .venv-transformers/bin/python.
"""

import sys
import time

import banyan

PROMPTS = ["The capital of France is", "Water boils at", "def fibonacci(n):", "Once upon a time"]
N = int(sys.argv[2]) if len(sys.argv) > 2 else 48


def by_banyan(impl, model):
    with banyan.Engine(model, impl=impl, dtype="float32") as engine:
        began = time.perf_counter()
        results = engine.generate(PROMPTS, {"temperature": 0, "max_new_tokens": N, "ignore_eos": True})
        return time.perf_counter() - began, [r["text"] for r in results]


def by_pipeline(model):
    from transformers import pipeline

    run = pipeline("text-generation", model=model, dtype="float32")
    began = time.perf_counter()
    texts = [run(p, max_new_tokens=N, min_new_tokens=N, do_sample=False, return_full_text=False)[0]["generated_text"]
             for p in PROMPTS]
    return time.perf_counter() - began, texts


rows = [("pipeline", *by_pipeline(sys.argv[1]))] + [(i, *by_banyan(i, sys.argv[1])) for i in ("transformers", "native")]
for name, seconds, texts in rows:
    same = sum(a == b for a, b in zip(texts, rows[0][2]))
    print(f"{name:14} {N * len(PROMPTS) / seconds:8.1f} tokens/s   {same} of {len(PROMPTS)} texts are pipeline's")
