"""What the tabs of the page share: models, sessions and uploads, and helpers for Gradio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from PIL import Image

from vinograph.web.gallery_store import GalleryStore
from vinograph.web.model_pool import Models
from vinograph.web.sessions import SessionKey, Sessions
from vinograph.web.uploads import Uploads

HIDDEN, SHOWN = gr.update(visible=False), gr.update(visible=True)
CLICKS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[value]");
  if (button) trigger("click", { chosen: button.value });
});"""
"""Script of a block of HTML that sends the value of a button that is clicked in it."""


@dataclass(frozen=True)
class PageContext:
    """The models, the open sessions, the uploads and the gallery, which all tabs share."""

    models: Models
    sessions: Sessions
    uploads: Uploads
    gallery: GalleryStore | None = None

    def model_dropdown(self, title: str = "Model", chosen: int = 0) -> Any:
        """A dropdown of the models, where the one at the index ``chosen`` is selected."""
        references = self.models.references
        value = references[min(chosen, len(references) - 1)]
        return gr.Dropdown(references, value=value, label=title, filterable=False)

    def session_key(self, request: gr.Request) -> SessionKey:
        """The session that a call comes from; the guard has found out the visitor."""
        return SessionKey(str(request.state.visitor), str(request.session_hash))

    def read_upload(self, request: gr.Request, path: str) -> Image.Image:
        """The picture in one of the visitor's own files.

        Raises:
            RequestError: the visitor has no such file, or it holds no picture.
        """
        return self.uploads.read(self.session_key(request).visitor, path)

    def stop(self, request: gr.Request) -> None:
        """Stop the job that the page waits for."""
        self.sessions.stop(self.session_key(request))

    def close_session(self, request: gr.Request) -> None:
        """Close the session of a page that was closed, or is being loaded again."""
        self.sessions.leave(self.session_key(request))


def image_input(title: str, height: int, **more: Any) -> gr.Image:
    """An input for a picture, whose value is the path of the uploaded file.

    Gradio's own reading of it is left out: :meth:`PageContext.read_upload` reads the file and says
    what is wrong.
    """
    sources: list[Any] = ["upload", "clipboard"]
    image = gr.Image(type="filepath", sources=sources, label=title, height=height, buttons=[], **more)
    image.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
    return image


def on(
    event: Callable[..., Any], run: Callable[..., Any] | None, inputs: Any = None, outputs: Any = None, **more: Any
) -> Any:
    """Run a function, or a script alone, on an event, without Gradio's signs of progress or its limit on calls."""
    options = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private", **more}
    return event(run, inputs=inputs, outputs=outputs, **options)


def any_of(*events: Any) -> Any:
    """One event that stands for any of several."""
    return partial(gr.on, list(events))
