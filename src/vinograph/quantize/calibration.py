"""Collecting samples: the inputs of a bundle's components while it draws, stored on the disk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.models.bundle import Bundle
from vinograph.models.bundle_writer import BundleWriter
from vinograph.pipeline import Pipeline, observe_inputs
from vinograph.tune import native_size

SAMPLES = 16  # that a component is calibrated with
_MOST_OF_ONE_PICTURE = 8
# Every other picture of a model that draws in fewer steps is drawn in so many, because people do
# that, too.
_STEPS = 4
PROMPTS = Path(__file__).with_name("prompts.txt")

Inputs = Mapping[str, NDArray[Any]]


def read_prompts(file: Path) -> tuple[str, ...]:
    """The lines of ``file`` that are not blank.

    Raises:
        RequestError: there are none, or the file is no text in UTF-8.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"the prompts in {file} can't be read: {error}") from error
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise RequestError(f"{file} has no prompts: give a text file with one on each line")
    return prompts


def picture_count(pipe: Pipeline) -> int:
    """The number of pictures to draw: more with a model that takes fewer steps."""
    return SAMPLES // min(_steps(pipe), _MOST_OF_ONE_PICTURE)


def _steps(pipe: Pipeline) -> int:
    return int(pipe.calls["generate"].takes[pipe.options["steps"]])


def collect_samples(
    bundle: Bundle,
    names: Collection[str],
    prompts: Sequence[str],
    folder: Path,
    writer: BundleWriter,
    progress: Callable[[str, int, int], None],
) -> int:
    """Draw with ``bundle`` and store inputs of the components ``names``, except of finished ones.

    Samples that an interrupted quantization has stored are not made again. Sample *i* of a
    component is ``folder / component / i.npz``. Pictures have the bundle's native size. Returns the
    number of prompts that were drawn.
    """
    pipe = Pipeline(bundle, memory="low")
    pictures, steps = picture_count(pipe), _steps(pipe)
    share = SAMPLES // pictures
    for index in range(pictures):
        progress("pictures to calibrate with", index, pictures)
        wanted = [name for name in names if writer.done(name) is None and writer.done(_step(index, name)) is None]
        if not wanted:
            continue
        settings: dict[str, Any] = {**native_size(bundle), "seed": index, "output_type": "latent"}
        if steps < _STEPS and index % 2:
            settings[pipe.options["steps"]] = _STEPS
        seen: dict[str, list[Inputs]] = {name: [] for name in wanted}

        def note(name: str, inputs: Inputs, seen: dict[str, list[Inputs]] = seen) -> None:
            if name in seen:
                seen[name].append(inputs)

        with observe_inputs(pipe, note):
            pipe(prompts[index % len(prompts)], **settings)
        for name, calls in seen.items():
            writer.mark_done(_step(index, name), True, _save_samples(calls, share, index, folder / name))
    progress("pictures to calibrate with", pictures, pictures)
    return min(pictures, len(prompts))


def _step(index: int, name: str) -> str:
    """The name under which a component's samples of a picture are recorded as done."""
    return f"{name}, samples of picture {index}"


def _save_samples(calls: Sequence[Inputs], share: int, index: int, folder: Path) -> list[Path]:
    """Store ``share`` of a picture's steps, evenly spaced, and others for each picture.

    Returns the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = min(share, len(calls))
    shift = index * 0.618 % 1  # the golden section: multiples of it are spread evenly
    files = [folder / f"{index * share + which}.npz" for which in range(count)]
    for which, file in enumerate(files):
        inputs = calls[int((which + shift) * len(calls) / count)]
        np.savez(file, allow_pickle=False, **inputs)
    return files


def samples(folder: Path) -> list[Path]:
    """The files of a component's samples, in order."""
    return sorted(folder.glob("*.npz"), key=lambda file: int(file.stem))
