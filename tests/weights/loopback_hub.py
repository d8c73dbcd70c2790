"""A Hugging Face hub on this machine: what `huggingface_hub` asks for, served from memory."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_API = re.compile(
    r"/api/models/(?P<repo>[^/]+/[^/]+?)(?P<rest>/(revision|tree)/(?P<revision>[^/?]+))?(\?.*)?"
)
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass
class LoopbackHub:
    """Repositories, how they misbehave, and the requests they got."""

    # Repository -> commits, the newest first: (40 hex digits, files by path).
    repositories: dict[str, list[tuple[str, dict[str, bytes]]]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    broken_once: set[str] = field(default_factory=set)  # files that break off halfway, one time
    out_of_order: set[str] = field(default_factory=set)  # files that answer 503
    # (method, path in the repository, Range header)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    address: str = ""

    def add(self, repository: str, files: dict[str, bytes]) -> str:
        """Commit files to a repository; returns the commit."""
        commits = self.repositories.setdefault(repository, [])
        commit = hashlib.sha256(f"{repository} {len(commits)}".encode()).hexdigest()[:40]
        commits.insert(0, (commit, files))
        return commit

    def fetched(self) -> list[str]:
        """Paths of the files that were asked for by GET, in order."""
        return [path for method, path, _ in self.requests if method == "GET"]


@contextmanager
def serve() -> Iterator[LoopbackHub]:
    """Run a hub on a free port."""
    hub = LoopbackHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            match = _API.fullmatch(self.path) or _FILE.fullmatch(self.path)
            if match is None or match["repo"] not in hub.repositories:
                self._refuse(404, "RepoNotFound")
                return
            commits = hub.repositories[match["repo"]]
            revision = match["revision"] or "main"
            found = [each for each in commits if revision in ("main", each[0])]
            if match["repo"] in hub.gated:
                self._refuse(403, "GatedRepo")
            elif not found:
                self._refuse(404, "RevisionNotFound")
            elif match.re is _API:
                self._describe(match, *found[0])
            elif match["path"] not in found[0][1]:
                self._refuse(404, "EntryNotFound")
            else:
                self._send_file(match["path"], *found[0])

        def _describe(self, match: re.Match[str], commit: str, files: dict[str, bytes]) -> None:
            content: object = {"id": match["repo"], "sha": commit, "siblings": []}
            if "/tree/" in (match["rest"] or ""):
                content = [
                    {"type": "file", "path": path, "size": len(data), "oid": _etag(data)}
                    for path, data in files.items()
                ]
            self._send(json.dumps(content).encode(), {"Content-Type": "application/json"})

        def _send_file(self, path: str, commit: str, files: dict[str, bytes]) -> None:
            hub.requests.append((self.command, path, self.headers.get("Range")))
            data = files[path]
            if self.command == "GET" and path in hub.out_of_order:
                self._refuse(503, "")
                return
            start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
            headers = {"X-Repo-Commit": commit, "ETag": f'"{_etag(data)}"'}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            cut = len(data)
            if self.command == "GET" and path in hub.broken_once:
                hub.broken_once.discard(path)
                cut = len(data) // 2
            self._send(data[start:], headers, status=206 if start else 200, cut=cut)

        def _refuse(self, status: int, code: str) -> None:
            self._send(b"", {"X-Error-Code": code}, status=status)

        def _send(
            self, body: bytes, headers: dict[str, str], *, status: int = 200, cut: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[:cut])
            if cut is not None and cut < len(body):
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:40]
