"""Does a picture-book model draw what it was asked? The figures and the sheets of docs/storybook.md.

    python -m benchmarks.adherence storybook-wuerstchen --prompts 500 [--precision f32] [--sheets docs/pictures]
    python -m benchmarks.adherence storybook-sdxl --prompts 500 --changes 200 [--option num_inference_steps=4]
    python -m benchmarks.adherence storybook-pixart --prompts 500 --frames 288x224,224x288,320x192,192x320

*Mean* is the share of asked attributes that the probe finds, *whole* the share of prompts with every one of them. The
prompts describe scenes whose combination of attributes no model was trained on. Reconstructions are of rendered
scenes that no model has seen. Changes are image to image: such a scene, and a prompt that asks for another sky, another
colour, or both; *changed* is the share of attributes that became what the prompt asks for, *kept* that of the others
that stayed as they were. Frames are pictures of other shapes; the probe, which knows squares, sees them squeezed into
one, so beside what it finds stands what it finds in scenes rendered in that frame.
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

from training.judge import heldout
from training.probe import adherence, predict
from training.sdxl.alterations import another
from training.world import ATTRIBUTES, Scene, full_caption, render, sample, sheet, stated
from training.world.frame import Frame
from vinograph import Pipeline
from vinograph.images import psnr

Pictures = NDArray[np.uint8]
_BATCH = 10


def draw(pipe: Pipeline, prompts: Sequence[str], **options: Any) -> Pictures:
    """One picture for each prompt, [n, 256, 256, 3]; picture i has seed i."""
    drawn = []
    for start in range(0, len(prompts), _BATCH):
        result = pipe(list(prompts[start : start + _BATCH]), seed=start, output_type="np", **options)
        drawn.append((np.asarray(result.images) * 255).round().astype(np.uint8))
        print(f"\rdrawn {start + len(drawn[-1])} of {len(prompts)}", end="", flush=True)
    print()
    return np.concatenate(drawn)


def measure_drawing(pipe: Pipeline, count: int, **options: Any) -> tuple[dict[str, Any], Pictures, list[str]]:
    """Adherence on ``count`` held-out prompts, the pictures, and their prompts."""
    asked = heldout(count)
    start = time.perf_counter()
    pictures = draw(pipe, [text for _, text in asked], **options)
    taken = time.perf_counter() - start
    mean, whole, counts = adherence(predict(pictures), [stated(text) for _, text in asked])
    attributes = {name: found / total for name, (found, total) in counts.items()}
    figures = {"prompts": count, "mean": mean, "whole": whole, "attributes": attributes, "seconds": taken / count}
    return figures, pictures, [text for _, text in asked]


def measure_reconstruction(pipe: Pipeline, count: int) -> tuple[dict[str, Any], list[Pictures]]:
    """How much of unseen scenes is kept, and originals and reconstructions in turn."""
    rng = random.Random(77)
    kept, decibels, pairs, originals = [], [], [], []
    for index in range(count):
        scene = sample(rng, "heldout")
        original = render(scene, 900_000 + index)
        seed: dict[str, Any] = {"seed": index} if "seed" in pipe.calls["reconstruct"].takes else {}
        result = pipe.reconstruct(original, output_type="np", **seed)
        again = (np.asarray(result.images[0]) * 255).round().astype(np.uint8)
        decibels.append(psnr(original / 255, again / 255))
        kept.append(again)
        originals.append([str(value) for value in (getattr(scene, name) for name in ATTRIBUTES)])
        pairs += [original, again]
    wanted = [dict(zip(ATTRIBUTES, values, strict=True)) for values in originals]
    mean, whole, _ = adherence(predict(np.stack(kept)), wanted)
    return {"scenes": count, "mean": mean, "whole": whole, "psnr": float(np.median(decibels))}, pairs


def changes(count: int, seed: int = 31) -> list[tuple[Scene, Scene, str]]:
    """Scenes of held-out combinations, what each is to become, and a caption of that."""
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        before = sample(rng, "heldout")
        after = another(before, rng)
        out.append((before, after, full_caption(after, rng)))
    return out


def measure_changes(pipe: Pipeline, count: int, strength: float, steps: int) -> tuple[dict[str, Any], list[Pictures]]:
    """What image to image changes and keeps, and originals and results in turn."""
    pairs, results, asked = [], [], changes(count)
    for index, (before, _, prompt) in enumerate(asked):
        original = render(before, 800_000 + index)
        result = pipe(
            prompt, image=original, strength=strength, num_inference_steps=steps, seed=index, output_type="np"
        )
        results.append((np.asarray(result.images[0]) * 255).round().astype(np.uint8))
        pairs += [original, results[-1]]
    found = predict(np.stack(results))
    before_labels = np.array([before.labels() for before, _, _ in asked])
    after_labels = np.array([after.labels() for _, after, _ in asked])
    altered, right = before_labels != after_labels, found == after_labels
    figures = {
        "scenes": count,
        "strength": strength,
        "steps": steps,
        "changed": float(right[altered].mean()),
        "kept": float(right[~altered].mean()),
        "whole": float(right.all(axis=1).mean()),
    }
    return figures, pairs


def measure_frame(pipe: Pipeline, size: str, count: int, **options: Any) -> tuple[dict[str, Any], Pictures]:
    """Adherence in a frame ("320x192"), beside that of scenes rendered in it; and the pictures."""
    width, height = map(int, size.split("x"))
    asked = heldout(count)
    wanted = [stated(text) for _, text in asked]
    pictures = draw(pipe, [text for _, text in asked], width=width, height=height, **options)
    frame = Frame(width, height)
    rendered = np.stack([render(scene, 600_000 + i, frame) for i, (scene, _) in enumerate(asked)])
    (mean, whole, _), (best_mean, best_whole, _) = (adherence(predict(each), wanted) for each in (pictures, rendered))
    found = {"mean": mean, "whole": whole, "rendered_mean": best_mean, "rendered_whole": best_whole}
    return {"frame": size, "prompts": count, **found}, pictures


def write_frames(path: Path, rows: Sequence[Pictures]) -> None:
    """One row for each frame, as many pictures as fit the first row."""
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
    """The sheets of the page: drawn, rendered, and reconstructions and changes beside their originals."""
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
    for what, pairs in (("reconstructed", reconstructed), ("changed", changed)):
        if pairs:
            sheet(list(pairs[:32])).save(folder / f"{name}-{what}.webp", quality=90)


def can(pipe: Pipeline, call: str) -> bool:
    """Whether the bundle has what the call needs."""
    return call in pipe.calls and all(each in pipe.model.manifest.components for each in pipe.calls[call].components)


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--scenes", type=int, default=100, help="scenes to reconstruct")
    parser.add_argument("--changes", type=int, default=0, help="scenes to change by image to image")
    parser.add_argument("--strength", type=float, default=0.5, help="of image to image")
    parser.add_argument("--steps", type=int, default=2, help="of image to image, before strength shortens them")
    parser.add_argument("--frames", default="", metavar="WxH,...", help="other shapes to draw, 100 prompts each")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="an argument of the call")
    parser.add_argument("--sheets", type=Path, help="a folder for the contact sheets")
    arguments = parser.parse_args()
    pipe = Pipeline.from_pretrained(arguments.model, precision=arguments.precision)
    options = {name: json.loads(text) for name, _, text in (each.partition("=") for each in arguments.option)}
    figures, pictures, prompts = measure_drawing(pipe, arguments.prompts, **options)
    print(json.dumps({"drawn": figures}, indent=2))
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
