"""The server's log: one line for each request and each drawing, as text or as JSON.

Keys, queries and the secret names of pictures are never in it, and prompts only if asked for.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from vinograph.serve.contract import AdapterInfo, Drawing, Job, ModelInfo, Service
from vinograph.values import clipped

LOG = logging.getLogger("vinograph.serve")
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
_FIELDS = "fields"
_LONGEST_PROMPT = 2000  # characters


def configure(log_format: str, handler: logging.Handler | None = None) -> None:
    """Write the log of this process to standard error, or to the ``handler``."""
    handler = handler or logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if log_format == "json" else TextFormatter())
    for name, level in (("vinograph.serve", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every garbled form


def event(message: str, **fields: Any) -> None:
    """Log a message with its details."""
    LOG.info(message, extra={_FIELDS: fields})


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    fields = dict(getattr(record, _FIELDS, {}))
    if request := REQUEST_ID.get():
        fields.setdefault("request_id", request)
    return fields


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class TextFormatter(logging.Formatter):
    """A line for people: time, level, message, and each detail as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line, and a traceback after it if there is one."""
        details = "".join(f" {name}={_as_word(value)}" for name, value in _fields_of(record).items())
        line = f"{_time(record)} {record.levelname} {clipped(record.getMessage())}{details}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JSONFormatter(logging.Formatter):
    """One JSON object in a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; a traceback is one of its values."""
        line = {"time": _time(record), "level": record.levelname, "message": record.getMessage(), **_fields_of(record)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _as_word(value: Any) -> str:
    """A value in a line of text: quoted where it could be taken for something else."""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if text.isascii() and text.isprintable() and " " not in text and text else json.dumps(text)


class LoggedService:
    """A service whose drawings are logged, with their prompts if asked for."""

    def __init__(self, service: Service, *, prompts: bool) -> None:
        self._service = service
        self._prompts = prompts

    async def submit(self, drawing: Drawing) -> Job:
        """Check a drawing and put it into the queue."""
        job = await self._service.submit(drawing)
        event("drawing queued", job=job.id, **self._described(drawing))
        return job

    def _described(self, drawing: Drawing) -> Mapping[str, Any]:
        fields = {"model": clipped(drawing.model) or "default", "call": drawing.call}
        if self._prompts:
            fields["prompt"] = str(drawing.arguments.get("prompt", ""))[:_LONGEST_PROMPT]
        return fields

    async def find(self, name: str) -> ModelInfo:
        """The model that a client's name means."""
        return await self._service.find(name)

    async def models(self) -> Sequence[ModelInfo]:
        """All models, the default one first."""
        return await self._service.models()

    async def adapters(self) -> Sequence[AdapterInfo]:
        """The adapters that a request can name."""
        return await self._service.adapters()

    @property
    def running(self) -> Job | None:
        """The job that is being drawn."""
        return self._service.running

    @property
    def waiting(self) -> Sequence[Job]:
        """The jobs in the queue, the next one first."""
        return self._service.waiting

    @property
    def ready(self) -> bool:
        """Whether the default model is loaded and new work is taken."""
        return self._service.ready
