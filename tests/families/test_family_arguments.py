"""The arguments of every family's calls are those of diffusers' pipelines: the same names, defaults and order."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import pytest

from vinograph.families.pixart.arguments import FAMILY as PIXART
from vinograph.families.sdxl.arguments import FAMILY as SDXL
from vinograph.families.wuerstchen.arguments import FAMILY as WUERSTCHEN

DIFFUSERS: Any = diffusers


@dataclass(frozen=True)
class Likeness:
    """A call of ours, and diffusers' pipelines that it stands for, the one whose order it has first."""

    family: Any
    pipelines: tuple[str, ...]
    call: str = "generate"
    not_taken: frozenset[str] = frozenset({"return_dict"})
    other_defaults: frozenset[str] = frozenset()
    """Arguments whose default is the model's, or another kind of value."""
    ours_alone: frozenset[str] | None = None

    def theirs(self, pipeline: str) -> Mapping[str, inspect.Parameter]:
        """The parameters of a pipeline's call."""
        found = dict(inspect.signature(getattr(DIFFUSERS, pipeline).__call__).parameters)
        return {name: each for name, each in found.items() if name not in ("self", "kwargs")}


EVALUATIONS = ("speed", "guidance_interval", "extrapolation_interval", "extrapolation_order")
LATENT_REQUEST = (*EVALUATIONS, "hires", "hires_steps", "hires_strength", "hires_upscaler", "vae_tiling")

LIKENESSES = [
    Likeness(
        WUERSTCHEN,
        ("WuerstchenCombinedPipeline",),
        ours_alone=frozenset({"seed", "image", "scheduler", "decoder_scheduler", "strength", *EVALUATIONS}),
    ),
    Likeness(WUERSTCHEN, ("WuerstchenPriorPipeline",), "prior", other_defaults=frozenset({"output_type"})),
    Likeness(WUERSTCHEN, ("WuerstchenDecoderPipeline",), "decoder"),
    Likeness(
        SDXL,
        ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"),
        not_taken=frozenset(
            {
                *("return_dict", "ip_adapter_image", "ip_adapter_image_embeds", "cross_attention_kwargs"),
                *("aesthetic_score", "negative_aesthetic_score"),  # for the refiner's UNet
                "masked_image_latents",  # for UNets of nine channels
            }
        ),
        other_defaults=frozenset({"height", "width"}),
        ours_alone=frozenset(
            {"seed", "scheduler", "vae", "prompt_weighting", "long_prompt", "extend", *LATENT_REQUEST}
        ),
    ),
    Likeness(
        PIXART,
        ("PixArtAlphaPipeline", "PixArtSigmaPipeline"),
        other_defaults=frozenset({"height", "width", "max_sequence_length"}),
        ours_alone=frozenset({"seed", "image", "scheduler", "strength", "vae", "prompt_weighting", *LATENT_REQUEST}),
    ),
]
EACH = [pytest.param(each, name, id=name) for each in LIKENESSES for name in each.pipelines]


@pytest.mark.parametrize(("likeness", "pipeline"), EACH)
def test_every_argument_of_theirs(likeness: Likeness, pipeline: str) -> None:
    theirs, call = likeness.theirs(pipeline), likeness.family.calls[likeness.call]
    assert theirs.keys() - likeness.not_taken <= call.takes.keys()
    ours = {**call.takes, **(call.conditional_defaults["mask_image"] if "mask_image" in theirs else {})}
    for name in theirs.keys() - likeness.not_taken - likeness.other_defaults:
        default = theirs[name].default
        if name.endswith("tensor_inputs"):
            assert default == ["latents"]  # what a callback of ours is given, unless it asks for more
        elif default is not inspect.Parameter.empty:
            assert ours[name] == default, name


@pytest.mark.parametrize("likeness", LIKENESSES, ids=lambda each: each.pipelines[0])
def test_their_order(likeness: Likeness) -> None:
    positional = likeness.family.calls[likeness.call].positional
    assert tuple(likeness.theirs(likeness.pipelines[0]))[: len(positional)] == positional


@pytest.mark.parametrize("pipeline", ["PixArtAlphaPipeline", "PixArtSigmaPipeline"])
def test_all_of_pixarts_may_be_given_by_position(pipeline: str) -> None:
    assert PIXART.calls["generate"].positional == tuple(LIKENESSES[-1].theirs(pipeline))


@pytest.mark.parametrize("likeness", [each for each in LIKENESSES if each.ours_alone], ids=lambda e: e.pipelines[0])
def test_what_is_ours_alone(likeness: Likeness) -> None:
    theirs = {name for pipeline in likeness.pipelines for name in likeness.theirs(pipeline)}
    assert likeness.family.calls[likeness.call].takes.keys() - theirs == likeness.ours_alone
