"""Memory of mapped files: which ranges there are, and that few pages gather while many are read."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from mmap import PAGESIZE
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from vinograph.resources import child_environment, memory_shared
from vinograph.runtime import pages
from vinograph.runtime.mappings import file_ranges
from vinograph.runtime.pages import mapped_ranges, release_pages, releasing
from vinograph.runtime.scratch import LastingScratch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pages are released on Linux alone")

MOST_HELD = 8 << 20  # bytes: little, so that the test's own process stays small
SIZE = 4 * MOST_HELD
PIECE = MOST_HELD // 8


@pytest.fixture(autouse=True)
def _few_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_HELD", MOST_HELD)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    with path.open("wb") as opened:
        for value in range(SIZE // PIECE):
            opened.write(bytes([value]) * PIECE)
    return path


def range_of(array: NDArray[np.uint8]) -> tuple[int, int]:
    """The addresses of an array, which begins and ends with a page."""
    assert array.ctypes.data % PAGESIZE == array.size % PAGESIZE == 0
    return array.ctypes.data, array.ctypes.data + array.size


def read(array: NDArray[np.uint8]) -> Iterator[int]:
    """The first byte of each piece, after all of the piece was read."""
    for begin in range(0, array.size, PIECE):
        assert array[begin : begin + PIECE].max() == array[begin]
        yield int(array[begin])


def resident(file: Path) -> int:
    """Bytes of a file's mappings that are in this process's memory."""
    maps = Path("/proc/self/smaps").read_text(encoding="utf-8")
    return sum(int(each.split("Rss:")[1].split()[0]) * 1024 for each in maps.split(str(file))[1:])


def span(array: NDArray[np.uint8]) -> tuple[int, int]:
    return array.ctypes.data, array.nbytes


class TestRanges:
    @pytest.mark.parametrize("mode", ["r", "c"])
    def test_all_of_a_file(self, file: Path, mode: Literal["r", "c"]) -> None:
        mapped = np.memmap(file, np.uint8, mode)
        assert mapped_ranges(file) == {range_of(mapped)}
        assert file_ranges([span(mapped)]) == [range_of(mapped)]

    def test_whole_pages_of_a_part(self, file: Path) -> None:
        mapped = np.memmap(file, np.uint8, "r")
        parts = [mapped[1 : PAGESIZE * 3 + 1], mapped[-PAGESIZE - 1 :], mapped[5:PAGESIZE], mapped[:0]]
        begin, end = range_of(mapped)
        assert file_ranges(map(span, parts)) == [(begin + PAGESIZE, begin + PAGESIZE * 3), (end - PAGESIZE, end)]

    def test_each_mapping_of_a_file(self, file: Path) -> None:
        first, second = (np.memmap(file, np.uint8, "r") for _ in range(2))
        assert mapped_ranges(file) == {range_of(first), range_of(second)}

    def test_an_array_in_a_file_without_a_name(self, tmp_path: Path) -> None:
        place = LastingScratch([tmp_path], "test").room((SIZE,), np.dtype(np.uint8))
        place.write(0, np.ones(SIZE, np.uint8))
        assert file_ranges([span(place.array)]) == [range_of(place.array)]

    def test_no_memory_that_would_be_lost(self, file: Path) -> None:
        changed = np.memmap(file, np.uint8, "c")
        changed[MOST_HELD] = 255
        assert file_ranges([span(changed), span(np.ones(SIZE, np.uint8))]) == []


class TestReleasing:
    def test_few_pages_gather_and_none_are_lost(self, file: Path) -> None:
        mapped = np.memmap(file, np.uint8, "r")
        ranges, before = file_ranges([span(mapped)]), memory_shared()
        with releasing(ranges):
            for index, value in enumerate(read(mapped)):
                assert value == index
                wait_until(lambda: memory_shared() - before < 2 * MOST_HELD)
        assert [*read(mapped)] == [*range(SIZE // PIECE)]

    def test_nothing_is_released_while_few_are_read(self, file: Path) -> None:
        mapped = np.memmap(file, np.uint8, "r")
        ranges = file_ranges([span(mapped)])
        with releasing(ranges):
            next(read(mapped))
            time.sleep(5 * pages._SECONDS)
        assert resident(file) >= PIECE

    def test_it_ends_with_the_block(self) -> None:
        with pytest.raises(KeyError), releasing(set):
            raise KeyError
        assert "release pages" not in [each.name for each in threading.enumerate()]

    def test_without_another_thread_the_block_runs_all_the_same(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_more(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", no_more)
        mapped = np.memmap(file, np.uint8, "r")
        with releasing({range_of(mapped)}):
            assert [*read(mapped)] == [*range(SIZE // PIECE)]


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait at most a minute."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_pages_of_a_file_are_released(file: Path) -> None:
    mapped = np.memmap(file, np.uint8, "r")
    before = [*read(mapped)]
    assert resident(file) > SIZE // 2
    release_pages(file)
    assert resident(file) == 0
    assert [*read(mapped)] == before


_COMPILING = """
import os, sys
from pathlib import Path
import numpy as np
from vinograph.benchmark.memory import Peaks, measure_peaks
from vinograph.runtime import exports
from vinograph.runtime.half import widened
from vinograph.runtime.cache import Cache
from vinograph.runtime.sessions import Session
from vinograph.runtime.sources import IrFile
from vinograph.runtime.tuning import CacheKey

