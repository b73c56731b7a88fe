"""Draws the pictures of the documents' first pages again: python -m scripts.site_pictures [NAME...].

They come from the embedded models, by the commands that the pages show, and from the measured results.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vinograph import Pipeline
from vinograph.quantize import quantize

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "pictures"
RESULTS = ROOT / "benchmarks" / "results" / "2026-11-21"
PAPER, INK, WINE, ROSE, STONE = "#faf8f5", "#2b2824", "#8f3149", "#dd9fac", "#a49c90"
GAP = 8
MEADOW = "in the middle of a meadow on a clear day"


def draw(model: str | Path, prompt: str, **arguments: object) -> Image.Image:
    """The picture of a prompt by an embedded model or a bundle."""
    picture: Image.Image = Pipeline.from_pretrained(model)(prompt, **arguments).images[0]  # type: ignore[arg-type]
    return picture


def row(pictures: Sequence[Image.Image], name: str) -> None:
    """Write pictures of one height side by side, with gaps that show the page."""
    height = max(each.height for each in pictures)
    fitted = [each.convert("RGB").resize((each.width * height // each.height, height)) for each in pictures]
    sheet = Image.new("RGBA", (sum(each.width for each in fitted) + GAP * (len(fitted) - 1), height))
    left = 0
    for each in fitted:
        sheet.paste(each, (left, 0))
        left += each.width + GAP
    save(sheet, name)


def save(sheet: Image.Image, name: str) -> None:
    """Write a picture of the documents as WebP."""
    sheet.save(OUT / f"{name}.webp", quality=88, method=6)
    print(f"{name}.webp  {(OUT / f'{name}.webp').stat().st_size / 1e3:.0f} kB", flush=True)


def first_pictures() -> None:
    """The four pictures of docs/start.md."""
    trees = f"two green trees {MEADOW}"
    row(
        [
            draw("storybook-wuerstchen", "a red house on a snowy hill at night", seed=7),
            draw("storybook-wuerstchen", "three yellow boats in the middle of the sea at sunset", seed=1),
            draw("storybook-sdxl", trees, seed=1),
            draw("storybook-pixart-lcm", "two orange trees in the middle of the desert at night", seed=1),
        ],
        "first-pictures",
    )


def choose_storybook() -> None:
    """The same prompt by the four embedded models."""
    names = ("wuerstchen", "sdxl", "pixart", "pixart-lcm")
    prompt = "a red house in the middle of a meadow at sunset"
    row([draw(f"storybook-{name}", prompt, seed=4) for name in names], "choose-storybook")


def inpainting() -> None:
    """The pictures of docs/inpainting.md."""
    blue = draw("storybook-sdxl", f"a blue house {MEADOW}", num_inference_steps=4, seed=3)
    mask = Image.new("L", blue.size)
    mask.paste(255, (60, 70, 196, 215))
    change = {"image": blue, "num_inference_steps": 4, "seed": 1}
    car = draw("storybook-sdxl", f"a red car {MEADOW}", mask_image=mask, strength=1.0, **change)
    row([blue, mask, car], "inpainting")
    orange = draw("storybook-sdxl", f"an orange house {MEADOW}", mask_image=mask, strength=0.6, **change)
    night = draw("storybook-sdxl", "a blue house in the middle of a meadow at night", strength=0.5, **change)
    row([orange, night], "inpainting-strength")


def adapter() -> None:
    """The same prompt without an adapter, and with one."""
    prompt = f"two turquoise boats {MEADOW}"
    turquoise = {str(ROOT / "training" / "adapters" / "turquoise-sdxl.safetensors"): 1.0}
    with_it = Pipeline.from_pretrained("storybook-sdxl", adapters=turquoise)(prompt, seed=2).images[0]
    row([draw("storybook-sdxl", prompt, seed=2), with_it], "adapter")


def int8() -> None:
    """Two prompts unquantized, in full int8, and the difference, amplified four times."""
    prompts = ("a red house on a snowy hill at night", f"two green trees {MEADOW}")
    with tempfile.TemporaryDirectory() as folder:
        quantized = Path(folder) / "int8"
        quantize("storybook-wuerstchen", quantized, mode="full")
        rows = [(draw("storybook-wuerstchen", each, seed=7), draw(quantized, each, seed=7)) for each in prompts]
    size = rows[0][0].width + GAP
    sheet = Image.new("RGBA", (3 * size - GAP, len(rows) * size - GAP))
    for number, (before, after) in enumerate(rows):
        difference = np.abs(np.asarray(before, np.int16) - np.asarray(after, np.int16)) * 4
        third = Image.fromarray(np.minimum(difference, 255).astype(np.uint8))
        for column, each in enumerate((before, after, third)):
            sheet.paste(each, (column * size, number * size))
    save(sheet, "int8")


def why_fast() -> None:
    """Seconds per picture of the published sizes, as measured."""
    from matplotlib.figure import Figure

    files = {
        "sdxl-1-tiny": "SDXL-Turbo  512×512, 1 step",
        "pixart-lcm": "PixArt-LCM  1024×1024, 4 steps",
        "wuerstchen-60-12": "Würstchen  1024×1024, 60 + 12 steps",
    }
    bars = (("diffusers, bf16", STONE, INK), ("Vinograph, f16", ROSE, INK), ("Vinograph, int8", WINE, PAPER))
    figure = Figure(figsize=(6.4, 5.4), facecolor=PAPER, layout="constrained")
    for plot, (file, title) in zip(figure.subplots(3, 1), files.items(), strict=True):
        seconds = measured(json.loads((RESULTS / f"{file}.json").read_text(encoding="utf-8"))["rows"])
        plot.set_title(title, fontsize=12, color=INK, loc="left")
        for place, ((label, colour, ink), value) in enumerate(zip(bars, seconds, strict=True)):
            plot.barh(place, value, color=colour, height=0.86)
            plot.text(max(seconds) * 0.01, place, label, va="center", fontsize=12, color=ink)
            plot.text(value, place, f" {value:.3g} s", va="center", fontsize=12, color=INK)
        plot.set_xlim(0, max(seconds) * 1.16)
        plot.invert_yaxis()
        plot.axis("off")
    with tempfile.NamedTemporaryFile(suffix=".png") as file_:
        figure.savefig(file_.name, dpi=200)
        save(Image.open(file_.name).convert("RGB"), "why-fast")


def measured(rows: Sequence[Mapping[str, object]]) -> tuple[float, float, float]:
    """Seconds per picture of diffusers, of the bundle in f16, and of the quantized one."""
    seconds = {str(each["name"]).rpartition("-")[2]: float(str(each["seconds_per_picture"])) for each in rows}
    return seconds["diffusers"], seconds["f16"], seconds["full"]


PICTURES: Mapping[str, Callable[[], None]] = {
    "first-pictures": first_pictures,
    "choose-storybook": choose_storybook,
    "inpainting": inpainting,
    "adapter": adapter,
    "int8": int8,
    "why-fast": why_fast,
}


def main() -> None:
    """Draw the pictures that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", metavar="NAME", nargs="*", choices=[[], *PICTURES], help=", ".join(PICTURES))
    for name in parser.parse_args().names or PICTURES:
        PICTURES[name]()


if __name__ == "__main__":
    main()
