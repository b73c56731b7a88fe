"""PixArt's models: checked against a checkpoint without loading it, then loaded and made graphs one by one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vinograph.convert.assemble import Weights
from vinograph.convert.autoencoders import (
    DIFFUSERS_STEM,
    TRACED_SIZES,
    AutoencoderConfigs,
    Autoencoders,
    Graphs,
    check_pairs,
)
from vinograph.convert.checkpoint import Place
from vinograph.convert.export import Graph
from vinograph.convert.pixart_config import PixArtConfig
from vinograph.convert.pixart_transformer import PixArtTransformer
from vinograph.convert.scratch import Scratch
from vinograph.convert.skeleton import Skeleton, skeleton
from vinograph.convert.t5 import T5Config, T5Encoder
from vinograph.convert.weights import Allowance
from vinograph.manifest import Tensor

# The embedding of no text that replaced some while training; the table of positions, which is worked out here.
_TRANSFORMER = Allowance(unused=frozenset({"caption_projection.y_embedding", "pos_embed.pos_embed"}))
_TIED = "encoder.embed_tokens.weight"


@dataclass(frozen=True)
class Models:
    """All models of a checkpoint, fit to be converted."""

    text_encoder: Skeleton[T5Encoder]
    transformer: Skeleton[PixArtTransformer]
    autoencoders: Autoencoders

    @classmethod
    def check(cls, places: Mapping[str, Place]) -> Models:
        """Read the configurations, and the headers of the weights.

        Raises:
            ModelError: a configuration makes no sense, or isn't computed here; or weights are missing or pickled; or
                the parts don't fit together.
            DamagedModelError: a tensor is missing, too many, or of the wrong type or shape.
        """
        models = cls(
            text_encoder=skeleton(places["text_encoder"], "model", T5Encoder.from_config, Allowance(), _untied),
            transformer=skeleton(places["transformer"], DIFFUSERS_STEM, PixArtTransformer.from_config, _TRANSFORMER),
            autoencoders=Autoencoders.check(places),
        )
        text, transformer = models.text_encoder.module.config, models.config
        check_pairs([("text encoder gives", text.d_model, "transformer takes", transformer.text_width)])
        models.autoencoders.config.check("transformer")
        return models

    @property
    def config(self) -> PixArtConfig:
        """The transformer's configuration."""
        return self.transformer.module.config

    @property
    def vaes(self) -> AutoencoderConfigs:
        """The autoencoders' configurations."""
        return self.autoencoders.config

    def weights(self, stored: str, directory: Path) -> tuple[Weights, ...]:
        """What conversion goes through, in order, to be ``stored`` as f32, f16, int8 or int4.

        What the text encoder's files have in another type lies in ``directory`` meanwhile, not in memory.
        """
        text, transformer, halve = self.text_encoder, self.transformer, stored != "f32"
        kind, size = ("F16", 2) if halve else ("F32", 4)
        scratch = sum(record.size * size for record in text.records.values() if record.dtype != kind)
        text_graphs = partial(_text_graphs, text, halve, directory)
        return (
            Weights(("text_encoder",), text.values, text_graphs, scratch=scratch),
            Weights(("transformer",), transformer.values, partial(_transformer_graphs, transformer, halve)),
            *self.autoencoders.weights(halve),
        )


def _untied(name: str) -> str:
    """The name of the table of tokens, which is one table under two names; files have either, or both."""
    return "shared.weight" if name == _TIED else name


def _text_graphs(encoder: Skeleton[T5Encoder], halve: bool, directory: Path, _: Collection[str]) -> Graphs:
    config: T5Config = encoder.module.config
    tokens = Tensor(("b", "n"), "i64")
    states = Tensor(("b", "n", config.d_model), "f32")
    with Scratch(directory) as scratch:
        graph = Graph(
            encoder.load(halve, scratch),
            {"input_ids": tokens, "attention_mask": tokens},
            {"hidden_states": states},
            TRACED_SIZES,
            f16_safe=False,  # published weights make feed-forward layers pass what half precision holds
            scratch=scratch,
        )
        yield "text_encoder", graph


def _transformer_graphs(transformer: Skeleton[PixArtTransformer], halve: bool, _: Collection[str]) -> Graphs:
    config = transformer.module.config
    inputs = {
        "sample": Tensor(("b", 4, "h", "w"), "f32"),
        "timestep": Tensor(("b",), "f32"),
        "encoder_hidden_states": Tensor(("b", "n", config.text_width), "f32"),
        "encoder_attention_mask": Tensor(("b", "n"), "i64"),
    }
    if config.size_conditions:
        inputs |= {"resolution": Tensor(("b", 2), "f32"), "aspect_ratio": Tensor(("b", 1), "f32")}
    outputs = {"out_sample": Tensor(("b", config.channels, "h", "w"), "f32")}
    sizes = {**TRACED_SIZES, "h": 2 * config.patch_size, "w": 3 * config.patch_size}
    yield "transformer", Graph(transformer.load(halve), inputs, outputs, sizes)
