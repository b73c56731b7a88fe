"""Simulated kills before any operation on a folder, or in the middle of a write."""

from __future__ import annotations

import builtins
import contextlib
import gc
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openvino as ov
import pytest


class Killed(BaseException):  # like KeyboardInterrupt: no error that code may handle
    """Raised in the place of the operation at which the process dies, and of all later ones."""


class Operations:
    """Counts changes of ``folder`` while in force, and dies before the operation ``deadly``.

    ``deadly`` is the operation's number or name. With ``torn``, a file that the operation before
    wrote has only half of its bytes. ``names`` are the operations so far.
    """

    def __init__(self, folder: Path, deadly: int | str | None = None, torn: bool = False) -> None:
        self.names: list[str] = []
        self._folder = str(folder.resolve())
        self._deadly = deadly
        self._torn = torn
        self._dead = False
        self._written: tuple[Path, ...] = ()

    @contextlib.contextmanager
    def in_force(self) -> Iterator[Operations]:
        """Watch the operations of the block."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("rename", "replace", "unlink", "remove", "rmdir", "mkdir"):
                patch.setattr(os, name, self._counted(name, getattr(os, name)))
            opened = self._opened(open)
            for module in (builtins, io):
                patch.setattr(module, "open", opened)
            patch.setattr(ov, "save_model", self._saved(ov.save_model))
            yield self

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(path: Any, *rest: Any, **options: Any) -> Any:
            inside = options.get("dir_fd") is not None or str(path).startswith(self._folder)
            if inside and _exists(path, options.get("dir_fd")) != (name == "mkdir"):
                self._happens(f"{name} {Path(path).name}")
            return function(path, *rest, **options)

        return run

    def _opened(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            if set(mode) & set("wax+") and not isinstance(file, int) and str(file).startswith(self._folder):
                self._happens(f"write {Path(file).name}", Path(file))
            return function(file, mode, *rest, **options)

        return run

    def _saved(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(model: ov.Model, file: Path, **options: Any) -> None:
            self._happens(f"write {file.name}", file, file.with_suffix(".bin"))
            function(model, file, **options)

        return run

    def _happens(self, name: str, *written: Path) -> None:
        if self._dead or self._deadly in (len(self.names), name):
            self._dead = True
            if self._torn:
                for file in self._written:
                    with contextlib.suppress(FileNotFoundError):
                        os.truncate(file, file.stat().st_size // 2)
            self._torn = False
            raise Killed(name)
        self.names.append(name)
        self._written = written


def _exists(path: Any, folder: int | None) -> bool:
    try:
        os.stat(path, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def kill_everywhere(
    folder: Callable[[str], Path], work: Callable[[Path], object], check: Callable[[Path, str], None], every: int = 1
) -> list[str]:
    """Kill ``work`` before each operation and in each write, run it again, ``check`` the folder.

    ``folder`` makes a folder with the initial files. ``check`` gets it, and how the first run died.
    With ``every``, it is killed at one of so many operations, and at each kind of them. Returns the
    names of an undisturbed run's operations.
    """
    gc.freeze()  # keeps garbage collection after each death short
    with Operations(whole := folder("undisturbed")).in_force() as undisturbed:
        work(whole)
    check(whole, "undisturbed")
    names, kinds = undisturbed.names, [name.partition(" ")[0] for name in undisturbed.names]
    for deadly, name in enumerate(names):
        if deadly % every and kinds.index(kinds[deadly]) != deadly:
            continue
        before = names[deadly - 1] if deadly else ""
        for torn in (False, True) if before.startswith("write ") else (False,):
            place = folder(f"{deadly}{'-torn' if torn else ''}")
            _die(Operations(place, deadly, torn), place, work)
            work(place)
            check(place, f"killed before operation {deadly} ({name}), {'in' if torn else 'after'} {before!r}")
    return names


def kill(place: Path, work: Callable[[Path], object], before: str) -> None:
    """Kill ``work`` before its first operation of that name."""
    _die(Operations(place, before), place, work)


def _die(operations: Operations, place: Path, work: Callable[[Path], object]) -> None:
    with operations.in_force():
        try:
            work(place)
        except Killed:
            pass
        else:
            raise AssertionError("it was to be killed")
    gc.collect()  # as the system closes a dead process's files, the lock among them
