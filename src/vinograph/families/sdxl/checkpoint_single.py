"""SDXL from a single file, or from a UNet alone over another model.

A single file holds the UNet, both text encoders and mostly the VAE, under the names of the authors'
code. What it lacks comes from a base model that is named, and the VAE from a source of its own.
Tokenizers and settings are the family's own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vinograph.errors import DamagedModelError, ModelError
from vinograph.families.sdxl.checkpoint_unet_file import LDM_PREFIX, is_diffusers_unet, is_ldm_unet, unet_part
from vinograph.families.sdxl.network_config import UNetConfig
from vinograph.models.checkpoint import Checkpoint
from vinograph.models.float8 import with_scales
from vinograph.models.ldm_vae import vae_part
from vinograph.models.parts import CheckpointTensor, Part
from vinograph.models.safetensors import TensorRecord, read_metadata
from vinograph.models.text_encoder_files import clip_part, open_clip_part
from vinograph.networks.clip import ClipConfig
from vinograph.networks.vae import AutoencoderConfig
from vinograph.schema import label
from vinograph.values import shown

_TEXT_1, _TEXT_2 = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
_REFINER = "conditioner.embedders.0.model."  # only the refiner's first text encoder is OpenCLIP's
_VAE = "first_stage_model."
_PREFIXES = (LDM_PREFIX, _TEXT_1, _TEXT_2, _VAE)
SCALING_FACTOR = 0.13025  # of SDXL's VAE (arXiv 2307.01952)
# What training leaves in files, and nothing that is drawn depends on: the average of the weights
# over time, the noise schedule, and losses.
_LEFT_BEHIND = re.compile(
    r"(model_ema|first_stage_model\.loss|denoiser)\..*|(sqrt_|log_)?(one_minus_)?alphas_cumprod.*|"
    r"sqrt_recip(m1)?_alphas_cumprod|betas|posterior_.*|logvar|model\.diffusion_model\.scaled_fp8"
)
_VELOCITY, _ZERO_SNR = "v_pred", "ztsnr"
_PREDICTION = "modelspec.prediction_type"  # a text in the header, of Stability AI's model metadata
_NOISE_PREDICTIONS, _VELOCITY_PREDICTIONS = ("epsilon", "eps"), ("v", "v_prediction", "v-prediction", "v_pred")
# Marks of models that are sampled by other rules, and their names.
_OTHER_RULES: Mapping[str, str] = {"edm_mean": "Playground v2.5", "edm_vpred.sigma_max": "CosXL"}

# As in the published scheduler of SDXL's base model.
_SCHEDULER: Mapping[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}
# Lin et al., Common Diffusion Noise Schedules and Sample Steps are Flawed (arXiv 2305.08891): with a
# terminal signal of zero, drawing has to begin at the last timestep, which trailing spacing does.
_ZERO_SNR_SETTINGS: Mapping[str, Any] = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


def reads_file(names: Collection[str]) -> bool:
    """Whether a file with tensors of those names is an SDXL checkpoint, or the UNet of one."""
    if any(name.startswith(_REFINER) or ".time_stack." in name for name in names):
        return False
    inside = {name.removeprefix(LDM_PREFIX) for name in names}
    is_whole = all(any(name.startswith(prefix) for name in names) for prefix in (LDM_PREFIX, _TEXT_2))
    return is_whole or is_ldm_unet(inside) or is_diffusers_unet(names)


@dataclass(frozen=True)
class SDXLFile:
    """A single file: its tensors by part, without the prefixes, and what else it says.

    ``left_out`` are the names of tensors that belong to no part and are not used.
    """

    checkpoint: Checkpoint
    parts: Mapping[str, Mapping[str, CheckpointTensor]]
    marks: frozenset[str]
    left_out: tuple[str, ...]

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> SDXLFile:
        """Read the file's header.

        Raises:
            ModelError: it is a model of which drawing follows other rules.
            DamagedModelError: the file is damaged.
        """
        records = checkpoint.header
        for mark, model in _OTHER_RULES.items():
            if mark in records:
                raise ModelError(
                    f"{checkpoint.path} is {model} (it has the tensor {mark}), which is sampled by settings that a "
                    "single file doesn't hold. Give SDXL, or this model in diffusers' layout"
                )
        found: dict[str, dict[str, TensorRecord]] = {}
        rest = []
        for name, record in records.items():
            part = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
            if part is not None:
                found.setdefault(part, {})[name.removeprefix(part)] = record
            else:
                rest.append(name)
        marks = frozenset({_VELOCITY, _ZERO_SNR} & {*rest}) | _marks_of(checkpoint)
        if not found:  # a UNet alone, without a prefix
            found, rest = {LDM_PREFIX: {name: each for name, each in records.items() if name not in marks}}, []
        if (_TEXT_1 in found) != (_TEXT_2 in found):
            missing = _TEXT_2 if _TEXT_1 in found else _TEXT_1
            raise DamagedModelError(f"{checkpoint.path} is damaged: it has one text encoder, and no tensors {missing}…")
        parts = {part: with_scales(_used(part, tensors)) for part, tensors in found.items()}
        return cls(checkpoint, parts, marks, tuple(sorted(name for name in rest if _is_unknown(name))))

    @property
    def origin(self) -> str:
        """The file, for errors."""
        return str(self.checkpoint.path)

    @property
    def has_text_encoders(self) -> bool:
        """Whether it is a whole model, and not its UNet alone."""
        return _TEXT_1 in self.parts and _TEXT_2 in self.parts

    @cached_property
    def text_encoders(self) -> tuple[Part[ClipConfig], Part[ClipConfig]]:
        """Both text encoders."""
        return (
            clip_part(self.parts[_TEXT_1], self.origin, "quick_gelu", _TEXT_1),
            open_clip_part(self.parts[_TEXT_2], self.origin, "gelu", _TEXT_2),
        )

    @cached_property
    def vae(self) -> Part[AutoencoderConfig] | None:
        """The VAE, if there is one."""
        tensors = self.parts.get(_VAE)
        return None if tensors is None else vae_part(tensors, self.origin, SCALING_FACTOR, _VAE)

    def unet(self, pooled_width: int, sample_size: int) -> Part[UNetConfig]:
        """The UNet. Raises what :func:`unet_part` does."""
        return unet_part(self.parts.get(LDM_PREFIX, {}), self.origin, pooled_width, sample_size)

    def scheduler(self) -> dict[str, Any] | None:
        """The scheduler's configuration; None of a UNet alone, without a mark of its own."""
        if _VELOCITY in self.marks:
            settings = _ZERO_SNR_SETTINGS if _ZERO_SNR in self.marks else {}
            return {**_SCHEDULER, "prediction_type": "v_prediction", **settings}
        return dict(_SCHEDULER) if self.has_text_encoders else None

    def notes(self) -> Iterator[str]:
        """What was concluded from the file, and what of it isn't used."""
        if _VELOCITY in self.marks:
            zero = " and a terminal signal of zero" if _ZERO_SNR in self.marks else ""
            yield f"the file is marked as one that predicts velocities{zero}: the scheduler was set accordingly"
        if self.left_out:
            first = label(self.left_out[0])
            more = f" and {len(self.left_out) - 1} more" if len(self.left_out) > 1 else ""
            yield f"tensors of the file that belong to no part of an SDXL model are not used: {first}{more}"


