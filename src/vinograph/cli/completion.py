"""What a shell completes: names of models, adapters and schedulers, without opening any."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

_VARIABLE = "_VINOGRAPH_COMPLETE"  # set by the scripts that --install-completion and --show-completion write
_DEVICES = ("AUTO", "CPU", "GPU", "NPU")

Names = Callable[[], Iterable[str]]


def is_asked() -> bool:
    """Whether a shell runs this process to complete a command line."""
    return _VARIABLE in os.environ


def answer(command: Any) -> int:
    """Print what the shell asks for, and return the exit code."""
    try:
        command.main(args=[], prog_name="vinograph", complete_var=_VARIABLE)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def completing(names: Names) -> Callable[[str], list[str]]:
    """A function that completes one of the names, as typer wants it."""

    def complete(incomplete: str) -> list[str]:
        return [each for each in names() if each.startswith(incomplete)]

    return complete


def one_of(*choices: str) -> Names:
    """Always the same names."""
    return lambda: choices


def models() -> list[str]:
    """Names of the embedded models and of those in the models folder."""
    from vinograph.models import catalog

    return [path.name for path in (*catalog.embedded(), *catalog.installed())]


def known_models() -> list[str]:
    """Names of published models that can be fetched."""
    from vinograph.families import registry

    return list(registry.known_models())


def adapters() -> list[str]:
    """Names of the adapters in their folder."""
    from vinograph.adapters.file import installed

    return [path.stem for path in installed()]


def schedulers() -> list[str]:
    """Names of schedulers, spelled without spaces, which a shell would have to quote."""
    from vinograph.schedulers.named import names

    return [each.replace("++", "pp").replace(" ", "_") for each in names()]


BY_OPTION: dict[str, Names] = {
    "model": models,
    "base": models,
    "adapter": adapters,
    "scheduler": schedulers,
    "decoder_scheduler": schedulers,
    "device": one_of(*_DEVICES),
    "precision": one_of("auto", "bf16", "f16", "f32"),
    "memory": one_of("auto", "low"),
}
"""Names of each option's values. Options with other values are completed with files."""
