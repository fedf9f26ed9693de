"""Banyan for Python: an Engine that runs a model in this program's own private server, and a Client for one that runs.

    import banyan
    with banyan.Engine("org/model") as engine:
        print(engine.generate("The capital of France is", {"max_new_tokens": 20})["text"])

Read in this order: engine.py (the processes), client.py (what can be asked), wire.py (HTTP on asyncio).
"""

from .client import Client
from .engine import Engine
from .wire import BanyanError, RequestError

__all__ = ["BanyanError", "Client", "Engine", "RequestError"]
__version__ = "0.1.0"
