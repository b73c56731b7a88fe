"""Odd objects and random choices of arguments for a call, for property tests."""

from __future__ import annotations

import decimal
import fractions
import itertools
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from random import Random
from types import FunctionType
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.bundles import save_bundle, save_pixart_bundle, save_sdxl_bundle
from vinograph import ModelError, NumericalError, Pipeline, RequestError
from vinograph.families.contract import Call, Step
from vinograph.request import Request, arguments_of


class RaisesAlways:
    """An object whose every method raises."""

    def _raise(self, *_: Any) -> Any:
        raise ArithmeticError("never")

    __repr__ = __str__ = __eq__ = __ne__ = __bool__ = __len__ = __iter__ = __int__ = __float__ = _raise
    __index__ = __hash__ = __lt__ = __le__ = __gt__ = __ge__ = __getitem__ = __contains__ = __fspath__ = _raise
    __array__ = __getattr__ = __call__ = __abs__ = __mod__ = _raise


class HasNoClass(RaisesAlways):
    """An object whose class can't be read, so that isinstance raises."""

    @property
    def __class__(self) -> Any:
        raise LookupError("no class")

    @__class__.setter
    def __class__(self, _: Any) -> None: ...


class LongRepr:
    """An object whose repr has a megabyte, on many lines."""

    def __repr__(self) -> str:
        return "\x1b[31mred\n" * 100_000


class BrokenArray:
    """An object that claims to be an array and isn't."""

    ndim, shape, dtype = 4, (1, 4, 8, 8), "float32"

    def __array__(self, *_: Any, **__: Any) -> Any:
        return "no array"


class BrokenGenerator:
    """An object with the methods of a torch.Generator that don't work."""

    device = "cpu"

    def get_state(self) -> Any:
        return torch.zeros(5056, dtype=torch.uint8)

    def manual_seed(self, _: int) -> None: ...


class OddText(str):
    """A text whose methods raise."""

    def __eq__(self, _: object) -> bool:
        raise ArithmeticError("never equal")

    __hash__ = str.__hash__

    def __iter__(self) -> Any:
        raise ArithmeticError("no letters")


def _ring() -> Any:
    ring: list[Any] = [1]
    ring.append(ring)
    return ring


def _objects(*items: Any) -> Any:
    array = np.empty(len(items), object)
    for index, each in enumerate(items):
        array[index] = each
    return array


def _closed() -> Image.Image:
    picture = Image.new("RGB", (64, 64))
    picture.close()
    return picture


