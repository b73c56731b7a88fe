"""The arguments that only Würstchen takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vinograph.arguments import (
    check_callback_tensors,
    check_custom_timesteps,
    check_list_of_maps,
    check_scale,
    check_scheduler,
    check_step_callback,
    check_steps,
)
from vinograph.families.evaluation_request import EvaluationRequest
from vinograph.request import Array, argument_field


@dataclass(frozen=True, kw_only=True)
class WuerstchenRequest(EvaluationRequest):
    """A request with the arguments that only Würstchen takes."""

    prior_num_inference_steps: int | None = argument_field(check_steps, "denoising steps of the prior")
    prior_guidance_scale: float | None = argument_field(check_scale, "guidance scale of the prior")
    prior_timesteps: Any = argument_field(
        check_custom_timesteps,
        'custom timesteps of the prior, or "spaced": 29 well-spaced steps',
        sets_steps=True,
    )
    decoder_guidance_scale: float | None = argument_field(check_scale, "guidance scale of the decoder")
    decoder_scheduler: Any = argument_field(
        check_scheduler,
        "the sampler of the decoder, by its name; default: the checkpoint's own",
        metavar="NAME",
    )
    decoder_timesteps: Any = argument_field(check_custom_timesteps, "custom timesteps of the decoder")
    image_embeddings: Array | None = argument_field(
        check_list_of_maps,
        "what the prior draws, or the image encoder makes of a picture: [n, channels, height, width]",
        recorded=False,
    )
    prior_callback_on_step_end: Any = argument_field(
        check_step_callback,
        "called after each step of the prior, as callback_on_step_end is",
        recorded=False,
        gets_pipeline=True,
    )
    prior_callback_on_step_end_tensor_inputs: Any = argument_field(
        check_callback_tensors, "the names of the tensors that it gets", recorded=False
    )

    @property
    def image_count(self) -> int:
        """How many pictures will be drawn: of image embeddings, as many as they are."""
        if self.image_embeddings is not None:
            return len(self.image_embeddings) * (self.num_images_per_prompt or 1)
        return super().image_count
