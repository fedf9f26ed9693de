"""Embeddings by the Transformers worker: in every tier what transformers' own last states come to, however a prompt is cut."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from banyan_hf_worker import embedding, messages, probe
from banyan_hf_worker.__main__ import pooling_of
from banyan_hf_worker.batch import Batch
from banyan_hf_worker.embedding import NoEmbeddings, Pooling
from banyan_hf_worker.pool import Pool
from banyan_hf_worker.runner import Runner, use_own
from banyan_hf_worker.worker import BadStep

import models
from driver import Driver, make_worker

LIMIT = 1e-5


def ids_of(n, seed=1):
    return np.random.default_rng(seed).integers(3, 600, n).tolist()


@torch.inference_mode()
def states_of(model, ids):
    """transformers' last states [n, width] in one pass."""
    use_own(model, "eager")
    return model.base_model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0].double().numpy()


def normed(x):
    return x / np.linalg.norm(x)


def driver(name, kind="last", tier=None, **more):
    model = models.load(name)
    verdict = probe.choose(model)
    return Driver(make_worker(model, tier or verdict.way, pooling=Pooling(kind, model.config.hidden_size), **more), want_all=False)


def run(d, *rows):
    """{slot: vector} of a step in which nobody samples who wants a vector."""
    frame = d.frame(*rows)
    wants = {s.slot: s for s in d.sequences.values() if d.worker.slots.get(s.slot) is None or d.worker.slots[s.slot].params.sampling.vector}
    frame.row_samples = [int(sample and slot not in wants) for slot, sample in zip(frame.row_slots, frame.row_samples)]
    done = d.worker.step(frame)
    assert done.code == 0, done.error
    for name, n in rows:
        d.sequences[name].n_done += n
    return {v.slot: np.array(v.values) for v in done.vectors}


@pytest.mark.parametrize(("name", "tier"), [("qwen3", "A"), ("gemma2", "A"), ("falcon-newarch", "B"), ("bloom", "B"), ("lfm2", "C"),
                                            ("qwen3", "R")])
def test_the_last_tokens_state_in_every_tier(name, tier):
    d, first, second = driver(name, tier=tier), ids_of(11), ids_of(5, 2)
    for key, ids in (("a", first), ("b", second)):
        d.admit(key, ids, vector=messages.VECTOR_EMBEDDING)
    assert run(d, ("a", 4)) == {}
    found = {**run(d, ("a", 6), ("b", 5)), **run(d, ("a", 1))}
    for key, ids in (("a", first), ("b", second)):
        got, want = found[d.sequences[key].slot], normed(states_of(models.load(name), ids)[-1])
        assert got.shape == want.shape and np.abs(got - want).max() < LIMIT


@pytest.mark.parametrize("chunks", [[13], [4, 9], [1] * 13])
def test_a_mean_over_chunks(chunks):
    d, ids = driver("qwen3", "mean"), ids_of(13)
    s = d.admit("a", ids, vector=messages.VECTOR_EMBEDDING)
    for n in chunks:
        found = run(d, ("a", n))
    assert np.abs(found[s.slot] - normed(states_of(models.load("qwen3"), ids).mean(0))).max() < LIMIT


def test_the_golden_vector_beside_a_request_for_text_and_from_the_cache():
    golden = models.golden("qwen3")["last_token_embedding"]
    ids, d = golden["ids"], driver("qwen3")
    d.admit("text", ids_of(8))
    s = d.admit("a", ids, vector=messages.VECTOR_EMBEDDING)
    (got,) = run(d, ("text", 8), ("a", len(ids))).values()
    assert np.abs(got - np.array(golden["embedding"])).max() < LIMIT
    shared = (len(ids) - 1) // 4 * 4
    again = d.admit("again", ids, prefix=("a", shared), vector=messages.VECTOR_EMBEDDING)
    assert s.slot != again.slot
    assert np.abs(run(d, ("again", len(ids) - shared))[again.slot] - got).max() < LIMIT


