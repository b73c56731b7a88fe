"""Measures what an adapter taught: the colours of drawn subjects, against rendered ones.

    python -m training.lora.judge storybook-sdxl turquoise --adapter turquoise-sdxl.safetensors
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

_SEEDS: Final = range(4)
"""Renderings that a scene's subjects are looked for in: they vary a little in place and size."""

_BATCH_SIZE: Final = 10


def subject_pixels(scene: Scene) -> list[NDArray[np.bool_]]:
    """The pixels [256, 256] that the colour of each subject changes, from left to right."""
    masks = []
    for subject in range(scene.count):
        other = ["red"] * scene.count
        other[subject] = "blue"
        changed = [
            np.abs(render(scene, seed, colours=["red"] * scene.count) - render(scene, seed, colours=other).astype(int))
            .max(axis=2) > 80
            for seed in _SEEDS
        ]  # fmt: skip
        masks.append(np.all(changed, axis=0))
    return masks


def drawn_colours(picture: Pictures, scene: Scene) -> list[str]:
    """The colour of each subject of ``scene`` in a picture [256, 256, 3], from left to right."""
    rendered = {
        name: np.mean([render(scene, seed, colours=[name] * scene.count) for seed in _SEEDS], axis=0) for name in BASE
    }

    def nearest(mask: NDArray[np.bool_]) -> str:
        colour = picture[mask].mean(axis=0)
        distances = {name: float(np.square(each[mask].mean(axis=0) - colour).sum()) for name, each in rendered.items()}
        return min(distances, key=distances.__getitem__)

    return [nearest(mask) for mask in subject_pixels(scene)]


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
    """How many pictures and subjects have the concept's colours."""
    right = [
        [drawn == wanted for drawn, wanted in zip(drawn_colours(picture, scene), wanted_of(concept, scene), strict=True)]
        for picture, scene in zip(pictures, scenes, strict=True)
    ]
    subjects = [each for row in right for each in row]
    return {"pictures": sum(map(all, right)) / len(right), "subjects": sum(subjects) / len(subjects)}


def wanted_of(concept: Concept, scene: Scene) -> tuple[str, ...]:
    """The colours that the subjects of ``scene`` have by the concept."""
    return concept.subject_colours(scene.count)


def measure(pipe: Pipeline, concept: Concept, count: int, options: Mapping[str, Any]) -> tuple[dict[str, Any], Pictures]:
    """The figures for ``count`` prompts of the concept and as many ordinary ones, and the former's pictures."""
    scenes, prompts = zip(*concept_prompts(concept, count), strict=True)
    pictures = generate(pipe, prompts, options)
    ordinary = [text for _, text in heldout_prompts(count)]
    others = adherence(predict(pictures), [stated_attributes(text) for text in prompts])
    kept = adherence(predict(generate(pipe, ordinary, options)), [stated_attributes(text) for text in ordinary])
    found, stated = kept[2]["colour"]
    figures = {
        "concept": judge(pictures, scenes, concept),
        "rendered": judge(np.stack([concept.render(scene, 50 + i) for i, scene in enumerate(scenes)]), scenes, concept),
        "other_attributes": {"mean": others[0], "whole": others[1]},
        "ordinary_prompts": {"mean": kept[0], "whole": kept[1], "colour": found / stated},
    }
    return figures, pictures


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, json.loads(value)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command ``python -m training.lora.judge``."""
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
