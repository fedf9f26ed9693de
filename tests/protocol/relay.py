"""A TCP relay that misbehaves: what lies between two hosts, without a kernel's netem.

    with Relay(port) as r:       r.port leads to 127.0.0.1:port
        r.delay = 0.02           each piece waits so long
        r.dribble = True         one byte at a time
        r.stall()                nothing goes through any more, and nobody is told …
        r.flow()                 … until now
        r.cut()                  every connection ends at once; new ones are taken

TCP hides loss and reordering: what a program can meet is lateness, silence, small pieces and an end."""

import socket
import threading
import time


class Relay:
    def __init__(self, port):
        self.target, self.delay, self.dribble = port, 0.0, False
        self.flows, self.pairs, self.lock = threading.Event(), set(), threading.Lock()
        self.flows.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.listener.close()
        self.flows.set()
        self.cut()

    def stall(self):
        self.flows.clear()

    def flow(self):
        self.flows.set()

    def cut(self):
        with self.lock:
            pairs, self.pairs = self.pairs, set()
        for pair in pairs:
            self._end(pair)

    def _end(self, pair):
        with self.lock:
            self.pairs.discard(pair)
        for s in pair:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            pair = (near, far)
            for s in pair:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.pairs.add(pair)
            for a, b in (pair, pair[::-1]):
                threading.Thread(target=self._pump, args=(a, b, pair), daemon=True).start()

    def _pump(self, a, b, pair):
        try:
            while piece := a.recv(65536):
                self.flows.wait()
                if self.delay:
                    time.sleep(self.delay)
                for i in range(0, len(piece), 1 if self.dribble else len(piece)):
                    b.sendall(piece[i : i + 1] if self.dribble else piece)
        except OSError:
            pass
        self._end(pair)
        a.close()
