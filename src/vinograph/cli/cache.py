"""The command ``cache``, which shows compiled components and measured settings."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from vinograph.cli import output
from vinograph.cli.options import AsJson
from vinograph.runtime.cache import Cache, Description, Entry, parse_size


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="delete compiled components and measured settings")] = False,
    limit: Annotated[
        str | None,
        typer.Option(
            "--limit", metavar="SIZE", help="the most that compiled components may take, such as 5GB; 0: none"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the compiled components and measured settings that are stored between processes.

    Components are compiled for the shapes of their inputs, and so for a picture size. Settings are
    those that were measured to be the fastest. Both are stored in $VINOGRAPH_CACHE, or
    ~/.cache/vinograph.

    Components take at most 1 GB, or a twentieth of the free disk space if that is less. Components
    with int8 or int4 weights, and those of checkpoints that were not converted, are stored with
    their weights if they took seconds to compile: at most 10 GB, or a tenth of the free disk space.
    The least recently used are deleted first. --limit applies to both kinds together;
    $VINOGRAPH_CACHE_LIMIT overrides it.
    """
    disk_cache = Cache()
    if limit is not None:
        disk_cache.set_limit(parse_size(limit))
    if clear:
        disk_cache.clear()
    entries, settings = disk_cache.entries(), _measured(disk_cache)
    if as_json:
        output.print_json(
            {
                "folder": str(disk_cache.folder),
                "limit": disk_cache.limit,
                "size": sum(each.size for each in entries),
                "with_weights": {"limit": disk_cache.limit_with_weights, "size": _size(entries, with_weights=True)},
                "compiled": [_entry_record(each) for each in entries],
                "settings": settings,
                "warnings": disk_cache.take_warnings(),
            }
        )
        return
    if entries:
        rows = [
            [
                *(each.description.model, each.description.component, output.size(each.size)),
                *("with weights" if each.with_weights else "", _when(each).replace("T", " ")),
                each.description.shapes,
            ]
            for each in entries
        ]
        output.table(["model", "component", "size", "", "last used", "shapes"], rows)
    if settings:
        rows = [[each["model"], each["component"], each["setting"], _seconds(each["seconds"])] for each in settings]
        output.table(["model", "component", "fastest", "seconds in each"], rows)
    total, large = (output.size(_size(entries, with_weights=each)) for each in (False, True))
    output.say(
        f"{disk_cache.folder}: {total} of at most {output.size(disk_cache.limit)}, "
        f"and with weights {large} of at most {output.size(disk_cache.limit_with_weights)}"
    )
    for warning in disk_cache.take_warnings():
        output.warn(warning)


def _measured(disk_cache: Cache) -> list[dict[str, Any]]:
    """Records of the measured settings, without damaged ones."""
    records = []
    for record in disk_cache.settings().values():
        seconds = record.get("seconds")
        if "chosen" in record and isinstance(seconds, dict):
            described = vars(Description.read(record))
            records.append({**described, "setting": str(record.get("setting")), "seconds": seconds})
    return records


def _size(entries: list[Entry], *, with_weights: bool) -> int:
    """Total bytes of the entries that are stored with weights, or of the others."""
    return sum(each.size for each in entries if each.with_weights is with_weights)


def _entry_record(entry: Entry) -> dict[str, Any]:
    size = {"size": entry.size, "with_weights": entry.with_weights}
    return {"file": entry.file.name, **size, "last_used": _when(entry), **vars(entry.description)}


def _when(entry: Entry) -> str:
    return datetime.fromtimestamp(entry.used).astimezone().isoformat(timespec="seconds")[:19]


def _seconds(by_setting: dict[str, Any]) -> str:
    return "; ".join(f"{setting} {seconds}" for setting, seconds in by_setting.items())
