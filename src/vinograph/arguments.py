"""Checks of single argument values: sizes, seeds, guidance scales, prompts, arrays.

A check also lists the types that it accepts, as annotations. The signatures of the calls are
generated from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinograph.errors import RequestError
from vinograph.noise import MAX_SEED, noise_from_generator, random_seed
from vinograph.schedulers import choose
from vinograph.values import MAX_VALUES, as_array, reading, shown

Array = NDArray[np.float32]

OUTPUT_TYPES = ("pil", "np", "latent")
VAES = ("full", "tiny")
PROMPT_WEIGHTINGS = ("none", "a1111", "comfyui")
LONG_PROMPTS = ("truncate", "chunks")
UPSCALERS = ("lanczos", "latent")
VAE_TILINGS = ("auto", "on", "off")
SWITCH: Mapping[str, bool] = {"on": True, "off": False}
MAX_STEPS = 1000
MAX_COUNT = 1000
MAX_PROMPT = 20_000  # characters; more than any text encoder reads, and longer texts take long to tokenize
_RANDOM = -1  # as a seed
_MAX_TOKENS = 512
_MAX_PIXELS = 1_000_000
_MAX_NUMBER = 1e30  # its square fits f64, where a check can see that it overflows f32


@dataclass(frozen=True)
class Limits:
    """Limits that checks compare a value with.

    The first three are the model's size limits, in pixels. The others belong to the call: a
    description of valid custom timesteps, the names of predefined ones, the choices of
    ``output_type``, and the tensors that a callback can request.
    """

    size_multiple: int = 1
    minimum_size: int = 1
    maximum_size: int = _MAX_PIXELS
    custom_timesteps: str = "a falling list of numbers"
    named_timesteps: tuple[str, ...] = ()
    output_types: tuple[str, ...] = OUTPUT_TYPES
    callback_tensors: tuple[str, ...] = ("latents",)


_ANY = Limits()

_SCALARS: Mapping[str, type[int] | type[float] | type[bool]] = {each.__name__: each for each in (int, float, bool)}

Run = Callable[[str, Any, Limits], Any]
Accepts = Callable[[Limits], tuple[str, ...]]


@dataclass(frozen=True)
class Check:
    """The check of an argument's value.

    ``run`` gets the argument's name for errors, the value and the limits. It returns the value in
    normalized form, or raises RequestError. ``accepts`` lists the accepted types: the alternatives
    of an annotation, with names from :mod:`vinograph.inputs`. A quoted alternative is a literal.
    """

    run: Run
    accepts: Accepts

    def __call__(self, name: str, value: Any, limits: Limits = _ANY) -> Any:
        """Check ``value`` and return it in normalized form.

        Raises:
            RequestError: the value doesn't fit, or one of its own methods raises an exception. The
                message names the argument, its value and what would fit.
        """
        with reading(name, value):
            return self.run(name, value, limits)

    @property
    def choices(self) -> tuple[str, ...]:
        """The texts that are accepted, if there is a fixed set of them."""
        return tuple(each.strip('"') for each in self.accepts(_ANY) if each.startswith('"'))

    @property
    def scalar(self) -> type[int] | type[float] | type[bool] | None:
        """The type of the values if they are numbers or booleans, else None."""
        return _SCALARS.get(self.accepts(_ANY)[0])


def check(*accepts: str) -> Callable[[Run], Check]:
    """Turn a function into a :class:`Check` that accepts these types whatever the limits are."""
    return lambda run: Check(run, lambda _: accepts)


def quoted(text: str) -> str:
    """The text in double quotes, as annotations and messages show it."""
    return f'"{text}"'


def _number(name: str, value: Any, expected: str) -> float:
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    number = float(value) if real and abs(value) < _MAX_NUMBER else math.nan
    if math.isnan(number):
        raise RequestError(f"{name} is {shown(value)}; give {expected}")
    return number


def _whole_number(name: str, value: Any, low: int, high: int, besides: str = "") -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise RequestError(f"{name} is {shown(value)}; give a whole number from {low} to {high}{besides}")
    return int(value)


def whole_number_check(low: int, high: int) -> Check:
    """A check of whole numbers from ``low`` to ``high``."""
    return check("int")(lambda name, value, _: _whole_number(name, value, low, high))


def _number_check(expected: str, fits: Callable[[float], bool]) -> Check:
    @check("float")
    def run(name: str, value: Any, _: Limits) -> float:
        number = _number(name, value, expected)
        if not fits(number):
            raise RequestError(f"{name} is {shown(value)}; give {expected}")
        return number

    return run


check_steps = whole_number_check(1, MAX_STEPS)
check_count = whole_number_check(1, MAX_COUNT)
check_tokens = whole_number_check(1, _MAX_TOKENS)
check_layers = whole_number_check(-MAX_COUNT, MAX_COUNT)  # the family knows how many layers its encoders have
check_strength = _number_check("a number above 0 and up to 1", lambda number: 0 < number <= 1)
check_share = _number_check("a number above 0 and below 1", lambda number: 0 < number < 1)
check_factor = _number_check("a number from 1 to 8", lambda number: 1 <= number <= 8)
check_amount = _number_check("a number from 0 to 1", lambda number: 0 <= number <= 1)


@check("int")
def check_seed(name: str, value: Any, _: Limits) -> int:
    """Check a seed; -1 becomes a random one, as other programs for pictures have it."""
    if isinstance(value, (int, np.integer)) and value == _RANDOM:
        return random_seed()
    return _whole_number(name, value, 0, MAX_SEED, f", or {_RANDOM} for a random one")


@check("float")
def check_scale(name: str, value: Any, _: Limits) -> float:
    """Check a guidance scale."""
    number = _number(name, value, "a number from 0 up")
    if number < 0:
        raise RequestError(f"{name} is {shown(value)}; give a number from 0 up (1 and below turn guidance off)")
    return number


@check("bool")
def check_switch(name: str, value: Any, _: Limits) -> bool:
    """Check a boolean."""
    if not isinstance(value, (bool, np.bool_)):
        raise RequestError(f"{name} is {shown(value)}; give {' or '.join(SWITCH)} (True or False in Python)")
    return bool(value)


@check("int")
def check_pixels(name: str, value: Any, limits: Limits) -> int:
    """Check a distance within a picture, in pixels."""
    return _whole_number(name, value, 0, limits.maximum_size)


@check("tuple[int, int]", "list[int]")
def check_two_numbers(name: str, value: Any, _: Limits) -> tuple[int, int]:
    """Check a pair of pixel numbers: (height, width), or the (y, x) of a point."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise RequestError(f"{name} is {shown(value)}; give two whole numbers of pixels, the vertical one first")
    down, right = (_whole_number(name, each, -_MAX_PIXELS, _MAX_PIXELS) for each in value)
    return down, right


