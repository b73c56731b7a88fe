"""The two text encoders, and the conditioning that they give the UNet."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from training.captions import load_tokenizer, text_encoder
from training.sdxl.config import POOLED, TEXT, TEXT_2


class TextEncoders(nn.Module):
    """Both text encoders, whose hidden states are joined as in SDXL's pipeline."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.first: CLIPTextModel = text_encoder(tokenizer, **TEXT)
        config = text_encoder(tokenizer, **TEXT_2).config.to_dict()
        # The published second encoder, OpenCLIP's, uses GELU instead of its fast approximation.
        self.second = CLIPTextModelWithProjection(
            CLIPTextConfig(**{**config, "projection_dim": POOLED, "hidden_act": "gelu"})
        )

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states [n, length, 192] and the pooled embedding [n, 128].

        ``ids`` [n, length] are padded with the end-of-text token; ``mask`` [n, length] says which
        of them are text.
        """
        first = self.first(input_ids=ids, output_hidden_states=True)
        # SDXL's second tokenizer pads with token 0.
        second = self.second(input_ids=torch.where(mask.bool(), ids, 0), output_hidden_states=True)
        return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=2), second.text_embeds


def text_encoders(work: Path) -> TextEncoders:
    """The text encoders with initial weights, for the tokenizer in ``work``."""
    return TextEncoders(load_tokenizer(work))
