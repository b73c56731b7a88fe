"""Changing adapters of an open pipeline: what is compiled anew, kept, refused, and never reused."""

from __future__ import annotations

import dataclasses
import errno
import os
import threading
from functools import partial
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
from vinograph.adapters.kinds import LowRank
from vinograph.adapters.merges import Merges
from vinograph.adapters.merging import Term, stored_in
from vinograph.components import cache_key
from vinograph.convert import convert
from vinograph.errors import DamagedModelError, ResourceError
from vinograph.models.model import Model
from vinograph.models.safetensors import read_header
from vinograph.runtime.cache import Cache
from vinograph.runtime.low_rank import LowRankSums, in_memory
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


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.uint16])
@pytest.mark.parametrize("shape", [(300, 400), (1031, 1030), (3, 400_000)])
def test_blocks_of_sums_agree_with_numpy(kind: Any, shape: tuple[int, int]) -> None:
    """Also where blocks have rows in common; those of a matrix in bf16 come in f32."""
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal(each).astype(np.float32) for each in ((shape[0], 5), (5, shape[1])))
    values = rng.standard_normal(shape).astype(np.float32)
    base = (values.view(np.uint32) >> 16).astype(np.uint16) if kind == np.uint16 else values.astype(kind)
    exact = (base.astype(np.uint32) << 16).view(np.float32) if kind == np.uint16 else base.astype(np.float32)
    result = np.full(shape, np.nan, np.float32)
    for row, block in LowRankSums().blocks(in_memory(base), left, right):
        assert block.dtype == (np.float16 if kind == np.float16 else np.float32)
        result[row : row + len(block)] = block
    expected = exact + left @ right
    assert np.abs(result - expected).max() <= (2**-10 if kind == np.float16 else 1e-6) * np.abs(expected).max()


def test_sums_in_progress_do_not_share_a_kernel() -> None:
    """Two of the same shape at once, block by block in turns, and a third that takes what is free."""
    rng = np.random.default_rng(0)
    shapes = ((1024, 1024), (1024, 3), (3, 1024))
    given = [[rng.standard_normal(each).astype(np.float32) for each in shapes] for _ in range(3)]
    sums = LowRankSums()
    found = [np.full(shapes[0], np.nan, np.float32) for _ in given]
    pair = [sums.blocks(in_memory(base), left, right) for base, left, right in given[:2]]
    for blocks in zip(*pair, strict=True):
        for result, (row, block) in zip(found, blocks, strict=False):
            result[row : row + len(block)] = block
    for row, block in sums.blocks(in_memory(given[2][0]), *given[2][1:]):
        found[2][row : row + len(block)] = block
    for result, (base, left, right) in zip(found, given, strict=True):
        assert np.abs(result - (base + left @ right)).max() <= 1e-5
    assert [len(idle) for idle in sums._idle.values()] == [2]


