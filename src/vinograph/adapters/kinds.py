"""The kinds of adapters, and the difference that each makes to a weight W.

LoRA: Hu et al. (arXiv 2106.09685). LoHa, LoKr and the forms for convolutions: Yeh et al., LyCORIS
(arXiv 2309.14859). DoRA: Liu et al. (arXiv 2402.09353). All are computed in f32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vinograph.models.safetensors import TensorRecord
from vinograph.networks.stored import as_f32, in_f32

Array = NDArray[np.float32]
Tensors = Mapping[str, TensorRecord]

_LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


class KindError(ValueError):
    """The tensors of a module make no difference; the message says why."""


class Difference(Protocol):
    """What one adapter at full strength adds to one weight."""

    @property
    def kind(self) -> str:
        """The kind of adapter, for people."""

    @property
    def rank(self) -> int | None:
        """The rank of its factors; None where it has none."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of :meth:`compute`'s result."""

    def compute(self, weight: Array, /) -> Array:
        """The difference, given the whole weight in f32: as many values as the weight has."""


@dataclass(frozen=True)
class LowRank:
    """scale · up · down: a LoRA without a middle factor.

    ``up`` is [out, r] and ``down`` [r, …]; either may have trailing dimensions of a convolution.
    """

    up: TensorRecord
    down: TensorRecord
    scale: float
    kind: str = "LoRA"

    @property
    def rank(self) -> int | None:
        """The rank."""
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """[out, …]."""
        return (self.up.shape[0], *self.down.shape[1:])

    def factors(self, strength: float = 1, index: int = 0, count: int = 1) -> tuple[Array, Array]:
        """Matrices [out, r] and [r, n] whose product is ``strength`` times the difference.

        Of ``count`` equal pieces of its rows, they are those of number ``index``.
        """
        rows = self.up.shape[0] // count
        up, down = (as_f32(each.read(), each.dtype).reshape(each.shape[0], -1) for each in (self.up, self.down))
        up = up[index * rows : (index + 1) * rows]
        up *= np.float32(self.scale) * np.float32(strength)  # in place: new memory takes longer than the product
        return up, down

    def compute(self, _weight: Array) -> Array:
        """See :class:`Difference`."""
        up, down = self.factors()
        return (up @ down).reshape(self.shape)


@dataclass(frozen=True)
class Computed:
    """A difference that is computed from its tensors in full."""

    tensors: Tensors
    scale: float
    kind: str
    rank: int | None
    shape: tuple[int, ...]

    def compute(self, _weight: Array) -> Array:
        """See :class:`Difference`."""
        values = {name: in_f32(tensor) for name, tensor in self.tensors.items()}
        found: Array = _COMPUTE[self.kind](values) * np.float32(self.scale)
        return found.reshape(self.shape)


@dataclass(frozen=True)
class Given:
    """A difference that the file holds as it is, or, as ``replaces`` says, the new weight itself."""

    tensor: TensorRecord
    kind: str
    replaces: bool = False
    rank: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.tensor.shape

    def compute(self, weight: Array) -> Array:
        """See :class:`Difference`."""
        values = in_f32(self.tensor)
        return values - weight if self.replaces else values


@dataclass(frozen=True)
class Scaled:
    """``scale`` times a tensor of the file."""

    tensor: TensorRecord
    scale: float
    kind: str = "LoRA"
    rank: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.tensor.shape

    def compute(self, _weight: Array) -> Array:
        """See :class:`Difference`."""
        return in_f32(self.tensor) * np.float32(self.scale)


@dataclass(frozen=True)
class Decomposed:
    """DoRA: m · (W + ΔW) / ‖W + ΔW‖ − W, with the norm of each row (axis 0) or column (axis 1).

    A column is all that one input is multiplied by, in a convolution at every place of the kernel.
    """

    inner: Difference
    magnitude: TensorRecord
    axis: int

    @property
    def kind(self) -> str:
        """DoRA, of whatever kind is within."""
        return "DoRA" if self.inner.kind == "LoRA" else f"DoRA of {self.inner.kind}"

    @property
    def rank(self) -> int | None:
        """The rank of what is within."""
        return self.inner.rank

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what is within."""
        return self.inner.shape

    def compute(self, weight: Array) -> Array:
        """See :class:`Difference`."""
        changed = weight + self.inner.compute(weight).reshape(weight.shape)
        others = tuple(each for each in range(changed.ndim) if each != self.axis)
        norm = np.sqrt(np.square(changed, dtype=np.float64).sum(others, keepdims=True)).astype(np.float32)
        view = [-1 if each == self.axis else 1 for each in range(changed.ndim)]
        factor = np.divide(in_f32(self.magnitude).reshape(view), norm, out=np.zeros_like(norm), where=norm > 0)
        found: Array = changed * factor - weight
        return found

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether there is a magnitude for each row, or for each column, of a weight."""
        return len(shape) > self.axis and self.magnitude.size == shape[self.axis]


