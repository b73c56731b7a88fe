"""Mixed requests of many clients to a running server, a share of which hang up midway."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vinograph import Pipeline

Pixels = NDArray[np.uint8]

PROMPTS = ("a red house on a snowy hill at night", "a yellow boat on the sea at sunset", "two green trees in a meadow")
SIZES = (128, 192, 256)
_MEMORY_INTERVAL = 0.5  # seconds
_PATIENCE = 300.0  # seconds for a response, queue included
_CLOSE = 1  # of 255: a picture of another number of threads may differ in rounding


@dataclass(frozen=True)
class Wish:
    """A picture that a client may ask for, which is known beforehand."""

    model: str
    prompt: str
    seed: int
    size: int
    steps: int

    def arguments(self) -> dict[str, Any]:
        """The arguments of the same call in Python."""
        return {
            "prompt": self.prompt,
            "seed": self.seed,
            "height": self.size,
            "width": self.size,
            "num_inference_steps": self.steps,
        }


@dataclass
class Report:
    """What happened to the requests.

    ``wrong`` are pictures that differ from those of the same call in Python. ``lost`` requests got
    no answer, or an unexpected one; their reasons are in ``problems``. Latencies of probes are in
    seconds. ``memory`` are samples of the resident bytes of all processes of the server.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    lost: int = 0
    problems: list[str] = field(default_factory=list)
    probes: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    seconds: float = 0.0
    jobs_at_end: int = -1

    @property
    def probe_p99(self) -> float:
        """The 99th percentile of the probes' latencies, in seconds."""
        return float(np.percentile(self.probes, 99)) if self.probes else float("nan")

    @property
    def growth(self) -> float:
        """How far the median of memory in the last quarter exceeds that in the third, as a share."""
        quarter = len(self.memory) // 4
        third, fourth = self.memory[2 * quarter : 3 * quarter], self.memory[3 * quarter :]
        return statistics.median(fourth) / statistics.median(third) - 1 if third and fourth else float("nan")

    def record(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "outcomes": dict(self.outcomes),
            "wrong": self.wrong,
            "lost": self.lost,
            "problems": self.problems[:20],
            "probes": len(self.probes),
            "probe_ms_p50": round(1000 * statistics.median(self.probes), 2) if self.probes else None,
            "probe_ms_p99": round(1000 * self.probe_p99, 2),
            "probe_ms_max": round(1000 * max(self.probes, default=float("nan")), 2),
            "memory_mb_third_quarter": _megabytes(self.memory, 2),
            "memory_mb_last_quarter": _megabytes(self.memory, 3),
            "growth": round(self.growth, 4),
            "seconds": round(self.seconds, 1),
            "jobs_at_end": self.jobs_at_end,
        }


def _megabytes(samples: Sequence[int], index: int) -> float | None:
    quarter = len(samples) // 4
    part = samples[index * quarter : (index + 1) * quarter]
    return round(statistics.median(part) / 1e6, 1) if part else None


def wishes(models: Sequence[str], count: int, rng: random.Random) -> list[Wish]:
    """Random pictures to ask for."""
    return [
        Wish(rng.choice(models), rng.choice(PROMPTS), rng.randrange(1000), rng.choice(SIZES), rng.choice((1, 2, 3)))
        for _ in range(count)
    ]


def expected(asked: Sequence[Wish]) -> dict[Wish, Pixels]:
    """The same pictures, drawn one after the other in this process."""
    pipes = {name: Pipeline.from_pretrained(name) for name in {each.model for each in asked}}
    return {each: np.asarray(pipes[each.model](**each.arguments()).images[0]) for each in asked}


