"""A Hugging Face hub on loopback: its API for reading, and the ways in which it fails.

::

    with HubServer() as server:
        server.add("someone/tiny", folder)
        with server.in_use(monkeypatch, cache):  # another process gets server.environment(cache)
            ...

Every request is in ``server.requests``. ``server.faults`` maps a part of a path to the answer that
requests of it get instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

import huggingface_hub as hf
import pytest

_PROXIES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class Fault:
    """An answer in place of the true one, for the first ``times`` requests, or for all.

    ``code`` is the hub's own name of an error, such as "GatedRepo". ``sent`` is the number of bytes
    that are sent of a body, whatever the headers promise. ``delay`` is the seconds before the
    answer.
    """

    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    code: str | None = None
    sent: int | None = None
    delay: float = 0.0
    times: int | None = None


@dataclass
class StoredRepository:
    """A repository of the server: its files at one commit, and the names of that commit."""

    files: dict[str, bytes]
    commit: str
    names: set[str]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asks may hang up at any time; all else is a fault of this server."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class HubServer:
    """Serves repositories that are added to it, from a thread, while its block lasts."""

    def __init__(self) -> None:
        self.repositories: dict[str, StoredRepository] = {}
        self.faults: dict[str, Fault] = {}
        self.requests: list[str] = []
        self.redirect = False
        """Whether large files are elsewhere, as the hub has them at a CDN."""
        self._answered: dict[str, int] = {}
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        """Start."""
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; answers that are delayed are given up."""
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def _elsewhere(self) -> str:
        """This server under the name of another host, as the hub's CDN is one."""
        return f"http://localhost:{self._server.server_port}"

    def add(self, name: str, source: Path | dict[str, bytes], branch: str = "main") -> StoredRepository:
        """Serve a folder's files, or those given; the commit follows from their contents."""
        files = source if isinstance(source, dict) else _files_of(source)
        digest = hashlib.sha1(usedforsecurity=False)
        for each, content in sorted(files.items()):
            digest.update(each.encode() + b"\0" + content)
        self.repositories[name] = StoredRepository(dict(files), digest.hexdigest(), {branch})
        return self.repositories[name]

    def clear(self) -> None:
        """Forget the requests and the faults."""
        self.requests.clear()
        self.faults.clear()
        self._answered.clear()

    def fetched(self) -> list[str]:
        """The names of the files whose contents were requested, in order."""
        return [
            each.partition("/resolve/")[2].partition("/")[2]
            for each in self.requests
            if each.startswith("GET /") and "/resolve/" in each
        ]

    def environment(self, cache: Path) -> dict[str, str]:
        """The environment of a process that uses this hub, with ``cache`` as its HF_HOME."""
        none = {name: "" for each in _PROXIES for name in (each, each.lower())}
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0"}
        return {**os.environ, **none, **own, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

    def in_use(self, patch: pytest.MonkeyPatch, cache: Path) -> None:
        """Have huggingface_hub in this process use this hub, with ``cache`` as its HF_HOME."""
        use_hub(patch, self.url, cache)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self)

            do_HEAD = do_GET  # noqa: N815
            do_POST = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = [unquote(part) for part in urlsplit(request.path).path.strip("/").split("/")]
        line = f"{request.command} /{'/'.join(parts)}"
        self.requests.append(line)
        try:
            fault = self._fault(line)
            if fault is not None and self._stopped.wait(fault.delay):
                return
            status, headers, body = self._truth(parts, request)
            if fault is not None:
                status, headers, body = _faulty(fault, status, headers, body)
            _send(request, status, headers, body, None if fault is None else fault.sent)
        except (BrokenPipeError, ConnectionResetError):
            request.close_connection = True

    def _fault(self, line: str) -> Fault | None:
        for part, fault in self.faults.items():
            if part in line and self._answered.get(part, 0) != fault.times:
                self._answered[part] = self._answered.get(part, 0) + 1
                return fault
        return None

    def _truth(self, parts: list[str], request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            return self._of_api("/".join(parts[2:4]), parts[4:])
        if len(parts) > 4 and parts[2] == "resolve":
            return self._of_file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), request)
        if parts[0] == "cdn":
            return 200, {}, self.repositories["/".join(parts[1:3])].files["/".join(parts[3:])]
        return _error(404, None)

    def _of_api(self, name: str, rest: list[str]) -> tuple[int, dict[str, str], bytes]:
        found = self.repositories.get(name)
        if found is None:
            return _error(404, "RepoNotFound")
        if rest and rest[0] in ("revision", "tree") and rest[1] not in {found.commit, *found.names}:
            return _error(404, "RevisionNotFound")
        if rest and rest[0] == "tree":
            return _json([_entry(each, content) for each, content in sorted(found.files.items())])
        siblings = [{"rfilename": each} for each in sorted(found.files)]
        return _json({"id": name, "modelId": name, "sha": found.commit, "private": False, "siblings": siblings})

    def _of_file(
        self, name: str, revision: str, file: str, request: BaseHTTPRequestHandler
    ) -> tuple[int, dict[str, str], bytes]:
        found = self.repositories.get(name)
        if found is None:
            return _error(404, "RepoNotFound")
        if revision not in {found.commit, *found.names}:
            return _error(404, "RevisionNotFound")
        if file not in found.files:
            return _error(404, "EntryNotFound", {"X-Repo-Commit": found.commit})
        content = found.files[file]
        headers = {"X-Repo-Commit": found.commit, "ETag": f'"{_blob_id(content)}"', "Accept-Ranges": "bytes"}
        if self.redirect:
            linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": headers["ETag"]}
            return 302, {**headers, **linked, "Location": f"{self._elsewhere}/cdn/{name}/{quote(file)}"}, b""
        begin, _, _ = request.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if begin.isdecimal():
            place = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            return 206, {**headers, "Content-Range": place}, content[int(begin) :]
        return 200, headers, content


