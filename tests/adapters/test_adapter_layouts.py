"""Adapters of each family in the layouts that its tools write, against those tools' weights and pictures."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import peft
import pytest
import torch
from peft.utils import get_peft_model_state_dict

from tests.adapters.adapters_made import (
    Made,
    Tensors,
    assert_merged,
    by_peft,
    ours,
    randomised,
    saved,
    weights_of_network,
)
from tests.adapters.conftest import Opened
from vinograph import Pipeline
from vinograph.adapters.adaptation import adapt

# diffusers makes an array of a tensor in a way that numpy deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

_DIFFUSERS: Any = diffusers
_PROMPT = "a red house"


def plain_tensors(made: Made) -> Tensors:
    """The tensors of PEFT's file, without its prefix."""
    return {key.removeprefix("base_model.model."): value for key, value in made.tensors.items()}


def flat(prefix: str, tensors: Tensors) -> Tensors:
    """Tensors as kohya's scripts name them: paths with underscores, ``lora_down`` and ``lora_up``."""
    found = {}
    for key, value in tensors.items():
        path, _, role = key.partition(".lora_")
        kind = "down" if role.startswith("A") else "up"
        found[f"{prefix}_{path.replace('.', '_')}.lora_{kind}.weight"] = value
    return found


@pytest.fixture(scope="module")
def folder(sdxl: Opened, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    for index, alpha in enumerate((8, 2)):
        unet = peft.LoraConfig(r=4, lora_alpha=alpha, target_modules=["to_q", "to_out.0", "conv1", "proj_in"])
        text = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj", "fc1"])
        layers, metadata = {}, {}
        for name, config in (("unet", unet), ("text_encoder", text), ("text_encoder_2", text)):
            network = copy.deepcopy(getattr(sdxl.models, name))
            network.add_adapter(config)
            randomised(((key, p) for key, p in network.named_parameters() if "lora_" in key), seed=index)
            layers[f"{name}_lora_layers"] = get_peft_model_state_dict(network)
            settings: Any = config
            metadata[f"{name}_lora_adapter_metadata"] = settings.to_dict()
        place = folder / str(index)
        _DIFFUSERS.StableDiffusionXLPipeline.save_lora_weights(place, **layers, **metadata)
    return folder


@pytest.fixture(scope="module")
def theirs(sdxl: Opened, folder: Path) -> Any:
    pipe = copy.deepcopy(sdxl.models).pipeline()
    pipe.set_progress_bar_config(disable=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of PEFT, that there are several
        for index in (0, 1):
            pipe.load_lora_weights(folder / str(index), adapter_name=f"adapter_{index}")
    return pipe


@pytest.fixture(scope="module", params=["home", "bundle"])
def pipe(request: pytest.FixtureRequest, sdxl: Opened) -> Pipeline:
    return Pipeline(getattr(sdxl, request.param), precision="f32")


class TestSdxlPictures:
    """diffusers draws with ``load_lora_weights`` what we draw, by the file that diffusers wrote."""

    @pytest.mark.parametrize("strengths", [(1.0, 0.0), (-0.5, 0.3), (0.3, 1.0)])
    def test_pictures(self, strengths: tuple[float, float], theirs: Any, folder: Path, pipe: Pipeline) -> None:
        settings: dict[str, Any] = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "np"}
        theirs.set_adapters(["adapter_0", "adapter_1"], list(strengths))
        expected = theirs(_PROMPT, generator=torch.Generator().manual_seed(3), **settings).images
        pipe.set_adapters({folder / str(index): strength for index, strength in enumerate(strengths)})
        result = pipe(_PROMPT, seed=3, **settings)
        assert float(np.abs(result.images - expected).max()) < 0.05 / 255
        assert not result.warnings
        assert list(result.metadata(0)["adapters"].values()) == list(strengths)
        pipe.set_adapters({})
        without = pipe(_PROMPT, seed=3, **settings)
        assert float(np.abs(without.images - expected).max()) > 10 / 255
        assert "adapters" not in without.metadata(0)


@pytest.fixture(scope="module")
def pixart_lora(pixart: Opened, tmp_path_factory: pytest.TempPathFactory) -> Made:
    config = peft.LoraConfig(
        r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0", "proj", "linear_1", "net.2"]
    )
    return by_peft(pixart.models.transformer, config, tmp_path_factory.mktemp("pixart-lora"))


class TestPixArt:
    @pytest.mark.parametrize("layout", ["peft", "transformer.", "unet.", "lora_transformer", "lycoris"])
    def test_transformer(self, layout: str, pixart_lora: Made, pixart: Opened, tmp_path: Path) -> None:
        plain = plain_tensors(pixart_lora)
        dotted = {"peft": "base_model.model.", "transformer.": "transformer.", "unet.": "unet."}
        tensors = {f"{dotted[layout]}{key}": value for key, value in plain.items()} if layout in dotted else {}
        file = saved(tensors or flat(layout, plain), tmp_path / "adapter.safetensors")
        for model in (pixart.home, pixart.bundle):
            found = ours(model, "transformer", {file: 1.0})
            assert assert_merged(found, pixart_lora.merged, weights_of_network(pixart.models.transformer)) > 10
            assert not adapt(model, {file: 1.0}).warnings

    def test_fused_layers_of_the_original_repository(self, pixart: Opened, tmp_path: Path) -> None:
        """Queries, keys and values are the rows of one layer, whatever the kind of adapter."""
        plain = weights_of_network(pixart.models.transformer)
        width = plain["transformer_blocks.0.attn1.to_q.weight"].shape[0]
        generator = torch.Generator().manual_seed(0)

        def noise(*shape: int) -> torch.Tensor:
            return 0.3 * torch.randn(shape, generator=generator)

        up, down, kv = noise(3 * width, 2), noise(2, width), noise(2 * width, width)
        tensors = {
            "lora_unet_blocks_0_attn_qkv.lora_up.weight": up,
            "lora_unet_blocks_0_attn_qkv.lora_down.weight": down,
            "lora_unet_blocks_0_attn_qkv.alpha": torch.tensor(1.0),
            "lora_unet_blocks_0_cross_attn_kv_linear.diff": kv,
            "lora_unet_blocks_0_mlp_fc1.diff_b": noise(4 * width),
            "lora_unet_final_layer_linear.diff_b": noise(*plain["proj_out.bias"].shape),
        }
        file = saved(tensors, tmp_path / "adapter.safetensors")
        found = ours(pixart.home, "transformer", {file: 1.0})
        qkv = (up @ down).numpy() / 2
        for index, name in enumerate(("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_k", "attn2.to_v")):
            rows = qkv[index * width :][:width] if index < 3 else kv.numpy()[(index - 3) * width :][:width]
            weight = f"transformer_blocks.0.{name}.weight"
            assert np.allclose(found[weight], plain[weight] + rows, atol=1e-5)
        for name, key in (
            ("proj_out", "final_layer_linear"),
            ("transformer_blocks.0.ff.net.0.proj", "blocks_0_mlp_fc1"),
        ):
            bias = f"{name}.bias"
            assert np.allclose(found[bias], plain[bias] + tensors[f"lora_unet_{key}.diff_b"].numpy(), atol=1e-6)

    @pytest.mark.parametrize("prefix", ["text_encoder.", "lora_te", "lora_te1"])
    def test_t5(self, prefix: str, pixart: Opened, tmp_path: Path) -> None:
        network = pixart.models.text_encoder
        pixart_lora = by_peft(network, peft.LoraConfig(r=2, lora_alpha=2, target_modules=["q", "wo", "wi_0"]), tmp_path)
        plain = plain_tensors(pixart_lora)
        tensors = {f"{prefix}{key}": value for key, value in plain.items()} if "." in prefix else flat(prefix, plain)
        file = saved(tensors, tmp_path / "adapter.safetensors")
        for model in (pixart.home, pixart.bundle):
            found = ours(model, "text_encoder", {file: 1.0})
            assert assert_merged(found, pixart_lora.merged, weights_of_network(network)) > 3

    def test_pictures(self, pixart_lora: Made, pixart: Opened) -> None:
        settings: dict[str, Any] = {"num_inference_steps": 2, "output_type": "np", "use_resolution_binning": False}
        assert pixart_lora.folder is not None
        models = copy.deepcopy(pixart.models)
        merged = {name: torch.tensor(value) for name, value in pixart_lora.merged.items()}
        models.transformer.load_state_dict(merged, strict=False)
        theirs = models.pipeline()
        theirs.set_progress_bar_config(disable=True)
        side = pixart.home.manifest.limits["native_size"]
        size = {"height": side, "width": side}
        expected = theirs(_PROMPT, generator=torch.Generator().manual_seed(3), **size, **settings).images
        pipe = Pipeline(pixart.home, precision="f32", adapters={str(pixart_lora.folder): 1.0})
        found = pipe(_PROMPT, seed=3, **size, **settings).images
        assert float(np.abs(found - expected).max()) < 0.05 / 255


@pytest.fixture(scope="module")
def prior_lora(wuerstchen: Opened, tmp_path_factory: pytest.TempPathFactory) -> Made:
    config = peft.LoraConfig(
        r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0", "kv_mapper.1", "channelwise.0"]
    )
    return by_peft(wuerstchen.models.prior, config, tmp_path_factory.mktemp("prior-lora"))


class TestWuerstchen:
    @pytest.mark.parametrize("prefix", ["unet.", "prior.", "lora_prior", "lora_prior_unet"])
    def test_prior(self, prefix: str, prior_lora: Made, wuerstchen: Opened, tmp_path: Path) -> None:
        plain = plain_tensors(prior_lora)
        tensors = {f"{prefix}{key}": value for key, value in plain.items()} if "." in prefix else flat(prefix, plain)
        file = saved(tensors, tmp_path / "adapter.safetensors")
        before = weights_of_network(wuerstchen.models.prior)
        for model in (wuerstchen.home, wuerstchen.bundle):
            adapted = adapt(model, {file: 0.5})
            assert (adapted.warnings, adapted.changes("prior"), adapted.changes("prior_text")) == ((), True, True)
            found = ours(model, "prior", {file: 1.0})
            found = {name: value for name, value in found.items() if not name.endswith("channelwise.4.bias")}  # folded
            assert assert_merged(found, prior_lora.merged, before) > 3

    def test_layers_that_a_component_holds_as_one(self, prior_lora: Made, wuerstchen: Opened) -> None:
        """The text's keys go through two layers that are multiplied, in a bundle before adapters come."""
        merged = {name: value.astype(np.float64) for name, value in prior_lora.merged.items()}
        for model, tolerance in ((wuerstchen.home, 1e-6), (wuerstchen.bundle, 2e-4)):
            found = ours(model, "prior_text", {prior_lora.folder: 1.0})
            paths = [name.removesuffix(".weight") for name in found if re.search(r"to_[kv]\.weight", name)]
            assert paths
            for path in paths:
                outer, inner = merged[f"{path}.weight"], path.split("attention")[0] + "kv_mapper.1"
                weight = outer @ merged[f"{inner}.weight"]
                bias = outer @ merged[f"{inner}.bias"] + merged[f"{path}.bias"]
                scale = np.abs(weight).max()
                assert np.abs(found[f"{path}.weight"] - weight).max() < tolerance * scale
                assert np.abs(found[f"{path}.bias"].reshape(-1) - bias).max() < tolerance * max(
                    scale, np.abs(bias).max()
                )

    def test_pictures(self, prior_lora: Made, wuerstchen: Opened) -> None:
        models = copy.deepcopy(wuerstchen.models)
        models.prior.load_state_dict({name: torch.tensor(value) for name, value in prior_lora.merged.items()})
        theirs = models.combined()
        for each in (theirs, theirs.prior_pipe, theirs.decoder_pipe):
            each.set_progress_bar_config(disable=True)
        settings: dict[str, Any] = {"prior_num_inference_steps": 2, "num_inference_steps": 2, "output_type": "np"}
        size: dict[str, Any] = {"height": 128, "width": 128}
        expected = theirs(_PROMPT, generator=torch.Generator().manual_seed(3), **size, **settings).images
        for model in (wuerstchen.home, wuerstchen.bundle):
            pipe = Pipeline(model, precision="f32", adapters={str(prior_lora.folder): 1.0})
            found = pipe(_PROMPT, seed=3, **size, **settings).images
            assert float(np.abs(found - expected).max()) < 0.2 / 255

    def test_a_bundle_says_which_layers_it_holds_folded(self, wuerstchen: Opened, tmp_path: Path) -> None:
        config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["channelwise.4", "to_q"])
        prior_lora = by_peft(wuerstchen.models.prior, config, tmp_path)
        assert prior_lora.folder is not None
        assert not adapt(wuerstchen.home, {str(prior_lora.folder): 1.0}).warnings
        (warning,) = adapt(wuerstchen.bundle, {str(prior_lora.folder): 1.0}).warnings
        assert "channelwise.4" in warning
        assert "folded" in warning


@pytest.fixture
def halves(sdxl: Opened, tmp_path: Path) -> Callable[[], Tensors]:
    """A file with keys in two styles: half of the layers as PEFT names them, half as kohya does."""

    def make() -> Tensors:
        config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_k"])
        plain = plain_tensors(by_peft(sdxl.models.unet, config, tmp_path))
        first = {key: value for key, value in plain.items() if "to_q" in key}
        rest = {key: value for key, value in plain.items() if "to_k" in key}
        return {**{f"unet.{key}": value for key, value in first.items()}, **flat("lora_unet", rest)}

    return make


def test_mixed_styles_in_one_file(halves: Callable[[], Tensors], sdxl: Opened, tmp_path: Path) -> None:
    file = saved(halves(), tmp_path / "mixed.safetensors")
    adaptation = adapt(sdxl.home, {file: 1.0})
    assert not adaptation.warnings
    assert len(adaptation.adapters[0].match.styles) == 2
    before, after = ours(sdxl.home, "unet", {}), ours(sdxl.home, "unet", {file: 1.0})
    changed = {name.rpartition(".")[0].rpartition(".")[2] for name in before if (before[name] != after[name]).any()}
    assert changed == {"to_q", "to_k"}
