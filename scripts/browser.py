"""The page's server, and the browser that tests, screenshots and measurements open it with.

python scripts/browser.py       install Chromium by apt where there is none, if that is allowed here
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_ROOT = Path(__file__).resolve().parent.parent
_BY_SIGTERM = 143
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_PACKAGES = ("chromium", "fonts-dejavu-core")
MISSING = f"there is no browser ({', '.join(_NAMES)}) for the page: apt-get install {' '.join(_PACKAGES)}"

_LONG = 100  # steps; where the server is told to pause, a drawing of so many lasts until it is stopped

# The page works with the network unplugged: the server may listen and answer here, and call nobody.
_UNPLUGGED = """
import contextlib, socket, sys, time
_connect = socket.socket.connect
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        print(f"CALLED {address}", flush=True)
        raise OSError("the network is unplugged")
    return _connect(self, address)
socket.socket.connect = connect
from vinograph import Pipeline
from vinograph.cli import main
_pause, _stream = float(sys.argv.pop(1)), Pipeline.stream
def stream(*arguments, **options):
    with contextlib.closing(_stream(*arguments, **options)) as steps:
        for each in steps:
            time.sleep(_pause if getattr(each, "total", 0) >= LONG else 0)
            yield each
Pipeline.stream = stream
raise SystemExit(main())
""".replace("LONG", str(_LONG))


def find() -> str | None:
    """The browser's program, if there is one."""
    return next((path for path in map(shutil.which, _NAMES) if path), None)


@contextmanager
def launched() -> Iterator[Browser]:
    """Headless Chromium that finds no host but this one.

    Raises:
        FileNotFoundError: there is none.
    """
    from playwright.sync_api import sync_playwright

    program = find()
    if program is None:
        raise FileNotFoundError(MISSING)
    arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    arguments += ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@contextmanager
def served(
    arguments: Sequence[str], models: Path, log: Path, port: int | None = None, pause: float = 0
) -> Iterator[str]:
    """The address of ``vinograph web`` with these ``arguments``, until the block ends. It can call nobody.

    Without a ``port`` it listens at one that is free. After each step of a drawing of a hundred steps
    or more it pauses so many seconds: what is tested while it draws must not depend on how fast that is.

    ``models`` is its models folder. What it prints goes to ``log``, with "CALLED" where it tried to call someone.

    Raises:
        RuntimeError: it ended at once, or not as it should.
    """
    port = free_port() if port is None else port
    here = {"PYTHONPATH": str(_ROOT / "src"), "VINOGRAPH_MODELS": str(models), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", _UNPLUGGED, str(pause), "web", "--port", str(port), *arguments]
    with log.open("w", encoding="utf-8") as printed:
        process = subprocess.Popen(command, env={**os.environ, **here}, stdout=printed, stderr=subprocess.STDOUT)
        try:
            address = f"http://{_host(arguments)}:{port}/"
            while not _answers(address):
                if process.poll() is not None:
                    raise RuntimeError(f"vinograph web ended: {log.read_text(encoding='utf-8')}")
                time.sleep(0.05)
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=120)
    if code != _BY_SIGTERM:
        raise RuntimeError(f"vinograph web ended with {code}: {log.read_text(encoding='utf-8')}")


def _host(arguments: Sequence[str]) -> str:
    """Where the page can be asked for, as an address has it."""
    host = arguments[arguments.index("--host") + 1] if "--host" in arguments else "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _answers(address: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=10):
            return True
    except OSError:
        return False


def main() -> None:
    """Install what is missing, or say what to do. The page's tests fail without it, so this doesn't."""
    if find() is not None:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(MISSING, file=sys.stderr)
        return
    subprocess.run(["apt-get", "update", "-qq"], check=False)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *_PACKAGES]
    subprocess.run(install, check=False, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


if __name__ == "__main__":
    main()
