"""Measures how long the page makes a user wait, in headless Chromium.

    python -m benchmarks.web_page [--runs 5] [--model storybook-wuerstchen]

Prints the median, smallest and largest seconds of four stages: from the start of `vinograph web` to
its first answer, from there to the page with its button, and from pressing that for the first time
to the first preview and to the finished picture.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.browser import launched, served

_TIMEOUT = 300_000  # milliseconds
_STAGES = ("the server answers", "the page is there", "first preview", "the picture is done")


def measure(model: str) -> list[float]:
    """Seconds of each stage, with a fresh server and a fresh browser."""
    with tempfile.TemporaryDirectory() as folder, launched() as browser:
        place = Path(folder)
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.set_default_timeout(_TIMEOUT)
        start = time.perf_counter()
        with served(["--model", model], place / "models", place / "log") as address:
            answered = time.perf_counter()
            page.goto(address)
            page.wait_for_selector("#generate:visible")
            loaded = time.perf_counter()
            page.wait_for_selector("body[data-settled]")
            page.fill("#prompt textarea", "a red house on a snowy hill at night")
            pressed = time.perf_counter()
            page.click("#generate")
            page.wait_for_selector("#output img")
            previewed = time.perf_counter()
            page.wait_for_selector("#output .facts")
            done = time.perf_counter()
    return [answered - start, loaded - answered, previewed - pressed, done - pressed]


def measure_live(model: str, keys: int) -> list[float]:
    """Seconds from each of so many key presses to the picture of the text."""
    with tempfile.TemporaryDirectory() as folder, launched() as browser:
        place = Path(folder)
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.set_default_timeout(_TIMEOUT)
        with served(["--model", model], place / "models", place / "log") as address:
            page.goto(address)
            page.wait_for_selector("body[data-settled]")
            text = "a red house"
            page.fill("#prompt textarea", text)
            page.get_by_label("Live").check()
            page.wait_for_selector(f"#output img[alt='{text}']")
            page.focus("#prompt textarea")
            seconds = []
            for letter in (" by the sea at night" * keys)[:keys]:
                text += letter
                pressed = time.perf_counter()
                page.keyboard.type(letter)
                page.wait_for_selector(f"#output img[alt='{text}']")
                seconds.append(time.perf_counter() - pressed)
    return seconds


def main() -> None:
    """Measure several times and print the statistics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--model")
    parser.add_argument("--live", action="store_true", help="measure live drawing")
    arguments = parser.parse_args()
    arguments.model = arguments.model or ("storybook-sdxl" if arguments.live else "storybook-wuerstchen")
    arguments.runs = arguments.runs or (20 if arguments.live else 5)
    if arguments.live:
        print(f"{arguments.runs} keys with {arguments.model}, {len(os.sched_getaffinity(0))} cores")
        _report("key to picture", measure_live(arguments.model, arguments.runs))
        return
    runs = [measure(arguments.model) for _ in range(arguments.runs)]
    print(f"{arguments.runs} runs with {arguments.model}, {len(os.sched_getaffinity(0))} cores")
    for name, values in zip(_STAGES, zip(*runs, strict=True), strict=True):
        _report(name, values)


def _report(name: str, values: Sequence[float]) -> None:
    print(f"{name:24} {statistics.median(values):6.2f} s  ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
