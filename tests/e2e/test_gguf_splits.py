"""Each name of tokenizer.ggml.pre: a small GGUF of it beside PyPI's tokenizers with the parts of that family's tokenizer.json.

The vocabulary is trained on whole texts, so that its pieces cross every border: an id differs wherever a text is cut elsewhere.
"""

import json
import os
import random
import struct
import subprocess

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from harness import BIN
from random_tokenizers import LETTERS, WORDS

SEED = int(os.environ.get("BANYAN_SEED", 7))
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
DIGITS = pre_tokenizers.Digits(individual_digits=True)
END = r"'(?i:s|t|re|ve|m|ll|d)"
TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
HAN = "[一-龥\u3040-ゟ゠-ヿ]+"
ASIAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"


def words(letters=r"\p{L}+", digits=r"\p{N}", signs=r"[^\s\p{L}\p{N}]+[\r\n]*", end=END + "|", tail=TAIL):
    return rf"{end}[^\r\n\p{{L}}\p{{N}}]?{letters}|{digits}| ?{signs}{tail}"


def cased(end=END, digits=r"\p{N}{1,3}", signs=r"[^\s\p{L}\p{N}]+[\r\n/]*", but=""):
    upper, lower, start = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}" + but, r"\p{Ll}\p{Lm}\p{Lo}\p{M}" + but, r"[^\r\n\p{L}\p{N}]?"
    end = f"(?:{end})?" if end else ""
    return f"{start}[{upper}]*[{lower}]+{end}|{start}[{upper}]+[{lower}]*{end}|{digits}| ?{signs}{TAIL}"


