"""The layout of SDXL checkpoints such as stabilityai/sdxl-turbo."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from vinograph.errors import ModelError
from vinograph.models.checkpoint import Checkpoint, Subfolder
from vinograph.models.model_index import check_classes, require_parts
from vinograph.models.vae_layout import VAE_CLASSES, named_tiny_vae, vae_places
from vinograph.schedulers import SAMPLERS

_PIPELINES = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline")
PIPELINES = (*_PIPELINES, *(f"OV{name}" for name in _PIPELINES))

SINGLE_FILES: Mapping[str, str] = MappingProxyType(
    {"conditioner.embedders.1.": "SDXL", "conditioner.embedders.0.": "SDXL's refiner"}
)
"""Prefixes of tensors in single files of the authors' layout, and the model that they show."""

EXPORTED_FILE, EXPORTED_WEIGHTS = "openvino_model.xml", "openvino_model.bin"
_PARTS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae", "scheduler")
# optimum-intel's own names, where a pipeline of it was saved: the older and the newer library.
_OPTIMUM = ("optimum", "optimum.intel.openvino.modeling_diffusion")
_WHOLE_CLIP = ("transformers", "CLIPModel")  # of which the text encoder and its projection are used
_TOKENIZER = {("transformers", "CLIPTokenizer"), ("transformers", "CLIPTokenizerFast")}


def _exported_as(name: str) -> set[tuple[str, str]]:
    return {(library, name) for library in _OPTIMUM}


CLASSES: Mapping[str, set[tuple[str, str]]] = MappingProxyType(
    {
        "text_encoder": {
            ("transformers", "CLIPTextModel"),
            ("transformers", "CLIPTextModelWithProjection"),
            _WHOLE_CLIP,
            *_exported_as("OVModelTextEncoder"),
        },
        "text_encoder_2": {
            ("transformers", "CLIPTextModelWithProjection"),
            _WHOLE_CLIP,
            *_exported_as("OVModelTextEncoder"),
        },
        "tokenizer": _TOKENIZER,
        "tokenizer_2": _TOKENIZER,
        "unet": {("diffusers", "UNet2DConditionModel"), *_exported_as("OVModelUnet")},
        **VAE_CLASSES,
        "vae": VAE_CLASSES["vae"] | _exported_as("OVModelVae"),
        "vae_decoder": _exported_as("OVModelVaeDecoder"),
        "vae_encoder": _exported_as("OVModelVaeEncoder"),
        "scheduler": {("diffusers", name) for name in SAMPLERS},
        # For an IP-Adapter, which a checkpoint may have or not: drawing from text alone is the
        # same, and they stay out.
        "image_encoder": {("transformers", "CLIPVisionModelWithProjection")},
        "feature_extractor": {
            ("transformers", name) for name in ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPFeatureExtractor")
        },
    }
)


def find(checkpoint: Checkpoint, index: Mapping[str, Any], tiny_vae: str | None) -> dict[str, Subfolder]:
    """Find the place of every part; "vae" is the full VAE and "tiny_vae" the tiny one.

    What optimum-intel has exported has "vae_decoder" and "vae_encoder" in place of "vae".

    Args:
        checkpoint: the checkpoint to convert.
        index: its model_index.json.
        tiny_vae: a checkpoint with a tiny VAE alone, in place of the one in the checkpoint's folder
            ``tiny_vae``.

    Raises:
        ModelError: a part is missing or of an unknown class, or the model is a refiner.
    """
    check_classes(index, CLASSES, checkpoint.id)
    if index.get("requires_aesthetics_score"):
        raise ModelError(f"{checkpoint.id} is a refiner of pictures, which Vinograph doesn't convert: it needs a base")
    index = {"vae": index.get("vae_decoder"), **index}  # optimum-intel once named the halves alone
    require_parts(index, _PARTS, checkpoint.id)
    places = {part: Subfolder(checkpoint, part) for part in _PARTS if part != "vae"} | vae_places(checkpoint, index)
    if is_exported(places):
        if "vae" not in places:
            raise ModelError(f"{checkpoint.id} is an export with a tiny VAE; Vinograph converts those with a full one")
        del places["vae"]
        places |= {half: Subfolder(checkpoint, half) for half in ("vae_decoder", "vae_encoder")}
    if tiny_vae is not None:
        places["tiny_vae"] = named_tiny_vae(tiny_vae)
    return places


def is_exported(places: Mapping[str, Subfolder]) -> bool:
    """Whether the networks are OpenVINO IR already, which the UNet's folder shows.

    The published SDXL base has IR and safetensors side by side: then it is a checkpoint.
    """
    listing = places["unet"].listing()
    return EXPORTED_FILE in listing and not any(name.endswith(".safetensors") for name in listing)