@check(*map(quoted, VAES))
def check_vae(name: str, value: Any, _: Limits) -> str:
    """Check the name of a VAE."""
    return _one_of(name, value, VAES)


def choice_check(choices: tuple[str, ...]) -> Check:
    """A check of texts, one of the ``choices``."""
    return check(*map(quoted, choices))(lambda name, value, _: _one_of(name, value, choices))


check_prompt_weighting = choice_check(PROMPT_WEIGHTINGS)
check_long_prompt = choice_check(LONG_PROMPTS)


@check(*map(quoted, VAE_TILINGS))
def check_vae_tiling(name: str, value: Any, _: Limits) -> str:
    """Check when a VAE computes in tiles."""
    return _one_of(name, value, VAE_TILINGS)


@check(*map(quoted, UPSCALERS))
def check_upscaler(name: str, value: Any, _: Limits) -> str:
    """Check how a picture is upscaled before it is drawn again."""
    return _one_of(name, value, UPSCALERS)


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise RequestError(f"{name} is {shown(value)}; give one of {', '.join(choices)}")
    return str(value)


@check("int")
def check_size(name: str, value: Any, limits: Limits) -> int:
    """Check a height or width against the model's size limits."""
    multiple, low, high = limits.size_multiple, limits.minimum_size, limits.maximum_size
    expected = "whole numbers" if multiple == 1 else f"multiples of {multiple}"
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise RequestError(f"{name} is {shown(value)}; this model draws {expected} from {low} to {high}")
    if low <= value <= high and value % multiple == 0:
        return int(value)
    below = min(max(int(value) // multiple * multiple, low), high)
    above = min(max(below + multiple, low), high) if value > below else below
    nearest = f"{below}" if below == above else f"{below} and {above}"
    raise RequestError(
        f"{name} is {shown(value)}; this model draws {expected} from {low} to {high}, the nearest: {nearest}"
    )


@check("Texts")
def check_texts(name: str, value: Any, _: Limits) -> tuple[str, ...]:
    """Check a prompt or a list of prompts."""
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(each, str) for each in texts):
        raise RequestError(f"{name} is {shown(value)}; give a text, or a list of texts")
    for each in texts:
        if len(each) > MAX_PROMPT:
            raise RequestError(f"{name} has {len(each):,} characters; give at most {MAX_PROMPT:,}")
        if any("\ud800" <= letter <= "\udfff" for letter in each):
            raise RequestError(f"{name} is {shown(each)}, which is not Unicode text: it holds half a character")
    return tuple(texts)


def _custom_timesteps(name: str, value: Any, limits: Limits) -> str | tuple[float, ...]:
    """Check custom timesteps or noise levels, or the name of predefined ones."""
    names, expected = limits.named_timesteps, limits.custom_timesteps
    if isinstance(value, str) and value in names:
        return value
    if hasattr(value, "__array__"):
        array = as_array(value)
        value = array.tolist() if array.ndim == 1 and array.size <= MAX_STEPS + 1 else array
    if isinstance(value, (list, tuple)) and len(value) > MAX_STEPS + 1:
        raise RequestError(f"{name} are {len(value)} numbers; give at most {MAX_STEPS + 1}")
    if not isinstance(value, (list, tuple)):
        raise RequestError(f"{name} is {shown(value)}; give {', or '.join([expected, *map(quoted, names)])}")
    return tuple(_number(name, each, expected) for each in value)


check_custom_timesteps = Check(
    _custom_timesteps, lambda limits: ("Timesteps", *(quoted(each) for each in limits.named_timesteps))
)


def _array(name: str, value: Any, axes: tuple[str, ...]) -> Array:
    expected = f"give an array [{', '.join(axes)}]"
    try:
        array = as_array(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise RequestError(f"{name} is a {type(value).__name__}; {expected}") from error
    if array.dtype.kind not in "biuf":
        raise RequestError(f"{name} is a {type(value).__name__}; {expected}")
    if array.ndim != len(axes) or 0 in array.shape:
        raise RequestError(f"{name} has shape {array.shape}; give [{', '.join(axes)}]")
    if array.size > MAX_VALUES:
        raise RequestError(f"{name} has shape {array.shape}, over {MAX_VALUES:,} numbers; {expected} of fewer")
    with np.errstate(over="ignore"):  # values beyond float32 become infinity, which is refused below
        array = array.astype(np.float32)
    if not np.all(np.isfinite(array)):
        raise RequestError(f"{name} holds NaN or infinity")
    return array


_MAPS = ("pictures", "channels", "height", "width")


@check("Schedulers")
def check_scheduler(name: str, value: Any, _: Limits) -> str | dict[str, Any]:
    """Check a scheduler's name, or a mapping of its class and settings."""
    if not isinstance(value, (str, Mapping)):
        raise RequestError(
            f"{name} is {shown(value)}; give a scheduler's name, or a mapping with its _class_name and settings"
        )
    choose(value)
    return value.strip() if isinstance(value, str) else dict(value)


@check("Arrays")
def check_maps(name: str, value: Any, _: Limits) -> Array:
    """Check latents [pictures, channels, height, width]."""
    return _array(name, value, _MAPS)


@check("Arrays")
def check_list_of_maps(name: str, value: Any, _: Limits) -> Array:
    """Check latents, or concatenate a list of them."""
    is_list = isinstance(value, (list, tuple)) and len(value) > 0
    if not is_list or any(getattr(each, "ndim", 0) != 4 for each in value):
        return _array(name, value, _MAPS)
    maps = [_array(name, each, _MAPS) for each in value]
    if any(each.shape[1:] != maps[0].shape[1:] for each in maps):
        raise RequestError(f"{name} is a list of arrays of different shapes; give one shape")
    return np.concatenate(maps)


@check("Arrays")
def check_text_states(name: str, value: Any, _: Limits) -> Array:
    """Check hidden states of a text encoder [prompts, tokens, width]."""
    return _array(name, value, ("prompts", "tokens", "width"))


@check("Arrays")
def check_pooled(name: str, value: Any, _: Limits) -> Array:
    """Check pooled text embeddings [prompts, width]."""
    return _array(name, value, ("prompts", "width"))


@check("Arrays")
def check_attention_mask(name: str, value: Any, _: Limits) -> Array:
    """Check an attention mask [prompts, tokens] of 1 and 0."""
    mask = _array(name, value, ("prompts", "tokens"))
    if not np.all((mask == 0) | (mask == 1)):
        raise RequestError(f"{name} has other values than 0 and 1; give 1 for a token and 0 for padding")
    return mask


@check("Generators")
def check_generator(_name: str, value: Any, _: Limits) -> Any:
    """Check a random number generator, or a list of them."""
    noise_from_generator(value)
    return value


check_output_type = Check(
    lambda name, value, limits: _one_of(name, value, limits.output_types),
    lambda limits: tuple(quoted(each) for each in limits.output_types),
)


@check("Images")
def check_image(_name: str, value: Any, _: Limits) -> Any:
    """Accept any value: a picture is checked when it is read."""
    return value


@check("Callback")
def check_step_callback(name: str, value: Any, _: Limits) -> Any:
    """Check a callback of diffusers' current form, ``callback_on_step_end``."""
    if not callable(value):
        raise RequestError(f"{name} is a {type(value).__name__}; give a function of (pipeline, step, time, tensors)")
    return value


@check("Callback")
def check_plain_callback(name: str, value: Any, _: Limits) -> Any:
    """Check a callback of diffusers' older form, ``callback``."""
    if not callable(value):
        raise RequestError(f"{name} is a {type(value).__name__}; give a function of (step, time, latents)")
    return value


@check("list[str]", "tuple[str, ...]")
def check_callback_tensors(name: str, value: Any, limits: Limits) -> tuple[str, ...]:
    """Check the names of the tensors that a callback gets."""
    known = limits.callback_tensors
    if not isinstance(value, (list, tuple)) or not value or any(each not in known for each in value):
        raise RequestError(f"{name} is {shown(value)}; a callback is given [{', '.join(map(quoted, known))}]")
    return tuple(value)
