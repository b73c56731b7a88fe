"""Arrays to pictures and back: sizes, files, and the metadata in them."""

from __future__ import annotations

import json
import os
import shutil
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from vinograph import strict_json
from vinograph.errors import RequestError, ResourceError
from vinograph.files import beside, is_full, replaced

Array = NDArray[np.float32]

MAX_PIXELS = 64_000_000
READABLE = ("PNG", "JPEG", "WEBP")
WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def to_pictures(images: Array) -> list[Image.Image]:
    """Pictures from RGB values in [0, 1], shape [n, height, width, 3]."""
    return [Image.fromarray(each) for each in (np.clip(images, 0, 1) * 255).round().astype(np.uint8)]


def read_picture(source: Any, name: str = "image") -> Image.Image:
    """An upright RGB picture from a path, a PIL picture, or an array.

    An array is [height, width, 3], uint8 or float in [0, 1]. A file's format and size are checked before any
    pixel is decoded; EXIF rotation is honoured; transparency is laid on white.

    Raises:
        RequestError: not a PNG, JPEG or WebP, over 64 megapixels, damaged, or no picture at all.
    """
    if isinstance(source, (str, os.PathLike)):
        return _upright(_open(Path(source), name))
    if isinstance(source, Image.Image):
        _check_pixels(source.size, name)
        _decode(source, name)
        return _upright(source)
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    raise RequestError(f"{name} is a {type(source).__name__}; give a path, a PIL picture, or an array")


def _open(path: Path, name: str) -> Image.Image:
    if not path.is_file():
        raise RequestError(f"{name}: there is no file {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a size that the limit below refuses, and of garbled EXIF
            picture = Image.open(path, formats=READABLE)
    except Image.DecompressionBombError as error:
        raise RequestError(f"{name}: {path} has over {MAX_PIXELS // 1_000_000} megapixels; scale it down") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise RequestError(f"{name}: {path} is not a PNG, JPEG or WebP picture") from error
    with picture:
        _check_pixels(picture.size, f"{name}: {path}")
        _decode(picture, f"{name}: {path}")
    return picture


def _decode(picture: Image.Image, name: str) -> None:
    """Decode the pixels, which PIL otherwise puts off until they are used."""
    try:
        picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise RequestError(f"{name} is damaged: {error}") from error


def _check_pixels(size: tuple[int, int], name: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise RequestError(
            f"{name} is {size[0]}x{size[1]}, over {MAX_PIXELS // 1_000_000} megapixels; scale it down first"
        )


def _upright(picture: Image.Image) -> Image.Image:
    turned = _turned(picture)
    if turned.mode.startswith("I;16"):  # sixteen bits of grey, which PIL would clip to eight and not scale
        return Image.fromarray((np.asarray(turned) // 257).astype(np.uint8)).convert("RGB")
    if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
        layered = turned.convert("RGBA")
        paper = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(paper, layered).convert("RGB")
    return turned.convert("RGB")


def _turned(picture: Image.Image) -> Image.Image:
    """The picture as its EXIF says to hold it; where the EXIF is garbled, as it lies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ImageOps.exif_transpose(picture)
        except (SyntaxError, ValueError, TypeError, struct.error):
            return picture


def _from_array(array: NDArray[Any], name: str) -> Image.Image:
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise RequestError(f"{name} has shape {array.shape}; give [height, width, 3]")
    _check_pixels((array.shape[1], array.shape[0]), name)
    if array.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(array))
    if not np.issubdtype(array.dtype, np.floating) or not np.all((array >= 0) & (array <= 1)):
        raise RequestError(f"{name} is an array of {array.dtype}; give uint8, or floats within [0, 1]")
    return to_pictures(array[None].astype(np.float32))[0]


def to_array(picture: Image.Image) -> Array:
    """RGB values in [0, 1], shape [1, 3, height, width]."""
    values = np.asarray(picture, np.float32) / np.float32(255)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def resize(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture at another size, by Lanczos."""
    if picture.size == (width, height):
        return picture
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def psnr(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in decibels of two pictures with values in [0, 1]; infinite if they are equal."""
    error = float(np.mean((np.asarray(one, np.float64) - np.asarray(other, np.float64)) ** 2))
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def check_output(path: Path) -> None:
    """Check, before any drawing, that a picture can be written to ``path``.

    Raises:
        RequestError: the folder is missing or not writable, the path is a directory, or the ending is unknown.
    """
    if path.suffix.lower() not in WRITABLE:
        raise RequestError(f"output {path}: end the name in one of {', '.join(WRITABLE)}")
    if path.is_dir():
        raise RequestError(f"output {path} is a directory; name a file in it")
    folder = path.parent
    if not folder.is_dir():
        raise RequestError(f"output {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise RequestError(f"output {path} can't be written: no permission")
    with _explained(path), beside(path) as temporary:
        temporary.touch()


def save(picture: Image.Image, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a picture under a temporary name and rename it. A PNG carries ``metadata`` as text.

    Raises:
        RequestError: the file can't be written.
        ResourceError: the disk is full.
    """
    check_output(path)
    kind = WRITABLE[path.suffix.lower()]
    options: dict[str, Any] = {"quality": 95} if kind != "PNG" else {}
    if kind == "PNG" and metadata is not None:
        text = PngImagePlugin.PngInfo()
        text.add_itxt("vinograph", json.dumps(metadata, ensure_ascii=False, sort_keys=True))
        options["pnginfo"] = text
    size = picture.width * picture.height * len(picture.getbands())
    with _explained(path, f"up to {size:,} bytes are needed"), replaced(path) as temporary:
        picture.save(temporary, kind, **options)


@contextmanager
def _explained(path: Path, needed: str = "nothing fits") -> Iterator[None]:
    """Say of what fails in the block why ``path`` can't be written."""
    try:
        yield
    except OSError as error:
        reason = f"output {path} can't be written: {error.strerror or error}"
        if not is_full(error):
            raise RequestError(reason) from error
        raise ResourceError(f"{reason}; {needed}, {shutil.disk_usage(path.parent).free:,} are free") from error


def read_metadata(path: Path) -> dict[str, Any] | None:
    """What :func:`save` wrote into a PNG; None where there is nothing, or nothing that it could have written."""
    with Image.open(path) as picture:
        text = picture.info.get("vinograph")
    try:
        return strict_json.parse_object(text) if isinstance(text, str) else None
    except strict_json.JsonError:
        return None
