"""Each part that a tokenizer.json can name, in a small tokenizer of its own, beside PyPI's tokenizers: the ids of odd texts."""

import json
import random
import re
import subprocess

import pytest
import tokenizers

from harness import BIN

TEXTS = ["", "a", " a", "a ", "  a  b ", "Hello, the World!", "ＡＢＣ１２３ ﬁ ½ ²", "İstanbul ıſ ΣΑΣ ς", "e\u0301 é a\u0323\u0308\u0301 \u0301x",
         "中文 English日本語text", "한국각 ㄱ가ᄀ", "x\u0085y\u2028z\u00a0w\u3000v", "\ufeff\u200b\u200dq\x1c", "tab\tnl\ncr\r\n\n  end\n",
         "abc123def 4567٣½", "don't I'll THE'RE", "a--b__c!!d?", "🦀👨\u200d👩🏽\ufe0f", "कि्क กำ", "▁the▁a ▁ b", "«x»—y…", "Ⓐⓑ Ⅷ", "  ", "\n",
         "..a..b..", "\u0301", "thethe in the"]
WORDISH = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
REGEXES = [r"\s+", r"[aeiou]", r"(?i)THE", "^", "$", r"\b", r"\B", "a|", r"(?<=a)b*", ".", "(?m).", r"\d", r"\D", r"\w", r"[\w-]", r"\W", r"\S",
           r"[^\w\s]", r"\h", r"\R", r"[a-c&&[^b]]", r"\A.", r".\z", r".\Z", r"a{2,}", r"\p{Han}", r"\p{^L}", r"\P{L}", r"\pL", r"\x{4e2d}",
           *(f"[[:{name}:]]" for name in ("alpha", "alnum", "punct", "upper", "lower", "digit", "xdigit", "cntrl", "blank", "space", "word"))]


def plain(kind):
    return {"type": kind}


NORMALIZERS = [
    *map(plain, ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel"]),
    *({"type": "Strip", "strip_left": a, "strip_right": b} for a in (True, False) for b in (True, False)),
    *({"type": "BertNormalizer", "clean_text": c, "handle_chinese_chars": not c, "strip_accents": s, "lowercase": low}
      for c in (True, False) for s in (None, True, False) for low in (True, False)),
    *({"type": "Replace", "pattern": {"Regex": r}, "content": "x"} for r in REGEXES),
    *({"type": "Replace", "pattern": {"String": s}, "content": "é"} for s in ("ab", "")), {"type": "Prepend", "prepend": "▁"},
    {"type": "Sequence", "normalizers": [plain("NFD"), plain("StripAccents"), plain("Lowercase")]}, {"type": "Sequence", "normalizers": []}]
PRE_TOKENIZERS = [
    *map(plain, ["BertPreTokenizer", "Whitespace", "WhitespaceSplit"]),
    *({"type": "Metaspace", "replacement": "▁", "prepend_scheme": s, "split": cut} for s in ("always", "first", "never") for cut in (True, False)),
    *({"type": "Digits", "individual_digits": one} for one in (True, False)),
    *({"type": "Punctuation", "behavior": b} for b in BEHAVIORS),
    *({"type": "CharDelimiterSplit", "delimiter": c} for c in " a中"), {"type": "FixedLength", "length": 2},
    *({"type": "Split", "pattern": p, "behavior": b, "invert": i} for b in BEHAVIORS for i in (True, False)
      for p in ({"String": " "}, {"Regex": r"\b"}, {"Regex": "a|"}, {"Regex": WORDISH})),
    {"type": "Sequence", "pretokenizers": [plain("WhitespaceSplit"), {"type": "Punctuation", "behavior": "Isolated"}]}]
REFUSED = [("pre_tokenizer", plain("UnicodeScripts"), "UnicodeScripts"), ("normalizer", plain("Nonsense"), "Nonsense"),
           *((part, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "often"}, "often") for part in ("pre_tokenizer", "decoder")),
           ("decoder", plain("Nonsense"), "Nonsense"), ("post_processor", plain("Nonsense"), "Nonsense"),
           *(("normalizer", {"type": "Replace", "pattern": {"Regex": r}, "content": "x"}, r) for r in (r"\X", r"[\W]", "[[:print:]]"))]


def tokenizer_of(**parts):
    """Every character is a piece, and another where it stands inside a word: the ids show where words end."""
    letters = dict.fromkeys("".join(TEXTS) + "".join(map(chr, range(0x21, 0x17F))) + "".join(unfold for t in TEXTS for unfold in folded(t)))
    pieces = ["<unk>", *letters, *("##" + c for c in letters)]
    model = {"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 200,
             "vocab": {p: i for i, p in enumerate(pieces)}}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
            "post_processor": None, "decoder": None, "model": model, **parts}


def folded(text):
    return (f(text) for f in (tokenizers.normalizers.NFKD().normalize_str, tokenizers.normalizers.Lowercase().normalize_str))


def tokenize(folder, file):
    (folder / "tokenizer.json").write_text(json.dumps(file))
    lines = "".join(json.dumps({"text": t}) + "\n" for t in TEXTS)
    return subprocess.run([BIN / "banyan", "tokenize", "--model-path", folder], input=lines.encode(), capture_output=True, timeout=60)


@pytest.mark.parametrize("part, rows", [("normalizer", NORMALIZERS), ("pre_tokenizer", PRE_TOKENIZERS)], ids=["normalizers", "pre_tokenizers"])
def test_a_part_does_what_theirs_does(tmp_path, part, rows):
    wrong = []
    for row in rows:
        file = tokenizer_of(**{part: row})
        theirs = tokenizers.Tokenizer.from_str(json.dumps(file))
        done = tokenize(tmp_path, file)
        got = [json.loads(line)["ids"] for line in done.stdout.splitlines()]
        want = [theirs.encode(t).ids for t in TEXTS]
        wrong += [(row, t, g, w) for t, g, w in zip(TEXTS, got, want) if g != w] if got else [(row, done.stderr)]
    assert not wrong, f"{len(wrong)}, the first: {wrong[0]}"


