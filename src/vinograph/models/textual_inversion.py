"""Words that were learned by textual inversion (Gal et al., arXiv 2208.01618), added to a model.

A file has one or more vectors for each text encoder, which stand for a word of the prompt. Three
layouts are read: ``clip_l`` and ``clip_g`` in one file, as A1111 and ComfyUI read them; a word and
its vectors, as diffusers saves them in one file for each encoder; and ``emb_params``, which only
models with a single text encoder have.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vinograph import folders
from vinograph.errors import ModelError, RequestError
from vinograph.families import registry
from vinograph.families.contract import WordEmbeddings
from vinograph.models import hub_file
from vinograph.models.manifest import Manifest
from vinograph.models.model import Model
from vinograph.models.safetensors import TensorRecord, read_header
from vinograph.schema import is_plain, label
from vinograph.text import FIRST_LEARNED_ID, Tokenizer
from vinograph.values import reading, shown

if TYPE_CHECKING:
    from vinograph.models.parts import ComponentPlan

Paths: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Embeddings: TypeAlias = Mapping[str, Paths] | Paths
"""Files of learned words, or a mapping from the word to its file or files.

An empty word stands for the one that the file names, or for the file's name.
"""

_ENDING = ".safetensors"
_SINGLE = "emb_params"  # the vectors of a model with one text encoder
_ALIAS = "embedding:"  # ComfyUI writes it before the word
_OTHERS: Mapping[int, str] = {768: "SD 1.5", 1024: "SD 2", 1280: "the second text encoder of SDXL", 4096: "T5"}
_LONGEST_WORD = 100
_MOST_TENSORS = 16
_FLOATS = ("F64", "F32", "F16", "BF16")

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class _Found:
    """Vectors [n, width] in a file: under a key, for a word if the file names one."""

    file: Path
    key: str
    word: str | None
    vectors: Vectors


def with_embeddings(model: Model, embeddings: Embeddings) -> Model:
    """The model with the learned words of these files.

    A word is the key of the mapping if it isn't empty, else the one that the file names, else the
    file's name without its ending.

    Raises:
        RequestError: a file is not of this model, or a word is no word.
        ModelError: a file can't be read, or is pickled.
        DamagedModelError: a file is damaged.
    """
    encoders = registry.family(model.manifest.family).word_embeddings
    files = list(_files(embeddings))
    if not files:
        return model
    if not encoders:
        raise RequestError(
            f"{model.manifest.name} takes no embeddings of words: it is a model of the family {model.manifest.family}"
        )
    words: dict[str, dict[str, Vectors]] = {}
    used: list[tuple[str, Path]] = []
    for word, file in files:
        keys = [each.key for each in encoders]
        for found in _read(file, keys):
            encoder = _encoder_of(found, model, encoders)
            vectors = words.setdefault(_checked_word(word or found.word or file.stem), {})
            if encoder in vectors:
                raise RequestError(f"{file} has vectors for the {encoder} that another file has for the same word, too")
            vectors[encoder] = found.vectors
            used.append((_checked_word(word or found.word or file.stem), file))
    for word, vectors in words.items():
        _check_whole(word, vectors, model, encoders)
    return _ModelWithWords(model, words, encoders, tuple(dict.fromkeys(used)))


def files_of_words(model: Model) -> tuple[tuple[str, Path], ...]:
    """The learned words of a model, each with a file that it was read from."""
    return model.word_files if isinstance(model, _ModelWithWords) else ()


def folder() -> Path:
    """The folder of learned words that are known by their files' names."""
    return folders.models() / "embeddings"


def installed() -> list[Path]:
    """The files in the folder of learned words, by name."""
    return sorted(folder().glob(f"*{_ENDING}")) if folders.is_there(folder(), directory=True) else []


def by_name(name: str) -> Path | None:
    """The file in the folder of learned words that is called ``name``, with or without its ending."""
    wanted = name.removesuffix(_ENDING)
    return next((file for file in installed() if file.name == f"{wanted}{_ENDING}"), None)


