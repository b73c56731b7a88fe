"""Würstchen's models: checked against a checkpoint without loading it, then loaded and made graphs one by one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vinograph.convert import weights
from vinograph.convert.assemble import Weights
from vinograph.convert.checkpoint import Place
from vinograph.convert.clip import ClipConfig, ClipTextEncoder
from vinograph.convert.export import Graph
from vinograph.convert.skeleton import Skeleton, skeleton
from vinograph.convert.weights import Allowance
from vinograph.convert.wuerstchen_graphs import (
    Decoder,
    DecoderText,
    Prior,
    PriorText,
    VqganDecoder,
    attention_blocks,
)
from vinograph.errors import ModelError
from vinograph.manifest import Tensor
from vinograph.modules import ImageEncoder, ImageEncoderConfig, StageA, StageB, StageC
from vinograph.modules.image_encoder import IMAGENET_DEVIATION, IMAGENET_MEAN

Graphs = Iterator[tuple[str, Graph]]

_IDS = {"input_ids": Tensor(("b", "n"), "i64"), "attention_mask": Tensor(("b", "n"), "i64")}
_TIME = Tensor(("b",), "f32")
_SIZES = {"b": 2, "n": 5, "h": 3, "w": 4}

# What published text encoders hold besides the encoder, none of which their last hidden states depend on.
_TEXT_ENCODER = Allowance(unused=frozenset({"embeddings.position_ids", "text_projection.weight", "logit_scale"}))
# Batch norm's count of the batches that it was trained on.
_COUNTERS_ABSENT = Allowance(absent_suffixes=(".num_batches_tracked",))
_NONE = Allowance()
_DIFFUSERS = "diffusion_pytorch_model"
_OLDER_PREFIX = "text_model."
_PICKLED_KEY = "effnet_state_dict"


@dataclass(frozen=True)
class Models:
    """All models of a checkpoint, fit to be converted; ``image_encoder`` where there is one."""

    prior_text_encoder: Skeleton[ClipTextEncoder]
    prior: Skeleton[StageC]
    text_encoder: Skeleton[ClipTextEncoder]
    decoder: Skeleton[StageB]
    vqgan: Skeleton[StageA]
    image_encoder: Skeleton[ImageEncoder] | None

    @classmethod
    def check(cls, places: Mapping[str, Place], image_encoder: Path | None) -> Models:
        """Read the configurations, and the headers of the weights.

        Raises:
            ModelError: a configuration makes no sense, or weights are missing or pickled.
            DamagedModelError: a tensor is missing, too many, or of the wrong type or shape.
        """
        encoder = _image_encoder_file(image_encoder) if image_encoder is not None else None
        if encoder is None and "image_encoder" in places:
            encoder = skeleton(places["image_encoder"], "model", ImageEncoder.from_config, _COUNTERS_ABSENT)
        models = cls(
            prior_text_encoder=_text_encoder(places["prior_text_encoder"]),
            prior=skeleton(places["prior"], _DIFFUSERS, StageC.from_config, _NONE),
            text_encoder=_text_encoder(places["text_encoder"]),
            decoder=skeleton(places["decoder"], _DIFFUSERS, StageB.from_config, _NONE),
            vqgan=skeleton(places["vqgan"], _DIFFUSERS, StageA.from_config, _COUNTERS_ABSENT),
            image_encoder=encoder,
        )
        models._check_together()
        return models

    def _check_together(self) -> None:
        """The parts must fit each other: one checkpoint's prior may have been named for another's decoder."""
        prior, decoder = self.prior.module.config, self.decoder.module.config
        pairs = [
            (
                "prior's text encoder gives",
                self.prior_text_encoder.module.config.hidden_size,
                "prior takes",
                prior.c_cond,
            ),
            ("text encoder gives", self.text_encoder.module.config.hidden_size, "decoder takes", decoder.clip_embd),
            ("prior draws", prior.c_in, "decoder takes", decoder.effnet_embd),
            ("decoder draws", decoder.c_out, "VQGAN takes", self.vqgan.module.config.latent_channels),
            ("decoder draws", decoder.c_out, "decoder takes", decoder.c_in),
        ]
        if self.image_encoder is not None:
            given = self.image_encoder.module.config.c_latent
            pairs.append(("image encoder gives", given, "decoder takes", decoder.effnet_embd))
        for gives, width, takes, expected in pairs:
            if width != expected:
                raise ModelError(f"the parts don't fit together: the {gives} {width} channels, the {takes} {expected}")

    def weights(self) -> tuple[Weights, ...]:
        """What conversion goes through, in order."""
        prior_text, text = self.prior_text_encoder, self.text_encoder
        has_attention = bool(attention_blocks(self.decoder.module))
        found = [
            Weights(
                ("prior_text_encoder",),
                prior_text.values,
                partial(_text_encoder_graphs, "prior_text_encoder", prior_text),
            ),
            Weights(("prior_text", "prior"), self.prior.values, partial(_prior_graphs, self.prior)),
            Weights(("text_encoder",), text.values, partial(_text_encoder_graphs, "text_encoder", text)),
            Weights(
                ("decoder_text", "decoder") if has_attention else ("decoder",),
                self.decoder.values,
                partial(_decoder_graphs, self.decoder),
            ),
            Weights(("vqgan",), self.vqgan.values, partial(_vqgan_graphs, self.vqgan)),
        ]
        if self.image_encoder is not None:
            found.append(
                Weights(
                    ("image_encoder",), self.image_encoder.values, partial(_image_encoder_graphs, self.image_encoder)
                )
            )
        return tuple(found)


def _clip(config: Mapping[str, Any]) -> ClipTextEncoder:
    return ClipTextEncoder(ClipConfig.from_mapping(config))


def _text_encoder(place: Place) -> Skeleton[ClipTextEncoder]:
    return skeleton(place, "model", _clip, _TEXT_ENCODER, lambda name: name.removeprefix(_OLDER_PREFIX))


def _image_encoder_file(file: Path) -> Skeleton[ImageEncoder]:
    """The published image encoder out of the file that was named for it."""
    with torch.device("meta"):
        module = ImageEncoder(ImageEncoderConfig()).eval()
    if file.suffix in weights.PICKLES:
        tensors = weights.read_pickle(file, _PICKLED_KEY)
        records = weights.records_of(tensors, file)
    else:
        tensors, records = None, weights.read_header(file)
    weights.check(module, records, file, _COUNTERS_ABSENT)
    return Skeleton(module, records, tensors)


def _text_encoder_graphs(name: str, skeleton: Skeleton[ClipTextEncoder], _: Collection[str]) -> Graphs:
    states = Tensor(("b", "n", skeleton.module.config.hidden_size), "f32")
    yield name, Graph(skeleton.load(), _IDS, {"hidden_states": states}, _SIZES)


def _prior_graphs(skeleton: Skeleton[StageC], wanted: Collection[str]) -> Graphs:
    config, model = skeleton.module.config, skeleton.load()
    latents = Tensor(("b", config.c_in, "h", "w"), "f32")
    text = Tensor(("b", len(attention_blocks(model)), "n", config.c), "f32")
    states = {"hidden_states": Tensor(("b", "n", config.c_cond), "f32")}
    if "prior_text" in wanted:
        yield "prior_text", Graph(PriorText(model), states, {"keys": text, "values": text}, _SIZES)
    if "prior" in wanted:
        inputs = {"x": latents, "r": _TIME, "keys": text, "values": text}
        graph = Graph(Prior(model), inputs, {"noise": latents}, _SIZES)
        del model
        yield "prior", graph


def _decoder_graphs(skeleton: Skeleton[StageB], wanted: Collection[str]) -> Graphs:
    config, model = skeleton.module.config, skeleton.load()
    widths = attention_widths(model)
    text = {
        f"{part}_{index}": Tensor(("b", "n", width), "f32")
        for index, width in enumerate(widths)
        for part in ("keys", "values")
    }
    if "decoder_text" in wanted:
        states = {"hidden_states": Tensor(("b", "n", config.clip_embd), "f32")}
        yield "decoder_text", Graph(DecoderText(model), states, text, _SIZES)
    if "decoder" in wanted:
        latents = Tensor(("b", config.c_in, "H", "W"), "f32")
        levels = effnet_levels(model)
        maps = {f"effnet_{k}": Tensor(("b", config.effnet_embd, f"H_{k}", f"W_{k}"), "f32") for k in levels}
        coarsest = 2 ** (len(config.c_hidden) - 1)
        sizes = {**_SIZES, "H": 2 * config.patch_size * coarsest, "W": 3 * config.patch_size * coarsest}
        sizes |= {f"H_{k}": 2 * coarsest // 2**k for k in levels} | {f"W_{k}": 3 * coarsest // 2**k for k in levels}
        inputs = {"x": latents, "r": _TIME, **maps, **text}
        graph = Graph(Decoder(model), inputs, {"noise": latents}, sizes, f16_safe=False)
        del model
        yield "decoder", graph


def _vqgan_graphs(skeleton: Skeleton[StageA], _: Collection[str]) -> Graphs:
    config = skeleton.module.config
    latents = Tensor(("b", config.latent_channels, "H", "W"), "f32")
    image = Tensor(("b", config.out_channels, "height", "width"), "f32")
    sizes = {**_SIZES, "H": 3, "W": 4}
    yield "vqgan", Graph(VqganDecoder(skeleton.load()), {"latents": latents}, {"image": image}, sizes)


def _image_encoder_graphs(skeleton: Skeleton[ImageEncoder], _: Collection[str]) -> Graphs:
    image = Tensor(("b", 3, "height", "width"), "f32")
    embeddings = Tensor(("b", skeleton.module.config.c_latent, "h", "w"), "f32")
    module = skeleton.load()
    module.mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    module.deviation = torch.tensor(IMAGENET_DEVIATION).view(1, 3, 1, 1)
    yield (
        "image_encoder",
        Graph(module, {"image": image}, {"embeddings": embeddings}, {**_SIZES, "height": 64, "width": 96}),
    )


def effnet_levels(decoder: StageB) -> list[int]:
    """The levels whose residual blocks see the image embedding, the finest being 0."""
    return [level for level, injects in enumerate(decoder.config.inject_effnet) if injects]


def attention_widths(decoder: StageB) -> list[int]:
    """The width of each attention block, in order of execution."""
    return [block.attention.to_k.out_features for block in attention_blocks(decoder)]
