"""Engine: a model in this program's own server, without an open port.

    Engine(model) ──starts──▶ banyan serve --uds run/router.sock ──▶ scheduler, workers, router …
         └──────── HTTP on the Unix socket, as any client of the router: its journal and its recovery hold here too

The server dies with this program, however it dies. Its folder is private, and removed at the end (after kill -9: by the
next server that starts).
"""

import atexit
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import weakref
from pathlib import Path

from .client import Client, _Loop
from .wire import Address, BanyanError

READY_S = 3600  # loading may take long; a server that cannot start ends by itself
STOP_S = 20
LOG_BYTES, LAST_LINES = 65536, 5  # of the server's log, in errors
_alive = weakref.WeakSet()


def _is_program(place):
    return place.is_file() and os.access(place, os.X_OK)


def find_banyan():
    """The program `banyan`: BANYAN_BIN or `banyan` in that folder, and no other; this checkout's build, the prefix that this lies below, the
    checkout that was installed from, or on PATH."""
    named, above = os.environ.get("BANYAN_BIN"), Path(__file__).resolve().parents
    if named:
        place = Path(named, "banyan") if os.path.isdir(named) else Path(named)
        if not _is_program(place):
            raise BanyanError(f"BANYAN_BIN names {named}, and {'it is' if place == Path(named) else f'{place} is'} no program that may be run")
        return str(place)
    places = [parent / "build/bin/banyan" for parent in above]
    if len(above) > 4 and above[1].match("share/banyan/python"):
        places.append(above[4] / "bin/banyan")
    try:
        from . import _checkout

        places.append(Path(_checkout.ROOT) / "build/bin/banyan")
    except ImportError:
        pass
    on_path = shutil.which("banyan")
    for place in places + ([Path(on_path)] if on_path else []):
        if _is_program(place):
            return str(place)
    raise BanyanError("the program banyan is not there, and does not come by pip: install its .deb or run deploy/build.sh, or name it by BANYAN_BIN")


def flags_of(options):
    """Keyword arguments as flags: model_path="x" is --model-path x, True a bare flag, None and False nothing."""
    flags = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        flags.append("--" + name.replace("_", "-"))
        if value is not True:
            flags.append(str(value))
    return flags


class _Own(Address):
    """The socket of an engine's server. When that has ended, errors say so and quote it."""

    def __init__(self, path, why_ended):
        super().__init__(path=path)
        self.why_ended = why_ended

    def lost(self, what):
        why = self.why_ended()
        return BanyanError(why) if why else super().lost(what)


class _ShutDown(Address):
    """Where an engine was."""

    async def open(self):
        raise BanyanError("this engine was shut down")


class Engine(Client):
    """Engine(model_path, **options): every option of `banyan serve`, by its name with underscores.

    model_path: a folder, a GGUF file or a Hub id; without it SmolLM2-135M-Instruct.
    impl (model_impl): auto, native or transformers. log_level: what the server says on stderr; without it, it says
    nothing, and a failure quotes it. Use it in a `with`, or call shutdown().
    """

    def __init__(self, model_path=None, *, log_level=None, **options):
        for name in ("host", "port", "uds", "run_dir"):
            if name in options:
                raise TypeError(f"{name}: an Engine opens no port; `banyan serve` does")
        base = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"
        if not os.access(base, os.W_OK) or len(base) > 30:  # a socket's path ends at 107 bytes
            base = "/tmp"
        self._process, self._pid, self._log = None, os.getpid(), None
        self.run_dir = tempfile.mkdtemp(prefix=f"banyan-{os.getuid()}-{os.getpid()}-", dir=base)
        super().__init__(f"unix:{self.run_dir}/router.sock")
        this = weakref.ref(self)
        self.address = _Own(self.address.path, lambda: this() and this()._why_ended())
        _alive.add(self)
        try:
            argv = [find_banyan(), "serve", "--uds", self.address.path, "--run-dir", self.run_dir,
                    *flags_of({"model_path": model_path, "log_level": log_level, **options})]
            self._start(argv, log_level is not None)
        except BaseException:
            self.shutdown()
            raise

    def _start(self, argv, is_loud):
        self._is_loud = is_loud
        self._log = log = open(f"{self.run_dir}/log", "w+b", buffering=0)  # read later by itself: who ends last removes the folder
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(f"{self.run_dir}/notify")
            environment = {**os.environ, "NOTIFY_SOCKET": f"{self.run_dir}/notify", "BANYAN_PARENT": str(os.getpid())}
            # Linux ties a child's life to the thread that started it: this one lives as long as the program. A session of
            # its own: Ctrl-C is for us, and we decide.
            self._process = _Loop.get().call(lambda: subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=None if is_loud else log, env=environment,
                start_new_session=True))
            end = time.monotonic() + READY_S
            while time.monotonic() < end:
                if select.select([notify], [], [], 0.1)[0] and b"READY=1" in notify.recv(65536):
                    return
                if self._process.poll() is not None:
                    raise BanyanError(f"the server could not start: {self._last_words()}")
        raise BanyanError(f"the server was not ready after {READY_S} s")

    def _lines(self):
        """The end of what the server has said."""
        end = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), LOG_BYTES, max(0, end - LOG_BYTES)).decode(errors="replace").splitlines()

    def _why_ended(self):
        """How the server ended, and its last lines; None while it runs, and in a forked child, which cannot know."""
        code = self._process.poll() if self._process is not None and self._pid == os.getpid() else None
        if code is None:
            return None
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        return "\n".join([f"the engine's server has ended {how}; make a new Engine", *self._lines()[-LAST_LINES:]])

    def _last_words(self):
        """The sentences of the lines that say error; the program's whole last line when there is none."""
        lines = self._lines()
        errors = [re.sub(r"^\S+ error +", "", line) for line in lines if re.match(r"\S+ error ", line)]
        causes = [line for line in errors if "(its own line above says why)" not in line and not line.startswith("serve: stopped: ")] or errors
        return "; ".join(causes) or (lines[-1] if lines else "what it said is on stderr" if self._is_loud else "it said nothing")

    def shutdown(self):
        """Stops the server and removes its folder. Again: nothing. In a forked child: nothing, it is the parent's."""
        if self._pid != os.getpid():
            return
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            if not _ended(process, 1.0):
                process.send_signal(signal.SIGTERM)  # once more: what runs is not waited for
            if not _ended(process, STOP_S):
                process.kill()
                process.wait()
        shutil.rmtree(self.run_dir, ignore_errors=True)
        if self._log is not None:
            self._log.close()
        self.address = _ShutDown()
        _alive.discard(self)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.shutdown()

    def __del__(self):
        if getattr(self, "_process", None) is not None and not threading.current_thread().daemon:
            self.shutdown()


def _ended(process, seconds):
    try:
        process.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        return False


@atexit.register
def _shut_all():
    for engine in list(_alive):
        engine.shutdown()
