"""Measures whether a picture-book model follows its prompts, for docs/storybook.md.

    python -m benchmarks.adherence storybook-wuerstchen --prompts 500 --open 1,2 [--precision f32]
    [--sheets docs/pictures] python -m benchmarks.adherence storybook-sdxl --prompts 500 --changes 200
    [--option num_inference_steps=4] python -m benchmarks.adherence storybook-pixart --prompts 500
    --frames 288x224,224x288,320x192,192x320

*Mean* is the share of stated attributes that the probe finds, *whole* the share of prompts whose
attributes it all finds. The probe takes four things for three, so *counted* is the share of
pictures in which the counter finds the stated number. The prompts describe scenes whose
combinations of attributes no model was trained on. They state all attributes; `--open 1,2` adds
prompts that leave one or two open, and `--open 3` such that leave three open.

Reconstructions are of rendered scenes that no model has seen. Changes are image to image: such a
scene, and a prompt for another sky, another colour, or both. *Changed* is the share of attributes
that became what the prompt states, *kept* that of the others that stayed.

Frames are pictures of other shapes. The probe knows only squares and sees them squeezed into one,
so its findings in scenes rendered in that frame are given for comparison.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.counter import count as count_subjects
from training.judge import heldout_prompts, open_prompts
from training.probe import adherence, predict
from training.sdxl.alterations import alter
from training.world import ATTRIBUTES, Scene, full_caption, render, sample, sheet, stated_attributes
from training.world.frame import Frame
from vinograph import Pipeline
from vinograph.images import psnr

Pictures = NDArray[np.uint8]
_BATCH_SIZE = 10


def generate(pipe: Pipeline, prompts: Sequence[str], **options: Any) -> Pictures:
    """One picture for each prompt, uint8 [n, height, width, 3]; picture i has seed i."""
    batches = []
    for start in range(0, len(prompts), _BATCH_SIZE):
        result = pipe(list(prompts[start : start + _BATCH_SIZE]), seed=start, output_type="np", **options)
        batches.append((np.asarray(result.images) * 255).round().astype(np.uint8))
        print(f"\rdrawn {start + len(batches[-1])} of {len(prompts)}", end="", flush=True)
    print()
    return np.concatenate(batches)


def measure_generation(pipe: Pipeline, prompts: Sequence[str], **options: Any) -> tuple[dict[str, Any], Pictures]:
    """Adherence on ``prompts``, and the pictures.

    ``counted`` is the share of pictures with the stated number, as the counter counts them.
    """
    start = time.perf_counter()
    pictures = generate(pipe, prompts, **options)
    seconds = time.perf_counter() - start
    stated = [stated_attributes(text) for text in prompts]
    mean, whole, found = adherence(predict(pictures), stated)
    attributes = {name: right / total for name, (right, total) in found.items() if total}
    numbers = np.array([int(each["count"]) for each in stated])
    counted = float((count_subjects(pictures) == numbers).mean())
    figures = {"prompts": len(prompts), "mean": mean, "whole": whole, "counted": counted, "attributes": attributes}
    return {**figures, "seconds": seconds / len(prompts)}, pictures


def measure_reconstruction(pipe: Pipeline, count: int) -> tuple[dict[str, Any], list[Pictures]]:
    """Adherence and PSNR of reconstructed unseen scenes; alternately scenes and reconstructions."""
    rng = random.Random(77)
    reconstructions, scores, pairs, expected = [], [], [], []
    for index in range(count):
        scene = sample(rng, "heldout")
        original = render(scene, 900_000 + index)
        seed: dict[str, Any] = {"seed": index} if "seed" in pipe.calls["reconstruct"].takes else {}
        result = pipe.reconstruct(original, output_type="np", **seed)
        reconstruction = (np.asarray(result.images[0]) * 255).round().astype(np.uint8)
        scores.append(psnr(original / 255, reconstruction / 255))
        reconstructions.append(reconstruction)
        expected.append({name: str(getattr(scene, name)) for name in ATTRIBUTES})
        pairs += [original, reconstruction]
    mean, whole, _ = adherence(predict(np.stack(reconstructions)), expected)
    return {"scenes": count, "mean": mean, "whole": whole, "psnr": float(np.median(scores))}, pairs


def sample_changes(count: int, seed: int = 31) -> list[tuple[Scene, Scene, str]]:
    """Held-out scenes, an alteration of each, and a caption of the alteration."""
    rng = random.Random(seed)
    changes = []
    for _ in range(count):
        original = sample(rng, "heldout")
        altered = alter(original, rng)
        changes.append((original, altered, full_caption(altered, rng)))
    return changes


def measure_changes(pipe: Pipeline, count: int, strength: float, steps: int) -> tuple[dict[str, Any], list[Pictures]]:
    """What image to image changes and keeps, and alternately scenes and results."""
    pairs, results, changes = [], [], sample_changes(count)
    for index, (scene, _, prompt) in enumerate(changes):
        original = render(scene, 800_000 + index)
        result = pipe(
            prompt, image=original, strength=strength, num_inference_steps=steps, seed=index, output_type="np"
        )
        results.append((np.asarray(result.images[0]) * 255).round().astype(np.uint8))
        pairs += [original, results[-1]]
    original_labels = np.array([scene.labels() for scene, _, _ in changes])
    altered_labels = np.array([altered.labels() for _, altered, _ in changes])
    altered, correct = original_labels != altered_labels, predict(np.stack(results)) == altered_labels
    figures = {
        "scenes": count,
        "strength": strength,
        "steps": steps,
        "changed": float(correct[altered].mean()),
        "kept": float(correct[~altered].mean()),
        "whole": float(correct.all(axis=1).mean()),
    }
    return figures, pairs


def measure_frame(pipe: Pipeline, size: str, count: int, **options: Any) -> tuple[dict[str, Any], Pictures]:
    """Adherence in a frame such as "320x192", and of scenes rendered in it; the pictures."""
    width, height = map(int, size.split("x"))
    scenes, prompts = zip(*heldout_prompts(count), strict=True)
    expected = [stated_attributes(text) for text in prompts]
    pictures = generate(pipe, prompts, width=width, height=height, **options)
    frame = Frame(width, height)
    rendered = np.stack([render(scene, 600_000 + i, frame) for i, scene in enumerate(scenes)])
    (mean, whole, _), (best_mean, best_whole, _) = (adherence(predict(each), expected) for each in (pictures, rendered))
    figures = {"mean": mean, "whole": whole, "rendered_mean": best_mean, "rendered_whole": best_whole}
    return {"frame": size, "prompts": count, **figures}, pictures


def write_frames(path: Path, rows: Sequence[Pictures]) -> None:
    """Write a sheet with one row for each frame, as wide as five of the widest pictures."""
    width = max(row.shape[2] for row in rows) * 5
    page = Image.new("RGB", (width, sum(row.shape[1] for row in rows)), "white")
    top = 0
    for row in rows:
        for index in range(min(len(row), width // row.shape[2])):
            page.paste(Image.fromarray(row[index]), (index * row.shape[2], top))
        top += row.shape[1]
    page.save(path, quality=90)


def write_sheets(
    folder: Path,
    name: str,
    pictures: Pictures,
    prompts: Sequence[str],
    reconstructed: Sequence[Pictures],
    changed: Sequence[Pictures],
) -> None:
    """Write the sheets of docs/storybook.md: generated, rendered, reconstructed and changed."""
    folder.mkdir(parents=True, exist_ok=True)
    sheet(list(pictures[:64])).save(folder / f"{name}-drawn.webp", quality=90)
    rows = [f"| {i // 8 + 1}, {i % 8 + 1} | {text} |" for i, text in enumerate(prompts[:64])]
    (folder / f"{name}-drawn.md").write_text(
        "# The prompts of the drawn sheet\n\n| row, column | prompt |\n| --- | --- |\n" + "\n".join(rows) + "\n",
        encoding="utf-8",
    )
    rng = random.Random(5)
    renders = [render(sample(rng, "train"), 700_000 + i) for i in range(64)]
    sheet(renders).save(folder / "storybook-rendered.webp", quality=90)
    for title, pairs in (("reconstructed", reconstructed), ("changed", changed)):
        if pairs:
            sheet(list(pairs[:32])).save(folder / f"{name}-{title}.webp", quality=90)


def can(pipe: Pipeline, call: str) -> bool:
    """Whether the bundle has all components that the call needs."""
    return call in pipe.calls and all(each in pipe.model.manifest.components for each in pipe.calls[call].components)


def main() -> None:
    """Measure what the options ask for, print the figures, and write the sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument(
        "--open",
        action="append",
        default=[],
        type=lambda text: [int(number) for number in text.split(",")],
        metavar="N,...",
        help="as many prompts that leave N attributes open; several N are mixed",
    )
    parser.add_argument("--scenes", type=int, default=100, help="scenes to reconstruct")
    parser.add_argument("--changes", type=int, default=0, help="scenes to change by image to image")
    parser.add_argument("--strength", type=float, default=0.5, help="strength of image to image")
    parser.add_argument("--steps", type=int, default=2, help="steps of image to image, before strength shortens them")
    parser.add_argument("--frames", default="", metavar="WxH,...", help="other shapes to draw, 100 prompts each")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="an argument of the call")
    parser.add_argument("--sheets", type=Path, help="a folder for the contact sheets")
    arguments = parser.parse_args()
    pipe = Pipeline.from_pretrained(arguments.model, precision=arguments.precision)
    options = {name: json.loads(text) for name, _, text in (each.partition("=") for each in arguments.option)}
    prompts = [text for _, text in heldout_prompts(arguments.prompts)]
    figures, pictures = measure_generation(pipe, prompts, **options)
    print(json.dumps({"drawn": figures}, indent=2))
    for numbers in arguments.open:
        open_figures, _ = measure_generation(
            pipe, [text for _, text in open_prompts(arguments.prompts, numbers)], **options
        )
        print(json.dumps({"open": {"left open": numbers, **open_figures}}, indent=2))
    reconstructed: list[Pictures] = []
    if arguments.scenes and can(pipe, "reconstruct"):
        figures, reconstructed = measure_reconstruction(pipe, arguments.scenes)
        print(json.dumps({"reconstructed": figures}, indent=2))
    changed: list[Pictures] = []
    if arguments.changes:
        figures, changed = measure_changes(pipe, arguments.changes, arguments.strength, arguments.steps)
        print(json.dumps({"changed": figures}, indent=2))
    framed: list[Pictures] = []
    for size in filter(None, arguments.frames.split(",")):
        figures, drawn = measure_frame(pipe, size, 100, **options)
        print(json.dumps({"framed": figures}, indent=2))
        framed.append(drawn)
    if arguments.sheets and framed:
        write_frames(arguments.sheets / f"{pipe.model.manifest.name}-frames.webp", framed)
    if arguments.sheets:
        write_sheets(arguments.sheets, pipe.model.manifest.name, pictures, prompts, reconstructed, changed)


if __name__ == "__main__":
    main()
