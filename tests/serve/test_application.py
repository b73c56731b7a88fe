"""The routes of the application: probes, shapes of errors, methods, metrics, and the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from starlette.responses import PlainTextResponse

from tests.serve.serving import MODEL, QuickService, ask, configured, serving, until
from vinograph.errors import NumericalError, ResourceError
from vinograph.serve import contract
from vinograph.serve.logs import JSONFormatter, TextFormatter

DRAW = "/v1/images/generations"
TXT2IMG = "/sdapi/v1/txt2img"
PROMPT = {"prompt": "a very secret house"}


def test_a_picture_is_drawn_by_both_apis(address: str) -> None:
    assert len(ask(address, DRAW, PROMPT).json["data"]) == 1
    assert len(ask(address, TXT2IMG, PROMPT).json["images"]) == 1


def test_probes_tell_alive_from_ready(address: str, quick: QuickService) -> None:
    assert [ask(address, path).status for path in ("/livez", "/readyz")] == [200, 200]
    quick.ready = False
    assert [ask(address, path).status for path in ("/livez", "/readyz")] == [200, 503]


class TestShapes:
    """Errors have the shape of their API, also those that no route raises."""

    @pytest.mark.parametrize("path", ["/v1/nothing", "/v1/images", "/v1/models/unknown", "/nothing", "/sdapi"])
    def test_an_unknown_path_in_openais(self, address: str, path: str) -> None:
        answer = ask(address, path)
        assert answer.status == 404
        assert answer.json["error"].keys() == {"message", "type", "param", "code"}

    def test_an_unknown_path_in_a1111s(self, address: str) -> None:
        answer = ask(address, "/sdapi/v1/nothing")
        assert answer.status == 404
        assert answer.json.keys() == {"error", "detail", "body", "errors"}

    def test_the_page_has_what_no_api_has(self, quick: QuickService) -> None:
        with serving(quick, configured(), PlainTextResponse("page")) as address:
            assert [ask(address, path).body for path in ("/", "/anything", "/metric")] == [b"page"] * 3
            assert ask(address, "/v1/nothing").json["error"]["code"] == "not_found"
            assert ask(address, "/sdapi/v1/nothing").json["error"] == "not_found"

    @pytest.mark.parametrize(
        ("path", "method", "allow"),
        [
            (DRAW, "GET", "POST"),
            (DRAW, "OPTIONS", "POST"),
            ("/sdapi/v1/options", "PUT", "GET, HEAD, POST"),
            ("/v1/models", "POST", "GET, HEAD"),
            ("/metrics", "DELETE", "GET, HEAD"),
        ],
    )
    def test_an_unknown_method(self, address: str, path: str, method: str, allow: str) -> None:
        answer = ask(address, path, method=method)
        assert (answer.status, answer.headers["Allow"]) == (405, allow)
        assert ("detail" if "sdapi" in path else "error") in answer.json

    @pytest.mark.parametrize("path", [DRAW, TXT2IMG])
    @pytest.mark.parametrize(
        ("error", "status", "header"),
        [
            (contract.QueueFullError("full", 3), 429, ("Retry-After", "3")),
            (contract.DrainingError("ends"), 503, ("Retry-After", "5")),
            (contract.ModelUnavailableError("it is short"), 503, ("x-should-retry", "false")),
        ],
    )
    def test_what_is_refused(
        self, address: str, quick: QuickService, path: str, error: Exception, status: int, header: tuple[str, str]
    ) -> None:
        quick.refuse = error
        answer = ask(address, path, PROMPT)
        assert (answer.status, answer.headers[header[0]]) == (status, header[1])
        assert ("errors" if path == TXT2IMG else "error") in answer.json

    @pytest.mark.parametrize("path", [DRAW, TXT2IMG])
    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (contract.DeadlineError("late"), 504),
            (contract.WorkerLostError("killed"), 500),
            (contract.CancelledJobError("gone"), 499),
            (NumericalError("unet", "f16", "use f32"), 500),
            (ResourceError("memory"), 503),
            (KeyError("a defect"), 500),
        ],
    )
    def test_what_fails_is_not_to_be_tried_again(
        self, address: str, quick: QuickService, path: str, error: Exception, status: int
    ) -> None:
        quick.fail = error
        answer = ask(address, path, PROMPT)
        assert (answer.status, answer.headers["x-should-retry"]) == (status, "false")
        assert b"Traceback" not in answer.body


def test_every_response_is_named_and_guarded(address: str) -> None:
    answers = [ask(address, path) for path in ("/v1/models", "/nothing", "/livez", "/")]
    assert len({each.headers["x-request-id"] for each in answers}) == len(answers)
    for each in answers:
        assert each.headers["x-content-type-options"] == "nosniff"
        assert each.headers["server"] is None


def test_the_root_is_for_people(address: str) -> None:
    answer = ask(address, "/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert MODEL.encode() in answer.body


class TestMetrics:
    """What Prometheus reads."""

    @pytest.fixture
    def address(self, quick: QuickService) -> Iterator[str]:
        """A server whose counters begin at zero."""
        with serving(quick, configured()) as found:
            yield found

    def test_requests_are_counted_by_route_and_status(self, address: str) -> None:
        ask(address, DRAW, PROMPT)
        ask(address, "/v1/models/some-name-of-a-client")
        for index in range(3):
            ask(address, f"/nothing/{index}", method="BREW")
        until(lambda: b'status="404"} 3.0' in ask(address, "/metrics").body)
        text = ask(address, "/metrics").body.decode()
        assert f'vinograph_requests_total{{method="POST",route="{DRAW}",status="200"}} 1.0' in text
        assert 'vinograph_requests_total{method="GET",route="/v1/models/{name:path}",status="200"} 1.0' in text
        assert 'vinograph_requests_total{method="other",route="other",status="404"} 3.0' in text
        assert "some-name-of-a-client" not in text
        assert "BREW" not in text

    def test_the_state_is_read_when_it_is_asked_for(self, address: str, quick: QuickService) -> None:
        quick.waiting, quick.under_way_count = (object(), object()), 1
        text = ask(address, "/metrics").body.decode()
        assert "vinograph_queue_depth 2.0" in text
        assert "vinograph_running 1.0" in text
        assert f'vinograph_model_loaded{{model="{MODEL}"}} 1.0' in text
        assert 'vinograph_build_info{openvino="' in text
        memory = next(
            line for line in text.splitlines() if line.startswith('vinograph_resident_memory_bytes{process="server"}')
        )
        assert float(memory.split()[1]) > 10_000_000


class TestLog:
    """What the log holds, and what it doesn't."""

    @pytest.fixture
    def records(self, caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
        with caplog.at_level(logging.INFO, "vinograph.serve"):
            yield caplog

    def lines(self, caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
        return [json.loads(JSONFormatter().format(each)) for each in caplog.records if each.name == "vinograph.serve"]

    def test_a_request_and_its_drawing(self, address: str, records: pytest.LogCaptureFixture) -> None:
        ask(address, f"{DRAW}?key=secret-in-a-query", PROMPT)
        until(lambda: len(self.lines(records)) == 2)  # a request is logged once its response was sent
        queued, answered = self.lines(records)
        assert queued["message"] == "drawing queued"
        assert {"path": DRAW, "status": 200, "method": "POST", "client": "127.0.0.1"}.items() <= answered.items()
        texts = [TextFormatter().format(each) for each in records.records]
        assert "secret" not in json.dumps([queued, answered, texts])

    def test_prompts_only_if_asked_for(self, quick: QuickService, records: pytest.LogCaptureFixture) -> None:
        with serving(quick, configured(log_prompts=True)) as address:
            ask(address, DRAW, PROMPT)
        assert self.lines(records)[0]["prompt"] == PROMPT["prompt"]

    def test_probes_are_not_logged(self, address: str, records: pytest.LogCaptureFixture) -> None:
        ask(address, "/livez")
        ask(address, "/readyz")
        assert not self.lines(records)

    def test_no_path_begins_a_line(self, address: str, records: pytest.LogCaptureFixture) -> None:
        ask(address, "/a%0a2026-01-01%20ERROR%20forged%1b[31m")
        until(lambda: len(self.lines(records)) == 1)
        (record,) = [each for each in records.records if each.name == "vinograph.serve"]
        text = TextFormatter().format(record)
        assert len(text.splitlines()) == 1
        assert "\x1b" not in text
        assert len(JSONFormatter().format(record).splitlines()) == 1
