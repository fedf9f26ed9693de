#!/usr/bin/env python3
"""Writes deploy/docs/models.md from the table that sweep.py has measured (tests/bench/results/models.csv).

    python3 gpu_worker/hf/models_page.py > deploy/docs/models.md
"""

import csv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "tests/bench/results/models.csv"
TITLES = {"tiny": "Tiny models of the tests", "class": "Every class of transformers that generates text, images beside it or not, from a small config"}
HOWS = ("A", "B", "C", "D", "R", "refused", "not tried")


def page(table=TABLE):
    """The page's text. First line of the table: a comment that names the versions."""
    lines = table.read_text().splitlines()
    rows = list(csv.DictReader(lines[1:]))
    text = f"""# Which models run, and how

Made by `gpu_worker/hf/models_page.py` from the sweep's table, `tests/bench/results/models.csv` ({lines[0].lstrip('# ')}); do not edit.
The families that the native engine knows are in gpu_worker/models/README.md; every other model, and any with `--model-impl
transformers`, goes to the Transformers worker, which tries its tiers (gpu_worker/hf/README.md) on the model at load. The error is
the largest difference of a logit from the model's own eager attention, in float32, over chunks, a shared prefix and mixed
steps. A prefix that another request had is reused by its pages, of models with layers that carry a state along by pages and states
that were kept. "As decoder": a class that is an encoder, or has one, unless its config says `is_decoder` (or `causal`). Not tried: the
class could not be made or run this small by itself, which says nothing about its real models: those are probed like all others.
"""
    for kind, title in TITLES.items():
        mine = [r for r in rows if r["kind"] == kind]
        counts = {how: sum(r["tier"] == how for r in mine) for how in HOWS}
        text += f"\n## {title}\n\n" + ", ".join(f"{how}: {n}" for how, n in counts.items() if n) + ".\n\n"
        text += "| model | tier | error | a prefix is reused by | how it was decided, or why not |\n| --- | --- | --- | --- | --- |\n"
        text += "".join(f"| {r['model']} | {r['tier']} | {r['error'] or '–'} | {r['prefix'] or '–'} | {r['why']} |\n" for r in mine)
    return text


if __name__ == "__main__":
    print(page(), end="")
