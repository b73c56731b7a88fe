"""The page's choice of a style: a prompt template of the file ``styles.csv`` in the models folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from vinograph.errors import RequestError
from vinograph.models import catalog
from vinograph.styles import FILE, Style, read_styles

_NONE = ("No style", "")
_HELP = "A template that the prompt is put into"


class StyleChoice:
    """The dropdown, which is hidden where there is no style."""

    def __init__(self) -> None:
        """Lay the dropdown out inside the Gradio block that is open."""
        self.dropdown = gr.Dropdown(
            [_NONE],
            value="",
            label="Style",
            info=_HELP,
            filterable=False,
            visible=False,
            elem_id="style",
        )

    def offered(self) -> Any:
        """An update that offers the styles of the file as it is now, or says why it can't be read."""
        try:
            styles = _styles()
        except RequestError as error:
            return gr.update(choices=[_NONE], value="", info=str(error), visible=True)
        return gr.update(choices=[_NONE, *((name, name) for name in styles)], info=_HELP, visible=bool(styles))

    def apply(self, name: str | None, prompt: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The prompt and the arguments in the style of that name.

        Its negative prompt is left out where no guidance gives it an effect.

        Raises:
            RequestError: there is no such style.
        """
        if not name:
            return {"prompt": prompt, **arguments}
        styles = _styles()
        if name not in styles:
            raise RequestError(f"there is no style {name[:100]!r}; there is {', '.join(styles) or 'none'}")
        return _in_style(styles[name], prompt, arguments)


def _styles() -> Mapping[str, Style]:
    return read_styles(catalog.models_folder() / FILE)


def _in_style(style: Style, prompt: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    styled, negative = style.apply(prompt, str(arguments.get("negative_prompt", "")))
    guided = any((value or 0) > 1 for name, value in arguments.items() if name.endswith("guidance_scale"))
    return {"prompt": styled, **arguments, **({"negative_prompt": negative} if negative and guided else {})}
