"""Converts pictures to arrays and back, and reads and writes files with metadata."""

from __future__ import annotations

import os
import shutil
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vinograph import picture_texts
from vinograph.errors import RequestError, ResourceError
from vinograph.files import check_writable, created, is_full, replaced
from vinograph.values import MAX_VALUES, as_array, clipped, is_array, is_tensor, reading, reason

Array = NDArray[np.float32]
Picture = TypeVar("Picture")

MAX_PIXELS = 64_000_000
READABLE = ("PNG", "JPEG", "WEBP")
"""Formats of pictures that come from others, such as uploads."""
READABLE_FILES = (*READABLE, "AVIF", "TIFF", "GIF")
"""Formats of the user's own files."""
_SPELLED = {"WEBP": "WebP"}
_MAX_PICTURES = 1000  # in a list or a batch
_WIDE_MODES = {"I": "32 bits", "F": "floats"}  # in a TIFF, whose white may then be any number
_ORIENTATION = 0x0112  # EXIF's tag
_ACCEPTED = "give a path, a PIL picture, or an array"
WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


class Size(NamedTuple):
    """Height and width, by default in pixels. As text, the width comes first: 512x256."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def size_of(picture: Image.Image) -> Size:
    """Size of a PIL picture, whose own ``size`` has the width first."""
    return Size(picture.height, picture.width)


def to_pictures(images: Array) -> list[Image.Image]:
    """Convert RGB values in [0, 1], shape [n, height, width, 3], to PIL pictures."""
    return [Image.fromarray(each) for each in (np.clip(images, 0, 1) * 255).round().astype(np.uint8)]


def read_picture(source: Any, name: str = "image", formats: Sequence[str] = READABLE_FILES) -> Image.Image:
    """Read one RGB picture from any source that :func:`read_pictures` accepts.

    A file has to be in one of PIL's ``formats``.

    Raises:
        RequestError: as in :func:`read_pictures`, or the source holds several pictures.
    """
    if isinstance(source, (str, os.PathLike)):
        return _to_rgb(open_picture(source, name, formats=formats), name, [])
    return only(read_pictures(source, name), name)


def only(pictures: Sequence[Picture], name: str) -> Picture:
    """The only picture of a list.

    Raises:
        RequestError: the list doesn't hold exactly one.
    """
    if len(pictures) != 1:
        raise RequestError(f"{name} holds {len(pictures)} pictures, and here it can only be one")
    return pictures[0]


def read_pictures(source: Any, name: str = "image", notes: list[str] | None = None) -> list[Image.Image]:
    """Read RGB pictures from a path, PIL picture, array or torch tensor, or a list of these.

    Sources mean the same as in diffusers. A file is rotated as its EXIF says; a PIL picture is not.
    Transparency is dropped. An array is [height, width, 3] or [n, height, width, 3]; a tensor is
    [3, height, width] or [n, 3, height, width]. Values are uint8, or floats in [0, 1], or floats in
    [-1, 1] if any is negative. A file's format and size are checked before its pixels are decoded.
    Of several frames, the first is taken. Warnings are appended to ``notes``.

    Raises:
        RequestError: not one of :data:`READABLE_FILES`, over 64 megapixels, damaged, or no picture
            at all.
    """
    notes = [] if notes is None else notes
    with reading(name, source):
        return [picture for each in listed(source, name) for picture in _read(each, name, notes)]


def listed(source: Any, name: str) -> Sequence[Any]:
    """The items of a list of pictures; a single picture counts as a list of one.

    Raises:
        RequestError: the list is empty, or too long.
    """
    if not isinstance(source, (list, tuple)):
        return (source,)
    if not 0 < len(source) <= _MAX_PICTURES:
        raise RequestError(f"{name} is a list of {len(source)} pictures; give 1 to {_MAX_PICTURES}")
    return source


def _read(source: Any, name: str, notes: list[str]) -> list[Image.Image]:
    if isinstance(source, (str, os.PathLike)):
        return [_to_rgb(open_picture(source, name, notes), name, notes)]
    if isinstance(source, Image.Image):
        check_picture(source, name)
        if source.getexif().get(_ORIENTATION, 1) != 1:
            notes.append(
                f"the {name}'s EXIF says to turn it, and a PIL picture is taken as it lies; "
                "give the file's path instead, or what PIL's ImageOps.exif_transpose makes of it"
            )
        return [_to_rgb(source, name, notes)]
    if is_array(source):
        return _from_array(source, name)
    raise RequestError(f"{name} is a {type(source).__name__}; {_ACCEPTED}")


def open_picture(
    source: str | os.PathLike[str],
    name: str,
    notes: list[str] | None = None,
    formats: Sequence[str] = READABLE_FILES,
) -> Image.Image:
    """Read a picture file, and rotate the picture as its EXIF says.

    Warnings are appended to ``notes``.

    Raises:
        RequestError: it is in none of PIL's ``formats``, has over 64 megapixels, or is damaged.
    """
    with reading(name, source):
        path = Path(source)
    label = f"{name}: {clipped(str(path))}"
    if not _is_file(path):
        raise RequestError(f"{name}: there is no file {clipped(str(path))}")
    with open_header(path, label, formats) as picture:
        _check_pixels(size_of(picture), label)
        _check_whole(picture, label, [] if notes is None else notes)  # looks for a second frame, so it comes first
        check_picture(picture, label)
    return _rotated(picture)


def format_of(path: Path) -> str | None:
    """PIL's name for the format of a picture file; None for anything else. No pixel is decoded."""
    if not _is_file(path):
        return None
    try:
        with open_header(path, str(path), READABLE_FILES) as picture:
            return picture.format
    except RequestError:
        return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # an invalid name, or a folder without access
        return False