def test_frames_that_ask_for_what_is_not_made():
    for d, asked in ((driver("qwen3"), {"vector": messages.VECTOR_SCORES}),
                     (Driver(make_worker(models.load("qwen3"), "A"), want_all=False), {"vector": messages.VECTOR_EMBEDDING})):
        d.admit("a", ids_of(4), **asked)
        with pytest.raises(BadStep, match="wants a vector that this model does not make"):
            d.worker.step(d.frame(("a", 4)))
    d = driver("qwen3", "mean")
    d.admit("a", ids_of(9))
    run(d, ("a", 9))
    d.admit("b", ids_of(9), prefix=("a", 8), vector=messages.VECTOR_EMBEDDING)
    with pytest.raises(BadStep, match="wants a vector"):
        d.worker.step(d.frame(("b", 1)))


def test_states_of_nan_fail_their_request_only(monkeypatch):
    d = driver("qwen3")
    bad, good = (d.admit(key, ids_of(4, i), vector=messages.VECTOR_EMBEDDING) for i, key in enumerate("ab"))
    real = d.worker.runner.logits_and_states

    def broken(batch, rows):
        logits, states = (t.clone() for t in real(batch, rows))
        states[0] = float("nan")
        return logits, states

    monkeypatch.setattr(d.worker.runner, "logits_and_states", broken)
    frame = d.frame(("a", 4), ("b", 4))
    frame.row_samples = [0, 0]
    done = d.worker.step(frame)
    assert done.code == 0 and list(done.failed_slots) == [bad.slot] and [v.slot for v in done.vectors] == [good.slot]


# ---- what a folder says ----


def plan(folder, word="auto", model=None):
    model = model or models.load("qwen3")
    return embedding.plan(folder, word, Runner(model, "A", Pool(2, 4)), Batch([([3, 4, 5], 0, [1], {})], 4))


def test_pooling_is_the_flags_then_the_folders_then_the_last_token(tmp_path):
    def told(**modes):
        (tmp_path / "1_Pooling").mkdir(exist_ok=True)
        (tmp_path / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 64, **modes}))

    assert plan(tmp_path).kind == "last" and plan(tmp_path).width == models.load("qwen3").config.hidden_size
    told(pooling_mode_mean_tokens=True, pooling_mode_cls_token=False)
    assert plan(tmp_path).kind == "mean" and plan(tmp_path, "last").kind == "last"
    told(pooling_mode_lasttoken=True)
    assert plan(tmp_path).kind == "last"
    shutil.move(tmp_path / "1_Pooling", tmp_path / "2_Elsewhere")
    (tmp_path / "2_Elsewhere/config.json").write_text('{"pooling_mode_mean_tokens": true}')
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""},
               {"type": "sentence_transformers.models.Pooling", "path": "2_Elsewhere"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert plan(tmp_path).kind == "mean"


@pytest.mark.parametrize(
    ("files", "words"),
    [({"1_Pooling/config.json": '{"pooling_mode_cls_token": true}'}, "--pooling names another"),
     ({"1_Pooling/config.json": '{"pooling_mode_max_tokens": true}'}, "pooling_mode_max_tokens, is not supported"),
     ({"1_Pooling/config.json": '{"pooling_mode_mean_tokens": true, "pooling_mode_lasttoken": true}'}, "is not supported"),
     ({"modules.json": '[{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]'}, "Dense', which is not supported"),
     ({"modules.json": "{"}, "is not JSON")],
)
def test_a_folder_that_asks_for_more_is_told_so(tmp_path, files, words, capfd):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(NoEmbeddings, match=words):
        plan(tmp_path)
    asked = SimpleNamespace(model_path=tmp_path, pooling="auto")
    assert pooling_of(asked, models.load("qwen3"), probe.Verdict("A", "", 0, {}, None)) is None
    assert "no embeddings are made: " in capfd.readouterr().err, "and the model is served for its text"


def test_code_that_reads_its_output_layer_past_the_module_makes_none(monkeypatch):
    model = models.load("qwen3")
    monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    with pytest.raises(NoEmbeddings, match="do not pass through its output layer"):
        plan("/nowhere", model=model)
