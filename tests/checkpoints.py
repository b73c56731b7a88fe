"""Small random checkpoints in published layouts, of diffusers' and transformers' classes.

Every parameter is random, those too that start at zero or one (γ and β of global response norm, the
VQGAN's gammas, layer norms): a fold that forgets one is seen. Values are scaled so that pictures
are neither flat nor saturated.
"""

from __future__ import annotations

import json
import warnings
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
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

START, END = "<|startoftext|>", "<|endoftext|>"
PRIOR_ID = "vinograph-tests/wuerstchen-prior"

# Neither library's classes are typed.
_PIPELINES: Any = diffusers
for _library in (diffusers.utils.logging, transformers.utils.logging):
    _logging: Any = _library
    _logging.set_verbosity_error()
    _logging.disable_progress_bar()


@dataclass(frozen=True)
class WuerstchenShape:
    """The sizes of a small Würstchen; tuples have an entry per decoder level, finest first."""

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
    """Where a checkpoint was saved; in the split layout ``prior`` is its own directory."""

    decoder: Path
    prior: Path
    models: WuerstchenModels


# What a tokenizer's model has when the library that reads it panics.
PANIC = {"continuing_subword_prefix": "x" * 10_000}


def clip_tokenizer(max_length: int = 77, pad: str = END) -> CLIPTokenizer:
    """A byte-level CLIP tokenizer that takes any text, with a few merges."""
    letters = sorted(ByteLevel.alphabet())
    pairs = ["r e", "re d</w>", "o u", "h ou", "s e</w>", "hou se</w>", "a t</w>"]
    merges: Any = [tuple(pair.split()) for pair in pairs]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(a + b for a, b in merges), START, END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocabulary, merges, model_max_length=max_length, pad_token=pad)


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
    """Randomise parameters and statistics: by fan-in, norms about one, all else about zero."""
    kinds = nn.LayerNorm | nn.BatchNorm2d | nn.GroupNorm
    norms = {id(p) for m in model.modules() if isinstance(m, kinds) for p in [m.weight]}
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
    return CLIPTextModel(_text_config(tokenizer, width, shape.text_layers, shape.text_length, activation))


def _text_config(
    tokenizer: CLIPTokenizer, width: int, layers: int, length: int, activation: str, **more: Any
) -> CLIPTextConfig:
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "max_position_embeddings": length,
        "hidden_act": activation,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPTextConfig(**{**settings, **more})


def save_wuerstchen(
    directory: Path,
    shape: WuerstchenShape = SMALL,
    layout: Literal["combined", "split"] = "combined",
    seed: int = 0,
    variant: str | None = None,
) -> SavedWuerstchen:
    """Save a random checkpoint below ``directory`` as its authors publish it.

    The split layout has the decoder's repository, whose model card names :data:`PRIOR_ID`, and the
    prior's. With ``variant`` "fp16" the weights are in half precision, in files of that name.
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


def _save(pipe: Any, home: Path, variant: str | None, shard: str = "5GB") -> None:
    pipe.save_pretrained(home, variant=variant, max_shard_size=shard)
    if variant == "fp16":
        from safetensors.torch import load_file, save_file

        for file in home.rglob("*.safetensors"):
            halves = {k: v.half() if v.is_floating_point() else v for k, v in load_file(file).items()}
            save_file(halves, file, metadata={"format": "pt"})


@dataclass(frozen=True)
class SdxlShape:
    """The sizes of a small SDXL; tuples have one entry for each level of the UNet."""

    turbo: bool = False
    prediction_type: str = "epsilon"
    sample_size: int = 16
    widths: tuple[int, ...] = (16, 32, 48)
    heads: tuple[int, ...] = (2, 4, 6)
    depths: tuple[int, ...] = (1, 1, 2)
    guidance_width: int | None = None
    inpaints: bool = False
    text_widths: tuple[int, int] = (24, 16)
    pooled_width: int = 20
    text_layers: int = 3
    text_length: int = 77
    eos_rule: Literal["highest", "first"] = "highest"
    layers: int = 2
    vae_widths: tuple[int, ...] = (8, 16, 16, 24)
    vae_layers: int = 2
    tiny_vae: bool = False


SDXL = SdxlShape()
"""As SDXL base: Euler, many steps, guided."""
SDXL_TURBO = SdxlShape(turbo=True, sample_size=8, heads=(1, 2, 3), depths=(1, 2, 1), eos_rule="first", tiny_vae=True)
"""As SDXL-Turbo: one step, with a tiny VAE in the checkpoint."""
SDXL_LCM = SdxlShape(guidance_width=12, prediction_type="v_prediction")
"""The guidance scale goes into the UNet; what it predicts is a velocity."""
SDXL_TINY = SdxlShape(
    sample_size=8,
    widths=(8, 8),
    heads=(1, 2),
    depths=(1, 1),
    text_widths=(4, 4),
    pooled_width=4,
    text_layers=2,
    layers=1,
    vae_widths=(4, 4, 4, 4),
    vae_layers=1,
)
"""For tests of what happens around the models. One layer a level makes it quick to compile."""


@dataclass(frozen=True)
class SdxlModels:
    """diffusers' models in f32, ready to be compared with."""

    text_encoder: CLIPTextModel
    text_encoder_2: CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer
    tokenizer_2: CLIPTokenizer
    unet: Any
    vae: Any
    tiny_vae: Any
    scheduler: Any

    def pipeline(self, *, tiny: bool = False) -> Any:
        """diffusers' `StableDiffusionXLPipeline` of these models."""
        return _PIPELINES.StableDiffusionXLPipeline(
            vae=self.tiny_vae if tiny else self.vae,
            text_encoder=self.text_encoder,
            text_encoder_2=self.text_encoder_2,
            tokenizer=self.tokenizer,
            tokenizer_2=self.tokenizer_2,
            unet=self.unet,
            scheduler=self.scheduler,
            add_watermarker=False,
        )


