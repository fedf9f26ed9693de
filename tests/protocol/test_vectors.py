"""Embeddings, scores and ranks through all processes: a stand-in makes them of a hash of the ids, so equal prompts have equal
vectors, and the vectors say nothing about the engine (tests/e2e/test_vectors.py does)."""

import base64
import math
import os
import signal
import struct
import threading

import pytest

from harness import Daemons, in_threads, wait_for

TEXTS = ["hello", "a longer text with some more words in it", "hello", "x" * 300]


@pytest.fixture(scope="module")
def makes_all():
    """A model that makes texts, embeddings of 8 numbers and one score of a pair."""
    with Daemons(gpu_worker=["--embed", "8", "--labels", "1"]) as d:
        yield d


@pytest.fixture(scope="module")
def encoder():
    with Daemons(gpu_worker=["--embed", "8", "--encoder", "1", "--context", "100", "--labels", "3"],
                 tokenizer_worker=["--context-length", "100"]) as d:
        yield d


def vectors(server, texts, path="/v1/embeddings", **more):
    return [d["embedding"] for d in server.ok(path, {"input": texts, **more})["data"]]


def test_embeddings_are_in_order_and_unit_vectors(makes_all):
    answer = makes_all.ok("/v1/embeddings", {"model": "m", "input": TEXTS})
    assert answer["object"] == "list" and answer["model"] == "m"
    assert [d["index"] for d in answer["data"]] == [0, 1, 2, 3]
    assert {d["object"] for d in answer["data"]} == {"embedding"}
    got = [d["embedding"] for d in answer["data"]]
    assert all(len(v) == 8 and abs(math.hypot(*v) - 1) < 1e-6 for v in got)
    assert got[0] == got[2] != got[1]
    n = sum(makes_all.ok("/tokenize", {"prompt": t})["count"] for t in TEXTS)
    assert answer["usage"] == {"prompt_tokens": n, "total_tokens": n}


def test_alone_and_among_others_is_the_same(makes_all):
    assert vectors(makes_all, TEXTS) == [vectors(makes_all, t)[0] for t in TEXTS]
    texts = [f"text {i} " * (1 + i % 50) for i in range(200)]
    assert vectors(makes_all, texts) == [v for i in range(0, 200, 50) for v in vectors(makes_all, texts[i:i + 50])]


def test_token_ids_are_taken_as_they_are(makes_all):
    ids = makes_all.ok("/tokenize", {"prompt": TEXTS[1]})["tokens"]
    assert vectors(makes_all, ids) == vectors(makes_all, [ids]) == vectors(makes_all, TEXTS[1])
    assert vectors(makes_all, [ids, [20, 21]]) == [vectors(makes_all, ids)[0], vectors(makes_all, [20, 21])[0]]


def test_base64_holds_the_same_floats(makes_all):
    for n in range(1, 9):  # every padding
        plain = vectors(makes_all, TEXTS, dimensions=n)
        packed = vectors(makes_all, TEXTS, dimensions=n, encoding_format="base64")
        assert [list(struct.unpack(f"<{n}f", base64.b64decode(p, validate=True))) for p in packed] == \
               [list(struct.unpack(f"<{n}f", struct.pack(f"<{n}f", *v))) for v in plain]


def test_dimensions_cut_and_normalise_again(makes_all):
    (whole,), (cut,) = vectors(makes_all, "hello"), vectors(makes_all, "hello", dimensions=3)
    length = math.hypot(*whole[:3])
    assert cut == pytest.approx([x / length for x in whole[:3]], abs=1e-6) and abs(math.hypot(*cut) - 1) < 1e-6
    assert vectors(makes_all, "hello", dimensions=8) == [whole]


def test_native_encode(makes_all):
    one = makes_all.ok("/encode", {"text": "hello", "rid": "mine"})
    assert [one["embedding"]] == vectors(makes_all, "hello")
    assert one["meta_info"]["id"] == "mine" and one["meta_info"]["prompt_tokens"] > 0
    many = makes_all.ok("/encode", {"text": TEXTS, "rid": "all"})
    assert [m["embedding"] for m in many] == vectors(makes_all, TEXTS)
    assert [m["meta_info"]["id"] for m in many] == ["all_0", "all_1", "all_2", "all_3"]
    (listed,) = makes_all.ok("/encode", {"input_ids": [[20, 21]]})
    assert listed["embedding"] == makes_all.ok("/encode", {"input_ids": [20, 21]})["embedding"]
    assert makes_all.request("PUT", "/encode", {"text": "hello"}).json["embedding"] == one["embedding"]


