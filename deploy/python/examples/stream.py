"""Text as it comes: python3 stream.py [MODEL]"""

import sys

import banyan

with banyan.Engine(sys.argv[1] if len(sys.argv) > 1 else None) as engine:
    shown = 0
    for event in engine.generate("Once upon a time", {"temperature": 0.8, "seed": 1, "max_new_tokens": 120}, stream=True):
        print(event["text"][shown:], end="", flush=True)
        shown = len(event["text"])
    print()
