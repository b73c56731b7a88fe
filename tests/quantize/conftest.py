"""Small bundles whose denoisers have layers of all kinds to quantize."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from tests.bundles import Node, save_bundle, save_pixart_bundle, save_sdxl_bundle
from tests.cli.conftest import _clean_place, vinograph  # noqa: F401  # fixtures
from tests.convert.conftest import once
from vinograph.models.bundle import Bundle
from vinograph.quantize import component, quantize, segments
from vinograph.runtime import tuning

CHANNELS = 32
BLOCKS = 3
SMALL_SEGMENT = 20_000
_OF_SEVERAL_BLOCKS = 4 * SMALL_SEGMENT


@pytest.fixture(autouse=True)
def _garbage_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models are tiny: looking for garbage after each segment would take longer than quantizing it."""
    monkeypatch.setattr(component, "gc", SimpleNamespace(collect=lambda: 0))


@pytest.fixture(autouse=True)
def _measured_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default setting alone is timed, by one call: how settings are measured shows in tests of tuning."""
    monkeypatch.setattr(tuning, "SHORTEST_CALL", math.inf)
    monkeypatch.setattr(tuning, "_RUNS", 1)
    monkeypatch.setattr(tuning, "_ENOUGH_SECONDS", 0.0)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of one block each."""
    monkeypatch.setattr(segments, "SEGMENT", SMALL_SEGMENT)


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Bundle, str], Bundle]:
    """``quantized(bundle, mode)``: made once for all tests, for reading only. Its name is "out".

    SDXL's is made in segments of one block each; three of several blocks do for the others, and take half as long.
    """

    def make(bundle: Bundle, mode: str) -> Bundle:
        def write(folder: Path) -> None:
            with pytest.MonkeyPatch.context() as patch:
                size = SMALL_SEGMENT if bundle.manifest.family == "sdxl" else _OF_SEVERAL_BLOCKS
                patch.setattr(segments, "SEGMENT", size)
                quantize(bundle.path, folder / "out", mode=mode)

        return Bundle.open(once(tmp_path_factory, f"quantized-{bundle.manifest.family}-{mode}", write) / "out")

    return make


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An SDXL bundle that draws in four steps, for reading only.

    All test processes have the same one: another process gives a graph's nodes other names, and a
    quantized bundle of that would not be the same to the byte.
    """
    graphs = {"unet": denoise, "text_encoder": _read}
    folder = once(tmp_path_factory, "to-quantize-sdxl", lambda folder: save_sdxl_bundle(folder / "sdxl", graphs=graphs))
    return Bundle.open(folder / "sdxl")


@pytest.fixture(scope="session")
def wuerstchen(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same of the second family."""
    graphs = {"prior": denoise, "decoder": denoise}
    name = "to-quantize-wuerstchen"
    folder = once(tmp_path_factory, name, lambda folder: save_bundle(folder / "wuerstchen", graphs=graphs))
    return Bundle.open(folder / "wuerstchen")


