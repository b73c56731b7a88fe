"""A checkpoint of a published model's size with random weights, to measure conversion and drawing without a download.

    python benchmarks/full_size.py wuerstchen DIRECTORY [--layout combined|split] [--image-encoder]

The layout, the configurations and the names, shapes and type (f16) of the tensors are those that the authors publish:
6.2 GB for Würstchen. Weights are drawn so that activations stay finite, so what it draws is noise, but no NaN.
Tensors are written one at a time; memory stays below 1 GB.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vinograph.convert.clip import ClipConfig, ClipTextEncoder
from vinograph.modules import ImageEncoder, StageA, StageB, StageC

PRIOR_ID = "warp-ai/wuerstchen-prior"
CLIP_BIGG = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
}
CLIP_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}
PRIOR = {"c_in": 16, "c": 1536, "c_cond": 1280, "c_r": 64, "depth": 32, "nhead": 24, "dropout": 0.1}
DECODER = {
    "c_in": 4,
    "c_out": 4,
    "c_r": 64,
    "patch_size": 2,
    "c_cond": 1024,
    "c_hidden": [320, 640, 1280, 1280],
    "nhead": [-1, 10, 20, 20],
    "blocks": [4, 4, 14, 4],
    "level_config": ["CT", "CTA", "CTA", "CTA"],
    "inject_effnet": [False, True, True, True],
    "effnet_embd": 16,
    "clip_embd": 1024,
    "kernel_size": 3,
    "dropout": 0.1,
}
VQGAN = {"embed_dim": 384, "bottleneck_blocks": 12, "levels": 2, "num_vq_embeddings": 8192, "scale_factor": 0.3764}

# Outputs that are divided by, or that must lie in [0, 1]: a smaller spread of weights, and what is added to the bias.
_OUTPUTS: Mapping[str, tuple[float, float]] = {
    "out.1": (0.05, 0.0),
    "clf.1": (0.1, 3.0),
    "out_block.0": (0.15, 0.5),
}

Build = Callable[[Mapping[str, Any]], nn.Module]


def write_model(folder: Path, file: str, config: Mapping[str, Any], build: Build, kind: str, prefix: str = "") -> int:
    """Write config.json and random weights in f16; returns the number of parameters."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"_class_name": kind, **config}, indent=2), encoding="utf-8")
    with torch.device("meta"):
        shapes = {prefix + name: tensor for name, tensor in build(config).state_dict().items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, tensor in shapes.items():
        size = tensor.numel() * (2 if tensor.is_floating_point() else 8)
        dtype = "F16" if tensor.is_floating_point() else "I64"
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(len(shapes))
    with (folder / file).open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in shapes.items():
            for values in _values(name.removeprefix(prefix), tensor, rng):
                stream.write(values.tobytes())
    count = sum(int(tensor.numel()) for tensor in shapes.values())
    print(f"{folder.name}: {count / 1e6:.0f} M parameters", flush=True)
    return count


def _values(name: str, tensor: torch.Tensor, rng: np.random.Generator) -> Iterator[NDArray[Any]]:
    """The values of one tensor, in chunks: weights by fan-in, norms about one, variances one, the rest about zero."""
    if not tensor.is_floating_point():
        yield np.zeros(tensor.numel(), np.int64)
        return
    vector = tensor.dim() < 2 or tensor.shape[:3] == (1, 1, 1)
    mean, spread = 0.0, 0.1 if vector else 1 / math.sqrt(tensor[0].numel())
    if vector and ("norm" in name or "running_var" in name or name.endswith(".1.weight")) and "bias" not in name:
        mean = 1.0
    if "embedding" in name and not vector:
        spread = 0.02
    layer = name.rpartition(".")[0]
    if layer in _OUTPUTS:
        scale, shift = _OUTPUTS[layer]
        spread, mean = spread * scale, shift if vector else 0.0
    remaining = tensor.numel()
    while remaining:
        count = min(remaining, 1 << 24)
        remaining -= count
        yield (mean + spread * rng.standard_normal(count, np.float32)).astype(np.float16)


def write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer of CLIP's kind without merges: every letter is a token."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    CLIPTokenizer(vocabulary, [], model_max_length=77).save_pretrained(folder)


def write_scheduler(folder: Path) -> None:
    """The cosine schedule of both stages."""
    folder.mkdir(parents=True)
    config = {"_class_name": "DDPMWuerstchenScheduler", "s": 0.008, "scaler": 1.0}
    (folder / "scheduler_config.json").write_text(json.dumps(config), encoding="utf-8")


def write_index(directory: Path, pipeline: str, parts: Mapping[str, tuple[str, str]], card: str) -> None:
    """model_index.json, the model card and the licence."""
    index = {"_class_name": pipeline, **{part: list(kind) for part, kind in parts.items()}}
    (directory / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    (directory / "README.md").write_text(f"---\nlicense: mit\n{card}---\n\nRandom weights.\n", encoding="utf-8")
    (directory / "LICENSE").write_text("Random numbers; use them as you like.\n", encoding="utf-8")


def _clip(config: Mapping[str, Any]) -> nn.Module:
    return ClipTextEncoder(ClipConfig.from_mapping(config))


def wuerstchen(directory: Path, layout: str, image_encoder: bool) -> None:
    """Würstchen v2: one repository, or the decoder's and the prior's in folders of their own."""
    combined = layout == "combined"
    home = directory if combined else directory / "wuerstchen"
    prior_home = directory if combined else directory / "wuerstchen-prior"
    prefix = "prior_" if combined else ""
    model, weights = "model.safetensors", "diffusion_pytorch_model.safetensors"

    count = write_model(prior_home / f"{prefix}prior", weights, PRIOR, StageC.from_config, "WuerstchenPrior")
    count += write_model(prior_home / f"{prefix}text_encoder", model, CLIP_BIGG, _clip, "CLIPTextModel", "text_model.")
    count += write_model(home / "decoder", weights, DECODER, StageB.from_config, "WuerstchenDiffNeXt")
    count += write_model(home / "text_encoder", model, CLIP_H, _clip, "CLIPTextModel", "text_model.")
    count += write_model(home / "vqgan", weights, VQGAN, StageA.from_config, "PaellaVQModel")
    if image_encoder:
        count += write_model(home / "image_encoder", model, {}, ImageEncoder.from_config, "ImageEncoder")
    for folder in (prior_home / f"{prefix}tokenizer", home / "tokenizer"):
        write_tokenizer(folder)
    for folder in (prior_home / f"{prefix}scheduler", home / "scheduler"):
        write_scheduler(folder)

    text = {"text_encoder": ("transformers", "CLIPTextModel"), "tokenizer": ("transformers", "CLIPTokenizer")}
    sampled = {**text, "scheduler": ("diffusers", "DDPMWuerstchenScheduler")}
    decoder = {"decoder": ("wuerstchen", "WuerstchenDiffNeXt"), "vqgan": ("wuerstchen", "PaellaVQModel"), **sampled}
    prior = {"prior": ("wuerstchen", "WuerstchenPrior"), **sampled}
    if combined:
        both = {**decoder, **{f"prior_{part}": kind for part, kind in prior.items()}}
        write_index(home, "WuerstchenCombinedPipeline", both, "")
    else:
        write_index(home, "WuerstchenDecoderPipeline", decoder, f"prior:\n- {PRIOR_ID}\n")
        write_index(prior_home, "WuerstchenPriorPipeline", prior, "")
    print(f"{count / 1e6:.0f} M parameters in {directory}")


def main() -> None:
    """Write the checkpoint that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=["wuerstchen"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layout", choices=["combined", "split"], default="combined")
    parser.add_argument("--image-encoder", action="store_true")
    arguments = parser.parse_args()
    if arguments.directory.exists():
        parser.error(f"{arguments.directory} exists")
    wuerstchen(arguments.directory, arguments.layout, arguments.image_encoder)


if __name__ == "__main__":
    main()
