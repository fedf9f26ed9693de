"""Embeddings and ranks of real models, the tiny ones of ../shared/data, against what transformers made of them."""

import asyncio
import base64
import json
import os
import signal
import sys
import threading

import numpy
import openai
import pytest

from harness import ROOT, Serve, in_threads, wait_for

TINY = ROOT.parent / "shared/data/tiny"
pytestmark = pytest.mark.skipif(not TINY.is_dir(), reason="../shared/data/tiny is not here")
LIMIT = 1e-5  # of float32 models against float32 goldens
EXACT = ["--cpu-bf16", "exact", "--kv-cache-dtype", "float32"]  # of one whose weights are bfloat16


def golden(name):
    return json.loads((TINY / name / "golden.json").read_text())


@pytest.fixture(scope="module")
def encoder():
    with Serve("--model-path", TINY / "bert-embed") as s:
        yield s


@pytest.fixture(scope="module")
def judge():
    with Serve("--model-path", TINY / "bert-rerank") as s:
        yield s


@pytest.fixture(scope="module")
def decoder():
    """Small steps: a prompt comes in chunks."""
    with Serve("--model-path", TINY / "qwen3", "--chunked-prefill-size", "16", *EXACT) as s:
        yield s


def embed(server, given, **more):
    """float32 arrays, through base64: bits, not digits."""
    data = server.ok("/v1/embeddings", {"input": given, "encoding_format": "base64", **more})["data"]
    return [numpy.frombuffer(base64.b64decode(d["embedding"]), "<f4") for d in data]


def bits(vectors):
    return [v.tobytes() for v in vectors]


def away(got, want):
    return numpy.abs(numpy.asarray(got, float) - numpy.asarray(want, float)).max()


# ---- against the goldens ----


def test_an_encoder_s_embeddings(encoder):
    cases = [c for c in golden("bert-embed")["cases"] if c["text"]]  # an empty text is refused
    for case, got in zip(cases, embed(encoder, [c["text"] for c in cases], truncate=True)):
        assert away(got, case["mean_normalized"]) < LIMIT, case["text"]
    for case, got in zip(cases, embed(encoder, [c["ids"] for c in cases])):
        assert away(got, case["mean_normalized"]) < LIMIT, case["text"]
    counts = [m["meta_info"]["prompt_tokens"] for m in encoder.ok("/encode", {"text": [c["text"] for c in cases], "truncate": True})]
    assert counts == [len(c["ids"]) for c in cases], "a text that is cut ends as sentence-transformers ends it"


def test_the_first_token_s_state():
    cases = [c for c in golden("bert-embed")["cases"] if c["text"]]
    with Serve("--model-path", TINY / "bert-embed", "--pooling", "cls") as s:
        for case, got in zip(cases, embed(s, [c["ids"] for c in cases])):
            cls = numpy.array(case["cls"])
            assert away(got, cls / numpy.linalg.norm(cls)) < LIMIT, case["text"]


def test_a_cross_encoder_s_scores(judge):
    for case in golden("bert-rerank")["cases"]:
        (rank,) = judge.ok("/v1/rerank", {"query": case["query"], "documents": [case["document"]]})
        assert abs(rank["score"] - case["sigmoid"]) < LIMIT, case
        assert rank["meta_info"]["prompt_tokens"] == len(case["ids"])
    query = golden("bert-rerank")["cases"][0]["query"]
    of_query = [c for c in golden("bert-rerank")["cases"] if c["query"] == query]
    ranks = judge.ok("/v1/rerank", {"query": query, "documents": [c["document"] for c in of_query]})
    want = sorted(range(len(of_query)), key=lambda i: -of_query[i]["sigmoid"])
    assert [r["index"] for r in ranks] == want and len(want) == 2