def marked(signs=r"[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+"):
    return r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?""" + signs + r"|\s+(?!\S)|\s+"


BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
THREES = r"\p{N}{1,3}"
WIDE = "".join(rf"|\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4)) + r"|\s{1,2}(?!\S)|\s{1}"
TRINITY = [r"\p{Nd}{1,510}(?=(?>\p{Nd}{510})*(?:\P{Nd}|$))|\G\p{Nd}{510}", r"\A\p{Nd}{1,2}(?=\p{Nd}{3}+\z)", r"\A\p{Nd}{3}|\G\p{Nd}{3}",
           r"(?:[\u4E00-\u9FFF\u3040-\u309F\u30A0-\u30FF\u3400-\u4DBF\uf900-\uFAFF\uFF65-\uFF9F\u2F00-\u2FDF]+|[\u0E00-\u0E7F]+|[\u0E80-\u0EFF]+"
           r"|[\u1780-\u17FF]+|[\u1000-\u109F\uAA60-\uAA7F\uA9E0-\uA9FF]+|[\uAC00-\uD7AF\u1100-\u11FF]+)"]
YOUTU = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + HAN
FALCON = [pre_tokenizers.Punctuation(behavior="contiguous"), GPT2, pre_tokenizers.Digits(individual_digits=False), "[0-9][0-9][0-9]"]
NFC, MERGED, BOS = "nfc", "ignore_merges", "bos"

# names, the steps (a regular expression, or a part), what else is so
SPLITS = [
    ("smollm starcoder refact codeshell exaone minerva-7b mellum2", [DIGITS, GPT2]),
    ("command-r", [DIGITS, GPT2], NFC),
    ("gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de jais gigachat a.x-4.0 mellum exaone4 trillion granite-docling", [GPT2]),
    ("mpt olmo modern-bert", [GPT2], NFC),
    ("llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", [words(digits=THREES)], MERGED, BOS),
    ("dbrx smaug-bpe chatglm-bpe", [words(digits=THREES)]),
    ("glm4 glm5", [words(digits=THREES)], MERGED),
    ("qwen2 stablelm2 megrez hunyuan deepseek-r1-qwen f2llmv2", [words()], NFC),
    ("kormo grok-2 solar-open", [words()]),
    ("qwen35", [words(r"[\p{L}\p{M}]+", signs=r"[^\s\p{L}\p{M}\p{N}]+[\r\n]*")], NFC),
    ("ufakzeka", [words(end="")]),
    ("laguna", [r"[^\n]+|[\n]+", words()]),
    ("minicpm5", [THREES, words(digits=r"\p{N}+")], MERGED),
    ("jais-2", [words(digits=THREES, tail=r"|\s*[\r\n]+" + WIDE)]),
    ("seed-coder", [words(signs=r"[^\s\p{L}\p{N}\r\n]+")]),
    ("bailingmoe bailingmoe2 llada-moe", [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"]),
    ("exaone-moe", [words(r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+", signs=r"[^\s\p{L}\p{N}]+[\r\n/]?", tail=r"|\s*[\r\n]|\s+(?!\S)|\s+")]),
    ("gpt-4o llama4 kanana2 talkie minimax-m2", [cased()]),
    ("granite-embed-multi-97m", [cased()], MERGED),
    ("tiny_aya cohere2moe", [r"\d{1,3}(?=(?:\d{3})*\b)", cased()]),
    ("tekken", [cased(end="", digits=r"\p{N}")], MERGED, BOS),
    ("kimi-k2", [r"[\p{Han}]+|" + cased(signs=r"[^\s\p{L}\p{N}]+[\r\n]*", but=r"&&[^\p{Han}]")]),
    ("youtu", [YOUTU, cased(digits=r"\p{N}")], MERGED),
    ("deepseek-v3 hunyuan-dense joyai-llm hy_v4", [THREES, HAN, marked()]),
    ("spark2_5", [THREES, HAN, marked(r"[\p{P}\p{S}]+|[\r\n]"), r"\p{N}"]),
    ("afmoe", [*TRINITY, marked()]),
    ("deepseek-coder", ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", ASIAN, DIGITS]),
    ("falcon", FALCON),
    ("bloom poro-chat gpt3-finnish", [BLOOM]),
    ("viking", [BLOOM, DIGITS]),
    ("superbpe", [r"\p{N}+", r"(?=(\d{3})+(?!\d))"]),
    ("chameleon", ["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", DIGITS, r"[\p{P}!-/:-@\[-`{-~]", GPT2], BOS),
]
PARTS = [*WORDS, "THE", " Big", "camelCase", "I'LL", "'d", "don't", "1234567", " 42", "3.14", "½", "½x", "٣٤٥", "12a", "_", "e\u0301a\u0301", "ÜN", "中文字", "カナ", "한국어",
         "ไทย", "ລາວ", "မြန်", "…", "，。", "‘’", "   ", "\t\t", "\n\n\n", "\r\n", " \n ", "IMGIMGABZ", "<sentinel:3>", "(x)", "{}[]", "a/b//", "a$b", "x²", "…\n", "!\n\n", "////\n"]


def texts_of(rng, n):
    return ["".join(rng.choice(PARTS) if rng.random() < 0.75 else rng.choice(LETTERS) for _ in range(rng.randrange(1, 20))) for _ in range(n)]


def value(v):
    if isinstance(v, str):
        return struct.pack("<IQ", 8, len(v.encode())) + v.encode()
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v[0], int):
        return struct.pack("<IIQ", 9, 5, len(v)) + struct.pack(f"<{len(v)}i", *v)
    return struct.pack("<IIQ", 9, 8, len(v)) + b"".join(value(x)[4:] for x in v)


def write_gguf(path, pre, vocab, merges):
    pieces = sorted(vocab, key=vocab.get)
    keys = {"general.architecture": "llama", "llama.context_length": 64, "llama.embedding_length": 64, "llama.block_count": 1, "llama.attention.head_count": 4,
            "llama.feed_forward_length": 64, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": pieces,
            "tokenizer.ggml.token_type": [3 if p == "<s>" else 1 for p in pieces], "tokenizer.ggml.merges": [" ".join(m) for m in merges],
            "tokenizer.ggml.bos_token_id": vocab["<s>"]}
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + b"".join(value(k)[4:] + value(v) for k, v in keys.items()))


def ids_of(file, texts):
    lines = "".join(json.dumps({"text": t, "add_special_tokens": k % 5 == 0}) + "\n" for k, t in enumerate(texts))
    done = subprocess.run([BIN / "banyan", "tokenize", "--model-path", file], input=lines.encode(), capture_output=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


@pytest.fixture(scope="module")
def trained():
    """Merges of whole texts, each a single word; the last of some are taken away, so that ignoring merges shows."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = BYTES
    t.train_from_iterator(texts_of(random.Random(f"{SEED} corpus"), 400),
                          trainers.BpeTrainer(vocab_size=900, special_tokens=["<s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    model = json.loads(t.to_str())["model"]
    return model["vocab"], [tuple(m) for i, m in enumerate(model["merges"]) if i % 7]


@pytest.mark.parametrize("row", SPLITS, ids=lambda row: row[0].split()[0])
def test_a_gguf_file_splits_text_as_its_familys_tokenizer_does(row, trained, tmp_path):
    names, steps, *more = row
    vocab, merges = trained
    theirs = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=MERGED in more))
    parts = [pre_tokenizers.Split(Regex(s), "isolated") if isinstance(s, str) else s for s in steps]
    theirs.pre_tokenizer = pre_tokenizers.Sequence(parts if GPT2 in steps else [*parts, BYTES])
    theirs.decoder = decoders.ByteLevel()
    if NFC in more:
        theirs.normalizer = normalizers.NFC()
    theirs.add_special_tokens([AddedToken("<s>", special=True)])
    texts = texts_of(random.Random(f"{SEED} {names}"), 300)
    want = [([vocab["<s>"]] if BOS in more and k % 5 == 0 else []) + theirs.encode(t, add_special_tokens=False).ids for k, t in enumerate(texts)]
    for name in names.split():
        write_gguf(tmp_path / f"{name}.gguf", name, vocab, merges)
        got, why = ids_of(tmp_path / f"{name}.gguf", texts)
        assert got, (name, why)
        wrong = [(t, g, w) for t, g, w in zip(texts, got, want, strict=True) if g.get("ids") != w]
        assert not wrong, f"{name}, BANYAN_SEED={SEED}: {len(wrong)} of {len(texts)}, the first: {wrong[0][0]!a} gave {wrong[0][1]}, want {wrong[0][2]}"


def test_an_unknown_name_is_refused_with_the_remedy(trained, tmp_path):
    write_gguf(tmp_path / "model.gguf", "sarvam-moe", *trained)
    got, why = ids_of(tmp_path / "model.gguf", ["a"])
    assert not got and "tokenizer.ggml.pre 'sarvam-moe' is not known" in why and "--tokenizer-path" in why
