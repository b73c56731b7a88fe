"""The two text encoders, and what they tell the UNet."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from training.captions import load_tokenizer, text_encoder
from training.sdxl.config import POOLED, TEXT, TEXT_2


class TextEncoders(nn.Module):
    """Token ids to hidden states [n, length, 192] and a pooled embedding [n, 128], as SDXL's pipeline joins them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.first: CLIPTextModel = text_encoder(tokenizer, **TEXT)
        told = text_encoder(tokenizer, **TEXT_2).config.to_dict()
        # The activation of the published second encoder.
        self.second = CLIPTextModelWithProjection(
            CLIPTextConfig(**{**told, "projection_dim": POOLED, "hidden_act": "gelu"})
        )

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Ids [n, length] padded with the end of text, and which of them are text. The second pads with id 0."""
        first = self.first(input_ids=ids, output_hidden_states=True)
        second = self.second(input_ids=torch.where(mask.bool(), ids, 0), output_hidden_states=True)
        return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=2), second.text_embeds


def text_encoders(work: Path) -> TextEncoders:
    """The encoders with weights as they start, for the tokenizer in ``work``."""
    return TextEncoders(load_tokenizer(work))