@dataclass(frozen=True)
class SavedSdxl:
    """Where a checkpoint was saved, and its tiny VAE alone, as it is published."""

    home: Path
    tiny_vae: Path
    models: SdxlModels


def sdxl_models(shape: SdxlShape = SDXL, seed: int = 0) -> SdxlModels:
    """Random models of that shape; the same seed gives the same weights."""
    generator = torch.Generator().manual_seed(seed)
    tokenizer, tokenizer_2 = clip_tokenizer(shape.text_length), clip_tokenizer(shape.text_length, pad="!")
    length, layers = shape.text_length, shape.text_layers
    # Published configurations have 2 here, from before it had a meaning.
    eos = 2 if shape.eos_rule == "highest" else tokenizer.eos_token_id
    levels = len(shape.widths)
    time_width = 8
    models = SdxlModels(
        text_encoder=CLIPTextModel(_text_config(tokenizer, shape.text_widths[0], layers, length, "quick_gelu")),
        text_encoder_2=CLIPTextModelWithProjection(
            _text_config(
                tokenizer_2,
                shape.text_widths[1],
                layers + 1,
                length,
                "gelu",
                projection_dim=shape.pooled_width,
                eos_token_id=eos,
            )
        ),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=_PIPELINES.UNet2DConditionModel(
            sample_size=shape.sample_size,
            block_out_channels=shape.widths,
            down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * (levels - 1)),
            up_block_types=(*["CrossAttnUpBlock2D"] * (levels - 1), "UpBlock2D"),
            layers_per_block=shape.layers,
            norm_num_groups=4,
            cross_attention_dim=sum(shape.text_widths),
            transformer_layers_per_block=shape.depths,
            attention_head_dim=shape.heads,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=time_width,
            projection_class_embeddings_input_dim=shape.pooled_width + 6 * time_width,
            time_cond_proj_dim=shape.guidance_width,
            in_channels=9 if shape.inpaints else 4,
        ),
        vae=_small_vae(shape.vae_widths, shape.vae_layers, 0.13025),
        tiny_vae=_small_tiny_vae(),
        scheduler=_sdxl_scheduler(shape),
    )
    for model in (models.text_encoder, models.text_encoder_2, models.unet, models.vae, models.tiny_vae):
        randomise(model, generator)
    _calm_vaes(models.vae, models.tiny_vae)
    return models


def _sdxl_scheduler(shape: SdxlShape) -> Any:
    schedule: dict[str, Any] = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": shape.prediction_type,
        "steps_offset": 1,
    }
    if shape.turbo:
        with warnings.catch_warnings():
            # diffusers makes an array of a tensor in a way that numpy deprecates.
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            return _PIPELINES.EulerAncestralDiscreteScheduler(**schedule, timestep_spacing="trailing")
    if shape.guidance_width is not None:
        return _PIPELINES.LCMScheduler(**{**schedule, "steps_offset": 0})
    return _PIPELINES.EulerDiscreteScheduler(**schedule, timestep_spacing="leading")


def _small_vae(widths: tuple[int, ...], layers: int, scaling_factor: float) -> Any:
    return _PIPELINES.AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=layers,
        norm_num_groups=4,
        scaling_factor=scaling_factor,
    )


def _small_tiny_vae() -> Any:
    return _PIPELINES.AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 2, 1, 1),
        num_decoder_blocks=(1, 1, 2, 1),
    )


