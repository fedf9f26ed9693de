"""Trains small tokenizers, writes them in the formats that are no tokenizer.json, and what their own libraries make of texts.

    python make_tokenizer_files.py        sentencepiece 0.2, transformers 4.57, tokenizers, tiktoken 0.14, mistral-common 1.13

    NAME/tokenizer.model + tokenizer_config.json     SentencePiece, as transformers' fast tokenizers convert it
    NAME/*.tiktoken, tekken.json                     ranks, as tiktoken splits and merges
    NAME/model.gguf                                  the same pieces as llama.cpp stores them
    NAME/golden.jsonl                                as in ../tokenizers, without streams
"""

import base64
import json
import random
import shutil
import struct
import sys
from pathlib import Path

import sentencepiece
import tiktoken
from sentencepiece import sentencepiece_model_pb2
from transformers import (BertTokenizerFast, GemmaTokenizerFast, LlamaTokenizerFast, T5TokenizerFast, XLMRobertaTokenizerFast)

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
TINY = HERE.parent / "tokenizers"
RANDOM = random.Random(5)


def rows_of(name):
    return [json.loads(line) for line in (TINY / name / "golden.jsonl").read_text().split("\n") if line]


TEXTS = [r["text"] for r in rows_of("tiny-spm-llama") if r["kind"] == "encode"]
TEXTS = [t for t in TEXTS if t.isprintable() or len(t) < 400][::3] + [
    "<s>a</s> b", " <start_of_turn>user\n<end_of_turn> ", "\t\ttab", "x<extra_id_0> y", "Ünïcödé ﬁ ½ ㍿", "  two  spaces  ", "", " ",
    "<unk>", "a\u0000b", "▁x ▁ y", "<|endoftext|>code<|fim_prefix|>", "[INST] hi [/INST]<SPECIAL_20>"]
CORPUS = [line for f in sorted(ROOT.glob("**/README.md")) if ".venv" not in str(f) for line in f.read_text().split("\n") if line.strip()]
CORPUS += [t for t in TEXTS if "\0" not in t]


def write_rows(folder, encode, decode, special=None):
    rows = []
    for text in TEXTS:
        ids = encode(text, False)
        row = {"kind": "encode", "text": text, "ids": ids, "decoded": decode(ids, False)}
        if decode(ids, True) != row["decoded"]:
            row["decoded_skip_special"] = decode(ids, True)
        if special:
            row["ids_with_special"] = encode(text, True)
        rows.append(row)
    highest = max(i for r in rows for i in r["ids"])
    for _ in range(40):
        ids = [RANDOM.randrange(highest) for _ in range(RANDOM.randrange(1, 12))]
        rows.append({"kind": "decode", "ids": ids, "text": decode(ids, False)})
    (folder / "golden.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))


def folder_of(name):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def train(folder, **options):
    defaults = {"vocab_size": 500, "model_type": "bpe", "character_coverage": 0.99, "num_threads": 1, "minloglevel": 2,
                "normalization_rule_name": "identity", "train_extremely_large_corpus": False}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_prefix=str(folder / "tokenizer"),
                                             **(defaults | options))
    (folder / "tokenizer.vocab").unlink()
    return folder / "tokenizer.model"


def transformers_rows(folder, t):
    def encode(text, special):
        return t.backend_tokenizer.encode(text, add_special_tokens=special).ids

    write_rows(folder, encode, lambda ids, skip: t.backend_tokenizer.decode(ids, skip_special_tokens=skip), special=True)


def spm(name, cls, config, options, **arguments):
    folder = folder_of(name)
    file = train(folder, **options)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    # None, its default, would drop the space that SentencePiece itself and every published tokenizer.json put in front.
    t = cls(vocab_file=str(file), **({"add_prefix_space": True} | arguments))
    transformers_rows(folder, t)
    return folder, t


