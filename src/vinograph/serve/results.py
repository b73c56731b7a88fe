"""Results as a pipeline gives them, of jobs whose pictures came raw."""

from __future__ import annotations

import dataclasses

from PIL import Image

from vinograph.result import Result
from vinograph.serve.contract import Drawn
from vinograph.serve.jobs import QueuedJob


def result_of(job: QueuedJob, drawn: Drawn) -> Result:
    """The result of a job with the encoding "raw", as if one call had drawn its pictures."""
    drawn_size = {side: drawn.request[side] for side in ("height", "width") if side in drawn.request}
    return Result(
        images=[Image.frombytes("RGB", (each.width, each.height), each.data) for each in drawn.pictures],
        seeds=None if -1 in [each.seed for each in drawn.pictures] else tuple(each.seed for each in drawn.pictures),
        request=dataclasses.replace(job.request, **drawn_size),
        timings=drawn.timings,
        warnings=drawn.warnings,
        devices=drawn.devices,
        model=job.model,
        report=drawn.report,
        adapters=job.adapters,
        files=drawn.files,
        settings=drawn.settings,
    )
