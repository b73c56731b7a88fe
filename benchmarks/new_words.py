"""Measures what an adapter taught: the colours of drawn subjects, against rendered ones.

    python -m benchmarks.new_words storybook-sdxl turquoise --adapter turquoise-sdxl.safetensors
    [--prompts 50] [--sheet FILE] [--option num_inference_steps=4]

A subject's pixels are those that its colour changes in every rendering of the prompt's scene. The
colour of a drawn subject is the one whose renderings are nearest there, of the eight that the
models know and the new one. Prompts describe combinations that no adapter was trained on. The probe
judges what else the prompts state, and ordinary prompts, where the adapter should change nothing.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.judge import heldout_prompts
from training.lora.concept import CONCEPTS, Concept
from training.probe import adherence, predict
from training.world import Scene, render, sheet, stated_attributes
from training.world.subjects import BASE
from vinograph import Pipeline

Pictures = NDArray[np.uint8]

_SEEDS: Final = range(6)
"""Renderings that a scene's subjects are looked for in: they vary a little in place and size."""

_VISIBLE: Final = 80
"""How much a channel has to change, of 255, where a subject changes from red to blue."""

_BATCH_SIZE: Final = 10


@dataclass(frozen=True)
class Subject:
    """One subject of a scene as it is rendered.

    Attributes:
        pixels: the pixels [256, 256] that show its colour in every rendering.
        colours: their median in renderings of each colour, RGB from 0 to 255.
    """

    pixels: NDArray[np.bool_]
    colours: Mapping[str, NDArray[np.float64]]

    def nearest_colour(self, picture: Pictures) -> str:
        """The name of the colour that a picture [256, 256, 3] shows where the subject is."""
        found = np.median(picture[self.pixels], axis=0)
        return min(self.colours, key=lambda name: float(np.square(self.colours[name] - found).sum()))


@lru_cache(maxsize=512)
def subjects_of(scene: Scene) -> tuple[Subject, ...]:
    """The subjects of ``scene`` from left to right."""

    def rendered(blue: int | None) -> NDArray[np.float64]:
        colours = ["blue" if i == blue else "red" for i in range(scene.count)]
        return np.stack([render(scene, seed, colours=colours) for seed in _SEEDS]).astype(float)

    red, subjects = rendered(None), []
    for index in range(scene.count):
        blue = rendered(index)
        pixels = (np.abs(red - blue).max(axis=3) > _VISIBLE).all(axis=0)
        ends = {name: np.median(each[:, pixels], axis=(0, 1)) for name, each in (("red", red), ("blue", blue))}
        # All tones of a subject are linear in its colour, so two colours give all others.
        base = {name: np.array(BASE[name], float) for name in BASE}
        slope = (ends["blue"] - ends["red"]) / (base["blue"] - base["red"])
        subjects.append(Subject(pixels, {name: ends["red"] + slope * (base[name] - base["red"]) for name in BASE}))
    return tuple(subjects)


def colours_shown(picture: Pictures, scene: Scene) -> tuple[str, ...]:
    """The colour of each subject of ``scene`` in a picture [256, 256, 3], from left to right."""
    return tuple(subject.nearest_colour(picture) for subject in subjects_of(scene))


def concept_prompts(concept: Concept, count: int) -> list[tuple[Scene, str]]:
    """``count`` held-out scenes of a concept, each with a caption that states all attributes."""
    rng = random.Random(f"judge/{concept.word}")
    scenes = [concept.sample(rng, "heldout") for _ in range(count)]
    return [(scene, concept.caption(scene, rng)[0]) for scene in scenes]


def generate(pipe: Pipeline, prompts: Sequence[str], options: Mapping[str, Any]) -> Pictures:
    """One picture for each prompt, uint8 [n, 256, 256, 3]; picture i has seed i."""
    batches = []
    for start in range(0, len(prompts), _BATCH_SIZE):
        result = pipe(list(prompts[start : start + _BATCH_SIZE]), seed=start, output_type="np", **options)
        batches.append((np.asarray(result.images) * 255).round().astype(np.uint8))
    return np.concatenate(batches)


def judge(pictures: Pictures, scenes: Sequence[Scene], concept: Concept) -> dict[str, float]:
    """The share of pictures, and that of subjects, with the concept's colours."""
    right = [
        [
            shown == wanted
            for shown, wanted in zip(colours_shown(picture, scene), concept.subject_colours(scene.count), strict=True)
        ]
        for picture, scene in zip(pictures, scenes, strict=True)
    ]
    subjects = [each for row in right for each in row]
    return {"pictures": sum(map(all, right)) / len(right), "subjects": sum(subjects) / len(subjects)}


def measure(
    pipe: Pipeline, concept: Concept, count: int, options: Mapping[str, Any]
) -> tuple[dict[str, Any], Pictures]:
    """Figures for ``count`` prompts of the concept and as many ordinary ones.

    The pictures of the concept's prompts come second. ``rendered`` judges rendered scenes of those
    prompts, with seeds that the judge doesn't use: it is the best that a model could do.
    """
    scenes, prompts = zip(*concept_prompts(concept, count), strict=True)
    pictures = generate(pipe, prompts, options)
    rendered = np.stack([concept.render(scene, 1000 + i) for i, scene in enumerate(scenes)])
    ordinary = [text for _, text in heldout_prompts(count)]
    rest = adherence(predict(pictures), [stated_attributes(text) for text in prompts])
    kept = adherence(predict(generate(pipe, ordinary, options)), [stated_attributes(text) for text in ordinary])
    found, stated = kept[2]["colour"]
    figures = {
        "concept": judge(pictures, scenes, concept),
        "rendered": judge(rendered, scenes, concept),
        "other_attributes": {"mean": rest[0], "whole": rest[1]},
        "ordinary_prompts": {"mean": kept[0], "whole": kept[1], "colour": found / stated},
    }
    return figures, pictures


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, json.loads(value)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command ``python -m benchmarks.new_words``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("concept", choices=list(CONCEPTS))
    parser.add_argument("--adapter", type=Path, help="without one, the model alone is measured")
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--option", type=_option, action="append", default=[], help="NAME=VALUE of the pipeline's call")
    parser.add_argument("--sheet", type=Path, help="file for a contact sheet of the concept's pictures")
    options = parser.parse_args(arguments)
    adapters = {str(options.adapter): 1.0} if options.adapter else None
    pipe = Pipeline.from_pretrained(options.model, precision=options.precision, adapters=adapters)
    figures, pictures = measure(pipe, CONCEPTS[options.concept], options.prompts, dict(options.option))
    print(json.dumps({"model": options.model, "precision": options.precision, **figures}, indent=2))
    if options.sheet:
        sheet(list(pictures[:40])).save(options.sheet)


if __name__ == "__main__":
    main()
