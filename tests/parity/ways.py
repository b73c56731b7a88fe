"""One model by all ways to a picture: its directory opened as it is, its bundle, the command line.

:class:`AllWays` is the pipeline of a checkpoint's directory. Each of its calls is repeated with the
bundle that the checkpoint was converted to: by the command line if that has options for all
arguments, else by a call. The results must agree in every bit, so that what holds of one holds of
all.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import huggingface_hub as hf
import numpy as np
import pytest
import torch
from PIL import Image

from tests.hub_cache import save_cache
from vinograph import Pipeline, Result, VinographError
from vinograph.cli import main
from vinograph.images import to_pictures
from vinograph.models.bundle import Bundle
from vinograph.request import OPTIONS
from vinograph.schedulers import Sampler

_CALLBACKS = ("callback", "callback_on_step_end", "prior_callback_on_step_end")
_GENERATE = "generate"
_FILES = ("image", "mask_image")
_SIZES = {"height", "width"}


class AllWays(Pipeline):
    """The pipeline of a checkpoint's directory, which compares every result with the other ways."""

    def __init__(self, directory: Pipeline, bundle: Pipeline) -> None:
        self.__dict__.update(directory.__dict__)
        self._directory, self._bundle = directory, bundle
        self._compares_commands = True
        self.counts = {"bundle": 0, "command line": 0}

    @classmethod
    def opened(cls, directory: Path, bundle: str | Path | Bundle) -> AllWays:
        """The pipeline of a directory and its bundle, both in f32."""
        model = Pipeline(bundle, precision="f32") if isinstance(bundle, Bundle) else None
        return cls(
            Pipeline.from_pretrained(directory, precision="f32"),
            model or Pipeline.from_pretrained(str(bundle), precision="f32"),
        )

    @property
    def bundle(self) -> Path:
        """The bundle's path."""
        return self._bundle.model.path

    def free(self) -> None:
        """Free what is compiled; another drawing compiles it again."""
        for pipe in (self._directory, self._bundle):
            for session in pipe._sessions._opened.values():
                session.release()

    def changed(self, change: Callable[[Any], Any]) -> AllWays:
        """The same with other components; no command line has an option for that."""
        pipes = []
        for each in (self._directory, self._bundle):
            pipe = copy.copy(each)
            pipe._components = change(each._components)
            pipes.append(pipe)
        made = AllWays(*pipes)
        made.counts, made._compares_commands = self.counts, False
        return made

    def with_sampler(self, sampler: Sampler) -> AllWays:
        """The same with another sampler than the model's scheduler names."""
        return self.changed(
            lambda components: dataclasses.replace(
                components, config=dataclasses.replace(components.config, sampler=sampler)
            )
        )

    def _finish(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        others = {key: _before(value) for key, value in kwargs.items()}
        arguments = dict(kwargs)
        seen: dict[str, list[tuple[Any, Any]]] = {}
        for key in _CALLBACKS:
            if callable(arguments.get(key)):
                arguments[key] = _recording(arguments[key], seen.setdefault(key, []))
                others[key] = _replaying(seen[key])
        try:
            drawn = super()._finish(name, args, arguments)
        except VinographError as error:
            _refused_alike(self._bundle, error, name, args, others)
            raise
        if isinstance(drawn, Result) and drawn.seeds is not None:
            others["seed"] = drawn.seeds[0]  # the random seed of a call without one
        # The command line has no callbacks, but those that change nothing don't matter.
        only_looks = not any(_changes(*each) for calls in seen.values() for each in calls)
        if self._compares_commands and only_looks and isinstance(drawn, Result) and name == _GENERATE:
            given = {key: each for key, each in others.items() if key not in _CALLBACKS}
            if self._command_draws(args, given, drawn):
                return drawn
        _assert_equal(drawn, self._bundle._finish(name, args, others))
        assert not any(seen.values()), "the bundle's callbacks were called as often"
        self.counts["bundle"] += 1
        return drawn

    def _command_draws(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], drawn: Result) -> bool:
        """Generate the same by the command line with the bundle; False without options for it."""
        given = {**dict(zip(self.calls[_GENERATE].positional, args, strict=False)), **kwargs}
        with tempfile.TemporaryDirectory() as folder:
            line = command_line(self._bundle, given, Path(folder))
            if line is None:
                return False
            drawing, pictures = run(self._bundle, line, Path(folder), drawn.request.image_count)
        as_drawn = drawn.images if isinstance(drawn.images, list) else to_pictures(np.asarray(drawn.images))
        for one, other in zip(pictures, as_drawn, strict=True):
            assert np.array_equal(np.asarray(one), np.asarray(other)), "the command line writes something else"
        if not isinstance(drawn.images, list):
            assert np.array_equal(drawing.images, drawn.images), "directory and bundle draw different bits"
        if drawn.image_embeddings is not None:
            assert np.array_equal(drawing.image_embeddings, drawn.image_embeddings)
        self.counts["command line"] += 1
        return True


