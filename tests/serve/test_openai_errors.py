"""OpenAI's API where the service fails, is full or is left: with the client of OpenAI, over a socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from tests.serve.openai_service import ScriptedJob, ScriptedService, drawn
from tests.serve.serving import configured, serving, until
from vinograph.errors import NumericalError, RequestError
from vinograph.serve.contract import (
    DeadlineError,
    DrainingError,
    Event,
    Job,
    ModelInfo,
    ModelUnavailableError,
    Progress,
    QueueFullError,
    Waiting,
    WorkerLostError,
)

PNG = b"\x89PNG"
Serve = Callable[..., tuple[openai.OpenAI, ScriptedService]]


def raising(error: Exception) -> Callable[[], Job]:
    def submit() -> Job:
        raise error

    return submit


@pytest.fixture(scope="module")
def service(model_info: ModelInfo) -> ScriptedService:
    return ScriptedService([], model_info)


@pytest.fixture(scope="module")
def address(service: ScriptedService) -> Iterator[str]:
    with serving(service, configured()) as address:
        yield address


@pytest.fixture
def answers(service: ScriptedService) -> list[Callable[[], Job]]:
    service.answers.clear()
    service.submitted.clear()
    return service.answers


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="none", base_url=f"{address}/v1") as client:
        yield client


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds for which the client would have waited before it tried again."""
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (WorkerLostError("the drawing process has ended"), 500, "server_error", "worker_lost"),
        (NumericalError("unet", "f16", "try f32"), 500, "server_error", "numerical_error"),
        (ValueError("a defect"), 500, "server_error", "internal_error"),
        (ModelUnavailableError("unet.bin is missing"), 503, "server_error", "model_unavailable"),
        (DeadlineError("it took over 600 s"), 504, "server_error", "deadline_exceeded"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else "",
)
class TestWhatFailsAgainIsNotRetried:
    def test_when_it_is_submitted(
        self,
        error: Exception,
        status: int,
        kind: str,
        code: str,
        client: openai.OpenAI,
        answers: list[Callable[[], Job]],
        waits: list[float],
    ) -> None:
        answers.append(raising(error))
        with pytest.raises(openai.InternalServerError) as caught:
            client.images.generate(prompt="a house")
        self.check(caught.value, status, kind, code)
        assert not waits

    def test_when_it_is_drawn(
        self,
        error: Exception,
        status: int,
        kind: str,
        code: str,
        client: openai.OpenAI,
        answers: list[Callable[[], Job]],
        waits: list[float],
    ) -> None:
        answers.append(lambda: ScriptedJob([Waiting(1), error]))
        with pytest.raises(openai.InternalServerError) as caught:
            client.images.generate(prompt="a house")
        self.check(caught.value, status, kind, code)
        assert not waits

    def check(self, error: openai.APIStatusError, status: int, kind: str, code: str) -> None:
        assert (error.status_code, error.type, error.code, error.param) == (status, kind, code, None)
        assert error.response.json()["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("error", "status", "code", "seconds"),
    [
        (QueueFullError("32 requests wait already", 3), 429, "queue_full", 3.0),
        (DrainingError("the server is about to end"), 503, "draining", 5.0),
    ],
)
class TestWhatMayWorkLaterIsRetried:
    def test_after_the_seconds_that_the_server_says(
        self,
        error: Exception,
        status: int,
        code: str,
        seconds: float,
        client: openai.OpenAI,
        answers: list[Callable[[], Job]],
        waits: list[float],
    ) -> None:
        answers += [raising(error), lambda: ScriptedJob([drawn(PNG)])]
        assert client.images.generate(prompt="a house").data
        assert waits == [seconds]

    def test_and_in_the_end_reported(
        self,
        error: Exception,
        status: int,
        code: str,
        seconds: float,
        client: openai.OpenAI,
        answers: list[Callable[[], Job]],
        waits: list[float],
    ) -> None:
        answers += [raising(error)] * 3
        with pytest.raises(openai.APIStatusError) as caught:
            client.images.generate(prompt="a house", stream=True)
        assert (caught.value.status_code, caught.value.code) == (status, code)
        assert waits == [seconds, seconds]


def test_a_wrong_argument_names_its_field(client: openai.OpenAI, answers: list[Callable[[], Job]]) -> None:
    answers.append(raising(RequestError("n is 0; give a whole number from 1 to 1000")))
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="a house", n=0)
    assert (caught.value.param, caught.value.code, caught.value.type) == ("n", "invalid_value", "invalid_request_error")
    assert "give a whole number" in caught.value.message


