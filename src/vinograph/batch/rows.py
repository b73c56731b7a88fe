"""Reads the rows of a file of prompts, one after the other, however many there are."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vinograph import strict_json
from vinograph.errors import RequestError
from vinograph.values import clipped

PROMPT = "prompt"
_LONGEST_CELL = 1 << 24  # characters
_PARQUET_BATCH = 1024  # rows


@dataclass(frozen=True)
class Row:
    """A row: its number, from 1, and its values by column; those of a CSV file are texts.

    ``error`` says why it can't be read; then ``values`` hold what stands there, as "line".
    """

    number: int
    values: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class PromptFile:
    """A file of prompts: ``columns`` are the names that it declares, if it does."""

    path: Path
    read: Callable[[], Iterator[Row]]
    columns: tuple[str, ...] = ()
    texts: bool = False
    """Whether the values are texts, as in a CSV file."""


def open_prompts(path: Path) -> PromptFile:
    """Open a file by its ending: .txt, .jsonl, .csv or .parquet.

    Raises:
        RequestError: there is no such file, its ending is none of these, it has no rows to draw,
            or it takes a package that is not installed.
    """
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise RequestError(f"{path} has no ending that says what it is; name a file that ends in {', '.join(_KINDS)}")
    if not path.is_file():
        raise RequestError(f"there is no file of prompts {path}")
    try:
        return kind(path)
    except OSError as error:
        raise RequestError(f"{path} can't be read: {error.strerror or error}") from error


def _open_text(path: Path) -> PromptFile:
    def read() -> Iterator[Row]:
        for number, line in _lines(path):
            try:
                text = line.decode("utf-8").strip()
            except UnicodeDecodeError as error:
                yield _unreadable(number, line, f"it is not UTF-8: {error.reason} at byte {error.start}")
                continue
            if text:
                yield Row(number, {PROMPT: text})

    return PromptFile(path, read)


def _open_jsonl(path: Path) -> PromptFile:
    def read() -> Iterator[Row]:
        for number, line in _lines(path):
            if not line.strip():
                continue
            try:
                yield Row(number, _object(line))
            except ValueError as error:
                yield _unreadable(number, line, f"it is no JSON object: {error}")

    return PromptFile(path, read)


def _object(line: bytes) -> dict[str, Any]:
    return strict_json.parse_object(line.decode("utf-8"))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _unreadable(number: int, line: bytes, error: str) -> Row:
    return Row(number, {"line": line.decode("utf-8", "backslashreplace").rstrip("\r\n")}, error)


def _open_csv(path: Path) -> PromptFile:
    csv.field_size_limit(_LONGEST_CELL)

    def read() -> Iterator[Row]:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            table = csv.reader(stream)
            head = next(table, [])
            for number, cells in enumerate(_records(table), 1):
                if cells:
                    yield _cells_row(number, head, cells)

    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        try:
            head = next(csv.reader(stream), [])
        except csv.Error as error:
            raise RequestError(f"{path} has no first line with the columns' names: {error}") from error
    return PromptFile(path, read, _checked_columns(path, head), texts=True)


def _records(table: Any) -> Iterator[list[str] | csv.Error]:
    while True:
        try:
            yield next(table)
        except StopIteration:
            return
        except csv.Error as error:
            yield error


def _cells_row(number: int, head: list[str], cells: list[str] | csv.Error) -> Row:
    if isinstance(cells, csv.Error):
        return Row(number, {"line": ""}, f"it is no line of a CSV file: {cells}")
    if len(cells) != len(head):
        return Row(number, {"line": cells}, f"it has {len(cells)} cells for {len(head)} columns")
    if any(not each.isprintable() and _has_surrogates(each) for each in cells):
        return Row(number, {"line": [each.encode("utf-8", "replace").decode() for each in cells]}, "it is not UTF-8")
    return Row(number, {name: cell for name, cell in zip(head, cells, strict=True) if cell})


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _open_parquet(path: Path) -> PromptFile:
    if importlib.util.find_spec("pyarrow") is None:
        raise RequestError(f'{path} is a Parquet file, which needs pyarrow: pip install "vinograph[batch]"')
    from pyarrow import ArrowException, parquet

    def read() -> Iterator[Row]:
        number = 0
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(_PARQUET_BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, {name: value for name, value in values.items() if value is not None})

    try:
        columns = parquet.read_schema(path).names
    except ArrowException as error:
        raise RequestError(f"{path} is not a Parquet file: {error}") from error
    return PromptFile(path, read, _checked_columns(path, columns))


def _checked_columns(path: Path, columns: list[str]) -> tuple[str, ...]:
    if PROMPT not in columns:
        shown = ", ".join(clipped(each) for each in columns) or "nothing"
        raise RequestError(f"{path} has no column prompt; its columns are {shown}")
    if doubled := [each for each in columns if columns.count(each) > 1]:
        raise RequestError(f"{path} has the column {clipped(doubled[0])} twice")
    return tuple(columns)


def plain(values: Mapping[str, Any]) -> str:
    """Values as text that is the same for equal ones."""
    return json.dumps(values, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


_KINDS: Mapping[str, Callable[[Path], PromptFile]] = {
    ".txt": _open_text,
    ".jsonl": _open_jsonl,
    ".csv": _open_csv,
    ".parquet": _open_parquet,
}