def test_a_decoder_s_last_state(decoder):
    case = golden("qwen3")["last_token_embedding"]
    (cold,) = embed(decoder, case["ids"])
    assert away(cold, case["embedding"]) < LIMIT
    again = decoder.ok("/encode", {"input_ids": case["ids"]})
    assert again["meta_info"]["cached_tokens"] == (len(case["ids"]) - 1) // 16 * 16
    assert numpy.array(again["embedding"], "<f4").tobytes() == cold.tobytes(), "cold and cached are the same bits"
    greedy = {"input_ids": case["ids"], "sampling_params": {"temperature": 0, "max_new_tokens": 4}}
    assert decoder.ok("/generate", greedy)["meta_info"]["cached_tokens"] == (len(case["ids"]) - 1) // 16 * 16, "one tree for both"


def test_next_token_probabilities(decoder):
    case = golden("qwen3")["cases"]["len17"]
    logits = numpy.array(case["last_logits"], float)
    p = numpy.exp(logits - logits.max()) / numpy.exp(logits - logits.max()).sum()
    labels = [int(i) for i in numpy.argsort(-p)[:3]] + [5]
    body = {"query": case["prompt_ids"][:10], "items": [case["prompt_ids"][10:], [7, 8]], "label_token_ids": labels}
    (got, _) = decoder.ok("/v1/score", body)["scores"]
    assert away(got, p[labels]) < 1e-3
    (shares, _) = decoder.ok("/v1/score", {**body, "apply_softmax": True})["scores"]
    assert away(shares, p[labels] / p[labels].sum()) < 1e-3 and abs(sum(shares) - 1) < 1e-9


# ---- bits ----


def prompts(n_vocab, longest, n):
    return [[2 + (i * 131 + k * 7919) % (n_vocab - 2) for k in range(1 + (i * 53) % longest)] for i in range(n)]


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_a_batch_has_the_bits_of_one_at_a_time(name, request):
    server = request.getfixturevalue(name)
    given = prompts(600, 250, 60)
    alone = bits(embed(server, p)[0] for p in given)
    assert bits(embed(server, given)) == alone
    server.post("/flush_cache")
    assert bits(embed(server, given[::-1])) == alone[::-1]
    assert in_threads([lambda p=p: bits(embed(server, p))[0] for p in given[:16]]) == alone[:16]


def test_ranks_have_the_bits_of_one_at_a_time(judge):
    documents = [f"document {i} " * (1 + i % 20) for i in range(150)]
    ranks = judge.ok("/v1/rerank", {"query": "which one", "documents": documents, "truncate": True})
    alone = [judge.ok("/v1/rerank", {"query": "which one", "documents": [d], "truncate": True})[0]["score"] for d in documents]
    assert [r["score"] for r in sorted(ranks, key=lambda r: r["index"])] == alone


def test_a_mean_over_chunks_has_the_same_bits():
    """However the prompt is cut, and whatever the cache holds of it: nothing is taken from there."""
    given = prompts(600, 120, 12)
    seen = []
    for chunk in ("7", "64", "512"):
        with Serve("--model-path", TINY / "qwen3", "--chunked-prefill-size", chunk, "--pooling", "mean") as s:
            s.ok("/generate", {"input_ids": given[-1], "sampling_params": {"max_new_tokens": 1}})
            seen.append(bits(embed(s, given)))
            assert s.ok("/encode", {"input_ids": given[-1]})["meta_info"]["cached_tokens"] == 0
    assert seen[0] == seen[1] == seen[2]


# ---- clients ----