def test_an_unknown_model_is_named(client: openai.OpenAI, answers: list[Callable[[], Job]]) -> None:
    for call in (
        lambda: client.images.generate(prompt="a house", model="unknown"),
        lambda: client.models.retrieve("unknown"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


def test_a_failure_in_a_stream_is_an_event(client: openai.OpenAI, answers: list[Callable[[], Job]]) -> None:
    answers.append(lambda: ScriptedJob([Progress(0, "unet", 1, 2, PNG), WorkerLostError("the drawing process died")]))
    events = client.images.generate(prompt="a house", stream=True, partial_images=1)
    assert next(events).type == "image_generation.partial_image"
    with pytest.raises(openai.APIError, match="the drawing process died") as caught:
        next(events)
    assert caught.value.code == "worker_lost"
    assert isinstance(caught.value.body, dict)
    assert caught.value.body.keys() == {"message", "type", "param", "code"}


def test_a_stream_reports_the_place_and_its_comments_pass_unseen(
    address: str, client: openai.OpenAI, answers: list[Callable[[], Job]]
) -> None:
    script: list[Event | Exception | None] = [Waiting(2), Waiting(1), Progress(0, "unet", 1, 1, PNG), drawn(PNG)]
    answers += [lambda: ScriptedJob(script)] * 2
    events = [*client.images.generate(prompt="a house", stream=True)]
    assert [each.type for each in events] == ["image_generation.completed"]
    sent = {"prompt": "a house", "stream": True}
    text = httpx.post(f"{address}/v1/images/generations", json=sent).text
    assert [line for line in text.splitlines() if line.startswith(":")] == [
        ": waiting: 2 before this one",
        ": waiting: 1 before this one",
    ]


def test_a_silent_stream_is_kept_alive(
    address: str, answers: list[Callable[[], Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vinograph.serve.openai_stream._KEEP_ALIVE", 0.01)
    job = ScriptedJob([None])
    answers.append(lambda: job)
    sent = {"prompt": "a house", "stream": True}
    with httpx.stream("POST", f"{address}/v1/images/generations", json=sent) as response:
        lines = response.iter_lines()
        assert [next(lines), next(lines), next(lines)] == [": keep-alive", "", ": keep-alive"]
    assert job.cancelled.wait(5)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_cancels_its_job(
    address: str, answers: list[Callable[[], Job]], stream: bool, service: ScriptedService
) -> None:
    job = ScriptedJob([Waiting(1), None])
    answers.append(lambda: job)
    body = json.dumps({"prompt": "a house", "stream": stream}).encode()
    head = f"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(address).port or 0)) as connection:
        connection.sendall(head.encode() + body)
        until(lambda: bool(service.submitted))
        assert not job.cancelled.is_set()
    assert job.cancelled.wait(5)


def test_a_job_interrupted_before_its_first_picture_is_an_error(
    client: openai.OpenAI, answers: list[Callable[[], Job]], waits: list[float]
) -> None:
    answers += [lambda: ScriptedJob([drawn()])] * 2
    with pytest.raises(openai.InternalServerError, match="was interrupted") as caught:
        client.images.generate(prompt="a house")
    assert caught.value.code == "interrupted"
    with pytest.raises(openai.APIError, match="was interrupted"):
        next(client.images.generate(prompt="a house", stream=True))
    assert not waits


class TestLinks:
    def test_a_picture_can_be_fetched_by_its_address(
        self, client: openai.OpenAI, answers: list[Callable[[], Job]], address: str
    ) -> None:
        answers.append(lambda: ScriptedJob([drawn(b"one", b"two")]))
        response = client.images.generate(prompt="a house", n=2, response_format="url")
        assert response.data is not None
        assert [each.b64_json for each in response.data] == [None, None]
        found = [httpx.get(each.url or "") for each in response.data]
        assert [each.content for each in found] == [b"one", b"two"]
        assert {each.headers["content-type"] for each in found} == {"image/png"}
        assert httpx.post(response.data[0].url or "").status_code == 405

    @pytest.mark.parametrize("name", ["", "x.png", "%2e%2e", "..%2f..%2fmodels", "a/b"])
    def test_other_addresses_have_nothing(self, address: str, name: str, answers: list[Any]) -> None:
        response = httpx.get(f"{address}/v1/images/files/{name}")
        assert response.status_code == 404

    @pytest.mark.parametrize("model", ["dall-e-2", "dall-e-3"])
    def test_clients_of_the_first_models_get_both_unless_they_say(
        self, model: str, client: openai.OpenAI, answers: list[Callable[[], Job]]
    ) -> None:
        answers += [lambda: ScriptedJob([drawn(PNG)])] * 2
        for wanted in (openai.omit, "b64_json"):
            response = client.images.generate(prompt="a house", model=model, response_format=wanted)
            assert response.data is not None
            assert response.data[0].b64_json
            assert (response.data[0].url is not None) == (wanted is openai.omit)
