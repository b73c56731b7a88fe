"""Seconds per picture by batch size, redrawn for processors from Würstchen's model card: the three families at 1024².

    vinograph benchmark sdxl-f16 --size 1024x1024 --steps 1 --option guidance_scale=5.0 --option vae=tiny \\
        --count 1 --count 2 --count 4 --runs 1 --rounds 1 --no-reference --output sdxl.json
    vinograph benchmark pixart-f16 … --option guidance_scale=4.5 … --output pixart.json
    vinograph benchmark wuerstchen-f16 … --steps 1 --option num_inference_steps=1 … --output wuerstchen.json
    python benchmarks/batches.py sdxl.json pixart.json wuerstchen.json --chart batches.svg

A picture of one step is measured, and the seconds of its denoising stages multiplied by the steps that the published
models take. Prints a table, too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

STEPS = {
    "sdxl": {"unet": 50},
    "pixart": {"transformer": 20},
    "wuerstchen": {"prior": 60, "decoder": 12},
}


def seconds(row: dict[str, Any]) -> float:
    """Seconds of one whole picture."""
    steps = STEPS[row["family"]]
    missing = steps.keys() - row["stages"].keys()
    if missing:
        raise ValueError(f"{row['name']} has no stage {', '.join(missing)}")
    whole = sum(float(each) * steps.get(stage, 1) for stage, each in row["stages"].items())
    return whole / int(row["count"])


def main() -> None:
    """Print the table, and draw the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="JSON that `vinograph benchmark --output` wrote")
    parser.add_argument("--chart", type=Path)
    arguments = parser.parse_args()
    records = [json.loads(each.read_text(encoding="utf-8")) for each in arguments.results]
    rows = [row for record in records for row in record["rows"] if row["failure"] is None]
    counts = sorted({row["count"] for row in rows})
    found = {(row["name"], row["count"]): seconds(row) for row in rows}
    names = list(dict.fromkeys(row["name"] for row in rows))
    print("| seconds per picture | " + " | ".join(f"batch {count}" for count in counts) + " |")
    print("| --- " * (1 + len(counts)) + "|")
    for name in names:
        print(
            f"| {name} | "
            + " | ".join(f"{found[name, count]:.0f}" for count in counts if (name, count) in found)
            + " |"
        )
    if arguments.chart:
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vinograph"}):
            figure = Figure(figsize=(7, 4.5), layout="constrained")
            axes = figure.add_subplot()
            families = list(dict.fromkeys(row["family"] for row in rows))
            drawn: list[str] = []  # a family's first is dashed, those that follow are not
            for name in names:
                family = next(row["family"] for row in rows if row["name"] == name)
                points = [(count, found[name, count]) for count in counts if (name, count) in found]
                axes.plot(
                    [count for count, _ in points],
                    [each for _, each in points],
                    marker="o",
                    color=f"C{families.index(family)}",
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
            machine = records[0]["machine"]
            figure.suptitle(f"{machine['processor']}, {machine['cores']} cores, {records[0]['date'][:10]}", fontsize=9)
            figure.savefig(
                arguments.chart, dpi=150, metadata={"Date": None} if arguments.chart.suffix == ".svg" else {}
            )


if __name__ == "__main__":
    main()
