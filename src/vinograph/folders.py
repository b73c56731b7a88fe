"""The user's folders: for models, for the cache, and for temporary files.

Not every user has a home directory: in a container started for a bare user number, ``HOME`` is not
set and the number is not in the password file. Then the folders are below one that can't exist, so
that what looks there finds nothing, and what writes there fails with an ordinary OSError that names
the folder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vinograph.errors import ResourceError

NO_HOME = Path(os.devnull) / "no-home"
"""The home of users who have none: a place where nothing is, and where not even root can make a folder."""


def home() -> Path:
    """The user's home directory; :data:`NO_HOME` where the system knows none."""
    try:
        return Path.home()
    except RuntimeError:
        return NO_HOME


def expand(path: str | os.PathLike[str]) -> Path:
    """The path with a leading ``~`` or ``~user`` replaced by that home directory; as it is where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_there(path: Path, *, directory: bool = False) -> bool:
    """Whether there is a file or folder of that path, or with ``directory`` a folder, that this user may see.

    False where that is not allowed, as of another user's home that ``HOME`` still names, and of a
    name that no file can have.
    """
    try:
        return path.is_dir() if directory else path.exists()
    except (OSError, ValueError):
        return False


def cache() -> Path:
    """``VINOGRAPH_CACHE``, else ``vinograph`` in ``XDG_CACHE_HOME``, else ``~/.cache/vinograph``."""
    if named := os.environ.get("VINOGRAPH_CACHE"):
        return expand(named)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return expand(base) / "vinograph"
    return home() / ".cache" / "vinograph"


def models() -> Path:
    """``VINOGRAPH_MODELS``, else ``~/.local/share/vinograph/models``."""
    named = os.environ.get("VINOGRAPH_MODELS")
    return expand(named) if named else home() / ".local" / "share" / "vinograph" / "models"


def prepare_for_libraries() -> None:
    """Tell libraries that expand ``~`` themselves where the home is, if this user has none.

    They would otherwise make a folder named ``~`` in the current one.
    """
    if home() == NO_HOME:
        os.environ.setdefault("HF_HOME", str(NO_HOME / ".cache" / "huggingface"))


@contextmanager
def temporary(prefix: str) -> Iterator[Path]:
    """A folder for temporary files, deleted when the block ends, but for what somebody still writes.

    Raises:
        ResourceError: no folder for temporary files can be written.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
    except OSError as error:
        raise ResourceError(
            f"there is no folder for temporary files that can be written ({error.strerror or error}): set TMPDIR to "
            "one, as in TMPDIR=/dev/shm vinograph …; a container has one with --tmpfs /tmp"
        ) from error
    with folder as name:
        yield Path(name).resolve()
