"""Tabulates seconds per picture by batch size for the three families, and draws the chart.

    vinograph benchmark sdxl-f16 --size 1024x1024 --steps 1 --option guidance_scale=5.0 --option
    vae=tiny \\
        --count 1 --count 2 --count 4 --runs 1 --rounds 1 --no-reference --output sdxl.json
    vinograph benchmark pixart-f16 … --option guidance_scale=4.5 … --output pixart.json vinograph
    benchmark wuerstchen-f16 … --steps 1 --option num_inference_steps=1 … --output wuerstchen.json
    python benchmarks/batches.py sdxl.json pixart.json wuerstchen.json --chart batches.svg

Würstchen's model card has such a chart for a GPU; this one is for processors, at 1024×1024. A
picture of one step is measured. The seconds of its denoising stages are then multiplied by the
steps that the published models take.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

STEPS = {
    "sdxl": {"unet": 50},
    "pixart": {"transformer": 20},
    "wuerstchen": {"prior": 60, "decoder": 12},
}


Seconds = Mapping[tuple[str, int], float]
"""Seconds per picture by the model's name and the batch size."""


def seconds_per_picture(row: Mapping[str, Any]) -> float:
    """Seconds of one whole picture, extrapolated from the stages of one step."""
    steps = STEPS[row["family"]]
    missing = steps.keys() - row["stages"].keys()
    if missing:
        raise ValueError(f"{row['name']} has no stage {', '.join(missing)}")
    batch = sum(float(each) * steps.get(stage, 1) for stage, each in row["stages"].items())
    return batch / int(row["count"])


def print_table(names: Sequence[str], counts: Sequence[int], seconds: Seconds) -> None:
    """Print one row per model and one column per batch size."""
    print("| seconds per picture | " + " | ".join(f"batch {count}" for count in counts) + " |")
    print("| --- " * (1 + len(counts)) + "|")
    for name in names:
        cells = [f"{seconds[name, count]:.0f}" for count in counts if (name, count) in seconds]
        print(f"| {name} | " + " | ".join(cells) + " |")


def draw_chart(path: Path, families: Mapping[str, str], counts: Sequence[int], seconds: Seconds, title: str) -> None:
    """Write a line chart with one line per model; ``families`` has the family of each."""
    import matplotlib
    from matplotlib.figure import Figure

    # Text as text and fixed ids: the same figures give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vinograph"}):
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.add_subplot()
        colours = list(dict.fromkeys(families.values()))
        drawn: list[str] = []  # the first model of a family is dashed, the others are solid
        for name, family in families.items():
            points = [(count, seconds[name, count]) for count in counts if (name, count) in seconds]
            axes.plot(
                [count for count, _ in points],
                [each for _, each in points],
                marker="o",
                color=f"C{colours.index(family)}",
                linestyle="solid" if family in drawn else "dashed",
                label=name,
            )
            drawn.append(family)
        axes.set_xticks(counts)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("pictures at once")
        axes.set_ylabel("seconds per picture, 1024×1024")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(frameon=False, loc="outside right center")
        figure.suptitle(title, fontsize=9)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {})


def main() -> None:
    """Print the table and draw the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="JSON that `vinograph benchmark --output` wrote")
    parser.add_argument("--chart", type=Path)
    arguments = parser.parse_args()
    records = [json.loads(each.read_text(encoding="utf-8")) for each in arguments.results]
    rows = [row for record in records for row in record["rows"] if row["failure"] is None]
    counts = sorted({row["count"] for row in rows})
    families = {row["name"]: row["family"] for row in rows}
    seconds = {(row["name"], row["count"]): seconds_per_picture(row) for row in rows}
    print_table(list(families), counts, seconds)
    if arguments.chart:
        machine, date = records[0]["machine"], records[0]["date"][:10]
        title = f"{machine['processor']}, {machine['cores']} cores, {date}"
        draw_chart(arguments.chart, families, counts, seconds, title)


if __name__ == "__main__":
    main()
