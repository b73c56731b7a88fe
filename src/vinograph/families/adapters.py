"""What a family says of the adapters of its models: how their keys name its weights.

Each family has a module ``adapter_names`` with ``ADAPTERS``, an :class:`AdapterNames`. Modules have
the checkpoint's own paths (``down_blocks.1.attentions.0.proj_in``). Files name them in many ways:
with a prefix that says which network is meant, with underscores in place of dots, or by the names
of another implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Alias:
    """Another name of a module; the module is piece ``index`` of ``count`` equal pieces of rows."""

    name: str
    index: int = 0
    count: int = 1


def _no_aliases(_modules: Collection[str]) -> Iterator[tuple[str, Alias]]:
    """Name no module in another way."""
    return iter(())


def _no_idle_modules(_modules: Collection[str]) -> Collection[str]:
    """Name no module without effect."""
    return ()


@dataclass(frozen=True)
class AdaptedPart:
    """A network whose weights adapters change.

    Attributes:
        components: the model's components that hold its weights. Where two have a weight of the
            same name, the first has it as the checkpoint does.
        dotted: prefixes of paths with dots; "" stands for none.
        flat: prefixes of paths whose dots are underscores.
        aliases: given all modules, other names of some of them.
        idle_modules: given all modules of an opened model, paths of further modules that a
            checkpoint has and no result depends on.
    """

    components: tuple[str, ...]
    dotted: tuple[str, ...]
    flat: tuple[str, ...]
    aliases: Callable[[Collection[str]], Iterator[tuple[str, Alias]]] = _no_aliases
    idle_modules: Callable[[Collection[str]], Collection[str]] = _no_idle_modules


@dataclass(frozen=True)
class FoldedPair:
    """Two linear layers that a component of a bundle holds as one, under the outer one's name.

    Attributes:
        component: the component that holds their product.
        holder: the component that holds the outer layer alone.
        outer: a pattern of the outer layer's path; its first group is common to both paths.
        inner: the rest of the inner layer's path after the first group.
    """

    component: str
    holder: str
    outer: str
    inner: str


@dataclass(frozen=True)
class AdapterNames:
    """How adapters of a family's models name weights.

    Attributes:
        title: the models' name, for people.
        parts: the networks; of two that fit a key, the first is taken.
        signs: patterns of keys that only adapters of this family have.
        bases: a pattern of what metadata call its models.
        folds: pairs of layers that bundles hold as one.
        shifted: a pattern of layers whose bias in a bundle also holds another tensor's share, which
            depends on the layer's weight.
    """

    title: str
    parts: tuple[AdaptedPart, ...]
    signs: tuple[str, ...] = ()
    bases: str = r"(?!)"
    folds: tuple[FoldedPair, ...] = ()
    shifted: str = r"(?!)"


def with_prefix(prefix: str) -> Callable[[Collection[str]], Iterator[tuple[str, Alias]]]:
    """Aliases of all modules: their own paths after ``prefix``."""

    def aliases(modules: Collection[str]) -> Iterator[tuple[str, Alias]]:
        return ((module, Alias(f"{prefix}{module}")) for module in modules)

    return aliases
