"""Small random checkpoints in the published layouts, built with diffusers' and transformers' own classes.

Every parameter is random, those too that start at zero or one (γ and β of global response norm, the VQGAN's gammas,
layer norms): a fold that forgets one is seen. Values are scaled so that pictures are neither flat nor saturated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_diffnext import WuerstchenDiffNeXt
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_prior import WuerstchenPrior
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
PRIOR_ID = "vinograph-tests/wuerstchen-prior"

# Neither library's pipelines are typed.
_PIPELINES: Any = diffusers
for _library in (diffusers.utils.logging, transformers.utils.logging):
    _logging: Any = _library
    _logging.set_verbosity_error()
    _logging.disable_progress_bar()


@dataclass(frozen=True)
class WuerstchenShape:
    """The sizes of a small Würstchen. Tuples have one entry for each of the decoder's levels, the finest first."""

    prior_width: int = 32
    prior_depth: int = 2
    prior_heads: int = 4
    prior_text_width: int = 24
    decoder_widths: tuple[int, ...] = (16, 24, 32)
    decoder_heads: tuple[int, ...] = (-1, 3, 4)
    decoder_blocks: tuple[int, ...] = (1, 2, 1)
    decoder_levels: tuple[str, ...] = ("CT", "CTA", "CTA")
    decoder_injects: tuple[bool, ...] = (False, True, True)
    decoder_condition: int = 20
    decoder_text_width: int = 16
    time_width: int = 32
    patch_size: int = 2
    text_layers: int = 2
    text_length: int = 77
    activations: tuple[str, str] = ("gelu", "quick_gelu")
    vqgan_width: int = 16
    vqgan_blocks: int = 2


SMALL = WuerstchenShape()
"""Odd enough to tell dimensions apart."""
DEEP = WuerstchenShape(
    prior_width=40,
    prior_depth=3,
    prior_heads=5,
    decoder_widths=(8, 16, 24, 24),
    decoder_heads=(-1, 2, 3, 6),
    decoder_blocks=(2, 1, 3, 1),
    decoder_levels=("CT", "CTA", "CTA", "CTA"),
    decoder_injects=(False, True, True, True),
)
TINY = WuerstchenShape(
    prior_width=8,
    prior_depth=1,
    prior_heads=2,
    decoder_widths=(8,),
    decoder_heads=(2,),
    decoder_blocks=(1,),
    decoder_levels=("CTA",),
    decoder_injects=(True,),
    text_layers=1,
    vqgan_blocks=1,
)
"""For tests of what happens around the models."""
SHALLOW = WuerstchenShape(
    prior_depth=1,
    decoder_widths=(16, 24),
    decoder_heads=(4, 4),
    decoder_blocks=(2, 1),
    decoder_levels=("CTA", "CT"),
    decoder_injects=(True, True),
    time_width=17,
    text_length=20,
)
"""Attention on the finest level, injection everywhere, an odd width of the time's embedding."""


@dataclass(frozen=True)
class WuerstchenModels:
    """diffusers' models in f32, ready to be compared with."""

    prior_text_encoder: CLIPTextModel
    prior: WuerstchenPrior
    text_encoder: CLIPTextModel
    decoder: WuerstchenDiffNeXt
    vqgan: PaellaVQModel
    tokenizer: CLIPTokenizer

    def combined(self) -> Any:
        """diffusers' `WuerstchenCombinedPipeline` of these models."""
        return _PIPELINES.WuerstchenCombinedPipeline(
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            decoder=self.decoder,
            scheduler=_PIPELINES.DDPMWuerstchenScheduler(),
            vqgan=self.vqgan,
            prior_tokenizer=self.tokenizer,
            prior_text_encoder=self.prior_text_encoder,
            prior_prior=self.prior,
            prior_scheduler=_PIPELINES.DDPMWuerstchenScheduler(),
        )


@dataclass(frozen=True)
class SavedWuerstchen:
    """Where a checkpoint was saved. ``prior`` is its own directory in the split layout, else the same."""

    decoder: Path
    prior: Path
    models: WuerstchenModels


def clip_tokenizer(max_length: int = 77) -> CLIPTokenizer:
    """A byte-level CLIP tokenizer that takes any text, with a few merges."""
    letters = sorted(ByteLevel.alphabet())
    pairs = ["r e", "re d</w>", "o u", "h ou", "s e</w>", "hou se</w>", "a t</w>"]
    merges: Any = [tuple(pair.split()) for pair in pairs]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(a + b for a, b in merges), START, END]
    return CLIPTokenizer({token: index for index, token in enumerate(tokens)}, merges, model_max_length=max_length)


