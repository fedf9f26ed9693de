"""A model that brings its own Python code: python3 custom_code.py FOLDER-OR-HUB-ID

Read that code first: trust_remote_code lets it run, with your rights.
"""

import sys

import banyan

with banyan.Engine(sys.argv[1], impl="transformers", trust_remote_code=True) as engine:
    print(engine.get_server_info()["impl"])
    print(engine.generate(["The capital of France is"], {"max_new_tokens": 20})[0]["text"])