BYTES = {"byte_fallback": True, "remove_extra_whitespaces": False, "add_dummy_prefix": True, "user_defined_symbols": ["[TOOL]", "<|x|>"],
         "split_digits": True, "allow_whitespace_only_pieces": True}
GEMMA = BYTES | {"bos_piece": "<bos>", "eos_piece": "<eos>", "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "add_dummy_prefix": False,
                 "user_defined_symbols": ["<mask>", "<start_of_turn>", "<end_of_turn>", "\n\n", "▁▁"]}
NMT = {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc"}


# ---- ranks ----

CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
TEKKEN = O200K.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace(r"\p{N}{1,3}", r"\p{N}")


def train_ranks(pattern, n):
    """Byte pairs, the plain way."""
    import regex
    words = {}
    for line in CORPUS:
        for word in regex.findall(pattern, line):
            key = tuple(bytes([b]) for b in word.encode())
            words[key] = words.get(key, 0) + 1
    ranks = {bytes([b]): b for b in range(256)}
    while len(ranks) < n:
        pairs = {}
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + count
        best = max(pairs, key=lambda p: (pairs[p], p))
        ranks.setdefault(best[0] + best[1], len(ranks))
        merged = {}
        for word, count in words.items():
            out = []
            for piece in word:
                if out and (out[-1], piece) == best:
                    out[-1] += piece
                else:
                    out.append(piece)
            merged[tuple(out)] = merged.get(tuple(out), 0) + count
        words = merged
    return ranks


def tiktoken_rows(folder, pattern, ranks, specials, bos=()):
    e = tiktoken.Encoding(name=folder.name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=specials)
    hidden = set(specials.values())
    write_rows(folder, lambda text, special: [*(bos if special else ()), *e.encode(text, allowed_special="all")],
               lambda ids, skip: e.decode([i for i in ids if not (skip and i in hidden)], errors="replace"),
               special=True)


def write_ranks(file, ranks):
    file.write_text("".join(f"{base64.b64encode(t).decode()} {r}\n" for t, r in ranks.items()))


# ---- GGUF ----

def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(v):
    if isinstance(v, bool):
        return struct.pack("<I?", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, str):
        return struct.pack("<I", 8) + string(v)
    if isinstance(v, bytes):
        return struct.pack("<IIQ", 9, 0, len(v)) + v
    kind = 8 if isinstance(v[0], str) else 6 if isinstance(v[0], float) else 5
    items = b"".join(string(x) if kind == 8 else struct.pack("<f" if kind == 6 else "<i", x) for x in v)
    return struct.pack("<IIQ", 9, kind, len(v)) + items


def write_gguf(folder, keys):
    keys = {"general.architecture": "llama", "llama.context_length": 64, "llama.embedding_length": 64, "llama.block_count": 1,
            "llama.feed_forward_length": 64, "llama.attention.head_count": 4, "llama.attention.layer_norm_rms_epsilon": 1e-5} | keys
    del keys["llama.attention.layer_norm_rms_epsilon"]
    body = b"".join(string(k) + value(v) for k, v in keys.items())
    eps = string("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5)
    (folder / "model.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys) + 1) + body + eps)


def spm_gguf(name, model, source, **more):
    folder = folder_of(name)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString((HERE / source / "tokenizer.model").read_bytes())
    write_gguf(folder, {"tokenizer.ggml.model": model, "tokenizer.ggml.tokens": [p.piece for p in proto.pieces],
                        "tokenizer.ggml.scores": [float(p.score) for p in proto.pieces],
                        "tokenizer.ggml.token_type": [3 if "_of_turn>" in p.piece else p.type for p in proto.pieces],
                        "tokenizer.ggml.unknown_token_id": proto.trainer_spec.unk_id,
                        "tokenizer.ggml.bos_token_id": proto.trainer_spec.bos_id,
                        "tokenizer.ggml.eos_token_id": proto.trainer_spec.eos_id} | more)
    shutil.copy(HERE / source / "golden.jsonl", folder)
    return proto


def main():
    spm("spm-llama", LlamaTokenizerFast, {"tokenizer_class": "LlamaTokenizer"}, BYTES)
    spm("spm-llama-new", LlamaTokenizerFast, {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_eos_token": True}, BYTES,
        legacy=False, add_eos_token=True)
    spm("spm-llama-unigram", LlamaTokenizerFast, {"tokenizer_class": "LlamaTokenizerFast"}, BYTES | {"model_type": "unigram"})
    spm("spm-gemma", GemmaTokenizerFast, {"tokenizer_class": "GemmaTokenizer"}, GEMMA, add_prefix_space=False)
    spm("spm-t5", T5TokenizerFast, {"tokenizer_class": "T5Tokenizer", "extra_ids": 4}, NMT | {"pad_id": 0, "eos_id": 1, "unk_id": 2,
        "bos_id": -1}, extra_ids=4)
    spm("spm-xlmr", XLMRobertaTokenizerFast, {"tokenizer_class": "XLMRobertaTokenizer"}, NMT | {"normalization_rule_name": "identity"})

    spm_gguf("gguf-llama", "llama", "spm-llama", **{"tokenizer.ggml.add_bos_token": True})
    spm_gguf("gguf-gemma", "llama", "spm-gemma", **{"tokenizer.ggml.add_space_prefix": False})
    bert = folder_of("gguf-bert")
    vocab = json.loads((TINY / "tiny-wordpiece/tokenizer.json").read_text())["model"]["vocab"]
    pieces = sorted(vocab, key=vocab.get)
    stored = [p if p[0] == "[" and p[-1] == "]" and len(p) > 2 else p[2:] if p.startswith("##") else "▁" + p for p in pieces]
    write_gguf(bert, {"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": stored,
                      "tokenizer.ggml.token_type": [3 if p in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") else 1 for p in pieces],
                      "tokenizer.ggml.unknown_token_id": vocab["[UNK]"], "tokenizer.ggml.cls_token_id": vocab["[CLS]"],
                      "tokenizer.ggml.seperator_token_id": vocab["[SEP]"]})
    (bert / "vocab.txt").write_text("\n".join(pieces) + "\n")
    transformers_rows(bert, BertTokenizerFast(vocab_file=str(bert / "vocab.txt")))
    (bert / "vocab.txt").unlink()

    ranks = train_ranks(CL100K, 600)
    cl100k = folder_of("tiktoken-cl100k")
    write_ranks(cl100k / "cl100k_base.tiktoken", ranks)
    tiktoken_rows(cl100k, CL100K, ranks, {"<|endoftext|>": 601, "<|fim_prefix|>": 602, "<|fim_middle|>": 603, "<|fim_suffix|>": 604,
                                          "<|endofprompt|>": 620})
    ranks = train_ranks(O200K, 600)
    o200k = folder_of("tiktoken-o200k")
    write_ranks(o200k / "o200k_base.tiktoken", ranks)
    tiktoken_rows(o200k, O200K, ranks, {"<|endoftext|>": 601, "<|endofprompt|>": 620})
    tekken = folder_of("tekken")
    ranks = train_ranks(TEKKEN, 600)
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    specials = {n: i for i, n in enumerate(names)} | {f"<SPECIAL_{i}>": i for i in range(5, 30)}
    (tekken / "tekken.json").write_text(json.dumps({
        "config": {"pattern": TEKKEN, "num_vocab_tokens": 600, "default_vocab_size": 530, "default_num_special_tokens": 30,
                   "version": "v11"},
        "vocab": [{"rank": r, "token_bytes": base64.b64encode(t).decode(), "token_str": t.decode(errors="replace")}
                  for t, r in ranks.items()],
        "special_tokens": [{"rank": i, "token_str": n, "is_control": True} for i, n in enumerate(names)]}))
    tiktoken_rows(tekken, TEKKEN, {t: r + 30 for t, r in ranks.items() if r < 500}, specials, bos=[1])


if __name__ == "__main__":
    sys.exit(main())
