"""Which weights of a model an adapter changes, and why some of its tensors change none."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vinograph.adapters import keys
from vinograph.adapters.file import AdapterFile
from vinograph.adapters.kinds import Decomposed, Difference, KindError, differences
from vinograph.adapters.model_weights import ModelWeights, Shape
from vinograph.families.adapters import AdaptedPart, Alias
from vinograph.models.safetensors import TensorRecord
from vinograph.values import shown

_OWN, _OTHER, _IDLE = "own", "other", "idle"
_PLAIN = re.compile(r"[\w.]+")


@dataclass(frozen=True)
class Place:
    """A weight of a family's ``part``: piece ``index`` of ``count`` equal pieces of rows."""

    part: int
    weight: str
    index: int = 0
    count: int = 1


@dataclass(frozen=True)
class Change:
    """What one adapter at full strength adds to one weight: its piece of ``difference``."""

    place: Place
    difference: Difference


@dataclass(frozen=True)
class Unused:
    """A tensor of an adapter that changes nothing, and the reason."""

    tensor: str
    reason: str


@dataclass(frozen=True)
class Match:
    """An adapter compared with a model.

    Attributes:
        changes: what it changes.
        used: the names of the tensors that belong to changes.
        idle: the names of tensors for layers that no result of the model depends on.
        unused: all other tensors.
        styles: how its keys are named, with the number of modules of each.
    """

    changes: tuple[Change, ...]
    used: tuple[str, ...]
    idle: tuple[str, ...]
    unused: tuple[Unused, ...]
    styles: Mapping[str, int]


@dataclass(frozen=True)
class _Target:
    """A module that a path of a key means: its part, and its places by rows."""

    part: int
    prefix: str
    style: str
    modules: list[tuple[str, int, int]] = field(default_factory=list)
    idle: bool = False


class Index:
    """All paths by which keys may name a model's modules."""

    def __init__(self, weights: ModelWeights) -> None:
        self._targets: dict[str, _Target] = {}
        for index, (part, shapes) in enumerate(zip(weights.names.parts, weights.shapes, strict=True)):
            modules = dict.fromkeys(_module_of(name) for name in shapes)
            others = list(part.aliases(modules))
            idle = [(module, Alias(module)) for module in part.idle_modules(modules)]
            idle += list(part.aliases([module for module, _ in idle]))
            for named, kind in (
                ([(module, Alias(module)) for module in modules], _OWN),
                (others, _OTHER),
                (idle, _IDLE),
            ):
                self._add_all(index, part, named, kind)

    def _add_all(self, index: int, part: AdaptedPart, named: Iterable[tuple[str, Alias]], kind: str) -> None:
        for module, alias in named:
            for prefix in part.dotted:
                path = f"{prefix}.{alias.name}" if prefix else alias.name
                style = f"dotted, {prefix}.…" if prefix else "dotted, without a prefix"
                self._add(path, _Target(index, prefix, style, idle=kind == _IDLE), module, alias)
            for prefix in part.flat:
                style = f"{prefix}_…{' with the paths of the original code' if kind == _OTHER else ''}"
                path = f"{prefix}_{alias.name.replace('.', '_')}"
                self._add(path, _Target(index, prefix, style, idle=kind == _IDLE), module, alias)

    def _add(self, path: str, target: _Target, module: str, alias: Alias) -> None:
        """Let a path mean a module, too, if it isn't taken; pieces of one layer share theirs."""
        known = self._targets.setdefault(path, target)
        if known is target or (known.part == target.part and known.modules[0][2] == alias.count > 1):
            known.modules.append((module, alias.index, alias.count))

    def find(self, path: str) -> _Target | None:
        """The module that a path means; None where the model has none of it."""
        return self._targets.get(path)


def _module_of(weight: str) -> str:
    """The path of the module that has a parameter; a parameter of the network itself has its name."""
    module, dot, last = weight.rpartition(".")
    return module if dot and last in ("weight", "bias") else weight


def match(file: AdapterFile, weights: ModelWeights) -> Match:
    """Compare an adapter with a model; no value is read."""
    index, unused = Index(weights), []
    groups: dict[str, dict[str, str]] = {}
    whole: dict[str, tuple[str, str]] = {}
    for name in file.tensors:
        if (key := keys.parse(name)) is not None:
            if groups.setdefault(key.path, {}).setdefault(key.role, name) != name:
                unused.append(Unused(name, f"{groups[key.path][key.role]} says the same of its layer"))
        elif (kind := keys.other_kind(name)) is not None:
            unused.append(Unused(name, f"it is of the kind {kind}, which isn't computed"))
        elif (key := keys.whole_weight(name)) is not None and index.find(key.path) is not None:
            whole[name] = key
        else:
            unused.append(Unused(name, "its name is that of no tensor of an adapter"))
    for name, (path, role) in whole.items():  # retrained layers, which only files with other adapters have
        if groups and groups.setdefault(path, {}).setdefault(role, name) != name:
            unused.append(Unused(name, f"{groups[path][role]} says the same of its layer"))
        elif not groups:
            unused.append(Unused(name, "it is a whole weight, not a change of one"))
    return _match_groups(file, weights, index, groups, unused)


