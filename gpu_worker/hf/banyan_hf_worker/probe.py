"""Which tier is right for a model? The one whose logits equal the model's own on everything a server does to it.

Two sequences with a common start are run by the model as it is, and again in pieces by the tier: chunks, a shared prefix,
chunks and decodes mixed in one step, on shuffled pages of a pool full of NaN. Prefill alone shows nothing: models that
are silently wrong are right there.

The model's own means its plain attention ("eager"): a faster one of transformers may leave a feature out (sdpa the
softcap of Gemma 2 in transformers 4), and then tiers B to R run eager as well.
"""

import functools
import inspect
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
    running_bytes: int = 0  # that a running request has outside of the pool, whatever its length

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
    try:
        reference = reference_of(model, ids)
    except torch.OutOfMemoryError:
        raise
    except Exception as failure:
        raise Refused(f"{type(model).__name__} itself does not run on a text's ids alone: {_short(failure)}") from failure
    for way in _candidates(model, tier, functools.cache(lambda: first_position(model, ids, reference))):
        try:
            seen = run(model, way, ids, reference)
            failed = too_far(model, way, ids, reference, seen)
            note = "" if failed else shadow.note(model, way)
        except torch.OutOfMemoryError:
            raise  # it says nothing about the tier
        except Exception as failure:  # any error of foreign code means: not this tier
            failed = _short(failure)
        if not failed:
            reason = (_told(why) or "the probe's logits agree") + note
            return Verdict(way, reason, seen.error, seen.pool.shapes(), seen.n_beside, seen.state_bytes, _running_bytes(way, seen))
        why.append((way, failed))
    seen_behind = how_far_it_sees_behind(model, ids, reference)
    if seen_behind:
        raise Refused(f"{type(model).__name__} is no causal language model as its config has it: what comes behind a token changes its "
                      f"logits by {seen_behind:.2g}")
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


def _candidates(model, tier, find_first):
    """The ways to try, in order of preference, from a tier on. find_first(): where positions begin, asked when what begins at 0 fails."""
    owns, first = list(dict.fromkeys([default_attention(model), "eager"])), 0
    while True:
        if tier == "A":
            yield Way("A", first=first)
        for apart in (False, True):
            yield from (Way("B", own, apart=apart, first=first) for own in owns)
        if first or not find_first():
            break
        first = find_first()
    for own in owns:
        yield from (Way("C", own, whole, apart, first) for whole in (False, True) for apart in (False, True))
    yield from (Way("D", own, True, True, first) for own in owns)
    yield from (Way("R", own) for own in owns)


def how_far_it_sees_behind(model, ids, reference):
    """The largest change of a logit when the tokens behind it are left out; 0: none that is more than rounding."""
    half = N_TOKENS // 2
    change = float((reference_of(model, [ids[0][:half]])[0] - reference[0][:half]).abs().max())
    return change if change > tolerance(next(model.parameters()).dtype, reference) else 0


@torch.inference_mode()
def first_position(model, ids, reference):
    """Of a model that numbers positions by itself, and not from 0 (Roberta's begin behind the padding's): from where? 0: it does not."""
    pad = getattr(model.config.get_text_config(decoder=True), "pad_token_id", None)
    if pad is None or "position_ids" not in inspect.signature(model.forward).parameters:
        return 0
    use_own(model, "eager")
    ids, limit = torch.from_numpy(ids[0])[None].to(device_of(model)), tolerance(next(model.parameters()).dtype, reference)
    for first in (0, pad + 1):  # those that are only told apart by distance are right from 0
        positions = torch.arange(first, first + N_TOKENS, device=ids.device)[None]
        got = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0].float().cpu()
        if float((got - reference[0]).abs().max()) <= limit:
            return first
    return 0


def refuse_what_is_not_causal(config):
    kind = config.model_type
    if kind in _NO_TEXT:
        raise Refused(f"{kind} is no causal language model: {_NO_TEXT[kind]}")
    if getattr(config, "is_encoder_decoder", False):
        raise Refused(f"{kind} is an encoder-decoder model; Banyan serves decoders")
    if getattr(config, "is_decoder", None) is not True and kind in _ENCODERS:
        remedy = "; for its embeddings serve it with --model-impl native" if kind == "bert" else ""
        raise Refused(f"{kind} is an encoder: every token sees every other, nothing can be generated{remedy}")