_MODES = (
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"),
    *("I", "I;16", "I;16B", "F"),
)
ODD: Mapping[str, Callable[[], Any]] = {
    **{kind.__name__: kind for kind in (RaisesAlways, HasNoClass, LongRepr, BrokenArray, BrokenGenerator, object)},
    "odd text": lambda: OddText("a red house"),
    "huge": lambda: 10**5000,
    "huge below 0": lambda: -(10**5000),
    "many bits": lambda: 2**64,
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "large": lambda: 1e300,
    "tiny": lambda: 5e-324,
    "minus 0": lambda: -0.0,
    "complex": lambda: 1j,
    "decimal": lambda: decimal.Decimal("0.5"),
    "fraction": lambda: fractions.Fraction(1, 2),
    "bool": lambda: True,
    "int64": lambda: np.int64(1),
    "uint64": lambda: np.uint64(2**64 - 1),
    "float16": lambda: np.float16(0.5),
    "longdouble": lambda: np.longdouble("1e4000"),
    "numpy bool": lambda: np.bool_(True),
    "numpy text": lambda: np.str_("pil"),
    "time": lambda: np.datetime64("2020-01-01"),
    "0-d": lambda: np.array(0.5),
    "text array": lambda: np.array(["a", "b"]),
    "objects": lambda: _objects(RaisesAlways(), None),
    "record": lambda: np.zeros(3, [("a", "f4")]),
    "empty array": lambda: np.zeros((0, 4, 8, 8), np.float32),
    "wide array": lambda: np.broadcast_to(np.float32(0), (1, 4, 100_000, 100_000)),
    "wide picture": lambda: np.broadcast_to(np.uint8(0), (20_000, 20_000, 3)),
    "many pictures": lambda: np.broadcast_to(np.uint8(0), (100_000, 2, 2, 3)),
    "complex array": lambda: np.zeros((1, 4, 8, 8), np.complex64),
    "NaN array": lambda: np.full((1, 4, 8, 8), np.nan),
    "large array": lambda: np.full((1, 4, 8, 8), 1e300),
    "latents": lambda: np.zeros((1, 4, 8, 8), np.float32),
    "latents of booleans": lambda: np.zeros((1, 4, 8, 8), bool),
    "latents of whole numbers": lambda: np.full((1, 16, 3, 3), 2**63 - 1),
    "masks": lambda: np.zeros((3, 8, 8), bool),
    "texts' states": lambda: np.zeros((1, 20, 8)),
    "ragged": lambda: [[1, 2], [3]],
    "ragged arrays": lambda: [np.zeros((1, 16, 3, 3)), np.zeros((16, 3))],
    "huge numbers": lambda: [[[[10**400] * 8] * 8] * 4],
    "tensor": lambda: torch.zeros(1, 4, 8, 8),
    "tensor with gradients": lambda: torch.zeros(1, 16, 3, 3, requires_grad=True),
    "bfloat16 tensor": lambda: torch.zeros(1, 3, 64, 64).bfloat16(),
    "tensor of nothing": lambda: torch.zeros(1, 4, 8, 8, device="meta"),
    "sparse tensor": lambda: torch.zeros(8, 8).to_sparse(),
    "0-d tensor": lambda: torch.tensor(1.5),
    "set": lambda: {1, 2},
    "frozenset": lambda: frozenset({"a"}),
    "generator expression": lambda: (each for each in "ab"),
    "endless": itertools.count,
    "range": lambda: range(10**9),
    "bytes": lambda: b"\x89PNG",
    "memoryview": lambda: memoryview(bytes(64)),
    "mapping": lambda: {"a": 1},
    "empty list": list,
    "empty tuple": tuple,
    "ring": _ring,
    "list of all": lambda: [RaisesAlways(), 10**5000, "a" * 300],
    "long list": lambda: [1.0] * 1_000_000,
    "empty text": lambda: "",
    "zero byte": lambda: "\0",
    "long name": lambda: "a" * 300,
    "long path": lambda: "/".join(["a" * 300 + ".png"] * 20),
    "long text": lambda: "x" * 1_000_000,
    "half a character": lambda: "\ud800",
    "nobody's home": lambda: "~nobody-at-all/picture.png",
    "folder": lambda: "/",
    "device": lambda: "/dev/null",
    "type": lambda: int,
    "function": lambda: len,
    "ellipsis": lambda: ...,
    "seeds": lambda: [torch.Generator(), torch.Generator()],
    "nested seeds": lambda: [[torch.Generator()]],
    "numpy seeds of another kind": lambda: np.random.RandomState(np.random.PCG64(1)),
    "new numpy seeds": lambda: np.random.default_rng(1),
    "closed picture": _closed,
    "picture": lambda: Image.new("RGB", (64, 64), "red"),
    "long picture": lambda: Image.new("RGB", (10_000, 1), "white"),
    "high picture": lambda: Image.new("L", (1, 10_000), "white"),
    "no pixels": lambda: Image.new("RGB", (0, 5)),
    **{f"picture of {mode}": partial(Image.new, mode, (64, 48)) for mode in _MODES},
    "pictures": lambda: [Image.new("RGB", (64, 64)), Image.new("L", (9, 7))],
    "picture and path": lambda: [Image.new("RGB", (64, 64)), "nowhere.png"],
}

