"""The list of models on the page: what each is for, how large it is, and what it may be used for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape

from vinograph.families import registry
from vinograph.models.model import Model
from vinograph.pipeline import Pipeline
from vinograph.web.model_pool import Models

_CAN: Mapping[str, str] = {"image": "image to image", "mask_image": "inpainting"}
Seconds = Callable[[str], float | None]
"""The seconds that a picture with a model's defaults takes on this machine; None before it is known."""


def purpose(pipe: Pipeline) -> str:
    """What a model is for: its description if it is known, else the calls that it takes."""
    source = pipe.model.manifest.source.id
    for _, known in registry.known_models().values():
        if known.repository == source:
            return known.about
    call = pipe.calls["generate"]
    can = ["text to image", *(text for argument, text in _CAN.items() if argument in call.takes)]
    return ", ".join([*can, *(["reconstruction"] if "reconstruct" in pipe.calls else [])])


def precision(model: Model) -> str:
    """The types that weights and activations are stored in, such as "f16" or "int8, activations int8"."""
    components = model.manifest.components.values()
    weights = sorted({each.weights for each in components})
    activations = sorted({each.activations for each in components if each.activations})
    return ", ".join([*weights, *(f"activations {each}" for each in activations)])


def model_list(models: Models, seconds: Seconds) -> str:
    """The models as a list in HTML, each with a button that chooses it."""
    rows = "".join(_row(models, reference, seconds(reference)) for reference in models.references)
    return f'<ul class="model-list">{rows}</ul>'


def _row(models: Models, reference: str, seconds: float | None) -> str:
    pipe = models.get(reference)
    manifest, takes = pipe.model.manifest, pipe.calls["generate"].takes
    facts = [
        f"family {manifest.family}",
        _bytes(pipe.model.size),
        precision(pipe.model),
        f"{takes['width']}×{takes['height']}",
        f"licence {manifest.source.licence or 'not stated'}",
        "not drawn yet, so its time isn't known" if seconds is None else f"a picture takes {_seconds(seconds)}",
    ]
    name = escape(reference)
    return (
        f"<li><div><h2>{name}</h2><p>{escape(purpose(pipe).capitalize())}</p>"
        f'<p class="facts">{"".join(f"<span>{escape(each)}</span>" for each in facts)}</p></div>'
        f'<button class="button" value="{name}" aria-label="Choose {name}">Choose</button></li>'
    )


def _bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _seconds(seconds: float) -> str:
    return f"about {seconds:.1f} s" if seconds < 10 else f"about {seconds:.0f} s"
