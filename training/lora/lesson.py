"""What the recipe needs of a family: the networks to adapt, and the loss of a random batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


@dataclass(frozen=True)
class Lesson:
    """A published model, ready to learn.

    Attributes:
        networks: the networks to adapt, by their prefix in the adapter's file.
        layers: for each network, a pattern of the paths of the layers to adapt.
        loss: the loss of a random batch of so many scenes.
    """

    networks: Mapping[str, nn.Module]
    layers: Mapping[str, str]
    loss: Callable[[int], Tensor]


CLIP_LAYERS = r".*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"


def load_weights(module: nn.Module, folder: Path, device: torch.device) -> None:
    """Load a network's published weights from the only safetensors file in ``folder``."""
    (file,) = folder.glob("*.safetensors")
    module.load_state_dict({name: value.float() for name, value in load_file(file).items()})
    module.to(device).eval()
