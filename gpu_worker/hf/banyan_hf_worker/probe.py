"""Which tier is right for a model? The one whose logits equal the model's own on everything a server does to it.

Two sequences with a common start are run by the model as it is, and again in pieces by the tier: chunks, a shared prefix,
chunks and decodes mixed in one step, on shuffled pages of a pool full of NaN. Prefill alone shows nothing: models that
are silently wrong are right there.

The model's own means its plain attention ("eager"): a faster one of transformers may leave a feature out (sdpa the
softcap of Gemma 2 in transformers 4), and then tiers B, C and R run eager as well.
"""

from dataclasses import dataclass

import numpy as np
import torch

from . import attention, shadow
from .batch import Batch
from .pool import Pool, bytes_of
from .runner import TIERS, Runner, default_attention, n_layers, use_own

N_TOKENS = 48
PAGE = 4
SHARED = 16  # tokens of the common start: whole pages
KNOWN_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
ROWS_RIGHT = 0.75  # of short floats: a tie of experts falls the other way now and then, and all later rows with it


@dataclass
class Verdict:
    tier: str
    reason: str
    error: float  # largest |difference of logits| in the probe
    shapes: dict  # of a slot in each layer (pool.py)
    own: str | None  # tiers B, C, R: which of transformers' attention functions

    @property
    def bytes_per_slot(self):
        return sum(map(bytes_of, self.shapes.values()))

    def __str__(self):
        return f"tier {self.tier}: {self.reason}"


class Refused(RuntimeError):
    """No tier is right for this model."""


def choose(model):
    """The first tier that passes; Refused names why each one failed."""
    refuse_what_is_not_causal(model.config)
    tier, reason = first_tier(model)
    why = [reason] if reason else []
    ids = _two_sequences(model.config)
    reference = reference_of(model, ids)
    for tier, own in _candidates(model, tier):
        name = f"tier {tier}" if own != "eager" else f"tier {tier} with eager attention"
        try:
            error, right, pool = run(model, tier, own, ids, reference)
            failed = _too_far(model, error, right, reference)
            note = "" if failed else shadow.note(model, tier, own)
        except torch.OutOfMemoryError:
            raise  # it says nothing about the tier
        except Exception as failure:  # any error of foreign code means: not this tier
            failed = _short(failure)
        if not failed:
            return Verdict(tier, ("; ".join(why) or "the probe's logits agree") + note, error, pool.shapes(), own)
        why.append(f"{name}: {failed}")
    raise Refused("no way of running it gives the logits that transformers gives: " + "; ".join(why))


def _candidates(model, first):
    """(tier, attention function) in order of preference."""
    owns = list(dict.fromkeys([default_attention(model), "eager"]))
    for tier in TIERS[TIERS.index(first) :]:
        for own in [None] if tier == "A" else owns:
            yield tier, own


def refuse_what_is_not_causal(config):
    if getattr(config, "is_encoder_decoder", False):
        raise Refused(f"{config.model_type} is an encoder-decoder model; Banyan serves decoders")
    if getattr(config, "is_decoder", None) is not True and config.model_type in _ENCODERS:
        raise Refused(f"{config.model_type} is an encoder: every token sees every other, nothing can be generated; "
                      "for its embeddings serve it with --model-impl native")


_ENCODERS = {"bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "electra", "ernie",
             "big_bird", "megatron-bert", "rembert", "roformer", "roberta-prelayernorm", "bert-generation", "xmod"}


def first_tier(model):
    """(tier to start with, why it is not A) by what the class and config say of themselves."""
    if not getattr(type(model), "_supports_attention_backend", False):
        return "B", "its class does not support attention backends"
    kinds = set(getattr(model.config.get_text_config(decoder=True), "layer_types", None) or [])
    if kinds - KNOWN_LAYERS:
        return "B", f"it has {', '.join(sorted(kinds - KNOWN_LAYERS))} layers"
    return "A", ""


