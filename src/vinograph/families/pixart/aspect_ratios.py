"""The sizes that diffusion transformers are trained at, and pictures resized from and to them.

The images of a training set are sorted into sizes of nearly the same area, by aspect ratio (Chen et
al., arXiv 2310.00426, after NovelAI's bucketing). A model draws best at those. The sizes are
PixArt's published ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from vinograph.errors import RequestError
from vinograph.families.contract import Array
from vinograph.families.interpolation import resized_bilinearly
from vinograph.images import Size

# From height over width, in the two decimals under which the ratio was published, to height and
# width for 1024x1024 pixels.
_OF_1024: Mapping[float, tuple[int, int]] = {
    **{0.25: (512, 2048), 0.28: (512, 1856), 0.32: (576, 1792), 0.33: (576, 1728), 0.35: (576, 1664)},
    **{0.4: (640, 1600), 0.42: (640, 1536), 0.48: (704, 1472), 0.5: (704, 1408), 0.52: (704, 1344)},
    **{0.57: (768, 1344), 0.6: (768, 1280), 0.68: (832, 1216), 0.72: (832, 1152), 0.78: (896, 1152)},
    **{0.82: (896, 1088), 0.88: (960, 1088), 0.94: (960, 1024), 1.0: (1024, 1024), 1.07: (1024, 960)},
    **{1.13: (1088, 960), 1.21: (1088, 896), 1.29: (1152, 896), 1.38: (1152, 832), 1.46: (1216, 832)},
    **{1.67: (1280, 768), 1.75: (1344, 768), 2.0: (1408, 704), 2.09: (1472, 704), 2.4: (1536, 640)},
    **{2.5: (1600, 640), 3.0: (1728, 576), 4.0: (2048, 512)},
}
# 2048x2048 pixels have these in addition.
_MORE_OF_2048: Mapping[float, tuple[int, int]] = {
    **{0.26: (1024, 3968), 0.27: (1024, 3840), 2.89: (3328, 1152), 3.11: (3584, 1152)},
    **{3.62: (3712, 1024), 3.75: (3840, 1024), 3.88: (3968, 1024)},
}


def _scaled(numerator: int, denominator: int = 1) -> dict[float, Size]:
    return {
        ratio: Size(height * numerator // denominator, width * numerator // denominator)
        for ratio, (height, width) in _OF_1024.items()
    }


# By the model's sample size, which is the side of a square picture's latents.
ASPECT_RATIOS: Mapping[int, Mapping[float, Size]] = {
    32: _scaled(1, 4),
    64: _scaled(1, 2),
    128: _scaled(1),
    256: dict(sorted({**_scaled(2), **{ratio: Size(*size) for ratio, size in _MORE_OF_2048.items()}}.items())),
}


def trained_size(size: Size, sample_size: int) -> Size:
    """The trained size whose aspect ratio is nearest to that of ``size``.

    Raises:
        RequestError: there is no table for models of that ``sample_size``.
    """
    if sample_size not in ASPECT_RATIOS:
        raise RequestError(
            f"there is no table of aspect ratios for a model of sample size {sample_size}; "
            "turn use_resolution_binning off (--resolution-binning off)"
        )
    table = ASPECT_RATIOS[sample_size]
    wanted = size.height / size.width
    return table[min(table, key=lambda ratio: abs(ratio - wanted))]


def resized_and_cropped(pictures: Array, size: Size) -> Array:
    """Resize ``pictures`` [n, channels, h, w] bilinearly to cover ``size``, and crop them to it."""
    height, width = pictures.shape[2:]
    if (height, width) == size:
        return pictures
    ratio = max(size.height / height, size.width / width)
    covering = Size(int(height * ratio), int(width * ratio))
    resized = resized_bilinearly(pictures, covering)
    top, left = (covering.height - size.height) // 2, (covering.width - size.width) // 2
    return resized[:, :, top : top + size.height, left : left + size.width]
