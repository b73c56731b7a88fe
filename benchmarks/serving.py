"""Measures the HTTP server: its start, what it adds to a picture, and how it bears many clients.

    python -m benchmarks.serving start [--runs 5]
    python -m benchmarks.serving overhead [--runs 100]
    python -m benchmarks.serving load [--requests 1000] [--clients 50] [--dropped 0.2]
    python -m benchmarks.serving cancel [--runs 20]

*start* counts the seconds from the start of ``vinograph serve`` to its first picture. *overhead*
draws the same pictures in turn by HTTP and by ``pipe(...)`` in this process. *load* sends mixed
requests, some of which hang up midway, and compares the pictures with those drawn one by one.
*cancel* hangs up during a drawing, and counts the steps that the server still did, and the seconds
until it was free.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx

from benchmarks.serving_load import expected, load, wishes
from vinograph import Pipeline

MODEL = "storybook-sdxl"
PROMPT = "a red house on a snowy hill at night"
_PATIENCE = 60.0


@contextlib.contextmanager
def serving(*options: str) -> Iterator[tuple[str, int]]:
    """A server of its own; its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vinograph", "serve", "--port", str(port), *options]
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("VINOGRAPH_")}
    with subprocess.Popen(command, env=quiet, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.terminate()


def until_ready(address: str) -> None:
    """Wait until the server draws."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{address}/readyz", trust_env=False).status_code == 200:
                return
        time.sleep(0.01)
    raise SystemExit("the server never became ready")


def ask(client: httpx.Client, **further: Any) -> bytes:
    """The file of a picture by the OpenAI API."""
    answer = client.post("/v1/images/generations", json={"model": MODEL, "prompt": PROMPT, "seed": 7, **further})
    answer.raise_for_status()
    return base64.b64decode(answer.json()["data"][0]["b64_json"])


def ask_leanly(connection: http.client.HTTPConnection, seed: int) -> None:
    """Ask for a picture and read the response's bytes, so that no client's own work is counted."""
    body = json.dumps({"model": MODEL, "prompt": PROMPT, "seed": seed})
    connection.request("POST", "/v1/images/generations", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(answer.read().decode())
    answer.read()


def start(runs: int) -> dict[str, Any]:
    """Seconds from the server's start to its first picture."""
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        with serving("--model", MODEL) as (address, _):
            while True:  # as a client that can't know when the server listens
                with (
                    contextlib.suppress(httpx.ConnectError),
                    httpx.Client(base_url=address, timeout=_PATIENCE) as client,
                ):
                    ask(client)
                    break
                time.sleep(0.01)
            seconds.append(time.perf_counter() - begin)
    return {"first_picture_s": [round(each, 2) for each in seconds], "median_s": round(statistics.median(seconds), 2)}


def overhead(runs: int) -> dict[str, Any]:
    """Milliseconds of a picture by HTTP beside ``pipe(...)``, in turn."""
    pipe, by_http, by_call, differences = Pipeline.from_pretrained(MODEL), [], [], []
    pipe(PROMPT, seed=7)
    with serving("--model", MODEL) as (address, _):
        until_ready(address)
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=_PATIENCE)
        ask_leanly(connection, seed=7)
        for run in range(runs):
            begin = time.perf_counter()
            ask_leanly(connection, seed=run)
            middle = time.perf_counter()
            pipe(PROMPT, seed=run)
            end = time.perf_counter()
            by_http.append(middle - begin)
            by_call.append(end - middle)
            differences.append(middle - begin - (end - middle))
        connection.close()
    return {
        "http_ms": round(1000 * statistics.median(by_http), 1),
        "pipe_ms": round(1000 * statistics.median(by_call), 1),
        "added_ms": round(1000 * statistics.median(differences), 1),
    }


def under_load(requests: int, clients: int, dropped: float) -> dict[str, Any]:
    """The report of mixed requests."""
    known = expected(wishes((MODEL, "storybook-pixart"), 24, random.Random(0)))
    options = ("--model", MODEL, "--model", "storybook-pixart", "--limit", f"queue={clients}")
    with serving(*options) as (address, process):
        until_ready(address)
        return asyncio.run(load(address, process, known, requests=requests, clients=clients, dropped=dropped)).record()


def cancel(runs: int) -> dict[str, Any]:
    """What a client that hangs up during a long drawing leaves behind."""
    seconds = []
    with serving("--model", MODEL) as (address, _):
        until_ready(address)
        with httpx.Client(base_url=address, timeout=_PATIENCE, trust_env=False) as client:
            ask(client)
            begin = time.perf_counter()
            ask(client, num_inference_steps=50, size="512x512")
            step = (time.perf_counter() - begin) / 50
            for _ in range(runs):
                with contextlib.suppress(httpx.ReadTimeout):
                    client.post(
                        "/v1/images/generations",
                        json={"model": MODEL, "prompt": PROMPT, "num_inference_steps": 150, "size": "512x512"},
                        timeout=httpx.Timeout(5.0, read=5 * step),
                    )
                begin = time.perf_counter()
                while client.get("/sdapi/v1/progress").json()["state"]["job_count"]:
                    time.sleep(0.001)
                seconds.append(time.perf_counter() - begin)
    return {
        "step_ms": round(1000 * step, 1),
        "free_after_ms": round(1000 * statistics.median(seconds), 1),
        "most_ms": round(1000 * max(seconds), 1),
    }


def main() -> None:
    """Parse the options, measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("start", "overhead", "load", "cancel"))
    parser.add_argument("--runs", type=int)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--dropped", type=float, default=0.2)
    given = parser.parse_args()
    found = {
        "start": lambda: start(given.runs or 5),
        "overhead": lambda: overhead(given.runs or 100),
        "load": lambda: under_load(given.requests, given.clients, given.dropped),
        "cancel": lambda: cancel(given.runs or 20),
    }[given.what]()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
