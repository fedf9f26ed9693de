"""The process: options, load, probe, pool, then steps until SIGTERM. Speaks with the scheduler like any gpu worker."""

import ctypes
import gc
import os
import select
import signal
import socket
import sys
import time
from types import SimpleNamespace

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
EXIT_PERMANENT = 78  # as banyan's other programs: starting again would not help (EX_CONFIG)
HF_STEP_TOKENS = 512
STOP_S = 0.02  # when all stop, the scheduler may be gone so much before our own signal comes
UNSUPPORTED = -6  # BY_EUNSUPPORTED
SPIN_COUNT = "10000"  # libgomp's default of 300,000 burns a busy machine's time: a step was 60 times slower there


def log(level, text):
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{int(time.time() * 1000) % 1000:03d}Z"
    print(f"{stamp} {level:<5} gpu-worker: {text}", file=sys.stderr, flush=True)


def notify(state):
    """The sd_notify protocol, to systemd or banyan serve."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        try:
            s.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)
        except OSError as failure:
            log("warn", f"cannot tell the supervisor: {failure}")


def last_words(text):
    """Why this process ends, as by_proc_last_words says it: banyan serve repeats it at its own end."""
    log("error", text)
    notify(f"STOPPING=1\nSTATUS={' '.join(text.split())[:1000]}")


def watchdog():
    """(seconds, call) when systemd wants to hear of us: a third of its WatchdogSec, from the thread that does the work."""
    every, whose = os.environ.get("WATCHDOG_USEC"), os.environ.get("WATCHDOG_PID")
    if not every or whose and int(whose) != os.getpid():
        return None
    return int(every) / 3e6, lambda: notify("WATCHDOG=1")


def die_with_parent():
    """banyan serve says BANYAN_PARENT; its death is ours, even by kill -9."""
    parent = os.environ.get("BANYAN_PARENT")
    if not parent:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(0)


def give_up_rights():
    """Whatever happens to us, no set-uid program will help it."""
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def shut_in(o, device):
    """The filter of the other processes (common/base/sandbox.h), once the libraries are here and before the model's files are looked at.

    A model's own code may lie in another repository, which transformers then fetches; a GPU's driver has sockets of its own."""
    if o.sandbox == "off":
        return
    from . import kernels

    error = kernels.load().banyan_shut_in(bool(o.scheduler_endpoint or o.trust_remote_code or device.type != "cpu"))
    if error and o.sandbox == "strict":
        log("error", f"--sandbox strict: the kernel takes no seccomp filter: {os.strerror(error)}")
        sys.exit(1)
    if error:
        log("warn", f"the kernel takes no seccomp filter ({os.strerror(error)}): serving goes on without one")


def stop_fd():
    """Readable once SIGTERM or SIGINT came."""
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def on_signal(number, frame):
        os.write(write_end, b"x")

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return read_end


def vocabulary(model):
    head = model.get_output_embeddings()
    return head.weight.shape[0] if head is not None else model.config.get_text_config(decoder=True).vocab_size


def prepare(o, model, ranks, threads):
    """(verdict, check of the ranks or None): the model as it will be served, shared out and packed, in its tier."""
    from . import fast_linear, loader, parallel, probe

    whole = probe.choose(model) if ranks else None  # while it is whole: alone, a rank's logits are partial sums
    check = parallel.Check(model) if ranks else None
    if ranks:
        try:
            log("info", f"rank {ranks.rank} of {ranks.world}: {parallel.split(model, ranks)} modules are shared out")
        except parallel.CannotSplit as reason:
            raise loader.LoadError(f"--tp-size {ranks.world}: {reason}") from None
    if o.hf_fast_linear:
        log("info", f"--hf-fast-linear: {fast_linear.use(model, threads)}")
        if not fast_linear.is_whole(model):
            raise loader.LoadError("--hf-fast-linear: this model's code reads the weights of its layers past them; serve it without")
    if not ranks:
        return probe.choose(model), None
    try:
        probe.measure(model, whole)
    except Exception as failure:  # code that counts its heads by the config
        raise loader.LoadError(
            f"--tp-size {ranks.world}: {type(model).__name__} does not run on a part of its heads ({probe._short(failure)})") from None
    return whole, check


def pooling_of(o, model, verdict, ranks=None):
    """How embeddings are made, or None, which the log explains."""
    from . import embedding, probe
    from .batch import Batch
    from .pool import Pool
    from .runner import Runner

    try:
        if ranks:  # they meet later; alone, one's states are partial sums
            raise embedding.NoEmbeddings("--tp-size is more than 1")
        device = probe.device_of(model)
        found = embedding.plan(o.model_path, o.pooling, Runner(model, verdict.way, Pool(2, 4, device)),
                               Batch([([3, 4, 5], 0, [1], {})], 4, device))
        log("info", f"embeddings of {found.width} numbers, pooling by {found.kind}")
        return found
    except embedding.NoEmbeddings as why:
        log("warn", f"no embeddings are made: {why}")
        return None


def load(o, device, threads):
    """All that takes the device's memory: the model as it will be served, and its pool."""
    import torch

    from . import device as devices
    from . import loader, parallel
    from .pool import Pool
    from .runner import Runner

    what = str(o.model_path)
    try:
        model = loader.load(
            o.model_path, dtype=o.dtype, trust_remote_code=o.trust_remote_code, allow_pickle=o.allow_pickle,
            context_length=o.context_length, device=device,
        )
        notify("STATUS=probing the model")
        ranks = parallel.Ranks(o.tp_rank, o.tp_size) if o.tp_size > 1 else None
        n_vocab = vocabulary(model)  # while it is whole
        verdict, check = prepare(o, model, ranks, threads)
        longest = o.context_length or loader.longest(model.config)
        n_pages, n_states, n_slots = devices.share_out(o, device, verdict, longest)
        if n_slots < o.max_running_requests:
            log("warn", f"there is room for the states of {n_slots} requests ({verdict.running_bytes / 1e6:.1f} MB each): no more run at a "
                        f"time, --max-running-requests is {o.max_running_requests}")
        what = f"a KV cache of {n_pages * o.page_size} tokens"
        pool = Pool(n_pages, o.page_size, device)
        pool.reserve(verdict.shapes)
        runner = Runner(model, verdict.way, pool)
        if device.type != "cpu":
            what = "a step"
            try_step(runner, min(max(o.chunked_prefill_size, HF_STEP_TOKENS), longest, n_pages * o.page_size))
    except torch.OutOfMemoryError as failure:
        raise devices.no_memory(device, what, failure) from None
    return SimpleNamespace(runner=runner, n_vocab=n_vocab, n_states=n_states, n_slots=n_slots, ranks=ranks, verdict=verdict, check=check, longest=longest)