def _decomposed(inner: Difference, tensors: Tensors) -> Difference:
    """DoRA of ``inner`` where there are magnitudes, whose shape says what they are of.

    PEFT has one for each row, however they are laid out. LyCORIS has [out, 1, …] or [1, in, …].

    Raises:
        KindError: their shape is neither.
    """
    if "row_magnitude" in tensors:
        return Decomposed(inner, tensors["row_magnitude"], 0)
    if "magnitude" not in tensors:
        return inner
    shape = tensors["magnitude"].shape
    long = [index for index, size in enumerate(shape) if size > 1]
    if len(long) > 1 or (long and long[0] > 1):
        raise KindError(f"its magnitudes have the shape {list(shape)}")
    return Decomposed(inner, tensors["magnitude"], long[0] if long else 0)


def _loha(values: Mapping[str, Array]) -> Array:
    halves = [_factor(values, f"hada_w{each}_a", f"hada_w{each}_b", f"hada_t{each}") for each in (1, 2)]
    return halves[0] * halves[1]


def _lokr(values: Mapping[str, Array]) -> Array:
    w1 = values["lokr_w1"] if "lokr_w1" in values else values["lokr_w1_a"] @ values["lokr_w1_b"]
    w2 = values["lokr_w2"] if "lokr_w2" in values else _factor(values, "lokr_w2_a", "lokr_w2_b", "lokr_t2")
    return np.kron(w1.reshape(*w1.shape, *(1,) * (w2.ndim - w1.ndim)), w2)


def _factor(values: Mapping[str, Array], a: str, b: str, core: str) -> Array:
    """a · b, or with a Tucker core [r, r, h, w] the sum of core[i, j] · a[i, out] · b[j, in]."""
    if core not in values:
        return values[a] @ values[b].reshape(len(values[b]), -1)
    found: Array = np.einsum("ijkl,jr,ip->prkl", values[core], values[b], values[a], optimize=True)
    return found


def _tucker(values: Mapping[str, Array]) -> Array:
    """up [out, r] ∘ mid [r, r, h, w] ∘ down [r, in]."""
    up, down = (values[name].reshape(values[name].shape[:2]) for name in ("up", "down"))
    found: Array = np.einsum("op,pqhw,qi->oihw", up, values["mid"], down, optimize=True)
    return found


def _embedding(values: Mapping[str, Array]) -> Array:
    """PEFT's factors [r, rows] and [width, r] of a table [rows, width]."""
    return (values["embedding_up"] @ values["embedding_down"]).T


_COMPUTE: Mapping[str, Any] = {"LoHa": _loha, "LoKr": _lokr, "LoCon (Tucker)": _tucker, "LoRA of a table": _embedding}


def differences(tensors: Tensors, settings: Mapping[str, Any]) -> dict[str, tuple[Difference, set[str]]]:
    """The differences that one module's tensors make, by parameter: "weight" and "bias".

    With each come the roles of the tensors that it is made of.

    Args:
        tensors: the module's tensors by role.
        settings: "alpha" in place of a tensor of that name, and whether PEFT's "use_rslora" is set.

    Raises:
        KindError: a tensor is missing or of an odd shape; the message says which.
    """
    made: dict[str, tuple[Difference, set[str]]] = {}
    factored = _factored(tensors, settings)
    if factored is not None:
        inner, roles = factored
        made["weight"] = _decomposed(inner, tensors), roles | {"alpha", "magnitude", "row_magnitude"}
    elif "magnitude" in tensors or "row_magnitude" in tensors:
        raise KindError("it has magnitudes alone, without the factors that they belong to")
    for role, parameter, replaces in _WHOLE:
        if role in tensors:
            if parameter in made:
                raise KindError(f"it changes its {parameter} in two ways")
            made[parameter] = Given(tensors[role], "full", replaces), {role, "alpha"}
    if "up_bias" in tensors and factored is not None and isinstance(factored[0], LowRank):
        if "bias" in made:
            raise KindError("it changes its bias in two ways")
        made["bias"] = Scaled(tensors["up_bias"], factored[0].scale), {"up_bias"}
    if not made:
        raise KindError(f"it has {', '.join(sorted(tensors))} alone")
    return made


_WHOLE = (
    ("diff", "weight", False),
    ("w_norm", "weight", False),
    ("set_weight", "weight", True),
    ("diff_b", "bias", False),
    ("b_norm", "bias", False),
    ("set_bias", "bias", True),
)


def _factored(tensors: Tensors, settings: Mapping[str, Any]) -> tuple[Difference, set[str]] | None:
    """The difference of a module's factors, and their roles; None where it has none."""
    if "down" in tensors or "up" in tensors:
        found = _lora(_all_of(tensors, "down", "up"), tensors, settings)
        return found, {"down", "up", "mid"}
    if any(role in tensors for role in _LOHA):
        found = _loha_of(_all_of(tensors, *_LOHA), tensors, settings)
        return found, {*_LOHA, "hada_t1", "hada_t2"}
    if any(role.startswith("lokr_") for role in tensors):
        return _lokr_of(tensors, settings)
    if "embedding_down" in tensors or "embedding_up" in tensors:
        used = _all_of(tensors, "embedding_down", "embedding_up")
        down, up = used["embedding_down"].shape, used["embedding_up"].shape
        if len(down) != 2 or len(up) != 2 or down[0] != up[1]:
            raise KindError(f"its factors have the shapes {list(up)} and {list(down)}")
        scale, rank = _scale(tensors, settings, down[0]), down[0]
        return Computed(used, scale, "LoRA of a table", rank, (down[1], up[0])), set(used)
    return None


