"""Draw one sheet of a model's pictures: a row for each scheduler, a column for each number of steps.

python -m scripts.scheduler_sheet storybook-wuerstchen sheet.jpg
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from vinograph import Pipeline

STEPS = (60, 30, 20, 12, 8)
SCHEDULERS = ("", "ddim", "dpm++ 2m", "dpm++ 2m sde", "dpm++ 2m karras", "unipc")
PROMPTS = ("a red house on a snowy hill at night", "a yellow boat on the sea at sunset")
_SIDE = 112
_LABEL = 14
_MARGIN = 112


def draw(pipe: Pipeline, scheduler: str, steps: int, prompts: Sequence[str], seed: int) -> list[Image.Image]:
    """A picture of each prompt; ``scheduler`` is empty for the model's own."""
    given: dict[str, Any] = {pipe.options["steps"]: steps, "scheduler": scheduler or None}
    result = pipe(list(prompts), seed=seed, **given)
    pictures: list[Image.Image] = result.images
    return pictures


def sheet(pipe: Pipeline, schedulers: Sequence[str], prompts: Sequence[str], seed: int) -> Image.Image:
    """All pictures, with the number of steps above and the scheduler on the left."""
    width, height = len(STEPS) * len(prompts) * _SIDE, len(schedulers) * _SIDE
    whole = Image.new("RGB", (_MARGIN + width, _LABEL + height), "white")
    pen = ImageDraw.Draw(whole)
    for row, scheduler in enumerate(schedulers):
        top = _LABEL + row * _SIDE
        pen.text((4, top + _SIDE // 2 - 6), scheduler or "the model's own", fill="black")
        for column, steps in enumerate(STEPS):
            left = _MARGIN + column * len(prompts) * _SIDE
            pen.text((left + 4, 1), f"{steps} steps", fill="black")
            for place, picture in enumerate(draw(pipe, scheduler, steps, prompts, seed)):
                whole.paste(picture.resize((_SIDE, _SIDE)), (left + place * _SIDE, top))
            print(f"{scheduler or 'own'}, {steps} steps", flush=True)
    return whole


def main() -> None:
    """Read the command line and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("output", type=Path)
    parser.add_argument("--schedulers", default=",".join(SCHEDULERS), help="names, between commas")
    parser.add_argument("--prompts", nargs="+", default=PROMPTS)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    pipe = Pipeline.from_pretrained(options.model)
    sheet(pipe, options.schedulers.split(","), options.prompts, options.seed).save(options.output, quality=85)


if __name__ == "__main__":
    main()
