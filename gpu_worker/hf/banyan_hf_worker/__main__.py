"""The process: options, load, probe, pool, then steps until SIGTERM. Speaks with the scheduler like any gpu worker."""

import ctypes
import gc
import os
import signal
import socket
import sys
import time

PR_SET_PDEATHSIG = 1
EXIT_PERMANENT = 78  # as banyan's other programs: starting again would not help (EX_CONFIG)
HF_STEP_TOKENS = 512
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


def stop_fd():
    """Readable once SIGTERM or SIGINT came."""
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def on_signal(number, frame):
        os.write(write_end, b"x")

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return read_end


def free_memory():
    """Bytes that this process may still take: the machine's, or the cgroup's if that is less."""
    with open("/proc/meminfo") as lines:
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    try:
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
            free = min(free, int(limit.read()) - int(used.read()))
    except (OSError, ValueError):
        pass
    return max(free, 0)


def count_pages(o, bytes_per_slot, longest):
    """Pages of the pool: as asked, or what the share of free memory holds, at least one longest sequence."""
    if o.max_total_tokens:
        return -(-o.max_total_tokens // o.page_size)
    tokens = int(free_memory() * o.mem_fraction_static) // max(bytes_per_slot, 1)
    return max(1, min(max(tokens, 1), max(longest * 16, 65536)) // o.page_size)


def start(o):
    """(worker, model record, capacity record) from the options."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    import torch
    import transformers

    from . import attention, fast_linear, loader, messages, probe
    from .pool import Pool
    from .runner import Runner
    from .worker import Worker

    if o.tp_size > 1:
        raise loader.LoadError(
            f"--tp-size {o.tp_size}: the Transformers worker does not split a model over ranks; --dp-size starts replicas"
        )
    started = time.monotonic()
    threads = o.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    attention.context.n_threads = threads
    loader.quiet()
    notify("STATUS=loading the model")
    model = loader.load(
        o.model_path, dtype=o.dtype, trust_remote_code=o.trust_remote_code, allow_pickle=o.allow_pickle,
        context_length=o.context_length,
    )
    if o.hf_fast_linear:
        log("info", f"--hf-fast-linear: {fast_linear.use(model, threads)}")
        if not fast_linear.is_whole(model):
            raise loader.LoadError("--hf-fast-linear: this model's code reads the weights of its layers past them; serve it without")
    notify("STATUS=probing the model")
    verdict = probe.choose(model)
    longest = o.context_length or loader.longest(model.config)
    n_pages = count_pages(o, verdict.bytes_per_slot, longest)
    pool = Pool(n_pages, o.page_size)
    text = model.config.get_text_config(decoder=True)
    n_vocab = model.get_output_embeddings().weight.shape[0] if model.get_output_embeddings() is not None else text.vocab_size
    worker = Worker(
        Runner(model, verdict.tier, pool, verdict.own), n_pages=n_pages, page_size=o.page_size, n_slots=o.max_running_requests,
        n_vocab=n_vocab, reuses_prefixes=verdict.tier in ("A", "B"),
    )
    impl = f"transformers {transformers.__version__}, {verdict}"
    log("info", f"{impl} model={type(model).__name__} error={verdict.error:.2g} bytes_per_token={verdict.bytes_per_slot}")
    record = messages.Model(
        path=str(o.model_path), type=model.config.model_type, arch=type(model).__name__, n_vocab=n_vocab,
        context_len=min(longest, n_pages * o.page_size), impl=impl, weights_id=loader.fingerprint(o.model_path),
    )
    capacity = messages.Capacity(
        page_size=o.page_size, n_pages=n_pages, n_slots=o.max_running_requests,
        step_tokens_max=max(o.chunked_prefill_size, HF_STEP_TOKENS) + o.max_running_requests, rank=0, world=1, replica=o.dp_rank,
        load_ms=int((time.monotonic() - started) * 1000),
        weight_bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
        kv_bytes=verdict.bytes_per_slot * n_pages * o.page_size, device=f"cpu transformers {threads} threads",
        no_prefix_reuse=verdict.tier not in ("A", "B"),
    )
    gc.collect()
    gc.freeze()
    return worker, record, capacity


def serve(o, worker, record, capacity, stop):
    from . import messages, wire as wires
    from .worker import BadStep

    wire = wires.Wire(
        wires.endpoint_of(o.run_dir, o.scheduler_endpoint), key_file=o.curve_key_file, role=messages.ROLE_GPU_WORKER, instance=o.instance, expect=messages.ROLE_SCHEDULER,
        hello={"model": record, "capacity": capacity}, wake_fd=stop, alive=watchdog(),
    )
    notify("STATUS=waiting for the scheduler")
    for event, value in wire.events():
        if event == "up":
            worker.reset()
            notify("READY=1\nSTATUS=serving")
        elif event == "down":
            log("warn", f"lost the scheduler: {value}")
            worker.reset()
        elif value.KIND == messages.Step.KIND:
            try:
                wire.send(worker.step(value))
            except BadStep as bad:
                log("error", f"a step contradicts the slots: {bad}")
                wire.end(str(bad))
        elif value.KIND == messages.Update.KIND and value.phase != messages.UPDATE_DROP:
            wire.send(messages.Updated(id=value.id, code=UNSUPPORTED, text="the Transformers worker does not update weights: start it again"))
    wire.close()


def main():
    from .options import parse

    o = parse()
    die_with_parent()
    if not o.model_path or not (o.run_dir or o.scheduler_endpoint):
        sys.exit("gpu-worker: --model-path and --run-dir are needed; `banyan serve` starts this worker for you")
    try:
        from . import loader, probe
    except ImportError as missing:
        log("error", f"{missing}; run deploy/setup.sh --transformers")
        return EXIT_PERMANENT
    try:
        worker, record, capacity = start(o)
    except (loader.LoadError, probe.Refused) as refused:
        log("error", str(refused))
        return EXIT_PERMANENT
    serve(o, worker, record, capacity, stop_fd())  # while it loads, SIGTERM simply ends it
    return 0


if __name__ == "__main__":
    sys.exit(main())
