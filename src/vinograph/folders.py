"""The user's folders: for models, for the cache, and for temporary files.

Not every user has a home directory: in a container started with a bare user ID, ``HOME`` is unset
and the ID is not in the password file. Then the folders lie below a path that can't exist. Reading
there finds nothing, and writing fails with an ordinary OSError that names the folder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vinograph.errors import ResourceError

NO_HOME = Path(os.devnull) / "no-home"
"""Home of users without one: a path that doesn't exist, and that not even root can create."""


def home() -> Path:
    """The user's home directory, or :data:`NO_HOME` if the system knows none."""
    try:
        return Path.home()
    except RuntimeError:
        return NO_HOME


def expand(path: str | os.PathLike[str]) -> Path:
    """The path with ``~`` or ``~user`` expanded; unchanged if there is no such home directory."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_there(path: Path, *, directory: bool = False) -> bool:
    """Whether this user can see a file or folder at ``path``; with ``directory``, only a folder.

    False also if access is denied, as to another user's home that ``HOME`` still names, and if no
    file can have that name.
    """
    try:
        return path.is_dir() if directory else path.exists()
    except (OSError, ValueError):
        return False


def cache() -> Path:
    """The folder of the cache.

    It is ``$VINOGRAPH_CACHE``, else ``$XDG_CACHE_HOME/vinograph``, else ``~/.cache/vinograph``.
    """
    if configured := os.environ.get("VINOGRAPH_CACHE"):
        return expand(configured)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return expand(base) / "vinograph"
    return home() / ".cache" / "vinograph"


def models() -> Path:
    """The models folder: ``$VINOGRAPH_MODELS``, or ``~/.local/share/vinograph/models``."""
    configured = os.environ.get("VINOGRAPH_MODELS")
    return expand(configured) if configured else home() / ".local" / "share" / "vinograph" / "models"


def prepare_for_libraries() -> None:
    """Point libraries that expand ``~`` themselves to :data:`NO_HOME`, if this user has no home.

    Otherwise they would create a folder named ``~`` in the current directory.
    """
    if home() == NO_HOME:
        os.environ.setdefault("HF_HOME", str(NO_HOME / ".cache" / "huggingface"))


@contextmanager
def temporary(prefix: str) -> Iterator[Path]:
    """Create a folder for temporary files, and delete it when the block ends.

    Files that can't be deleted, because they are still being written, stay.

    Raises:
        ResourceError: no folder for temporary files is writable.
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
