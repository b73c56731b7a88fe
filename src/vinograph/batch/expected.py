"""What every process of a batch has to find, on whatever machine it runs.

Pictures are named by what they are drawn from. A machine that sees another folder, or another model
under the same name, would write other pictures under these names, or the same ones where nobody
looks for them.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vinograph import __version__
from vinograph.batch.drawing import Drawing, Job
from vinograph.batch.keys import contents, identity
from vinograph.batch.pictures import IMAGES
from vinograph.batch.store import Store, there
from vinograph.errors import RequestError, VinographError

if TYPE_CHECKING:
    from vinograph.pipeline import Pipeline


@dataclass(frozen=True)
class Expected:
    """What the driver of a batch found on its machine.

    ``note`` is the name of a note in the place for pictures, and ``token`` is what stands there.
    Paths that are not absolute begin in ``folder``.
    """

    note: str
    token: str
    folder: str
    common: Mapping[str, Any]

    def enter(self) -> None:
        """Go to the folder in which relative paths begin, if this machine has it."""
        if Path(self.folder).is_dir():
            os.chdir(self.folder)

    def check_place(self, out: str) -> None:
        """Refuse a folder that this machine doesn't have, before it is made.

        Raises:
            RequestError: there is none.
        """
        if not there(out):
            raise self._unseen(out)

    def check(self, out: str, store: Store, pipe: Pipeline, drawing: Drawing, threads: int) -> None:
        """Refuse a place for pictures, or a model, that isn't the driver's.

        Raises:
            RequestError: one isn't.
        """
        if store.note(self.note) != self.token.encode():
            raise self._unseen(out)
        found = everywhere(drawing, pipe, threads)
        for name, value in self.common.items():
            if found.get(name) != value:
                raise RequestError(
                    f"{socket.gethostname()} would draw with another {name} ({_brief(found.get(name))} instead of "
                    f"{_brief(value)}); install the same on all machines, or name files in a folder that they share"
                )

    def check_files(self, job: Job) -> None:
        """Refuse to draw from a picture that the driver saw and this machine doesn't see.

        Raises:
            RequestError: there is one.
        """
        for name in IMAGES:
            if name in job.arguments and not Path(job.arguments[name]).is_file():
                raise RequestError(
                    f"{socket.gethostname()} doesn't see {job.arguments[name]}, which the machine that started the "
                    "batch sees; put pictures into a folder that all machines share"
                )

    def _unseen(self, out: str) -> RequestError:
        return RequestError(
            f"{socket.gethostname()} doesn't see the folder {out} of the machine that started the batch; name a "
            "folder that all machines share, or a URL such as s3://bucket/folder"
        )


def located(error: VinographError) -> tuple[type[VinographError], str]:
    """The class of an error, and what it says, with the name of this machine."""
    host, text = socket.gethostname(), str(error)
    return type(error), text if text.startswith(host) else f"{text} (on {host})"


def common(drawing: Drawing, pipe: Pipeline, threads: int) -> dict[str, Any]:
    """What all pictures of a batch have in common, as far as it decides what they look like.

    The number of threads does: rounding depends on how sums are divided between them.
    """
    words = {word: [_identified(file) for file in files] for word, files in drawing.embeddings.items()}
    return {
        "vinograph": __version__,
        "model": identity(pipe.model),
        "adapters": {_identified(file): weight for file, weight in pipe.adapters.items()},
        "embeddings": words,
        "sources": {name: _identified(source) for name, source in drawing.sources.items()},
        "device": drawing.device,
        "precision": drawing.precision,
        "threads": threads,
    }


def everywhere(drawing: Drawing, pipe: Pipeline, threads: int) -> dict[str, Any]:
    """What has to be the same on all machines: files record the version of Python, too."""
    return {**common(drawing, pipe, threads), "python": platform.python_version()}


def _identified(source: str) -> str:
    """A file's contents; any other source's name."""
    return contents(Path(source)) if Path(source).is_file() else source


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