def _files(embeddings: Embeddings) -> Iterator[tuple[str | None, Path]]:
    """Each file, with the word that the caller names for it."""
    with reading("embeddings", embeddings):
        entries = embeddings.items() if isinstance(embeddings, Mapping) else [(None, embeddings)]
        for word, paths in entries:
            for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
                if not isinstance(path, (str, os.PathLike)) or not isinstance(word, str | None):
                    raise RequestError(f"embeddings names {shown(path)}; give files, or a mapping from word to file")
                yield word, _located(os.fspath(path))


def _located(name: Any) -> Path:
    """A file of words: on this disk, in the folder of learned words by its name, or on the hub."""
    file = folders.expand(name)
    if folders.is_there(file):
        return file
    found = by_name(os.fsdecode(name)) or hub_file.fetched(os.fsdecode(name))
    if found is None:
        raise RequestError(
            f"embeddings names {file}, and there is no such file; by name there is "
            f"{', '.join(each.stem for each in installed()) or 'none'} in {folder()}"
        )
    return found


def _read(file: Path, keys: Collection[str]) -> Iterator[_Found]:
    """The vectors of a file. ``keys`` are those of the family's encoders.

    Raises:
        RequestError: it is no textual inversion.
    """
    records = read_header(file)
    if not 0 < len(records) <= _MOST_TENSORS:
        raise RequestError(f"{file} is no textual inversion: it has {len(records)} tensors")
    for key, record in records.items():
        if len(record.shape) not in (1, 2) or 0 in record.shape or record.dtype not in _FLOATS:
            raise RequestError(
                f"{file} is no textual inversion: its tensor {label(key)} has shape {list(record.shape)} and type "
                f"{record.dtype}, where vectors should be"
            )
        yield _Found(file, key, None if key in (*keys, _SINGLE) else key, _values(record))


def _values(record: TensorRecord) -> Vectors:
    from vinograph.networks.stored import in_f32

    vectors = np.array(in_f32(record), ndmin=2)
    if not np.isfinite(vectors).all():
        raise RequestError(f"{record.file}: the vectors {label(record.name)} hold NaN or infinity")
    return vectors


def _encoder_of(found: _Found, model: Model, encoders: Sequence[WordEmbeddings]) -> str:
    """The text encoder that vectors are for: by their key, or by their width.

    Raises:
        RequestError: they are for none.
    """
    width = found.vectors.shape[1]
    widths = {each.text_encoder: _width(model, each) for each in encoders}
    fitting = [each.text_encoder for each in encoders if each.key == found.key] or [*widths]
    encoder = next((each for each in fitting if widths[each] == width), None)
    if encoder is None or found.key == _SINGLE:
        raise _other(found.file, model, {width}, encoders)
    return encoder


def _width(model: Model, each: WordEmbeddings) -> int:
    return int(model.manifest.components[each.text_encoder].outputs["hidden_states"].shape[-1])


def _other(file: Path | str, model: Model, widths: set[int], encoders: Sequence[WordEmbeddings]) -> RequestError:
    ours = ", ".join(f"{_width(model, each)} ({each.key})" for each in encoders)
    theirs = ", ".join(f"{width} for {_OTHERS[width]}" if width in _OTHERS else str(width) for width in sorted(widths))
    return RequestError(
        f"{file} has vectors of the width {theirs}, and {model.manifest.name} needs {ours}: give an embedding that "
        f"was made for {registry.family(model.manifest.family).title}"
    )


def _checked_word(word: str) -> str:
    if not 0 < len(word.strip()) <= _LONGEST_WORD or not is_plain(word):
        raise RequestError(f"an embedding's word is {shown(word)}; give one of up to {_LONGEST_WORD} characters")
    return word.strip()