def open_header(path: Path, label: str, formats: Sequence[str]) -> Image.Image:
    """A picture file with its header read, but none of its pixels.

    Raises:
        RequestError: it is in none of PIL's ``formats``, or a decompression bomb.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large sizes, which are checked later, and garbled EXIF
            return Image.open(path, formats=tuple(formats))
    except Image.DecompressionBombError as error:
        raise RequestError(f"{label} has over {MAX_PIXELS // 1_000_000} megapixels; scale it down") from error
    except MemoryError:
        raise
    except Exception as error:  # PIL's readers raise nearly anything for a garbled header
        *others, last = (_SPELLED.get(each, each) for each in formats)
        raise RequestError(f"{label} is not a {', '.join(others)} or {last} picture") from error


def _check_whole(picture: Image.Image, label: str, notes: list[str]) -> None:
    """Note further frames, and refuse pixels that a conversion to 8 bits would clip."""
    if picture.format == "TIFF" and picture.mode in _WIDE_MODES:
        raise RequestError(f"{label} has pixels in {_WIDE_MODES[picture.mode]}; save it as RGB with 8 or 16 bits")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            several = getattr(picture, "is_animated", False)
        except MemoryError:
            raise
        except Exception:  # the frame after the first is damaged
            several = False
    if several:
        notes.append(f"{label} holds several pictures; the first is taken")


def check_picture(picture: Image.Image, name: str) -> None:
    """Check the size of a PIL picture, then decode its pixels, which PIL does lazily.

    Raises:
        RequestError: it has no pixels, or too many, or is damaged.
    """
    _check_pixels(size_of(picture), name)
    if picture.mode == "LAB":  # which PIL can't convert
        raise RequestError(f"{name} has pixels in L*a*b* colours; save it as RGB with 8 or 16 bits")
    with _undamaged(name):
        picture.load()


@contextmanager
def _undamaged(name: str) -> Iterator[None]:
    """Report a damaged picture for any exception in the block: PIL's readers raise many kinds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:
            raise RequestError(f"{name} is damaged: {reason(error)}") from error


def _check_pixels(size: Size, name: str) -> None:
    if 0 in size:
        raise RequestError(f"{name} is {size}: it has no pixels")
    if size.height * size.width > MAX_PIXELS:
        raise RequestError(f"{name} is {size}, over {MAX_PIXELS // 1_000_000} megapixels; scale it down first")