def _calm_vaes(vae: Any, tiny_vae: Any) -> None:
    """Keep pictures near the middle of the range, however large their latents are."""
    vae.get_parameter("decoder.conv_out.weight").mul_(0.3)
    vae.get_parameter("decoder.conv_out.bias").mul_(0.5)
    last = len(tiny_vae.decoder.layers) - 1
    tiny_vae.get_parameter(f"decoder.layers.{last}.weight").mul_(0.35)
    tiny_vae.get_parameter(f"decoder.layers.{last}.bias").mul_(0.1).add_(0.5)


def save_sdxl(
    directory: Path,
    shape: SdxlShape = SDXL,
    seed: int = 0,
    variant: str | None = None,
    shard: str = "5GB",
) -> SavedSdxl:
    """Save a random checkpoint in the published layout below ``directory``, and its tiny VAE.

    With ``variant`` "fp16" the weights are in half precision, in files of that name; with ``shard``
    in files of that size at most, with an index.
    """
    models = sdxl_models(shape, seed)
    home, tiny = directory / ("sdxl-turbo" if shape.turbo else "sdxl"), directory / "taesdxl"
    _save(models.pipeline(), home, variant, shard)
    models.tiny_vae.save_pretrained(tiny)
    if shape.tiny_vae:
        models.tiny_vae.save_pretrained(home / "tiny_vae")
    write_card(home, "license: other", "license_name: sdxl-test")
    return SavedSdxl(home, tiny, models)


@dataclass(frozen=True)
class PixArtShape:
    """The sizes of a small PixArt; without ``size_conditions`` diffusers decides about them."""

    sigma: bool = False
    consistency: bool = False
    sample_size: int = 128
    size_conditions: bool | None = None
    interpolation_scale: float | None = None
    out_channels: int = 8
    heads: int = 2
    head_width: int = 12
    layers: int = 2
    text_width: int = 20
    text_heads: tuple[int, int] = (3, 8)
    text_layers: int = 3
    vae_widths: tuple[int, ...] = (8, 8, 16, 16)
    vae_layers: int = 2
    tiny_vae: bool = False

    @property
    def conditioned(self) -> bool:
        """Whether the transformer has size conditioning."""
        return self.sample_size == 128 if self.size_conditions is None else self.size_conditions


PIXART = PixArtShape()
"""Like XL-2-1024-MS, with DPM-Solver++, guidance and size conditioning."""
PIXART_LCM = PixArtShape(consistency=True, heads=3, head_width=8, tiny_vae=True)
"""As LCM-XL-2-1024-MS, with a tiny VAE in the checkpoint."""
PIXART_512 = PixArtShape(sample_size=64, text_heads=(5, 4))
"""As XL-2-512x512."""
PIXART_256 = PixArtShape(sample_size=32, heads=4, head_width=4, layers=1)
"""As XL-2-256x256."""
PIXART_SIGMA = PixArtShape(sigma=True, size_conditions=False, interpolation_scale=2)
"""As PixArt-Sigma-XL-2-1024-MS."""
PIXART_TINY = PixArtShape(
    sample_size=16,
    out_channels=4,
    heads=1,
    head_width=8,
    layers=1,
    text_width=8,
    text_heads=(1, 4),
    text_layers=1,
    vae_widths=(4, 4, 4, 4),
    vae_layers=1,
)
"""For tests around the models; no published model is so small or lacks trained aspect ratios."""


@dataclass(frozen=True)
class PixArtModels:
    """diffusers' and transformers' models in f32, ready to be compared with."""

    text_encoder: T5EncoderModel
    tokenizer: T5Tokenizer
    transformer: Any
    vae: Any
    tiny_vae: Any
    scheduler: Any
    sigma: bool

    def pipeline(self, *, tiny: bool = False) -> Any:
        """diffusers' `PixArtAlphaPipeline` of these models, or `PixArtSigmaPipeline`."""
        kind = _PIPELINES.PixArtSigmaPipeline if self.sigma else _PIPELINES.PixArtAlphaPipeline
        return kind(
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            vae=self.tiny_vae if tiny else self.vae,
            transformer=self.transformer,
            scheduler=self.scheduler,
        )


@dataclass(frozen=True)
class SavedPixArt:
    """Where a checkpoint was saved, and its tiny VAE alone, as it is published."""

    home: Path
    tiny_vae: Path
    models: PixArtModels


def t5_tokenizer(extra_ids: int = 100) -> T5Tokenizer:
    """A T5 unigram tokenizer with some words, and letters with and without a space before."""
    words = ["red", "house", "on", "a", "snow", "y", "hill", "at", "night", "the", "of", "tree", "s", "ing", "er"]
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'-()éü"
    pieces = [("▁" + word, -3.0 - index / 7) for index, word in enumerate(words)]
    pieces += [("▁", -4.0), *((word, -5.0 - index / 9) for index, word in enumerate(words) if len(word) > 1)]
    pieces += [(letter, -8.0 - index / 11) for index, letter in enumerate(letters) if letter not in words]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    known: set[str] = set()
    for piece, score in pieces:
        if piece not in known:
            vocabulary.append((piece, score))
            known.add(piece)
    vocabulary += [(f"<extra_id_{index}>", 0.0) for index in reversed(range(extra_ids))]
    return T5Tokenizer(vocabulary, extra_ids=extra_ids, model_max_length=512)