@pytest.mark.parametrize("prefix, suffix, merges", [("", "</w>", ["t h", "th e</w>", "a</w>"]), ("##", "", ["t ##h", "th ##e", "##t ##h"]),
                                                    ("##", "</w>", ["t ##h", "th ##e</w>"]), ("", "", ["t h", "th e"])])
def test_bpe_marks_where_words_begin_and_end(tmp_path, prefix, suffix, merges):
    merges = [m.split(" ") for m in merges if " " in m]
    letters = list(dict.fromkeys("".join(TEXTS)))[::2] + list("thea")
    pieces = ["<unk>", *(p + c + s for p in ("", prefix) for c in letters for s in ("", suffix)), *(a + b.removeprefix(prefix) for a, b in merges)]
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": prefix or None, "end_of_word_suffix": suffix or None,
             "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": {p: i for i, p in enumerate(dict.fromkeys(pieces))},
             "merges": merges}
    file = tokenizer_of(pre_tokenizer=plain("WhitespaceSplit"), model=model)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(file))
    for _ in range(2):  # as it is read, and from its cached form
        got = [json.loads(line)["ids"] for line in tokenize(tmp_path, file).stdout.splitlines()]
        assert got == [theirs.encode(t).ids for t in TEXTS]


def sequence(*steps):
    return {"type": "Sequence", "decoders": list(steps)}


@pytest.mark.parametrize("decoder", [
    sequence({"type": "BPEDecoder", "suffix": "</w>"}, plain("ByteFallback"), plain("Fuse")),  # a word's blank before a byte
    *(sequence({"type": "Strip", "content": "b", "start": 2, "stop": 0}, {"type": "Replace", "pattern": p, "content": "x"})  # nothing has no empty match
      for p in ({"String": ""}, {"Regex": "^"}))], ids=["word", "string", "regex"])
def test_ids_become_text_as_theirs_do(tmp_path, decoder):
    file = tokenizer_of(decoder=decoder)
    file["model"]["vocab"] = {"<unk>": 0, "a</w>": 1, "<0xC3>": 2, "<0xA9>": 3, "b": 4}
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    theirs = tokenizers.Tokenizer.from_str(json.dumps(file))
    for ids in ([1, 2, 3, 1], [1, 2, 3, 4, 1, 1], [1, 2, 1], [4], [4, 1, 4]):
        done = subprocess.run([BIN / "banyan", "tokenize", "--decode", "--model-path", tmp_path], input=json.dumps({"ids": ids}).encode(), capture_output=True,
                              timeout=60)
        assert json.loads(done.stdout)["text"] == theirs.decode(ids), ids


@pytest.mark.parametrize("part, row, name", REFUSED, ids=[name for _, _, name in REFUSED])
def test_what_is_not_done_is_refused_by_name(tmp_path, part, row, name):
    done = tokenize(tmp_path, tokenizer_of(**{part: row}))
    assert done.returncode == 1 and not done.stdout and name in done.stderr.decode(), done


CLEANED = [(" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")]


@pytest.mark.parametrize("kind", ["WordLevel", "BPE"])
def test_spaces_are_cleaned_up_as_transformers_does(tmp_path, kind):
    """Ten replacements after one another, at once and in a stream; not with BPE, where they would take what the model wrote."""
    rng = random.Random(3)
    pieces = ["<unk>", " ", ".", "?", "!", ",", "'", " '", "n't", "n", "'t", "'m", "m", "s", "'s", "ve", "'ve", "'re", "a", " a", " .", "  ", "' "]
    model = {"type": kind, "unk_token": "<unk>", "vocab": {p: i for i, p in enumerate(pieces)}, **({"merges": []} if kind == "BPE" else {})}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_of(model=model, decoder=plain("Fuse"))))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"clean_up_tokenization_spaces": True}))
    lines = [{"ids": [rng.randrange(1, len(pieces)) for _ in range(rng.randrange(30))], "stream": True} for _ in range(2000)]
    done = subprocess.run([BIN / "banyan", "tokenize", "--decode", "--model-path", tmp_path], input="".join(json.dumps(x) + "\n" for x in lines).encode(),
                          capture_output=True, timeout=60, check=True)
    for line, got in zip(lines, map(json.loads, done.stdout.splitlines()), strict=True):
        want = "".join(pieces[i] for i in line["ids"])
        for what, instead in CLEANED if kind != "BPE" else []:
            want = want.replace(what, instead)
        assert got["text"] == want and "".join(got["pieces"]) == want, (line, got, want)


def test_bench_says_how_fast_each_part_is(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_of(pre_tokenizer=plain("WhitespaceSplit"), decoder=plain("Fuse"))))
    done = subprocess.run([BIN / "banyan", "tokenize", "--bench", "--model-path", tmp_path], input=b"Hello, the world! " * 500, capture_output=True,
                          timeout=60, check=True)
    out = done.stdout.decode()
    assert re.search(r"WordPiece, \d+ ids, 0\.0 MB of text", out), out
    for row in (r"load +[\d.]+ ms", r"load, cached +[\d.]+ ms", r"encode +[\d.]+ MB/s +[\d.]+ M tokens/s", r"encode 80 bytes +[\d.]+ us", r"decode +[\d.]+ MB/s"):
        assert re.search(row, out), (row, out)
