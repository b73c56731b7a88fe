"""Captions of the scenes as token ids, and the small CLIP text encoders that read them."""

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

from training import tokenizer as recipe
from training.common import load, save
from training.world import ATTRIBUTES, Scene, caption_and_said

Read = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""Texts to token ids and masks [texts, length]."""

PER_SCENE = 6
DROP = 0.3


@dataclass(frozen=True)
class Captions:
    """Token ids and masks [scenes, PER_SCENE, length], those of the empty caption [length], and what each caption says.

    ``said`` is [scenes, PER_SCENE, attributes].
    """

    ids: Tensor
    mask: Tensor
    said: Tensor
    empty_ids: Tensor
    empty_mask: Tensor

    def draw(self, scenes: Tensor, unsaid: float) -> tuple[Tensor, Tensor, Tensor]:
        """One caption of each of ``scenes``; ``unsaid`` is the share replaced by the empty one (a mask, last)."""
        which = torch.randint(0, PER_SCENE, scenes.shape)
        ids, mask = self.ids[scenes, which].long(), self.mask[scenes, which].long()
        dropped = torch.rand(len(scenes)) < unsaid
        ids[dropped], mask[dropped] = self.empty_ids.long(), self.empty_mask.long()
        return ids, mask, dropped


def load_tokenizer(work: Path) -> Tokenizer:
    """The world's tokenizer, trained into ``work/tokenizer`` where it isn't yet."""
    folder = work / "tokenizer"
    if not (folder / "tokenizer.json").exists():
        recipe.write(folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no {token}")
    return int(found)


def encode(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Ids (int16) and mask (bool) [texts, length], padded with the end-of-text token."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = torch.full((len(texts), recipe.LENGTH), _id(tokenizer, recipe.END), dtype=torch.int16)
    mask = torch.zeros(len(texts), recipe.LENGTH, dtype=torch.bool)
    for row, encoding in enumerate(tokenizer.encode_batch(list(texts))):
        tokens = (
            encoding.ids[: recipe.LENGTH - 1] + encoding.ids[-1:] if len(encoding.ids) > recipe.LENGTH else encoding.ids
        )
        ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int16)
        mask[row, : len(tokens)] = True
    return ids, mask


def load_captions(labels: NDArray[np.int64], work: Path, name: str = "captions", read: Read | None = None) -> Captions:
    """PER_SCENE captions of every scene, half of them with things left unsaid; kept in ``work/<name>.pt``.

    ``read`` makes ids and masks of texts; without it, they are those of the world's CLIP tokenizer.
    """
    path = work / f"{name}.pt"
    if read is None:
        tokenizer = load_tokenizer(work)

        def read(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
            return encode(texts, tokenizer)

    if not path.exists():
        rng = random.Random(0)
        told = [
            caption_and_said(Scene.from_labels(tuple(int(i) for i in row)), rng, drop=0.0 if which % 2 else DROP)
            for row in labels
            for which in range(PER_SCENE)
        ]
        ids, mask = read([text for text, _ in told])
        said = torch.tensor([[attribute in names for attribute in ATTRIBUTES] for _, names in told])
        shape = (len(labels), PER_SCENE, -1)
        save(path, {"ids": ids.view(shape), "mask": mask.view(shape), "said": said.view(shape)})
    kept = load(path)
    empty_ids, empty_mask = read([""])
    return Captions(kept["ids"], kept["mask"], kept["said"], empty_ids[0], empty_mask[0])


def text_encoder(tokenizer: Tokenizer, width: int, layers: int, heads: int) -> CLIPTextModel:
    """A CLIP text encoder of these sizes with weights as they start."""
    end = _id(tokenizer, recipe.END)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=recipe.LENGTH,
            pad_token_id=end,
            bos_token_id=_id(tokenizer, recipe.START),
            eos_token_id=end,
            hidden_act="quick_gelu",
        )
    )


def hidden_states(encoder: CLIPTextModel, ids: Tensor, mask: Tensor) -> Tensor:
    """The last hidden states [batch, length, width]."""
    states: Tensor = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return states