def wuerstchen_models(shape: WuerstchenShape = SMALL, seed: int = 0) -> WuerstchenModels:
    """Random models of that shape; the same seed gives the same weights."""
    tokenizer = clip_tokenizer(shape.text_length)
    generator = torch.Generator().manual_seed(seed)
    models = WuerstchenModels(
        prior_text_encoder=_text_encoder(shape.prior_text_width, shape.activations[0], shape, tokenizer),
        prior=WuerstchenPrior(
            c=shape.prior_width,
            c_cond=shape.prior_text_width,
            c_r=shape.time_width,
            depth=shape.prior_depth,
            nhead=shape.prior_heads,
        ),
        text_encoder=_text_encoder(shape.decoder_text_width, shape.activations[1], shape, tokenizer),
        decoder=WuerstchenDiffNeXt(
            c_r=shape.time_width,
            patch_size=shape.patch_size,
            c_cond=shape.decoder_condition,
            c_hidden=list(shape.decoder_widths),
            nhead=list(shape.decoder_heads),
            blocks=list(shape.decoder_blocks),
            level_config=list(shape.decoder_levels),
            inject_effnet=list(shape.decoder_injects),
            clip_embd=shape.decoder_text_width,
        ),
        vqgan=PaellaVQModel(embed_dim=shape.vqgan_width, bottleneck_blocks=shape.vqgan_blocks, num_vq_embeddings=32),
        tokenizer=tokenizer,
    )
    for model in (models.prior_text_encoder, models.prior, models.text_encoder, models.decoder, models.vqgan):
        randomise(model, generator)
    _calm(models)
    return models


def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw every parameter and statistic afresh: weights by fan-in, norms about one, the rest about zero."""
    norms = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm | nn.BatchNorm2d) for p in [m.weight]}
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if id(parameter) in norms:
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.dim() > 1 and parameter.shape[:3] != (1, 1, 1):
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            else:
                parameter.copy_(0.2 * noise)
        for name, statistic in model.named_buffers():
            if name.endswith("running_mean"):
                statistic.copy_(0.2 * torch.randn(statistic.shape, generator=generator))
            elif name.endswith("running_var"):
                statistic.copy_(0.5 + torch.rand(statistic.shape, generator=generator))
    model.eval().requires_grad_(False)


def _calm(models: WuerstchenModels) -> None:
    """Keep what the models divide by away from zero, and pictures near the middle of [0, 1]."""
    prior, decoder, vqgan = (model.get_parameter for model in (models.prior, models.decoder, models.vqgan))
    prior("out.1.weight").mul_(0.1)
    decoder("clf.1.weight").mul_(0.3)
    bias = decoder("clf.1.bias")
    bias[len(bias) // 2 :].add_(2.0)
    vqgan("out_block.0.weight").mul_(0.15)
    vqgan("out_block.0.bias").mul_(0.1).add_(0.5)


def _text_encoder(width: int, activation: str, shape: WuerstchenShape, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=2,
        max_position_embeddings=shape.text_length,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def save_wuerstchen(
    directory: Path,
    shape: WuerstchenShape = SMALL,
    layout: Literal["combined", "split"] = "combined",
    seed: int = 0,
    variant: str | None = None,
) -> SavedWuerstchen:
    """Save a random checkpoint below ``directory`` as its authors publish it.

    The split layout has the decoder's repository, whose model card names :data:`PRIOR_ID`, and the prior's.
    With ``variant`` "fp16" the weights are in half precision, in files of that name.
    """
    models = wuerstchen_models(shape, seed)
    if layout == "combined":
        home = prior_home = directory / "wuerstchen"
        _save(models.combined(), home, variant)
        write_card(home, "license: mit")
    else:
        home, prior_home = directory / "wuerstchen", directory / "wuerstchen-prior"
        pipe = models.combined()
        _save(pipe.decoder_pipe, home, variant)
        _save(pipe.prior_pipe, prior_home, variant)
        write_card(home, "license: mit", "prior:", f"- {PRIOR_ID}")
        write_card(prior_home, "license: mit")
    return SavedWuerstchen(home, prior_home, models)


def _save(pipe: Any, home: Path, variant: str | None) -> None:
    pipe.save_pretrained(home, variant=variant)
    if variant == "fp16":
        from safetensors.torch import load_file, save_file

        for file in home.rglob("*.safetensors"):
            halves = {k: v.half() if v.is_floating_point() else v for k, v in load_file(file).items()}
            save_file(halves, file, metadata={"format": "pt"})


def write_card(directory: Path, *front_matter: str) -> None:
    """A model card with that YAML in front, and a licence beside it."""
    lines: Sequence[str] = ["---", *front_matter, "---", "", "# Würstchen, small and random", ""]
    (directory / "README.md").write_text("\n".join(lines), encoding="utf-8")
    (directory / "LICENSE").write_text("Use it as you like.\n", encoding="utf-8")


def split_tokenizer_files(folder: Path) -> None:
    """Replace a folder's tokenizer.json by the vocab.json and merges.txt that older checkpoints have."""
    file = folder / "tokenizer.json"
    model = json.loads(file.read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = [" ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    file.unlink()
