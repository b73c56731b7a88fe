"""Seeded Gaussian noise, equal to what ``torch.randn`` draws on a CPU, in numpy.

torch's CPU generator is the Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998), seeded from
the low 32 bits of the seed. For 16 or more float32 values ``torch.randn`` turns each raw draw's low
24 bits into a uniform number and applies the Box–Muller transform within blocks of 16.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.values import reading, shown

Array = NDArray[np.float32]

MAX_SEED = 2**64 - 1
_BLOCK = 16
_STATE_WORDS = 624
_TORCH_STATE_BYTES = 5056


class Noise(Protocol):
    """A source of Gaussian noise for a whole batch."""

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Draw standard normal float32 values; ``shape[0]`` is the batch."""
        ...

    def first(self, count: int) -> Noise:
        """Source of noise for the first ``count`` pictures.

        A source that serves the whole batch returns itself.
        """
        ...


class TorchNoise:
    """The stream of ``torch.Generator().manual_seed(seed)`` on a CPU."""

    def __init__(self, seed: int) -> None:
        self._twister = np.random.RandomState(seed & 0xFFFFFFFF)

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Draw standard normal float32 values of any ``shape`` with at least 16 elements.

        Equal to ``torch.randn(shape, generator=g)`` up to 5e-7 (torch's vectorised logarithm and
        cosine differ from the C library's in the last bit).

        Raises:
            RequestError: fewer than 16 values, which torch draws by another algorithm.
        """
        count = int(np.prod(shape))
        if count < _BLOCK:
            raise RequestError(f"noise of shape {shape} has {count} values; at least {_BLOCK} are needed")
        values = self._uniform(count)
        in_blocks = count - count % _BLOCK
        values[:in_blocks] = _box_muller(values[:in_blocks])
        if in_blocks < count:
            values[-_BLOCK:] = _box_muller(self._uniform(_BLOCK))
        return values.reshape(shape)

    def first(self, count: int) -> Noise:
        """This source itself, which serves the whole batch."""
        del count
        return self

    def _uniform(self, count: int) -> Array:
        raw = np.frombuffer(self._twister.bytes(4 * count), dtype="<u4")
        return (raw & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)


class _BorrowedTorchNoise(TorchNoise):
    """The stream of a caller's ``torch.Generator``, advanced as if torch had drawn from it.

    The generator's state is read at each draw: the caller may draw from it in between, or pass it
    for several pictures.
    """

    def __init__(self, generator: Any) -> None:
        super().__init__(0)
        self._generator = generator
        _read_torch_state(generator)  # refuse an unusable generator before any work
        if not callable(generator.set_state):
            raise RequestError(f"generator is a {type(generator).__name__}, whose state can't be set")

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Draw like :class:`TorchNoise` from the caller's generator, and advance it."""
        words, position = _read_torch_state(self._generator)
        self._twister.set_state(("MT19937", words, position, 0, 0.0))
        values = super().normal(shape)
        _write_torch_state(self._generator, *_twister_state(self._twister))
        return values


class PerImageNoise:
    """One source per picture of the batch, like a list of generators in diffusers."""

    def __init__(self, sources: Sequence[Noise]) -> None:
        self._sources = tuple(sources)

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Draw each picture's values from its own source.

        Raises:
            RequestError: the batch size differs from the number of sources.
        """
        if shape[0] != len(self._sources):
            raise RequestError(f"{len(self._sources)} generators were given for {shape[0]} pictures; give one each")
        return np.concatenate([source.normal((1, *shape[1:])) for source in self._sources])

    def first(self, count: int) -> Noise:
        """The sources of the first ``count`` pictures."""
        return PerImageNoise(self._sources[:count])


def random_seed() -> int:
    """Random 32-bit seed from the operating system, short enough to read out and type."""
    return secrets.randbelow(2**32)


def noise_from_seeds(seeds: Sequence[int]) -> Noise:
    """Noise for a batch whose picture *i* is drawn from ``seeds[i]``."""
    return PerImageNoise([TorchNoise(seed) for seed in seeds])


def noise_from_generator(generator: Any) -> Noise:
    """Source of noise for a value of the argument ``generator``.

    A ``torch.Generator`` on the CPU is drawn from and advances, as in diffusers. As in
    optimum-intel, a ``numpy.random.RandomState`` means a torch generator seeded with the first word
    of its state: ``RandomState(987)`` means seed 987. It doesn't advance. A list holds one
    generator per picture.

    Raises:
        RequestError: any other value, or a generator on another device.
    """
    if isinstance(generator, (list, tuple)):
        sources = [_source(each) for each in generator]
        return sources[0] if len(sources) == 1 else PerImageNoise(sources)
    return _source(generator)


def _source(generator: Any) -> Noise:
    if isinstance(generator, np.random.RandomState):
        with reading("generator", generator):  # its bit generator may be another one
            words, _ = _twister_state(generator)
        return TorchNoise(int(words[0]))
    if hasattr(generator, "get_state") and hasattr(generator, "manual_seed"):
        with reading("generator", generator):
            return _BorrowedTorchNoise(generator)
    raise RequestError(
        f"generator is a {type(generator).__name__}; give a torch.Generator, a numpy.random.RandomState, or a list "
        "of them with one per picture (or seed=, a number)"
    )


def _box_muller(uniform: Array) -> Array:
    """Box and Muller (1958) in torch's layout: of each 16 values, 8 give radii, then 8 angles."""
    blocks = uniform.reshape(-1, 2, _BLOCK // 2)
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - blocks[:, 0]))
    angle = np.float32(2 * np.pi) * blocks[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


def _twister_state(twister: np.random.RandomState) -> tuple[NDArray[np.uint32], int]:
    """The 624 words of a Mersenne Twister and the position in them."""
    state = twister.get_state(legacy=False)
    assert isinstance(state, dict)
    return np.asarray(state["state"]["key"], np.uint32), int(state["state"]["pos"])


def _read_torch_state(generator: Any) -> tuple[NDArray[np.uint32], int]:
    """State of a CPU generator: the 624 words and the position in them.

    The layout is that of ATen's CPUGeneratorImplStateLegacy.
    """
    state = _torch_state_bytes(generator)
    remaining = int(state[8:12].view("<i4")[0])
    following = int(state[16:24].view("<u8")[0])
    words = state[24 : 24 + 8 * _STATE_WORDS].view("<u8").astype(np.uint32)
    return words, _STATE_WORDS if remaining == 1 else following


def _write_torch_state(generator: Any, words: NDArray[np.uint32], position: int) -> None:
    tensor = generator.get_state()
    state = tensor.numpy()
    state[8:12].view("<i4")[0] = _STATE_WORDS - position + 1
    state[16:24].view("<u8")[0] = position
    state[24 : 24 + 8 * _STATE_WORDS].view("<u8")[:] = words
    generator.set_state(tensor)


def _torch_state_bytes(generator: Any) -> NDArray[np.uint8]:
    device = getattr(getattr(generator, "device", None), "type", "cpu")
    if device != "cpu":
        raise RequestError(f"generator is on the device {shown(device)}; give one on the CPU: torch.Generator('cpu')")
    state = np.asarray(generator.get_state().numpy())
    if state.dtype != np.uint8 or state.size != _TORCH_STATE_BYTES:
        raise RequestError("the torch.Generator's state has an unknown layout; give seed= instead")
    return state