exports._WORTHWHILE_SECONDS = 0.0
xml, low_bit_weights = Path(sys.argv[1]), sys.argv[2] == "with weights"
key = CacheKey("layers", "layers", "contents", low_bit_weights, Cache())
widened(np.ones(1 << 16, np.float16))  # OpenVINO loads the CPU's libraries
session, before = Session(IrFile("layers", xml), "CPU", "f32", key), Peaks()
before.sample(Path("/proc/self/status"))
with measure_peaks(os.getpid()) as peaks:
    session._compiled_for({"x": (1, 2048)})
    session.save_pending()
print(peaks.resident - before.resident, peaks.mapped - before.mapped)
"""


LAYERS, SIDE = 24, 2048
WEIGHTS = 4 * LAYERS * SIDE**2
_SAVING = f"""
import sys
import numpy as np
import openvino as ov
from openvino import opset13 as opset

weight = np.random.default_rng(0).standard_normal(({SIDE}, {SIDE}), np.float32) / {SIDE}
hidden = x = opset.parameter([-1, {SIDE}], ov.Type.f32)
x.output(0).get_tensor().set_names({{"x"}})
for layer in range({LAYERS}):
    hidden = opset.tanh(opset.matmul(hidden, opset.constant(weight + np.float32(layer)), False, False))
ov.save_model(ov.Model([opset.result(hidden)], [x], "layers"), sys.argv[1], compress_to_fp16=False)
"""


@pytest.fixture(scope="module")
def xml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain of linear layers, made by a process of its own: it takes a gigabyte."""
    file = tmp_path_factory.mktemp("layers") / "layers.xml"
    subprocess.run([sys.executable, "-c", _SAVING, str(file)], check=True, env=child_environment())
    return file


class TestCompiling:
    """A component has its weights in memory once while it is compiled, or read from the cache."""

    @pytest.mark.parametrize("form", ["without weights", "with weights"])
    def test_memory(self, xml: Path, form: str, tmp_path: Path) -> None:
        """A busy machine can hold up the thread that releases pages, so three runs may try."""
        for attempt in range(3):
            folder = tmp_path / str(attempt)
            measured = [self._growth(xml, form, folder) for _ in ("compiled", "read from the cache")]
            if all(resident < 1.5 * WEIGHTS and mapped < WEIGHTS / 2 for resident, mapped, _ in measured):
                break
        else:
            pytest.fail(f"more bytes are resident, or of them mapped, than {WEIGHTS} of weights allow: {measured}")
        compiled, loaded = (sizes for *_, sizes in measured)
        assert compiled == loaded
        assert (compiled[0] > WEIGHTS) == (form == "with weights")

    def _growth(self, xml: Path, form: str, cache: Path) -> tuple[int, int, list[int]]:
        """Bytes that a process gets resident, and mapped, and the sizes of the files in its cache."""
        variables = {**child_environment(), "VINOGRAPH_CACHE": str(cache), "VINOGRAPH_CACHE_LIMIT": "2GB"}
        command = [sys.executable, "-c", _COMPILING, str(xml), form]
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=variables).stdout
        resident, mapped = map(int, output.split())
        return resident, mapped, [file.stat().st_size for file in cache.rglob("*.blob")]