# Usually valid values, so that invalid ones get further; each is made from a random choice.
USUAL: Mapping[str, Callable[[Random], Any]] = {
    "prompt": lambda random: random.choice(["a red house", ["a", "b"], ""]),
    "negative_prompt": lambda _: "blue",
    "image": lambda random: _some_picture(random),
    "mask_image": lambda random: random.choice([_some_picture(random), np.ones((64, 64)), torch.ones(1, 64, 64)]),
    "padding_mask_crop": lambda random: random.choice([0, 5, 40]),
    "extend": lambda random: random.choice([8, (64, 0, 8, 0), "0,16,0,0", [0, 0, 0, 512]]),
    "strength": lambda random: random.uniform(0.05, 1),
    "denoising_start": lambda random: random.random(),
    "denoising_end": lambda random: random.uniform(0.3, 1),
    "num_images_per_prompt": lambda random: random.choice([1, 2, np.int64(2)]),
    "image_embeddings": lambda random: np.zeros((random.choice([1, 2]), 16, 3, 3)),
    "generator": lambda random: random.choice([torch.Generator(), np.random.RandomState(5), [torch.Generator()]]),
    "output_type": lambda random: random.choice(["pil", "np", "latent"]),
    "callback_on_step_end": lambda random: random.choice([lambda *_: None, lambda *_: RaisesAlways(), lambda *_: {}]),
    "guidance_scale": lambda random: random.choice([0.0, 1.0, 5.0, np.float16(2), 1e29]),
    "prior_guidance_scale": lambda random: random.choice([0.0, 5.0]),
    "guidance_rescale": lambda random: random.random(),
    "clip_skip": lambda random: random.choice([0, 1, 2]),
    "eta": lambda random: random.random(),
    "vae": lambda random: random.choice(["full", "tiny"]),
    "use_resolution_binning": lambda random: random.choice([True, False]),
    "clean_caption": lambda random: random.choice([True, False]),
    "original_size": lambda random: (random.randrange(-9, 9), 10**6),
    "timesteps": lambda random: random.choice([[900, 300], [0.9, 0.0], np.array([5, 1]), torch.tensor([0.5, 0.1])]),
    "sigmas": lambda random: random.choice([[10.0, 0.0], torch.tensor([3.0, 1.0, 0.0])]),
}
_PICTURES = [name for name in ODD if "picture" in name or "array" in name or "tensor" in name]


def _some_picture(random: Random) -> Any:
    """A small picture in a random form, usually a readable one."""
    width, height = random.choice([(64, 64), (64, 128), (70, 90), (1, 300), (500, 2), (1, 1)])
    mode = random.choice(["RGB", "L", "RGBA", "LA", "La", "P", "1", "I", "I;16", "F", "CMYK"])
    made = Image.new(mode, (width, height), random.choice([0, 1, 255]) if mode in "LP1I;16F" else "white")
    pixels = np.asarray(made.convert("RGB") if mode != "La" else Image.new("RGB", (width, height), "white"))
    forms = [made, made, pixels, pixels / 255, pixels[None], torch.from_numpy(pixels.copy()).permute(2, 0, 1), [made]]
    return random.choice(forms)


def odd_arguments(call: Call, random: Random, kind: type[Request]) -> dict[str, Any]:
    """Arguments of ``call``: some usual ones, up to two of any kind, and few steps."""
    known = arguments_of(kind)
    names = [name for name in call.takes if name != "return_dict"]
    given: dict[str, Any] = {name: random.choice([1, 2]) for name in names if name.endswith("inference_steps")}
    if call.positional[0] in USUAL:
        given[call.positional[0]] = USUAL[call.positional[0]](random)
    for name in random.sample(names, min(len(names), random.randrange(4))):
        needs = [each for each in known[name].needs if each in names]
        for each in (*needs, name):
            if each in USUAL:
                given[each] = USUAL[each](random)
    for name in random.sample(names, min(len(names), random.choice([0, 0, 1, 1, 2]))):
        given[name] = ODD[random.choice(_PICTURES if "image" in name and random.random() < 0.8 else [*ODD])]()
    if random.random() < 0.02:
        given["x" * 100_000] = 1
    return given


CALLS = [
    *(("wuerstchen", call) for call in ("generate", "prior", "decoder", "encode", "reconstruct")),
    *((family, call) for family in ("sdxl", "pixart") for call in ("generate", "encode", "reconstruct")),
]
LONGEST = 2_000  # characters of a message


def small_pipelines(folder: Path) -> dict[str, Pipeline]:
    """A pipeline of a trivial bundle of each family."""
    savers = {"wuerstchen": save_bundle, "sdxl": save_sdxl_bundle, "pixart": save_pixart_bundle}
    return {name: Pipeline.from_pretrained(save(folder / name).path, precision="f32") for name, save in savers.items()}


def answer(pipe: Pipeline, call: str, arguments: Mapping[str, Any], *, make: bool) -> str | None:
    """The message of a refused call; a call that isn't refused may only fail by its numbers."""
    try:
        steps = pipe.stream(call=call, **arguments)
    except (RequestError, ModelError) as error:
        said = str(error)
        assert len(said) <= LONGEST
        assert said.isprintable()
        return said
    if not make or any("callback" in name and type(value) is not FunctionType for name, value in arguments.items()):
        steps.close()  # what a caller's own function raises is the caller's
        return None
    try:
        for each in steps:
            if isinstance(each, Step):
                each.preview()
    except NumericalError:
        return None
    except RequestError as error:
        if "the callback returned" not in str(error):  # which is known only when it comes
            raise
    return None
