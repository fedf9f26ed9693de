"""Random tokenizer.json files: every kind of part that one can name, alone and in sequences, with small vocabularies and odd texts for them."""

import base64
import json
import random
from pathlib import Path

PLAIN_NORMALIZERS = ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel"]
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
REGEXES = [r"\s+", r"[aeiou]", r"(?i)the", "^", "$", r"\b", "a|", "", r"(?<=a)b*", ".", r"\d{1,3}", r"[12]{2}+", r"é{1}?b", r"\p{L}{17}|b{2,}?|[a ]{18,20}", r"\w+", r"\W", r"[^\w\s]+", r"\p{L}+", r"\p{Han}", r"[[:punct:]]",
           r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"]
MATCH_NOTHING = ["^", "$", r"\b", "a|", "", r"(?<=a)b*"]
STRINGS = ["", " ", "ab", "▁", "é", "the", "中", "--"]
CONTENTS = ["", "x", " ", "▁", "é", "ab ", "\\1", "$0"]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCÉéèäñßİıſΣσς0123459½²٣ .,!?'-_|▁#<>/\n\t\r\u0301\u0308\u200b\u200d\ufeff\u00a0\u3000\u0085\u2028中文日本한각ＡﬁⓐⅧ🦀👩🏽กำक्षि«»—…\u0000\u0007"
WORDS = ["the ", "the", "Hello", " world", "don't", "  ", "\n\n", "12345", "ab", "abab", "thethe", "▁the", "e\u0301", "ＡＢ", "中文", "👩🏽\u200d", "..", "--", "n't", " ,", " ' ", "</w>"]
ADDED = ["<x>", "<y>", "<x><y>", "[A B]", " lead", "trail ", "é", "e\u0301", "THE", "the", "▁a", "中", "ab", "\n", "</w>q", "<s>", "12", "_", "'"]
SPECIALS = ["<unk>", "<s>", "</s>", "<pad>"]


def number_at(raw, at):
    n = shift = 0
    while raw[at] > 127:
        n, shift, at = n | (raw[at] & 127) << shift, shift + 7, at + 1
    return n | raw[at] << shift, at + 1


def field_of(raw, wanted):
    """A protobuf message's first field of that number, one with a length."""
    at = 0
    while at < len(raw):
        key, at = number_at(raw, at)
        if key & 7 in (1, 5):
            at += 8 if key & 7 == 1 else 4
            continue
        n, at = number_at(raw, at)
        if key & 7 == 2:
            if key >> 3 == wanted:
                return raw[at:at + n]
            at += n


def charsmap():
    """nmt_nfkc as SentencePiece compiles it: ModelProto.normalizer_spec.precompiled_charsmap."""
    model = Path(__file__).resolve().parents[1] / "vectors/tokenizer_files/spm-t5/tokenizer.model"
    return base64.b64encode(field_of(field_of(model.read_bytes(), 3), 2)).decode()


def byte_letters():
    """The characters that stand for bytes in a byte-level vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    return [chr(c) for c in shown] + [chr(256 + i) for i in range(len(hidden))]


CHARSMAP = charsmap()


class Maker:
    def __init__(self, seed):
        self.rng = random.Random(seed)

    def yes(self, p=0.5):
        return self.rng.random() < p

    def pick(self, options):
        return self.rng.choice(options)

    def pattern(self):
        return {"String": self.pick(STRINGS)} if self.yes() else {"Regex": self.pick(REGEXES)}

    def pattern_of_something(self):
        """What matches nothing puts characters where the text has none; theirs doubles them where it cuts there. Alone: test_tokenizer_parts.py."""
        while True:
            pattern = self.pattern()
            if next(iter(pattern.values())) not in MATCH_NOTHING:
                return pattern

    def some(self, one, name, list_name, p_none=0.25):
        """Nothing, one part, or a sequence of some, perhaps one within another."""
        r = self.rng.random()
        if r < p_none:
            return None
        if r < 0.7:
            return one()
        parts = [one() for _ in range(self.rng.randrange(0, 4))]
        if parts and self.yes(0.1):
            parts[0] = {"type": name, list_name: [parts[0]]}
        return {"type": name, list_name: parts}

    def normalizer(self):
        r = self.rng.randrange(6)
        if r == 5:
            return {"type": "Precompiled", "precompiled_charsmap": CHARSMAP}
        if r == 0:
            return {"type": "Strip", "strip_left": self.yes(), "strip_right": self.yes()}
        if r == 1:
            return {"type": "BertNormalizer", "clean_text": self.yes(), "handle_chinese_chars": self.yes(), "strip_accents": self.pick([None, True, False]),
                    "lowercase": self.yes()}
        if r == 2:
            return {"type": "Replace", "pattern": self.pattern_of_something(), "content": self.pick(CONTENTS)}
        if r == 3:
            return {"type": "Prepend", "prepend": self.pick(["▁", " ", "ab", "é"])}
        return {"type": self.pick(PLAIN_NORMALIZERS)}

    def pre_tokenizer(self):
        r = self.rng.randrange(8)
        if r == 0:
            return {"type": "Metaspace", "replacement": self.pick("▁_"), "prepend_scheme": self.pick(["always", "first", "never"]), "split": self.yes()}
        if r == 1:
            return {"type": "Digits", "individual_digits": self.yes()}
        if r == 2:
            return {"type": "Punctuation", "behavior": self.pick(BEHAVIORS)}
        if r == 3:
            return {"type": "CharDelimiterSplit", "delimiter": self.pick(" a中")}
        if r == 4:
            return {"type": "FixedLength", "length": self.rng.randrange(1, 5)}
        if r < 7:
            return {"type": "Split", "pattern": self.pattern(), "behavior": self.pick(BEHAVIORS), "invert": self.yes()}
        return {"type": self.pick(["BertPreTokenizer", "Whitespace", "WhitespaceSplit"])}

    def byte_level(self, before):
        last = {"type": "ByteLevel", "add_prefix_space": self.yes(), "trim_offsets": self.yes(), "use_regex": self.yes()}
        behind = [self.pre_tokenizer()] if self.yes(0.1) else []
        return last if before is None else {"type": "Sequence", "pretokenizers": [before, last, *behind]}

    def vocabulary(self, letters):
        extra = [*(p + c for c in letters for p in ("", "##")), *("<0x%02X>" % b for b in range(256) if self.yes(0.8)), "th", "he", "the", "▁the", "##he",
                 "ab", "##ab", "a</w>", "</w>a", "b</w>c", "n't", "'s", "|", "▁▁"]
        self.rng.shuffle(extra)
        return list(dict.fromkeys([*SPECIALS, *extra[:self.rng.randrange(len(extra) // 2, len(extra) + 1)]]))

    def model(self, is_byte_level):
        letters = byte_letters() if is_byte_level else list(dict.fromkeys(LETTERS))
        pieces = self.vocabulary(letters)
        kind = "BPE" if is_byte_level else self.pick(["BPE", "WordPiece", "WordLevel", "Unigram"])
        if kind == "Unigram":
            return {"type": kind, "unk_id": self.pick([0, 0, 0, None]), "byte_fallback": self.yes(), "vocab": [[p, -1.0 - i % 17 / 2] for i, p in enumerate(pieces)]}
        if kind == "WordLevel":
            return {"type": kind, "unk_token": "<unk>", "vocab": {p: i for i, p in enumerate(pieces)}}
        if kind == "WordPiece":
            return {"type": kind, "unk_token": "<unk>", "continuing_subword_prefix": self.pick(["##", "##", ""]),
                    "max_input_chars_per_word": self.pick([3, 100]), "vocab": {p: i for i, p in enumerate(pieces)}}
        merges = []
        for _ in range(self.rng.randrange(0, 25)):
            a, b = self.pick(pieces[4:]), self.pick(pieces[4:])
            if not a.startswith("##") and not b.startswith("##") and [a, b] not in merges:
                merges.append([a, b])
                pieces.append(a + b) if a + b not in pieces else None
        return {"type": kind, "dropout": None, "unk_token": self.pick(["<unk>", "<unk>", None]), "continuing_subword_prefix": None, "end_of_word_suffix": None,
                "fuse_unk": self.yes(), "byte_fallback": self.yes(), "ignore_merges": self.yes(0.3), "vocab": {p: i for i, p in enumerate(pieces)}, "merges": merges}

    def added_tokens(self, n_vocab):
        chosen = self.rng.sample(ADDED, self.rng.randrange(0, 7))
        flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
        return [{"id": n_vocab + i, "content": c, **{f: self.yes(0.35) for f in flags}} for i, c in enumerate(chosen)]

    def template(self):
        def special():
            return {"SpecialToken": {"id": self.pick(["<s>", "</s>"]), "type_id": 0}}

        def around(pieces, at):
            return [s for p in pieces for s in ([special()] if self.yes(0.4) else []) + [p]] + ([special()] if self.yes(at) else [])

        a, b = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": self.rng.randrange(2)}}
        pair = around([a, b], 0.3)
        if b["Sequence"]["type_id"] and "SpecialToken" in pair[-1]:
            pair[-1]["SpecialToken"]["type_id"] = 1
        return {"type": "TemplateProcessing", "single": around([a], 0.5), "pair": pair,
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1, 3], "tokens": ["<s>", "<pad>"]}, "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}

    def post_processor(self):
        r = self.rng.randrange(4)
        if r == 0:
            return {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}
        if r == 1:
            return {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": self.yes(), "add_prefix_space": self.yes()}
        if r == 2:
            return {"type": "ByteLevel", "add_prefix_space": self.yes(), "trim_offsets": self.yes(), "use_regex": self.yes()}
        return self.template()

    def decoder(self):
        r = self.rng.randrange(9)
        if r == 0:
            return {"type": "Replace", "pattern": self.pattern(), "content": self.pick(CONTENTS)}
        if r == 1:
            return {"type": "Strip", "content": self.pick(" ▁a"), "start": self.rng.randrange(3), "stop": 0}
        if r == 2:
            return {"type": "Metaspace", "replacement": self.pick("▁_"), "prepend_scheme": self.pick(["always", "first", "never"]), "split": self.yes()}
        if r == 3:
            return {"type": "WordPiece", "prefix": self.pick(["##", "##", ""]), "cleanup": self.yes()}
        if r == 4:
            return {"type": "BPEDecoder", "suffix": self.pick(["</w>", "</w>", ""])}
        if r == 5:
            return {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": self.pick(["|", "▁"]), "cleanup": self.yes()}
        if r == 6:
            return {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        return {"type": self.pick(["ByteFallback", "Fuse"])}

    def decoders(self):
        if self.yes(0.2):  # as Llama 2 has them
            return {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                                                     {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
        return self.some(self.decoder, "Sequence", "decoders", 0.1)

    def file(self):
        is_byte_level = self.yes(0.2)
        pre = self.some(self.pre_tokenizer, "Sequence", "pretokenizers")
        before = self.byte_level(pre) if is_byte_level or self.yes(0.05) else pre
        model = self.model(is_byte_level)
        return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": self.added_tokens(len(model["vocab"])),
                "normalizer": self.some(self.normalizer, "Sequence", "normalizers", 0.4), "pre_tokenizer": before,
                "post_processor": self.some(self.post_processor, "Sequence", "processors"), "decoder": self.decoders(), "model": model}

    def text(self):
        parts = (self.pick(WORDS) if self.yes() else self.pick(ADDED) if self.yes(0.3) else self.pick(LETTERS) for _ in range(self.rng.randrange(0, 12)))
        return "".join(parts)

    def ids(self, n):
        """Some tokens, now and then one again, or one that nobody has."""
        ids = []
        for _ in range(self.rng.randrange(0, 12)):
            ids.append(self.pick(ids) if ids and self.yes(0.2) else n + 9 if self.yes(0.02) else self.rng.randrange(n))
        return ids

    def bytes_of(self, vocab):
        """Byte tokens: characters whole and broken."""
        raw = b"".join(self.pick(["é", "中", "🦀", "a", "▁"]).encode() for _ in range(3))
        cut = raw[:self.rng.randrange(len(raw) + 1)] + (bytes([self.rng.randrange(256)]) if self.yes(0.3) else b"")
        return [vocab[p] for p in ("<0x%02X>" % b for b in cut) if p in vocab]


def vocabulary_of(file):
    v = file["model"]["vocab"]
    return {p: i for i, (p, _) in enumerate(v)} if isinstance(v, list) else v


def show(file):
    """All but the vocabulary and what is compiled."""
    text = json.dumps({**file, "model": {k: v for k, v in file["model"].items() if k not in ("vocab",)}}, ensure_ascii=False)
    return text.replace(CHARSMAP, "…")
