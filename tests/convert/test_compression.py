"""PixArt's text encoder in int8 and int4: its error and its size. Other families in int8."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino as ov
import pytest
import torch
from numpy.typing import NDArray
from openvino import opset13 as opset

from benchmarks.full_size import network
from benchmarks.published_configs import T5_XXL
from tests.checkpoints import SDXL_TINY, PixArtShape, SavedPixArt, save_pixart, save_sdxl
from vinograph.convert import compression, convert
from vinograph.convert.compression import compress
from vinograph.errors import RequestError
from vinograph.models.bundle import Bundle
from vinograph.runtime.scratch import Scratch
from vinograph.runtime.sessions import Session
from vinograph.runtime.sources import IrFile

Array = NDArray[np.float32]

SHAPE = PixArtShape(text_width=64, text_heads=(4, 16), text_layers=2, vae_widths=(4, 4, 4, 4))
LAYER = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")
# Shares of the hidden states' norm: what rounding the weights costs, and what computing with them
# in bf16, or in int8 as OpenVINO does, costs more. The weights here are normally distributed: 4
# bits cost each product a tenth.
LOST = {"int8": 0.06, "int4": 0.6}
COMPUTED = 0.06
LARGEST_HALF = 65504.0


@dataclass(frozen=True)
class Compressed:
    """A checkpoint and its bundles, by the storage of the text encoder."""

    saved: SavedPixArt
    bundles: Mapping[str, Bundle]

    def hidden(self, weights: str, precision: str) -> Array:
        """The text encoder's hidden states for a text of 30 tokens."""
        session = Session(
            IrFile("text_encoder", self.bundles[weights].path / "text_encoder.xml", f16_safe=False), "CPU", precision
        )
        return session({"input_ids": self.ids.numpy(), "attention_mask": np.ones((1, 30), np.int64)})["hidden_states"]

    @property
    def ids(self) -> torch.Tensor:
        return torch.arange(3, 33)[None]


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Compressed:
    """Its feed-forward layers exceed half precision, as the published ones do."""
    folder = tmp_path_factory.mktemp("compressed")
    saved = save_pixart(folder, SHAPE)
    encoder: Any = saved.models.text_encoder
    with torch.no_grad():
        for block in encoder.encoder.block:
            block.layer[0].SelfAttention.q.weight.mul_(0.25)  # or else attention goes over to other tokens
            block.layer[1].DenseReluDense.wo.weight.mul_(1e5)
    encoder.save_pretrained(saved.home / "text_encoder")
    storage: tuple[Literal["f16", "int8", "int4"], ...] = ("f16", "int8", "int4")
    return Compressed(saved, {each: convert(saved.home, folder / each, weights=each) for each in storage})


def rounded(matrix: torch.Tensor, weights: str, group: int) -> torch.Tensor:
    """A matrix with its values rounded to that storage."""
    if weights == "int8":
        low, high = matrix.amin(1, keepdim=True).clamp(max=0), matrix.amax(1, keepdim=True).clamp(min=0)
        scale = ((high - low) / 255).half().float()
        zero = (-low / scale).round()
        return ((matrix / scale).round() + zero).clamp(0, 255).sub(zero) * scale
    grouped = matrix.reshape(len(matrix), -1, group)
    largest = grouped.gather(2, grouped.abs().argmax(2, keepdim=True))
    scale = (-largest / 8).half().float()
    return ((grouped / scale).round().clamp(-8, 7) * scale).reshape(matrix.shape)


@pytest.mark.parametrize("weights", LOST)
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_the_error_of_compression(compressed: Compressed, weights: str, precision: str) -> None:
    """The error is that of rounding the weights, also where half precision would overflow."""
    encoder: Any = copy.deepcopy(compressed.saved.models.text_encoder)
    largest = 0.0

    def look(_module: object, _inputs: object, output: torch.Tensor) -> None:
        nonlocal largest
        largest = max(largest, float(output.abs().max()))

    for block in encoder.encoder.block:
        block.layer[1].DenseReluDense.wo.register_forward_hook(look)
    with torch.no_grad():
        exact = encoder(compressed.ids).last_hidden_state.numpy()
        for name, matrix in encoder.named_parameters():
            if matrix.dim() == 2 and "relative" not in name:
                group = compression.TABLE_GROUP if name.startswith("shared") else SHAPE.text_width
                matrix.copy_(rounded(matrix.half().float(), weights, group))
        expected = encoder(compressed.ids).last_hidden_state.numpy()
    assert largest > LARGEST_HALF
    ours = compressed.hidden(weights, precision)
    assert np.linalg.norm(ours - expected) / np.linalg.norm(expected) < COMPUTED
    lost = np.linalg.norm(ours - exact) / np.linalg.norm(exact)
    assert 0 < lost < LOST[weights], f"{lost:.1%}"


