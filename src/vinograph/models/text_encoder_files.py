"""CLIP's text encoders in single files: transformers' names, or those of OpenCLIP.

OpenCLIP stores queries, keys and values together, and its projection transposed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from vinograph.models.file_shapes import FileShapes
from vinograph.models.parts import CheckpointTensor, Part
from vinograph.models.tensor_views import row_thirds, transposed
from vinograph.networks.clip import ClipConfig, network_name

_HEAD_WIDTH = 64  # of all of CLIP's published text encoders
_BLOCK = re.compile(r"transformer\.resblocks\.(\d{1,3})\.(.+)")
_TOP: Mapping[str, str] = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_LAYERS: Mapping[str, str] = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
OPEN_CLIP_IGNORED = r"attn_mask"
"""A tensor of OpenCLIP's that its code computes, in addition to what transformers' names have."""


def clip_part(
    tensors: Mapping[str, CheckpointTensor], origin: str, activation: str, prefix: str = ""
) -> Part[ClipConfig]:
    """A text encoder of tensors with transformers' names, and its concluded configuration.

    Raises:
        DamagedModelError: a tensor is missing, or of another shape.
        ModelError: no such text encoder is computed here.
    """
    renamed = {network_name(name): tensor for name, tensor in tensors.items()}
    return Part(_config(FileShapes(renamed, origin, prefix), activation), renamed, origin)


def open_clip_part(
    tensors: Mapping[str, CheckpointTensor], origin: str, activation: str, prefix: str = ""
) -> Part[ClipConfig]:
    """A text encoder of tensors with OpenCLIP's names. Raises what :func:`clip_part` does."""
    renamed = dict(pair for name, tensor in tensors.items() for pair in _renamed(name, tensor))
    return Part(_config(FileShapes(renamed, origin, prefix), activation), renamed, origin)


def _config(shapes: FileShapes, activation: str) -> ClipConfig:
    """The configuration. A text ends with the last token of the vocabulary, as in all of CLIP's."""
    width = shapes.size("embeddings.position_embedding.weight", 1, 2)
    vocabulary = shapes.size("embeddings.token_embedding.weight", 0, 2)
    layers = shapes.count(r"encoder\.layers\.(\d{1,3})\.layer_norm1\.weight")
    concluded = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes.size("encoder.layers.0.mlp.fc1.weight", 0, 2),
        "num_hidden_layers": layers,
        "num_attention_heads": width // _HEAD_WIDTH,
        "max_position_embeddings": shapes.size("embeddings.position_embedding.weight", 0, 2),
        "hidden_act": activation,
        "projection_dim": shapes.size("text_projection.weight", 0, 2) if "text_projection.weight" in shapes else width,
        "eos_token_id": vocabulary - 1,
    }
    return shapes.parse(ClipConfig.from_mapping, concluded)


def _renamed(name: str, tensor: CheckpointTensor) -> Iterator[tuple[str, CheckpointTensor]]:
    """A tensor of OpenCLIP's under transformers' names; what nothing is known of stays as it is."""
    if name == "text_projection":
        yield "text_projection.weight", transposed(tensor)
        return
    match = _BLOCK.fullmatch(name)
    if match is None:
        yield _TOP.get(name, name), tensor
        return
    layer, inner = f"encoder.layers.{match[1]}", match[2]
    if inner in ("attn.in_proj_weight", "attn.in_proj_bias"):
        for letter, third in zip("qkv", row_thirds(name, tensor), strict=True):
            yield f"{layer}.self_attn.{letter}_proj.{inner.rpartition('_')[2]}", third
        return
    module, _, end = inner.rpartition(".")
    yield f"{layer}.{_LAYERS.get(module, module)}.{end}", tensor
