"""Adapters in use: what they change in each component of a model, and the changed components."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vinograph.adapters import keys, recognition
from vinograph.adapters.bundle_source import AdaptedIr
from vinograph.adapters.file import AdapterFile, check_weights
from vinograph.adapters.matching import Match, match
from vinograph.adapters.merges import Merges
from vinograph.adapters.merging import Room, Term, room_of
from vinograph.adapters.model_weights import FoldedLayer, ModelWeights, read_weights
from vinograph.errors import RequestError
from vinograph.models.model import Model
from vinograph.models.parts import ComponentPlan
from vinograph.runtime.sources import IrFile
from vinograph.schema import label

if TYPE_CHECKING:
    from vinograph.networks.graph import Network, Storage
    from vinograph.networks.stored import StoredTensor

_NAMED = 5  # tensors that a warning names


@dataclass(frozen=True)
class AppliedAdapter:
    """An adapter with its weight, compared with a model."""

    reference: str
    weight: float
    file: AdapterFile
    match: Match


@dataclass(frozen=True)
class Adaptation:
    """What adapters change in a model's components.

    Attributes:
        adapters: those in use, in order.
        terms: by component and weight, what is added; weights have the checkpoint's names.
        folded: by component, layers that a bundle holds as one.
        warnings: tensors that change nothing.
    """

    adapters: tuple[AppliedAdapter, ...] = ()
    terms: Mapping[str, Mapping[str, tuple[Term, ...]]] = field(default_factory=dict)
    folded: Mapping[str, Sequence[FoldedLayer]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def weights(self) -> dict[str, float]:
        """The adapters' weights by the paths that were given."""
        return {each.reference: each.weight for each in self.adapters}

    def descriptions(self) -> list[str]:
        """Each adapter's file name with its weight, as the command line takes them."""
        return [f"{each.file.path.name}:{each.weight:g}" for each in self.adapters]

    def changes(self, component: str) -> bool:
        """Whether a component's weights change."""
        return bool(self.terms.get(component))

    def identity(self, component: str) -> str:
        """A text that tells what changes in a component, as part of caches' keys; "" for nothing."""
        if not self.changes(component):
            return ""
        used = {term.adapter for terms in self.terms[component].values() for term in terms}
        return repr([(*each.file.stamp(), each.weight) for each in self.adapters if str(each.file.path) in used])

    def plan(self, plan: ComponentPlan, room: Room | None = None) -> ComponentPlan:
        """The plan of a component with the changed weights.

        ``room`` holds them; None puts them where the graph's storage allocates arrays.
        """
        terms = self.terms.get(plan.name)
        return plan if not terms else dataclasses.replace(plan, build=_adapted_build(plan, terms, room))

    def ir(self, ir: IrFile, model: Model, room: Room) -> AdaptedIr:
        """A bundle's component with the changed weights, which ``room`` holds."""
        folded = self.folded.get(ir.name, ())
        holders = {each.holder: model.path / model.manifest.components[each.holder].file for each in folded}
        return AdaptedIr(ir, self.terms[ir.name], folded, holders, room)


NO_ADAPTERS = Adaptation()


def _adapted_build(
    plan: ComponentPlan, terms: Mapping[str, tuple[Term, ...]], room: Room | None
) -> Callable[[Storage], Network]:
    def build(storage: Storage) -> Network:
        with Merges(room or room_of(storage.allocate)) as merges:

            def adapt(name: str, tensor: StoredTensor) -> StoredTensor:
                own = terms.get(name)
                return merges.tensor(name, tensor, own) if own else tensor

            return plan.build(dataclasses.replace(storage, adapt=adapt, constant=merges.array))

    return build


def adapt(model: Model, adapters: Any) -> Adaptation:
    """Compare adapters with a model; headers alone are read.

    Args:
        model: the opened model.
        adapters: weights by path. A weight of 0 turns an adapter off; it is compared all the same.

    Raises:
        RequestError: ``adapters`` is no mapping from paths to numbers, there is no such file, or
            nothing in it fits the model; the message says which model it seems to be for.
        ModelError: a file is pickled, or the model's weights have no names.
        DamagedModelError: a file is damaged.
    """
    given = check_weights(adapters)
    if not given:
        return NO_ADAPTERS
    files = {name: AdapterFile.open(name) for name in given}
    weights = read_weights(model)
    applied = []
    for name, weight in given.items():
        found = match(files[name], weights)
        check_fits(files[name], found, model)
        applied.append(AppliedAdapter(name, weight, files[name], found))
    terms = {name: _terms_of(name, applied, weights) for name in weights.held}
    lines = [line for each in applied if (line := warning(each.file, each.match)) is not None]
    return Adaptation(tuple(applied), terms, weights.folded, tuple(lines))


def _terms_of(component: str, applied: Sequence[AppliedAdapter], weights: ModelWeights) -> dict[str, tuple[Term, ...]]:
    """What is added to each weight of a component by adapters that aren't turned off."""
    parts = {index for index, part in enumerate(weights.names.parts) if component in part.components}
    terms: dict[str, list[Term]] = {}
    for each in applied:
        for change in each.match.changes if each.weight else ():
            place = change.place
            if place.part in parts and place.weight in weights.held[component]:
                term = Term(str(each.file.path), each.weight, change.difference, place.index, place.count)
                terms.setdefault(place.weight, []).append(term)
    return {weight: tuple(own) for weight, own in terms.items()}


def check_fits(file: AdapterFile, found: Match, model: Model) -> None:
    """Refuse an adapter that is of another model, or of which nothing fits.

    Raises:
        RequestError: saying which model it seems to be for.
    """
    family, name = model.manifest.family, model.manifest.name
    foreign = recognition.foreign_model(file, found.used)
    families = recognition.families_of(file)
    if foreign is None and (not families or family in families) and (found.changes or found.idle):
        return
    if not any(keys.parse(key) or keys.other_kind(key) for key in file.tensors):
        raise RequestError(
            f"{file.path} holds no adapter: none of its {len(file.tensors)} tensors has the name of one, such as "
            f"{label(next(iter(file.tensors)))}. Give a LoRA's file; a whole model goes to --model"
        )
    seems = recognition.seems_for(file) if foreign is None else foreign
    reason = f"it seems to be for {label(seems)}" if seems else f"for example, {_example(found)}"
    raise RequestError(
        f"the adapter {file.path} is none for {name}, a model of the family {family}: {reason}. "
        f"See what it holds: vinograph adapters {file.path} --model {model.path}"
    )


def _example(found: Match) -> str:
    first = found.unused[0]
    return f"{label(first.tensor)} is unused: {first.reason}"


def warning(file: AdapterFile, found: Match) -> str | None:
    """A warning that names tensors of an adapter that change nothing; None where all do."""
    if not found.unused:
        return None
    named = ", ".join(label(each.tensor) for each in found.unused[:_NAMED])
    more = f" and {len(found.unused) - _NAMED} more" if len(found.unused) > _NAMED else ""
    reasons = list(dict.fromkeys(each.reason for each in found.unused))
    why = reasons[0] if len(reasons) == 1 else f"{reasons[0]}, and others"
    return (
        f"of the adapter {file.path.name}, {len(found.unused)} of {len(file.tensors)} tensors change nothing: "
        f"{named}{more} ({why}). `vinograph adapters` names all"
    )
