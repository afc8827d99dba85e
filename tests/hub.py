"""A Hugging Face Hub in this process: the few endpoints that creating, committing and reading a repository ask for."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

TOKEN = "hf_of_a_test"


@dataclass
class Repository:
    """One of a model.

    Attributes:
        private: read with the token alone.
        commits: id -> files by path, the newest last.
        messages: of the commits.
    """

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return a commit by its id, what that begins with, or ``main``."""
        known = [commit for commit in self.commits if commit.startswith(revision)]
        if revision == "main":
            known = list(self.commits)[-1:]
        return (known[0], self.commits[known[0]]) if known else None


@dataclass
class Hub:
    """What is there, and what was asked.

    Attributes:
        address: ``HF_ENDPOINT``.
        repositories: by ``ORG/NAME``.
        asked: method and path of every request.
    """

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve an empty Hub inside the context."""
    hub = Hub()

    class Handler(_Handler):
        of = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    of: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.of.asked.append(f"POST {self.path}")
        if self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif not self._known():
            self._json({"error": "Invalid credentials in Authorization header"}, 401)
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", self.path):
            repository = self.of.repositories[found[1]]
            (self._preupload if found[2] == "preupload" else self._commit)(repository, found[1], body)
        else:
            self._json({"error": f"no {self.path} here"}, 404)

    def do_HEAD(self) -> None:
        self._resolve(with_body=False)

    def do_GET(self) -> None:
        self._resolve(with_body=True)

    def _create(self, asked: dict[str, object]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        there = name in self.of.repositories
        if not there:
            self.of.repositories[name] = Repository(asked["visibility"] == "private")
        told = {"name": name, "url": f"{self.of.address}/{name}"}
        self._json(told | ({"error": "You already created this model repo"} if there else {}), 409 if there else 200)

    def _preupload(self, repository: Repository, name: str, body: bytes) -> None:
        files = [
            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def _commit(self, repository: Repository, name: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        files = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
        before = list(repository.commits.values())[-1:] or [{}]
        commit = hashlib.sha1(body).hexdigest()
        repository.commits[commit] = before[0] | {path: base64.b64decode(text) for path, text in files.items()}
        repository.messages += [line["value"]["summary"] for line in lines if line["key"] == "header"]
        self._json({"commitUrl": f"{self.of.address}/{name}/commit/{commit}", "commitOid": commit, "success": True})

    def _resolve(self, *, with_body: bool) -> None:
        self.of.asked.append(f"{self.command} {self.path}")
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        repository = self.of.repositories.get(found[1]) if found else None
        if found is None or repository is None or (repository.private and not self._known()):
            self._json({"error": "Repository not found"}, 401, code="RepoNotFound", body=with_body)
        elif (commit := repository.at(found[2])) is None:
            self._json({"error": "Invalid rev id"}, 404, code="RevisionNotFound", body=with_body)
        elif (data := commit[1].get(found[3])) is None:
            self._json({"error": "Entry not found"}, 404, code="EntryNotFound", body=with_body)
        else:
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit[0]}
            self._send(200, data, headers, body=with_body)

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _json(self, told: object, status: int = 200, *, code: str | None = None, body: bool = True) -> None:
        headers = {"Content-Type": "application/json"} | ({} if code is None else {"X-Error-Code": code})
        self._send(status, json.dumps(told).encode(), headers, body=body)

    def _send(self, status: int, data: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)
