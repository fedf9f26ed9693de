"""Each family in its tier gives transformers' own log probabilities, whatever the scheduler makes of the request."""

import numpy as np
import pytest
import transformers
from banyan_hf_worker import attention, loader, probe
from banyan_hf_worker.runner import Way

import models
from driver import Driver, error_of, make_worker, prompts, reference, scenarios

pytestmark = pytest.mark.both_lines
LIMIT = 1e-4
# In transformers alone too one token goes another way than many: qwen3_5's rounds differently, nemotron-h's does not clamp its steps.
LIMITS = {"qwen3_5-text": 1e-3, "nemotron-h": 0.2}
WAYS = {"bart-decoder": "tier B (decodes apart)", "roberta-decoder": "tier A (positions from 2)", "jamba": "tier C (prompts whole)", "mamba": "tier C (eager attention, prompts whole)"}  # with transformers 5


@pytest.mark.parametrize("name", [*models.SHARED_TIERS, *models.MADE])
def test_every_way_of_serving_gives_its_log_probabilities(name):
    model = models.load(name)
    verdict = probe.choose(model)
    assert verdict.way.tier == models.tier_of(name), verdict.reason
    assert name not in WAYS or models.IS_4 or str(verdict.way) == WAYS[name], verdict.reason
    d = Driver(make_worker(model, verdict.way, n_states=40))
    for what, sequences in scenarios(d, prompts(d.worker.n_vocab), d.worker.reuses_prefixes).items():
        for s in sequences:
            error = error_of(s, reference(model, s.ids))
            assert error <= LIMITS.get(name, LIMIT), f"{name}, {verdict.way}, {what}: {error:.2g}"


# ---- each feature matters: without it the test above fails ----


def error_without(monkeypatch, name, **dropped):
    """The largest error when the attention does not hear of something."""
    real, names = attention.store_and_attend, ("scale", "window", "softcap", "chunk")

    def deaf(layer, pool, query, key, value, batch, said, sinks):
        said = tuple({**dict(zip(names, said)), **dropped}[n] for n in names)
        return real(layer, pool, query, key, value, batch, said, dropped.get("sinks", sinks))

    monkeypatch.setattr(attention, "store_and_attend", deaf)
    model = models.load(name)
    d = Driver(make_worker(model, "A"))
    seen = scenarios(d, prompts(d.worker.n_vocab), True)
    return max(error_of(s, reference(model, s.ids)) for sequences in seen.values() for s in sequences)


@pytest.mark.parametrize(
    ("name", "dropped"),
    [("gemma2", {"softcap": 0.0}), ("gemma2", {"window": 0}), ("gpt-oss", {"sinks": None}), ("gpt-oss", {"window": 0}),
     ("mistral-swa", {"window": 0}), ("llama4-text", {"chunk": 0}), ("gemma3-text", {"scale": 1.0})],
)
def test_what_the_model_asks_of_attention_matters(monkeypatch, name, dropped):
    assert error_without(monkeypatch, name) <= LIMIT
    monkeypatch.undo()
    assert error_without(monkeypatch, name, **dropped) > 100 * LIMIT


# ---- rope that looks at the batch ----


@pytest.mark.parametrize("name", ["llama-dynamic", "phi3-longrope"])
def test_a_long_neighbour_changes_nothing(name):
    model = models.load(name)
    random = np.random.default_rng(9)
    short, long = (random.integers(3, 600, n).tolist() for n in (20, 300))

    def run(with_neighbour):
        d = Driver(make_worker(model, "A"))
        d.admit("short", short)
        if with_neighbour:
            d.admit("long", long)
            d.run(("long", 299), ("short", 9))
            d.run(("long", 1), ("short", 11))
        else:
            d.run(("short", 9))
            d.run(("short", 11))
        d.finish("short", 4)
        s = d.sequences["short"]
        return s.ids, np.stack([s.rows[p] for p in sorted(s.rows)])

    alone, beside = run(False), run(True)
    assert alone[0] == beside[0]
    assert float(np.abs(alone[1] - beside[1]).max()) <= 1e-5


def test_the_probe_catches_what_only_looks_right():
    """lfm2 claims attention backends, but its convolutions keep state of their own: prefill is right, decode is not."""
    model = models.load("lfm2")
    ids = probe._two_sequences(model.config)
    want = probe.reference_of(model, ids)
    tier = models.tier_of("lfm2")  # transformers 4 gives it a cache class of its own
    assert probe.run(model, Way(tier, "eager", tier == "D", tier == "D"), ids, want).error <= LIMIT
    with pytest.raises(attention.Unsupported):
        probe.run(model, Way("A"), ids, want)


@pytest.mark.parametrize("name", ["llama-gqa", "lfm2"])
def test_positions_begin_at_0_unless_that_is_wrong(name):
    """Where code tells positions by their distance alone, any beginning is right, and 0 is taken."""
    model = models.load(name)
    ids = probe._two_sequences(model.config)
    assert probe.first_position(model, ids, probe.reference_of(model, ids)) == 0


# ---- what is refused, and by which sentence ----

SMALL = {**models._TEXT, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
D_MODEL = {**models._TEXT, "d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 96}


@pytest.mark.parametrize(("config", "values", "words"), [
    ("XLNetConfig", D_MODEL, "no causal language model as its config has it: what comes behind a token changes its logits"),
    ("XLMConfig", {**models._TEXT, "emb_dim": 64, "n_layers": 2, "n_heads": 4}, "what comes behind a token changes its logits"),
    ("BertConfig", SMALL, "bert is an encoder: every token sees every other"),
    ("CpmAntConfig", {"hidden_size": 64}, "cpmant is no causal language model: it reads a prompt in both directions"),
    ("BlipConfig", {}, "blip is no causal language model: without an image it says nothing"),
])
def test_what_generates_no_text_is_refused_with_the_reason(config, values, words):
    config = getattr(transformers, config)(**values)
    with pytest.raises(probe.Refused, match=words):
        probe.refuse_what_is_not_causal(config)
        probe.choose(models.scale_weights(loader.auto_class(config).from_config(config)).eval())


def test_a_class_that_fails_on_text_is_refused_with_its_own_words():
    """It is not this server that fails, and it would fail again: the process must not be started anew for ever."""
    model = models.load("llama-gqa")
    hook = model.model.layers[0].register_forward_pre_hook(lambda *args: [][0])
    try:
        with pytest.raises(probe.Refused, match="LlamaForCausalLM itself does not run on a text's ids alone: IndexError"):
            probe.choose(model)
    finally:
        hook.remove()


def test_a_model_that_looks_through_timm_reads_text_without_it():
    vision = {"model_type": "gemma3n_vision"}
    text = {**models._USUAL, "head_dim": 16, "num_kv_shared_layers": 1, "layer_types": ["full_attention"] * 3, "laurel_rank": 8,
            "vocab_size_per_layer_input": 640, "hidden_size_per_layer_input": 16, "sliding_window": 8}
    sound = {"hidden_size": 32, "conf_num_attention_heads": 2, "conf_num_hidden_layers": 1}
    config = transformers.Gemma3nConfig(text_config=text, vision_config=vision, audio_config=sound)
    model = models.scale_weights(loader.auto_class(config).from_config(config)).eval()
    assert probe.choose(model).way.tier == "A"