def test_the_openai_client(encoder):
    """It asks for base64 unless it is told otherwise, and unpacks it itself."""
    texts = [c["text"] for c in golden("bert-embed")["cases"][:4]]
    want = [c["mean_normalized"] for c in golden("bert-embed")["cases"][:4]]
    with openai.OpenAI(base_url=f"{encoder.url}/v1", api_key="none", max_retries=0) as c:
        packed = c.embeddings.create(model="any", input=texts)
        plain = c.embeddings.create(model="any", input=texts, encoding_format="float")
        for answer in (packed, plain):
            assert [d.index for d in answer.data] == [0, 1, 2, 3] and answer.model == "any"
            assert away([d.embedding for d in answer.data], want) < LIMIT
        assert [numpy.array(d.embedding, "f4").tobytes() for d in packed.data] == \
               [numpy.array(d.embedding, "f4").tobytes() for d in plain.data]
        assert packed.usage.total_tokens == packed.usage.prompt_tokens == sum(
            len(case["ids"]) for case in golden("bert-embed")["cases"][:4])
        short = c.embeddings.create(model="any", input=texts[0], dimensions=16).data[0].embedding
        assert len(short) == 16 and abs(numpy.linalg.norm(short) - 1) < 1e-6
        with pytest.raises(openai.BadRequestError, match="dimensions"):
            c.embeddings.create(model="any", input="a", dimensions=65)
        with pytest.raises(openai.BadRequestError, match="257 tokens.*256 tokens"):
            c.embeddings.create(model="any", input=[5] * 257)
        with pytest.raises(openai.BadRequestError, match="makes no text"):
            c.chat.completions.create(model="any", messages=[{"role": "user", "content": "hi"}])

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{encoder.url}/v1", api_key="none", max_retries=0) as c:
            answers = await asyncio.gather(*[c.embeddings.create(model="any", input=t) for t in texts])
            return [a.data[0].embedding for a in answers]

    assert away(asyncio.run(ask()), want) < LIMIT


def test_the_python_engine():
    sys.path.insert(0, str(ROOT / "deploy/python"))
    import banyan

    cases = [c for c in golden("bert-embed")["cases"] if c["text"] and not c["truncated"]]
    with banyan.Engine(str(TINY / "bert-embed")) as engine:
        many = engine.encode([c["text"] for c in cases])
        assert away([m["embedding"] for m in many], [c["mean_normalized"] for c in cases]) < LIMIT
        one = engine.encode(input_ids=cases[0]["ids"], dimensions=8)
        assert len(one["embedding"]) == 8 and one["meta_info"]["prompt_tokens"] == len(cases[0]["ids"])
        with pytest.raises(banyan.RequestError, match="makes no text"):
            engine.generate("hello")


# ---- faults ----


def test_kill_9_of_the_worker_in_the_middle(decoder):
    given = prompts(600, 250, 300)
    want, got = bits(embed(decoder, given)), []
    decoder.post("/flush_cache")
    pid = decoder.pids()["gpu-worker"]
    thread = threading.Thread(target=lambda: got.append(bits(embed(decoder, given))))
    thread.start()
    wait_for("it to run", lambda: decoder.load()["num_running_reqs"] or got)
    os.kill(pid, signal.SIGKILL)
    thread.join()
    assert got == [want]
    wait_for("it to be back", lambda: decoder.pids()["gpu-worker"] != pid)


def test_what_a_folder_asks_for_and_is_not_here(tmp_path):
    """Pooling or layers behind the model that are not ours: said by name, not left out."""
    folder = tmp_path / "model"
    folder.mkdir()
    for f in (TINY / "bert-embed").iterdir():
        if f.is_file() and f.name != "modules.json":
            (folder / f.name).symlink_to(f)
    (folder / "1_Pooling").mkdir()
    pooling, modules = folder / "1_Pooling/config.json", folder / "modules.json"
    pooling.write_text('{"pooling_mode_max_tokens": true}')
    assert "pooling_mode_max_tokens, is not supported" in said_at_start(folder)
    pooling.write_text('{"pooling_mode_cls_token": true}')
    modules.write_text('[{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]')
    assert "'sentence_transformers.models.Dense', which is not supported" in said_at_start(folder)
    modules.write_text("[[")
    assert "modules.json" in said_at_start(folder)


def said_at_start(folder):
    with pytest.raises(AssertionError) as e:
        Serve("--model-path", folder).wait_ready()
    return str(e.value)