def try_step(runner, n):
    """A prompt of n tokens: what a step lacks shows at the start, and a library that loads its kernels late has loaded them."""
    import numpy as np

    from .batch import Batch

    pool = runner.pool
    runner.logits(Batch([(np.full(n, 3), 0, range(pool.n_pages), {})], pool.page_size, pool.device), [n - 1])


def start(o):
    """(worker, model record, capacity record) from the options."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    import torch
    import transformers

    from . import attention, folder, kernels, loader, messages
    from . import device as devices
    from .worker import Worker

    started = time.monotonic()
    threads = o.threads or kernels.load().banyan_n_cores()
    torch.set_num_threads(threads)
    attention.context.n_threads = threads
    loader.quiet()
    device = devices.pick(o)
    shut_in(o, device)
    notify("STATUS=loading the model")
    found = load(o, device, threads)
    model, verdict, pool = found.runner.model, found.verdict, found.runner.pool
    pooling = pooling_of(o, model, verdict, found.ranks)
    worker = Worker(
        found.runner, n_pages=pool.n_pages, page_size=o.page_size, n_slots=found.n_slots, n_vocab=found.n_vocab,
        n_states=found.n_states, ranks=found.ranks, check=found.check, pooling=pooling,
    )
    impl = f"transformers {transformers.__version__}, {verdict}"
    attention_by = "its own" if verdict.way.tier != "A" else "C" if attention.is_ours(device, model.dtype) else "torch"
    log("info", f"{impl} model={type(model).__name__} error={verdict.error:.2g} bytes_per_token={verdict.bytes_per_slot} "
                f"states={found.n_states} bytes_per_state={verdict.state_bytes or 0} device={device} attention={attention_by}")
    record = messages.Model(
        path=str(o.model_path), type=model.config.model_type, arch=type(model).__name__, n_vocab=found.n_vocab,
        context_len=min(found.longest, pool.n_pages * o.page_size), impl=impl, weights_id=loader.fingerprint(o.model_path),
        n_embed=pooling.width if pooling else 0, pools_all=bool(pooling and pooling.is_of_all),
        sampling_defaults=messages.SamplingDefaults(**folder.sampling_defaults(o.model_path)),
    )
    capacity = messages.Capacity(
        page_size=o.page_size, n_pages=pool.n_pages, n_slots=found.n_slots,
        step_tokens_max=max(o.chunked_prefill_size, HF_STEP_TOKENS) + found.n_slots, rank=o.tp_rank, world=o.tp_size, replica=o.dp_rank,
        load_ms=int((time.monotonic() - started) * 1000),
        weight_bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
        kv_bytes=verdict.bytes_per_slot * pool.n_pages * o.page_size + (verdict.state_bytes or 0) * found.n_states,
        device=devices.name(device, threads), no_prefix_reuse=not worker.reuses_prefixes, n_states=found.n_states,
    )
    gc.collect()
    gc.freeze()
    return worker, record, capacity


class Session:
    """What the worker does at each event of the wire."""

    def __init__(self, o, worker, hello, stop):
        self.o, self.worker, self.hello, self.ranks, self.stop = o, worker, hello, worker.ranks, stop
        self.open_group()

    def open_group(self):
        """Rank 0 of several makes a new group for each session, and says in hello where it is."""
        if self.ranks and self.ranks.rank == 0:
            self.hello["endpoint"] = self.ranks.open()

    def on_up(self):
        self.worker.reset()
        notify("READY=1\nSTATUS=serving")

    def on_down(self, why):
        is_our_end = bool(select.select([self.stop], [], [], STOP_S)[0])
        log("info" if is_our_end else "warn", f"lost the scheduler: {why}")
        self.worker.reset()
        if self.ranks:
            self.ranks.close()
            self.open_group()

    def on_message(self, wire, message):
        from . import messages, parallel
        from .worker import BadStep

        try:
            if message.KIND == messages.Group.KIND and self.ranks and self.ranks.rank:
                self.ranks.join(message.address)
            elif message.KIND == messages.Step.KIND:
                done = self.worker.step(message)
                if self.o.tp_rank == 0 or done.crc:
                    wire.send(done)  # other ranks only tell that their slots are the same
            elif message.KIND == messages.Update.KIND and message.phase != messages.UPDATE_DROP:
                wire.send(messages.Updated(
                    id=message.id, code=UNSUPPORTED, text="the Transformers worker does not update weights: start it again"))
        except parallel.Wrong:
            raise
        except (BadStep, parallel.GroupLost) as bad:
            log("error" if isinstance(bad, BadStep) else "warn", f"the session ends: {bad}")
            wire.end(str(bad))
        except Exception as failure:
            if not self.ranks:
                raise
            log("error", f"step failed, and its group with it: {type(failure).__name__}: {failure}")
            wire.end(f"the model failed: {failure}"[:400])


def serve(o, worker, record, capacity, stop):
    from . import messages, wire as wires

    hello = {"model": record, "capacity": capacity}
    session = Session(o, worker, hello, stop)
    wire = wires.Wire(
        wires.endpoint_of(o.run_dir, o.scheduler_endpoint), key_file=o.curve_key_file, role=messages.ROLE_GPU_WORKER,
        instance=o.instance, expect=messages.ROLE_SCHEDULER, hello=hello, wake_fd=stop, alive=watchdog(),
    )
    notify("STATUS=waiting for the scheduler")
    for event, value in wire.events():
        if event == "up":
            session.on_up()
        elif event == "down":
            session.on_down(value)
        else:
            session.on_message(wire, value)
    wire.close()


def main():
    from .options import parse

    o = parse()
    die_with_parent()
    give_up_rights()
    if not o.model_path or not (o.run_dir or o.scheduler_endpoint):
        sys.exit("gpu-worker: --model-path and --run-dir are needed; `banyan serve` starts this worker for you")
    from . import folder

    try:
        folder.check(o.model_path, trust_remote_code=o.trust_remote_code, allow_pickle=o.allow_pickle)
        from . import loader, probe
    except folder.LoadError as refused:
        last_words(str(refused))
        return EXIT_PERMANENT
    except ImportError as missing:
        last_words(f"{missing}; run deploy/setup.sh --transformers")
        return EXIT_PERMANENT
    try:
        worker, record, capacity = start(o)
    except (loader.LoadError, probe.Refused) as refused:
        last_words(str(refused))
        return EXIT_PERMANENT
    from .parallel import Wrong

    try:
        serve(o, worker, record, capacity, stop_fd())  # while it loads, SIGTERM simply ends it
    except Wrong as wrong:
        last_words(f"--tp-size {o.tp_size}: {wrong}")
        return EXIT_PERMANENT
    return 0


if __name__ == "__main__":
    sys.exit(main())
