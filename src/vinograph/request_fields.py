"""The arguments that a call may take: the fields of :class:`Request`, each with its check.

The command line's options, the page's controls and the calls' signatures are generated from the
fields of :class:`Request` and from the arguments of a family's calls, so they can't drift apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.arguments import (
    Check,
    check_amount,
    check_callback_tensors,
    check_count,
    check_custom_timesteps,
    check_generator,
    check_image,
    check_maps,
    check_output_type,
    check_pixels,
    check_scale,
    check_scheduler,
    check_seed,
    check_size,
    check_step_callback,
    check_steps,
    check_strength,
    check_text_states,
    check_texts,
    check_vae,
)
from vinograph.noise import MAX_SEED, Noise, noise_from_generator, noise_from_seeds

Array = NDArray[np.float32]

STRENGTHS = (0.01, 1.0, 0.01)
"""Least, greatest and step of the strengths that a page offers."""


@dataclass(frozen=True)
class Argument:
    """Properties of an argument.

    ``recorded`` values are stored in a picture's metadata; a ``per_prompt`` argument has one value
    for each prompt. The argument has no effect without the arguments in ``needs``, as far as the
    call takes them. Arguments in ``replaces`` lose their defaults if this one is given. An argument
    that ``sets_steps`` determines the number of steps itself. A callback that ``gets_pipeline`` is
    called with the pipeline as first argument. ``metavar`` is the value's placeholder in the
    command line's help. ``slider`` is the least, the greatest and the step of the numbers that a
    page offers; where the argument has no default, the least is as good as none. A page has no
    control for an argument that isn't ``on_page``.
    """

    check: Check
    about: str
    recorded: bool = True
    per_prompt: bool = False
    needs: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    sets_steps: bool = False
    gets_pipeline: bool = False
    metavar: str | None = None
    slider: tuple[float, float, float] | None = None
    on_page: bool = True


def argument_field(check: Check, about: str, *, pair: str | None = None, **others: Any) -> Any:
    """Declare a field of a request; ``others`` are further fields of its :class:`Argument`.

    ``pair`` names another argument: neither of the two has an effect without the other.

    A family declares arguments that :class:`Request` lacks in its own folder, as fields of a frozen
    dataclass that inherits from :class:`Request`. Its ``Family`` names that class as ``request``.
    """
    return field(default=None, metadata={"argument": Argument(check, about, **others), "pair": pair})


@dataclass(frozen=True, kw_only=True)
class Request:
    """Checked arguments of a call, completed with the model's defaults. None means no value.

    The attributes are the arguments that more than one family takes, under the same names. An
    argument of a single family is an attribute of that family's subclass, which the results of its
    calls hold. Sizes are in pixels; scales and strength have no unit; timesteps of the continuous
    samplers lie in [0, 1].
    """

    prompt: tuple[str, ...] | None = argument_field(check_texts, "what to draw; a list draws each", per_prompt=True)
    negative_prompt: tuple[str, ...] | None = argument_field(
        check_texts, "what should not be in the picture; takes effect under guidance", per_prompt=True
    )
    image: Any = argument_field(
        check_image,
        "a picture to start from: a path, a PIL picture or an array",
        recorded=False,
        replaces=("height", "width"),
    )
    mask_image: Any = argument_field(
        check_image,
        "a picture that is white where to draw anew, and black where to keep the image",
        recorded=False,
        needs=("image",),
        metavar="FILE",
    )
    padding_mask_crop: int | None = argument_field(
        check_pixels,
        "draw only the mask's surroundings, by so many pixels, at full size",
        needs=("mask_image",),
    )
    strength: float | None = argument_field(
        check_strength,
        "how far to leave the picture behind, above 0 and up to 1",
        needs=("image",),
        slider=STRENGTHS,
    )
    height: int | None = argument_field(check_size, "the picture's height in pixels")
    width: int | None = argument_field(check_size, "the picture's width in pixels")
    num_inference_steps: int | None = argument_field(
        check_steps, "denoising steps (of the decoder, where a prior comes before it)"
    )
    guidance_scale: float | None = argument_field(check_scale, "guidance scale; above 1 turns guidance on")
    scheduler: Any = argument_field(
        check_scheduler,
        "the sampler, by its name in AUTOMATIC1111, ComfyUI or diffusers; default: the checkpoint's own",
        replaces=("timesteps", "sigmas"),
        metavar="NAME",
    )
    timesteps: Any = argument_field(check_custom_timesteps, "custom timesteps of the denoising steps", sets_steps=True)
    sigmas: Any = argument_field(
        check_custom_timesteps,
        "custom noise levels, the last of which is where the steps end",
        sets_steps=True,
    )
    eta: float | None = argument_field(check_amount, "the share of fresh noise in DDIM's steps")
    vae: str | None = argument_field(
        check_vae, "which VAE to use where the model has both; default: tiny", metavar="full|tiny"
    )
    num_images_per_prompt: int | None = argument_field(check_count, "pictures of each prompt")
    seed: int | None = argument_field(check_seed, "picture i is drawn from seed + i")
    generator: Any = argument_field(
        check_generator, "a torch.Generator, a RandomState, or a list of them", recorded=False
    )
    latents: Array | None = argument_field(
        check_maps,
        "noise to start from: [pictures, channels, height, width]",
        recorded=False,
    )
    prompt_embeds: Array | None = argument_field(
        check_text_states, "text embeddings in place of the prompt: [prompts, tokens, width]", recorded=False
    )
    negative_prompt_embeds: Array | None = argument_field(
        check_text_states,
        "text embeddings in place of the negative prompt",
        recorded=False,
        replaces=("negative_prompt",),
    )
    output_type: str | None = argument_field(
        check_output_type, "what the images are: PIL pictures (pil), an array (np) or latents (latent)"
    )
    callback_on_step_end: Any = argument_field(
        check_step_callback,
        "called after each step of the last stage, as in diffusers",
        recorded=False,
        gets_pipeline=True,
    )
    callback_on_step_end_tensor_inputs: Any = argument_field(
        check_callback_tensors, "the names of the tensors that callback_on_step_end gets", recorded=False
    )

    @property
    def prompt_count(self) -> int:
        """Number of prompts, passed as texts or as embeddings; 1 if there are none."""
        if self.prompt is not None:
            return len(self.prompt)
        return 1 if self.prompt_embeds is None else len(self.prompt_embeds)

    @property
    def image_count(self) -> int:
        """Number of pictures to draw."""
        return self.prompt_count * (self.num_images_per_prompt or 1)

    @property
    def step_share(self) -> float | None:
        """Share of the steps to run when the request starts from a picture; None runs all."""
        return self.strength

    @property
    def seeds(self) -> tuple[int, ...] | None:
        """Seed of each picture; None if the caller passed generators."""
        if self.seed is None:
            return None
        return tuple((self.seed + i) % (MAX_SEED + 1) for i in range(self.image_count))

    def noise(self) -> Noise:
        """Source of noise for the whole batch."""
        if self.seeds is None:
            return noise_from_generator(self.generator)
        return noise_from_seeds(self.seeds)

    def record(self) -> dict[str, Any]:
        """Values to store in a picture's metadata, without arrays and functions."""
        return {
            name: getattr(self, name)
            for name, argument in arguments_of(type(self)).items()
            if argument.recorded and getattr(self, name) is not None
        }


def arguments_of(kind: type[Request]) -> Mapping[str, Argument]:
    """All arguments of a family's request class, by name."""
    fields = dataclasses.fields(kind)
    arguments: dict[str, Argument] = {each.name: each.metadata["argument"] for each in fields}
    for each in fields:
        if (pair := each.metadata["pair"]) is not None:
            for name, other in ((each.name, pair), (pair, each.name)):
                arguments[name] = dataclasses.replace(arguments[name], needs=(*arguments[name].needs, other))
    return MappingProxyType(arguments)
