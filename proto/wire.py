"""Sessions in Python: what wire.h is to C, for one connector to one binder.

    wire = Wire(endpoint, role=ROLE_GPU_WORKER, instance="0", expect=ROLE_SCHEDULER, hello={"model": …, "capacity": …})
    for event, value in wire.events():          ("up", Welcome) ("msg", message) ("down", why)
        wire.send(message)

Blocks in poll when there is nothing to do. A busy caller is not taken for a dead one: libzmq's I/O thread answers
heartbeats. What the session carried is void after "down"; a new "up" follows by itself.
"""

import os
import secrets
import time
from collections import deque

import zmq
from zmq.utils.monitor import recv_monitor_message

try:
    from . import messages as m
except ImportError:  # loaded by path, beside messages.py
    import banyan_messages as m

SILENCE_MS = 5000
HELLO_AGAIN_S = 1.0
ROLE_TEXT = {m.ROLE_ROUTER: "router", m.ROLE_TOKENIZER_WORKER: "tokenizer-worker", m.ROLE_SCHEDULER: "scheduler",
             m.ROLE_GPU_WORKER: "gpu-worker", m.ROLE_DETOKENIZER: "detokenizer", m.ROLE_TOOL: "tool"}


class Refused(RuntimeError):
    """The binder does not want us, and says why."""


def new_epoch():
    """A process's life: random, never 0."""
    return secrets.randbits(63) + 1