@pytest.mark.parametrize(("weights", "kind"), [("int8", "u8"), ("int4", "i4")])
def test_matrices_stay_compressed_where_they_are_multiplied_by(compressed: Compressed, weights: str, kind: str) -> None:
    """OpenVINO's CPU has no copies of them in another type, in the graph that it runs."""
    core = ov.Core()
    model = core.read_model(compressed.bundles[weights].path / "text_encoder.xml")
    model.reshape({"input_ids": [1, 30], "attention_mask": [1, 30]})
    running = core.compile_model(model, "CPU").get_runtime_model()
    kinds: Counter[str] = Counter()
    for node in running.get_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) == "Const" and np.prod(node.get_output_shape(0)) >= 64 * 64:
            kinds[info["outputPrecisions"].astype(str)] += 1
    assert kinds[kind] >= len(LAYER) * SHAPE.text_layers + 1
    assert kinds.keys() & {"f32", "f16", "bf16"} == set()


def test_the_manifest_names_the_storage(compressed: Compressed) -> None:
    for weights, bundle in compressed.bundles.items():
        stored = {name: component.weights for name, component in bundle.manifest.components.items()}
        assert stored.pop("text_encoder") == weights
        assert set(stored.values()) == {"f16"}
        assert not bundle.manifest.components["text_encoder"].f16_safe
    sizes = [bundle.manifest.files["text_encoder.bin"].size for bundle in compressed.bundles.values()]
    assert sizes[0] > 1.6 * sizes[1] > 2.4 * sizes[2]


def test_converting_again_gives_the_same(compressed: Compressed, tmp_path: Path) -> None:
    before = compressed.bundles["int4"]
    again = convert(compressed.saved.home, tmp_path / before.path.name, weights="int4")
    assert again.manifest.files == before.manifest.files


def test_nothing_is_left_beside_the_bundle(compressed: Compressed) -> None:
    home = compressed.bundles["int4"].path
    assert {each.name for each in home.parent.iterdir()} == {"pixart", "taesd", "f16", "int8", "int4"}


def test_the_published_text_encoder_is_a_quarter_in_int4() -> None:
    matrices = [each.shape for each in network("T5EncoderModel", T5_XXL).parameters() if each.dim() == 2]
    half = small = 0.0
    for rows, width in matrices:
        half += 2 * rows * width
        most = compression.TABLE_GROUP if rows == T5_XXL["vocab_size"] else compression.GROUP
        small += rows * width / 2 + 2 * rows * width / compression.group_size(width, most)
    assert half / small > 3.9


def _product(weight: Array, weights: str) -> Array:
    """A matrix [out, in] as a graph has it after it was compressed, restored in f32."""
    x = ov.op.Parameter(ov.Type.f32, ov.PartialShape([-1, weight.shape[1]]))
    product = opset.matmul(x, opset.constant(weight), False, True)
    model = ov.Model([opset.result(product)], [x], "product")
    arrays: list[object] = []

    def keep(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        arrays.append(array)
        return array

    compress(model, weights, keep)
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    compiled_result: Array = compiled(np.eye(weight.shape[1], dtype=np.float32))[0].T
    return compiled_result


@pytest.mark.parametrize("shape", [(3, 5), (1025, 20), (2050, 48), (7, 512)])
@pytest.mark.parametrize(("weights", "levels"), [("int8", 255), ("int4", 15)])
def test_every_value_is_within_half_a_step(shape: tuple[int, int], weights: str, levels: int) -> None:
    """Nibbles, groups and blocks of rows are in their places for all numbers of rows."""
    weight = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    weight[0] = 0
    restored = _product(weight, weights)
    assert np.abs(restored - weight).max() < 1.1 * 2 / levels
    assert not restored[0].any()


def test_arrays_of_a_scratch_file(tmp_path: Path) -> None:
    """The file has no name in the folder, and its arrays can be read when it is closed."""
    rng = np.random.default_rng(2)
    arrays: list[NDArray[Any]] = [
        rng.standard_normal((3, 5), np.float32),
        rng.standard_normal((1000, 7)).astype(np.float16),
        np.ones((1, 1)),
    ]
    bytes_ = rng.integers(0, 256, 77, np.uint8)
    with Scratch(tmp_path) as scratch:
        rooms = [scratch.allocate(each.shape, each.dtype) for each in arrays]
        array = scratch.keep(bytes_)
        for room, each in zip(rooms, arrays, strict=True):
            room[...] = each
        assert scratch.allocate((0, 3), np.dtype(np.float32)).shape == (0, 3)
        assert not list(tmp_path.iterdir())
    for room, each in zip(rooms, arrays, strict=True):
        np.testing.assert_array_equal(room, each, strict=True)
    np.testing.assert_array_equal(array, bytes_, strict=True)


def test_other_families_are_stored_in_int8_alone(tmp_path: Path) -> None:
    """That holds for text encoders and denoisers, and not for autoencoders."""
    saved = save_sdxl(tmp_path, SDXL_TINY)
    with pytest.raises(RequestError, match="weights is 'int4'; give one of f16, f32, int8 for sdxl models"):
        convert(saved.home, tmp_path / "bundle", weights="int4")
    bundle, core = convert(saved.home, tmp_path / "bundle", weights="int8"), ov.Core()
    kinds = {
        name: {node.get_output_element_type(0).get_type_name() for node in core.read_model(file).get_ops()}
        for name, component in bundle.manifest.components.items()
        for file in [bundle.path / component.file]
    }
    assert {name for name, found in kinds.items() if "u8" in found} == {"text_encoder", "text_encoder_2", "unet"}
    assert bundle.manifest.components["text_encoder"].weights == "int8"
    assert bundle.manifest.components["vae_decoder"].weights == "f16"
