"""Pieces of HTML: the picture as it forms, what is said about it, and two pictures under a slider."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

from PIL import Image

from vinograph.web.drawing import News

_LONGEST_NOTE = 320  # characters
_MEASURES: Mapping[str, str] = {
    "psnr": "PSNR {:.2f} dB",
    "spatial_compression": "{:.1f} times smaller in each direction",
    "values_compression": "{:.0f} times fewer values",
}


def inlined(picture: Image.Image) -> str:
    """The picture as an address that holds it."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def empty(text: str) -> str:
    """The place where a picture will be."""
    return f'<figure class="easel empty"><div class="paper"><p>{escape(text)}</p></div></figure>'


def easel(source: str, size: tuple[int, int], about: str, below: str = "", *, forming: bool = False) -> str:
    """A picture of ``size``, width and height, at the address ``source``, where there is one yet; HTML ``below`` it."""
    kind = "easel forming" if forming else "easel"
    image = f'<img src="{escape(source)}" alt="{escape(about)}" decoding="sync">' if source else ""
    return (
        f'<figure class="{kind}" style="--w:{size[0]};--h:{size[1]}"><div class="paper">'
        f"{image}</div><figcaption>{below}</figcaption></figure>"
    )


def waiting(news: News, about: str = "") -> str:
    """A drawing as far as it is, and its progress."""
    size = (1, 1) if news.preview is None else news.preview.size
    return easel(forming(news), size, f"{about} (forming)", progress(news), forming=True)


def forming(news: News) -> str:
    """The address of the last preview; empty where there is none."""
    return "" if news.preview is None else inlined(news.preview)


def progress(news: News) -> str:
    """The bar of the stage under way, its name, and the time left; or the place in the line."""
    if news.place:
        before = "one drawing comes" if news.place == 1 else f"{news.place} drawings come"
        return _bar(None, f"Waiting: {before} before yours")
    if news.step is None:
        return _bar(None, "Getting ready")
    step = news.step
    count = f" · step {step.index} of {step.total}" if step.total > 1 else ""
    left = "" if news.left is None else f" · about {_seconds(news.left)} left"
    return _bar(step.index / step.total, f"{step.stage.capitalize()}{count}{left}")


def _bar(share: float | None, text: str) -> str:
    value = "" if share is None else f' aria-valuenow="{share * 100:.0f}"'
    width = "" if share is None else f' style="width:{share * 100:.0f}%"'
    kind = "bar waiting" if share is None else "bar"
    return (
        f'<div class="progress"><div class="{kind}" role="progressbar" aria-label="Progress" aria-valuemin="0" '
        f'aria-valuemax="100"{value}><div{width}></div></div><p class="status" role="status">{escape(text)}</p></div>'
    )


def _seconds(seconds: float) -> str:
    if seconds >= 90:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.0f} s" if seconds >= 1 else "a second"


def timings(seconds: Mapping[str, float]) -> str:
    """The seconds of each stage, and of all."""
    stages = ", ".join(f"{stage} {each:.2f} s" for stage, each in seconds.items())
    return f"{sum(seconds.values()):.2f} s in all: {stages}"


def measures(report: Mapping[str, float]) -> str:
    """What a reconstruction cost and lost."""
    return " · ".join(_MEASURES.get(name, f"{name} {{:g}}").format(value) for name, value in report.items())


def notes(*texts: str, kind: str = "note") -> str:
    """Lines of text, each of its own, and none so long that it pushes everything else away."""
    return "".join(f'<p class="{kind}">{escape(_shortened(text))}</p>' for text in texts if text)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_NOTE else f"{text[:_LONGEST_NOTE].rstrip()} …"


def facts(*texts: str) -> str:
    """Short facts about a picture, in one line that may wrap."""
    return '<p class="facts">' + "".join(f"<span>{escape(each)}</span>" for each in texts if each) + "</p>"


def download(address: str, name: str, text: str) -> str:
    """A link that saves a file."""
    return f'<a class="button" href="{escape(address)}" download="{escape(name)}">{escape(text)}</a>'


def button(text: str, value: str) -> str:
    """A button that tells the page its value."""
    return f'<button type="button" class="button" value="{escape(value)}">{escape(text)}</button>'


def gallery(pictures: Sequence[tuple[str, str]]) -> str:
    """Buttons with small pictures, by address and meaning, that tell the page the address."""
    there = "".join(
        f'<button type="button" value="{escape(source)}"><img src="{escape(source)}" alt="{escape(about)}"></button>'
        for source, about in pictures
    )
    hint = notes("Your pictures are kept here for as long as this page is open.", kind="hint")
    return f'<h2>This visit</h2><div class="gallery">{there}</div>' if there else f"<h2>This visit</h2>{hint}"


def slider(left: str, right: str, names: Sequence[str], size: tuple[int, int]) -> str:
    """Two pictures of one ``size`` over each other; a handle moves the line between them."""
    one, two = map(escape, names)
    return (
        f'<div class="slider" style="--w:{size[0]};--h:{size[1]};--at:50%"><div class="paper">'
        f'<img src="{escape(left)}" alt="{one}"><img class="over" src="{escape(right)}" alt="{two}"><i></i></div>'
        f'<label><span>{one}</span><input type="range" min="0" max="100" value="50" '
        f'aria-label="Where {one} ends and {two} begins" '
        "oninput=\"this.closest('.slider').style.setProperty('--at', this.value + '%')\">"
        f"<span>{two}</span></label></div>"
    )
