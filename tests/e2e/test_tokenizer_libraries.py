"""Files of SentencePiece and tiktoken beside these libraries themselves, on random text: ids, and text from ids.

Some thousand texts, always the same; with BANYAN_TEST_LONG=yes (tests/run.sh --long) 100,000 new ones. A failure prints its seed; BANYAN_SEED takes it back.
"""

import base64
import json
import os
import random
import subprocess

import pytest

from harness import BIN, ROOT

sentencepiece, tiktoken = pytest.importorskip("sentencepiece"), pytest.importorskip("tiktoken")
FILES = ROOT / "tests/vectors/tokenizer_files"
LONG = os.environ.get("BANYAN_TEST_LONG") == "yes"
SEED = int(os.environ.get("BANYAN_SEED", random.randrange(2**32) if LONG else 7))
SPM, RANKS = ["spm-gemma", "spm-llama", "spm-llama-unigram", "spm-t5", "spm-xlmr"], ["tiktoken-cl100k", "tiktoken-o200k", "tekken"]
N = (100_000 if LONG else 4_000) // (len(SPM) + len(RANKS))
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PARTS = ["the", " a", "tokens", "Banyan", "don't", "I'LL", " ", "  ", "\n", "\n\n", "\t", "\r\n", "1", "2026", "12345", ".", "...", "(x)", "{}", "--", "é", "e\u0301",
         "ÜN", "ﬁ", "½", "中文", "日本", "한", "ΣΑΣ", "ß", "🦀", "👩🏽", "\u200d", "\u3000", "\u00a0", "_", "#", "/", "ab" * 40, "=" * 70]


def texts_of(rng):
    return ["".join(rng.choice(PARTS) if rng.random() < 0.7 else chr(rng.choice([rng.randrange(0x20, 0x7F), rng.randrange(0xA0, 0x250), rng.randrange(0x4E00, 0x5000)]))
                    for _ in range(rng.randrange(0, 25))) for _ in range(N)]


def ask(name, lines, *words):
    done = subprocess.run([BIN / "banyan", "tokenize", "--model-path", FILES / name, *words], input="".join(json.dumps(x) + "\n" for x in lines).encode(),
                          capture_output=True, timeout=280)
    return [json.loads(line) for line in done.stdout.splitlines()]


# What nmt_nfkc makes blanks of or takes away: there transformers' conversion, which is what Banyan equals, is not SentencePiece.
ODD = "\n\r\t\u200d\u3000\u00a0\u00ad\u00a8\u00af\u00b4\u00b8\u02d8"


def compare(name, encode, decode):
    texts = texts_of(random.Random(f"{SEED} {name}"))
    if name in ("spm-t5", "spm-xlmr"):
        texts = ["".join(c for c in t if c not in ODD) for t in texts]
    ids = [encode(t) for t in texts]
    got = ask(name, [{"text": t, "add_special_tokens": False} for t in texts])
    wrong = [(t, g, w) for t, g, w in zip(texts, got, ids, strict=True) if g.get("ids") != w]
    assert not wrong, f"BANYAN_SEED={SEED}: {len(wrong)} of {N}, the first: {wrong[0][0]!a} gave {wrong[0][1]}, want {wrong[0][2]}"
    if decode:
        got = ask(name, [{"ids": i} for i in ids], "--decode")
        wrong = [(i, g, decode(i)) for i, g in zip(ids, got, strict=True) if g.get("text") != decode(i)]
        assert not wrong, f"BANYAN_SEED={SEED}: {len(wrong)} of {N}, the first: {wrong[0]!a}"


@pytest.mark.parametrize("name", SPM)
def test_a_sentencepiece_model_gives_what_sentencepiece_gives(name):
    model = sentencepiece.SentencePieceProcessor(model_file=str(FILES / name / "tokenizer.model"))
    fairseq = {0: 3}  # XLM-R's ids are one higher, but for its first four
    compare(name, lambda t: [fairseq.get(i, i + 1) for i in model.encode(t)] if name == "spm-xlmr" else model.encode(t), None)


@pytest.mark.parametrize("name", RANKS)
def test_ranks_give_what_tiktoken_gives(name):
    folder, shift = FILES / name, 0
    if name == "tekken":
        file = json.loads((folder / "tekken.json").read_text())
        shift = file["config"]["default_num_special_tokens"]
        n = file["config"]["default_vocab_size"] - shift
        ranks, pattern = {base64.b64decode(t["token_bytes"]): t["rank"] for t in file["vocab"][:n]}, file["config"]["pattern"]
    else:
        pattern = O200K if "o200k" in name else CL100K
        ranks = {base64.b64decode(t): int(r) for t, r in (line.split() for line in next(folder.glob("*.tiktoken")).read_text().splitlines())}
    e = tiktoken.Encoding(name=name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    compare(name, lambda t: [i + shift for i in e.encode_ordinary(t)], lambda ids: e.decode([i - shift for i in ids]))
