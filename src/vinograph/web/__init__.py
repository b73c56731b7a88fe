"""The web page (``vinograph web``), built with Gradio."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from vinograph import folders
from vinograph.errors import RequestError

LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(
    models: Mapping[str, Mapping[str, str]],
    device: str | Mapping[str, str],
    host: str,
    port: int,
    say: Callable[[str], None],
    warn: Callable[[str], None],
    allowed_hosts: Sequence[str] = (),
    gallery: Path | None = None,
) -> None:
    """Serve the page until the process is interrupted.

    Args:
        models: models that are offered before the others, each with the other sources that it is
            opened with, such as its ``base``; the first is selected.
        device: where they compute, as :meth:`Pipeline.from_pretrained` takes it.
        host: the name or address to listen at; visitors may ask for the page under any name of it.
        port: the port to listen at.
        say: called with each message to the user.
        warn: called with each warning.
        allowed_hosts: further names under which visitors may ask for the page.
        gallery: a folder in which all pictures are kept, and which all visitors see.

    Raises:
        RequestError: gradio is not installed, nothing can listen at ``host`` and ``port``, or
            ``gallery`` can't be written.
        ResourceError: there is no folder for temporary files.
        VinographError: one of ``models`` can't be used.
    """
    check_installed()
    with folders.temporary("vinograph-") as folder:
        isolate_gradio(folder)
        with without_proxies():
            from vinograph.web.jobs import Queue
            from vinograph.web.model_pool import ModelPool
            from vinograph.web.page import Page
            from vinograph.web.server import listening

        with listening(host, port) as sockets:
            pool = ModelPool(models, device)
            page = Page(pool, Queue(pool), folder, gallery)
            for problem in pool.problems:
                warn(problem)
            if host not in LOCAL:
                may = "draw on this machine" if gallery is None else f"draw on this machine, and delete in {gallery}"
                warn(f"whoever can reach {host} can {may}: the page asks for no password")
            page.open(host, sockets, allowed_hosts)
            try:
                say(f"the page is at http://{f'[{host}]' if ':' in host else host}:{port}; Ctrl-C ends it")
                threading.Event().wait()
            finally:
                page.close()


def check_installed() -> None:
    """Refuse to go on without Gradio.

    Raises:
        RequestError: it is not installed.
    """
    if importlib.util.find_spec("gradio") is None:
        raise RequestError('the page needs gradio: pip install "vinograph[web]"')


def isolate_gradio(folder: Path) -> None:
    """Turn off Gradio's telemetry and put its files into ``folder``, before it is imported."""
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_EXAMPLES_CACHE": str(folder / "examples"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
    }


@contextmanager
def without_proxies() -> Iterator[None]:
    """Hide the proxy's variables in the block.

    Gradio prepares a client for the proxy when it is imported, which for SOCKS takes a further
    package.
    """
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.lower().endswith("_proxy")}
    try:
        yield
    finally:
        os.environ |= hidden
