"""Every form of images and masks is read as diffusers' image processor reads it.

diffusers' pipelines read a PIL picture, an array or a tensor with ``VaeImageProcessor``, after
``load_image`` where it comes from a file or isn't RGB. What diffusers refuses is not in the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.loading_utils import load_image
from PIL import Image

from vinograph.families.inpainting import read_masks, resized, to_mask
from vinograph.images import Size, read_pictures, to_array

WIDTH, HEIGHT = 24, 16
ROUNDING = 2 * 0.501 / 255  # an array becomes 8-bit pixels, in a range of two


def pixels(channels: int = 3) -> Any:
    return np.random.RandomState(7).randint(0, 256, (HEIGHT, WIDTH, channels)).astype(np.uint8)


def painted() -> Any:
    """A mask with values from 0 to 255: a white block, a grey rim, and dark noise."""
    values = np.random.RandomState(3).randint(0, 3, (HEIGHT, WIDTH)).astype(np.uint8) * 40
    values[4:12, 6:18] = 255
    values[4, 6:18] = 127
    return values


def rgba(values: Any, alpha: Any) -> Image.Image:
    return Image.fromarray(np.dstack([values, alpha]).astype(np.uint8))


def on_a_transparent_layer() -> Image.Image:
    """White strokes on a transparent layer, as painting programs save it."""
    there = painted() > 200
    return rgba(np.dstack([np.where(there, 255, 0)] * 3), np.where(there, 255, 0))


def converted(values: Any, mode: str) -> Callable[[], Image.Image]:
    return lambda: Image.fromarray(values).convert(mode)


def palette(transparency: int | bytes | None) -> Image.Image:
    made = Image.fromarray(pixels()).quantize(16)
    if transparency is not None:
        made.info["transparency"] = transparency
    return made


PIL_IMAGES: dict[str, Callable[[], Image.Image]] = {
    **{mode: converted(pixels(), mode) for mode in ("1", "L", "RGB", "CMYK", "YCbCr", "HSV")},
    "LA": lambda: rgba(pixels(), pixels(1)).convert("LA"),
    "PA": lambda: rgba(pixels(), pixels(1)).convert("PA"),
    "RGBA": lambda: rgba(pixels(), pixels(1)),
    "RGBa": lambda: rgba(pixels(), pixels(1)).convert("RGBa"),
    "RGBX": lambda: Image.fromarray(pixels()).convert("RGBX"),
    "P": lambda: palette(None),
    "P with a transparent colour": lambda: palette(3),
    "P with transparent colours": lambda: palette(bytes(range(16))),
    "I": lambda: Image.fromarray(painted().astype(np.int32) * 3 - 50),
    "F": lambda: Image.fromarray(painted().astype(np.float32) * 1.5 - 20),
    "white on a transparent layer": on_a_transparent_layer,
}

PIL_MASKS: dict[str, Callable[[], Image.Image]] = {
    **{mode: converted(painted(), mode) for mode in ("1", "L", "RGB", "CMYK", "YCbCr")},
    "LA": lambda: rgba(np.dstack([painted()] * 3), pixels(1)).convert("LA"),
    "PA": lambda: rgba(np.dstack([painted()] * 3), pixels(1)).convert("PA"),
    "RGBA": lambda: rgba(np.dstack([painted()] * 3), pixels(1)),
    "RGBa": lambda: rgba(np.dstack([painted()] * 3), pixels(1)).convert("RGBa"),
    "P": lambda: Image.fromarray(painted()).convert("P"),
    "P with a transparent colour": lambda: palette(3),
    "P with transparent colours": lambda: palette(bytes(range(16))),
    "I": lambda: Image.fromarray(painted().astype(np.int32) * 3 - 50),
    "I;16": lambda: Image.fromarray(painted().astype(np.uint16) * 2),
    "F": lambda: Image.fromarray(painted().astype(np.float32) * 1.5 - 20),
    "white on a transparent layer": on_a_transparent_layer,
    "black on a transparent layer": lambda: rgba(np.zeros((HEIGHT, WIDTH, 3)), 255 - painted()),
}


def floats(kind: Any = np.float32, channels: int = 3) -> Any:
    return (pixels(channels) / 255).astype(kind)


def tensor(kind: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(floats()).permute(2, 0, 1).to(kind)


ARRAYS: dict[str, Callable[[], Any]] = {
    "array": floats,
    "array of float64": lambda: floats(np.float64),
    "array of float16": lambda: floats(np.float16),
    "array in [-1, 1]": lambda: floats() * 2 - 1,
    "array not contiguous": lambda: floats()[:, ::-1],
    "batch": lambda: np.stack([floats(), 1 - floats()]),
    "list of arrays": lambda: [floats(), 1 - floats()],
    "list of batches": lambda: [floats()[None], 1 - floats()[None]],
    "tensor": tensor,
    "tensor of float64": lambda: tensor(torch.float64),
    "tensor of float16": lambda: tensor(torch.float16),
    "tensor of bfloat16": lambda: tensor(torch.bfloat16),
    "tensor in [-1, 1]": lambda: tensor() * 2 - 1,
    "tensor with gradients": lambda: tensor().requires_grad_(),
    "batch of tensors": lambda: torch.stack([tensor(), 1 - tensor()]),
    "list of tensors": lambda: [tensor(), 1 - tensor()],
    "list of batches of tensors": lambda: [tensor()[None], 1 - tensor()[None]],
}

_HALF = np.array([[0, 0.2, 0.49, 0.5, 0.51, 1.0]] * 4, np.float32)
_ONES = np.array([[0, 1, 0, 1, 1, 0]] * 4)
MASK_ARRAYS: dict[str, Callable[[], Any]] = {
    "floats": lambda: _HALF,
    "float64": lambda: _HALF.astype(np.float64),
    "float16": lambda: _HALF.astype(np.float16),
    "floats up to 255": lambda: _HALF * 255,
    "uint8 of 0 and 1": lambda: _ONES.astype(np.uint8),
    "uint8 of 0 and 255": lambda: _ONES.astype(np.uint8) * 255,
    "uint8 of greys": lambda: (_HALF * 255).astype(np.uint8),
    "one channel": lambda: _HALF[..., None],
    "batch": lambda: np.stack([_HALF, 1 - _HALF, _HALF]),
    "batch of one channel": lambda: np.stack([_HALF, 1 - _HALF])[..., None],
    "list": lambda: [_HALF, 1 - _HALF],
    "tensor": lambda: torch.from_numpy(_HALF),
    "tensor of bfloat16": lambda: torch.from_numpy(_HALF).bfloat16(),
    "tensor of uint8": lambda: torch.from_numpy(_ONES).to(torch.uint8),
    "tensor of one channel": lambda: torch.from_numpy(_HALF)[None],
    "batch of tensors": lambda: torch.from_numpy(np.stack([_HALF, 1 - _HALF, _HALF])),
    "batch of tensors of one channel": lambda: torch.from_numpy(np.stack([_HALF, 1 - _HALF]))[:, None],
    "list of tensors": lambda: [torch.from_numpy(_HALF), torch.from_numpy(1 - _HALF)],
}

# A tensor that needs gradients, and the deprecated ranges and lists, are warned of there.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Palette images with Transparency:UserWarning")


def their_image(image: Any) -> Any:
    processor: Any = VaeImageProcessor(vae_scale_factor=8)
    return processor.preprocess(image).detach().float().numpy()


def our_image(image: Any) -> Any:
    return np.concatenate([to_array(each) for each in read_pictures(image)]) * 2 - 1


def their_mask(mask: Any, width: int, height: int) -> Any:
    processor: Any = VaeImageProcessor(
        vae_scale_factor=1, do_normalize=False, do_binarize=True, do_convert_grayscale=True
    )
    return processor.preprocess(mask, height=height, width=width).float().numpy()


def our_mask(mask: Any, width: int, height: int) -> Any:
    return np.concatenate([to_mask(resized(each, Size(height, width))) for each in read_masks(mask)])


class TestImages:
    @pytest.mark.parametrize("form", PIL_IMAGES)
    def test_pil_pictures_are_read_as_load_image_reads_them(self, form: str) -> None:
        picture = PIL_IMAGES[form]()
        np.testing.assert_allclose(our_image(picture), their_image(load_image(picture)), atol=1e-6)

    @pytest.mark.parametrize("form", ["1", "L", "LA", "P", "P with a transparent colour", "RGB", "RGBA"])
    def test_files_are_read_as_load_image_reads_them(self, form: str, tmp_path: Path) -> None:
        path = tmp_path / "picture.png"
        PIL_IMAGES[form]().save(path)
        np.testing.assert_allclose(our_image(path), their_image(load_image(str(path))), atol=1e-6)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_files_are_rotated_by_exif_as_in_diffusers(self, orientation: int, tmp_path: Path) -> None:
        path, exif = tmp_path / "picture.png", Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels()).save(path, exif=exif)
        np.testing.assert_allclose(our_image(path), their_image(load_image(str(path))), atol=1e-6)
        with Image.open(path) as opened:
            np.testing.assert_allclose(our_image(opened), their_image(opened), atol=1e-6)

    @pytest.mark.parametrize("ending", ["png", "webp"])
    def test_an_animation_is_its_first_frame(self, ending: str, tmp_path: Path) -> None:
        path, others = tmp_path / f"moving.{ending}", [Image.new("RGB", (WIDTH, HEIGHT), "blue")]
        Image.fromarray(pixels()).save(path, save_all=True, append_images=others, lossless=True)
        with Image.open(path) as opened:
            np.testing.assert_allclose(our_image(path), their_image(load_image(opened)), atol=1e-6)
        with Image.open(path) as opened:
            opened.seek(1)
            np.testing.assert_allclose(our_image(opened), their_image(load_image(opened)), atol=1e-6)

    @pytest.mark.parametrize("form", ARRAYS)
    def test_arrays_and_tensors_of_images(self, form: str) -> None:
        ours, theirs = our_image(ARRAYS[form]()), their_image(ARRAYS[form]())
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=ROUNDING)

    def test_a_list_of_pictures_is_a_batch(self) -> None:
        images = [Image.fromarray(pixels()), Image.fromarray(255 - pixels())]
        np.testing.assert_allclose(our_image(images), their_image(images), atol=1e-6)

    def test_forms_that_only_we_accept(self) -> None:
        """uint8 arrays and 16-bit grey are scaled to [0, 1], which diffusers doesn't do."""
        np.testing.assert_allclose(our_image(pixels()), their_image(Image.fromarray(pixels())), atol=1e-6)
        wide = torch.from_numpy(pixels()).permute(2, 0, 1)
        np.testing.assert_allclose(our_image(wide), their_image(Image.fromarray(pixels())), atol=1e-6)
        grey = Image.fromarray(painted().astype(np.uint16) * 257)
        np.testing.assert_allclose(our_image(grey), our_image(Image.fromarray(painted())), atol=1e-6)
        premultiplied = rgba(pixels(), np.full((HEIGHT, WIDTH), 255)).convert("LA").convert("La")
        assert our_image(premultiplied).shape == (1, 3, HEIGHT, WIDTH)