def _to_rgb(picture: Image.Image, name: str, notes: list[str]) -> Image.Image:
    with _undamaged(name):
        if picture.mode.startswith("I;16"):  # 16-bit grey, which PIL would clip to 8 bits, not scale
            return Image.fromarray((np.asarray(picture) // 257).astype(np.uint8)).convert("RGB")
        straight = picture.convert("LA") if picture.mode == "La" else picture
        if _is_transparent(straight):
            notes.append(f"the {name} is transparent in places; the colours that lie under it there were taken")
        return straight.convert("RGB")


def _is_transparent(picture: Image.Image) -> bool:
    """Whether any pixel is transparent; False if PIL can't read the transparency."""
    if not picture.has_transparency_data:
        return False
    try:
        return picture.convert("RGBA").getchannel("A").getextrema()[0] != 255
    except MemoryError:
        raise
    except Exception:  # invalid transparency data, which is dropped anyway
        return False


def _rotated(picture: Image.Image) -> Image.Image:
    """The picture rotated as its EXIF says; unchanged if the EXIF is garbled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ImageOps.exif_transpose(picture)
        except (SyntaxError, ValueError, TypeError, struct.error):
            return picture


def _from_array(source: Any, name: str) -> list[Image.Image]:
    array, tensor = as_array(source), is_tensor(source)
    values = array[None] if array.ndim == 3 else array
    if tensor and values.ndim == 4:
        values = values.transpose(0, 2, 3, 1)
    if values.ndim != 4 or values.shape[3] != 3 or 0 in values.shape:
        wanted = (
            "[3, height, width] or [n, 3, height, width]" if tensor else "[height, width, 3] or [n, height, width, 3]"
        )
        raise RequestError(f"{name} has shape {array.shape}; give {wanted}")
    _check_pixels(Size(*values.shape[1:3]), name)
    if len(values) > _MAX_PICTURES or values.size > MAX_VALUES:
        raise RequestError(
            f"{name} has shape {array.shape}; give at most {_MAX_PICTURES} pictures and {MAX_VALUES:,} numbers"
        )
    if values.dtype == np.uint8:
        return [Image.fromarray(np.ascontiguousarray(each)) for each in values]
    wanted = f"{name} is an array of {values.dtype}; give uint8, or floats within [0, 1] or [-1, 1]"
    if not np.issubdtype(values.dtype, np.floating):
        raise RequestError(wanted)
    lowest = -1 if np.any(values < 0) else 0
    if not np.all((values >= lowest) & (values <= 1)):
        raise RequestError(wanted)
    values = values.astype(np.float32)
    return to_pictures(values * np.float32(0.5) + np.float32(0.5) if lowest else values)


def to_array(picture: Image.Image) -> Array:
    """RGB values in [0, 1], shape [1, 3, height, width]."""
    values = np.asarray(picture, np.float32) / np.float32(255)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def resize(picture: Image.Image, size: Size) -> Image.Image:
    """Resize the picture with a Lanczos filter, unless it has that size already."""
    if size_of(picture) == size:
        return picture
    return picture.resize((size.width, size.height), Image.Resampling.LANCZOS)


def psnr(one: NDArray[Any], other: NDArray[Any]) -> float:
    """PSNR in decibels of two pictures with values in [0, 1]; infinite if they are equal."""
    error = float(np.mean((np.asarray(one, np.float64) - np.asarray(other, np.float64)) ** 2))
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def check_output(path: Path) -> None:
    """Check that a picture can be written to ``path``, before any is drawn.

    Raises:
        RequestError: the folder is missing or not writable, the path is a directory, or the ending
            is unknown.
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
    with _explained(path):
        check_writable(path)


def save(
    picture: Image.Image,
    path: Path,
    metadata: Mapping[str, Any] | None = None,
    parameters: str | None = None,
    *,
    replace: bool = True,
) -> None:
    """Write a picture atomically, with the texts ``metadata`` and ``parameters``.

    They are stored as :mod:`vinograph.picture_texts` says.

    Raises:
        RequestError: the file can't be written.
        ResourceError: the disk is full.
        FileExistsError: there is such a file, and ``replace`` is False.
    """
    check_output(path)
    kind = WRITABLE[path.suffix.lower()]
    options: dict[str, Any] = {"quality": 95} if kind != "PNG" else {}
    options |= picture_texts.save_options(kind, metadata, parameters)
    size = picture.width * picture.height * len(picture.getbands())
    with _explained(path, f"up to {size:,} bytes are needed"), (replaced if replace else created)(path) as temporary:
        picture.save(temporary, kind, **options)


@contextmanager
def _explained(path: Path, needed: str = "nothing fits") -> Iterator[None]:
    """Turn a failure to write ``path`` in the block into an error that explains it."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        reason = f"output {path} can't be written: {error.strerror or error}"
        if not is_full(error):
            raise RequestError(reason) from error
        raise ResourceError(f"{reason}; {needed}, {shutil.disk_usage(path.parent).free:,} are free") from error


def read_metadata(path: Path) -> dict[str, Any] | None:
    """Metadata that :func:`save` wrote into a picture; None if the file has none that is valid."""
    with Image.open(path) as picture:
        return picture_texts.own_metadata(picture)
