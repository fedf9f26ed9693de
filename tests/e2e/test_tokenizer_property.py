"""`banyan tokenize` beside PyPI's tokenizers on random text: pieces of the vocabulary, scripts, marks, spaces, odd characters.

Some thousand texts, always the same; with BANYAN_TEST_LONG=yes (tests/run.sh --long) 100,000 new ones. A failure prints its seed; BANYAN_SEED takes it back.
"""

import json
import os
import random
import subprocess
import unicodedata

import pytest
import tokenizers

from harness import BIN, ROOT

FOLDERS = {p.parent.name: p.parent for top in (ROOT.parent / "shared/data/tokenizers", ROOT / "tests/vectors/tokenizers")
           for p in sorted(top.glob("*/tokenizer.json"))}
LONG = os.environ.get("BANYAN_TEST_LONG") == "yes"
N = (100_000 if LONG else 4_000) // max(len(FOLDERS), 1)
SEED = int(os.environ.get("BANYAN_SEED", random.randrange(2**32) if LONG else 7))

RANGES = [(0x20, 0x7E), (0xA0, 0x17F), (0x300, 0x36F), (0x370, 0x4FF), (0x590, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F),
          (0x1100, 0x11FF), (0x2000, 0x206F), (0x2190, 0x21FF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
          (0xFB00, 0xFDFF), (0xFE00, 0xFE0F), (0xFF01, 0xFFEF), (0x1D400, 0x1D7FF), (0x1F300, 0x1F6FF), (0x20000, 0x2A6DF)]
JOINTS = ["", " ", "  ", "\n", "\n\n", "\t", " \r\n", "'s", "’", "-", "▁", " ", "​", "\U0001f468‍\U0001f469", ".", "12345", "é"]


def known(cp):
    """Characters that both libraries know: the newest of Unicode differ by version of the tables, not by logic."""
    return unicodedata.category(chr(cp)) != "Cn"


def text_of(rng, pieces):
    parts = []
    for _ in range(rng.randrange(1, 12)):
        kind = rng.random()
        if kind < 0.5:
            parts.append(rng.choice(pieces))
        elif kind < 0.9:
            low, high = rng.choice(RANGES)
            parts.append("".join(chr(c) for c in (rng.randint(low, high) for _ in range(rng.randrange(1, 6))) if known(c)))
        parts.append(rng.choice(JOINTS))
    return "".join(parts)


def pieces_of(tokenizer):
    """Pieces as text, where they are whole characters."""
    texts = (tokenizer.decode([i], skip_special_tokens=True) for i in range(0, tokenizer.get_vocab_size(), 7))
    return [t for t in texts if t and "�" not in t] or ["a"]


@pytest.mark.parametrize("name", FOLDERS)
def test_random_text_gives_the_same_ids(name):
    reference = tokenizers.Tokenizer.from_file(str(FOLDERS[name] / "tokenizer.json"))
    rng = random.Random(f"{SEED} {name}")
    pieces = pieces_of(reference)
    texts = [text_of(rng, pieces) for _ in range(N)]
    lines = "".join(json.dumps({"text": t, "add_special_tokens": False}) + "\n" for t in texts)
    done = subprocess.run([BIN / "banyan", "tokenize", "--model-path", FOLDERS[name]], input=lines.encode(), capture_output=True,
                          timeout=280)
    got = [json.loads(line) for line in done.stdout.splitlines()]
    want = reference.encode_batch_fast(texts, add_special_tokens=False)
    wrong = [(t, g, w.ids) for t, g, w in zip(texts, got, want, strict=True) if g != {"ids": w.ids}]
    assert not wrong, f"BANYAN_SEED={SEED}: {len(wrong)} of {N}, the first: {wrong[0][0]!a} gave {wrong[0][1]}, want {wrong[0][2]}"
