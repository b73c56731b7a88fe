"""Which steps of a drawing show the few partial pictures that a client asks for."""

from __future__ import annotations


def partial_images_until(index: int, total: int, count: int) -> int:
    """How many of ``count`` partial pictures are due after step ``index`` of ``total``.

    They are spread evenly: between them, and before the first and after the last, are as many steps.
    """
    return min(index * (count + 1) // total, count)


def is_due(index: int, total: int, count: int) -> bool:
    """Whether a partial picture is due after step ``index``, counted from 1."""
    return partial_images_until(index, total, count) > partial_images_until(index - 1, total, count)