class Clients:
    """Clients that ask one server for known pictures, and check what they get."""

    def __init__(self, address: str, known: Mapping[Wish, Pixels], key: str, dropped: float) -> None:
        """``dropped`` is the share of requests that hang up midway."""
        self.address = address
        self.report = Report()
        self._known = known
        self._wishes = list(known)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._basic = ("user", key) if key else None
        self._dropped = dropped
        self._kinds: tuple[Callable[[httpx.AsyncClient, Wish], Awaitable[str]], ...] = (
            self._generation, self._generation, self._stream, self._edit, self._txt2img, self._models, self._mistake,
        )  # fmt: skip

    async def run(self, requests: int, clients: int, seed: int) -> None:
        """Make all requests; each client makes its next when the one before has ended."""
        rng, begin = random.Random(seed), time.perf_counter()
        plan = iter(
            [(rng.choice(self._kinds), rng.choice(self._wishes), rng.random(), rng.random()) for _ in range(requests)]
        )
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
        async with httpx.AsyncClient(
            base_url=self.address, timeout=_PATIENCE, limits=limits, trust_env=False
        ) as client:

            async def work() -> None:
                for kind, wish, drop, moment in plan:
                    await self._once(client, kind, wish, moment if drop < self._dropped else None)

            await asyncio.gather(*(work() for _ in range(clients)))
            self.report.seconds = time.perf_counter() - begin
            self.report.jobs_at_end = await self._jobs(client)

    async def _once(self, client: httpx.AsyncClient, kind: Any, wish: Wish, hang_up_after: float | None) -> None:
        name = kind.__name__.strip("_")
        try:
            if hang_up_after is None:
                self.report.outcomes[f"{name}: {await kind(client, wish)}"] += 1
                return
            async with asyncio.timeout(hang_up_after):
                await kind(client, wish)
            self.report.outcomes[f"{name}: done before it hung up"] += 1
        except TimeoutError:
            self.report.outcomes[f"{name}: hung up"] += 1
        except (httpx.HTTPError, AssertionError, KeyError, ValueError) as error:
            self.report.lost += 1
            self.report.problems.append(f"{name}: {type(error).__name__}: {error}")

    async def _send(self, client: httpx.AsyncClient, method: str, path: str, **body: Any) -> httpx.Response:
        """A response; a full queue is asked again, as it says."""
        while True:
            answer = await client.request(method, path, **body)
            if answer.status_code != 429:
                return answer
            self.report.outcomes["told to come again"] += 1
            await asyncio.sleep(min(2.0, float(answer.headers["Retry-After"])))

    def _body(self, wish: Wish) -> dict[str, Any]:
        return {
            "model": wish.model,
            "prompt": wish.prompt,
            "size": f"{wish.size}x{wish.size}",
            "seed": wish.seed,
            "num_inference_steps": wish.steps,
        }

    def _check(self, wish: Wish, data: str) -> str:
        found = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), np.int16)
        known = self._known[wish]
        if found.shape != known.shape or np.abs(found - known).max() > _CLOSE:
            self.report.wrong += 1
            return "wrong"
        return "equal" if (found == known).all() else "equal but for rounding"

    async def _generation(self, client: httpx.AsyncClient, wish: Wish) -> str:
        answer = await self._send(
            client, "POST", "/v1/images/generations", json=self._body(wish), headers=self._headers
        )
        assert answer.status_code == 200, answer.text[:300]
        return self._check(wish, answer.json()["data"][0]["b64_json"])

    async def _stream(self, client: httpx.AsyncClient, wish: Wish) -> str:
        body = {**self._body(wish), "stream": True, "partial_images": 2}
        answer = await self._send(client, "POST", "/v1/images/generations", json=body, headers=self._headers)
        assert answer.status_code == 200, answer.text[:300]
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        assert events, answer.text[:300]
        assert events[-1]["type"] == "image_generation.completed", answer.text[:300]
        return self._check(wish, events[-1]["b64_json"])

    async def _edit(self, client: httpx.AsyncClient, wish: Wish) -> str:
        picture = io.BytesIO()
        Image.fromarray(self._known[wish]).save(picture, "PNG")
        fields = {**{name: str(value) for name, value in self._body(wish).items()}, "num_inference_steps": "2"}
        files = {"image": ("../../etc/passwd.png", picture.getvalue(), "image/png")}
        answer = await self._send(client, "POST", "/v1/images/edits", data=fields, files=files, headers=self._headers)
        assert answer.status_code == 200, answer.text[:300]
        return f"{len(answer.json()['data'])} picture"

    async def _txt2img(self, client: httpx.AsyncClient, wish: Wish) -> str:
        body = {
            "prompt": wish.prompt,
            "steps": wish.steps,
            "seed": wish.seed,
            "width": wish.size,
            "height": wish.size,
            "cfg_scale": 1,
            "override_settings": {"sd_model_checkpoint": wish.model},
        }
        answer = await self._send(client, "POST", "/sdapi/v1/txt2img", json=body, **self._as_basic())
        assert answer.status_code == 200, answer.text[:300]
        reply = answer.json()
        assert json.loads(reply["info"])["seed"] == wish.seed
        assert len(reply["images"]) == 1
        return "1 picture"

    async def _models(self, client: httpx.AsyncClient, wish: Wish) -> str:
        answer = await self._send(client, "GET", "/v1/models", headers=self._headers)
        assert wish.model in [each["id"] for each in answer.json()["data"]]
        return "listed"

    async def _mistake(self, client: httpx.AsyncClient, wish: Wish) -> str:
        body = {**self._body(wish), "size": "7x7"}
        answer = await self._send(client, "POST", "/v1/images/generations", json=body, headers=self._headers)
        assert answer.status_code == 400, answer.text[:300]
        assert answer.json()["error"]["param"] == "size", answer.text[:300]
        return "refused"

    def _as_basic(self) -> dict[str, Any]:
        return {"auth": self._basic} if self._basic else {}

    async def _jobs(self, client: httpx.AsyncClient) -> int:
        """The jobs that the server still has, once those of clients that hung up have had time for a step."""
        await asyncio.sleep(2.0)
        answer = await client.get("/sdapi/v1/progress", params={"skip_current_image": "true"}, **self._as_basic())
        return int(answer.json()["state"]["job_count"])


