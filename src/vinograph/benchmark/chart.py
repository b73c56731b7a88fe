"""A chart of the results, drawn with matplotlib."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from typing import Any

from vinograph.errors import RequestError

ENDINGS = (".svg", ".png")
_DPI = 150
_BAR_HEIGHT = 0.55  # inches
_WIDTH = 10.0  # inches

Row = Mapping[str, Any]


def check() -> None:
    """Check that charts can be drawn here.

    Raises:
        RequestError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise RequestError('--chart needs matplotlib: pip install "vinograph[benchmark]"')


def draw(record: Mapping[str, Any], ending: str) -> bytes:
    """A chart as the bytes of a file of the type that ``ending`` names.

    It shows seconds by stage and peaks of memory, or seconds by batch size where several were
    measured. At least one row of the record must have figures.
    """
    import matplotlib
    from matplotlib.figure import Figure

    rows = [row for row in record["rows"] if row["failure"] is None]
    by_batch = len({row["count"] for row in rows}) > 1
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vinograph"}):
        figure = Figure(figsize=(_WIDTH, 4.5 if by_batch else 1.8 + _BAR_HEIGHT * len(rows)), layout="constrained")
        if by_batch:
            _batches(figure.add_subplot(), rows)
        else:
            seconds, memory = figure.subplots(1, 2, width_ratios=[3, 1], sharey=True)
            _stages(seconds, rows)
            _memory(memory, rows)
        machine = record["machine"]
        figure.suptitle(f"{machine['processor']}, {machine['cores']} cores, {record['date'][:10]}", fontsize=9)
        written = io.BytesIO()
        figure.savefig(written, format=ending.removeprefix("."), dpi=_DPI, metadata=_metadata(ending))
    return written.getvalue()


def _metadata(ending: str) -> dict[str, Any]:
    return {"Date": None} if ending == ".svg" else {}


def _stages(axes: Any, rows: Sequence[Row]) -> None:
    """One bar for each row: its stages one after the other, with the sum at its end."""
    steady = all(row["stages"] for row in rows)
    places = list(range(len(rows)))
    left = [0.0] * len(rows)
    shown = [{name: each / row["count"] for name, each in _stages_of(row, steady).items()} for row in rows]
    for stage in dict.fromkeys(name for each in shown for name in each):
        widths = [each.get(stage, 0.0) for each in shown]
        axes.barh(places, widths, left=left, label=stage)
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    for place, row, end in zip(places, rows, left, strict=True):
        whole = row["seconds_per_picture"] if steady else row["first_drawing"] / row["count"]
        axes.text(max(whole, end), place, f" {whole:.2f} s", va="center", fontsize=9)
    axes.set_yticks(places, [row["name"] for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("seconds per picture" if steady else "seconds of the first picture, compilation included")
    axes.legend(fontsize=8, frameon=False)
    _plain(axes)


def _stages_of(row: Row, steady: bool) -> Mapping[str, float]:
    found: Mapping[str, float] = row["stages"] if steady else row["first_stages"]
    return found


def _memory(axes: Any, rows: Sequence[Row]) -> None:
    """Bars of the peaks of resident memory."""
    sizes = [row["peaks"]["resident"] / 1e9 for row in rows]
    axes.barh(range(len(rows)), sizes, color="0.6")
    for place, size in enumerate(sizes):
        axes.text(size, place, f" {size:.1f}", va="center", fontsize=9)
    axes.margins(x=0.25)
    axes.set_xlabel("peak memory, GB")
    _plain(axes)


def _batches(axes: Any, rows: Sequence[Row]) -> None:
    """Seconds per picture over the batch size, a line for each system."""
    for name in dict.fromkeys(row["name"] for row in rows):
        points = sorted((row["count"], row["seconds_per_picture"]) for row in rows if row["name"] == name)
        known = [(count, seconds) for count, seconds in points if seconds is not None]
        axes.plot([count for count, _ in known], [seconds for _, seconds in known], marker="o", label=name)
    axes.set_xticks(sorted({row["count"] for row in rows}))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("pictures at once")
    axes.set_ylabel("seconds per picture")
    axes.legend(fontsize=8, frameon=False)
    _plain(axes)


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
