"""What systemd hears of each process: READY, STATUS, and a sign of life from the loop itself as long as it comes round."""

import signal
import sys
import time

import pytest

from harness import PROGRAMS, ROOT, Daemons, can_gain_no_rights, is_shut_in, wait_for

WATCHDOG_US = 300_000


def beats(notify):
    """How many WATCHDOG=1 wait on the socket."""
    n = 0
    while True:
        try:
            n += notify.socket.recv(4096).decode().splitlines().count("WATCHDOG=1")
        except BlockingIOError:
            return n


@pytest.fixture(scope="module")
def watched():
    with Daemons(env={"WATCHDOG_USEC": str(WATCHDOG_US)}) as d:
        yield d


def test_each_process_says_that_it_is_ready_and_what_it_does(watched):
    for name in PROGRAMS:
        assert watched.notify[name].read().get("READY") == "1", name
    assert watched.notify["scheduler"].state["STATUS"] == "serving"
    assert watched.notify["router"].state["STATUS"].startswith("listening on http://")


@pytest.mark.parametrize("name", [n for n in PROGRAMS if n != "gpu-worker"])
def test_signs_of_life_stop_with_the_loop(watched, name):
    notify = watched.notify[name]
    beats(notify)
    for _ in range(2):
        wait_for(f"a sign of life of {name}", lambda: beats(notify))
    watched.processes[name].send_signal(signal.SIGSTOP)
    try:
        time.sleep(0.05)
        beats(notify)
        time.sleep(3 * WATCHDOG_US / 1e6)
        assert beats(notify) == 0, "a stopped process said that it was alive"
    finally:
        watched.processes[name].send_signal(signal.SIGCONT)
    wait_for(f"{name} to go on", lambda: beats(notify))


def test_a_watchdog_of_another_process_is_none_of_ours():
    """banyan serve runs under systemd's watchdog, and its children inherit the environment."""
    with Daemons(env={"WATCHDOG_USEC": "30000", "WATCHDOG_PID": "1"}) as d:
        d.ok("/generate", {"text": "a", "sampling_params": {"max_new_tokens": 2}})
        time.sleep(0.2)
        assert all("WATCHDOG" not in n.read() for n in d.notify.values())


def test_the_wire_in_python_gives_signs_of_life_while_it_waits(tmp_path):
    """What the Transformers worker hands to it; nobody is at the other end."""
    sys.path.insert(0, str(ROOT / "gpu_worker/hf"))
    from banyan_hf_worker import messages, wire as wires

    seen = []
    wire = wires.Wire(f"ipc://{tmp_path}/none", role=messages.ROLE_GPU_WORKER, instance="0", expect=messages.ROLE_SCHEDULER,
                      alive=(0.02, lambda: seen.append(1)))
    assert list(wire.events(timeout=0.5)) == []
    wire.close()
    assert len(seen) > 2


def test_the_wire_in_python_refuses_keys_that_all_can_read(tmp_path):
    sys.path.insert(0, str(ROOT / "gpu_worker/hf"))
    from banyan_hf_worker import messages, wire as wires

    (tmp_path / "keys").write_text("public x\nsecret y\n")
    (tmp_path / "keys").chmod(0o604)
    with pytest.raises(wires.Refused, match="chmod 600"):
        wires.Wire("tcp://127.0.0.1:1", role=messages.ROLE_GPU_WORKER, instance="0", expect=messages.ROLE_SCHEDULER,
                   key_file=str(tmp_path / "keys"))


def test_each_process_is_shut_in(watched):
    """The stand-in apart; test_shut_in.py has the engine."""
    for name in set(PROGRAMS) - {"gpu-worker"}:
        assert is_shut_in(watched.pid(name), (watched.dir / f"{name}.log").read_text()), name


def test_no_process_can_gain_rights(watched):
    for name in PROGRAMS:
        assert can_gain_no_rights(watched.pid(name)), name