class Probes:
    """A process that asks ``/livez`` twenty times a second, and writes down how long the answers took."""

    def __init__(self, address: str) -> None:
        """Start it."""
        command = [sys.executable, "-c", _PROBING, address]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def end(self) -> list[float]:
        """Seconds of each answer."""
        output, _ = self._process.communicate("", timeout=30)
        return [float(line) for line in output.split()]


_PROBING = """
import http.client, select, sys, time, urllib.parse
place = urllib.parse.urlsplit(sys.argv[1]).netloc
connection = http.client.HTTPConnection(place, timeout=30)
while not select.select([sys.stdin], [], [], 0.05)[0]:
    begin = time.perf_counter()
    connection.request("GET", "/livez")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, answer.status
    print(time.perf_counter() - begin)
"""


async def sample_memory(process: int, samples: list[int]) -> None:
    """Append the resident bytes of a process and its children, until it is cancelled."""
    while True:
        samples.append(sum(map(_resident, family_of(process))))
        await asyncio.sleep(_MEMORY_INTERVAL)


def family_of(process: int) -> list[int]:
    """A process and all that came from it."""
    found = [process]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return found


def _resident(process: int) -> int:
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except OSError:  # it has just ended
        return 0
    return int(pages) * 4096


async def load(
    address: str,
    process: int,
    known: Mapping[Wish, Pixels],
    *,
    requests: int,
    clients: int,
    key: str = "",
    dropped: float = 0.2,
) -> Report:
    """Put a server under load, and report."""
    crowd, probes = Clients(address, known, key, dropped), Probes(address)
    sampling = asyncio.create_task(sample_memory(process, crowd.report.memory))
    try:
        await crowd.run(requests, clients, seed=1)
    finally:
        sampling.cancel()
        crowd.report.probes = probes.end()
    return crowd.report
