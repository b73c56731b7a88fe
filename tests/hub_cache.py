"""A cache of the hub's, as huggingface_hub leaves it."""

from __future__ import annotations

import hashlib
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def save_cache(hub: Path, repository: str, checkpoint: Path) -> Path:
    """A cache as huggingface_hub leaves it: blobs named by their hashes, and a commit of links."""
    home = hub.absolute() / "--".join(["models", *repository.split("/")])
    (home / "blobs").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(COMMIT)
    for file in sorted(each for each in checkpoint.rglob("*") if each.is_file()):
        content = file.read_bytes()
        is_large = file.suffix == ".safetensors"
        name = hashlib.sha256(content) if is_large else hashlib.sha1(b"blob %d\0" % len(content) + content)
        blob = home / "blobs" / name.hexdigest()
        blob.write_bytes(content)
        link = home / "snapshots" / COMMIT / file.relative_to(checkpoint)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return hub
