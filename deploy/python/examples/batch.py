"""Many prompts at once: python3 batch.py [MODEL]"""

import sys

import banyan

PROMPTS = ["The capital of France is", "Water boils at", "The largest planet is", "A haiku about rain:"]

with banyan.Engine(sys.argv[1] if len(sys.argv) > 1 else None) as engine:
    for prompt, result in zip(PROMPTS, engine.generate(PROMPTS, {"temperature": 0, "max_new_tokens": 24})):
        print(f"{prompt}{result['text']}\n")
