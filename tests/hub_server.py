"""A model hub on loopback: as much of its HTTP interface as huggingface_hub asks for here."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BRANCHES = ("main", COMMIT)
GATED = "closed"
"""Repositories of this owner list their files to everybody, and give them to nobody."""
CARDS: Mapping[str, Mapping[str, object]] = {
    "closed": {"gated": "manual", "cardData": {"license": "other", "license_name": "theirs"}},
    "asking": {"gated": "auto", "cardData": {"license": ["apache-2.0", "mit"]}},
    "open": {"gated": False, "cardData": {"license": "mit"}},
    "bare": {"gated": False},
}
"""What the page of an owner's repositories says beside the files."""


class Hub(ThreadingHTTPServer):
    """Serves directories as repositories; counts the bytes of weights that it sent."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.sent_weights = 0
        self.requests: list[str] = []
        self.speaks_json = True
        self.tells_sizes = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serve(repositories: Mapping[str, Path]) -> Iterator[Hub]:
    """Serve until the block ends."""
    with Hub(repositories) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            self._describe(match[1], match[2], match[3] or "main")
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._give(match[1], match[2], match[3])
        else:
            self._refuse(404, "EntryNotFound")

    def _describe(self, repository: str, what: str | None, revision: str) -> None:
        if not self._is_there(repository, revision):
            return
        files = sorted(p for p in self.server.repositories[repository].iterdir() if p.is_file())
        if what == "tree":
            answer: object = [
                {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": "0" * 40}
                for p in files
            ]
        else:
            answer = {
                "id": repository,
                "sha": COMMIT,
                "siblings": [self._sibling(path) for path in files],
                **CARDS[repository.partition("/")[0]],
            }
        text = json.dumps(answer) if self.server.speaks_json else "<html>Please log in.</html>"
        self._send(200, text.encode(), {"Content-Type": "application/json"})

    def _sibling(self, path: Path) -> dict[str, object]:
        """A file of a repository; its size only for who asks (files_metadata=True)."""
        asked = "blobs=" in urlsplit(self.path).query and self.server.tells_sizes
        return {"rfilename": path.name, **({"size": path.stat().st_size} if asked else {})}

    def _give(self, repository: str, revision: str, name: str) -> None:
        if not self._is_there(repository, revision):
            return
        path = self.server.repositories[repository] / name
        if repository.startswith(GATED):
            self._refuse(403, "GatedRepo")
        elif not path.is_file():
            self._refuse(404, "EntryNotFound")
        else:
            content = path.read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept-Ranges": "bytes"}
            status = 200
            if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(match[1]), int(match[2] or len(content) - 1)
                last = min(last, len(content) - 1)
                headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                content = content[first : last + 1]
                status = 206
            if name.endswith(".safetensors") and self.command == "GET":
                self.server.sent_weights += len(content)
            self._send(status, content, headers)

    def _is_there(self, repository: str, revision: str) -> bool:
        if repository not in self.server.repositories:
            self._refuse(401, "RepoNotFound")
        elif revision not in BRANCHES:
            self._refuse(404, "RevisionNotFound")
        else:
            return True
        return False

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "X-Repo-Commit": COMMIT}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
