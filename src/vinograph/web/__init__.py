"""The page: for someone who would rather look than type."""

from __future__ import annotations

import importlib.util
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vinograph.errors import RequestError

LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(
    models: Sequence[str],
    device: str | Mapping[str, str],
    host: str,
    port: int,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Serve the page until the process is interrupted. ``models`` are offered first, the first of them chosen.

    Raises:
        RequestError: gradio is not installed, or ``host`` and ``port`` can't be had.
        VinographError: one of ``models`` can't be used.
    """
    if importlib.util.find_spec("gradio") is None:
        raise RequestError('the page needs gradio: pip install "vinograph[web]"')
    _check_free(host, port)
    with tempfile.TemporaryDirectory(prefix="vinograph-") as folder:
        _keep_to_ourselves(folder, host)
        from vinograph.web.page import Page

        page = Page(models, device, Path(folder))
        for problem in page.problems:
            warn(problem)
        if host not in LOCAL:
            warn(f"whoever can reach {host} can draw on this machine: the page asks for no password")
        page.open(host, port)
        try:
            say(f"the page is at http://{f'[{host}]' if ':' in host else host}:{port}; Ctrl-C ends it")
            threading.Event().wait()
        finally:
            page.close()


def _check_free(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(place)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"--host {host} --port {port}: {reason}; name another, such as --port {port + 1}") from error


def _keep_to_ourselves(folder: str, host: str) -> None:
    """Have Gradio tell nobody what it does, ask for its own page by no proxy, and keep its files where ours are.

    It reads this when it is imported.
    """
    near = {name: ",".join([*filter(None, [os.environ.get(name)]), host, *LOCAL]) for name in ("no_proxy", "NO_PROXY")}
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": folder,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        **near,
    }
