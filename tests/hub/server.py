"""A hub of one's own: the interface of huggingface.co, as its clients use it, over a folder.

What lies under ``models/OWNER/NAME/REVISION/`` and ``datasets/OWNER/NAME/REVISION/`` is served as
that revision of that repository. The headers and error codes are those of the real hub.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

_API = re.compile(
    r"/api/(models|datasets)/([^/]+(?:/[^/]+)?)(?:/(revision|tree|paths-info)/([^/]+)/?(.*))?"
)
_FILE = re.compile(r"/(?:(datasets)/)?([^/]+(?:/[^/]+)?)/resolve/([^/]+)/(.+)")
_ORDER = re.compile(r"/-/(down|up|mend)")
_CUTTABLE = (".safetensors", ".csv")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class _Refused(Exception):
    """An answer that is no success; the code is how the hub's client tells them apart."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True, slots=True)
class _Revision:
    """One revision of one repository."""

    folder: Path

    @property
    def commit(self) -> str:
        """A commit's hash: the same as long as nothing in the folder changes."""
        digest = hashlib.sha1(str(self.folder).encode(), usedforsecurity=False)
        for path in self.files():
            digest.update(f"{path}{_hash(path)}".encode())
        return digest.hexdigest()

    def files(self) -> list[Path]:
        """List the files of the revision, in order."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


@dataclass
class Hub:
    """The repositories, and what is to go wrong with them."""

    root: Path
    gated: dict[str, int] = field(default_factory=dict)
    """The status with which the files of a repository are withheld: 401 from strangers, 403 from
    those who are known and have not accepted the terms."""
    cut: dict[str, int] = field(default_factory=dict)
    """How often the connection is dropped in the middle of weights or CSV, by repository."""
    down: bool = False
    """Whether every request is answered by 503."""
    asked: list[str] = field(default_factory=list)
    """The requests so far, such as ``GET /owner/name/resolve/main/config.json``."""
    url: str = ""

    def put(self, address: str, files: Mapping[str, str | bytes]) -> Path:
        """Write files into ``models/OWNER/NAME/REVISION`` or the like; give the folder."""
        folder = self.root / address
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder

    def __enter__(self) -> Hub:
        """Listen on a port that the system chooses."""
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def find(self, kind: str, name: str, revision: str = "main") -> _Revision:
        """Find a revision by its name or its commit."""
        place = self.root / kind / name
        if not place.is_dir():
            # What a stranger hears; the hub does not tell what is private from what is not there.
            raise _Refused(401, "RepoNotFound", "Invalid username or password.")
        named = _Revision(place / quote(unquote(revision), safe=""))
        known = [named] if named.folder.is_dir() else [_Revision(p) for p in place.iterdir()]
        for candidate in known:
            if named.folder.is_dir() or candidate.commit == revision:
                return candidate
        raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def check_open(self, kind: str, name: str) -> None:
        """Refuse the files of a gated repository, as the hub does."""
        status = self.gated.get(name)
        if status:
            raise _Refused(status, "GatedRepo", f"Access to {kind[:-1]} {name} is restricted.")


class _Server(ThreadingHTTPServer):
    """A thread for each connection, as clients keep theirs open."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up; what goes wrong for them, they say."""


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_CONNECT(self) -> None:
        """Refuse to be a way out: this server is its clients' proxy, so that none finds another."""
        self.hub.asked.append(f"CONNECT {self.path}")
        self._refuse(_Refused(502, "", "There is no way out."))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on stderr."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.hub.asked.append(f"{self.command} {self.path}")
        path = urlsplit(self.path).path
        try:
            if order := _ORDER.fullmatch(path):
                self._obey(order[1])
                return
            if self.hub.down:
                raise _Refused(503, "", "Service Unavailable")
            if self.path.startswith("http"):
                raise _Refused(404, "", "There is no way out.")
            if api := _API.fullmatch(path):
                kind, name, question, revision, rest = api.groups()
                found = self._api(kind, name, question, revision, rest, body)
                self._send(json.dumps(found).encode())
            elif file := _FILE.fullmatch(path):
                self._file(file[1] or "models", file[2], file[3], file[4])
            else:
                raise _Refused(404, "", "Not Found")
        except _Refused as refused:
            self._refuse(refused)

    def _obey(self, order: str) -> None:
        """Do what a test asks from another process: fall silent, answer again, drop no more."""
        self.hub.down = order == "down"
        if order == "mend":
            self.hub.cut.clear()
        self._send(b"{}")

    def _api(
        self, kind: str, name: str, question: str | None, revision: str, path: str, body: str
    ) -> Any:
        found = self.hub.find(kind, name, revision or "main")
        if question in (None, "revision"):
            files = [{"rfilename": str(f.relative_to(found.folder))} for f in found.files()]
            gated = "manual" if name in self.hub.gated else False
            about = {"id": name, "sha": found.commit, "siblings": files, "gated": gated}
            return about | {"private": False, "tags": [], "downloads": 0, "likes": 0}
        self.hub.check_open(kind, name)
        if question == "paths-info":
            wanted = [found.folder / path for path in parse_qs(body).get("paths", [])]
            return [_entry(found.folder, path) for path in wanted if path.exists()]
        top = found.folder / unquote(path)
        if not top.is_dir():
            raise _Refused(404, "EntryNotFound", f"{path} does not exist on {revision!r}")
        deep = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() == "true"
        return [_entry(found.folder, p) for p in sorted(top.rglob("*") if deep else top.iterdir())]

    def _file(self, kind: str, name: str, revision: str, path: str) -> None:
        found = self.hub.find(kind, name, revision)
        commit = {"X-Repo-Commit": found.commit}
        self.hub.check_open(kind, name)
        file = found.folder / unquote(path)
        if not file.is_file():
            self._refuse(_Refused(404, "EntryNotFound", "Entry not found"), commit)
            return
        data, first, status = file.read_bytes(), 0, 200
        headers = commit | {"ETag": f'"{_hash(file)}"', "Accept-Ranges": "bytes"}
        if part := _RANGE.fullmatch(self.headers.get("Range") or ""):
            first, last = int(part[1]), int(part[2] or len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first : last + 1], 206
        whole = True
        if self.command == "GET" and file.suffix in _CUTTABLE and self.hub.cut.get(name, 0) > 0:
            self.hub.cut[name] -= 1
            whole = False
        self._send(data, headers, status=status, whole=whole)

    def _refuse(self, refused: _Refused, headers: dict[str, str] | None = None) -> None:
        told = {"X-Error-Message": refused.message}
        if refused.code:
            told["X-Error-Code"] = refused.code
        body = json.dumps({"error": refused.message}).encode()
        self._send(body, told | (headers or {}), status=refused.status)

    def _send(
        self,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        status: int = 200,
        whole: bool = True,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {"Content-Type": "application/json"}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if whole else body[: len(body) // 2])
        if not whole:
            self.close_connection = True


def _entry(top: Path, path: Path) -> dict[str, object]:
    name = str(path.relative_to(top))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    return {"type": "file", "path": name, "oid": _hash(path), "size": path.stat().st_size}


def _hash(path: Path) -> str:
    state = path.stat()
    return _hash_of(path, state.st_mtime_ns, state.st_size)


@cache
def _hash_of(path: Path, _changed: int, _size: int) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