def _all_of(tensors: Tensors, *roles: str) -> dict[str, TensorRecord]:
    for role in roles:
        if role not in tensors:
            raise KindError(f"it lacks {role}")
    return {role: tensors[role] for role in roles}


def _scale(tensors: Tensors, settings: Mapping[str, Any], rank: int) -> float:
    """alpha / rank; 1 without an alpha, or with 0. PEFT's rsLoRA divides by the root of the rank."""
    alpha = settings.get("alpha", 0.0)
    if "alpha" in tensors:
        if tensors["alpha"].size != 1:
            raise KindError(f"its alpha has the shape {list(tensors['alpha'].shape)}")
        alpha = float(in_f32(tensors["alpha"]).reshape(()))
    if not math.isfinite(alpha):
        raise KindError(f"its alpha is {alpha}")
    return (alpha or rank) / (math.sqrt(rank) if settings.get("use_rslora") and alpha else rank)


def _lora(used: Tensors, tensors: Tensors, settings: Mapping[str, Any]) -> Difference:
    up, down = used["up"].shape, used["down"].shape
    rank = down[0] if down else 0
    odd = KindError(f"its factors have the shapes {list(up)} and {list(down)}")
    if not rank or len(down) < 2 or len(up) < 2 or math.prod(up[2:]) != 1:
        raise odd
    scale = _scale(tensors, settings, rank)
    if "mid" in tensors:
        mid = tensors["mid"].shape
        if len(mid) != 4 or mid[:2] != (up[1], rank) or math.prod(down[2:]) != 1:
            raise KindError(f"its factors have the shapes {list(up)}, {list(mid)} and {list(down)}")
        parts = {**used, "mid": tensors["mid"]}
        return Computed(parts, scale, "LoCon (Tucker)", rank, (up[0], down[1], *mid[2:]))
    if up[1] != rank:
        raise odd
    return LowRank(used["up"], used["down"], scale, "LoCon" if len(down) == 4 else "LoRA")


def _loha_of(used: Tensors, tensors: Tensors, settings: Mapping[str, Any]) -> Difference:
    cores = {name: tensors[name] for name in ("hada_t1", "hada_t2") if name in tensors}
    shapes = [
        _pair_shape(used[f"hada_w{n}_a"].shape, used[f"hada_w{n}_b"].shape, cores.get(f"hada_t{n}")) for n in (1, 2)
    ]
    if shapes[0] != shapes[1]:
        raise KindError(f"its factors make the shapes {list(shapes[0])} and {list(shapes[1])}")
    rank = used["hada_w1_b"].shape[0]
    return Computed({**used, **cores}, _scale(tensors, settings, rank), "LoHa", rank, shapes[0])


def _pair_shape(a: tuple[int, ...], b: tuple[int, ...], core: TensorRecord | None) -> tuple[int, ...]:
    """The shape of :func:`_factor`'s result."""
    if core is None:
        if len(a) != 2 or len(b) not in (2, 4) or a[1] != b[0]:
            raise KindError(f"its factors have the shapes {list(a)} and {list(b)}")
        return a[0], math.prod(b[1:])
    if len(core.shape) != 4 or len(a) != 2 or len(b) != 2 or core.shape[:2] != (a[0], b[0]):
        raise KindError(f"its factors have the shapes {list(a)}, {list(core.shape)} and {list(b)}")
    return (a[1], b[1], *core.shape[2:])


def _lokr_of(tensors: Tensors, settings: Mapping[str, Any]) -> tuple[Difference, set[str]]:
    used: dict[str, TensorRecord] = {}
    ranks, shapes = [], []
    for name in ("lokr_w1", "lokr_w2"):
        if name in tensors:
            used[name] = tensors[name]
            shapes.append(tensors[name].shape)
            continue
        pair = _all_of(tensors, f"{name}_a", f"{name}_b")
        core = tensors.get("lokr_t2") if name == "lokr_w2" else None
        used |= pair if core is None else {**pair, "lokr_t2": core}
        shapes.append(_pair_shape(pair[f"{name}_a"].shape, pair[f"{name}_b"].shape, core))
        ranks.append(pair[f"{name}_b"].shape[0])
    (first, second), rank = shapes, max(ranks, default=0)
    if len(first) != 2 or len(second) not in (2, 4):
        raise KindError(f"its factors have the shapes {list(first)} and {list(second)}")
    shape = (first[0] * second[0], first[1] * second[1], *second[2:])
    # Without a decomposed factor there is no rank. LyCORIS then writes an alpha that means nothing.
    scale = _scale(tensors, settings, rank) if rank else settings.get("scale", 1.0)
    return Computed(used, scale, "LoKr", rank or None, shape), set(used)
