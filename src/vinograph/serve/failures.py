"""Turns every error into what an HTTP response says: status, message, code and headers.

Each API writes an :class:`HTTPFailure` in its own shape. openai-python retries most statuses from
500 on; ``x-should-retry: false`` keeps it from drawing three times what fails three times.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from vinograph import resources
from vinograph.errors import DeviceError, NumericalError, RequestError, ResourceError, VinographError
from vinograph.serve import contract

LOG = logging.getLogger("vinograph.serve")

NO_RETRY: Mapping[str, str] = {"x-should-retry": "false"}
CLIENT_CLOSED = 499  # nginx's status for a client that went away; there is no standard one
_DRAINING_SECONDS = 5  # until another server, or this one again, may answer
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}


class HTTPFailure(Exception):  # noqa: N818 - it is what is answered, and not always an error of ours
    """A request is answered with a status from 400 on.

    Attributes:
        status: the HTTP status.
        message: what was wrong, what was given, and what would work.
        code: a short name for programs, such as "queue_full".
        param: the field of the request that was wrong; None where it is no single one.
        headers: further headers of the response.
    """

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers: Mapping[str, str] = dict(headers or {})
        super().__init__(message)


def failure_of(error: BaseException) -> HTTPFailure:
    """What a client is told of an error.

    An error of no class of ours is a defect: it is logged here with its traceback, and the client
    learns nothing of it but that it happened.
    """
    if isinstance(error, HTTPFailure):
        return error
    if isinstance(error, HTTPException):
        code = _CODES.get(error.status_code, "error")
        return HTTPFailure(error.status_code, str(error.detail), code, headers=error.headers)
    if isinstance(error, ClientDisconnect):
        return HTTPFailure(CLIENT_CLOSED, "the client went away", "client_closed")
    if isinstance(error, contract.ServiceError):
        return _of_service(error)
    if isinstance(error, VinographError):
        return _of_drawing(error)
    if (short := resources.explanation(error)) is not None:
        return _of_drawing(ResourceError(short))
    LOG.error("a defect of Vinograph; please report it with these lines", exc_info=error)
    message = f"a defect of the server ({type(error).__name__}); its log has the details"
    return HTTPFailure(500, message, "internal_error", headers=NO_RETRY)


def _of_service(error: contract.ServiceError) -> HTTPFailure:
    message = str(error)
    match error:
        case contract.UnknownModelError():
            return HTTPFailure(404, message, "model_not_found", "model")
        case contract.QueueFullError():
            return HTTPFailure(429, message, "queue_full", headers={"Retry-After": str(max(1, error.retry_after))})
        case contract.DrainingError():
            return HTTPFailure(503, message, "draining", headers={"Retry-After": str(_DRAINING_SECONDS)})
        case contract.DeadlineError():
            return HTTPFailure(504, message, "deadline_exceeded", headers=NO_RETRY)
        case contract.CancelledJobError():
            return HTTPFailure(CLIENT_CLOSED, message, "cancelled", headers=NO_RETRY)
        case contract.WorkerLostError():
            return HTTPFailure(500, message, "worker_lost", headers=NO_RETRY)
        case _:  # ModelUnavailableError
            return HTTPFailure(503, message, "model_unavailable", headers=NO_RETRY)


def _of_drawing(error: VinographError) -> HTTPFailure:
    message = str(error)
    match error:
        case DeviceError():  # the configuration's, not the client's
            return HTTPFailure(503, message, "model_unavailable", headers=NO_RETRY)
        case RequestError():
            return HTTPFailure(400, message, "invalid_value")
        case ResourceError():
            return HTTPFailure(503, message, "insufficient_resources", headers=NO_RETRY)
        case NumericalError():
            return HTTPFailure(500, message, "numerical_error", headers=NO_RETRY)
        case _:  # ModelError, DamagedModelError
            return HTTPFailure(503, message, "model_unavailable", headers=NO_RETRY)
