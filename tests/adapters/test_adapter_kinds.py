"""Every kind of adapter in every layout changes the weights as the tool that wrote it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch

from tests.adapters.adapters_made import (
    Made,
    Tensors,
    assert_merged,
    by_lycoris,
    by_peft,
    kohya,
    kohya_ldm,
    ours,
    renamed,
    saved,
    weights_of_network,
)
from tests.adapters.conftest import Opened
from vinograph.adapters.adaptation import adapt

KINDS: Mapping[str, dict[str, Any]] = {
    "lora": {"algo": "lora"},
    "locon tucker": {"algo": "lora", "use_tucker": True},
    "loha": {"algo": "loha"},
    "loha tucker": {"algo": "loha", "use_tucker": True},
    "lokr": {"algo": "lokr", "factor": 2},
    "lokr tucker": {"algo": "lokr", "factor": 2, "use_tucker": True},
    "lokr decomposed": {"algo": "lokr", "factor": 4, "decompose_both": True, "linear_dim": 1, "conv_dim": 1},
    "lokr whole": {"algo": "lokr", "factor": 2, "linear_dim": 10_000, "conv_dim": 10_000, "full_matrix": True},
    "dora rows": {"algo": "lora", "dora_wd": True, "wd_on_output": True},
    "dora columns": {"algo": "lora", "dora_wd": True, "wd_on_output": False},
    "dora of loha": {"algo": "loha", "dora_wd": True, "wd_on_output": True},
    "dora of lokr": {"algo": "lokr", "factor": 2, "dora_wd": True, "wd_on_output": False},
    "full": {"algo": "full"},
    "full with norms": {"algo": "lora", "train_norm": True},
}
LAYOUTS: Mapping[str, Callable[[Tensors], Tensors]] = {
    "lycoris": dict,
    "kohya": lambda tensors: renamed(tensors, kohya),
    "kohya ldm": lambda tensors: renamed(tensors, kohya_ldm),
}


@pytest.fixture(scope="module")
def made(sdxl: Opened) -> Callable[[str], Made]:
    """An adapter of a kind by LyCORIS, made once."""
    known: dict[str, Made] = {}

    def make(kind: str) -> Made:
        if kind not in known:
            known[kind] = by_lycoris(sdxl.models.unet, **KINDS[kind])
        return known[kind]

    return make


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_lycoris(kind: str, layout: str, made: Any, sdxl: Opened, tmp_path: Path) -> None:
    adapter, plain = made(kind), weights_of_network(sdxl.models.unet)
    file = saved(LAYOUTS[layout](adapter.tensors), tmp_path / "adapter.safetensors")
    for model in (sdxl.home, sdxl.bundle) if layout == "lycoris" else (sdxl.home,):
        assert assert_merged(ours(model, "unet", {file: 1.0}), adapter.merged, plain) > 60
        assert not adapt(model, {file: 1.0}).warnings


_TARGETS = ["to_q", "to_k", "to_out.0", "conv1", "ff.net.2"]
PEFT: Mapping[str, Callable[[], peft.PeftConfig]] = {
    "lora": lambda: _lora(lora_alpha=6),
    "rslora": lambda: _lora(use_rslora=True),
    "dora": lambda: _lora(use_dora=True),
    "patterns": lambda: _lora(alpha_pattern={"to_q": 1, "to_out.0": 12}, rank_pattern={"to_k": 2}),
    "bias": lambda: _lora(lora_bias=True, target_modules=["to_out.0", "conv1", "ff.net.2"]),
    "retrained layers": lambda: _lora(modules_to_save=["proj_in"]),
    "loha": lambda: peft.LoHaConfig(r=4, alpha=2, target_modules=_TARGETS),
    "loha effective": lambda: peft.LoHaConfig(r=2, alpha=3, target_modules=_TARGETS, use_effective_conv2d=True),
    "lokr": lambda: peft.LoKrConfig(r=2, alpha=3, target_modules=_TARGETS, decompose_both=True),
    "lokr effective": lambda: peft.LoKrConfig(r=1, alpha=3, target_modules=_TARGETS, use_effective_conv2d=True),
}


def _lora(**settings: Any) -> peft.LoraConfig:
    return peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": _TARGETS, **settings})


@pytest.mark.parametrize("kind", PEFT)
def test_kinds_of_peft(kind: str, sdxl: Opened, tmp_path: Path) -> None:
    adapter = by_peft(sdxl.models.unet, PEFT[kind](), tmp_path)
    found = ours(sdxl.home, "unet", {tmp_path: 1.0})
    assert assert_merged(found, adapter.merged, weights_of_network(sdxl.models.unet)) > 25
    assert not adapt(sdxl.home, {tmp_path: 1.0}).warnings


@pytest.mark.parametrize("strength", [-0.5, 0.0, 0.3, 2.0])
@pytest.mark.parametrize("kind", ["lora", "loha", "dora rows", "full"])
def test_the_strength_multiplies_the_difference(
    kind: str, strength: float, made: Any, sdxl: Opened, tmp_path: Path
) -> None:
    adapter, plain = made(kind), weights_of_network(sdxl.models.unet)
    file = saved(adapter.tensors, tmp_path / "adapter.safetensors")
    expected = {name: plain[name] + strength * (adapter.merged[name] - plain[name]) for name in plain}
    assert_merged(ours(sdxl.home, "unet", {file: strength}), expected, plain)


def test_several_adapters_add_up(made: Any, sdxl: Opened, tmp_path: Path) -> None:
    plain, strengths = (
        weights_of_network(sdxl.models.unet),
        {"lora": 0.3, "lokr": -0.5, "dora columns": 1.0, "loha tucker": 0.7},
    )
    files = {kind: saved(made(kind).tensors, tmp_path / f"{kind}.safetensors") for kind in strengths}
    expected = {
        name: weight + sum(strengths[kind] * (made(kind).merged[name] - weight) for kind in strengths)
        for name, weight in plain.items()
    }
    given = {files[kind]: strength for kind, strength in strengths.items()}
    for model in (sdxl.home, sdxl.bundle):
        assert assert_merged(ours(model, "unet", given), expected, plain) > 60


def test_alpha_of_zero_and_none_mean_the_rank(made: Any, sdxl: Opened, tmp_path: Path) -> None:
    tensors, plain = dict(made("lora").tensors), weights_of_network(sdxl.models.unet)
    absent = {name: value for name, value in tensors.items() if not name.endswith("alpha")}
    zero = {**absent, **{name: torch.zeros(()) for name in tensors if name.endswith("alpha")}}
    name = "mid_block.attentions.0.proj_in"
    path = f"lycoris_{name.replace('.', '_')}"
    up, down = (absent[f"{path}.lora_{each}.weight"].numpy() for each in ("up", "down"))
    for index, each in enumerate((absent, zero)):
        file = saved(each, tmp_path / f"{index}.safetensors")
        found = ours(sdxl.home, "unet", {file: 1.0})[f"{name}.weight"]
        assert np.allclose(found, plain[f"{name}.weight"] + up @ down, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_adapters_in_half_precision(kind: torch.dtype, made: Any, sdxl: Opened, tmp_path: Path) -> None:
    halves = {name: value.to(kind) for name, value in made("lora").tensors.items()}
    whole = {name: value.float() for name, value in halves.items()}
    files = [saved(each, tmp_path / f"{len(each)}-{index}.safetensors") for index, each in enumerate((halves, whole))]
    one, other = (ours(sdxl.home, "unet", {file: 1.0}) for file in files)
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_older_names_of_diffusers(made: Any, sdxl: Opened, tmp_path: Path) -> None:
    """Attention processors of diffusers 0.17, and linear layers of diffusers 0.20."""
    plain = weights_of_network(sdxl.models.unet)
    generator = torch.Generator().manual_seed(0)
    tensors: Tensors = {}
    expected = dict(plain)
    for name in [each for each in plain if "attn" in each and each.endswith("weight")]:
        path, (rows, columns) = name.removesuffix(".weight"), plain[name].shape
        up, down = torch.randn(rows, 2, generator=generator), torch.randn(2, columns, generator=generator)
        head, _, last = path.removesuffix(".0").rpartition(".")
        key = f"unet.{head}.processor.{last}_lora" if "attn1" in path else f"unet.{path}.lora_linear_layer"
        tensors |= {f"{key}.down.weight": down, f"{key}.up.weight": up}
        expected[name] = plain[name] + (up @ down).numpy()
    file = saved(tensors, tmp_path / "pytorch_lora_weights.safetensors")
    assert assert_merged(ours(sdxl.home, "unet", {tmp_path: 1.0}), expected, plain) > 20
    assert not adapt(sdxl.home, {file: 1.0}).warnings


def test_both_text_encoders(sdxl: Opened, tmp_path: Path) -> None:
    """In kohya's layout, of which a bundle lacks the last layer, which nothing is computed from."""
    tensors: Tensors = {}
    for prefix, network in (("lora_te1", sdxl.models.text_encoder), ("lora_te2", sdxl.models.text_encoder_2)):
        renamed_peft = by_peft(network, peft.LoraConfig(r=2, target_modules=["q_proj", "out_proj", "fc2"]), tmp_path)
        for key, value in renamed_peft.tensors.items():
            path, role = key.removeprefix("base_model.model.").split(".lora_")
            path = path if path.startswith("text_model.") else f"text_model.{path}"
            kind = {"A.weight": "down", "B.weight": "up"}[role]
            tensors[f"{prefix}_{path.replace('.', '_')}.lora_{kind}.weight"] = value
    tensors["lora_te2_text_projection.lora_down.weight"] = torch.ones(1, 4)
    tensors["lora_te2_text_projection.lora_up.weight"] = torch.ones(4, 1)
    file = saved(tensors, tmp_path / "text.safetensors")
    for model in (sdxl.home, sdxl.bundle):
        assert not adapt(model, {file: 1.0}).warnings
        projection = ours(model, "text_encoder_2", {file: 1.0})["text_projection.weight"]
        assert np.allclose(projection - ours(model, "text_encoder_2", {})["text_projection.weight"], 1, atol=1e-6)
        before, after = ours(model, "text_encoder", {}), ours(model, "text_encoder", {file: 1.0})
        changed = {name for name in before if not np.array_equal(before[name], after[name])}
        assert {"encoder.layers.0.self_attn.q_proj.weight", "encoder.layers.0.mlp.fc2.weight"} <= changed
