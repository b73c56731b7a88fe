"""Fragments of HTML: the picture and its progress, notes, links, the gallery and the slider."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

from PIL import Image

from vinograph.web.jobs import JobStatus

_LINE = "\n"
_LONGEST_NOTE = 320  # characters
_MEASURES: Mapping[str, str] = {
    "psnr": "PSNR {:.2f} dB",
    "spatial_compression": "{:.1f} times smaller in each direction",
    "values_compression": "{:.0f} times fewer values",
}


def data_url(picture: Image.Image) -> str:
    """The picture as a data URL, which holds all of it."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def placeholder(text: str) -> str:
    """An empty frame with a text, where a picture will be."""
    return f'<figure class="figure empty"><div class="frame"><p>{escape(text)}</p></div></figure>'


def figure(source: str, size: tuple[int, int], alt: str, caption: str = "", *, unfinished: bool = False) -> str:
    """A picture in a frame, with its caption.

    Args:
        source: the picture's address; an empty one leaves the frame empty.
        size: its width and height in pixels, which give the frame its shape.
        alt: its text for people who don't see it.
        caption: HTML that stands under it.
        unfinished: whether it is a preview.
    """
    kind = "figure unfinished" if unfinished else "figure"
    image = f'<img src="{escape(source)}" alt="{escape(alt)}" decoding="sync">' if source else ""
    return (
        f'<figure class="{kind}" style="--w:{size[0]};--h:{size[1]}"><div class="frame">'
        f"{image}</div><figcaption>{caption}</figcaption></figure>"
    )


def unfinished(status: JobStatus, prompt: str = "", before: tuple[str, tuple[int, int], str] | None = None) -> str:
    """The last preview of a job, with its progress.

    ``before`` is shown until there is one: a picture's address, size and prompt.
    """
    if status.preview is None and before is not None:
        return figure(*before, progress(status), unfinished=True)
    size = (1, 1) if status.preview is None else status.preview.size
    return figure(preview_url(status), size, f"{prompt} (preview)", progress(status), unfinished=True)


def stopped(status: JobStatus, prompt: str) -> str:
    """The last preview of a stopped job, with the step after which it was stopped."""
    after = "" if status.step is None else f" after {status.step.stage} {status.step.index} of {status.step.total}"
    if status.preview is None:
        return placeholder(f"Stopped{after}.")
    return figure(preview_url(status), status.preview.size, prompt, facts(f"Stopped{after}"))


def preview_url(status: JobStatus) -> str:
    """The data URL of the last preview, empty where there is none."""
    return "" if status.preview is None else data_url(status.preview)


def progress(status: JobStatus) -> str:
    """A bar with the stage under way and the time left, or with the place in the queue."""
    if status.place:
        return bar(None, place(status.place))
    if status.step is None:
        return bar(None, "Preparing")
    step = status.step
    count = f" · step {step.index} of {step.total}" if step.total > 1 else ""
    left = "" if status.seconds_left is None else f" · about {duration(status.seconds_left)} left"
    return bar(step.index / step.total, f"{step.stage.capitalize()}{count}{left}")


def place(ahead: int) -> str:
    """How many jobs come before the page's own."""
    return f"Queued: {'one job' if ahead == 1 else f'{ahead} jobs'} ahead of yours"


def bar(share: float | None, text: str) -> str:
    """A bar that is full by a ``share`` of 1, None where that isn't known, over a text."""
    value = "" if share is None else f' aria-valuenow="{share * 100:.0f}"'
    width = "" if share is None else f' style="width:{share * 100:.0f}%"'
    kind = "bar waiting" if share is None else "bar"
    return (
        f'<div class="progress"><div class="{kind}" role="progressbar" aria-label="Progress" aria-valuemin="0" '
        f'aria-valuemax="100"{value}><div{width}></div></div><p class="status" role="status">{escape(text)}</p></div>'
    )


def duration(seconds: float) -> str:
    """A number of seconds in words, as an estimate has them."""
    if seconds >= 90:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.0f} s" if seconds >= 1 else "a second"


def estimate(seconds: float, prepares: bool) -> str:
    """The seconds that a drawing will take; ``prepares`` where the model is first made ready for it."""
    ready = " once the model is ready for this size" if prepares else ""
    if seconds < 0.05:
        return f"<p>Less than 0.1 s{ready}</p>"
    return f"<p>About {f'{seconds:.1f} s' if seconds < 9.95 else duration(seconds)}{ready}</p>"


def timings(seconds: Mapping[str, float]) -> str:
    """The seconds of all stages together, then of each."""
    stages = ", ".join(f"{stage} {each:.2f} s" for stage, each in seconds.items())
    return f"{sum(seconds.values()):.2f} s in all: {stages}"


def measures(report: Mapping[str, float]) -> str:
    """The measures of a reconstruction: its PSNR and its compression."""
    return " · ".join(_MEASURES.get(name, f"{name} {{:g}}").format(value) for name, value in report.items())


def notes(*texts: str, kind: str = "note") -> str:
    """A paragraph for each text that isn't empty, cut where it would push everything else away."""
    return "".join(f'<p class="{kind}">{escape(shorten(text))}</p>' for text in texts if text)


def shorten(text: str) -> str:
    """The text, cut where it would be longer than a glance."""
    return text if len(text) <= _LONGEST_NOTE else f"{text[:_LONGEST_NOTE].rstrip()} …"


def facts(*texts: str) -> str:
    """Short facts about a picture, side by side in one line that may wrap."""
    return '<p class="facts">' + "".join(f"<span>{escape(each)}</span>" for each in texts if each) + "</p>"


def download(address: str, name: str, text: str) -> str:
    """A link that saves a file."""
    return f'<a class="button" href="{escape(address)}" download="{escape(name)}">{escape(text)}</a>'


def button(text: str, value: str) -> str:
    """A button whose click sends its value."""
    return f'<button type="button" class="button" value="{escape(value)}">{escape(text)}</button>'


def gallery(pictures: Sequence[tuple[str, str]]) -> str:
    """Thumbnails of pictures, given as address and caption, which begins with the prompt; a click sends the address."""
    thumbnails = "".join(
        f'<button type="button" value="{escape(source)}" data-full="{escape(source)}" data-group="history" '
        f'data-caption="{escape(caption)}">'
        f'<img src="{escape(source)}" alt="{escape(caption.partition(_LINE)[0])}"></button>'
        for source, caption in pictures
    )
    hint = notes("Your images are kept here for as long as this page is open.", kind="hint")
    return f'<h2>History</h2><div class="gallery">{thumbnails}</div>' if thumbnails else f"<h2>History</h2>{hint}"


def slider(left: str, right: str, names: Sequence[str], size: tuple[int, int]) -> str:
    """Two pictures of one size over each other, and a slider that moves the line between them."""
    one, two = map(escape, names)
    return (
        f'<div class="slider" style="--w:{size[0]};--h:{size[1]};--at:50%"><div class="frame">'
        f'<img src="{escape(left)}" alt="{one}"><img class="over" src="{escape(right)}" alt="{two}"><i></i></div>'
        f'<label><span>{one}</span><input type="range" min="0" max="100" value="50" '
        f'aria-label="Where {one} ends and {two} begins">'
        f"<span>{two}</span></label></div>"
    )