def command_line(pipe: Pipeline, given: Mapping[str, Any], folder: Path) -> list[str] | None:
    """The words of the same ``vinograph generate``, or None without options for it.

    Pictures are written to ``folder``.
    """
    arguments = {key: value for key, value in given.items() if value is not None}
    prompt, kind = arguments.pop("prompt", None), arguments.pop("output_type", "pil")
    options = {argument: name for name, argument in {**OPTIONS, **pipe.options}.items()}
    if not isinstance(prompt, str) or prompt.startswith("-") or "seed" not in arguments or kind == "latent":
        return None
    words = [prompt]
    if arguments.keys() >= _SIZES:
        words += ["--size", f"{arguments.pop('width')}x{arguments.pop('height')}"]
    for key, value in arguments.items():
        text = _text(value) if key not in _FILES else _saved(value, folder / f"{key}.png")
        if key not in options or text is None:
            return None
        words += [f"--{options[key].replace('_', '-')}", text]
    return words


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "on" if value else "off"
    return repr(value) if isinstance(value, int | float) else value if isinstance(value, str) else None


def _saved(value: Any, file: Path) -> str | None:
    """The file of a PIL picture, or None for other objects."""
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3:
        value = Image.fromarray(value)
    if not isinstance(value, Image.Image) or value.mode not in ("RGB", "L"):
        return None
    value.save(file)
    return str(file)


def run(pipe: Pipeline, words: list[str], folder: Path, count: int) -> tuple[Any, list[Image.Image]]:
    """The result of ``vinograph generate`` with an opened model, and the pictures it writes."""
    file = folder / "drawn.png"
    line = [_GENERATE, *words, "--model", str(pipe.model.path), "--precision", "f32", "--output", str(file)]
    drawings = []

    def keep(self: Pipeline, request: Any, drawing: Any, result: Any = Pipeline._result) -> Result:
        drawings.append(drawing)
        kept: Result = result(self, request, drawing)
        return kept

    opening = mock.patch.object(Pipeline, "from_pretrained", return_value=pipe)
    with opening, mock.patch.object(Pipeline, "_result", keep), _quietly() as said:
        assert main(line) == 0, said.getvalue()
    files = [file] if count == 1 else [file.with_name(f"drawn-{index}.png") for index in range(1, count + 1)]
    pictures = []
    for each in files:
        with Image.open(each) as image:
            assert json.loads(image.info["vinograph"])["model"] == pipe.model.manifest.name
            pictures.append(image.copy())
    return drawings[0], pictures


@contextmanager
def _quietly() -> Iterator[io.StringIO]:
    """Capture standard output and error."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        yield said


def _before(value: Any) -> Any:
    """A copy of a generator in its present state; other objects are returned unchanged."""
    if isinstance(value, list):
        # The same generator may be in a list twice.
        known = {id(each): _before(each) for each in value}
        return [known[id(each)] for each in value]
    if isinstance(value, torch.Generator):
        return value.clone_state()
    return copy.deepcopy(value) if isinstance(value, np.random.RandomState) else value


def _changes(shown: tuple[Any, ...], returned: Any) -> bool:
    """Whether a callback returned other tensors than it was given."""
    if not isinstance(returned, dict):
        return returned is not None
    return not all(np.array_equal(value, shown[-1][key]) for key, value in returned.items())


def _recording(callback: Any, seen: list[tuple[Any, Any]]) -> Any:
    def record(*args: Any) -> Any:
        shown = _frozen(args)
        returned = callback(*args)
        seen.append((shown, _frozen(returned)))
        return returned

    return record


def _replaying(seen: list[tuple[Any, Any]]) -> Any:
    def replay(*args: Any) -> Any:
        shown, returned = seen.pop(0)
        for one, other in zip(_arrays(shown), _arrays(_frozen(args)), strict=True):
            assert np.array_equal(one, other), "the bundle's callback is shown something else"
        return returned

    return replay


def _frozen(value: Any) -> Any:
    """A copy of arrays, also inside mappings and tuples."""
    if isinstance(value, tuple):
        return tuple(map(_frozen, value))
    if isinstance(value, dict):
        return {key: _frozen(each) for key, each in value.items()}
    return np.array(value) if isinstance(value, np.ndarray | torch.Tensor | np.generic) else value


def _arrays(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for each in value:
            yield from _arrays(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _arrays(each)
    elif not isinstance(value, Pipeline):
        yield value


def _refused_alike(bundle: Pipeline, error: VinographError, name: str, args: Any, kwargs: Any) -> None:
    with pytest.raises(type(error)):
        bundle._finish(name, args, kwargs)


def _assert_equal(directory: Any, bundle: Any) -> None:
    """Check that two results have the same bits and seeds."""
    if isinstance(directory, Result):
        assert directory.seeds == bundle.seeds
        assert (directory.image_embeddings is None) == (bundle.image_embeddings is None)
        if directory.image_embeddings is not None:
            assert np.array_equal(directory.image_embeddings, bundle.image_embeddings)
        assert directory.report == bundle.report
        directory, bundle = directory.images, bundle.images
    if directory is None:
        assert bundle is None
        return
    assert len(directory) == len(bundle)
    for one, other in zip(directory, bundle, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other)), "directory and bundle draw different bits"


@contextmanager
def in_the_hubs_cache(folder: Path, repository: str, checkpoint: Path) -> Iterator[None]:
    """Put a checkpoint into a cache of the hub, and cut the network off."""
    save_cache(folder, repository, checkpoint)
    with mock.patch.multiple(hf.constants, HF_HUB_CACHE=str(folder), HF_HUB_OFFLINE=True):
        yield
