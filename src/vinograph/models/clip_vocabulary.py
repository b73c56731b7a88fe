"""CLIP's tokenizer for files that have none: found in a model at hand, or fetched once.

All of SDXL's text encoders read the same vocabulary of 49,408 tokens, so that the tokenizer of any
other such model will do. A model of another vocabulary, such as an embedded one, is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vinograph import folders, strict_json
from vinograph.errors import DamagedModelError, ModelError
from vinograph.models import catalog
from vinograph.models.checkpoint import Checkpoint, from_repository
from vinograph.models.checkpoint_model import TokenizerPlan
from vinograph.models.hub_cache import cache_folder
from vinograph.models.hub_errors import UnreachableError

VOCABULARY_SIZE = 49_408
REPOSITORY = "stabilityai/stable-diffusion-xl-base-1.0"
"""Where the tokenizer is fetched from: the model that the single files were made from."""

_FOLDER = "tokenizer"
_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
_LARGEST = 16_000_000  # bytes; a tokenizer.json of this vocabulary has 4 MB
_FIRST, _LAST = "!", "<|endoftext|>"


def clip_tokenizers(lengths: Mapping[str, int], padding: Mapping[str, int]) -> dict[str, TokenizerPlan]:
    """CLIP's tokenizer, of a model on this disk or else of :data:`REPOSITORY`, which keeps it here.

    Args:
        lengths: the most tokens that each text encoder takes, by the name of its tokenizer.
        padding: the id of the padding of each.

    Raises:
        ModelError: there is none on this disk, and the hub can't be reached; the message names the
            command that fetches it.
        DamagedModelError: what was fetched is not CLIP's.
    """
    folder = next(_at_hand(), None) or _fetched()
    return {name: TokenizerPlan(folder, length, pad_id=padding[name]) for name, length in lengths.items()}


def _at_hand() -> Iterator[Path]:
    """The folders with CLIP's tokenizer on this disk: in the models folder, then in the hub's cache."""
    for bundle in catalog.installed():
        if _is_standard(bundle):
            yield bundle
    cache = cache_folder()
    if folders.is_there(cache):
        for folder in sorted(cache.glob(f"models--*/snapshots/*/{_FOLDER}")):
            if _is_standard(folder):
                yield folder


def _is_standard(folder: Path) -> bool:
    """Whether a folder's tokenizer has CLIP's own vocabulary, and all of its files."""
    fast, vocabulary = folder / "tokenizer.json", folder / "vocab.json"
    if fast.is_file():
        return _has_vocabulary(fast, lambda content: content["model"]["vocab"])
    return vocabulary.is_file() and (folder / "merges.txt").is_file() and _has_vocabulary(vocabulary, dict)


def _has_vocabulary(file: Path, find: Callable[[dict[str, Any]], Any]) -> bool:
    try:
        vocabulary = find(strict_json.read_object(file, largest=_LARGEST))
    except (OSError, strict_json.JsonError, LookupError, TypeError):  # a damaged file of a model that isn't opened
        return False
    if not isinstance(vocabulary, dict) or len(vocabulary) != VOCABULARY_SIZE:
        return False
    return vocabulary.get(_FIRST) == 0 and vocabulary.get(_LAST) == VOCABULARY_SIZE - 1


def _fetched() -> Path:
    from vinograph.models import hub

    try:
        checkpoint = from_repository(hub.look_up(REPOSITORY, None))
        checkpoint.fetch([f"{_FOLDER}/{name}" for name in _FILES])
    except UnreachableError as error:
        raise ModelError(_not_found(f"the hub can't be reached: {error}")) from error
    except ModelError as error:
        raise ModelError(_not_found(str(error))) from error
    return _checked(checkpoint)


def _checked(checkpoint: Checkpoint) -> Path:
    folder = checkpoint.directory / _FOLDER
    if not _is_standard(folder):
        raise DamagedModelError(
            f"{folder} doesn't hold CLIP's vocabulary of {VOCABULARY_SIZE:,} tokens: delete it, so that it is fetched "
            "again"
        )
    return folder


def _not_found(reason: str) -> str:
    names = " ".join(["model_index.json", *(f"{_FOLDER}/{name}" for name in _FILES)])
    return (
        "a single file holds no tokenizer, and no SDXL model in the models folder or in the hub's cache has one, nor "
        f"could it be fetched ({reason}). Name a model that has it with --base MODEL. Or fetch it, 2 MB, where there "
        f"is a connection: hf download {REPOSITORY} {names}"
    )
