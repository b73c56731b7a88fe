"""The whole server in a process of its own: its start, its promises over a socket, and its end."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.serve.serving import MODEL, SECONDS, THROUGH_RAY, Answer, Running, running, until
from vinograph import Pipeline

DRAW, TXT2IMG = "/v1/images/generations", "/sdapi/v1/txt2img"
PROMPT = {"prompt": "two green trees in the middle of a meadow on a clear day"}
LONG = {**PROMPT, "num_inference_steps": 150}
KEY = "sk-0123456789abcdef"


def pixels(answer: Answer, index: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    data = base64.b64decode(answer.json["data"][index]["b64_json"])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def later(server: Running, *arguments: Any) -> Future[Answer]:
    """A request that is sent in a thread."""
    return ThreadPoolExecutor(1).submit(server.ask, *arguments)


def begun(server: Running, headers: Mapping[str, str] = {}) -> http.client.HTTPConnection:
    """A connection that waits for a long drawing, which is dropped when it is closed."""
    connection = http.client.HTTPConnection(urlsplit(server.address).netloc)
    connection.request("POST", DRAW, json.dumps(LONG), {"Content-Type": "application/json", **headers})
    return connection


def state(server: Running) -> tuple[float, float]:
    """How many jobs are drawn and wait, by the metrics."""
    text = server.ask("/metrics").body.decode()
    found = [re.search(rf"^vinograph_{name} (\S+)$", text, flags=re.MULTILINE) for name in ("running", "queue_depth")]
    assert all(found)
    return tuple(float(each[1]) for each in found if each)  # type: ignore[return-value]


class TestPromises:
    """What the server promises, with one server for all of it."""

    def test_a_seed_draws_what_the_pipeline_draws(self, server: Running) -> None:
        asked = {**PROMPT, "seed": 11, "n": 2, "num_inference_steps": 2}
        answer = server.ask(DRAW, asked)
        expected = Pipeline.from_pretrained(MODEL)
        for index in range(2):
            alone = expected(PROMPT["prompt"], seed=11 + index, num_inference_steps=2)
            assert np.array_equal(pixels(answer, index), np.asarray(alone.images[0]))

    @pytest.mark.parametrize(
        ("path", "body", "status"),
        [
            (DRAW, {"prompt": "a", "n": 10**9}, 400),
            (DRAW, {"prompt": "a", "size": "100000x10000"}, 400),
            (DRAW, {"prompt": "a", "num_inference_steps": 10**6}, 400),
            (DRAW, {}, 400),
            (TXT2IMG, {"prompt": "a", "batch_size": 10**9}, 400),
            (TXT2IMG, {"prompt": "a", "width": 100_000, "height": 10_000}, 400),
            ("/v1/nothing", {}, 404),
        ],
    )
    def test_a_bad_request_is_refused_at_once(
        self, server: Running, path: str, body: dict[str, object], status: int
    ) -> None:
        answers = [server.ask(path, body) for _ in range(5)]
        assert {each.status for each in answers} == {status}, answers[0].body
        assert min(each.seconds for each in answers) < 0.05

    def test_a_picture_has_no_prompt_in_it(self, server: Running) -> None:
        data = base64.b64decode(server.ask(DRAW, {**PROMPT, "num_inference_steps": 1}).json["data"][0]["b64_json"])
        assert b"meadow" not in data
        assert not Image.open(io.BytesIO(data)).info

    def test_prompts_are_not_logged(self, server: Running) -> None:
        server.ask(DRAW, {**PROMPT, "num_inference_steps": 1})
        until(lambda: f"path={DRAW} status=200" in server.log)
        assert "meadow" not in server.log

    def test_idle_connections_keep_nobody_out(self, server: Running) -> None:
        place = urlsplit(server.address)
        idle = [socket.create_connection((place.hostname, place.port)) for _ in range(200)]
        try:
            assert server.ask("/livez").seconds < 1
            assert server.ask(DRAW, {**PROMPT, "num_inference_steps": 1}).status == 200
        finally:
            for each in idle:
                each.close()

    def test_a_client_that_goes_away_frees_its_place(self, server: Running) -> None:
        connection = begun(server)
        until(lambda: state(server)[0] == 1)
        connection.close()
        until(lambda: state(server) == (0, 0), 5)

    def test_the_metrics_tell_of_it(self, server: Running) -> None:
        server.ask(DRAW, {**PROMPT, "num_inference_steps": 1})
        text = server.ask("/metrics").body.decode()
        for line in (
            f'vinograph_requests_total{{method="POST",route="{DRAW}",status="200"}}',
            f'vinograph_drawn_seconds_count{{model="{MODEL}",stage="unet"}}',
            "vinograph_steps_total",
            'vinograph_resident_memory_bytes{process="worker"}',
        ):
            found = re.search(rf"^{re.escape(line)} (\S+)$", text, flags=re.MULTILINE)
            assert found is not None, line
            assert float(found[1]) > 0

    @pytest.mark.skipif(THROUGH_RAY, reason="the process is the server's child; test_ray_serve.py kills a replica")
    def test_a_process_that_is_killed_costs_one_clean_error(self, server: Running) -> None:
        drawing = later(server, DRAW, LONG)
        until(lambda: state(server)[0] == 1)
        (worker,) = children(server.process.pid)
        os.kill(worker, signal.SIGKILL)
        answer = drawing.result()
        assert (answer.status, answer.headers["x-should-retry"]) == (500, "false")
        assert answer.json["error"]["code"] == "worker_lost"
        assert server.ask(DRAW, {**PROMPT, "num_inference_steps": 1}).status == 200


def children(process: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process:
            found.append(int(folder.name))
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY, encoding="utf-8")
    options = ("--limit", "queue=1", "--api-key-file", str(keys), "--log-format", "json", "--log-prompts")
    with running("--model", MODEL, *options) as server:
        yield server


class TestSmallQueue:
    """A server whose queue takes one request, with a key and a log in JSON."""

    def test_a_full_queue_is_told_at_once_and_probes_go_on(self, small: Running) -> None:
        key = {"x-api-key": KEY}
        drawn = begun(small, key)
        until(lambda: b"\nvinograph_running 1.0" in small.ask("/metrics", headers=key).body)
        waiting = later(small, DRAW, {**LONG, "num_inference_steps": 1}, key)
        until(lambda: b"vinograph_queue_depth 1.0" in small.ask("/metrics", headers=key).body)
        refused = [small.ask(path, PROMPT, key) for path in (DRAW, TXT2IMG) for _ in range(3)]
        assert {each.status for each in refused} == {429}
        assert all(int(each.headers["Retry-After"]) >= 1 for each in refused)
        assert min(each.seconds for each in refused) < 0.1
        assert [small.ask(path).status for path in ("/livez", "/readyz")] == [200, 200]
        drawn.close()
        assert waiting.result().status == 200

    def test_its_log_is_json_without_keys(self, small: Running) -> None:
        small.ask(DRAW, {**PROMPT, "num_inference_steps": 1}, {"Authorization": f"Bearer {KEY}"})
        small.ask(DRAW, PROMPT, {"Authorization": f"Bearer {KEY}x"})
        until(lambda: '"status": 401' in small.log)
        assert KEY not in small.log
        lines = [json.loads(line) for line in small.lines if line.startswith("{")]
        (queued, *_) = [each for each in lines if each["message"] == "drawing queued"]
        assert queued["prompt"] == PROMPT["prompt"]
        answered = [each for each in lines if each["message"] == "answered"]
        assert {"time", "level", "path", "status", "seconds", "request_id"} <= answered[0].keys()
        assert queued["request_id"] in {each["request_id"] for each in answered}


class TestEnd:
    """Signals."""

    def test_the_drawing_under_way_is_finished_and_nothing_new_begun(self) -> None:
        with running("--model", MODEL) as server:
            drawing = later(server, DRAW, {**LONG, "num_inference_steps": 60})
            until(lambda: state(server)[0] == 1)
            waiting = later(server, DRAW, PROMPT)
            until(lambda: state(server)[1] == 1)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: server.ask("/readyz").status == 503)
            assert server.ask("/livez").status == 200
            refused = [server.ask(path, PROMPT) for path in (DRAW, TXT2IMG)] + [waiting.result()]
            assert [(each.status, each.headers["Retry-After"]) for each in refused] == [(503, "5")] * 3
            assert drawing.result().status == 200
            assert server.process.wait(SECONDS) == 0
        assert "Traceback" not in server.log

    def test_a_second_signal_stops_the_drawing(self) -> None:
        with running("--model", MODEL, "--grace", "600") as server:
            drawing = later(server, DRAW, LONG)
            until(lambda: state(server)[0] == 1)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: server.ask("/readyz").status == 503)
            time.sleep(0.6)  # at once, it would count as the first one again
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert drawing.result().status == 503
            assert server.process.wait(SECONDS) == 0
            assert time.monotonic() - began < (60 if THROUGH_RAY else 10)

    def test_the_grace_ends(self) -> None:
        with running("--model", MODEL, "--grace", "0.5") as server:
            drawing = later(server, DRAW, LONG)
            until(lambda: state(server)[0] == 1)
            server.process.send_signal(signal.SIGINT)
            assert drawing.result().status == 503
            assert server.process.wait(SECONDS) == 0

    def test_a_signal_before_it_is_ready_ends_it(self) -> None:
        with running("--model", MODEL, ready=False) as server:
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(SECONDS) == 0


def test_a_model_that_cannot_be_used_is_told_and_the_others_draw(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    with running("--model", MODEL, "--model", f"broken={tmp_path / 'broken'}") as server:
        answer = server.ask(DRAW, {**PROMPT, "model": "broken"})
        assert (answer.status, answer.headers["x-should-retry"]) == (503, "false")
        assert "broken" in answer.json["error"]["message"]
        until(lambda: "WARNING the model broken can't be used" in server.log)
        assert server.ask(DRAW, {**PROMPT, "num_inference_steps": 1}).status == 200
