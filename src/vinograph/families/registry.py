"""The registry of families. A new one is one folder beside this file, and one line in it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType, ModuleType

from vinograph.errors import ModelError
from vinograph.families.contract import Family
from vinograph.families.known import KnownModel

FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "wuerstchen": "vinograph.families.wuerstchen",
        "sdxl": "vinograph.families.sdxl",
        "pixart": "vinograph.families.pixart",
    }
)
"""Package of each family, by its name."""


def module(name: str, room: str) -> ModuleType:
    """The module ``room`` of a family's package, such as "arguments" or "checkpoint".

    Raises:
        ModelError: there is no such family, naming those that there are.
    """
    if name not in FAMILIES:
        raise ModelError(f"the family {name!r} is not one that Vinograph draws; it draws {', '.join(FAMILIES)}")
    return importlib.import_module(f"{FAMILIES[name]}.{room}")


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        ModelError: there is no such family, naming those that there are.
    """
    found: Family = module(name, "arguments").FAMILY
    return found


def known_models() -> dict[str, tuple[str, KnownModel]]:
    """The published models with a short name: by that name, the family and the model."""
    return {model.name: (name, model) for name in FAMILIES for model in module(name, "known").KNOWN}
