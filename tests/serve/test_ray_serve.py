"""The server through Ray Serve: one cluster of one machine for all that is asked of it here."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import re
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.processors import all_processors
from tests.serve.serving import MODEL, Answer, Running, running, until
from vinograph import Pipeline

DRAW, TXT2IMG = "/v1/images/generations", "/sdapi/v1/txt2img"
PROMPT = {"prompt": "two green trees in the middle of a meadow on a clear day"}
SHORT = {**PROMPT, "num_inference_steps": 1}
LONG = {**PROMPT, "num_inference_steps": 150}
KEY = "sk-0123456789abcdef"
HEADERS = {"x-api-key": KEY}
RAY = ("--ray", "local", "--replica-cpus", "1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server on a cluster of its own, with a key and a queue for one."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY, encoding="utf-8")
    options = ("--api-key-file", str(keys), "--limit", "queue=1")
    with all_processors(), running("--model", MODEL, *RAY, *options) as server:
        yield server


def later(server: Running, *arguments: Any) -> Future[Answer]:
    """A request that is sent in a thread."""
    return ThreadPoolExecutor(1).submit(server.ask, *arguments)


def state(server: Running) -> tuple[float, float]:
    """How many jobs are drawn and wait, by the metrics."""
    text = server.ask("/metrics", headers=HEADERS).body.decode()
    found = [re.search(rf"^vinograph_{name} (\S+)$", text, flags=re.MULTILINE) for name in ("running", "queue_depth")]
    return tuple(float(each[1]) for each in found if each)  # type: ignore[return-value]


def begun(server: Running, body: Mapping[str, Any] = LONG) -> http.client.HTTPConnection:
    """A connection that waits for a drawing, which is dropped when it is closed."""
    connection = http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=300)
    connection.request("POST", DRAW, json.dumps(body), {"Content-Type": "application/json", **HEADERS})
    return connection


def replica_processes(root: int, name: str = "ServeReplica:vinograph:Drawer") -> list[int]:
    """The processes of replicas below a process."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (folder / "stat").read_text(), (folder / "cmdline").read_text()
        except OSError:
            continue
        parents[int(folder.name)] = (int(status.rpartition(")")[2].split()[1]), command)

    def below(pid: int) -> bool:
        return pid == root or (pid in parents and below(parents[pid][0]))

    return [pid for pid, (_, command) in parents.items() if name in command and below(pid)]


@contextmanager
def one_processor() -> Iterator[None]:
    """What computes in the block has one thread, as a replica here: sums are rounded as there."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(own)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def pixels(data: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_a_seed_draws_what_the_pipeline_draws(cluster: Running) -> None:
    answer = cluster.ask(DRAW, {**PROMPT, "seed": 11, "n": 2, "num_inference_steps": 2}, HEADERS)
    assert answer.status == 200, answer.body
    with one_processor():
        alone = Pipeline.from_pretrained(MODEL)(
            PROMPT["prompt"], seed=11, num_inference_steps=2, num_images_per_prompt=2
        )
    for drawn, expected in zip(answer.json["data"], alone.images, strict=True):
        assert np.array_equal(pixels(drawn["b64_json"]), np.asarray(expected))


def test_a_stream_shows_partial_pictures(cluster: Running) -> None:
    connection = begun(cluster, {**PROMPT, "num_inference_steps": 8, "stream": True, "partial_images": 2})
    response = connection.getresponse()
    assert response.headers["content-type"].startswith("text/event-stream")
    found = [json.loads(line[6:]) for line in response if line.startswith(b"data: ")]
    connection.close()
    kinds = [each["type"].rpartition(".")[2] for each in found]
    assert kinds == ["partial_image", "partial_image", "completed"]
    assert pixels(found[-1]["b64_json"]).shape == (256, 256, 3)
    assert pixels(found[0]["b64_json"]).std() > 0


def test_a_link_leads_to_the_picture(cluster: Running) -> None:
    (item,) = cluster.ask(DRAW, {**SHORT, "response_format": "url"}, HEADERS).json["data"]
    assert cluster.ask(urlsplit(item["url"]).path).body.startswith(b"\x89PNG")


def test_every_route_but_the_probes_wants_the_key(cluster: Running) -> None:
    assert [cluster.ask(path).status for path in ("/livez", "/readyz")] == [200, 200]
    assert [cluster.ask(path).status for path in ("/metrics", "/v1/models", "/sdapi/v1/options")] == [401] * 3
    refused = cluster.ask(DRAW, PROMPT, {"x-api-key": "wrong"})
    assert (refused.status, refused.json["error"]["code"]) == (401, "invalid_api_key")


def test_bad_requests_are_refused_in_the_shape_of_their_api(cluster: Running) -> None:
    answer = cluster.ask(DRAW, {"prompt": "a", "size": "100000x10000"}, HEADERS)
    assert answer.status == 400
    assert answer.json["error"].keys() == {"message", "type", "param", "code"}
    assert len(answer.headers.get_all("x-request-id") or ()) == 1
    assert cluster.ask(TXT2IMG, {"prompt": "a", "batch_size": 10**9}, HEADERS).status == 400


def test_a_full_queue_is_told_at_once_and_a_client_that_leaves_frees_its_place(cluster: Running) -> None:
    drawn = begun(cluster)
    until(lambda: state(cluster) == (1, 0))
    waiting = later(cluster, DRAW, SHORT, HEADERS)
    until(lambda: state(cluster) == (1, 1))
    refused = [cluster.ask(path, PROMPT, HEADERS) for path in (DRAW, TXT2IMG)]
    assert [each.status for each in refused] == [429, 429]
    assert all(int(each.headers["Retry-After"]) >= 1 for each in refused)
    assert refused[0].json["error"]["code"] == "queue_full"
    assert [cluster.ask(path).status for path in ("/livez", "/readyz")] == [200, 200]
    drawn.close()
    assert waiting.result().status == 200
    until(lambda: state(cluster) == (0, 0))


def test_an_interrupted_job_gives_the_pictures_that_are_done(cluster: Running) -> None:
    asked = later(cluster, TXT2IMG, {**PROMPT, "steps": 40, "n_iter": 10, "seed": 3}, HEADERS)
    until(lambda: cluster.ask("/sdapi/v1/progress", headers=HEADERS).json["state"]["job_no"] >= 1)
    cluster.ask("/sdapi/v1/interrupt", {}, HEADERS)
    assert 1 <= len(asked.result().json["images"]) < 10
    until(lambda: state(cluster) == (0, 0))


def test_a_drawing_whose_replica_is_killed_is_drawn_by_another(cluster: Running) -> None:
    asked = {**PROMPT, "num_inference_steps": 60, "seed": 5}
    expected = cluster.ask(DRAW, asked, HEADERS).json["data"][0]["b64_json"]
    drawing = later(cluster, DRAW, asked, HEADERS)
    until(lambda: state(cluster)[0] == 1)
    for pid in replica_processes(cluster.process.pid):
        os.kill(pid, signal.SIGKILL)
    answer = drawing.result()
    assert answer.status == 200, answer.body
    assert answer.json["data"][0]["b64_json"] == expected
    until(lambda: "a replica was lost" in cluster.log)


def test_its_log_names_no_prompt_and_its_end_is_clean(cluster: Running) -> None:
    until(lambda: f"path={DRAW} status=200" in cluster.log)
    assert "meadow" not in cluster.log
    cluster.process.send_signal(signal.SIGTERM)
    assert cluster.process.wait(120) == 0
    assert "Traceback" not in cluster.log