def test_ollama_embed(makes_all):
    many = makes_all.ok("/api/embed", {"model": "m", "input": TEXTS, "keep_alive": "5m", "options": {"num_ctx": 10}})
    assert many["embeddings"] == vectors(makes_all, TEXTS) and many["model"] == "m" and many["total_duration"] > 0
    n = sum(makes_all.ok("/tokenize", {"prompt": t})["count"] for t in TEXTS)
    assert many["prompt_eval_count"] == n
    assert makes_all.ok("/api/embed", {"input": "hello", "dimensions": 2})["embeddings"] == vectors(makes_all, "hello", dimensions=2)
    assert [makes_all.ok("/api/embeddings", {"prompt": "hello"})["embedding"]] == vectors(makes_all, "hello")
    assert makes_all.post("/api/embeddings", {"prompt": ["hello"]}).json == {"error": "prompt: one text; /api/embed takes many"}
    assert makes_all.ok("/api/show", {})["capabilities"] == ["completion", "embedding"]


def test_too_long_is_refused_with_the_numbers_or_cut(encoder):
    long = list(range(20, 121))
    answer = encoder.post("/v1/embeddings", {"input": long})
    assert answer.status == 400 and "101 tokens" in answer.json["error"]["message"]
    assert "100 tokens" in answer.json["error"]["message"]
    assert len(vectors(encoder, long[:100])[0]) == 8  # all of it, for no token follows
    assert vectors(encoder, long, truncate=True) == vectors(encoder, long[:100])
    assert len(encoder.ok("/api/embed", {"input": "word " * 500})["embeddings"]) == 1, "Ollama cuts unless it is told not to"
    answer = encoder.post("/api/embed", {"input": "word " * 500, "truncate": False})
    assert answer.status == 400 and "context length" in answer.json["error"]


def test_an_encoder_says_what_it_makes(encoder):
    for path, body in [("/generate", {"text": "x"}), ("/v1/completions", {"prompt": "x"}), ("/api/generate", {"prompt": "x"}),
                       ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})]:
        answer = encoder.post(path, body)
        assert answer.status == 400 and "makes no text" in answer.body.decode(), answer
        assert "embeddings (POST /v1/embeddings)" in answer.body.decode()
    assert encoder.get("/model_info").json["is_generation"] is False
    assert encoder.get("/health_generate").status == 200
    assert encoder.ok("/api/show", {})["capabilities"] == ["embedding"]


def test_a_decoder_without_heads_says_so_too(server):
    for path, body, what in [("/v1/embeddings", {"input": "x"}, "embeddings"), ("/encode", {"text": "x"}, "embeddings"),
                             ("/api/embed", {"input": "x"}, "embeddings"), ("/classify", {"text": "x"}, "scores"),
                             ("/v1/rerank", {"query": "x", "documents": ["y"]}, "scores")]:
        answer = server.post(path, body)
        assert answer.status == 400 and f"makes no {what}" in answer.body.decode(), answer
        assert "text (POST /v1/chat/completions)" in answer.body.decode()
    assert server.get("/model_info").json["is_generation"] is True


def test_classify_gives_every_label(encoder):
    (one,) = [encoder.ok("/classify", {"text": "hello"})]
    assert len(one["embedding"]) == 3 and one["meta_info"]["prompt_tokens"] > 0
    answer = encoder.post("/v1/rerank", {"query": "x", "documents": ["y"]})
    assert answer.status == 400 and "3 labels" in answer.json["error"]["message"]


def test_rerank_sorts_and_names(makes_all):
    documents = [f"document {i}" for i in range(30)] + [{"text": "document 3"}, ""]
    body = {"query": "a question", "documents": documents}
    ranks = makes_all.ok("/v1/rerank", body)
    assert [r["score"] for r in ranks] == sorted((r["score"] for r in ranks), reverse=True)
    assert sorted(r["index"] for r in ranks) == list(range(32))
    plain = [d if isinstance(d, str) else d["text"] for d in documents]
    assert [r["document"] for r in ranks] == [plain[r["index"]] for r in ranks]
    by_index = {r["index"]: r["score"] for r in ranks}
    assert by_index[3] == by_index[30] and len(set(by_index.values())) == 31
    order = [r["index"] for r in ranks]
    assert order.index(3) + 1 == order.index(30), "of equals the first comes first"
    alone = makes_all.ok("/v1/rerank", {**body, "documents": documents[:1]})
    assert alone[0]["score"] == by_index[0] and alone[0]["meta_info"]["prompt_tokens"] > 0
    best = makes_all.ok("/v1/rerank", {**body, "top_n": 2, "return_documents": False})
    assert [(r["index"], r["score"]) for r in best] == [(r["index"], r["score"]) for r in ranks[:2]]
    assert "document" not in best[0]


