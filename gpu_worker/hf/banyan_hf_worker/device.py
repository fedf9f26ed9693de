"""--device: the CPU, or a GPU by torch's CUDA; which one, what it has free, and how many pages that makes.

    cpu      libbanyan_kernels (attention.py, fast_linear.py), ranks in shared memory
    cuda:N   torch's own operations (attention_torch.py), one rank; worker i of the host takes device N + i
"""

import re

import torch

from . import kernels
from .folder import LoadError

_ON_CPUS_ONLY = (  # option, why not on a GPU, what to do
    ("deterministic", "a product of cuBLAS depends on the batch, so the Transformers worker cannot promise the same bits on a GPU",
     "leave it out, or take a model of the native engine's families"),
    ("hf_fast_linear", "the packed products are for CPUs", "leave it out: on a GPU torch's own are used"),
)


def pick(o):
    """The torch.device that the options name; LoadError says why there is none."""
    if o.device == "cpu":
        return torch.device("cpu")
    named = re.fullmatch(r"cuda(?::(\d{1,3}))?", o.device)
    if not named:
        raise LoadError(f"--device {o.device}: there are cpu, cuda and cuda:N")
    for option, why, remedy in _ON_CPUS_ONLY:
        if getattr(o, option):
            raise LoadError(f"--{option.replace('_', '-')} --device {o.device}: {why}; {remedy}")
    if o.tp_size > 1:
        raise LoadError(f"--tp-size {o.tp_size} --device {o.device}: the Transformers worker shares a model out on CPUs only; "
                        "--dp-size starts replicas, one a GPU, and the native engine's families have ranks on GPUs")
    if not torch.cuda.is_available():
        raise LoadError(f"--device {o.device}: {_why_no_cuda()}")
    first = int(named[1] or 0)
    index = first + (o.local_rank if o.local_rank >= 0 else o.dp_rank * o.tp_size + o.tp_rank)
    if index >= torch.cuda.device_count():
        raise LoadError(f"--device {o.device}: this worker takes cuda:{index}, and torch finds {torch.cuda.device_count()} GPUs "
                        "(--local-rank numbers the workers of this host)")
    torch.cuda.set_device(index)
    torch.cuda.mem_get_info(index)  # opens the device: its driver may start programs until then, which the sandbox forbids
    return torch.device("cuda", index)


def _why_no_cuda():
    if torch.version.cuda is None:
        return (f"torch {torch.__version__} is built for CPUs alone; deploy/setup.sh --transformers --cuda brings the build with CUDA, "
                "or name a Python that has it by BANYAN_PYTHON")
    return f"torch {torch.__version__} finds no GPU; `nvidia-smi` says whether the driver does, and a container needs --gpus"


def free_bytes(device):
    """What may still be taken: of a GPU the device's, of a CPU the machine's, or the cgroup's if that is less."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return kernels.load().banyan_free_memory()


CONTEXT_MIN = 64  # tokens of the one sequence that must fit
PAGES_MAX = (1 << 32) - 1
STATE_EVERY, STATES_MAX = 256, 65536  # tokens of the pool for each state; the scheduler's REPLICA_STATES_MAX


def share_out(o, device, needs, longest):
    """(pages of the pool, states beside the slots, slots) in the share of free memory, or so many pages as asked. LoadError when no
    sequence fits. needs: a probe.Verdict, of which the numbers of bytes are read.

    What requests have outside of the pool while they run is theirs before all else, up to half of the memory; where that is too little
    for all slots there are fewer. state_bytes is of one that is kept; None: the model keeps none. A prefix that is to be reused needs pages and a state or two, whatever its
    length, and a state weighs as much as the pages of twenty tokens (LFM2) or of two thousand (Qwen3.5). So there is one for each
    STATE_EVERY tokens of the pool, and where that is too much, states have half of the memory: a pool that nobody can start from
    is worth as little as states without pages."""
    free, is_gpu = free_bytes(device), device.type == "cuda"
    budget = int(free * (o.mem_fraction_static or (0.9 if is_gpu else 0.5)))
    n_slots, each, n_states = count_slots(o, needs.running_bytes, budget), needs.state_bytes or 0, 0
    budget -= n_slots * needs.running_bytes
    if needs.state_bytes is not None:
        n_states = min(budget // max(each + STATE_EVERY * needs.bytes_per_slot, 1), budget // 2 // max(each, 1))
    n_pages = count_pages(o, device, needs.bytes_per_slot, longest, free, budget - n_states * each)
    return n_pages, min(n_states, n_pages * o.page_size // STATE_EVERY, STATES_MAX), n_slots


def count_slots(o, running_bytes, budget):
    """Requests that may run at a time."""
    n = min(o.max_running_requests, budget // 2 // max(running_bytes, 1)) if running_bytes else o.max_running_requests
    if n == 0:
        raise LoadError(f"the states of one request take {running_bytes / 1e6:.1f} MB, and half of the {budget / 1e6:.1f} MB that may be used "
                        "beside the weights is less: free memory or raise --mem-fraction-static")
    return n


def count_pages(o, device, bytes_per_slot, longest, free, budget):
    """Pages of the pool: as asked, or what the budget of the free bytes holds."""
    is_gpu = device.type == "cuda"
    n = budget // max(bytes_per_slot, 1) // o.page_size
    if not is_gpu or not bytes_per_slot:  # a GPU's memory serves nothing else
        n = min(n, max(longest * 16, 65536) // o.page_size)
    if o.max_total_tokens:
        n = -(-o.max_total_tokens // o.page_size)
    n = min(n, PAGES_MAX // o.page_size)
    need = min(longest, o.context_length or CONTEXT_MIN)
    if n * o.page_size < need:
        remedy = "raise --max-total-tokens" if o.max_total_tokens else "free memory, raise --mem-fraction-static"
        raise LoadError(f"the KV cache would hold {n * o.page_size} tokens of {bytes_per_slot} bytes in the {free / 1e6:.1f} MB that are free "
                        f"beside the weights, and one sequence of {need} does not fit: {remedy}, or give --context-length {n * o.page_size} at most")
    return n


def name(device, threads):
    """As /server_info shows it."""
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}, transformers"
    return f"cpu transformers {threads} threads"


def no_memory(device, what, failure):
    """The sentence for an allocation that failed as the worker started."""
    first = str(failure).strip().splitlines()[0][:200]
    return LoadError(f"{what} does not fit on {device}, which has {free_bytes(device) / 1e9:.2f} GB free ({first}); take a smaller model, "
                     "a shorter --dtype, less by --mem-fraction-static or --max-total-tokens, or stop what else uses the memory")