def tolerance(dtype, reference):
    """float32: 1e-3 of the logits' deviation. Shorter floats: what a difference in the order of sums makes of them."""
    spread = float(torch.cat(reference).std())
    return {torch.float32: 1e-3, torch.float16: 0.02}.get(dtype, 0.12) * max(spread, 1e-3)


def _too_far(model, error, right, reference):
    dtype = next(model.parameters()).dtype
    limit = tolerance(dtype, reference)
    if error <= limit or (dtype != torch.float32 and right >= ROWS_RIGHT):
        return ""
    return f"its logits differ by {error:.2g}, {limit:.2g} is allowed"


def _short(failure):
    text = str(failure).strip().split("\n")[0]
    return f"{type(failure).__name__}: {text[:200]}" if not isinstance(failure, attention.Unsupported) else text


def _two_sequences(config):
    n_vocab = config.get_text_config(decoder=True).vocab_size
    random = np.random.default_rng(7)
    first = random.integers(3, n_vocab, N_TOKENS)
    second = np.concatenate([first[:SHARED], random.integers(3, n_vocab, N_TOKENS - SHARED)])
    return [first, second]


@torch.inference_mode()
def reference_of(model, ids):
    """Logits of each sequence by the model as it is, one forward pass each."""
    use_own(model, "eager")
    return [model(input_ids=torch.from_numpy(s)[None].to(device_of(model)), use_cache=False).logits[0].float().cpu() for s in ids]


def device_of(model):
    return next(model.parameters()).device


def steps(with_prefix):
    """[(sequence, from, to), …] a step: a chunk; chunk beside chunk; decodes beside a chunk; decodes; a last chunk."""
    second = SHARED if with_prefix else 0
    return [
        [(0, 0, 21)],
        [(0, 21, 33), (1, second, 29)],
        [(0, 33, 34), (1, 29, 30)],
        [(1, 30, 41), (0, 34, 35)],
        [(0, 35, 36), (1, 41, 42)],
        [(1, 42, N_TOKENS), (0, 36, N_TOKENS)],
    ]


def run(model, tier, own, ids, reference):
    """(largest |difference|, share of rows within the tolerance, the pool that was used). Raises what the model raises."""
    n_pages, device = 4 * N_TOKENS // PAGE, device_of(model)
    pool = Pool(n_pages, PAGE, device, poison=True)
    order = np.random.default_rng(3).permutation(n_pages)
    per_sequence = N_TOKENS // PAGE
    pages = [order[:per_sequence], order[per_sequence : 2 * per_sequence]]
    with_prefix = tier in ("A", "B")
    if with_prefix:
        pages[1] = np.concatenate([pages[0][: SHARED // PAGE], pages[1][SHARED // PAGE :]])
    runner, states, differences = Runner(model, tier, pool, own), [{}, {}], []
    for step in steps(with_prefix):
        batch = Batch([(ids[s][a:b], a, pages[s], states[s]) for s, a, b in step], PAGE, device)
        got = runner.logits(batch, np.arange(batch.n_tokens))
        want = torch.cat([reference[s][a:b] for s, a, b in step])
        differences.append((got - want).abs().max(-1).values)
    worst = torch.cat(differences)
    if worst.isnan().any():
        raise RuntimeError("its logits are NaN: it reads memory that nobody has written")
    if tier == "A" and len(pool.layers) != _n_attention_layers(model):
        raise attention.Unsupported(f"only {len(pool.layers)} of its {n_layers(model.config)} layers call the paged attention")
    limit = tolerance(next(model.parameters()).dtype, reference)
    return float(worst.max()), float((worst <= limit).float().mean()), pool


def shapes_of(model, verdict):
    """What the layers of a model store in the tier of a verdict, whatever the probe's steps computed."""
    ids = _two_sequences(model.config)
    n_vocab = model.config.get_text_config(decoder=True).vocab_size
    nothing = [torch.zeros((len(s), n_vocab)) for s in ids]
    return run(model, verdict.tier, verdict.own, ids, nothing)[2].shapes()


def _n_attention_layers(model):
    indices = {m.layer_idx for m in model.modules() if hasattr(m, "layer_idx") and m.layer_idx is not None}
    return len(indices) or n_layers(model.config)
