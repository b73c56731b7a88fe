"""A1111's options: settings of its server that clients read, set, and override for one request.

They are kept in memory and belong to this API alone. Options that mean nothing here are passed
over, so that a client can send back all that it has read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vinograph.arguments import VAES
from vinograph.errors import RequestError
from vinograph.serve import a1111_fields as fields
from vinograph.serve.contract import Encoding
from vinograph.values import shown

_OWN_VAES = ("Automatic", "None")
_FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
_MOST_LAYERS = 12


@dataclass(frozen=True)
class Options:
    """The options that have an effect.

    Attributes:
        model: the checkpoint's name; empty for the server's default model.
        vae: "full", "tiny", or one of A1111's words for the model's own.
        clip_skip: the layer of the text encoders that is read, from the end, counted from 1.
        metadata: whether pictures hold their request, ``enable_pnginfo``.
        previews: whether ``progress`` shows previews, ``live_previews_enable``.
        samples_format: the pictures' format.
        quality: the quality of JPEG and WebP, from 1 to 100.
    """

    model: str = ""
    vae: str = _OWN_VAES[0]
    clip_skip: int = 1
    metadata: bool = False
    previews: bool = True
    samples_format: str = "png"
    quality: int = 80

    def changed(self, settings: Mapping[str, Any]) -> Options:
        """These options with A1111's ``settings``, of which unknown ones and null are passed over.

        Raises:
            RequestError: a value makes no sense.
        """
        changes = {
            attribute: read(name, settings[name])
            for name, (attribute, read) in _SETTINGS.items()
            if settings.get(name) is not None
        }
        return dataclasses.replace(self, **changes)

    def shown(self, model: str) -> dict[str, Any]:
        """All options by A1111's names; ``model`` is the name of the one in use."""
        values = {name: getattr(self, attribute) for name, (attribute, _) in _SETTINGS.items()}
        return {**values, "sd_model_checkpoint": model, "sd_checkpoint_hash": ""}

    @property
    def own_vae(self) -> str | None:
        """The VAE that was chosen; None for the model's own."""
        return None if self.vae in _OWN_VAES else self.vae

    @property
    def encoding(self) -> Encoding:
        """How the pictures are encoded."""
        kind = _FORMATS[self.samples_format]
        return Encoding(kind, None if kind == "png" else self.quality, self.metadata)


def _vae(name: str, value: Any) -> str:
    if value not in (*_OWN_VAES, *VAES):
        raise RequestError(f"{name} is {shown(value)}; give one of {', '.join((*_OWN_VAES, *VAES))}")
    return str(value)


def _format(name: str, value: Any) -> str:
    if not isinstance(value, str) or value.lower() not in _FORMATS:
        raise RequestError(f"{name} is {shown(value)}; give one of {', '.join(_FORMATS)}")
    return value.lower()


def _between(low: int, high: int) -> fields.Reader:
    def read(name: str, value: Any) -> int:
        found = fields.whole(name, value)
        if not low <= found <= high:
            raise RequestError(f"{name} is {shown(value)}; give a whole number from {low} to {high}")
        return found

    return read


_SETTINGS: Mapping[str, tuple[str, fields.Reader]] = {
    "sd_model_checkpoint": ("model", fields.text),
    "sd_vae": ("vae", _vae),
    "CLIP_stop_at_last_layers": ("clip_skip", _between(1, _MOST_LAYERS)),
    "enable_pnginfo": ("metadata", fields.switch),
    "live_previews_enable": ("previews", fields.switch),
    "samples_format": ("samples_format", _format),
    "jpeg_quality": ("quality", _between(1, 100)),
}