class Wire:
    def __init__(self, endpoint, *, role, instance, expect, hello=None, build="0.1.0", epoch=None, wake_fd=None, alive=None,
                 key_file=None):
        self.endpoint, self.role, self.instance, self.expect = endpoint, role, instance, expect
        self.epoch = epoch or new_epoch()
        self._hello = {} if hello is None else hello  # the caller may change it between sessions
        self._build = build
        self._attempt = 0
        self._session = 0
        self._queue = deque()
        self._hello_due = None
        self._down_why = None
        self._context = zmq.Context.instance()
        self._socket = self._open()
        if endpoint.startswith("tcp://"):
            self._set_keys(key_file)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._alive_every, self._alive = alive or (0, None)  # seconds, and what to call so often
        self._wake_fd = wake_fd  # readable: events() ends (a signal came)
        if wake_fd is not None:
            self._poller.register(wake_fd, zmq.POLLIN)
        self._socket.connect(endpoint)

    def _open(self):
        s = self._context.socket(zmq.DEALER)
        s.setsockopt(zmq.ROUTING_ID, f"{ROLE_TEXT[self.role]}:{self.instance}:{self.epoch:x}".encode())
        s.setsockopt(zmq.MAXMSGSIZE, m.LIMITS["LIMIT_FRAME_BYTES"])
        s.setsockopt(zmq.LINGER, 0)
        s.setsockopt(zmq.IMMEDIATE, 1)
        s.setsockopt(zmq.SNDHWM, 100000)
        s.setsockopt(zmq.RCVHWM, 100000)
        s.setsockopt(zmq.HEARTBEAT_IVL, SILENCE_MS // 3)
        s.setsockopt(zmq.HEARTBEAT_TIMEOUT, SILENCE_MS)
        s.setsockopt(zmq.HEARTBEAT_TTL, SILENCE_MS)
        s.setsockopt(zmq.RECONNECT_IVL, 20)
        s.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        return s

    def _set_keys(self, path):
        """common/net/keys.h: nothing goes over a network in the clear."""
        if not path:
            raise Refused(f"{self.endpoint}: tcp:// needs --curve-key-file; `banyan keys FILE` makes one")
        with open(path) as lines:
            if os.fstat(lines.fileno()).st_mode & 0o006:  # as by_file_read_secret
                raise Refused(f"{path}: every user of this machine can read or write it; chmod 600 it")
            keys = dict(line.split() for line in lines if line.startswith(("public ", "secret ", "server ")))
        s = self._socket
        s.curve_serverkey = keys.get("server", keys["public"]).encode()
        s.curve_publickey = keys["public"].encode()
        s.curve_secretkey = keys["secret"].encode()

    def close(self):
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)

    # ---- sending ----

    def send(self, message):
        """Sends or queues; a message sent while no session stands is dropped."""
        if not self._session:
            return
        frame = m.encode(message, self._session, self._seq_out + 1)
        if m.is_data(message.KIND) and (self._queue or len(frame) > self._credit):
            self._queue.append(message)
            return
        if self._put(frame):
            self._seq_out += 1
            self._credit -= len(frame) if m.is_data(message.KIND) else 0

    def _put(self, frame):
        try:
            self._socket.send(frame, zmq.NOBLOCK)
            return True
        except zmq.Again:  # the connection is going; "down" is on its way
            return False

    def _flush(self):
        queued, self._queue = self._queue, deque()
        for message in queued:
            self.send(message)

    def _say_hello(self):
        self._attempt += 1
        hello = m.Hello(version=m.WIRE_VERSION, build=self._build, role=self.role, instance=self.instance,
                        epoch=self.epoch, attempt=self._attempt, **self._hello)
        said = self._put(m.encode(hello))
        self._hello_due = time.monotonic() + (HELLO_AGAIN_S if said else 0.005)

    # ---- receiving ----

    def events(self, timeout=None):
        """Yields ("up" | "msg" | "down", value) for ever; ends when wake_fd is readable or `timeout` seconds are over."""
        end = None if timeout is None else time.monotonic() + timeout
        alive_due = time.monotonic() if self._alive else None
        while True:
            yield from self._drain()
            now = time.monotonic()
            if alive_due is not None and alive_due <= now:
                self._alive()
                alive_due = now + self._alive_every
            if self._hello_due is not None and self._hello_due <= now:
                self._say_hello()
            if end is not None and now >= end:
                return
            due = [t for t in (self._hello_due, end, alive_due) if t is not None]
            ready = dict(self._poller.poll(max(0, min(due) - now) * 1000 + 1 if due else None))
            if self._wake_fd is not None and self._wake_fd in ready:
                return

    def _drain(self):
        while True:
            try:
                frame = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                if not self._monitor.poll(0):
                    return
                event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
                if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    yield from self._lose("the connection was made anew")
                    self._hello_due = time.monotonic()
                else:
                    yield from self._lose("the connection is gone")
                    self._hello_due = None
                continue
            yield from self._take(frame)
            if self._down_why is not None:
                yield from self._lose(self._down_why)
                self._hello_due = time.monotonic()

    def end(self, why):
        """Ends the session (after the event in hand); a new one is asked for at once."""
        self._down_why = why

    def _lose(self, why):
        self._down_why = None
        if self._session:
            self._session = 0
            self._queue.clear()
            yield "down", why

    def _take(self, frame):
        try:
            message, session, seq = m.decode(frame)
        except m.FrameError as broken:
            self.end(str(broken))
            return
        if message.KIND == m.Welcome.KIND:
            yield from self._welcome(message)
        elif self._session and session == self._session:
            if seq != self._seq_in + 1:
                self.end(f"frame {seq} came after {self._seq_in}")
                return
            self._seq_in = seq
            if message.KIND == m.Credit.KIND:
                self._credit += message.bytes
                self._flush()
            elif message.KIND != m.Heartbeat.KIND:
                yield "msg", message
            if m.is_data(message.KIND):
                self._give_credit(len(frame))

    def _give_credit(self, n):
        self._consumed += n
        if self._consumed >= m.LIMITS["LIMIT_CREDIT_BYTES"] // 4:
            self.send(m.Credit(bytes=self._consumed))
            self._consumed = 0

    def _welcome(self, w):
        if w.attempt and w.attempt != self._attempt:
            return
        if self._session:
            if not w.session:
                self.end("it ended the session")
            return
        if w.refused:
            raise Refused(f"refused by the {ROLE_TEXT.get(w.role, '?')} at {self.endpoint}: {w.refused}")
        if w.version != m.WIRE_VERSION:
            raise Refused(f"{self.endpoint} speaks wire version {w.version}, we speak {m.WIRE_VERSION}: run the same Banyan everywhere")
        if w.role != self.expect:
            raise Refused(f"{self.endpoint} is a {ROLE_TEXT.get(w.role, '?')}, not a {ROLE_TEXT[self.expect]}")
        if not w.session:
            self._hello_due = time.monotonic()
            return
        self._hello_due = None
        self._session, self._credit = w.session, w.credit
        self._seq_in = self._seq_out = self._consumed = 0
        yield "up", w


def endpoint_of(run_dir, scheduler_endpoint=None):
    """Where the scheduler listens: between hosts, or under a run directory."""
    return scheduler_endpoint or f"ipc://{os.path.join(run_dir, 'scheduler.sock')}"
