"""The signatures of all families' calls.

Written by scripts/call_signatures.py from what the families declare: change it there.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal

from vinograph.dispatch import dispatched, dispatched_call
from vinograph.families.contract import Step
from vinograph.inputs import Arrays, Callback, Generators, Images, Schedulers, Texts, Timesteps
from vinograph.result import Result


class Calls:
    """The calls of all families, as methods; a pipeline has those that its model's family makes.

    A method's signature has the arguments of all families. An argument that the model's family
    doesn't take is refused, with a message that lists those that it takes. None means the default:
    the model's own, or else the family's, which the signature shows.
    """

    @dispatched
    def __call__(
        self,
        prompt: Texts | None = None,
        *positional: Any,
        negative_prompt: Texts | None = None,
        image: Images | None = None,
        mask_image: Images | None = None,
        padding_mask_crop: int | None = None,
        strength: float | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        scheduler: Schedulers | None = None,
        timesteps: Timesteps | None = None,
        sigmas: Timesteps | None = None,
        eta: float | None = 0.0,
        vae: Literal["full", "tiny"] | None = None,
        num_images_per_prompt: int | None = 1,
        seed: int | None = None,
        generator: Generators | None = None,
        latents: Arrays | None = None,
        prompt_embeds: Arrays | None = None,
        negative_prompt_embeds: Arrays | None = None,
        output_type: Literal["pil", "np", "latent"] | None = "pil",
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: list[str] | tuple[str, ...] | None = None,
        speed: Literal["balanced", "fast"] | None = None,
        guidance_interval: tuple[float, float] | list[float] | str | None = None,
        extrapolation_interval: int | None = None,
        extrapolation_order: int | None = 1,
        prior_num_inference_steps: int | None = 60,
        prior_guidance_scale: float | None = 4.0,
        prior_timesteps: Timesteps | Literal["spaced"] | None = None,
        decoder_guidance_scale: float | None = 0.0,
        decoder_scheduler: Schedulers | None = None,
        decoder_timesteps: Timesteps | Literal["spaced"] | None = None,
        prior_callback_on_step_end: Callback | None = None,
        prior_callback_on_step_end_tensor_inputs: list[str] | tuple[str, ...] | None = None,
        prompt_weighting: Literal["none", "a1111", "comfyui"] | None = "none",
        hires: float | None = None,
        hires_steps: int | None = None,
        hires_strength: float | None = 0.35,
        hires_upscaler: Literal["lanczos", "latent"] | None = "lanczos",
        vae_tiling: Literal["auto", "on", "off"] | None = "auto",
        prompt_2: Texts | None = None,
        negative_prompt_2: Texts | None = None,
        long_prompt: Literal["truncate", "chunks"] | None = "truncate",
        extend: tuple[int, int, int, int] | list[int] | int | str | None = None,
        guidance_rescale: float | None = 0.0,
        denoising_start: float | None = None,
        denoising_end: float | None = None,
        clip_skip: int | None = None,
        original_size: tuple[int, int] | list[int] | None = None,
        crops_coords_top_left: tuple[int, int] | list[int] | None = (0, 0),
        target_size: tuple[int, int] | list[int] | None = None,
        negative_original_size: tuple[int, int] | list[int] | None = None,
        negative_crops_coords_top_left: tuple[int, int] | list[int] | None = (0, 0),
        negative_target_size: tuple[int, int] | list[int] | None = None,
        pooled_prompt_embeds: Arrays | None = None,
        negative_pooled_prompt_embeds: Arrays | None = None,
        use_resolution_binning: bool | None = True,
        clean_caption: bool | None = True,
        max_sequence_length: int | None = 120,
        prompt_attention_mask: Arrays | None = None,
        negative_prompt_attention_mask: Arrays | None = None,
        callback: Callback | None = None,
        callback_steps: int | None = 1,
        return_dict: Literal[True] = True,
    ) -> Result:
        """Draw pictures from a text; with image, from a picture.

        Args:
            prompt: what to draw; a list draws each.
            positional: more, in the order of the family's diffusers pipeline:
                :attr:`Pipeline.calls` has it.
            negative_prompt: what should not be in the picture; takes effect under guidance.
                Default: none (Würstchen, SDXL), '' (PixArt).
            image: a picture to start from: a path, a PIL picture or an array.
            mask_image: SDXL: a picture that is white where to draw anew, and black where to keep
                the image.
            padding_mask_crop: SDXL: draw only the mask's surroundings, by so many pixels, at full
                size.
            strength: how far to leave the picture behind, above 0 and up to 1. Default: 0.8
                (Würstchen), 0.3 or 0.85 with extend or 0.9999 with mask_image (SDXL), 0.6 (PixArt).
            height: the picture's height in pixels. Default: 512 (Würstchen), 1024 (SDXL, PixArt).
            width: the picture's width in pixels. Default: 512 (Würstchen), 1024 (SDXL, PixArt).
            num_inference_steps: denoising steps (of the decoder, where a prior comes before it).
                Default: 12 (Würstchen), 50 (SDXL), 20 (PixArt).
            guidance_scale: SDXL, PixArt: guidance scale; above 1 turns guidance on. Default: 5.0 or
                7.5 with mask_image (SDXL), 4.5 (PixArt).
            scheduler: the sampler, by its name in AUTOMATIC1111, ComfyUI or diffusers; default: the
                checkpoint's own.
            timesteps: SDXL, PixArt: custom timesteps of the denoising steps.
            sigmas: SDXL, PixArt: custom noise levels, the last of which is where the steps end.
            eta: SDXL, PixArt: the share of fresh noise in DDIM's steps.
            vae: SDXL, PixArt: which VAE to use where the model has both; default: tiny.
            num_images_per_prompt: pictures of each prompt.
            seed: picture i is drawn from seed + i.
            generator: a torch.Generator, a RandomState, or a list of them.
            latents: noise to start from: [pictures, channels, height, width].
            prompt_embeds: text embeddings in place of the prompt: [prompts, tokens, width].
            negative_prompt_embeds: text embeddings in place of the negative prompt.
            output_type: what the images are: PIL pictures (pil), an array (np) or latents (latent).
            callback_on_step_end: Würstchen, SDXL: called after each step of the last stage, as in
                diffusers.
            callback_on_step_end_tensor_inputs: Würstchen, SDXL: the names of the tensors that
                callback_on_step_end gets.
            speed: a named combination of the arguments that save evaluations, for what is left
                open; vinograph inspect shows what it stands for.
            guidance_interval: the part of the steps that is guided (arXiv 2404.07724), as fractions
                of all steps: a start and an end; the others evaluate the model without guidance, at
                half the cost.
            extrapolation_interval: evaluate the model in every so-many-th step and extrapolate its
                output between (after TaylorSeer, arXiv 2503.06923); 1 evaluates it in every step.
            extrapolation_order: the order of that extrapolation: 1 (linear) or 2 (quadratic).
            prior_num_inference_steps: Würstchen: denoising steps of the prior.
            prior_guidance_scale: Würstchen: guidance scale of the prior.
            prior_timesteps: Würstchen: custom timesteps of the prior, or "spaced": 29 well-spaced
                steps.
            decoder_guidance_scale: Würstchen: guidance scale of the decoder.
            decoder_scheduler: Würstchen: the sampler of the decoder, by its name; default: the
                checkpoint's own.
            decoder_timesteps: Würstchen: custom timesteps of the decoder.
            prior_callback_on_step_end: Würstchen: called after each step of the prior, as
                callback_on_step_end is.
            prior_callback_on_step_end_tensor_inputs: Würstchen: the names of the tensors that it
                gets.
            prompt_weighting: SDXL, PixArt: whose rules read weights such as (word:1.2) in the
                prompts; none reads them as text.
            hires: SDXL, PixArt: draw, upscale by this factor, and draw from that again; 1 draws
                once.
            hires_steps: SDXL, PixArt: denoising steps of the second drawing, before its strength;
                default: the first's.
            hires_strength: SDXL, PixArt: how far the second drawing leaves the first behind, above
                0 and up to 1.
            hires_upscaler: SDXL, PixArt: what is upscaled: the picture (lanczos), or its latents
                (latent).
            vae_tiling: SDXL, PixArt: whether the VAE computes in tiles, which saves memory; auto:
                above 1536x1536 pixels.
            prompt_2: SDXL: the prompt for the second text encoder; default: the same.
            negative_prompt_2: SDXL: the negative prompt for the second text encoder; default: the
                same.
            long_prompt: SDXL: what becomes of text beyond one chunk of tokens: it is cut off, or
                read in further chunks.
            extend: SDXL: outpainting: pixels to add to the image at its left, top, right and
                bottom; one number: at each side.
            guidance_rescale: SDXL: how far guidance keeps the contrast of what it guides, up to 1.
            denoising_start: SDXL: the share of denoising that the image has behind it.
            denoising_end: SDXL: the share of denoising after which to stop.
            clip_skip: SDXL: layers of the text encoders to leave out at the end.
            original_size: SDXL: size conditioning: height and width of the picture before it was
                cropped.
            crops_coords_top_left: SDXL: size conditioning: where the crop begins, from the top and
                from the left.
            target_size: SDXL: size conditioning: height and width of the picture to draw.
            negative_original_size: SDXL: original_size to guide away from.
            negative_crops_coords_top_left: SDXL: crops_coords_top_left to guide away from.
            negative_target_size: SDXL: target_size to guide away from.
            pooled_prompt_embeds: SDXL: pooled text embeddings, one for each prompt.
            negative_pooled_prompt_embeds: SDXL: pooled text embeddings of the negative prompt.
            use_resolution_binning: PixArt: whether to draw at the nearest size that the model was
                trained on, and resize that.
            clean_caption: PixArt: whether to take addresses, markup and the like out of the prompt.
            max_sequence_length: PixArt: tokens of the prompt that are read.
            prompt_attention_mask: PixArt: for text embeddings, 1 for each token and 0 for padding.
            negative_prompt_attention_mask: PixArt: the same for the embeddings of the negative
                prompt.
            callback: PixArt: called with the step, its timestep, and the latents.
            callback_steps: PixArt: call it once in so many steps.
            return_dict: False (not typed) returns a tuple with the images alone, as in diffusers.

        Raises:
            RequestError: an argument is not one that the family takes, or is out of range.
            NumericalError: a stage computed NaN or infinity.
        """
        raise NotImplementedError

    generate = __call__

    @dispatched
    def stream(
        self,
        *positional: Any,
        call: str = "generate",
        prompt: Texts | None = None,
        negative_prompt: Texts | None = None,
        image: Images | None = None,
        mask_image: Images | None = None,
        padding_mask_crop: int | None = None,
        strength: float | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        scheduler: Schedulers | None = None,
        timesteps: Timesteps | Literal["spaced"] | None = None,
        sigmas: Timesteps | None = None,
        eta: float | None = 0.0,
        vae: Literal["full", "tiny"] | None = None,
        num_images_per_prompt: int | None = 1,
        seed: int | None = None,
        generator: Generators | None = None,
        latents: Arrays | None = None,
        prompt_embeds: Arrays | None = None,
        negative_prompt_embeds: Arrays | None = None,
        output_type: Literal["pil", "np", "latent"] | None = "pil",
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: list[str] | tuple[str, ...] | None = None,
        speed: Literal["balanced", "fast"] | None = None,
        guidance_interval: tuple[float, float] | list[float] | str | None = None,
        extrapolation_interval: int | None = None,
        extrapolation_order: int | None = 1,
        prior_num_inference_steps: int | None = 60,
        prior_guidance_scale: float | None = 4.0,
        prior_timesteps: Timesteps | Literal["spaced"] | None = None,
        decoder_guidance_scale: float | None = 0.0,
        decoder_scheduler: Schedulers | None = None,
        decoder_timesteps: Timesteps | Literal["spaced"] | None = None,
        image_embeddings: Arrays | None = None,
        prior_callback_on_step_end: Callback | None = None,
        prior_callback_on_step_end_tensor_inputs: list[str] | tuple[str, ...] | None = None,
        prompt_weighting: Literal["none", "a1111", "comfyui"] | None = "none",
        hires: float | None = None,
        hires_steps: int | None = None,
        hires_strength: float | None = 0.35,
        hires_upscaler: Literal["lanczos", "latent"] | None = "lanczos",
        vae_tiling: Literal["auto", "on", "off"] | None = "auto",
        prompt_2: Texts | None = None,
        negative_prompt_2: Texts | None = None,
        long_prompt: Literal["truncate", "chunks"] | None = "truncate",
        extend: tuple[int, int, int, int] | list[int] | int | str | None = None,
        guidance_rescale: float | None = 0.0,
        denoising_start: float | None = None,
        denoising_end: float | None = None,
        clip_skip: int | None = None,
        original_size: tuple[int, int] | list[int] | None = None,
        crops_coords_top_left: tuple[int, int] | list[int] | None = (0, 0),
        target_size: tuple[int, int] | list[int] | None = None,
        negative_original_size: tuple[int, int] | list[int] | None = None,
        negative_crops_coords_top_left: tuple[int, int] | list[int] | None = (0, 0),
        negative_target_size: tuple[int, int] | list[int] | None = None,
        pooled_prompt_embeds: Arrays | None = None,
        negative_pooled_prompt_embeds: Arrays | None = None,
        use_resolution_binning: bool | None = True,
        clean_caption: bool | None = True,
        max_sequence_length: int | None = 120,
        prompt_attention_mask: Arrays | None = None,
        negative_prompt_attention_mask: Arrays | None = None,
        callback: Callback | None = None,
        callback_steps: int | None = 1,
    ) -> Generator[Step | Result, None, None]:
        """Draw step by step: yield each finished :class:`Step`, then the :class:`Result`.

        Closing the generator stops the work after the current step. The arguments are those of the
        call, and are checked before this returns.

        Args:
            positional: the call's positional arguments, such as the prompt.
            call: which of :attr:`Pipeline.calls` to make, such as "reconstruct".

        Raises:
            RequestError: an argument is not one that the call takes, or is out of range.
            ModelError: the model lacks a component that the call takes.
            NumericalError: a stage computed NaN or infinity; the generator raises it.
        """
        raise NotImplementedError

    @dispatched_call
    def prior(
        self,
        prompt: Texts | None = None,
        height: int | None = 1024,
        width: int | None = 1024,
        num_inference_steps: int | None = 60,
        *,
        negative_prompt: Texts | None = None,
        guidance_scale: float | None = 8.0,
        scheduler: Schedulers | None = None,
        timesteps: Timesteps | Literal["spaced"] | None = None,
        num_images_per_prompt: int | None = 1,
        seed: int | None = None,
        generator: Generators | None = None,
        latents: Arrays | None = None,
        prompt_embeds: Arrays | None = None,
        negative_prompt_embeds: Arrays | None = None,
        output_type: Literal["pil", "np", "latent"] | None = "pil",
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: list[str] | tuple[str, ...] | None = None,
        guidance_interval: tuple[float, float] | list[float] | str | None = None,
        extrapolation_interval: int | None = None,
        extrapolation_order: int | None = 1,
        return_dict: Literal[True] = True,
    ) -> Result:
        """Draw image embeddings from a text. Würstchen alone.

        Args:
            prompt: what to draw; a list draws each.
            height: the picture's height in pixels.
            width: the picture's width in pixels.
            num_inference_steps: denoising steps (of the decoder, where a prior comes before it).
            negative_prompt: what should not be in the picture; takes effect under guidance.
            guidance_scale: guidance scale; above 1 turns guidance on.
            scheduler: the sampler, by its name in AUTOMATIC1111, ComfyUI or diffusers; default: the
                checkpoint's own.
            timesteps: custom timesteps of the denoising steps.
            num_images_per_prompt: pictures of each prompt.
            seed: picture i is drawn from seed + i.
            generator: a torch.Generator, a RandomState, or a list of them.
            latents: noise to start from: [pictures, channels, height, width].
            prompt_embeds: text embeddings in place of the prompt: [prompts, tokens, width].
            negative_prompt_embeds: text embeddings in place of the negative prompt.
            output_type: what the images are: PIL pictures (pil), an array (np) or latents (latent).
            callback_on_step_end: called after each step of the last stage, as in diffusers.
            callback_on_step_end_tensor_inputs: the names of the tensors that callback_on_step_end
                gets.
            guidance_interval: the part of the steps that is guided (arXiv 2404.07724), as fractions
                of all steps: a start and an end; the others evaluate the model without guidance, at
                half the cost.
            extrapolation_interval: evaluate the model in every so-many-th step and extrapolate its
                output between (after TaylorSeer, arXiv 2503.06923); 1 evaluates it in every step.
            extrapolation_order: the order of that extrapolation: 1 (linear) or 2 (quadratic).
            return_dict: False (not typed) returns a tuple with the images alone, as in diffusers.

        Raises:
            RequestError: an argument is not one that the family takes, or is out of range.
            NumericalError: a stage computed NaN or infinity.
        """
        raise NotImplementedError

    @dispatched_call
    def decoder(
        self,
        image_embeddings: Arrays | None = None,
        prompt: Texts | None = None,
        num_inference_steps: int | None = 12,
        *,
        negative_prompt: Texts | None = None,
        guidance_scale: float | None = 0.0,
        timesteps: Timesteps | Literal["spaced"] | None = None,
        num_images_per_prompt: int | None = 1,
        seed: int | None = None,
        generator: Generators | None = None,
        latents: Arrays | None = None,
        output_type: Literal["pil", "np", "latent"] | None = "pil",
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: list[str] | tuple[str, ...] | None = None,
        guidance_interval: tuple[float, float] | list[float] | str | None = None,
        decoder_scheduler: Schedulers | None = None,
        return_dict: Literal[True] = True,
    ) -> Result:
        """Draw pictures from image embeddings. Würstchen alone.

        Args:
            image_embeddings: what the prior draws, or the image encoder makes of a picture: [n,
                channels, height, width].
            prompt: what to draw; a list draws each.
            num_inference_steps: denoising steps (of the decoder, where a prior comes before it).
            negative_prompt: what should not be in the picture; takes effect under guidance.
            guidance_scale: guidance scale; above 1 turns guidance on.
            timesteps: custom timesteps of the denoising steps.
            num_images_per_prompt: pictures of each prompt.
            seed: picture i is drawn from seed + i.
            generator: a torch.Generator, a RandomState, or a list of them.
            latents: noise to start from: [pictures, channels, height, width].
            output_type: what the images are: PIL pictures (pil), an array (np) or latents (latent).
            callback_on_step_end: called after each step of the last stage, as in diffusers.
            callback_on_step_end_tensor_inputs: the names of the tensors that callback_on_step_end
                gets.
            guidance_interval: the part of the steps that is guided (arXiv 2404.07724), as fractions
                of all steps: a start and an end; the others evaluate the model without guidance, at
                half the cost.
            decoder_scheduler: the sampler of the decoder, by its name; default: the checkpoint's
                own.
            return_dict: False (not typed) returns a tuple with the images alone, as in diffusers.

        Raises:
            RequestError: an argument is not one that the family takes, or is out of range.
            NumericalError: a stage computed NaN or infinity.
        """
        raise NotImplementedError

    @dispatched_call
    def encode(
        self,
        image: Images | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        vae: Literal["full", "tiny"] | None = None,
        vae_tiling: Literal["auto", "on", "off"] | None = "auto",
        return_dict: Literal[True] = True,
    ) -> Result:
        """Encode a picture to what the model decodes: image embeddings, or latents.

        Args:
            image: a picture to start from: a path, a PIL picture or an array.
            height: the picture's height in pixels.
            width: the picture's width in pixels.
            vae: SDXL, PixArt: which VAE to use where the model has both; default: tiny.
            vae_tiling: SDXL, PixArt: whether the VAE computes in tiles, which saves memory; auto:
                above 1536x1536 pixels.
            return_dict: False (not typed) returns a tuple with the images alone, as in diffusers.

        Raises:
            RequestError: an argument is not one that the family takes, or is out of range.
            NumericalError: a stage computed NaN or infinity.
        """
        raise NotImplementedError

    @dispatched_call
    def reconstruct(
        self,
        image: Images | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = 12,
        timesteps: Timesteps | Literal["spaced"] | None = None,
        vae: Literal["full", "tiny"] | None = None,
        num_images_per_prompt: int | None = 1,
        seed: int | None = None,
        generator: Generators | None = None,
        output_type: Literal["pil", "np", "latent"] | None = "pil",
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: list[str] | tuple[str, ...] | None = None,
        decoder_scheduler: Schedulers | None = None,
        vae_tiling: Literal["auto", "on", "off"] | None = "auto",
        return_dict: Literal[True] = True,
    ) -> Result:
        """Encode a picture and decode it again.

        Args:
            image: a picture to start from: a path, a PIL picture or an array.
            height: the picture's height in pixels.
            width: the picture's width in pixels.
            num_inference_steps: Würstchen: denoising steps (of the decoder, where a prior comes
                before it).
            timesteps: Würstchen: custom timesteps of the denoising steps.
            vae: SDXL, PixArt: which VAE to use where the model has both; default: tiny.
            num_images_per_prompt: Würstchen: pictures of each prompt.
            seed: Würstchen: picture i is drawn from seed + i.
            generator: Würstchen: a torch.Generator, a RandomState, or a list of them.
            output_type: what the images are: PIL pictures (pil), an array (np) or latents (latent).
            callback_on_step_end: Würstchen: called after each step of the last stage, as in
                diffusers.
            callback_on_step_end_tensor_inputs: Würstchen: the names of the tensors that
                callback_on_step_end gets.
            decoder_scheduler: Würstchen: the sampler of the decoder, by its name; default: the
                checkpoint's own.
            vae_tiling: SDXL, PixArt: whether the VAE computes in tiles, which saves memory; auto:
                above 1536x1536 pixels.
            return_dict: False (not typed) returns a tuple with the images alone, as in diffusers.

        Raises:
            RequestError: an argument is not one that the family takes, or is out of range.
            NumericalError: a stage computed NaN or infinity.
        """
        raise NotImplementedError
