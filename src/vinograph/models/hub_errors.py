"""What failures of huggingface_hub mean: the hub is unreachable, it refuses, or the disk fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub import errors as hf_errors

from vinograph.errors import ModelError, RequestError, ResourceError
from vinograph.resources import Shortage, chain, explanation, shortage

DEFAULT_REVISION = "main"
LONGEST_REASON = 300  # characters
_HTTP_LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")


class UnreachableError(Exception):
    """The hub was not asked, did not answer, or answered nonsense; the message says which."""


@contextmanager
def explained(repository: str, revision: str | None) -> Iterator[None]:
    """Turn any failure of huggingface_hub in the block into an error that says what it means.

    Raises:
        UnreachableError: the network or the hub failed, or the hub's answer makes no sense.
        ModelError: the hub answered that it has no such thing for this user.
        ResourceError: the disk is full.
        RequestError: the cache can't be written, or the id is not one that the hub could have.
    """
    try:
        yield
    except (UnreachableError, MemoryError):
        raise
    except Exception as error:  # huggingface_hub lets through whatever its HTTP client raises
        raise _meaning(error, repository, revision) from error


def address(repository: str) -> str:
    """The page of a repository, or of the one that a file is in: its licence and terms are there."""
    return f"{constants.ENDPOINT}/{'/'.join(repository.split('/')[:2])}"


def _meaning(error: Exception, repository: str, revision: str | None) -> Exception:
    if shortage(error) is Shortage.DISK:
        return ResourceError(
            f"the disk is full: the hub's cache, {constants.HF_HUB_CACHE}, has no room for {repository}"
        )
    if (short := explanation(error)) is not None:
        return ResourceError(short)
    refusal = _refusal(error, repository, revision)
    if refusal is not None:
        return refusal
    for each in chain(error, suppressed=True):
        if isinstance(each, OSError) and isinstance(each.filename, (str, Path)) and _is_of_cache(Path(each.filename)):
            return RequestError(
                f"the hub's cache can't be used: {each.filename}: {each.strerror or each}. "
                "Set HF_HOME to a folder that can be written"
            )
    return UnreachableError(_reason(error))


def _refusal(error: Exception, repository: str, revision: str | None) -> ModelError | None:
    """The error for an answer of the hub that is about the repository, else None."""
    status = _status(error)
    if isinstance(error, hf_errors.GatedRepoError):
        return ModelError(f"{repository} is gated: accept its terms on {address(repository)}, then hf auth login")
    if isinstance(error, hf_errors.RepositoryNotFoundError):
        return ModelError(f"the hub has no {repository}, or not for this user (hf auth login)")
    if isinstance(error, hf_errors.RevisionNotFoundError):
        return ModelError(f"{repository} has no revision {revision or DEFAULT_REVISION}")
    if isinstance(error, hf_errors.HFValidationError):
        return ModelError(f"{repository} is not an id that the hub could have: {error}")
    if status in (401, 403):
        return ModelError(f"the hub does not let this user read {repository} (HTTP status {status}): hf auth login")
    if status == 404:
        return ModelError(f"the hub does not have what was asked for of {repository} (HTTP status 404)")
    return None


def _reason(error: Exception) -> str:
    """Why the hub could not be asked; never empty."""
    status = _status(error)
    if isinstance(error, hf_errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, ImportError) and "socks" in str(error).lower():
        return "the proxy that ALL_PROXY or HTTPS_PROXY names speaks SOCKS: pip install socksio"
    if status == 429:
        return "it has had too many requests from here (HTTP status 429): try again later, or hf auth login"
    if status is not None:
        return f"it answered with HTTP status {status}"
    errors = list(chain(error, suppressed=True))
    messages = [
        f"{type(each).__name__}: {' '.join(str(each).split())[:LONGEST_REASON]}" for each in errors if str(each)
    ]
    cause = messages[-1] if messages else type(error).__name__  # the last of the chain is the first that happened
    if any(isinstance(each, OSError) or type(each).__module__.partition(".")[0] in _HTTP_LIBRARIES for each in errors):
        return cause
    return f"its answer makes no sense: {cause}"


def _status(error: Exception) -> int | None:
    """The HTTP status of the answer that an exception, or a cause of it, is about."""
    found = (getattr(getattr(each, "response", None), "status_code", None) for each in chain(error, suppressed=True))
    return next((status for status in found if isinstance(status, int)), None)


def _is_of_cache(path: Path) -> bool:
    """Whether a path lies in the cache or in the folder of the user's token, or these lie in it."""
    homes = (Path(each).absolute() for each in (constants.HF_HUB_CACHE, constants.HF_HOME))
    return any(path.absolute().is_relative_to(home) or home.is_relative_to(path.absolute()) for home in homes)
