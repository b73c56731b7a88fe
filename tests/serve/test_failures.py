"""What each error is as a response."""

from __future__ import annotations

import logging

import pytest
from starlette.exceptions import HTTPException

from vinograph.errors import (
    DamagedModelError,
    DeviceError,
    ModelError,
    NumericalError,
    RequestError,
    ResourceError,
    VinographError,
)
from vinograph.serve import contract
from vinograph.serve.failures import HTTPFailure, failure_of

NO_RETRY = {"x-should-retry": "false"}


@pytest.mark.parametrize(
    ("error", "status", "code", "headers"),
    [
        (RequestError("n is 0"), 400, "invalid_value", {}),
        (contract.UnknownModelError("no model"), 404, "model_not_found", {}),
        (contract.QueueFullError("full", 7), 429, "queue_full", {"Retry-After": "7"}),
        (contract.QueueFullError("full", 0), 429, "queue_full", {"Retry-After": "1"}),
        (contract.DrainingError("ends"), 503, "draining", {"Retry-After": "5"}),
        (contract.ModelUnavailableError("a file is short"), 503, "model_unavailable", NO_RETRY),
        (contract.DeadlineError("600 s"), 504, "deadline_exceeded", NO_RETRY),
        (contract.WorkerLostError("killed"), 500, "worker_lost", NO_RETRY),
        (contract.CancelledJobError("interrupted"), 499, "cancelled", NO_RETRY),
        (DeviceError("no GPU"), 503, "model_unavailable", NO_RETRY),
        (ModelError("pickled"), 503, "model_unavailable", NO_RETRY),
        (DamagedModelError("short"), 503, "model_unavailable", NO_RETRY),
        (ResourceError("memory"), 503, "insufficient_resources", NO_RETRY),
        (MemoryError(), 503, "insufficient_resources", NO_RETRY),
        (NumericalError("unet", "f16", "use f32"), 500, "numerical_error", NO_RETRY),
        (HTTPException(405, "no", {"Allow": "GET"}), 405, "method_not_allowed", {"Allow": "GET"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_error_has_its_status(error: Exception, status: int, code: str, headers: dict[str, str]) -> None:
    failure = failure_of(error)
    assert (failure.status, failure.code, failure.headers) == (status, code, headers)
    assert failure.message


def leaves(kind: type[Exception]) -> set[type[Exception]]:
    return {kind} if not kind.__subclasses__() else set().union(*map(leaves, kind.__subclasses__()))


def test_no_error_of_ours_is_a_defect(caplog: pytest.LogCaptureFixture) -> None:
    made = {contract.QueueFullError: ("full", 1), NumericalError: ("unet", "f16", "use f32")}
    for kind in leaves(VinographError):
        if kind.__module__.startswith("vinograph."):
            assert failure_of(kind(*made.get(kind, ("why",)))).code != "internal_error"
    assert not caplog.records


def test_a_defect_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    try:
        {"secret": 1}["key"]
    except KeyError as error:
        with caplog.at_level(logging.ERROR):
            failure = failure_of(error)
    assert (failure.status, failure.headers) == (500, NO_RETRY)
    assert "key" not in failure.message
    assert "KeyError: 'key'" in caplog.text


def test_a_failure_is_itself() -> None:
    failure = HTTPFailure(413, "large", "too_large", "image")
    assert failure_of(failure) is failure