def pixart_models(shape: PixArtShape = PIXART, seed: int = 0) -> PixArtModels:
    """Random models of that shape; the same seed gives the same weights."""
    generator = torch.Generator().manual_seed(seed)
    tokenizer = t5_tokenizer()
    head_count, head_width = shape.text_heads
    models = PixArtModels(
        text_encoder=T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer) + 4,  # rounded up, as the published one is
                d_model=shape.text_width,
                d_kv=head_width,
                d_ff=3 * shape.text_width,
                num_layers=shape.text_layers,
                num_heads=head_count,
                feed_forward_proj="gated-gelu",
            )
        ),
        tokenizer=tokenizer,
        transformer=_PIPELINES.PixArtTransformer2DModel(
            num_attention_heads=shape.heads,
            attention_head_dim=shape.head_width,
            cross_attention_dim=shape.heads * shape.head_width,
            out_channels=shape.out_channels,
            num_layers=shape.layers,
            sample_size=shape.sample_size,
            interpolation_scale=shape.interpolation_scale,
            use_additional_conditions=shape.size_conditions,
            caption_channels=shape.text_width,
        ),
        vae=_small_vae(shape.vae_widths, shape.vae_layers, 0.13025 if shape.sigma else 0.18215),
        tiny_vae=_small_tiny_vae(),
        scheduler=_pixart_scheduler(shape),
        sigma=shape.sigma,
    )
    for model in (models.text_encoder, models.transformer, models.vae, models.tiny_vae):
        randomise(model, generator)
    with torch.no_grad():
        for name, parameter in models.text_encoder.named_parameters():
            if name.endswith("layer_norm.weight"):
                parameter.add_(1)
    _calm_vaes(models.vae, models.tiny_vae)
    return models


def _pixart_scheduler(shape: PixArtShape) -> Any:
    schedule: dict[str, Any] = {
        "num_train_timesteps": 1000,
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "prediction_type": "epsilon",
    }
    if shape.consistency:
        return _PIPELINES.LCMScheduler(**schedule)
    return _PIPELINES.DPMSolverMultistepScheduler(**schedule, algorithm_type="dpmsolver++", solver_order=2)


def save_pixart(
    directory: Path,
    shape: PixArtShape = PIXART,
    seed: int = 0,
    variant: str | None = None,
    shard: str = "5GB",
) -> SavedPixArt:
    """Save a random checkpoint in the published layout below ``directory``, and its tiny VAE.

    ``variant`` and ``shard`` are as in :func:`save_sdxl`.
    """
    models = pixart_models(shape, seed)
    home, tiny = directory / "pixart", directory / "taesd"
    _save(models.pipeline(), home, variant, shard)
    models.tiny_vae.save_pretrained(tiny)
    if shape.tiny_vae:
        models.tiny_vae.save_pretrained(home / "tiny_vae")
    write_card(home, "license: openrail++")
    return SavedPixArt(home, tiny, models)


def write_card(directory: Path, *front_matter: str) -> None:
    """Write a model card with these lines of front matter, and a licence."""
    lines: Sequence[str] = ["---", *front_matter, "---", "", "# Small and random", ""]
    (directory / "README.md").write_text("\n".join(lines), encoding="utf-8")
    (directory / "LICENSE").write_text("Use it as you like.\n", encoding="utf-8")


def split_tokenizer_files(folder: Path) -> None:
    """Replace a folder's tokenizer.json by the vocab.json and merges.txt of older checkpoints."""
    file = folder / "tokenizer.json"
    model = json.loads(file.read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = [" ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    file.unlink()


def unet_inputs(shape: SdxlShape, batch: int, height: int, width: int, tokens: int = 7) -> dict[str, torch.Tensor]:
    """What the UNet takes, at random; the caller seeds it."""
    inputs = {
        "sample": torch.randn(batch, 4, height, width),
        "timestep": torch.rand(batch) * 999,
        "encoder_hidden_states": torch.randn(batch, tokens, sum(shape.text_widths)),
        "text_embeds": torch.randn(batch, shape.pooled_width),
        "time_ids": torch.randint(2048, (batch, 6)).float(),
    }
    if shape.guidance_width is not None:
        inputs["timestep_cond"] = torch.randn(batch, shape.guidance_width)
    return inputs
