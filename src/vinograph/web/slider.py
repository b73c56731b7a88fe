"""A slider whose value is checked where it is used."""

from __future__ import annotations

import gradio as gr


class Slider(gr.Slider):
    """A slider that takes any number.

    Its range changes with the model, and a value of the model before may still be under way. Gradio
    answers that with an error and a traceback. The arguments' own checks say what is wrong with a
    value, where it matters.
    """

    is_template = True  # the browser shows it as the slider that it is

    def preprocess(self, payload: float) -> float:
        """The number as the browser sent it."""
        return payload
