"""Captions of the scenes as token ids, and small CLIP text encoders for them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from training import tokenizer as clip_tokenizer
from training.loop import load, save
from training.world import ATTRIBUTES, Scene, caption_and_attributes

Tokenize = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""A function from texts to token ids and masks [texts, length]."""

PER_SCENE = 6
ATTRIBUTE_DROPOUT = 0.3


@dataclass(frozen=True)
class Captions:
    """Several captions of each scene as token ids, and the empty caption for guidance.

    ``ids`` and ``mask`` are [scenes, PER_SCENE, length]. ``stated`` [scenes, PER_SCENE, attributes]
    says which attributes a caption states. ``empty_ids`` and ``empty_mask`` are [length].
    """

    ids: Tensor
    mask: Tensor
    stated: Tensor
    empty_ids: Tensor
    empty_mask: Tensor

    def sample(self, scenes: Tensor, dropout: float) -> tuple[Tensor, Tensor, Tensor]:
        """Ids and mask [n, length] of a random caption per scene, and which were dropped [n].

        A share ``dropout`` of the captions is replaced by the empty one (classifier-free guidance,
        arXiv 2207.12598).
        """
        which = torch.randint(0, PER_SCENE, scenes.shape)
        ids, mask = self.ids[scenes, which].long(), self.mask[scenes, which].long()
        dropped = torch.rand(len(scenes)) < dropout
        ids[dropped], mask[dropped] = self.empty_ids.long(), self.empty_mask.long()
        return ids, mask, dropped


def load_tokenizer(work: Path) -> Tokenizer:
    """The world's tokenizer from ``work/tokenizer``; it is trained first if it isn't there."""
    folder = work / "tokenizer"
    if not (folder / "tokenizer.json").exists():
        clip_tokenizer.write(folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no {token}")
    return int(found)


def encode(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Token ids (int16) and mask (bool) [texts, length], padded with the end-of-text token."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = torch.full((len(texts), clip_tokenizer.LENGTH), _id(tokenizer, clip_tokenizer.END), dtype=torch.int16)
    mask = torch.zeros(len(texts), clip_tokenizer.LENGTH, dtype=torch.bool)
    for row, encoding in enumerate(tokenizer.encode_batch(list(texts))):
        tokens = (
            encoding.ids[: clip_tokenizer.LENGTH - 1] + encoding.ids[-1:]
            if len(encoding.ids) > clip_tokenizer.LENGTH
            else encoding.ids
        )
        ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int16)
        mask[row, : len(tokens)] = True
    return ids, mask


def load_captions(
    labels: NDArray[np.int64], work: Path, name: str = "captions", tokenize: Tokenize | None = None
) -> Captions:
    """PER_SCENE captions of every scene, stored in ``work/<name>.pt``.

    Captions of even number may omit attributes, those of odd number state all. ``tokenize`` is by
    default the world's CLIP tokenizer.
    """
    path = work / f"{name}.pt"
    if tokenize is None:
        tokenizer = load_tokenizer(work)

        def tokenize(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
            return encode(texts, tokenizer)

    if not path.exists():
        rng = random.Random(0)
        captions = [
            caption_and_attributes(Scene.from_labels(tuple(int(i) for i in row)), rng, dropout)
            for row in labels
            for dropout in (ATTRIBUTE_DROPOUT, 0.0) * (PER_SCENE // 2)
        ]
        ids, mask = tokenize([text for text, _ in captions])
        stated = torch.tensor([[attribute in names for attribute in ATTRIBUTES] for _, names in captions])
        shape = (len(labels), PER_SCENE, -1)
        save(path, {"ids": ids.view(shape), "mask": mask.view(shape), "said": stated.view(shape)})
    stored = load(path)
    empty_ids, empty_mask = tokenize([""])
    return Captions(stored["ids"], stored["mask"], stored["said"], empty_ids[0], empty_mask[0])


def text_encoder(tokenizer: Tokenizer, width: int, layers: int, heads: int) -> CLIPTextModel:
    """A CLIP text encoder of these sizes with initial weights."""
    end = _id(tokenizer, clip_tokenizer.END)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=clip_tokenizer.LENGTH,
            pad_token_id=end,
            bos_token_id=_id(tokenizer, clip_tokenizer.START),
            eos_token_id=end,
            hidden_act="quick_gelu",
        )
    )


def hidden_states(encoder: CLIPTextModel, ids: Tensor, mask: Tensor) -> Tensor:
    """The last hidden states [batch, length, width] for ``ids`` and ``mask`` [batch, length]."""
    states: Tensor = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return states
