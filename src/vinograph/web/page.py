"""The page's frame: its look, its tabs, and the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import gradio as gr

from vinograph.web.compare_tab import CompareTab
from vinograph.web.draw_tab import DrawTab
from vinograph.web.drawing import Line
from vinograph.web.models import Models
from vinograph.web.reconstruct_tab import ReconstructTab
from vinograph.web.studio import Studio, on
from vinograph.web.visits import Visits

_HERE = Path(__file__).parent
_LARGEST_UPLOAD = "64mb"
_MOST_WAITING = 200  # pages at once; each has a thread while it waits for its drawing

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
    """The whole page."""

    def __init__(self, named: Sequence[str], device: str | Mapping[str, str], folder: Path) -> None:
        """Build it. Pictures are kept in ``folder``.

        Raises:
            VinographError: a model that was ``named`` can't be used.
        """
        models = Models(named, device)
        self._line = Line(models)
        studio = Studio(models, Visits(self._line, folder))
        self.problems = models.problems
        self._folder = folder
        with gr.Blocks(title="Vinograph", analytics_enabled=False) as self.blocks:
            gr.HTML("<h1>Vinograph <span>draws pictures from words</span></h1>", elem_classes="masthead")
            with gr.Tabs():
                with gr.Tab("Draw"):
                    draw = DrawTab(studio)
                with gr.Tab("Compare"):
                    compare = CompareTab(studio)
                with gr.Tab("Reconstruct"):
                    ReconstructTab(studio)
            on(self.blocks.load, draw.choose, [draw.model, draw.picture], draw.followers)
            for follow, model, followers in compare.follow:
                on(self.blocks.load, follow, model, followers)
            self.blocks.unload(studio.leave)

    def open(self, host: str, port: int) -> None:
        """Begin to serve it."""
        self.blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            max_threads=_MOST_WAITING,
            ssr_mode=False,
            pwa=False,
            max_file_size=_LARGEST_UPLOAD,
            allowed_paths=[str(self._folder)],
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            theme=_theme(),
            css_paths=[_HERE / "page.css"],
            head=f"<script>{(_HERE / 'page.js').read_text(encoding='utf-8')}</script>",
        )

    def close(self) -> None:
        """Serve it no more. A drawing under way ends after its step."""
        self._line.end()
        self.blocks.close(verbose=False)