def _match_groups(
    file: AdapterFile,
    weights: ModelWeights,
    index: Index,
    groups: Mapping[str, Mapping[str, str]],
    unused: list[Unused],
) -> Match:
    changes: list[Change] = []
    used: list[str] = []
    idle: list[str] = []
    styles: dict[str, int] = {}
    for path, group in groups.items():
        target = index.find(path)
        if target is None:
            unused += [Unused(name, "the model has no such layer") for name in group.values()]
            continue
        if target.idle:
            idle += group.values()
            continue
        tensors = {role: file.tensors[name] for role, name in group.items()}
        try:
            found, roles = _changes(tensors, target, weights, _settings(file, target, path))
        except KindError as error:
            unused += [Unused(name, f"in {path}, {error}") for name in group.values()]
            continue
        styles[target.style] = styles.get(target.style, 0) + 1
        changes += found
        used += [name for role, name in group.items() if role in roles]
        unused += [
            Unused(name, f"the other tensors of {path} are of another kind")
            for role, name in group.items()
            if role not in roles
        ]
    return Match(tuple(changes), tuple(used), tuple(idle), tuple(unused), styles)


def _changes(
    tensors: Mapping[str, TensorRecord], target: _Target, weights: ModelWeights, settings: Mapping[str, Any]
) -> tuple[list[Change], set[str]]:
    """The changes that one module's tensors make, and the roles of those that they are made of.

    Raises:
        KindError: they don't fit the module; the message says why.
    """
    shapes, refused = weights.shapes[target.part], weights.refused[target.part]
    made = []
    used: set[str] = set()
    for parameter, (difference, roles) in differences(tensors, settings).items():
        used |= roles
        for module, piece, count in target.modules:
            weight = module if module in shapes and parameter == "weight" else f"{module}.{parameter}"
            if weight not in shapes:
                raise KindError(f"the model has no {weight}")
            if weight in refused:
                raise KindError(refused[weight])
            _check_shape(difference, shapes[weight], count)
            made.append(Change(Place(target.part, weight, piece, count), difference))
    return made, used


def _check_shape(difference: Difference, shape: Shape, count: int) -> None:
    """Check that a difference, or its piece, can be added to a weight.

    Convolutions of one pixel and linear layers have the same values, in four or two dimensions.
    """
    found = difference.shape
    rows = found[0] if found else 0
    if rows != count * shape[0] or math.prod(found[1:]) != math.prod(shape[1:]):
        raise KindError(f"its difference has the shape {list(found)}; the layer has {list(shape)}")
    if not isinstance(difference, Decomposed):
        return
    if count > 1 and difference.axis != 0:
        raise KindError("its magnitudes are of the inputs of several layers together, which isn't computed")
    if not difference.fits((shape[0] * count, *shape[1:])):
        raise KindError(f"it has {difference.magnitude.size} magnitudes; the layer has the shape {list(shape)}")


def _settings(file: AdapterFile, target: _Target, path: str) -> dict[str, Any]:
    """PEFT's settings of one module: its "alpha", and whether "use_rslora" is set."""
    config = file.settings(target.prefix)
    rank, alpha = config.get("r"), config.get("lora_alpha", config.get("alpha"))
    alpha = _by_pattern(config.get("alpha_pattern"), path, alpha)
    rank = _by_pattern(config.get("rank_pattern"), path, rank)
    found: dict[str, Any] = {"use_rslora": config.get("use_rslora") is True}
    if _is_number(alpha):
        found["alpha"] = float(alpha)
        if _is_number(rank) and rank:
            found["scale"] = float(alpha) / float(rank)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _by_pattern(patterns: Any, path: str, otherwise: Any) -> Any:
    """The value of the first pattern that ends ``path``, as PEFT compares them.

    Raises:
        KindError: a pattern is more than a path; regular expressions of a file aren't run.
    """
    for pattern, value in (patterns if isinstance(patterns, Mapping) else {}).items():
        plain = str(pattern).removeprefix("^").replace(r"\.", ".")
        if not _PLAIN.fullmatch(plain):
            raise KindError(f"its alpha or rank follows the pattern {shown(pattern)}, which isn't a module's path")
        if path == plain or path.endswith(f".{plain}"):
            return value
    return otherwise
