"""Prints tables of the results that `vinograph benchmark --output` wrote, with their floors.

    python benchmarks/floor.py --json > benchmarks/results/2026-11-21/floor.json
    python benchmarks/results_tables.py benchmarks/results/2026-11-21 > tables.md

Each JSON file is a section, headed by the command that wrote it. *Faster* is the first row's
seconds over this row's. *Share of the floor* is the floor over the seconds: the part of them that
the processor would need at its peak rates.
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

# The workload of benchmarks/floor.py that each file is compared with.
FLOORS = {
    "sdxl-1-tiny": "sdxl-turbo, 512x512, 1 step, tiny VAE",
    "sdxl-1-full": "sdxl-turbo, 512x512, 1 step, full VAE",
    "sdxl-4-tiny": "sdxl-turbo, 512x512, 4 steps, tiny VAE",
    "sdxl-4-full": "sdxl-turbo, 512x512, 4 steps, full VAE",
    "pixart-lcm": "pixart-lcm, 1024x1024, 4 steps, tiny VAE",
    "pixart-20": "pixart, 512x512, 20 steps, guidance, tiny VAE",
    "wuerstchen-60-12": "wuerstchen, 1024x1024, 60 + 12 steps",
    "wuerstchen-29-12": "wuerstchen, 1024x1024, 29 + 12 steps",
    "wuerstchen-10-4": "wuerstchen, 1024x1024, 10 + 4 steps",
}
HEAD = ("", "size", "first", "picture", "faster", "share of the floor", "peak", "PSNR", "SSIM", "stages")


def section(name: str, record: dict[str, Any], floors: dict[str, dict[str, float]]) -> str:
    """The section of one file: its heading, its command and its table."""
    command = shlex.join(["vinograph", *_without(record["command"][1:], "--output")])
    lines = [f"## {name}", "", "```sh", command, "```", ""]
    floor = floors.get(FLOORS.get(name, ""))
    if floor is not None:
        lines += [f"Floor: {floor['bf16']:.1f} s in bf16, {floor['int8']:.1f} s with int8.", ""]
    lines += ["| " + " | ".join(HEAD) + " |", "| --- " * len(HEAD) + "|"]
    first = next((row["seconds_per_picture"] for row in record["rows"] if row["seconds_per_picture"]), None)
    for row in record["rows"]:
        cells = [row["failure"]] if row["failure"] else cells_of(row, first, floor)
        lines.append(f"| {row['name']}{'' if row['count'] == 1 else ' x' + str(row['count'])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _without(arguments: list[str], option: str) -> list[str]:
    """A command line without an option and its value."""
    if option not in arguments:
        return arguments
    place = arguments.index(option)
    return arguments[:place] + arguments[place + 2 :]


def cells_of(row: dict[str, Any], first: float | None, floor: dict[str, float] | None) -> list[str]:
    """The cells of a system's row, after its name."""
    seconds = row["seconds_per_picture"]
    quantized = row["name"].endswith(("full", "mixed", "weights"))
    floor_seconds = None if floor is None else floor["int8" if quantized else "bf16"]
    return [
        "" if row["size"] is None else f"{row['size'] / 1e9:.2f} GB",
        f"{row['first']:.1f} s",
        "" if seconds is None else f"{seconds:.2f} s",
        "" if seconds is None or first is None else f"{first / seconds:.2f}×",
        "" if seconds is None or floor_seconds is None else f"{floor_seconds / seconds:.0%}",
        f"{row['peaks']['resident'] / 1e9:.1f} GB",
        "" if row["psnr"] is None else f"{row['psnr']:.1f} dB",
        "" if row["ssim"] is None else f"{row['ssim']:.3f}",
        ", ".join(f"{stage} {each:.2f}" for stage, each in (row["stages"] or row["first_stages"]).items()),
    ]


def main() -> None:
    """Print the tables of all files in a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    floors = json.loads((arguments.folder / "floor.json").read_text(encoding="utf-8"))["floors"]
    for file in sorted(arguments.folder.glob("*.json")):
        if file.name != "floor.json":
            print(section(file.stem, json.loads(file.read_text(encoding="utf-8")), floors), end="\n\n")


if __name__ == "__main__":
    main()
