"""A hub that gives any wrong answer to `inspect`, `generate`, `convert` and `pull`."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from random import Random
from typing import Any

import huggingface_hub as hf
import pytest

from tests.bundles import save_bundle
from tests.checkpoints import SDXL_TINY, save_sdxl
from tests.fuzz import Attempt, Target
from tests.hub_server import Fault, HubServer, without_waiting
from vinograph import ModelError
from vinograph.cli import main

_ALLOWED = (0, 2, 3, 4, 5)
_TIMEOUT = 0.5
_PLACES = (
    *("GET /api/models/", "/tree/", "HEAD ", "GET /someone", "resolve", "cdn", "bundle.json", "model_index.json"),
    *("config.json", ".bin", ".safetensors", "tokenizer", "README.md", ""),
)
_STATUSES = (200, 204, 206, 301, 302, 307, 400, 401, 403, 404, 408, 409, 416, 418, 429, 451, 500, 502, 503, 504, 599)
_CODES = ("RepoNotFound", "GatedRepo", "RevisionNotFound", "EntryNotFound", "DisabledRepo", "", "nonsense")
_HEADERS = {
    "X-Repo-Commit": ("", "main", "0" * 40, "../../x", "é"),
    "ETag": ("", '""', "W/", '"a/b"', '"' + "e" * 300 + '"', "x"),
    "Content-Length": ("0", "1", "99999999", "-1", "many"),
    "Content-Encoding": ("gzip", "br", "nonsense"),
    "Content-Range": ("bytes 0-0/1", "nonsense"),
    "Location": ("", "/", "http://127.0.0.1:9/", "gopher://x", "http://[", "/someone/tiny/resolve/main/bundle.json"),
    "Retry-After": ("0", "5", "tomorrow", "-1"),
    "Link": ('<http://127.0.0.1:9/>; rel="next"', "nonsense"),
    "X-Linked-Size": ("0", "7", "many"),
    "X-Linked-ETag": ('"linked"', ""),
    "Transfer-Encoding": ("chunked",),
    "Content-Type": ("text/html", "application/json; charset=nonsense"),
}
_COMMANDS = (
    *[("inspect", "someone/tiny")] * 4,
    ("generate", "a house", "--model", "someone/tiny", "--output", "picture.png"),
    *[("convert", "someone/sdxl", "bundle")] * 4,
    *[("pull", "someone/sdxl"), ("pull", "someone/tiny")] * 3,
)


def _value(random: Random, depth: int = 0) -> Any:
    """A random JSON value, often of a kind that the hub's answers contain."""
    plain = [None, True, 0, -1, 10**30, 1.5, "", "x", "../x", "\0", "a" * 500, "0" * 40, "main"]
    kind = random.random()
    if depth > 3 or kind < 0.5:
        return random.choice(plain)
    if kind < 0.75:
        return [_value(random, depth + 1) for _ in range(random.randrange(4))]
    keys = ("sha", "id", "siblings", "rfilename", "path", "type", "oid", "size", "lfs", "error", "xetHash")
    return {random.choice(keys): _value(random, depth + 1) for _ in range(random.randrange(5))}


def _body(random: Random) -> bytes:
    kind = random.randrange(5)
    if kind == 0:
        return random.randbytes(random.randrange(200))
    if kind == 1:
        return b"[" * random.choice((10, 100_000))
    if kind == 2:
        names = ["bundle.json", "model_index.json", "unet/config.json", _value(random)]
        answer = {"id": "x", "sha": "0" * 40, "siblings": [{"rfilename": each} for each in names]}
        return json.dumps({**answer, random.choice(tuple(answer)): _value(random)}).encode()
    if kind == 3:
        return json.dumps([{"type": "file", "path": "bundle.json", "size": 3, "oid": _value(random)}]).encode()
    return json.dumps(_value(random)).encode()


def _fault(random: Random) -> Fault:
    headers = {
        name: random.choice(_HEADERS[name])
        for name in random.sample(tuple(_HEADERS), random.choice((0, 0, 1, 1, 2, 3)))
    }
    return Fault(
        status=random.choice((200, random.choice(_STATUSES))),
        body=_body(random) if random.random() < 0.5 else None,
        headers=headers,
        code=random.choice((None, random.choice(_CODES))),
        sent=random.randrange(50) if random.random() < 0.2 else None,
        times=random.choice((None, 1, 2)),
    )


def _prepare(folder: Path) -> Attempt:
    bundle = save_bundle(folder / "tiny").path
    checkpoint = save_sdxl(folder / "sdxl", SDXL_TINY).home
    server = HubServer()
    server.add("someone/tiny", bundle)
    server.add("someone/sdxl", checkpoint)
    server.__enter__()  # a daemon: it ends with the process

    def attempt(random: Random, folder: Path) -> None:
        server.clear()
        server.redirect = random.random() < 0.3
        server.faults.update({random.choice(_PLACES): _fault(random) for _ in range(random.randint(1, 3))})
        arguments = random.choice(_COMMANDS)
        cache = folder / "cache"
        with pytest.MonkeyPatch.context() as patch:
            server.in_use(patch, cache)
            without_waiting(patch)
            for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
                patch.setattr(hf.constants, name, _TIMEOUT)
            patch.setattr("vinograph.families.sdxl.checkpoint._read", _enough)
            patch.chdir(folder)
            patch.setenv("VINOGRAPH_MODELS", str(folder / "models"))
            code, said = _run(arguments)
        assert code in _ALLOWED, said
        assert "Traceback" not in said, said
        assert {each.name for each in folder.iterdir()} <= {"cache", "models", "picture.png"}, "written elsewhere"

    return attempt


def _enough(*_: object) -> None:
    """Stop a conversion after the download; other targets test the files' contents."""
    raise ModelError("enough")


def _run(arguments: tuple[str, ...]) -> tuple[int, str]:
    """Run a command; returns its exit code and output."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return code, out.getvalue() + err.getvalue()


TARGETS = [Target("hub", _prepare, attempts=25)]