@pytest.mark.parametrize("path", ["/rerank", "/v2/rerank"])
def test_rerank_as_cohere_tells_it(makes_all, path):
    """What litellm, Jina's and Cohere's clients and Open WebUI read; SGLang's list made them fail."""
    body = {"model": "judge", "query": "a question", "documents": ["one", {"text": "two"}, "three"]}
    ranks = makes_all.ok("/v1/rerank", body)
    answer = makes_all.ok(path, body)
    assert answer["results"] == [
        {"index": r["index"], "relevance_score": r["score"], "document": {"text": r["document"]}} for r in ranks]
    n = sum(r["meta_info"]["prompt_tokens"] for r in ranks)
    assert answer["model"] == "judge" and answer["id"] and answer["usage"] == {"prompt_tokens": n, "total_tokens": n}
    best = makes_all.ok(path, {**body, "top_n": 1, "return_documents": False})
    assert best["results"] == [{"index": ranks[0]["index"], "relevance_score": ranks[0]["score"]}]


def test_score_gives_the_labels_probabilities(server, makes_all):
    """The stand-in's log probability of an id is -1 - (id % 50) / 10."""
    body = {"query": "is it", "items": [" good", " bad"], "label_token_ids": [30, 31, 80]}
    answer = server.ok("/v1/score", body)
    p = [math.exp(-1 - i / 10) for i in (30, 31, 30)]
    assert answer["object"] == "scoring" and answer["model"] == "stand-in"
    assert answer["scores"] == [pytest.approx(p, rel=1e-6)] * 2
    shares = server.ok("/v1/score", {**body, "apply_softmax": True, "item_first": True})["scores"]
    assert shares == [pytest.approx([x / sum(p) for x in p], rel=1e-6)] * 2
    assert answer["usage"]["prompt_tokens"] == sum(
        server.ok("/tokenize", {"prompt": t})["count"] for t in ("is it good", "is it bad"))
    judged = makes_all.ok("/v1/score", {"query": "is it", "items": ["good", "bad"]})["scores"]
    ranks = makes_all.ok("/v1/rerank", {"query": "is it", "documents": ["good", "bad"]})
    assert judged == [[r["score"]] for r in sorted(ranks, key=lambda r: r["index"])], "a classifier has labels of its own"
    ids = server.ok("/v1/score", {"query": [20, 21], "items": [[22], [23, 24]], "label_token_ids": [30]})
    assert ids["usage"]["prompt_tokens"] == 3 + 4


BAD = [
    ("/v1/embeddings", {}, "input"), ("/v1/embeddings", {"input": None}, "input"), ("/v1/embeddings", {"input": ""}, "input"),
    ("/v1/embeddings", {"input": []}, "input"), ("/v1/embeddings", {"input": 7}, "input"), ("/v1/embeddings", {"input": {}}, "input"),
    ("/v1/embeddings", {"input": ["a", ""]}, "input"), ("/v1/embeddings", {"input": ["a", 7]}, "input"),
    ("/v1/embeddings", {"input": ["a", None]}, "input"), ("/v1/embeddings", {"input": [[]]}, "input"),
    ("/v1/embeddings", {"input": [[[1]]]}, "input"), ("/v1/embeddings", {"input": [-1]}, "input"),
    ("/v1/embeddings", {"input": [1.5]}, "input"), ("/v1/embeddings", {"input": [1e300]}, "input"),
    ("/v1/embeddings", {"input": [[1, "a"]]}, "input"), ("/v1/embeddings", {"input": [100000]}, "input: token id 100000"),
    ("/v1/embeddings", {"input": ["a"] * 3000}, "input"),
    ("/v1/embeddings", {"input": "a", "dimensions": 0}, "dimensions"), ("/v1/embeddings", {"input": "a", "dimensions": 9}, "dimensions"),
    ("/v1/embeddings", {"input": "a", "dimensions": 10**9}, "dimensions"),
    ("/v1/embeddings", {"input": "a", "dimensions": 10**30}, "dimensions"),
    ("/v1/embeddings", {"input": "a", "dimensions": -1}, "dimensions"), ("/v1/embeddings", {"input": "a", "dimensions": 1.5}, "dimensions"),
    ("/v1/embeddings", {"input": "a", "dimensions": "8"}, "dimensions"),
    ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ("/v1/embeddings", {"input": "a", "encoding_format": 1}, "encoding_format"),
    ("/v1/embeddings", {"input": "a", "model": 1}, "model"), ("/v1/embeddings", {"input": "a", "stream": True}, "stream"),
    ("/v1/embeddings", {"input": "a", "truncate": 1}, "truncate"), ("/v1/embeddings", {"input": "a", "rid": 5}, "rid"),
    ("/encode", {}, "text"), ("/encode", {"text": "a", "input_ids": [1]}, "text"), ("/encode", {"text": [1]}, "text"),
    ("/encode", {"input_ids": "a"}, "input_ids"), ("/encode", {"input_ids": [-5]}, "input_ids"), ("/encode", {"text": ""}, "text"),
    ("/v1/rerank", {"documents": ["a"]}, "query"), ("/v1/rerank", {"query": "", "documents": ["a"]}, "query"),
    ("/v1/rerank", {"query": 1, "documents": ["a"]}, "query"), ("/v1/rerank", {"query": "a"}, "documents"),
    ("/v1/rerank", {"query": "a", "documents": []}, "documents"), ("/v1/rerank", {"query": "a", "documents": "b"}, "documents"),
    ("/v1/rerank", {"query": "a", "documents": ["b", 1]}, "documents[1]"), ("/v1/rerank", {"query": "a", "documents": [{"t": "b"}]}, "documents[0]"),
    ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": 0}, "top_n"), ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": "1"}, "top_n"),
    ("/v1/rerank", {"query": "a", "documents": ["b"] * 3000}, "documents"),
    ("/v1/rerank", {"query": "a", "documents": ["b"], "return_documents": 1}, "return_documents"),
]
BAD += [
    ("/v1/score", {"query": "a", "items": ["b"], "label_token_ids": [1]}, "label_token_ids"),
    ("/v1/score", {"query": [20], "items": [[21]]}, "query"),
]
BAD_SCORES = [
    ({"items": ["b"], "label_token_ids": [1]}, "query"), ({"query": "a", "label_token_ids": [1]}, "items"),
    ({"query": "a", "items": [], "label_token_ids": [1]}, "items"), ({"query": "a", "items": [[1]], "label_token_ids": [1]}, "items[0]"),
    ({"query": [1], "items": ["b"], "label_token_ids": [1]}, "items[0]"), ({"query": [-1], "items": [[1]], "label_token_ids": [1]}, "query"),
    ({"query": "a", "items": ["b"]}, "label_token_ids"), ({"query": "a", "items": ["b"], "label_token_ids": []}, "label_token_ids"),
    ({"query": "a", "items": ["b"], "label_token_ids": [640]}, "out of vocabulary"),
    ({"query": "a", "items": ["b"], "label_token_ids": [-1]}, "label_token_ids"),
    ({"query": "a", "items": ["b"], "label_token_ids": [1], "temperature": 0}, "temperature"),
    ({"query": "a", "items": ["b"], "label_token_ids": [1], "apply_softmax": 1}, "apply_softmax"),
    ({"query": "", "items": [""], "label_token_ids": [1]}, "items[0]"), ({"query": "a", "items": ["b"] * 3000, "label_token_ids": [1]}, "items"),
]


