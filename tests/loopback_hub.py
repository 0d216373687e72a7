"""A hub on 127.0.0.1 that real download code can be pointed at, and made to misbehave.

It speaks the part of the Hugging Face Hub's protocol that fetching a repository needs: repository
information, file listings, and files with their entity tags, lengths and ranges.
"""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

BIND = "127.0.0.1"


class Asked(NamedTuple):
    """One request: method, path, and where in a file it starts."""

    method: str
    path: str
    start: int


@dataclass
class Repository:
    """Files of one repository at one commit; `gated` ones show themselves and give nothing.

    headers: what it says of its files in place of the truth, such as {"ETag": "../../X"}.
    listed, told: keys of a file in listings, and of the repository, in place of the truth.
    drips: seconds between two bytes of a file; `coy` ones drip the headers before them.
    endless: files of zeros without an end.
    """

    files: dict[str, bytes]
    gated: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    listed: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    drips: float = 0.0
    coy: bool = False
    endless: bool = False

    @property
    def commit(self) -> str:
        digest = hashlib.sha1()
        for name, content in sorted(self.files.items()):
            digest.update(name.encode() + content)
        return digest.hexdigest()


@dataclass
class LoopbackHub:
    """Use as a context manager; `url` is what HF_ENDPOINT must be.

    cut: file -> lengths after which the connection is closed, one for each of its next requests.
    stalled: files of which half is sent and then nothing more until the hub closes.
    silent: connections are taken and never answered.
    """

    models: dict[str, Repository] = field(default_factory=dict)
    datasets: dict[str, Repository] = field(default_factory=dict)
    cut: dict[str, list[int]] = field(default_factory=dict)
    stalled: set[str] = field(default_factory=set)
    silent: bool = False
    asked: list[Asked] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> LoopbackHub:
        hub = self

        class Bound(_Handler):
            here = hub

        self._server = ThreadingHTTPServer((BIND, 0), Bound)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://{BIND}:{self._server.server_address[1]}"

    def downloads(self, file: str) -> list[int]:
        """Where each GET of a file started."""
        return [
            asked.start
            for asked in self.asked
            if asked.method == "GET"
            and asked.path.endswith(f"/{file}")
            and "/resolve/" in asked.path
        ]


class _Handler(BaseHTTPRequestHandler):
    here: LoopbackHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal; tests read `asked`."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.here.asked.append(Asked(self.command, path, start))
        if self.here.silent:
            self.here.closing.wait(30)
            self.close_connection = True
            return None
        kind, repo_id, verb, rest = self._parse(path)
        known = (self.here.datasets if kind == "datasets" else self.here.models).get(repo_id)
        if verb is None or known is None:
            return self._refuse(
                404 if verb is None else 401, "RepoNotFound", "Repository not found"
            )
        revision, _, name = rest.partition("/")
        if revision not in {"main", known.commit}:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if verb == "resolve":
            return self._file(known, name, start)
        if verb == "tree":
            return self._json(_tree(known, name, deep="recursive=true" in url.query.casefold()))
        if verb == "paths-info":
            paths = parse_qs(body.decode()).get("paths", [])
            return self._json([file for file in _files(known) if file["path"] in paths])
        return self._json(_about(kind, repo_id, known))

    @staticmethod
    def _parse(path: str) -> tuple[str, str, str | None, str]:
        """Kind, id, verb and what follows, of the API's and of the files' addresses."""
        pieces = path.strip("/").split("/")
        if pieces[0] == "api":
            kind, repo, verb, rest = pieces[1], pieces[2:4], pieces[4:5] or ["revision"], pieces[5:]
        else:
            kind = "datasets" if pieces[0] == "datasets" else "models"
            pieces = pieces[1:] if kind == "datasets" else pieces
            repo, verb, rest = pieces[:2], pieces[2:3], pieces[3:]
        known = {"revision", "tree", "paths-info", "resolve"}
        found = verb[0] if verb and verb[0] in known else None
        return kind, "/".join(repo), found, "/".join(rest or ["main"])

    def _file(self, repository: Repository, name: str, start: int) -> None:
        if repository.gated:
            return self._refuse(403, "GatedRepo", "Access to this repository is restricted")
        content = repository.files.get(name)
        if content is None:
            return self._refuse(404, "EntryNotFound", "Entry not found", known=repository)
        if repository.coy:
            return self._drip(b"HTTP/1.1 200 OK\r\nX-Long: " + bytes(1000), repository.drips)
        self.send_response(206 if start else 200)
        honest = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": repository.commit}
        for header, value in {**honest, **repository.headers}.items():
            self.send_header(header, value)
        self.send_header("Accept-Ranges", "bytes")
        if repository.endless and self.command != "HEAD":
            return self._without_end()
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return None
        cuts = self.here.cut.get(name, [])
        stop = cuts.pop(0) if cuts else len(content)
        stalls = name in self.here.stalled
        if repository.drips:
            return self._drip(content[start:], repository.drips)
        self.wfile.write(content[start : len(content) // 2 if stalls else stop])
        self.wfile.flush()
        if stalls:
            self.here.closing.wait(30)
        self.close_connection = stalls or stop < len(content)
        return None

    def _drip(self, content: bytes, seconds: float) -> None:
        with suppress(OSError):  # whoever asked has had enough
            for position in range(len(content)):
                if self.here.closing.wait(seconds):
                    break
                self.wfile.write(content[position : position + 1])
                self.wfile.flush()
        self.close_connection = True

    def _without_end(self) -> None:
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        piece = bytes(1_000_000)
        with suppress(OSError):  # whoever asked has had enough
            while not self.here.closing.is_set():
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.close_connection = True

    def _refuse(
        self, status: int, code: str, text: str, *, known: Repository | None = None
    ) -> None:
        self.send_response(status)
        if known is not None:
            self.send_header("X-Repo-Commit", known.commit)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", text)
        self._send(json.dumps({"error": text}).encode())

    def _json(self, value: Any) -> None:
        self.send_response(200)
        self._send(json.dumps(value).encode())

    def _send(self, body: bytes) -> None:
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _files(repository: Repository) -> list[dict[str, Any]]:
    return [
        {
            "type": "file", "path": name, "size": len(content), "oid": _oid(content),
            **repository.listed,
        }
        for name, content in repository.files.items()
    ]  # fmt: skip


def _tree(repository: Repository, folder: str, *, deep: bool) -> list[dict[str, Any]]:
    """Everything under a folder, or what lies in it directly, sub-folders included."""
    inside = f"{folder}/" if folder else ""
    files = [file for file in _files(repository) if str(file["path"]).startswith(inside)]
    names = {str(file["path"])[len(inside) :].rpartition("/")[0] for file in files}
    folders = [
        {"type": "directory", "path": inside + name, "size": 0, "oid": _oid(name.encode())}
        for name in sorted(names - {""})
    ]
    direct = [file for file in files if "/" not in str(file["path"])[len(inside) :]]
    return [*folders, *(files if deep else direct)]


def _about(kind: str, repo_id: str, repository: Repository) -> dict[str, Any]:
    return {
        "id": repo_id,
        "sha": repository.commit,
        "private": False,
        "gated": "manual" if repository.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "lastModified": "2026-01-01T00:00:00.000Z",
        "siblings": [{"rfilename": name} for name in repository.files],
        **({"modelId": repo_id} if kind == "models" else {}),
        **repository.told,
    }


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
