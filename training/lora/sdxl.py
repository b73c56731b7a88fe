"""The UNet of ``storybook-sdxl`` and its text encoders, for an adapter.

The model draws in one step, from noise that is coupled to a scene (:mod:`training.sdxl.coupling`).
So an adapter is trained as the model was: most of a batch at the last timestep, with coupled noise.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from training.captions import encode, load_tokenizer
from training.loop import autocast
from training.lora.lesson import CHECKPOINTS, CLIP_LAYERS, Lesson, load_weights
from training.lora.scenes import Scenes
from training.scene_dataset import images_to_tensor
from training.sdxl.config import unet
from training.sdxl.coupling import answers
from training.sdxl.latents import encode_batch
from training.sdxl.noise_schedule import NOISE_SCHEDULE
from training.sdxl.text import TextEncoders
from training.sdxl.unet import CoupledDataset, Denoiser, last_count, sample_batch, to_device

LAYERS = r".*\.(to_[qkv]|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2|conv1|conv2|conv_shortcut)"
# The last layer of the first text encoder has no effect: SDXL takes the states before it.
FIRST_LAYERS = r".*layers\.0\.(?:.+\.)?(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"


def lesson(scenes: Scenes, device: torch.device) -> Lesson:
    """The error of the latents that the UNet draws, against those of ``scenes``."""
    checkpoint = CHECKPOINTS / "storybook-sdxl"
    library: Any = AutoencoderTiny  # which is not typed
    vae = library.from_pretrained(checkpoint / "vae", torch_dtype=torch.float32).to(device).eval()
    tokenizer, network = load_tokenizer(checkpoint), unet()
    load_weights(network, checkpoint / "unet", device)
    text = TextEncoders(tokenizer)
    text.first = CLIPTextModel.from_pretrained(checkpoint / "text_encoder", dtype=torch.float32)
    text.second = CLIPTextModelWithProjection.from_pretrained(checkpoint / "text_encoder_2", dtype=torch.float32)
    model = Denoiser(text.to(device).eval(), network)
    dataset = CoupledDataset(
        latents=encode_batch(vae, images_to_tensor(scenes.pictures), device),
        labels=torch.from_numpy(scenes.labels),
        captions=scenes.encode_captions(lambda texts: encode(texts, tokenizer)),
        intervals=answers(scenes.labels, scenes.seeds),
        partner=torch.full((len(scenes.labels),), -1),
    )

    def loss(count: int) -> Tensor:
        batch = to_device(sample_batch(dataset, count), device)
        with autocast(device):
            denoised = model(batch)
        # The latents' error divided by 1 − ᾱ is that of the velocity.
        alpha_cumprod = NOISE_SCHEDULE.alpha_cumprod(batch.timesteps)[:, 0, 0, 0]
        error = (denoised - batch.latents).square().mean(dim=(1, 2, 3)) / (1 - alpha_cumprod)
        first = last_count(count)
        result: Tensor = error[:first].mean() + error[first:].mean()
        return result

    networks = {"unet": network, "text_encoder": text.first, "text_encoder_2": text.second}
    return Lesson(networks, {"unet": LAYERS, "text_encoder": FIRST_LAYERS, "text_encoder_2": CLIP_LAYERS}, loss)
