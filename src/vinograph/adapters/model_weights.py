"""The weights of an opened model that adapters may change: names, shapes, and where they lie."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vinograph.errors import ModelError, RequestError
from vinograph.families import registry
from vinograph.families.adapters import AdapterNames
from vinograph.models.model import Model

if TYPE_CHECKING:
    from vinograph.runtime.ir_weights import Weight

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class FoldedLayer:
    """Two layers that a component holds as one, under the path of the ``outer`` one.

    The component ``holder`` has the outer one alone. ``inner`` is the inner one's path.
    """

    holder: str
    outer: str
    inner: str

    def names(self) -> tuple[str, str, str, str]:
        """The weights and biases of the outer and of the inner layer."""
        return f"{self.outer}.weight", f"{self.outer}.bias", f"{self.inner}.weight", f"{self.inner}.bias"


@dataclass(frozen=True)
class ModelWeights:
    """The weights of a model that adapters may change.

    Attributes:
        names: the family's names.
        shapes: by part of the family, the shape of each weight by its name.
        refused: by part, why a weight can't be changed.
        held: by component, the names of the weights that it is computed from.
        folded: by component, the layers that it holds as one.
    """

    names: AdapterNames
    shapes: Sequence[Shapes]
    refused: Sequence[Mapping[str, str]]
    held: Mapping[str, frozenset[str]]
    folded: Mapping[str, tuple[FoldedLayer, ...]]


def names_of(family: str) -> AdapterNames | None:
    """How adapters of a family's models name weights; None where the family takes none."""
    try:
        names: AdapterNames = registry.module(family, "adapter_names").ADAPTERS
    except ModuleNotFoundError:
        return None
    return names


def read_weights(model: Model) -> ModelWeights:
    """The weights of an opened model. Only headers, or graphs without their weights, are read.

    Raises:
        RequestError: the model's family takes no adapters.
        ModelError: the model's weights have no names.
        DamagedModelError: a component can't be read.
    """
    names = names_of(model.manifest.family)
    if names is None:
        raise RequestError(f"models of the family {model.manifest.family} take no adapters")
    own = [name for part in names.parts for name in part.components if name in model.manifest.components]
    shapes = {name: _shapes_of(model, name) for name in own}
    if any(not each for each in shapes.values()):
        raise ModelError(
            f"adapters can't change {model.manifest.name}: it was exported by another program, which left out the "
            "names of weights. Give the checkpoint that it was made from"
        )
    folded = {name: tuple(_folded(names, name, shapes)) for name in own if model.component_plan(name) is None}
    by_part, refused = [], []
    for part in names.parts:
        there = [name for name in part.components if name in shapes]
        together: dict[str, Shape] = {}
        for name in there:
            together = {**shapes[name], **_inner_shapes(folded.get(name, ()), shapes[name]), **together}
        is_bundle = any(name in folded for name in there)
        by_part.append(together)
        refused.append(_refused(names, together) if is_bundle else {})
    inner = {name: {each for layer in layers for each in layer.names()} for name, layers in folded.items()}
    held = {name: frozenset({*shapes[name], *inner.get(name, ())}) for name in own}
    return ModelWeights(names, by_part, refused, held, folded)


def _shapes_of(model: Model, name: str) -> Shapes:
    plan = model.component_plan(name)
    if plan is not None:
        return plan.shapes
    return {weight: each.shape for weight, each in graph_weights(model, name).items()}


def graph_weights(model: Model, name: str) -> Mapping[str, Weight]:
    """The named weights of a bundle's component, mapped from its file.

    Raises:
        DamagedModelError: OpenVINO can't read it.
    """
    from vinograph.runtime.ir_weights import read_weights as read

    return read(model.path / model.manifest.components[name].file)


def _folded(names: AdapterNames, component: str, shapes: Mapping[str, Shapes]) -> Iterator[FoldedLayer]:
    for pair in names.folds:
        if pair.component != component or pair.holder not in shapes:
            continue
        for weight in shapes[component]:
            path = weight.removesuffix(".weight")
            found = re.fullmatch(pair.outer, path)
            if path != weight and found and f"{found[1]}{pair.inner}.weight" not in shapes[component]:
                yield FoldedLayer(pair.holder, path, found[1] + pair.inner)


def _inner_shapes(layers: Sequence[FoldedLayer], shapes: Shapes) -> dict[str, Shape]:
    """The shapes of the inner layers: the product has the inner layer's, as the outer one is square."""
    found: dict[str, Shape] = {}
    for layer in layers:
        outer, _, weight, bias = layer.names()
        found[weight], found[bias] = shapes[outer], shapes[outer][:1]
    return found


def _refused(names: AdapterNames, shapes: Shapes) -> dict[str, str]:
    return {
        weight: (
            f"a bundle holds {weight} folded with another tensor: give the checkpoint that it was made from, or "
            "convert that with --adapter"
        )
        for weight in shapes
        if weight.endswith(".weight") and re.fullmatch(names.shifted, weight.removesuffix(".weight"))
    }
