"""HTTP/1.1 to a router, over TCP or a Unix socket, on asyncio: one connection a request, nothing kept between them.

    address = parse("http://127.0.0.1:30000")      or parse("unix:/run/banyan/router.sock")
    status, body = await ask(address, "POST", "/generate", {...})
    async for event in stream(address, "/generate", {...}):      each server-sent event, parsed

A cancelled task closes its connection, and the router aborts the request.
"""

import asyncio
import json
import os
from urllib.parse import urlsplit

LINE_MAX = 256 << 20  # a cumulative event holds all the text so far


class BanyanError(RuntimeError):
    """The server could not do it; the text says why. `status`: the HTTP status, 0 when no answer came."""

    def __init__(self, text, status=0):
        super().__init__(text)
        self.status = status


class RequestError(BanyanError, ValueError):
    """The request is wrong (HTTP 4xx): another try would fail too."""


class Address:
    def __init__(self, host=None, port=None, path=None, key=None):
        self.host, self.port, self.path, self.key = host, port, path, key

    def __str__(self):
        return f"unix:{self.path}" if self.path else f"http://{self.authority}"

    @property
    def authority(self):
        """host:port, an IPv6 address in brackets; what a Unix socket is called in a request's Host."""
        if self.path:
            return "banyan"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def open(self):
        try:
            if self.path:
                return await asyncio.open_unix_connection(self.path, limit=LINE_MAX)
            return await asyncio.open_connection(self.host, self.port, limit=LINE_MAX)
        except OSError as failure:
            raise self.lost(f"no server answers there ({failure.strerror or failure})") from None

    def lost(self, what):
        """The exception for a server that is not there (any more)."""
        return BanyanError(f"{self}: {what}")


def parse(url, key=None):
    """Address of http://host:port or unix:/path."""
    if url.startswith("unix:"):
        return Address(path=url[len("unix:") :], key=key)
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url}: a server is named http://host:port or unix:/path of its socket")
    return Address(host=parts.hostname, port=parts.port or 30000, key=key)


def add_server(p):
    """The flags of a command that asks a server; url_of reads them."""
    p.add_argument("--url", help="the server: http://host:port or unix:/path (default http://127.0.0.1:30000)")
    p.add_argument("--host", help="or as `banyan serve` is told")
    p.add_argument("--port", type=int, metavar="N", help="the same; BANYAN_HOST, BANYAN_PORT, BANYAN_UDS and BANYAN_API_KEY hold, too")
    p.add_argument("--uds", metavar="PATH", help="its Unix socket")
    p.add_argument("--api-key", default=os.environ.get("BANYAN_API_KEY"), help="when it asks for one")


def url_of(o):
    """The server that is meant: as --url says, else by what `banyan serve` is given, flags before BANYAN_… of the environment."""
    said = os.environ.get
    if o.url:
        return o.url
    uds = o.uds or (None if o.host or o.port else said("BANYAN_UDS"))
    if uds:
        return f"unix:{uds}"
    host, port = o.host or said("BANYAN_HOST") or "127.0.0.1", o.port or said("BANYAN_PORT") or "30000"
    if not str(port).isdecimal():  # Kubernetes' tcp://… of a Service called banyan
        port = "30000"
    return f"http://[{host.strip('[]')}]:{port}" if ":" in host else f"http://{host}:{port}"


def error_of(status, body):
    """The exception for an answer that is not 200."""
    try:
        text = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        text = body.decode(errors="replace").strip()[:500] or f"HTTP {status}"
    return (RequestError if 400 <= status < 500 and status not in (408, 429) else BanyanError)(text, status)


def _status_of(error):
    """Of an error that comes as an event. Its code may be a word, as with OpenAI; and an error may be all words."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else 500


def _plain(value):
    """A number or an array of numpy or torch as Python's own."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no place in a request: {value!r:.100}")


class _Connection:
    """One request and its answer."""

    def __init__(self, address):
        self.address = address

    async def __aenter__(self):
        self.reader, self.writer = await self.address.open()
        return self

    async def __aexit__(self, *exc):
        self.writer.close()

    async def send(self, method, path, body):
        data = b"" if body is None else json.dumps(body, default=_plain, allow_nan=False).encode()
        key = f"Authorization: Bearer {self.address.key}\r\n" if self.address.key else ""
        self.writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: {self.address.authority}\r\nConnection: close\r\n{key}"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
        )
        try:
            await self.writer.drain()
            status = int((await self.reader.readline()).split()[1])
            self.headers = {}
            while (line := (await self.reader.readline()).strip()):
                name, _, value = line.decode("latin-1").partition(":")
                self.headers[name.lower()] = value.strip()
        except (OSError, IndexError, ValueError):
            raise self.address.lost("the server went away before it answered") from None
        return status

    async def chunks(self):
        """The body's bytes as they come."""
        try:
            if self.headers.get("transfer-encoding") == "chunked":
                while size := int((await self.reader.readline()), 16):
                    yield await self.reader.readexactly(size)
                    await self.reader.readline()
            elif "content-length" in self.headers:
                yield await self.reader.readexactly(int(self.headers["content-length"]))
            else:
                yield await self.reader.read()
        except (OSError, ValueError, asyncio.IncompleteReadError):
            raise self.address.lost("the server went away in the middle of an answer") from None

    async def body(self):
        return b"".join([chunk async for chunk in self.chunks()])


async def ask(address, method, path, body=None):
    """The answer's bytes; raises for every status but 200."""
    async with _Connection(address) as c:
        status = await c.send(method, path, body)
        data = await c.body()
        if status != 200:
            raise error_of(status, data)
        return data


async def stream(address, path, body):
    """Yields each event of a streamed answer."""
    async with _Connection(address) as c:
        status = await c.send("POST", path, body)
        if status != 200:
            raise error_of(status, await c.body())
        rest = b""
        async for chunk in c.chunks():
            *events, rest = (rest + chunk).split(b"\n\n")
            for event in events:
                data = event.removeprefix(b"data: ")
                if data == b"[DONE]":
                    return
                if event.startswith(b":"):  # a comment keeps the connection alive
                    continue
                value = json.loads(data)
                if "error" in value:
                    raise error_of(_status_of(value["error"]), data)
                yield value
        raise address.lost("the stream ended before its end")
