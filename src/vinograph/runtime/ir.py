"""OpenVINO IR on disk: written whole, or an error that says the disk is full."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import openvino as ov


def save(model: ov.Model, file: Path) -> None:
    """Write ``model`` to ``file`` (.xml) and its .bin, with weights stored as they are.

    OpenVINO's writer says "iostream error" when the disk is full, or nothing, so the files are checked.

    Raises:
        OSError: the disk is full.
    """
    try:
        ov.save_model(model, file, compress_to_fp16=False)
    except RuntimeError as error:
        if "iostream" not in str(error):
            raise
        raise _full(file) from error
    if not _is_whole(file):
        raise _full(file)


def _is_whole(file: Path) -> bool:
    """Whether the .xml has its end, and the .bin all weights that the .xml refers to."""
    xml = file.read_text(encoding="utf-8")
    ends = [int(offset) + int(size) for offset, size in re.findall(r' offset="(\d+)" size="(\d+)"', xml)]
    return xml.rstrip().endswith("</net>") and file.with_suffix(".bin").stat().st_size >= max(ends, default=0)


def _full(file: Path) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
