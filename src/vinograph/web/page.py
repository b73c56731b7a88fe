"""The page: its theme, its tabs, and the server that it runs on."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from vinograph.errors import RequestError
from vinograph.web.compare_tab import CompareTab
from vinograph.web.gallery_routes import GalleryRoutes
from vinograph.web.gallery_store import GalleryStore
from vinograph.web.gallery_tab import GalleryTab
from vinograph.web.generate_tab import GenerateTab
from vinograph.web.grid_tab import GridTab
from vinograph.web.guard import Guard
from vinograph.web.hosts import Hosts
from vinograph.web.jobs import Drawer
from vinograph.web.model_pool import Models
from vinograph.web.page_context import PageContext, on
from vinograph.web.reconstruct_tab import ReconstructTab
from vinograph.web.server import Server
from vinograph.web.sessions import MOST_PAGES, Sessions
from vinograph.web.uploads import Uploads

_HERE = Path(__file__).parent
_STYLES = (
    "page.css",
    "compare.css",
    "gallery.css",
    "grid.css",
    "help.css",
    "mask_editor.css",
    "queue_panel.css",
    "viewer.css",
)
_SCRIPTS = (
    "page.js",
    "compare.js",
    "remembered.js",
    "viewer.js",
)

_WINE = gr.themes.Color(
    *("#fbf3f5", "#f6e4e8", "#ecc8d0", "#dd9fac", "#c86f83", "#ad4a62", "#8f3149", "#78273c", "#642233", "#551f2e"),
    "#300d17",
    name="wine",
)
_PAPER = gr.themes.Color(
    *("#faf8f5", "#f3f0eb", "#e6e1d9", "#d3ccc1", "#a49c90", "#736c62", "#57514a", "#443f39", "#2b2824", "#1d1b18"),
    "#121110",
    name="paper",
)


def _theme() -> gr.themes.Base:
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    monospaced = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
    theme = gr.themes.Base(
        primary_hue=_WINE, secondary_hue=_WINE, neutral_hue=_PAPER, font=fonts, font_mono=monospaced, radius_size="md"
    )
    return theme.set(
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_label_background_fill_dark="*neutral_900",
        input_background_fill_dark="*neutral_900",
        input_border_color_dark="*neutral_700",
        slider_color_dark="*primary_500",
        link_text_color_dark="*primary_300",
        block_border_width="0px",
        block_padding="0px",
        block_shadow="none",
        form_gap_width="14px",
        block_label_text_color="*neutral_600",
        block_title_text_color="*neutral_700",
        block_title_text_weight="500",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
        input_background_fill="white",
        input_border_width="1px",
        input_padding="9px 12px",
        input_border_color="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        slider_color="*primary_600",
    )


class Page:
    """The Gradio application with its models, its queue and its sessions."""

    def __init__(self, models: Models, queue: Drawer, folder: Path, gallery: Path | None = None) -> None:
        """Lay out the tabs; pictures are kept in ``folder``, and in the folder ``gallery`` for good.

        Raises:
            RequestError: ``gallery`` can't be written.
        """
        self._queue = queue
        self._uploads = Uploads(folder)
        self._gallery = None if gallery is None else GalleryStore(gallery)
        sessions = Sessions(self._queue, self._uploads, self._gallery)
        context = PageContext(models, sessions, self._uploads, self._gallery)
        with gr.Blocks(title="Vinograph", analytics_enabled=False) as self.blocks:
            gr.HTML("<h1>Vinograph <span>draws pictures from words</span></h1>", elem_classes="masthead")
            with gr.Tabs():
                with gr.Tab("Generate"):
                    generate = GenerateTab(context)
                with gr.Tab("Compare"):
                    compare = CompareTab(context)
                with gr.Tab("Grid"):
                    grid = GridTab(context)
                with gr.Tab("Reconstruct"):
                    ReconstructTab(context)
                if self._gallery is not None:
                    with gr.Tab("Gallery"):
                        GalleryTab(self._gallery, generate.restorer)
            generate.restorer.wire_load(self.blocks)
            for function, inputs, outputs in (*generate.on_load, *compare.on_load, *grid.on_load):
                on(self.blocks.load, function, inputs, outputs)
            self.blocks.unload(context.close_session)
        self._server: Server | None = None
        self._served: FastAPI | None = None

    def application(self, hosts: Hosts) -> Guard:
        """The page as an ASGI application that answers under the names of ``hosts``."""
        self.blocks.max_threads = MOST_PAGES
        self.blocks.state_session_capacity = MOST_PAGES
        self.blocks.queue(max_size=MOST_PAGES)
        for block in self.blocks.blocks.values():
            if isinstance(block, gr.components.Component):
                _refuse_without_traceback(block)
        self._served = gr.mount_gradio_app(
            FastAPI(openapi_url=None),
            self.blocks,
            path="/",
            footer_links=[],
            run_history=False,
            show_error=False,
            max_file_size=self._uploads.limits.largest,
            enable_monitoring=False,
            pwa=False,
            ssr_mode=False,
            mcp_server=False,
            theme=_theme(),
            css_paths=[_HERE / name for name in _STYLES],
            head="".join(f"<script>{(_HERE / name).read_text(encoding='utf-8')}</script>" for name in _SCRIPTS),
        )
        gallery = None if self._gallery is None else GalleryRoutes(self._gallery)
        return Guard(self._served, hosts, self._uploads, self.check, gallery)

    def lifespan(self) -> AbstractAsyncContextManager[Any]:
        """What has to run as long as a server that has the :meth:`application` as a part of its own."""
        assert self._served is not None, "the application comes first"
        return self._served.router.lifespan_context(self._served)

    def open(self, host: str, sockets: list[socket.socket], allowed_hosts: Sequence[str] = ()) -> None:
        """Start to serve the page at ``sockets``, under ``host`` and the ``allowed_hosts``."""
        hosts = Hosts(host, [each.getsockname()[0] for each in sockets], allowed_hosts)
        self._server = Server(self.application(hosts), sockets)

    def close(self) -> None:
        """Stop the server; a job that is drawn ends after its step."""
        self._queue.end()
        if self._server is not None:
            self._server.close()

    def check(self, call: Mapping[str, Any]) -> None:
        """Check that one of the page's controls could make this call.

        Raises:
            RequestError: there is no such function, or it takes other values.
        """
        index, data, event = call.get("fn_index"), call.get("data"), call.get("event_data")
        function = self.blocks.fns.get(index) if type(index) is int else None
        if function is None or function.fn is None:  # one without runs in the browser alone
            raise RequestError("the page has no such function")
        if not isinstance(data, list) or len(data) != len(function.inputs):
            raise RequestError(f"the function takes {len(function.inputs)} values")
        for block, value in zip(function.inputs, data, strict=True):
            kind = next((kinds for base, kinds in _KINDS if isinstance(block, base)), str)
            if value is not None and not (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
                raise RequestError(f"{getattr(block, 'label', None) or 'a control'} takes no such value")
        takes_event = any(
            name == "click" and isinstance(self.blocks.blocks.get(target), gr.HTML) for target, name in function.targets
        )
        # Where a control changes, its value is sent, too; a function that takes no event doesn't see it.
        if not isinstance(event, dict if takes_event else (dict, bool, int, float, str, type(None))):
            raise RequestError("an event has named values")


# The types of values that controls hold, for those whose value is not a text.
_KINDS: Sequence[tuple[Any, Any]] = (
    (gr.Image, dict),
    (gr.Checkbox, bool),
    ((gr.Slider, gr.Number), (int, float)),
    (gr.State, type(None)),
)


def _refuse_without_traceback(block: Any) -> None:
    """Have a control refuse impossible values, which a visitor sent, without a traceback."""
    read = block.preprocess

    def preprocess(value: Any) -> Any:
        try:
            return read(value)
        except gr.Error as error:
            raise gr.Error(str(error.message)[:300], print_exception=False) from error
        except (TypeError, ValueError) as error:  # such as nothing at all, for a slider
            raise gr.Error(f"{block.label or 'a control'} takes no such value", print_exception=False) from error

    block.preprocess = preprocess