def use_hub(patch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Have huggingface_hub in this process use the hub at ``url``, and ``cache`` as its HF_HOME."""
    for name in _PROXIES:
        patch.delenv(name, raising=False)
        patch.delenv(name.lower(), raising=False)
    patch.setattr(hf.constants, "HF_HUB_OFFLINE", False)
    patch.setattr(hf.constants, "ENDPOINT", url)
    patch.setattr(hf.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    use_cache(patch, cache)
    hf.close_session()


def use_cache(patch: pytest.MonkeyPatch, cache: Path) -> None:
    """Have huggingface_hub in this process use ``cache`` as its HF_HOME."""
    patch.setattr(hf.constants, "HF_HOME", str(cache))
    patch.setattr(hf.constants, "HF_HUB_CACHE", str(cache / "hub"))
    patch.setattr(hf.constants, "HF_TOKEN_PATH", str(cache / "token"))


def without_waiting(patch: pytest.MonkeyPatch) -> None:
    """Have huggingface_hub try again at once where it would wait."""
    for module in ("utils._http", "file_download"):
        patch.setattr(f"huggingface_hub.{module}.time", _Hasty())


class _Hasty:
    """The module `time`, but that nobody sleeps."""

    def sleep(self, seconds: float) -> None:
        """Go on at once."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def _files_of(folder: Path) -> dict[str, bytes]:
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _entry(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(content), "oid": _blob_id(content)}


def _json(value: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _error(status: int, code: str | None, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    named = {"X-Error-Code": code, "X-Error-Message": f"{code} of the test's hub"} if code else {}
    return status, {**named, **(headers or {})}, b'{"error": "refused"}'


def _faulty(fault: Fault, status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
    if fault.status != 200:
        status, headers, body = _error(fault.status, fault.code)
    return status, {**headers, **fault.headers}, body if fault.body is None else fault.body


def _send(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes, sent: int | None) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body if sent is None else body[:sent])
        request.wfile.flush()
    if sent is not None:
        request.close_connection = True
