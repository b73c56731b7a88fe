"""A model of SDXL that completes another: what a single file or a UNet alone lacks is taken from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vinograph.errors import DamagedModelError, RequestError
from vinograph.families.sdxl.arguments import FAMILY
from vinograph.families.sdxl.config import TEXT_ENCODERS
from vinograph.models import catalog
from vinograph.models.bundle import Bundle, weights_of
from vinograph.models.checkpoint_model import CheckpointModel, OpenedCheckpoint, StoredTokenizer, TokenizerPlan
from vinograph.models.manifest import Component
from vinograph.models.parts import ComponentPlan
from vinograph.networks.graph import Network, Port, Ports, Storage
from vinograph.runtime.devices import core

_VAES = ("vae_decoder", "vae_encoder", "tiny_vae_decoder", "tiny_vae_encoder")
_VAE_NUMBERS = ("vae_", "tiny_vae_", "latent_channels")  # how their names in a manifest's config begin


@dataclass(frozen=True)
class Base:
    """An opened SDXL model of any form, and the ``reference`` that named it."""

    reference: str
    opened: OpenedCheckpoint

    @classmethod
    def open(cls, reference: str) -> Base:
        """Open the model that ``reference`` names, a bundle among them.

        Raises:
            RequestError: it is of another family.
            ModelError: there is no such model, or it can't be used.
            DamagedModelError: a file of it is missing or damaged.
        """
        model = catalog.find(reference)
        family = model.manifest.family
        if family != FAMILY.name:
            raise RequestError(f"--base {reference} is a model of the family {family}; give one of {FAMILY.name}")
        if isinstance(model, CheckpointModel):
            return cls(reference, model.opened)
        assert isinstance(model, Bundle), "there are no other models"
        return cls(reference, _opened(model))

    @property
    def name(self) -> str:
        """The id of the model's source."""
        return self.opened.manifest.source.id

    @property
    def text_widths(self) -> tuple[int, int]:
        """The widths of both text encoders' hidden states."""
        first, second = self.opened.manifest.config["text_widths"]
        return first, second

    @property
    def pooled_width(self) -> int:
        """The width of the pooled text."""
        return int(self.opened.manifest.config["pooled_width"])

    @property
    def sample_size(self) -> int:
        """Height and width of the latents that it was trained on."""
        manifest = self.opened.manifest
        return int(manifest.limits["native_size"]) // int(manifest.config["vae_scale_factor"])

    @property
    def vae_numbers(self) -> dict[str, Any]:
        """The entries of the manifest's ``config`` for the VAEs."""
        return {name: value for name, value in self.opened.manifest.config.items() if name.startswith(_VAE_NUMBERS)}

    @property
    def flags(self) -> dict[str, Any]:
        """The entries of the manifest's ``config`` that say how its text encoders are used."""
        return {name: self.opened.manifest.config[name] for name in ("force_zeros_for_empty_prompt",)}

    @property
    def tokenizers(self) -> Mapping[str, TokenizerPlan | StoredTokenizer]:
        """Its tokenizers."""
        return self.opened.tokenizers

    def text_encoder_plans(self) -> tuple[ComponentPlan, ...]:
        """The plans of both text encoders."""
        return self._plans(TEXT_ENCODERS)

    def vae_plans(self) -> tuple[ComponentPlan, ...]:
        """The plans of its VAEs."""
        return self._plans(_VAES)

    def _plans(self, names: tuple[str, ...]) -> tuple[ComponentPlan, ...]:
        return tuple(plan for plan in self.opened.components if plan.name in names)


def _opened(bundle: Bundle) -> OpenedCheckpoint:
    """A bundle as an opened checkpoint, whose components are OpenVINO's graphs already."""
    manifest = bundle.manifest
    tokenizers = {
        name: StoredTokenizer(bundle.path, each.file, each.max_length, each.pad_id)
        for name, each in manifest.tokenizers.items()
    }
    return OpenedCheckpoint(
        manifest=manifest,
        components=tuple(_plan(bundle.path, name, component) for name, component in manifest.components.items()),
        tokenizers=tokenizers,
        files=tuple(bundle.path / name for name in manifest.files),
        licence_file=None,
    )


def _plan(folder: Path, name: str, component: Component) -> ComponentPlan:
    xml, weights = folder / component.file, folder / weights_of(component.file)
    inputs, outputs = (
        {port: Port(tuple(each.shape), each.dtype) for port, each in side.items()}
        for side in (component.inputs, component.outputs)
    )
    ports = Ports(inputs, outputs)

    def build(_storage: Storage) -> Network:
        try:
            return Network(core().read_model(xml), ports, component.f16_safe)
        except RuntimeError as error:
            advice = f"verify the bundle with: vinograph verify {folder}"
            raise DamagedModelError(f"OpenVINO can't read {xml}: {advice}") from error

    size = weights.stat().st_size
    return ComponentPlan(
        name, build, ports, component.f16_safe, component.weights, size, size, (xml, weights), is_ir=True
    )