def test_matrices_of_other_heights_share_blocks_that_are_large_enough() -> None:
    """1024 rows in blocks of 512, which 2048 rows take, too; blocks of 128 rows are too small."""
    sums = LowRankSums()
    for rows in (128, 1024, 2048):
        base, left, right = np.ones((rows, 1024), np.float32), np.ones((rows, 1), np.float32), np.ones((1, 1024))
        total = sum(len(block) for _, block in sums.blocks(in_memory(base), left, right.astype(np.float32)))
        assert total == rows
    assert sorted(shape.rows for shape in sums._idle) == [128, 512]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_large_weights_of_every_type_are_merged(dtype: str, tmp_path: Path) -> None:
    """In one graph: a sum of two adapters, in blocks from the file, and one in memory."""
    generator = torch.Generator().manual_seed(0)
    kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    names = ("up.0", "down.0", "up.1", "down.1")
    shapes = ((700, 3), (3, 1100), (700, 4), (4, 1100))
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in zip(names, shapes, strict=True)}
    weight = torch.randn((700, 1100), generator=generator).to(kind)
    records = read_header(saved({**tensors, "weight": weight}, tmp_path / "all.safetensors"))
    terms = tuple(Term("a", 0.5, LowRank(records[f"up.{each}"], records[f"down.{each}"], 2.0)) for each in (0, 1))
    product = sum(tensors[f"up.{each}"].double() @ tensors[f"down.{each}"].double() for each in (0, 1))
    with Merges(LastingScratch([tmp_path], "weights").room) as merges:
        found = merges.array(merges.tensor("weight", records["weight"], terms))
    expected = weight.double() + product
    values = (found.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else found
    rounding = {"F32": 2e-6, "F16": 2**-11, "BF16": 2**-8}[dtype]
    assert np.abs(values - expected.numpy()).max() <= 1.01 * rounding * float(expected.abs().max())


def test_errors_of_merging_threads_reach_the_caller(tmp_path: Path) -> None:
    """A weight that exceeds f16's range, and a file that is cut short; no thread is left."""
    tensors = {"up": torch.ones(300, 1), "down": torch.ones(1, 400), "weight": torch.ones(300, 400).half()}
    records = read_header(saved(tensors, tmp_path / "a.safetensors"))
    before = threading.active_count()

    def merged(strength: float) -> None:
        term = Term("an adapter", strength, LowRank(records["up"], records["down"], 1.0))
        with Merges(LastingScratch([tmp_path], "weights").room) as merges:
            merges.array(merges.tensor("weight", records["weight"], (term,)))

    merged(65000)
    with pytest.raises(RequestError, match="an adapter makes weight exceed the range of f16"):
        merged(-65600)
    os.truncate(tmp_path / "a.safetensors", records["weight"].end - 100_000)
    with pytest.raises(DamagedModelError, match="cut short"):
        merged(1)
    assert threading.active_count() == before


def test_scratch_keeps_arrays_and_says_where_there_is_no_room(tmp_path: Path) -> None:
    array = np.arange(100_000, dtype=np.float32).reshape(100, 1000)
    scratch = LastingScratch([tmp_path / "none" / "of", tmp_path], "weights")
    kept = [stored_in(scratch.room, each) for each in (array, array[::2], array[:1])]
    assert all(np.array_equal(one, other) for one, other in zip(kept, (array, array[::2], array[:1]), strict=True))
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="no folder for weights"):
        LastingScratch([tmp_path / "file"], "weights").room((100, 1000), np.dtype(np.float32))


def test_where_room_cannot_be_reserved_scratch_writes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.arange(100_000, dtype=np.float32)

    def refuse(number: int, *place: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", partial(refuse, errno.EOPNOTSUPP))
    assert np.array_equal(stored_in(LastingScratch([tmp_path], "weights").room, array), array)
    monkeypatch.setattr(os, "posix_fallocate", partial(refuse, errno.ENOSPC))
    with pytest.raises(ResourceError, match=r"not enough room for weights .* 0 MB more are needed"):
        LastingScratch([tmp_path], "weights").room(array.shape, array.dtype)


def test_emptied_scratch_reuses_room_that_is_free(tmp_path: Path) -> None:
    """Arrays that are in use stay as they are."""
    ones, twos = (np.full((100, 1000), each, np.float32) for each in (1, 2))
    scratch = LastingScratch([tmp_path], "weights")
    first = stored_in(scratch.room, ones)
    scratch.empty()
    second = stored_in(scratch.room, twos)
    assert np.array_equal(first, ones)
    files = list(scratch._files)
    del first, second
    scratch.empty()
    third = stored_in(scratch.room, ones)
    assert scratch._files == files
    assert np.array_equal(third, ones)


def test_another_weight_takes_the_room_of_the_one_before(
    sdxl: Opened, unet_adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The released session, and what was compiled of it, no longer use the weights before."""
    monkeypatch.setattr("vinograph.runtime.scratch._SMALL", 0)
    pipe = Pipeline(sdxl.home, precision="f32")
    files, pictures = [], []
    for weight in (0.1, 0.2, 0.1):
        pipe.set_adapters({unet_adapter: weight})
        pictures.append(pipe("a house", **SETTINGS).images)
        files.append(list(pipe._sessions._scratches["unet"]._files))
    assert files[0]
    assert files[0] == files[1] == files[2]
    assert np.array_equal(pictures[0], pictures[2])
    assert not np.array_equal(pictures[0], pictures[1])
    pipe.set_adapters({})
    assert not pipe._sessions._scratches


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
