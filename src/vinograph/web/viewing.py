"""Fragments of HTML for finished pictures: buttons that open the viewer, and what stands by a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from vinograph.pipeline import Pipeline
from vinograph.request import OPTIONS
from vinograph.web import fragments
from vinograph.web.controls import label
from vinograph.web.sessions import Picture, address

OUTPUT, HISTORY = "output", "history"
"""Groups of pictures, between which the viewer's arrow keys don't go."""

_SAID_ELSEWHERE = ("prompt", "seed", "width", "height", "num_images_per_prompt")
_LONGEST_SETTING = 60  # characters


def view_button(source: str, alt: str, caption: str, group: str) -> str:
    """A picture as a button that opens it in the viewer, where ``caption`` stands under it.

    Pictures of one page with the same ``group`` follow each other there.
    """
    return (
        f'<button type="button" class="view" data-full="{escape(source)}" data-caption="{escape(caption)}" '
        f'data-group="{escape(group)}"><img src="{escape(source)}" alt="{escape(alt)}" decoding="sync"></button>'
    )


def warnings(picture: Picture | None) -> str:
    """The notes of what the drawing that made the picture warned of; none where none is shown."""
    return "" if picture is None else fragments.notes(*picture.warnings)


def viewer_caption(picture: Picture) -> str:
    """What the viewer says of a picture: its prompt, and under it the seed, size and model."""
    seed = "" if picture.seed is None else f"Seed {picture.seed}"
    facts = " · ".join(each for each in (seed, _size(picture), picture.model) if each)
    return f"{picture.prompt}\n{facts}" if picture.prompt else facts


def view_of(picture: Picture, group: str, alt: str = "") -> str:
    """The button that opens a drawn picture in the viewer."""
    return view_button(picture.address, alt or picture.prompt or "A picture", viewer_caption(picture), group)


def figure(picture: Picture, caption: str, group: str, alt: str = "") -> str:
    """A drawn picture in a frame, which opens the viewer, with HTML under it."""
    return framed(view_of(picture, group, alt), picture.size, caption)


def framed(view: str, size: tuple[int, int], caption: str = "") -> str:
    """A button of :func:`view_button` in a frame of the picture's shape, with HTML under it."""
    return (
        f'<figure class="figure" style="--w:{size[0]};--h:{size[1]}"><div class="frame">{view}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def alone(picture: Picture, pipe: Pipeline | None, others: int = 0) -> str:
    """One picture with its prompt, its settings, and what can be done with it.

    ``others`` of the same request can be shown with it again.
    """
    links = [fragments.download(picture.address, picture.name, "Download PNG"), *_input_links(picture)]
    if pipe is not None and "image" in pipe.calls["generate"].takes:
        links.append(fragments.button("Use as init image", f"init {picture.address}"))
    links.append(fragments.button("Use these settings", f"settings {picture.address}"))
    if others:
        links.append(fragments.button(f"Show all {others + 1} of this request", f"all {picture.address}"))
    caption = _about(picture, pipe, f"Seed {picture.seed}" if picture.seed is not None else "")
    return figure(picture, f'{caption}<div class="links">{"".join(links)}</div>', HISTORY)


def even_grid(pictures: Sequence[Picture], pipe: Pipeline | None) -> str:
    """The pictures of one request in an even grid, each with its seed, and under it what they share."""
    columns = even_columns(len(pictures))
    width, height = pictures[0].size
    style = f"--columns:{columns};--rows:{math.ceil(len(pictures) / columns)};--w:{width};--h:{height}"
    first = pictures[0]
    links = [*_input_links(first), fragments.button("Use these settings", f"settings {first.address}")]
    return (
        f'<div class="even" style="{style}">{"".join(map(_cell, pictures))}</div>'
        f'<div class="about-picture">{_about(first, pipe)}<div class="links">{"".join(links)}</div></div>'
    )


def even_columns(count: int) -> int:
    """The number of columns that leaves the fewest gaps in a grid that is about as wide as high."""
    near = math.ceil(math.sqrt(count))
    return min((near, near + 1), key=lambda columns: (-count % columns, columns)) if count > 1 else 1


def settings_of(pipe: Pipeline | None, arguments: Mapping[str, Any], adapters: Mapping[str, float]) -> list[str]:
    """The number of steps, and the settings in which a request differs from the model's defaults."""
    if pipe is None:
        return []
    takes = pipe.calls["generate"].takes
    options = {argument: name for name, argument in {**OPTIONS, **pipe.options}.items()}
    settings = [
        f"{label(options[name])} {_text(value)}"
        for name, value in arguments.items()
        if name in options
        and name in takes
        and name not in _SAID_ELSEWHERE
        and (value != takes[name] or name == pipe.options["steps"])
    ]
    return settings + [f"Adapter {name}:{weight:g}" for name, weight in adapters.items()]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST_SETTING else f"{text[:_LONGEST_SETTING].rstrip()} …"


def _cell(picture: Picture) -> str:
    seed = "" if picture.seed is None else f"<span>Seed {picture.seed}</span>"
    named = escape(f"Select the picture of seed {picture.seed}")
    select = f'<button type="button" value="select {escape(picture.address)}" aria-label="{named}">Select</button>'
    return (
        f'<figure><div class="frame">{view_of(picture, OUTPUT)}</div><figcaption>{seed}{select}</figcaption></figure>'
    )


def _about(picture: Picture, pipe: Pipeline | None, seed: str = "") -> str:
    """The prompt of a picture, and under it its facts."""
    settings = settings_of(pipe, picture.arguments, picture.adapters)
    facts = fragments.facts(seed, _size(picture), picture.model, *settings, _timings(picture))
    return (f'<p class="spoken" tabindex="0">{escape(picture.prompt)}</p>' if picture.prompt else "") + facts


def _timings(picture: Picture) -> str:
    return fragments.timings(picture.timings) if picture.timings else ""


def _input_links(picture: Picture) -> list[str]:
    return [fragments.download(address(file), name, name) for name, file in picture.inputs.items()]


def _size(picture: Picture) -> str:
    return f"{picture.size[0]}×{picture.size[1]}"
