"""What the tabs of the page have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL import Image

from vinograph.web.models import Models
from vinograph.web.uploads import Uploads
from vinograph.web.visits import Visits, Who

HIDDEN, SHOWN = gr.update(visible=False), gr.update(visible=True)


@dataclass(frozen=True)
class Studio:
    """The models, and the open pages."""

    models: Models
    visits: Visits
    uploads: Uploads

    def choice(self, title: str = "Model", chosen: int = 0) -> Any:
        """A control to choose a model with."""
        there = self.models.references
        return gr.Dropdown(there, value=there[min(chosen, len(there) - 1)], label=title, filterable=False)

    def who(self, request: gr.Request) -> Who:
        """Who asks, as the guard found out."""
        return Who(str(request.state.visitor), str(request.session_hash))

    def read(self, request: gr.Request, path: str) -> Image.Image:
        """The picture in a file of the visitor's own.

        Raises:
            RequestError: it is no such file, or no picture.
        """
        return self.uploads.read(self.who(request).visitor, path)

    def stop(self, request: gr.Request) -> None:
        """Stop what the page waits for."""
        self.visits.stop(self.who(request))

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.visits.close(self.who(request))


def upload(title: str, height: int, **more: Any) -> gr.Image:
    """A place for a picture. Its value is the file's path: :meth:`Studio.read` looks it up, and says what is wrong."""
    sources: list[Any] = ["upload", "clipboard"]
    there = gr.Image(type="filepath", sources=sources, label=title, height=height, buttons=[], **more)
    there.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
    return there


def on(event: Callable[..., Any], run: Callable[..., Any], inputs: Any = None, outputs: Any = None, **more: Any) -> Any:
    """Run a function on an event, without Gradio's own signs of progress, and beside whatever else is running."""
    told = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private", **more}
    return event(run, inputs=inputs, outputs=outputs, **told)
