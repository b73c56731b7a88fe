"""``cache``: what is kept between processes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from vinograph.cli import output
from vinograph.cli.options import AsJson
from vinograph.runtime.cache import About, Cache, Entry, parse_size


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="throw away what is compiled and what was measured")] = False,
    limit: Annotated[
        str | None,
        typer.Option("--limit", metavar="SIZE", help="what compiled components may take, such as 5GB; 0 keeps none"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what is kept between processes.

    That is components compiled for a size of picture, and the settings that were measured to be the fastest. It lies in
    $VINOGRAPH_CACHE, or ~/.cache/vinograph.

    Components take 1 GB at most, or a twentieth of the disk's free space. Those in few bits, and those of checkpoints
    that were not converted, are kept with their weights where they took seconds to compile: 10 GB at most, or a tenth.
    What was used longest ago goes. A --limit is for both together; $VINOGRAPH_CACHE_LIMIT goes before it.
    """
    stored = Cache()
    if limit is not None:
        stored.set_limit(parse_size(limit))
    if clear:
        stored.clear()
    entries, settings = stored.entries(), _measured(stored)
    if as_json:
        output.print_json(
            {
                "folder": str(stored.folder),
                "limit": stored.limit,
                "size": sum(each.size for each in entries),
                "with_weights": {"limit": stored.limit_with_weights, "size": _size(entries, with_weights=True)},
                "compiled": [_entry_record(each) for each in entries],
                "settings": settings,
                "warnings": stored.take_notes(),
            }
        )
        return
    if entries:
        rows = [
            [
                *(each.about.model, each.about.component, output.size(each.size)),
                *("with weights" if each.with_weights else "", _when(each).replace("T", " ")),
            ]
            for each in entries
        ]
        output.table(["model", "component", "size", "", "last used"], rows)
    if settings:
        rows = [[each["model"], each["component"], each["setting"], _seconds(each["seconds"])] for each in settings]
        output.table(["model", "component", "fastest", "seconds in each"], rows)
    total, large = (output.size(_size(entries, with_weights=each)) for each in (False, True))
    output.say(
        f"{stored.folder}: {total} of at most {output.size(stored.limit)}, "
        f"and with weights {large} of at most {output.size(stored.limit_with_weights)}"
    )
    for note in stored.take_notes():
        output.warn(note)


def _measured(stored: Cache) -> list[dict[str, Any]]:
    """The settings that were measured; what is only on the way there is left out."""
    found = []
    for record in stored.settings().values():
        seconds = record.get("seconds")
        if "chosen" in record and isinstance(seconds, dict):
            described = vars(About.read(record))
            found.append({**described, "setting": str(record.get("setting")), "seconds": seconds})
    return found


def _size(entries: list[Entry], *, with_weights: bool) -> int:
    """Bytes of those with their weights, or of the others."""
    return sum(each.size for each in entries if each.with_weights is with_weights)


def _entry_record(entry: Entry) -> dict[str, Any]:
    size = {"size": entry.size, "with_weights": entry.with_weights}
    return {"file": entry.file.name, **size, "last_used": _when(entry), **vars(entry.about)}


def _when(entry: Entry) -> str:
    return datetime.fromtimestamp(entry.used).astimezone().isoformat(timespec="seconds")[:19]


def _seconds(by_setting: dict[str, Any]) -> str:
    return "; ".join(f"{setting} {seconds}" for setting, seconds in by_setting.items())