@pytest.fixture(scope="session")
def pixart(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same of the third."""
    graphs = {"transformer": denoise, "text_encoder": _read}
    name = "to-quantize-pixart"
    folder = once(tmp_path_factory, name, lambda folder: save_pixart_bundle(folder / "pixart", graphs=graphs))
    return Bundle.open(folder / "pixart")


def denoise(given: Mapping[str, Node]) -> dict[str, Node]:
    """Attention, and residual blocks of convolutions and linear layers with a timestep embedding.

    The latents attend to each other and, of PixArt, to the text.
    """
    rng = np.random.default_rng(7)
    latents = given["sample"] if "sample" in given else given["x"]
    time = given["timestep"] if "timestep" in given else given["r"]
    channels = latents.get_partial_shape()[1].get_length()
    embedding = _time(rng, time)
    x = _convolution(rng, ops.tanh(latents), channels, CHANNELS, 3)
    for _ in range(BLOCKS):
        x = ops.add(x, _convolution(rng, ops.swish(ops.add(x, embedding)), CHANNELS, CHANNELS, 3))
        tokens = ops.transpose(x, ops.constant([0, 2, 3, 1]))
        tokens = ops.add(tokens, _depthwise(rng, ops.sin(tokens)))
        inner = ops.gelu(_linear(rng, tokens, CHANNELS, 4 * CHANNELS), "erf")
        linear = _linear(rng, inner, 4 * CHANNELS, CHANNELS)
        x = ops.add(x, ops.transpose(linear, ops.constant([0, 3, 1, 2])))
    x = _attention(rng, x, None)
    if "encoder_attention_mask" in given:
        x = _attention(rng, x, given["encoder_hidden_states"])
    out = 8 if "encoder_attention_mask" in given else channels
    noise = ops.tanh(_convolution(rng, x, CHANNELS, out, 3))
    # Nearly all that it is given is noise to it, or the sampler would go astray.
    noise = ops.add(ops.multiply(noise, ops.constant(np.float32(0.3))), ops.concat([latents] * (out // channels), 1))
    for name, value in given.items():
        if name not in ("sample", "x", "timestep", "r"):
            flat = ops.reshape(ops.convert(value, "f32"), ops.constant([0, -1, 1, 1]), special_zero=True)
            mean = ops.reduce_mean(flat, ops.constant([1]), keep_dims=True)
            noise = ops.add(noise, ops.multiply(ops.tanh(mean), ops.constant(np.float32(0.05))))
    return {"noise" if "x" in given else "out_sample": noise}


def _read(given: Mapping[str, Node]) -> dict[str, Node]:
    """A table and a linear layer."""
    rng = np.random.default_rng(8)
    table = ops.constant(rng.standard_normal((300, 64)).astype(np.float32))
    words = _linear(rng, ops.gather(table, given["input_ids"], ops.constant(0)), 64, 8)
    if "attention_mask" in given:
        return {"hidden_states": words}
    number = np.arange(1, 4, dtype=np.float32).reshape(1, 3, 1, 1)
    return {"hidden_states": ops.multiply(ops.unsqueeze(words, ops.constant(1)), ops.constant(number))}


def _time(rng: np.random.Generator, time: Node) -> Node:
    """A row for each time."""
    angles = ops.multiply(
        ops.unsqueeze(time, ops.constant(1)), ops.constant(np.geomspace(1, 0.01, 16, dtype=np.float32)[None])
    )
    row = _linear(rng, ops.concat([ops.sin(angles), ops.cos(angles)], 1), 32, CHANNELS)
    return ops.reshape(row, ops.constant([-1, CHANNELS, 1, 1]), special_zero=False)


def _attention(rng: np.random.Generator, x: Node, text: Node | None) -> Node:
    """Attention of each position to all positions, or to the text, with a residual."""
    places = ops.transpose(ops.reshape(x, ops.constant([0, CHANNELS, -1]), special_zero=True), ops.constant([0, 2, 1]))
    keys, width = (places, CHANNELS) if text is None else (text, text.get_partial_shape()[2].get_length())
    heads = [
        _linear(rng, places, CHANNELS, CHANNELS),
        _linear(rng, keys, width, CHANNELS),
        _linear(rng, keys, width, CHANNELS),
    ]
    query, key, value = (ops.unsqueeze(each, ops.constant(1)) for each in heads)
    mixed = ops.squeeze(ops.scaled_dot_product_attention(query, key, value), ops.constant(1))
    return ops.add(x, ops.reshape(ops.transpose(mixed, ops.constant([0, 2, 1])), ops.shape_of(x), special_zero=False))


def _linear(rng: np.random.Generator, x: Node, wide: int, out: int) -> Node:
    weights = rng.standard_normal((out, wide)).astype(np.float32) / np.sqrt(wide)
    product = ops.matmul(x, ops.constant(weights.astype(np.float32)), transpose_a=False, transpose_b=True)
    return ops.add(product, ops.constant(0.1 * rng.standard_normal((1, out)).astype(np.float32)))


def _convolution(rng: np.random.Generator, x: Node, wide: int, out: int, size: int) -> Node:
    kernel = (rng.standard_normal((out, wide, size, size)) / np.sqrt(wide * size * size)).astype(np.float32)
    pad = [size // 2] * 2
    convolved = ops.convolution(x, ops.constant(kernel), [1, 1], pad, pad, [1, 1])
    return ops.add(convolved, ops.constant(0.1 * rng.standard_normal((1, out, 1, 1)).astype(np.float32)))


def _depthwise(rng: np.random.Generator, x: Node) -> Node:
    """Of values whose channels are the last axis, as in Würstchen's blocks."""
    kernel = (rng.standard_normal((CHANNELS, 1, 1, 3, 3)) / 3).astype(np.float32)
    channels_first = ops.transpose(x, ops.constant([0, 3, 1, 2]))
    convolved = ops.group_convolution(channels_first, ops.constant(kernel), [1, 1], [1, 1], [1, 1], [1, 1])
    return ops.transpose(convolved, ops.constant([0, 2, 3, 1]))


def stored(xml: Path, kind: str) -> dict[str, Any]:
    """The storage of the weights of each layer of a kind, and whether its input is quantized."""
    found: dict[str, Any] = {}
    for node in ov.Core().read_model(xml).get_ops():
        if node.get_type_name() == kind:
            weights = node.input_value(1).get_node()
            while weights.get_type_name() != "Constant":
                weights = weights.input_value(0).get_node()
            found[node.get_friendly_name()] = (
                weights.get_output_element_type(0).get_type_name(),
                _in_few_bits(node.input_value(0)),
            )
    return found


def attentions(xml: Path) -> list[tuple[bool, ...]]:
    """Whether queries, keys and values of each attention are quantized."""
    nodes = ov.Core().read_model(xml).get_ordered_ops()
    found = [node for node in nodes if node.get_type_name() == "ScaledDotProductAttention"]
    return [tuple(_in_few_bits(node.input_value(each)) for each in range(3)) for node in found]


def _in_few_bits(value: Any) -> bool:
    """Whether a value is quantized where it is computed or where its shape changes."""
    node = value.get_node()
    while node.get_type_name() in ("Transpose", "Reshape", "Unsqueeze"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "FakeQuantize")
