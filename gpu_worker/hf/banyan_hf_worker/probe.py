"""Which tier is right for a model? The one whose logits equal the model's own on everything a server does to it.

Two sequences with a common start are run by the model as it is, and again in pieces by the tier: chunks, a shared prefix,
chunks and decodes mixed in one step, on shuffled pages of a pool full of NaN. Prefill alone shows nothing: models that
are silently wrong are right there.

The model's own means its plain attention ("eager"): a faster one of transformers may leave a feature out (sdpa the
softcap of Gemma 2 in transformers 4), and then tiers B to R run eager as well.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from . import attention, recurrent, shadow
from .batch import Batch
from .pool import Pool, bytes_of
from .runner import TIERS, Runner, Way, default_attention, n_layers, use_own

N_TOKENS = 48
PAGE = 4
SHARED = 16  # tokens of the common start: whole pages
KNOWN_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
OWN_SHARE = 0.1  # of the logits' deviation; somebody else's state is off by several of them
ROWS_RIGHT = 0.75  # of short floats: a tie of experts falls the other way now and then, and all later rows with it


@dataclass
class Verdict:
    way: Way
    reason: str
    error: float  # largest |difference of logits| in the probe
    shapes: dict  # of a slot in each layer (pool.py)
    n_beside: int  # bytes a token that the model's own cache has beside the pool
    state_bytes: int | None = None  # of a state that is kept; None: none can be

    @property
    def bytes_per_slot(self):
        return sum(map(bytes_of, self.shapes.values())) + self.n_beside

    def __str__(self):
        return f"tier {self.way.tier}: {'; '.join(filter(None, (self.way.details, self.reason)))}"


class Refused(RuntimeError):
    """No tier is right for this model."""


def choose(model):
    """The first tier that passes; Refused names why each one failed."""
    refuse_what_is_not_causal(model.config)
    tier, reason = first_tier(model)
    why = [(None, reason)] if reason else []
    ids = _two_sequences(model.config)
    reference = reference_of(model, ids)
    for way in _candidates(model, tier):
        try:
            seen = run(model, way, ids, reference)
            failed = _too_far(model, way, seen, reference)
            note = "" if failed else shadow.note(model, way)
        except torch.OutOfMemoryError:
            raise  # it says nothing about the tier
        except Exception as failure:  # any error of foreign code means: not this tier
            failed = _short(failure)
        if not failed:
            reason = (_told(why) or "the probe's logits agree") + note
            return Verdict(way, reason, seen.error, seen.pool.shapes(), seen.n_beside, seen.state_bytes)
        why.append((way, failed))
    raise Refused("no way of running it gives the logits that transformers gives: " + _told(why))


def _told(why):
    """[(Way or None, what failed), …] as a sentence; ways that failed alike are told together."""
    told = {}
    for way, failed in why:
        told.setdefault(failed, []).extend([way] if way else [])
    return "; ".join(f"{_names(ways)}: {failed}" if ways else failed for failed, ways in told.items())


def _names(ways):
    if len(ways) == 1:
        return str(ways[0])
    return ", ".join(f"tier {tier} in {n} ways" if n > 1 else f"tier {tier}" for tier, n in Counter(way.tier for way in ways).items())


def _candidates(model, first):
    """The ways to try, in order of preference."""
    owns = list(dict.fromkeys([default_attention(model), "eager"]))
    for tier in TIERS[TIERS.index(first) :]:
        for own in [None] if tier == "A" else owns:
            if tier == "C":
                yield from (Way(tier, own, whole, apart) for whole in (False, True) for apart in (False, True))
            else:
                yield Way(tier, own, tier == "D", tier == "D")


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


def tolerance(dtype, reference, way=None):
    """float32: 1e-3 of the logits' deviation. Shorter floats: what a difference in the order of sums makes of them. Tier D is
    what generate() does, nothing of ours is in it: a step that clamps otherwise than the pass (Nemotron H) is the model's own."""
    share = {torch.float32: 1e-3, torch.float16: 0.02}.get(dtype, 0.12)
    return max(share, OWN_SHARE if way and way.tier == "D" else 0) * max(float(torch.cat(reference).std()), 1e-3)


def _too_far(model, way, seen, reference):
    dtype = next(model.parameters()).dtype
    limit = tolerance(dtype, reference, way)
    if seen.error <= limit or (dtype != torch.float32 and seen.right >= ROWS_RIGHT):
        return ""
    return f"its logits differ by {seen.error:.2g}, {limit:.2g} is allowed"


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


@dataclass
class Seen:
    """What came of a run."""

    error: float  # largest |difference|
    right: float  # share of rows within the tolerance
    pool: Pool  # what was used
    n_beside: int  # bytes a token that a cache of the model's own grew by
    state_bytes: int | None


def run(model, way, ids, reference):
    """Both sequences in the steps of a server. Raises what the model raises."""
    n_pages, device = 4 * N_TOKENS // PAGE, device_of(model)
    pool = Pool(n_pages, PAGE, device, poison=True)
    order = np.random.default_rng(3).permutation(n_pages)
    per_sequence = N_TOKENS // PAGE
    pages = [order[:per_sequence], order[per_sequence : 2 * per_sequence]]
    if way.reuses_prefixes:
        pages[1] = np.concatenate([pages[0][: SHARED // PAGE], pages[1][SHARED // PAGE :]])
    runner, states, differences, sizes, state_bytes = Runner(model, way, pool), [{}, {}], [], [], None
    for step in steps(way.reuses_prefixes):
        keep_at = {0: [SHARED]} if way.keeps_states and not sizes else {}
        batch = Batch([(ids[s][a:b], a, pages[s], states[s]) for s, a, b in step], PAGE, device, keep_at)
        got = runner.logits(batch, np.arange(batch.n_tokens))
        for state in batch.kept.values():
            state_bytes, states[1]["kept"] = recurrent.bytes_of(state), recurrent.Kept(state)
        want = torch.cat([reference[s][a:b] for s, a, b in step])
        differences.append((got - want).abs().max(-1).values)
        sizes.append(recurrent.bytes_of_caches(states[:1]))
    worst = torch.cat(differences)
    if worst.isnan().any():
        raise RuntimeError("its logits are NaN: it reads memory that nobody has written")
    if way.tier == "A" and len(pool.layers) != _n_attention_layers(model):
        raise attention.Unsupported(f"only {len(pool.layers)} of its {n_layers(model.config)} layers call the paged attention")
    limit = tolerance(next(model.parameters()).dtype, reference, way)
    grown = max(0, sizes[-1] - sizes[0]) // (N_TOKENS - steps(False)[0][0][2])
    if grown:  # it has something of each token in it, of which the pool knows nothing
        state_bytes = None
    return Seen(float(worst.max()), float((worst <= limit).float().mean()), pool, grown, state_bytes)


def measure(model, verdict):
    """(shapes, state_bytes) of a model in the way of a verdict, whatever the probe's steps computed."""
    ids = _two_sequences(model.config)
    n_vocab = model.config.get_text_config(decoder=True).vocab_size
    nothing = [torch.zeros((len(s), n_vocab)) for s in ids]
    seen = run(model, verdict.way, ids, nothing)
    return seen.pool.shapes(), seen.state_bytes


def _n_attention_layers(model):
    n = n_layers(model.config)  # what listens or looks counts its layers too
    return len({m.layer_idx for m in model.modules() if getattr(m, "layer_idx", None) in range(n)}) or n
