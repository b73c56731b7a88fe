"""Reports what a drawing command has drawn: each picture when it is written, and the rest at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vinograph.cli import output

if TYPE_CHECKING:
    from vinograph.cli.prompts import Prompt
    from vinograph.request import Request
    from vinograph.result import Result

_MEASURES = {
    "psnr": "PSNR {:.2f} dB",
    "spatial_compression": "{:.1f} times smaller in each direction",
    "values_compression": "{:.0f} times fewer values",
}


@dataclass
class Report:
    """What was drawn, by one call or by several. With ``as_json`` all of it is printed at the end."""

    as_json: bool
    _first: Result | None = None
    _images: list[dict[str, Any]] = field(default_factory=list)
    _seconds: dict[str, float] = field(default_factory=dict)
    _warnings: dict[str, None] = field(default_factory=dict)

    def warn(self, *texts: str) -> None:
        """Add warnings; each is printed once, at the end."""
        self._warnings |= dict.fromkeys(texts)

    def add(self, file: Path, result: Result, index: int, prompt: Prompt | None = None) -> None:
        """Add picture ``index`` of a result, which was written to ``file``."""
        if self._first is None:
            self._first = result
        seed = None if result.seeds is None else result.seeds[index]
        record: dict[str, Any] = {"file": str(file), "seed": seed}
        if prompt is not None and prompt.line is not None:
            record |= {"line": prompt.line, "prompt": prompt.text}
        self._images.append(record)
        if not self.as_json:
            output.say(str(file) if seed is None else f"{file}  seed {seed}")
            output.flush()

    def add_seconds(self, result: Result) -> None:
        """Add the seconds that a call took in each stage."""
        for stage, seconds in result.timings.items():
            self._seconds[stage] = self._seconds.get(stage, 0) + seconds

    def cut_short(self, total: int) -> None:
        """Say how many of ``total`` pictures are there, after an interruption or an error."""
        self._print_warnings()
        if self._images:
            output.note(f"{len(self._images)} of {total} pictures were written, the last to {self._images[-1]['file']}")

    def end(self, whole: Callable[[Request], Request]) -> None:
        """Print what was not yet. ``whole`` makes the request for all pictures of the first call's."""
        self._print_warnings()
        result = self._first
        assert result is not None
        if self.as_json:
            output.print_json(
                {
                    "model": result.model,
                    "adapters": dict(result.adapters),
                    "images": self._images,
                    "request": whole(result.request).record(),
                    "seconds": self._seconds,
                    "devices": result.devices,
                    "settings": result.settings,
                    "report": result.report,
                    "warnings": list(self._warnings),
                }
            )
            return
        for name, value in result.report.items():
            output.say(_MEASURES.get(name, f"{name} {{:g}}").format(value))
        output.say(", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in self._seconds.items()))

    def _print_warnings(self) -> None:
        for warning in self._warnings:
            output.warn(warning)