@pytest.mark.parametrize("path, body, named", BAD)
def test_bad_input_is_named(makes_all, path, body, named):
    answer = makes_all.post(path, body)
    assert answer.status == 400 and named in answer.json["error"]["message"], answer
    assert makes_all.is_idle()


@pytest.mark.parametrize("body, named", BAD_SCORES)
def test_bad_scores_are_named(server, body, named):
    answer = server.post("/v1/score", body)
    assert answer.status == 400 and named in answer.json["error"]["message"], answer


def test_an_aborted_one_is_an_error():
    """Of a vector there is no half."""
    with Daemons(gpu_worker=["--embed", "8", "--step-us", "300000"]) as d:
        got = []
        thread = threading.Thread(target=lambda: got.append(d.post("/v1/embeddings", {"input": ["a"] * 400, "rid": "long"})))
        thread.start()
        wait_for("it to run", lambda: d.load()["num_running_reqs"])
        assert d.post("/abort_request", {"rid": "long"}).status == 200
        thread.join()
        assert got[0].status == 499 and "aborted" in got[0].json["error"]["message"]
        wait_for("nothing to be left", d.is_idle)


@pytest.mark.parametrize("name", ["gpu-worker", "scheduler", "tokenizer-worker", "detokenizer"])
def test_kill_9_in_the_middle(name):
    """Whoever dies while a batch is computed: it is answered, and the vectors are the same."""
    texts = [f"text {i} " * (1 + i % 40) for i in range(300)]
    with Daemons(gpu_worker=["--embed", "8", "--slots", "8", "--step-us", "2000"]) as d:
        want = vectors(d, texts)
        got = []
        thread = threading.Thread(target=lambda: got.append(vectors(d, texts)))
        thread.start()
        wait_for("it to run", lambda: d.load()["num_running_reqs"])
        os.kill(d.pid(name), signal.SIGKILL)
        d.processes[name].wait()
        d.start(name)
        thread.join()
        assert got == [want]
        wait_for("nothing to be left", d.is_idle)


def test_among_generations(makes_all):
    text, ids, _ = makes_all.generate("hello", 40)
    want = vectors(makes_all, TEXTS)
    jobs = [lambda: makes_all.generate("hello", 40)[:2], lambda: vectors(makes_all, TEXTS)] * 8
    assert in_threads(jobs) == [(text, ids), want] * 8
