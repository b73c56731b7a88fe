"""The transformer of ``storybook-pixart`` and its T5, for an adapter."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from transformers import T5EncoderModel

from training.loop import autocast
from training.lora.lesson import CHECKPOINTS, Lesson, load_weights
from training.lora.scenes import Scenes
from training.noise_schedule import NoiseSchedule
from training.pixart.config import SCHEDULER, transformer
from training.pixart.text import UnigramTokenizer, text_encoder
from training.pixart.transformer import Denoiser, LatentDataset, sample_batch, sample_timesteps, to_device
from training.scene_dataset import images_to_tensor
from training.sdxl.latents import encode_batch

LAYERS = r"caption_projection\..+|transformer_blocks\.\d+\.(attn\d\.to_(q|k|v|out\.0)|ff\..+)|proj_out"
T5_LAYERS = r".*\.(SelfAttention\.[qkvo]|wi_0|wi_1|wo)"


def lesson(scenes: Scenes, device: torch.device) -> Lesson:
    """The error of the transformer's velocities on the latents of ``scenes``."""
    checkpoint = CHECKPOINTS / "storybook-pixart"
    library: Any = AutoencoderTiny  # which is not typed
    vae = library.from_pretrained(checkpoint / "vae", torch_dtype=torch.float32).to(device).eval()
    model = Denoiser(text_encoder(checkpoint), transformer())
    load_weights(model.network, checkpoint / "transformer", device)
    text: Any = T5EncoderModel.from_pretrained(checkpoint / "text_encoder", dtype=torch.float32)
    text = text.to(device).eval()
    model.text.model = text
    captions = scenes.encode_captions(UnigramTokenizer(checkpoint / "tokenizer"))
    encoded = encode_batch(vae, images_to_tensor(scenes.pictures), device)
    dataset = LatentDataset(encoded, torch.from_numpy(scenes.labels), captions)
    schedule = NoiseSchedule(SCHEDULER)

    def loss(count: int) -> Tensor:
        batch = to_device(sample_batch([dataset], count), device)
        timesteps = sample_timesteps(count, schedule.last_timestep).to(device)
        noise = torch.randn_like(batch.latents)
        with autocast(device):
            velocity = model(schedule.add_noise(batch.latents, noise, timesteps), timesteps, batch.ids, batch.mask)
        result: Tensor = (velocity - schedule.velocity(batch.latents, noise, timesteps)).square().mean()
        return result

    networks = {"transformer": model.network, "text_encoder": text}
    return Lesson(networks, {"transformer": LAYERS, "text_encoder": T5_LAYERS}, loss)
