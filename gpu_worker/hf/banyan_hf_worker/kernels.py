"""libbanyan_kernels by ctypes: paged attention, and the sampler and packed products that the C worker uses (gpu_worker/kernels/kernels.h).

Tensors go in by data_ptr; the caller keeps them alive for the call. ctypes releases the GIL meanwhile.
"""

import ctypes
import os
from ctypes import POINTER, Structure, c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

VERSION = 6
TOP_MAX = 128
F32, BF16 = 0, 1


class Rows(Structure):
    _fields_ = (
        [(name, c_void_p) for name in ("q_start", "kv_len", "table")]
        + [("table_stride", c_int64), ("n_seqs", c_int32), ("page_size", c_int32)]
    )


class Attention(Structure):
    _fields_ = (
        [(name, c_void_p) for name in ("rows", "q", "k", "v", "k_pool", "v_pool", "out", "sinks")]
        + [(name, c_int64) for name in ("q_row_stride", "q_head_stride", "k_row_stride", "k_head_stride", "v_row_stride",
                                        "v_head_stride")]
        + [(name, c_int32) for name in ("n_q_heads", "n_kv_heads", "k_dim", "v_dim", "window", "chunk", "dtype", "pool_dtype")]
        + [("scale", c_float), ("softcap", c_float)]
    )


class Sampling(Structure):
    _fields_ = (
        [(name, c_float) for name in ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty",
                                      "repetition_penalty")]
        + [("top_k", c_int32)]
        + [(name, c_uint32) for name in ("min_new_tokens", "top_logprobs", "sample", "logprobs")]
        + [("seed", c_uint64)]
        + [(name, c_void_p) for name in ("stop_ids", "bias_ids", "logprob_ids", "output_ids", "bias_values")]
        + [(name, c_uint32) for name in ("n_stop_ids", "n_bias", "n_logprob_ids", "n_output_ids")]
    )


class Pick(Structure):
    _fields_ = [("id", c_uint32), ("n_top", c_uint32), ("logprob", c_float), ("top_ids", c_uint32 * TOP_MAX),
                ("top_logprobs", c_float * TOP_MAX)]


class Matrix(Structure):
    _fields_ = (
        [("w", c_void_p), ("out_stride", c_int64), ("in_stride", c_int64)]
        + [("n_out", c_uint32), ("n_in", c_uint32), ("dtype", c_int32)]
    )


class Norm(Structure):
    _fields_ = [("w", c_void_p), ("eps", c_float), ("width", c_uint32), ("dtype", c_int32), ("is_early", c_int32)]


class Rope(Structure):
    _fields_ = (
        [(name, c_void_p) for name in ("cos", "sin", "q", "k", "q_out", "k_out")]
        + [(name, c_int64) for name in ("q_row_stride", "q_head_stride", "k_row_stride", "k_head_stride")]
        + [(name, c_int32) for name in ("n_rows", "n_q_heads", "n_k_heads", "dim", "n_rot", "dtype")]
    )


class Layer(Structure):
    _fields_ = (
        [(name, c_void_p) for name in ("qkv", "o", "up", "down")]
        + [(name, Norm) for name in ("attention_norm", "mlp_norm", "q_norm", "k_norm")]
        + [("attention", Attention), ("cos", c_void_p), ("sin", c_void_p), ("n_rot", c_int32)]
    )


NO_ACT = 0
ACTS = range(1, 7)  # enum banyan_act: silu, gelu, gelu_tanh, relu, relu2, quick_gelu


def why():
    """Room for the reason of a failure."""
    return ctypes.create_string_buffer(512)


def _find():
    """Beside the programs: build/lib, or what BANYAN_KERNELS names."""
    named = os.environ.get("BANYAN_KERNELS")
    if named:
        return named
    for parent in Path(__file__).resolve().parents:
        for folder in ("build/lib", "lib"):
            path = parent / folder / "libbanyan_kernels.so"
            if path.exists():
                return str(path)
    raise OSError("libbanyan_kernels.so is not there; build Banyan (deploy/build.sh) or name it by BANYAN_KERNELS")


def load():
    lib = ctypes.CDLL(_find())
    lib.banyan_kernels_version.restype = c_uint32
    if lib.banyan_kernels_version() != VERSION:
        raise OSError(f"{_find()} is of another version of Banyan than this worker; build it again")
    lib.banyan_attention_run.argtypes = [POINTER(Attention), ctypes.c_int]
    lib.banyan_sampler_new.argtypes = [c_uint32]
    lib.banyan_sampler_new.restype = c_void_p
    lib.banyan_sampler_free.argtypes = [c_void_p]
    lib.banyan_sampler_pick.argtypes = [c_void_p, POINTER(Sampling), c_void_p, POINTER(Pick), c_void_p]
    lib.banyan_sampler_score.argtypes = [c_void_p, POINTER(Sampling), c_void_p, c_uint32, POINTER(Pick), c_void_p]
    lib.banyan_team_new.argtypes, lib.banyan_team_new.restype = [c_uint32], c_void_p
    lib.banyan_sampler_pick_all.argtypes, lib.banyan_sampler_pick_all.restype = [c_void_p] * 6 + [c_uint32], None
    lib.banyan_linear_new.argtypes = [c_void_p, POINTER(Matrix), c_uint32, c_void_p, c_int32]
    lib.banyan_linear_new.restype = c_void_p
    lib.banyan_linear_free.argtypes, lib.banyan_linear_free.restype = [c_void_p], None
    lib.banyan_linear_run.argtypes = [c_void_p, c_void_p, c_void_p, c_uint32]
    lib.banyan_mlp_run.argtypes = [c_void_p, c_void_p, c_void_p, c_void_p, c_uint32]
    lib.banyan_norm_run.argtypes, lib.banyan_norm_run.restype = [POINTER(Norm), c_void_p, c_void_p, c_uint32], None
    lib.banyan_rope_run.argtypes, lib.banyan_rope_run.restype = [POINTER(Rope)], None
    lib.banyan_layer_run.argtypes = [POINTER(Layer), c_void_p, c_void_p, c_uint32]
    lib.banyan_group_open.argtypes, lib.banyan_group_open.restype = [c_uint32, c_uint32, c_char_p], c_void_p
    lib.banyan_group_join.argtypes, lib.banyan_group_join.restype = [c_char_p, c_uint32, c_uint32, c_uint32, c_char_p], c_void_p
    lib.banyan_group_address.argtypes, lib.banyan_group_address.restype = [c_void_p], c_char_p
    lib.banyan_group_close.argtypes = [c_void_p]
    lib.banyan_group_sum.argtypes = [c_void_p, c_void_p, c_size_t]
    lib.banyan_free_memory.restype = ctypes.c_uint64
    lib.banyan_group_gather.argtypes = [c_void_p, c_void_p, c_size_t, c_void_p]
    return lib
