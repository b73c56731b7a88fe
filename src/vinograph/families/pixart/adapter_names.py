"""How adapters of PixArt name its transformer and T5.

The original repository computes queries, keys and values by one layer (``attn.qkv``), and keys and
values of the text by another (``cross_attn.kv_linear``); their rows are those of diffusers' layers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from vinograph.families.adapters import AdaptedPart, AdapterNames, Alias

_IN_BLOCK: Mapping[str, Alias] = MappingProxyType(
    {
        "attn1.to_q": Alias("attn.qkv", 0, 3),
        "attn1.to_k": Alias("attn.qkv", 1, 3),
        "attn1.to_v": Alias("attn.qkv", 2, 3),
        "attn1.to_out.0": Alias("attn.proj"),
        "attn2.to_q": Alias("cross_attn.q_linear"),
        "attn2.to_k": Alias("cross_attn.kv_linear", 0, 2),
        "attn2.to_v": Alias("cross_attn.kv_linear", 1, 2),
        "attn2.to_out.0": Alias("cross_attn.proj"),
        "ff.net.0.proj": Alias("mlp.fc1"),
        "ff.net.2": Alias("mlp.fc2"),
    }
)
_OUTSIDE: Mapping[str, str] = MappingProxyType(
    {
        "pos_embed.proj": "x_embedder.proj",
        "adaln_single.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
        "adaln_single.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
        "adaln_single.emb.resolution_embedder.linear_1": "csize_embedder.mlp.0",
        "adaln_single.emb.resolution_embedder.linear_2": "csize_embedder.mlp.2",
        "adaln_single.emb.aspect_ratio_embedder.linear_1": "ar_embedder.mlp.0",
        "adaln_single.emb.aspect_ratio_embedder.linear_2": "ar_embedder.mlp.2",
        "adaln_single.linear": "t_block.1",
        "caption_projection.linear_1": "y_embedder.y_proj.fc1",
        "caption_projection.linear_2": "y_embedder.y_proj.fc2",
        "proj_out": "final_layer.linear",
    }
)
_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.(.+)")


def transformer_aliases(modules: Collection[str]) -> Iterator[tuple[str, Alias]]:
    """The transformer's modules with their names in the original repository."""
    for module in modules:
        if module in _OUTSIDE:
            yield module, Alias(_OUTSIDE[module])
        elif (found := _BLOCK.fullmatch(module)) and (alias := _IN_BLOCK.get(found[2])):
            yield module, Alias(f"blocks.{found[1]}.{alias.name}", alias.index, alias.count)


ADAPTERS = AdapterNames(
    title="PixArt",
    parts=(
        AdaptedPart(
            components=("transformer",),
            dotted=("transformer", "unet", "diffusion_model", ""),
            flat=("lora_transformer", "lora_unet", "lycoris"),
            aliases=transformer_aliases,
        ),
        AdaptedPart(components=("text_encoder",), dotted=("text_encoder",), flat=("lora_te", "lora_te1")),
    ),
    signs=(
        r".*adaln_single[._].+",
        r".*caption_projection[._].+",
        r".*blocks[._]\d+[._]attn[._]qkv\b.*",
        r".*blocks[._]\d+[._]cross_attn[._](kv|q)_linear\b.*",
        r"lora_te1?_encoder_block_.+",
    ),
    bases=r".*pixart.*",
)
