"""The prior of ``storybook-wuerstchen`` and its text encoder, for an adapter."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTextModel

from training.captions import encode, hidden_states, load_tokenizer
from training.loop import autocast
from training.lora.lesson import CHECKPOINTS, CLIP_LAYERS, Lesson, load_weights
from training.lora.scenes import Scenes, pick
from training.world.dataset import downsample
from training.wuerstchen.config import image_encoder, stage_c
from training.wuerstchen.image_encoder import encode_all
from training.wuerstchen.noise_schedule import add_noise_at_random_times, loss_weight
from training.wuerstchen.stage_c import CAPTION_DROPOUT

# A bundle holds channelwise.4 multiplied with other weights, so an adapter can't change it there.
LAYERS = r"cond_mapper\.[02]|blocks\.\d+\.(attention\.to_(q|k|v|out\.0)|kv_mapper\.1|channelwise\.0)"


def lesson(scenes: Scenes, device: torch.device) -> Lesson:
    """The prior's error on the codes of ``scenes``."""
    checkpoint = CHECKPOINTS / "storybook-wuerstchen"
    stage, encoder = stage_c(), image_encoder()
    load_weights(stage, checkpoint / "prior_prior", device)
    load_weights(encoder, checkpoint / "image_encoder", device)
    text: Any = CLIPTextModel.from_pretrained(checkpoint / "prior_text_encoder", dtype=torch.float32)
    text = text.to(device).eval()
    tokenizer = load_tokenizer(checkpoint)
    captions = scenes.encode_captions(lambda texts: encode(texts, tokenizer))
    codes = encode_all(encoder, np.stack([downsample(picture) for picture in scenes.pictures]), device)

    def loss(count: int) -> Tensor:
        picked = pick(count, len(codes))
        ids, mask, _ = captions.sample(picked, CAPTION_DROPOUT)
        x, noise, times, alpha_cumprod = add_noise_at_random_times(codes[picked].to(device), 0.5)
        with autocast(device):
            predicted = stage(x, times, hidden_states(text, ids.to(device), mask.to(device))).float()
        result: Tensor = ((predicted - noise).square() * loss_weight(alpha_cumprod)).mean()
        return result

    return Lesson({"prior": stage, "text_encoder": text}, {"prior": LAYERS, "text_encoder": CLIP_LAYERS}, loss)