_ENCODERS = {"bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "electra", "ernie", "big_bird",
             "megatron-bert", "rembert", "roformer", "roberta-prelayernorm", "bert-generation", "xmod", "roc_bert", "reformer"}
_DRAFTS = "it drafts for another model, whose states and keys it reads"
_SEES = "without an image it says nothing"
_NO_TEXT = {"gemma4_assistant": _DRAFTS, "gemma4_unified_assistant": _DRAFTS, "pi0": "it says how a robot is to move",
            "diffusion_gemma": "it fills a canvas of tokens in at once, none after the other", "evolla": "it speaks about a protein's structure",
            **dict.fromkeys(("musicgen", "musicgen_melody"), "it makes music"),
            **dict.fromkeys(("blip", "blip-2", "instructblip", "instructblipvideo", "idefics", "kosmos-2"), _SEES),
            "cpmant": "it reads a prompt in both directions, so that what was computed once changes with what comes after it"}


def first_tier(model):
    """(tier to start with, why it is not A) by what the class and config say of themselves."""
    if not getattr(type(model), "_supports_attention_backend", False):
        return "B", "its class does not support attention backends"
    kinds = set(getattr(model.config.get_text_config(decoder=True), "layer_types", None) or [])
    if kinds - KNOWN_LAYERS:
        return "B", f"it has {', '.join(sorted(kinds - KNOWN_LAYERS))} layers"
    return "A", ""


def tolerance(dtype, reference, own=0):
    """float32: 1e-3 of the logits' deviation. Shorter floats: what a difference in the order of sums makes of them. own: a larger share."""
    share = {torch.float32: 1e-3, torch.float16: 0.02}.get(dtype, 0.12)
    return max(share, own) * max(float(torch.cat(reference).std()), 1e-3)


def too_far(model, way, ids, reference, seen):
    """What is wrong with what was seen of a way; "": nothing.

    Tier D is what generate() does, nothing of ours is in it: a decode that clamps otherwise than the pass (Nemotron H, Zamba 2) is the
    model's own, and tier C may be half as far off again."""
    dtype = next(model.parameters()).dtype
    limit, own = tolerance(dtype, reference), tolerance(dtype, reference, OWN_SHARE)
    if way.tier == "D":
        limit = own
    elif way.tier == "C" and limit < seen.error <= own:
        limit = max(limit, min(1.5 * _own_error(model, way, ids, reference), own))
    if seen.error <= limit or (dtype != torch.float32 and seen.right >= ROWS_RIGHT):
        return ""
    return f"its logits differ by {seen.error:.2g}, {limit:.2g} is allowed"


def _own_error(model, way, ids, reference):
    """How far the model's own decodes are from its own pass."""
    try:
        return run(model, Way("D", way.own, True, True, way.first), ids, reference).error
    except Exception:  # it has no cache that it makes by itself
        return 0


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
    own_bytes: int  # that one request had outside of the pool, less what grew


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
    limit = tolerance(next(model.parameters()).dtype, reference, OWN_SHARE if way.tier == "D" else 0)
    n_first = steps(False)[0][0][2]
    grown = max(0, sizes[-1] - sizes[0]) // (N_TOKENS - n_first)
    if grown:  # it has something of each token in it, of which the pool knows nothing
        state_bytes = None
    return Seen(float(worst.max()), float((worst <= limit).float().mean()), pool, grown, state_bytes, max(0, sizes[0] - grown * n_first))


def _running_bytes(way, seen):
    """Twice a request's own where states lie side by side: who decodes in new company is copied beside the others."""
    return seen.own_bytes * (2 if way.tier == "C" and not way.apart else 1)


def measure(model, verdict):
    """The verdict's shapes and bytes are those of a part of the model from now on, whatever the probe's steps compute."""
    ids = _two_sequences(model.config)
    n_vocab = model.config.get_text_config(decoder=True).vocab_size
    nothing = [torch.zeros((len(s), n_vocab)) for s in ids]
    seen = run(model, verdict.way, ids, nothing)
    verdict.shapes, verdict.state_bytes, verdict.running_bytes = seen.pool.shapes(), seen.state_bytes, _running_bytes(verdict.way, seen)


def _n_attention_layers(model):
    n = n_layers(model.config)  # what listens or looks counts its layers too
    return len({m.layer_idx for m in model.modules() if getattr(m, "layer_idx", None) in range(n)}) or n
