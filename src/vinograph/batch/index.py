"""Knows what became of every picture: an SQLite file, from which the manifest is written.

A killed process loses at most the last records, and then the files themselves say what is done.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vinograph.batch.pictures import Picture
from vinograph.errors import RequestError
from vinograph.files import explained

DONE, FAILED, WAITING = "done", "error", "waiting"
_TABLES = """
create table if not exists pictures (
    id integer primary key, key blob unique, row integer, status text, attempts integer default 0,
    sha256 text, bytes integer, seconds real, error text, warnings text, run integer, arguments text
);
create table if not exists copies (key blob, row integer, primary key (key, row)) without rowid;
create table if not exists runs (run integer primary key);
"""
_CACHE_KB = 1 << 16
_EXPORTED = 10_000  # records at once


@dataclass(frozen=True)
class Outcome:
    """What became of a picture: the hash and the size of its file, or an error."""

    key: str
    sha256: str | None = None
    size: int | None = None
    seconds: float | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()
    retry: bool = False
    """Whether another try may go better: memory was short."""
    found: bool = False
    """Whether the file was there: whoever drew it could not say so any more."""


@dataclass(frozen=True)
class Known:
    """What is known of a picture; ``seen`` says whether this run has met it already."""

    status: str
    attempts: int
    seen: bool


class Index:
    """The index in a file; one process at a time uses it."""

    def __init__(self, file: Path) -> None:
        """Open the file, which is made where it isn't there.

        Raises:
            RequestError: another process uses it, or it is no index.
        """
        self._file = file
        with explained(file):
            file.touch()
        self._database = sqlite3.connect(file, timeout=1, isolation_level=None)
        try:
            self._begin()
        except sqlite3.Error as error:
            self._database.close()
            raise _unusable(file, error) from error

    def _begin(self) -> None:
        run = self._database.execute
        run("pragma locking_mode = exclusive")
        run("pragma journal_mode = truncate")
        run(f"pragma cache_size = -{_CACHE_KB}")
        run("pragma synchronous = off")  # the files are what is flushed: they say what is done
        run("begin exclusive")
        for table in _TABLES.split(";"):
            run(table)
        (self._run,) = run("select coalesce(max(run), 0) + 1 from runs").fetchone()
        run("insert into runs values (?)", (self._run,))
        self.commit()

    def close(self) -> None:
        """Write what was recorded, and close the file."""
        with suppress(sqlite3.Error):
            self._database.execute("commit")
        self._database.close()

    def commit(self) -> None:
        """Write what was recorded so far."""
        with explained(self._file):
            self._database.execute("commit")
            self._database.execute("begin")

    def meet(self, picture: Picture) -> Known | None:
        """Take a picture of this run's list; returns what was known of it, None for a new one."""
        found = self._database.execute(
            "select status, attempts, run from pictures where key = ?", (_packed(picture.key),)
        ).fetchone()
        if found is None:
            arguments = json.dumps(picture.arguments, default=repr)
            self._database.execute(
                "insert into pictures (key, row, arguments, status, run) values (?, ?, ?, ?, ?)",
                (_packed(picture.key), picture.row, arguments, WAITING, self._run),
            )
            return None
        status, attempts, run = found
        if run == self._run:
            self._database.execute("insert or ignore into copies values (?, ?)", (_packed(picture.key), picture.row))
        else:
            self._database.execute("delete from copies where key = ?", (_packed(picture.key),))
            self._database.execute(
                "update pictures set run = ?, row = ? where key = ?", (self._run, picture.row, _packed(picture.key))
            )
        return Known(status, attempts, run == self._run)

    def record(self, outcome: Outcome) -> None:
        """Record a drawing, or a try that failed."""
        self._database.execute(
            "update pictures set status = ?, attempts = attempts + 1, sha256 = ?, bytes = ?, seconds = ?, error = ?,"
            " warnings = ? where key = ?",
            (
                FAILED if outcome.error is not None else DONE,
                outcome.sha256,
                outcome.size,
                outcome.seconds,
                None if outcome.error is None else _encodable(outcome.error),
                json.dumps(outcome.warnings),
                _packed(outcome.key),
            ),
        )

    def found(self, key: str, sha256: str | None, size: int | None) -> None:
        """Record a file that is there, though the index doesn't know it."""
        self._database.execute(
            "update pictures set status = ?, sha256 = ?, bytes = ?, error = null where key = ?",
            (DONE, sha256, size, _packed(key)),
        )

    def attempts(self, key: str) -> int:
        """How often a picture was tried."""
        (attempts,) = self._database.execute("select attempts from pictures where key = ?", (_packed(key),)).fetchone()
        return int(attempts)

    def records(self) -> Iterator[dict[str, Any]]:
        """What the manifest says of each picture, by rows."""
        copies: dict[bytes, list[int]] = {}
        for key, row in self._database.execute("select key, row from copies order by row"):
            copies.setdefault(key, []).append(row)
        rows = self._database.execute(
            "select key, row, arguments, status, attempts, sha256, bytes, seconds, error, warnings"
            " from pictures order by row, id"
        )
        for packed, row, arguments, status, attempts, sha256, size, seconds, error, warnings in rows:
            key = packed.hex()
            yield {
                "key": key,
                "rows": [row, *copies.get(packed, ())],
                "status": status,
                "path": f"{key[:2]}/{key}.png" if status == DONE else None,
                "sha256": sha256,
                "bytes": size,
                "seconds": seconds,
                "attempts": attempts,
                "error": error,
                "warnings": json.loads(warnings or "[]"),
                "arguments": json.loads(arguments),
            }

    def write_manifest(self, file: Path) -> list[Path]:
        """Write the manifest as ``file``.jsonl and, where pyarrow is there, as ``file``.parquet."""
        lines = file.with_name(f"{file.name}.jsonl")
        with explained(lines), lines.open("w", encoding="utf-8", errors="backslashreplace") as stream:
            for record in self.records():
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        if importlib.util.find_spec("pyarrow") is None:
            return [lines]
        return [lines, _as_parquet(self.records(), file.with_name(f"{file.name}.parquet"))]


def _packed(key: str) -> bytes:
    return bytes.fromhex(key)


def _encodable(text: str) -> str:
    """The text without halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()


def _as_parquet(records: Iterator[dict[str, Any]], file: Path) -> Path:
    import pyarrow
    from pyarrow import parquet

    texts = dict.fromkeys(("status", "path", "sha256", "error", "arguments"), pyarrow.string())
    schema = pyarrow.schema(
        {
            "key": pyarrow.string(),
            "rows": pyarrow.list_(pyarrow.int64()),
            **texts,
            "bytes": pyarrow.int64(),
            "seconds": pyarrow.float64(),
            "attempts": pyarrow.int64(),
            "warnings": pyarrow.list_(pyarrow.string()),
        }
    )
    with explained(file), parquet.ParquetWriter(file, schema) as writer:
        for part in _parts(records):
            writer.write_table(pyarrow.Table.from_pylist(part, schema))
    return file


def _parts(records: Iterator[dict[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    part: list[Mapping[str, Any]] = []
    for record in records:
        part.append({**record, "arguments": json.dumps(record["arguments"])})
        if len(part) == _EXPORTED:
            yield part
            part = []
    yield part


def _unusable(file: Path, error: sqlite3.Error) -> RequestError:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return RequestError(f"another batch draws into {file.parent.parent}; wait for it, or name another folder")
    return RequestError(f"{file} can't be used ({error}); delete it: the pictures stay, and are found again")
