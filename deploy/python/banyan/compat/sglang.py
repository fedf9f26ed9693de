"""SGLang's names: `import banyan.compat.sglang as sgl; sgl.Engine(model_path=…).generate(…)`.

Options of SGLang that have no counterpart here are refused by `banyan serve`, by name, when the engine starts.
"""

from ..engine import Engine

__all__ = ["Engine"]
