"""Changing adapters of an open pipeline: what is compiled anew, kept, refused, and never reused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.adapters.adapters_made import ours, saved
from tests.adapters.conftest import Opened
from vinograph import Pipeline, RequestError
from vinograph.adapters.adaptation import NO_ADAPTERS, adapt
from vinograph.adapters.file import check_weights
from vinograph.components import cache_key
from vinograph.convert import convert
from vinograph.errors import ResourceError
from vinograph.models.model import Model
from vinograph.runtime.cache import Cache
from vinograph.runtime.low_rank import add_product
from vinograph.runtime.scratch import LastingScratch

SETTINGS: dict[str, Any] = {"num_inference_steps": 1, "height": 64, "width": 64, "output_type": "np", "seed": 3}


@pytest.fixture
def unet_adapter(tmp_path: Path) -> Path:
    """An adapter for one layer of the small SDXL's UNet."""
    path = "unet.mid_block.attentions.0.proj_in"
    return saved(
        {f"{path}.lora_A.weight": torch.ones(1, 8), f"{path}.lora_B.weight": torch.ones(8, 1)},
        tmp_path / "a.safetensors",
    )


def test_components_that_do_not_change_stay_compiled(sdxl: Opened, unet_adapter: Path) -> None:
    pipe = Pipeline(sdxl.home, precision="f32")
    pipe("a house", **SETTINGS)
    opened = dict(pipe._sessions._opened)
    pipe.set_adapters({unet_adapter: 1.0})
    assert set(opened) - set(pipe._sessions._opened) == {"unet"}
    assert all(pipe._sessions._opened[name] is session for name, session in opened.items() if name != "unet")
    pipe("a house", **SETTINGS)
    changed = pipe._sessions._opened["unet"]
    pipe.set_adapters({str(unet_adapter): 1.0})
    assert pipe._sessions._opened["unet"] is changed


def test_keys_of_the_cache_tell_adapters_and_weights(sdxl: Opened, unet_adapter: Path) -> None:
    cache = Cache()

    def key(component: str, weights: dict[Any, float]) -> str:
        adaptation = adapt(sdxl.bundle, weights) if weights else NO_ADAPTERS
        return cache_key(sdxl.bundle, component, cache, adaptation).contents

    keys = [key("unet", {}), key("unet", {unet_adapter: 1.0}), key("unet", {unet_adapter: 0.5})]
    assert len(set(keys)) == 3
    assert key("unet", {unet_adapter: 0.0}) == keys[0]
    assert key("text_encoder", {unet_adapter: 1.0}) == key("text_encoder", {})


def test_a_wrong_adapter_leaves_those_in_use(sdxl: Opened, unet_adapter: Path) -> None:
    pipe = Pipeline(sdxl.home, adapters={unet_adapter: 0.5})
    with pytest.raises(RequestError, match="there is no adapter"):
        pipe.set_adapters({"nowhere": 1.0})
    assert dict(pipe.adapters) == {str(unet_adapter): 0.5}


def test_nothing_changes_while_a_picture_is_drawn(sdxl: Opened, unet_adapter: Path) -> None:
    pipe = Pipeline(sdxl.home, precision="f32")
    steps = pipe.stream("a house", **SETTINGS)
    next(steps)
    with pytest.raises(RequestError, match="while a picture is drawn"):
        pipe.set_adapters({unet_adapter: 1.0})
    steps.close()
    pipe.set_adapters({unet_adapter: 1.0})


@pytest.mark.parametrize(
    "wrong", ["a.safetensors", 3, {"a": "1"}, {"a": True}, {"a": float("inf")}, {3: 1.0}, {b"a": 1.0}]
)
def test_weights_of_wrong_types(wrong: Any) -> None:
    with pytest.raises(RequestError):
        check_weights(wrong)


@pytest.mark.parametrize("weights", ["int8"])
def test_low_bit_weights_keep_their_form(weights: Any, sdxl: Opened, tmp_path: Path) -> None:
    """Merged values are near the exact ones, and on average they are equal."""
    low = convert(sdxl.home.path, tmp_path / "low", weights=weights)
    generator = torch.Generator().manual_seed(0)
    path = "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj"
    before = ours(low, "unet", {})[f"{path}.weight"]
    up, down = (
        torch.randn(before.shape[0], 4, generator=generator),
        torch.randn(4, before.shape[1], generator=generator),
    )
    tensors = {f"unet.{path}.lora_A.weight": down, f"unet.{path}.lora_B.weight": up}
    file = saved(tensors, tmp_path / "adapter.safetensors")
    after = ours(low, "unet", {file: 0.01})[f"{path}.weight"]
    wanted = before + 0.01 * (up @ down).numpy()
    step = (wanted.max(1) - wanted.min(1)) / 255
    assert np.abs(after - wanted).max() <= 1.1 * step.max()
    assert abs((after - wanted).mean()) < 0.2 * step.mean()
    assert np.corrcoef((after - before).ravel(), (wanted - before).ravel())[0, 1] > 0.7


def test_products_of_large_matrices_agree_with_numpy() -> None:
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal(shape).astype(np.float32) for shape in ((300, 5), (5, 400)))
    for kind in (np.float32, np.float16):
        base = rng.standard_normal((300, 400)).astype(kind)
        result = np.empty_like(base)
        add_product(base, left, right, result)
        expected = base.astype(np.float32) + left @ right
        assert np.abs(result - expected).max() <= (2**-10 if kind == np.float16 else 1e-6) * np.abs(expected).max()


def test_scratch_keeps_arrays_and_says_where_there_is_no_room(tmp_path: Path) -> None:
    array = np.arange(100_000, dtype=np.float32).reshape(100, 1000)
    scratch = LastingScratch([tmp_path / "none" / "of", tmp_path], "weights")
    kept = [scratch.keep(array), scratch.keep(array[::2].copy()), scratch.keep(array[:1])]
    assert all(np.array_equal(one, other) for one, other in zip(kept, (array, array[::2], array[:1]), strict=True))
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="no folder for weights"):
        LastingScratch([tmp_path / "file"], "weights").keep(array)


def test_models_without_names_of_weights_are_refused(sdxl: Opened, unet_adapter: Path) -> None:
    class Exported:
        """The model as another program exports it: its plans name no weights."""

        def __getattr__(self, name: str) -> Any:
            return getattr(sdxl.home, name)

        def component_plan(self, name: str) -> Any:
            plan = sdxl.home.component_plan(name)
            assert plan is not None
            return dataclasses.replace(plan, shapes={})

    exported: Any = Exported()
    model: Model = exported
    with pytest.raises(Exception, match="left out the names of weights"):
        adapt(model, {unet_adapter: 1.0})