def _marks_of(checkpoint: Checkpoint) -> frozenset[str]:
    """The marks that a file's header says in its texts, where no tensor says them.

    Raises:
        ModelError: it names another prediction type.
    """
    metadata = read_metadata(checkpoint.path)
    marks = {mark for mark in (_VELOCITY, _ZERO_SNR) if metadata.get(mark, "false").casefold() not in ("false", "0")}
    predicts = metadata.get(_PREDICTION, _NOISE_PREDICTIONS[0])
    if predicts.casefold() in _VELOCITY_PREDICTIONS:
        marks.add(_VELOCITY)
    elif predicts.casefold() not in _NOISE_PREDICTIONS:
        raise ModelError(
            f"{checkpoint.path} says {_PREDICTION} = {shown(predicts)}, which Vinograph doesn't compute; it computes "
            f"{_NOISE_PREDICTIONS[0]} and {_VELOCITY_PREDICTIONS[0]}"
        )
    return frozenset(marks)


def _used(part: str, tensors: Mapping[str, TensorRecord]) -> dict[str, TensorRecord]:
    """A part's tensors, without what training leaves behind."""
    return {name: tensor for name, tensor in tensors.items() if not _LEFT_BEHIND.fullmatch(part + name)}


def _is_unknown(name: str) -> bool:
    return name not in (_VELOCITY, _ZERO_SNR) and not _LEFT_BEHIND.fullmatch(name)
