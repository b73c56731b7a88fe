"""A block of Gradio's in a test's own process, without what Gradio leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr
import pytest


@contextmanager
def gradio_block() -> Iterator[None]:
    """Lay components out in the block; the event loops that Gradio makes for it are closed.

    Gradio sets the last of them as the current one. The next ``asyncio.run`` would drop it, and
    Python would warn of it in a test that has nothing to do with it.
    """
    made, make = list[asyncio.AbstractEventLoop](), asyncio.new_event_loop

    def recorded() -> asyncio.AbstractEventLoop:
        made.append(make())
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "new_event_loop", recorded)
        with gr.Blocks(analytics_enabled=False):
            yield
    asyncio.set_event_loop(None)
    for loop in made:
        loop.close()
