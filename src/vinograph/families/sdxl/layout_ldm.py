"""Names of the UNet's layers in latent diffusion's own layout (LDM), by those of diffusers.

Networks read single files by them, and adapters name what they change.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

ENDS: Mapping[str, str] = MappingProxyType(
    {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
)
"""The layers before and after all blocks."""

RESIDUAL: Mapping[str, str] = MappingProxyType(
    {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
    }
)
"""The layers that every residual block has."""

SHORTCUT = ("conv_shortcut", "skip_connection")
"""The layer of a residual block whose channels change."""
