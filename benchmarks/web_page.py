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
            page.wait_for_function("document.querySelector('.settings [aria-label=Size]')?.value")
            page.fill("#prompt textarea", "a red house on a snowy hill at night")
            pressed = time.perf_counter()
            page.click("#generate")
            page.wait_for_selector("#output img")
            previewed = time.perf_counter()
            page.wait_for_selector("#output .facts")
            done = time.perf_counter()
    return [answered - start, loaded - answered, previewed - pressed, done - pressed]


def main() -> None:
    """Measure several times and print the statistics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--model", default="storybook-wuerstchen")
    arguments = parser.parse_args()
    runs = [measure(arguments.model) for _ in range(arguments.runs)]
    print(f"{arguments.runs} runs with {arguments.model}, {len(os.sched_getaffinity(0))} cores")
    for name, values in zip(_STAGES, zip(*runs, strict=True), strict=True):
        print(f"{name:24} {statistics.median(values):6.2f} s  ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
