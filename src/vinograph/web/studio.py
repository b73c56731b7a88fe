"""What the tabs of the page have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from vinograph.web.models import Models
from vinograph.web.visits import Visits

HIDDEN, SHOWN = gr.update(visible=False), gr.update(visible=True)


@dataclass(frozen=True)
class Studio:
    """The models, and the open pages."""

    models: Models
    visits: Visits

    def choice(self, title: str = "Model", chosen: int = 0) -> Any:
        """A control to choose a model with."""
        there = self.models.references
        return gr.Dropdown(there, value=there[min(chosen, len(there) - 1)], label=title, filterable=False)

    def stop(self, request: gr.Request) -> None:
        """Stop what the page waits for."""
        self.visits.stop(str(request.session_hash))

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.visits.close(str(request.session_hash))


def upload(title: str, height: int, **more: Any) -> gr.Image:
    """A place for a picture. Its value is the file as it came: our own reader says what is wrong with one."""
    sources: list[Any] = ["upload", "clipboard"]
    there = gr.Image(type="filepath", sources=sources, label=title, height=height, buttons=[], **more)
    there.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
    return there


def on(event: Callable[..., Any], run: Callable[..., Any], inputs: Any = None, outputs: Any = None, **more: Any) -> Any:
    """Run a function on an event, without Gradio's own signs of progress, and beside whatever else is running."""
    told = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private", **more}
    return event(run, inputs=inputs, outputs=outputs, **told)
