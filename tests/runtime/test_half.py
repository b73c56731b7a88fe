"""f16 to f32 and back: bit for bit as NumPy converts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vinograph.runtime.half import convert, widened


def test_every_f16_becomes_its_value() -> None:
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    found, expected = widened(values), values.astype(np.float32)
    assert np.array_equal(found, expected, equal_nan=True)


def test_values_are_rounded_to_even_and_small_ones_stay() -> None:
    """All f16, the middles between them, and the f32 next to each middle."""
    values = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (values[:-1] + values[1:]) / 2
    near = [np.nextafter(middles, np.float32(each)) for each in (-np.inf, np.inf)]
    every = np.concatenate([values, middles, *near, np.array([1e-40, 1e-10], np.float32)])
    every = np.concatenate([every, -every])
    found = np.empty(every.shape, np.float16)
    convert(every, found)
    assert found.tobytes() == every.astype(np.float16).tobytes()


@pytest.mark.parametrize("size", [0, 3, 1 << 15])
def test_arrays_that_may_not_be_changed(size: int) -> None:
    """Of every size, and also in pieces that aren't contiguous."""
    values = np.linspace(-1, 1, 2 * size).astype(np.float16).reshape(-1, 2)
    values.flags.writeable = False
    for each in (values, values[:, 0]):
        assert np.array_equal(widened(each), each.astype(np.float32))


def test_threads_convert_at_once() -> None:
    values = [np.full(1 << 17, each, np.float16) for each in range(40)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(widened, values))
    assert all((each == index).all() for index, each in enumerate(found))
