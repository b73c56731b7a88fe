"""The page's adapters: names of files in the folder of adapters, with their weights."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import gradio as gr

from vinograph.adapters.file import folder, installed, parse_weight
from vinograph.errors import RequestError

_LONGEST = 2000
_HERE = Path(__file__).parent
_TEMPLATE = """
<div class="adapter-list" data-names="{names}"><span class="title">Adapters</span>
<div class="adapter-rows"></div><select aria-label="Add an adapter"></select>
<p class="about">LoRAs and other changes of the weights. A weight of 1 is the whole change.</p></div>
"""


def adapter_list() -> gr.HTML:
    """A list of adapters with a slider for each weight; its value is the text that :func:`chosen` reads."""
    names = offered()
    return gr.HTML(
        "",
        html_template=_TEMPLATE.replace("{names}", escape(json.dumps(names))),
        js_on_load=(_HERE / "adapter_list.js").read_text(encoding="utf-8"),
        visible=bool(names),
        elem_id="adapters",
    )


def offered() -> list[str]:
    """The names of the adapters that visitors may use."""
    return [file.stem for file in installed()]


def chosen(text: str | None) -> dict[str, float]:
    """The adapters that a visitor typed, ``NAME:WEIGHT`` between commas.

    Paths aren't taken: a visitor names only what the folder of adapters has.

    Raises:
        RequestError: a name is none of those.
    """
    if text and len(text) > _LONGEST:
        raise RequestError(f"Adapters has {len(text)} characters; give at most {_LONGEST}")
    pairs = [parse_weight(part.strip()) for part in (text or "").split(",") if part.strip()]
    known = offered()
    for name, _ in pairs:
        if name not in known:
            raise RequestError(
                f"there is no adapter {name[:100]!r} in {folder()}; there is {', '.join(known) or 'none'}"
            )
    return dict(pairs)
