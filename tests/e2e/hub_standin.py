"""A Hub small enough to test against: models from a dict, over HTTP on a free port of this machine.

    with Hub() as hub:
        hub.add("org/name", {"config.json": b"{}", "model.safetensors": b"…"}, lfs={"model.safetensors"})
        environment["HF_ENDPOINT"] = hub.url

/api/models/ORG/NAME/revision/REV answers sha and siblings; /ORG/NAME/resolve/REV/FILE answers as the Hub does: small files
with an ETag, large ones with X-Linked-Etag (the SHA-256), X-Linked-Size and a redirect to another host (the storage). Faults
are attributes: a test sets one and looks at what the client makes of it.
"""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class Model:
    def __init__(self, files, lfs, private, gated):
        self.files, self.lfs, self.private, self.gated = files, lfs, private, gated
        names = json.dumps(sorted((n, hashlib.sha256(b).hexdigest()) for n, b in files.items()))
        self.commit = hashlib.sha1(names.encode()).hexdigest()

    def etag(self, name):
        if name in self.lfs:
            return hashlib.sha256(self.files[name]).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.files[name]) + self.files[name]).hexdigest()


class Hub:
    def __init__(self):
        self.models, self.branches = {}, {}
        self.token = None  # the one that opens private and gated models
        self.log = []  # (method, path) of every request, in order
        self.heads = []  # their headers
        self.cut_after = None  # bytes of a storage answer after which the connection is cut …
        self.n_cuts = 0  # … so many times
        self.knows_range = True
        self.spoil = False  # storage answers have the right length and wrong bytes
        self.busy = 0  # so many answers of 503 first
        self.extra_siblings = []  # names that the list claims beside the real ones
        self.etag_of = None  # a function name -> etag that replaces the right one
        self.gate = None  # a threading.Event that storage answers wait for
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler("hub"))
        self._storage = ThreadingHTTPServer(("127.0.0.2", 0), self._handler("storage"))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def add(self, name, files, lfs=(), private=False, gated=False, branches=("main",)):
        model = Model(files, set(lfs), private, gated)
        for branch in branches:
            self.branches[name, branch] = model
        self.branches[name, model.commit] = model
        self.models[name] = model
        return model

    def fetched(self):
        """The files whose bytes were asked for."""
        return [unquote(p.rsplit("/", 1)[1]) for m, p in self.log if m == "GET" and "/resolve/" in p]

    def __enter__(self):
        for server in (self._server, self._storage):
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        for server in (self._server, self._storage):
            server.shutdown()
            server.server_close()

    def _handler(hub, role):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, body=b"", **headers):
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def refuse(self, status, code, text=""):
                self.answer(status, json.dumps({"error": text}).encode(), X_Error_Code=code)

            def bytes(self, data, etag, **headers):
                start = 0
                given = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                if given and hub.knows_range:
                    start = int(given[1])
                    if start >= len(data):
                        return self.answer(416)
                    headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                part = data[start:]
                if role == "hub" or hub.cut_after is None or hub.n_cuts == 0 or len(part) <= hub.cut_after:
                    return self.answer(206 if "Content_Range" in headers else 200, part, ETag=f'"{etag}"', **headers)
                hub.n_cuts -= 1
                self.send_response(206 if "Content_Range" in headers else 200)
                for key, value in headers.items():
                    self.send_header(key.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(part)))
                self.end_headers()
                self.wfile.write(part[: hub.cut_after])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)

            def allowed(self, model):
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                if token and token != hub.token:
                    self.refuse(401, "", "Invalid credentials")
                    return False
                if model is None or (model.private and not token):
                    self.refuse(404 if token else 401, "RepoNotFound")
                    return False
                return True

            def do_GET(self):
                hub.log.append((self.command, self.path))
                hub.heads.append((role, dict(self.headers)))
                if hub.busy:
                    hub.busy -= 1
                    return self.answer(503)
                path = self.path.split("?")[0]
                if role == "storage":
                    return self.storage(path)
                api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", path)
                file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
                if api:
                    return self.info(api[1], unquote(api[2]))
                if file:
                    return self.file(file[1], unquote(file[2]), unquote(file[3]))
                self.answer(404)

            do_HEAD = do_GET

            def info(self, name, revision):
                if not self.allowed(hub.models.get(name)):
                    return
                model = hub.branches.get((name, revision))
                if not model:
                    return self.refuse(404, "RevisionNotFound")
                siblings = [{"rfilename": n, "size": len(b)} for n, b in model.files.items()]
                siblings += [{"rfilename": n, "size": 1} for n in hub.extra_siblings]
                self.answer(200, json.dumps({"id": name, "sha": model.commit, "siblings": siblings}).encode())

            def file(self, name, revision, file):
                if not self.allowed(hub.models.get(name)):
                    return
                model = hub.branches.get((name, revision))
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                if model.gated and token != hub.token:
                    return self.refuse(401 if not token else 403, "GatedRepo")
                if file not in model.files:
                    return self.refuse(404, "EntryNotFound")
                data, etag = model.files[file], model.etag(file)
                if hub.etag_of:
                    etag = hub.etag_of(file)
                if file not in model.lfs:
                    return self.bytes(data, etag, X_Repo_Commit=model.commit)
                where = f"http://127.0.0.2:{hub._storage.server_port}/{name}/{model.commit}/{file}"
                self.answer(302, b"Found", X_Linked_Etag=f'"{etag}"', X_Linked_Size=str(len(data)),
                            X_Repo_Commit=model.commit, Location=where)

            def storage(self, path):
                _, org, name, commit, file = path.split("/", 4)
                model = hub.branches[f"{org}/{name}", commit]
                data = model.files[file]
                if hub.gate:
                    hub.gate.wait(20)
                self.bytes(data[::-1] if hub.spoil else data, "storage")

        return Handler