class TestMasks:
    @pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (48, 24), (16, 8)])
    @pytest.mark.parametrize("form", PIL_MASKS)
    def test_pil_masks(self, form: str, size: tuple[int, int]) -> None:
        assert np.array_equal(our_mask(PIL_MASKS[form](), *size), their_mask(PIL_MASKS[form](), *size))

    @pytest.mark.parametrize("size", [(6, 4), (12, 8), (3, 2), (5, 7)])
    @pytest.mark.parametrize("form", MASK_ARRAYS)
    def test_arrays_and_tensors_of_masks(self, form: str, size: tuple[int, int]) -> None:
        given = MASK_ARRAYS[form]
        assert np.array_equal(our_mask(given(), *size), their_mask(given(), *size))

    @pytest.mark.parametrize("size", [(6, 4), (12, 8), (5, 7)])
    def test_types_that_only_we_accept(self, size: tuple[int, int]) -> None:
        """torch can't resize booleans and wide integers; they mean what bytes of 0 and 1 do."""
        theirs = their_mask(_ONES.astype(np.uint8), *size)
        for each in (_ONES.astype(bool), _ONES.astype(np.int64), torch.from_numpy(_ONES).bool()):
            assert np.array_equal(our_mask(each, *size), theirs)

    def test_transparency_around_white_is_not_masked(self) -> None:
        mask = our_mask(on_a_transparent_layer(), WIDTH, HEIGHT)
        assert np.array_equal(mask[0, 0], (painted() > 200).astype(np.float32))

    def test_a_mask_file_is_read_as_load_image_reads_it(self, tmp_path: Path) -> None:
        path = tmp_path / "mask.png"
        on_a_transparent_layer().save(path)
        for size in ((WIDTH, HEIGHT), (48, 24)):
            assert np.array_equal(our_mask(path, *size), their_mask(load_image(str(path)), *size))