def _check_whole(word: str, vectors: Mapping[str, Vectors], model: Model, encoders: Sequence[WordEmbeddings]) -> None:
    """Check that each encoder has vectors of a word, as many as the other, and not too many.

    Raises:
        RequestError: naming the word.
    """
    if len(vectors) < len(encoders):
        raise _other(f"the embedding {label(word)}", model, {each.shape[1] for each in vectors.values()}, encoders)
    counts = {each.text_encoder: len(vectors[each.text_encoder]) for each in encoders}
    longest = min(model.tokenizer(each.tokenizer).max_length for each in encoders) - 2
    if len(set(counts.values())) > 1 or max(counts.values()) > longest:
        found = ", ".join(f"{count} for the {name}" for name, count in counts.items())
        raise RequestError(
            f"the embedding {label(word)} has {found}; give as many vectors for each text encoder, at most {longest}"
        )


@dataclass(frozen=True)
class _ModelWithWords:
    """A model whose text encoders and tokenizers know further words.

    ``words`` has the vectors of each word by text encoder, and ``word_files`` the file of each.
    """

    model: Model
    words: Mapping[str, Mapping[str, Vectors]]
    encoders: Sequence[WordEmbeddings]
    word_files: tuple[tuple[str, Path], ...]

    @property
    def path(self) -> Path:
        """The directory of the model."""
        return self.model.path

    @property
    def manifest(self) -> Manifest:
        """The model's manifest."""
        return self.model.manifest

    @property
    def size(self) -> int:
        """The model's bytes on the disk."""
        return self.model.size

    @property
    def tokenizers(self) -> Collection[str]:
        """The tokenizers' names."""
        return self.model.tokenizers

    @property
    def files(self) -> Collection[str]:
        """The names of the files that the model is read from."""
        return self.model.files

    @property
    def hashed_files(self) -> Collection[str]:
        """The names of the files whose hash is known."""
        return self.model.hashed_files

    def verify(self) -> Iterator[str]:
        """Check every file of the model."""
        return self.model.verify()

    def weights_size(self, name: str) -> int:
        """The bytes of a component's weights."""
        return self.model.weights_size(name)

    def component_plan(self, name: str) -> ComponentPlan | None:
        """The plan by which a component is built, without the words."""
        return self.model.component_plan(name)

    def extension(self, name: str) -> Callable[[Any], None] | None:
        """A function that adds the words' vectors to a text encoder's graph; None for other components."""
        vectors = self._vectors(name)
        return None if vectors is None else partial(self._extend, name, vectors)

    def _extend(self, name: str, vectors: Vectors, graph: Any) -> None:
        from vinograph.networks.token_embeddings import NoTableError, add_token_vectors

        try:
            add_token_vectors(graph, vectors, FIRST_LEARNED_ID)
        except NoTableError as error:
            file = self.path / self.manifest.components[name].file
            raise ModelError(f"{file} takes no embeddings of words: it has {error}") from error

    def fingerprint(self, name: str) -> str:
        """A text that changes whenever the component does, or a word's vectors."""
        vectors, own = self._vectors(name), self.model.fingerprint(name)
        return own if vectors is None else f"{own} {hashlib.sha256(vectors.tobytes()).hexdigest()}"

    def tokenizer(self, name: str) -> Tokenizer:
        """Read a tokenizer, which gets the words."""
        tokenizer = self.model.tokenizer(name)
        for each in self.encoders:
            if each.tokenizer == name:
                ids = self._ids(each.text_encoder)
                tokenizer.add_words({**ids, **{_ALIAS + word: own for word, own in ids.items()}})
        return tokenizer

    def _vectors(self, encoder: str) -> Vectors | None:
        """The vectors of all words for a text encoder; None for other components."""
        found = [vectors[encoder] for vectors in self.words.values() if encoder in vectors]
        return np.concatenate(found) if found else None

    def _ids(self, encoder: str) -> dict[str, range]:
        ids, first = {}, FIRST_LEARNED_ID
        for word, vectors in self.words.items():
            ids[word] = range(first, first + len(vectors[encoder]))
            first += len(vectors[encoder])
        return ids
