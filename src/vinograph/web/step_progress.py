"""What is told of a drawing while it runs: the time that it still takes, and previews now and then."""

from __future__ import annotations

import time
from collections.abc import Mapping

from PIL import Image

from vinograph.families.contract import Step

_PREVIEW_SHARE = 4  # previews take at most one part in so many of a drawing's time
_PREVIEW_INTERVAL = 0.08  # seconds; more often than that nobody sees


class RemainingTime:
    """Estimates the seconds that a drawing still takes.

    For the stage under way it counts on the pace so far, for later stages on their last timings.
    """

    def __init__(self, last_timings: Mapping[str, float]) -> None:
        self._last_timings = last_timings
        self._stage = ""
        self._first_step = 0.0

    def after(self, step: Step) -> float | None:
        """Seconds from ``step`` to the end of the drawing; None at a stage's first step."""
        now = time.perf_counter()
        if step.stage != self._stage:
            self._stage, self._first_step = step.stage, now
        if step.index == 1 and step.total > 1:
            return None
        per_step = (now - self._first_step) / max(1, step.index - 1)
        stages = list(self._last_timings)
        to_come = stages[stages.index(step.stage) + 1 :] if step.stage in stages else []
        return per_step * (step.total - step.index) + sum(self._last_timings[name] for name in to_come)


class PreviewThrottle:
    """Decodes previews only as often as they take a small share of the drawing's time."""

    def __init__(self) -> None:
        self._not_before = 0.0

    def of(self, step: Step) -> Image.Image | None:
        """The preview of ``step``; None where the last one was a moment ago."""
        start = time.perf_counter()
        if start < self._not_before:
            return None
        preview = step.preview()
        end = time.perf_counter()
        if preview is not None:
            self._not_before = end + max(_PREVIEW_INTERVAL, (_PREVIEW_SHARE - 1) * (end - start))
        return preview
