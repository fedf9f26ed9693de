"""`banyan tokenize` beside PyPI's tokenizers on random tokenizers: one text, two, ids back to text, at once and one by one.

Some thousand cases, always the same; with BANYAN_TEST_LONG=yes (tests/run.sh --long) 100,000 new ones. A failure prints its seed; BANYAN_SEED takes it back.
"""

import contextlib
import json
import os
import random
import re
import subprocess

import tokenizers

from harness import BIN
from random_tokenizers import Maker, show, vocabulary_of

LONG = os.environ.get("BANYAN_TEST_LONG") == "yes"
SEED = int(os.environ.get("BANYAN_SEED", random.randrange(2**32) if LONG else 7))
EACH = 12  # of texts, pairs, ids and byte runs
FILES = 100_000 // (4 * EACH) if LONG else 120
# What the README lists as refused, by the words of the refusal.
REFUSED = re.compile(r"decoder '\w+' after Fuse, ByteFallback or ByteLevel|decoder: Strip at the text's end|decoder: CTC behind or before|"
                     r"TemplateProcessing behind what makes \d+ parts|more than \d+ steps|occurs \d+ times")


def run(folder, lines, *words):
    done = subprocess.run([BIN / "banyan", "tokenize", "--model-path", folder, *words], input="".join(json.dumps(x) + "\n" for x in lines).encode(),
                          capture_output=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


def attempt(call):
    """What theirs gives; None where it ends in an exception or worse."""
    try:
        return call()
    except BaseException as e:  # a panic in Rust is none of Exception's
        if isinstance(e, (KeyboardInterrupt, SystemExit)):
            raise
        return None


def check_encode(theirs, lines, got):
    for line, g in zip(lines, got, strict=True):
        special = line["add_special_tokens"]
        want = attempt(lambda: theirs.encode(line["text"], line.get("text_pair"), add_special_tokens=special))
        if want is None or "does not say how it joins" in g.get("error", ""):
            continue
        assert g.get("ids") == want.ids, (line, g, want.ids)
        if "text_pair" in line:
            types = [int(bool(g["pair_at"]) and i >= g["pair_at"]) for i in range(len(g["ids"]))]
            assert types == want.type_ids or (g["pair_at"], want.type_ids[:1]) == (0, [1]), (line, g, want.type_ids)


def check_decode(theirs, names, lines, got):
    for line, g in zip(lines, got, strict=True):
        want = attempt(lambda: theirs.decode(line["ids"], skip_special_tokens=line["skip_special_tokens"]))
        if want is None:
            continue
        assert g["text"] == want, (line, g, want)
        if "ByteFallback" not in names or "\ufffd" not in want:  # README, pitfall 3
            assert "".join(g["pieces"]) == want, (line, g, want)


def agreed(theirs, ids, skip, behind):
    """The longest text that all go on from: these ids alone, and with any one token behind them."""
    texts = [t for t in (attempt(lambda: theirs.decode(ids + x, skip_special_tokens=skip)) for x in [[], *([x] for x in behind)]) if t is not None]
    return os.path.commonprefix(texts) if texts else None


def check_steps(theirs, file, lines, got):
    """After each id there is out all that no token behind it changes, and no more; but whole characters of a run of byte tokens (README, pitfall 3), and
    less while the last character is not whole, as with theirs."""
    vocab = vocabulary_of(file)
    names = {i: p for p, i in vocab.items()}
    known = {i for i in range(len(vocab) + len(file["added_tokens"])) if theirs.id_to_token(i) is not None}
    bytes_of = {i: int(p[1:-1], 16) for i, p in names.items() if "ByteFallback" in json.dumps(file["decoder"]) and re.fullmatch("<0x[0-9A-F]{2}>", p)}
    bytes_of = {i: b for i, b in bytes_of.items() if len(theirs.decode([i] * 3, skip_special_tokens=False)) <= 3}  # no step made them another text before
    others = [i for i in known if not re.search("<0x[0-9A-F]{2}>", names.get(i, ""))]  # whatever a step makes of them, no bytes
    special = {i for i, t in theirs.get_added_tokens_decoder().items() if t.special and not theirs.decode([i])}
    for line, g in zip(lines, got):
        said = known - special if line["skip_special_tokens"] else known
        out, run = "", b""
        for n, last in enumerate(line["ids"]):
            before, out = out, out + g["pieces"][n]
            run = run + bytes([bytes_of[last]]) if last in bytes_of else b"" if last in said else run
            if run and not is_utf8(run):
                assert out == before, (line, n, out, before)
                continue
            run = b""
            want = agreed(theirs, line["ids"][:n + 1], line["skip_special_tokens"], others)
            if want is not None and not (bytes_of and "\ufffd" in want):
                alone = theirs.decode(line["ids"][:n + 1], skip_special_tokens=line["skip_special_tokens"])
                is_less = alone.endswith("\ufffd") or is_held(file["decoder"], names.get(last, ""))
                assert want == out or (is_less and want.startswith(out)), (line, n, out, want)


def is_held(decoder, piece):
    """README, pitfall 9: the suffix inside a piece is a blank or nothing by whether a token follows."""
    suffixes = re.findall(r'"BPEDecoder", "suffix": "([^"]*)"', json.dumps(decoder))
    return any(s in (piece.removesuffix(s) if s else piece) for s in suffixes)


def is_utf8(raw):
    with contextlib.suppress(UnicodeDecodeError):
        return raw.decode() is not None
    return False


def is_odd(theirs, file):
    """README, pitfalls 4 to 6: added tokens that normalizing makes equal or of which it leaves nothing, a Metaspace for the first part behind what changes
    the first character."""
    found = [theirs.normalizer.normalize_str(t["content"]) for t in file["added_tokens"] if t["normalized"]] if theirs.normalizer else []
    takes = re.search(r"Strip|Bert|Nmt|Replace|Prepend|Precompiled", json.dumps(file["normalizer"])) or '"add_prefix_space": true' in json.dumps(file["pre_tokenizer"])
    return "" in found or len(set(found)) < len(found) or (takes and '"first"' in json.dumps(file["pre_tokenizer"]))


def check_file(maker, file, theirs, folder):
    vocab = vocabulary_of(file)
    texts = [{"text": maker.text(), "add_special_tokens": maker.yes(0.7)} for _ in range(EACH)]
    pairs = [{"text": maker.text(), "text_pair": maker.text(), "add_special_tokens": True} for _ in range(EACH)]
    got, why = run(folder, texts + pairs)
    if not got:
        assert REFUSED.search(why), why
        return False
    check_encode(theirs, texts + pairs, got)
    n = len(vocab) + len(file["added_tokens"])
    ids = [{"ids": maker.ids(n) if k < EACH else maker.bytes_of(vocab) + maker.ids(n), "skip_special_tokens": maker.yes(), "stream": True}
           for k in range(2 * EACH)]
    got, _ = run(folder, ids, "--decode")
    check_decode(theirs, json.dumps(file["decoder"]), ids, got)
    check_steps(theirs, file, ids[:2] + ids[EACH:EACH + 2], got[:2] + got[EACH:EACH + 2])
    return True


def test_random_tokenizers_give_what_theirs_give(tmp_path):
    n_same = n_theirs = 0
    for k in range(FILES):
        maker = Maker(f"{SEED} {k}")
        file = maker.file()
        theirs = attempt(lambda: tokenizers.Tokenizer.from_str(json.dumps(file)))
        if theirs is None or is_odd(theirs, file):
            continue
        n_theirs += 1
        (tmp_path / "tokenizer.json").write_text(json.dumps(file))
        try:
            n_same += check_file(maker, file, theirs, tmp_path)
        except AssertionError as e:
            raise AssertionError(f"BANYAN_SEED={SEED} tokenizer {k}:\n{show(file)}\n{e}") from None
    assert n_same > n_theirs * 0.6 > FILES * 0.4, (n_same, n_theirs)  # the rest is refused, by name
