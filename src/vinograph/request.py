"""The one schema of what may be asked.

The command line's options, the page's controls and the server's fields are made from the fields of
:class:`Request` and from what a family's calls take, so they can't drift apart.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from vinograph.arguments import MAX_VALUES, as_array, clipped, reading, shown
from vinograph.errors import RequestError
from vinograph.noise import MAX_SEED, Noise, noise_from_generator, noise_from_seeds, random_seed

Array = NDArray[np.float32]
Limits = Mapping[str, Any]
Check = Callable[[str, Any, Limits], Any]

OUTPUT_TYPES = ("pil", "np", "latent")
VAES = ("full", "tiny")
MAX_STEPS = 1000
SWITCH: Mapping[str, bool] = {"on": True, "off": False}
_MAX_COUNT = 1000
_MAX_TOKENS = 512
MAX_PROMPT = 20_000  # characters; no text encoder reads so many, and cleaning and tokenizing more takes long
_MAX_PIXELS = 1_000_000
_LARGE = 1e30
_TIMES = frozenset({"timesteps", "sigmas", "prior_timesteps"})  # each says by itself how many steps there are


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise RequestError(f"{name} is {shown(value)}; give a whole number from {low} to {high}")
    return int(value)


def _steps(name: str, value: Any, _: Limits) -> int:
    return _whole(name, value, 1, MAX_STEPS)


def _count(name: str, value: Any, _: Limits) -> int:
    return _whole(name, value, 1, _MAX_COUNT)


def _seed(name: str, value: Any, _: Limits) -> int:
    return _whole(name, value, 0, MAX_SEED)


def _scale(name: str, value: Any, _: Limits) -> float:
    number = _number(name, value, "a number from 0 up")
    if number < 0:
        raise RequestError(f"{name} is {shown(value)}; give a number from 0 up (1 and below turn guidance off)")
    return number


def _strength(name: str, value: Any, _: Limits) -> float:
    number = _number(name, value, "a number above 0 and up to 1")
    if not 0 < number <= 1:
        raise RequestError(f"{name} is {shown(value)}; give a number above 0 and up to 1")
    return number


def _share(name: str, value: Any, _: Limits) -> float:
    number = _number(name, value, "a number above 0 and below 1")
    if not 0 < number < 1:
        raise RequestError(f"{name} is {shown(value)}; give a number above 0 and below 1")
    return number


def _amount(name: str, value: Any, _: Limits) -> float:
    number = _number(name, value, "a number from 0 to 1")
    if not 0 <= number <= 1:
        raise RequestError(f"{name} is {shown(value)}; give a number from 0 to 1")
    return number


def _layers(name: str, value: Any, _: Limits) -> int:
    return _whole(name, value, -_MAX_COUNT, _MAX_COUNT)  # how many there are, only the model knows


def _switch(name: str, value: Any, _: Limits) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise RequestError(f"{name} is {shown(value)}; give {' or '.join(SWITCH)} (True or False in Python)")
    return bool(value)


def _tokens(name: str, value: Any, _: Limits) -> int:
    return _whole(name, value, 1, _MAX_TOKENS)


def _every(name: str, value: Any, _: Limits) -> int:
    return _whole(name, value, 1, MAX_STEPS)


def _pixels(name: str, value: Any, limits: Limits) -> int:
    return _whole(name, value, 0, limits["maximum_size"])


def _two_numbers(name: str, value: Any, _: Limits) -> tuple[int, int]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise RequestError(f"{name} is {shown(value)}; give two whole numbers of pixels, the vertical one first")
    down, right = (_whole(name, each, -_MAX_PIXELS, _MAX_PIXELS) for each in value)
    return down, right


def _vae(name: str, value: Any, _: Limits) -> str:
    if not isinstance(value, str) or value not in VAES:
        raise RequestError(f"{name} is {shown(value)}; give one of {', '.join(VAES)}")
    return str(value)


def _number(name: str, value: Any, wanted: str) -> float:
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    number = float(value) if real and abs(value) < _LARGE else math.nan
    if math.isnan(number):
        raise RequestError(f"{name} is {shown(value)}; give {wanted}")
    return number


def _size(name: str, value: Any, limits: Limits) -> int:
    step, low, high = (limits[key] for key in ("size_multiple", "minimum_size", "maximum_size"))
    wanted = "whole numbers" if step == 1 else f"multiples of {step}"
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise RequestError(f"{name} is {shown(value)}; this model draws {wanted} from {low} to {high}")
    if low <= value <= high and value % step == 0:
        return int(value)
    below = min(max(int(value) // step * step, low), high)
    above = min(max(below + step, low), high) if value > below else below
    nearest = f"{below}" if below == above else f"{below} and {above}"
    raise RequestError(
        f"{name} is {shown(value)}; this model draws {wanted} from {low} to {high}, the nearest: {nearest}"
    )


def _prompts(name: str, value: Any, _: Limits) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(each, str) for each in texts):
        raise RequestError(f"{name} is {shown(value)}; give a text, or a list of texts")
    for each in texts:
        if len(each) > MAX_PROMPT:
            raise RequestError(f"{name} has {len(each):,} characters; give at most {MAX_PROMPT:,}")
        if any("\ud800" <= letter <= "\udfff" for letter in each):
            raise RequestError(f"{name} is {shown(each)}, which is not Unicode text: it holds half a character")
    return tuple(texts)


def _custom_times(name: str, value: Any, limits: Limits) -> str | tuple[float, ...]:
    named, wanted = limits.get("named_times", ()), limits.get("times", "a falling list of numbers")
    if isinstance(value, str) and value in named:
        return value
    if hasattr(value, "__array__"):
        array = as_array(value)
        value = array.tolist() if array.ndim == 1 and array.size <= MAX_STEPS + 1 else array
    if isinstance(value, (list, tuple)) and len(value) > MAX_STEPS + 1:
        raise RequestError(f"{name} are {len(value)} numbers; give at most {MAX_STEPS + 1}")
    if not isinstance(value, (list, tuple)):
        raise RequestError(
            f"{name} is {shown(value)}; give {', or '.join([wanted, *(_quoted(each) for each in named)])}"
        )
    return tuple(_number(name, each, wanted) for each in value)


def _quoted(text: str) -> str:
    return f'"{text}"'


def _array(name: str, value: Any, axes: tuple[str, ...]) -> Array:
    wanted = f"give an array [{', '.join(axes)}]"
    try:
        array = as_array(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise RequestError(f"{name} is a {type(value).__name__}; {wanted}") from error
    if array.dtype.kind not in "biuf":
        raise RequestError(f"{name} is a {type(value).__name__}; {wanted}")
    if array.ndim != len(axes) or 0 in array.shape:
        raise RequestError(f"{name} has shape {array.shape}; give [{', '.join(axes)}]")
    if array.size > MAX_VALUES:
        raise RequestError(f"{name} has shape {array.shape}, over {MAX_VALUES:,} numbers; {wanted} of fewer")
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinity, which is refused
        array = array.astype(np.float32)
    if not np.all(np.isfinite(array)):
        raise RequestError(f"{name} holds NaN or infinity")
    return array


def _maps(name: str, value: Any, _: Limits) -> Array:
    return _array(name, value, ("pictures", "channels", "height", "width"))


def _list_of_maps(name: str, value: Any, limits: Limits) -> Array:
    several = isinstance(value, (list, tuple)) and len(value) > 0
    if not several or any(getattr(each, "ndim", 0) != 4 for each in value):
        return _maps(name, value, limits)
    maps = [_maps(name, each, limits) for each in value]
    if any(each.shape[1:] != maps[0].shape[1:] for each in maps):
        raise RequestError(f"{name} is a list of arrays of different shapes; give one shape")
    return np.concatenate(maps)


def _text_states(name: str, value: Any, _: Limits) -> Array:
    return _array(name, value, ("prompts", "tokens", "width"))


def _pooled(name: str, value: Any, _: Limits) -> Array:
    return _array(name, value, ("prompts", "width"))


def _mask(name: str, value: Any, _: Limits) -> Array:
    mask = _array(name, value, ("prompts", "tokens"))
    if not np.all((mask == 0) | (mask == 1)):
        raise RequestError(f"{name} has other values than 0 and 1; give 1 for a token and 0 for padding")
    return mask


def _generator(_name: str, value: Any, _: Limits) -> Any:
    noise_from_generator(value)
    return value


def _output_type(name: str, value: Any, limits: Limits) -> str:
    given = limits.get("output_types", OUTPUT_TYPES)
    if not isinstance(value, str) or value not in given:
        raise RequestError(f"{name} is {shown(value)}; give one of {', '.join(given)}")
    return str(value)


def _anything(_name: str, value: Any, _: Limits) -> Any:
    return value


def _callback(name: str, value: Any, _: Limits) -> Any:
    if not callable(value):
        raise RequestError(f"{name} is a {type(value).__name__}; give a function of (pipeline, step, time, tensors)")
    return value


def _plain_callback(name: str, value: Any, _: Limits) -> Any:
    if not callable(value):
        raise RequestError(f"{name} is a {type(value).__name__}; give a function of (step, time, latents)")
    return value


def _callback_inputs(name: str, value: Any, limits: Limits) -> tuple[str, ...]:
    given = limits.get("callback_tensors", ("latents",))
    if not isinstance(value, (list, tuple)) or not value or any(each not in given for each in value):
        raise RequestError(f"{name} is {shown(value)}; a callback is given [{', '.join(map(_quoted, given))}]")
    return tuple(value)


def _guarded(check: Check) -> Check:
    """``check``, where what a caller's own object raises under it is a RequestError as well."""

    def run(name: str, value: Any, limits: Limits) -> Any:
        with reading(name, value):
            return check(name, value, limits)

    return run


def argument_field(
    check: Check,
    about: str,
    *,
    recorded: bool = True,
    each: bool = False,
    needs: str | tuple[str, ...] = (),
    unless: str | None = None,
    metavar: str | None = None,
) -> Any:
    """A field of :class:`Request`: how its value is checked and what it means.

    ``recorded`` values go into a picture's metadata, those of ``each`` prompt one by one. A value is pointless
    without those that it ``needs`` (of the ones that the family takes), and a default ``unless`` another argument is
    told. ``metavar`` stands for the value in a command line's help. ``check`` gets the name to say in errors, the value
    and the model's limits, and returns the value as it is used, or raises RequestError.
    """
    needs = (needs,) if isinstance(needs, str) else needs
    told = {"check": _guarded(check), "about": about, "recorded": recorded, "each": each}
    return field(default=None, metadata={**told, "needs": needs, "unless": unless, "metavar": metavar})


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked, resolved against a family's defaults and a model's limits. None: the family doesn't take it.

    Sizes are in pixels; scales and strength have no unit; times of the continuous samplers lie in [0, 1].

    A family whose calls take an argument that isn't here declares it in its own folder: in a frozen dataclass that
    inherits from this one, with a field made by :func:`argument_field`, which its ``Family`` names as ``request``.
    """

    prompt: tuple[str, ...] | None = argument_field(_prompts, "what to draw; a list draws each", each=True)
    prompt_2: tuple[str, ...] | None = argument_field(
        _prompts, "the prompt for the second text encoder; default: the same", each=True, needs="prompt"
    )
    negative_prompt: tuple[str, ...] | None = argument_field(
        _prompts, "what to keep away from, under guidance", each=True, unless="negative_prompt_embeds"
    )
    negative_prompt_2: tuple[str, ...] | None = argument_field(
        _prompts, "the same for the second text encoder", each=True, needs="negative_prompt"
    )
    image: Any = argument_field(_anything, "a picture to start from: a path, a PIL picture or an array", recorded=False)
    mask_image: Any = argument_field(
        _anything,
        "a picture that is white where to draw anew, and black where to keep the image",
        recorded=False,
        needs="image",
        metavar="FILE",
    )
    padding_mask_crop: int | None = argument_field(
        _pixels, "draw only the mask's surroundings, by so many pixels, at full size", needs="mask_image"
    )
    strength: float | None = argument_field(
        _strength,
        "how far to leave the picture behind, above 0 and up to 1",
        needs="image",
        unless="denoising_start",
    )
    height: int | None = argument_field(_size, "the picture's height in pixels", unless="image")
    width: int | None = argument_field(_size, "the picture's width in pixels", unless="image")
    num_inference_steps: int | None = argument_field(_steps, "denoising steps (of Würstchen's decoder)")
    guidance_scale: float | None = argument_field(_scale, "guidance scale; above 1 turns guidance on")
    guidance_rescale: float | None = argument_field(
        _amount, "how far guidance keeps the contrast of what it guides, to 1"
    )
    timesteps: Any = argument_field(_custom_times, "custom times of the denoising steps")
    sigmas: Any = argument_field(
        _custom_times, "custom noise levels of the denoising steps, and the one that they end at"
    )
    denoising_start: float | None = argument_field(
        _share, "the share of denoising that the image has behind it", needs="image"
    )
    denoising_end: float | None = argument_field(_share, "the share of denoising after which to stop")
    eta: float | None = argument_field(_amount, "the share of fresh noise in DDIM's steps")
    clip_skip: int | None = argument_field(_layers, "layers of the text encoders to leave out at the end")
    original_size: tuple[int, int] | None = argument_field(
        _two_numbers, "height and width that the model is told it was"
    )
    crops_coords_top_left: tuple[int, int] | None = argument_field(_two_numbers, "where it is told that it was cropped")
    target_size: tuple[int, int] | None = argument_field(_two_numbers, "height and width that it is told to draw")
    negative_original_size: tuple[int, int] | None = argument_field(
        _two_numbers, "what to guide away from: original_size"
    )
    negative_crops_coords_top_left: tuple[int, int] | None = argument_field(_two_numbers, "and crops_coords_top_left")
    negative_target_size: tuple[int, int] | None = argument_field(_two_numbers, "and target_size")
    use_resolution_binning: bool | None = argument_field(
        _switch, "whether to draw at the nearest size that the model was trained on, and resize that", metavar="on|off"
    )
    clean_caption: bool | None = argument_field(
        _switch, "whether to take addresses, markup and the like out of the prompt", metavar="on|off"
    )
    max_sequence_length: int | None = argument_field(_tokens, "tokens of the prompt that are read")
    vae: str | None = argument_field(
        _vae, "which VAE to use where the model has both; default: tiny", metavar="full|tiny"
    )
    prior_num_inference_steps: int | None = argument_field(_steps, "denoising steps of the prior")
    prior_guidance_scale: float | None = argument_field(_scale, "guidance scale of the prior")
    prior_timesteps: Any = argument_field(_custom_times, 'custom times of the prior, or "spaced": 29 well-spaced steps')
    decoder_guidance_scale: float | None = argument_field(_scale, "guidance scale of the decoder")
    decoder_timesteps: Any = argument_field(_custom_times, "custom times of the decoder")
    num_images_per_prompt: int | None = argument_field(_count, "pictures of each prompt")
    seed: int | None = argument_field(_seed, "picture i is drawn from seed + i")
    generator: Any = argument_field(_generator, "a torch.Generator, a RandomState, or a list of them", recorded=False)
    latents: Array | None = argument_field(_maps, "noise to start from", recorded=False)
    image_embeddings: Array | None = argument_field(_list_of_maps, "what the prior draws", recorded=False)
    prompt_embeds: Array | None = argument_field(
        _text_states, "text embeddings", recorded=False, needs=("pooled_prompt_embeds", "prompt_attention_mask")
    )
    negative_prompt_embeds: Array | None = argument_field(
        _text_states,
        "the same for the negative prompt",
        recorded=False,
        needs=("negative_pooled_prompt_embeds", "negative_prompt_attention_mask"),
    )
    pooled_prompt_embeds: Array | None = argument_field(
        _pooled, "one text embedding for each prompt", recorded=False, needs="prompt_embeds"
    )
    negative_pooled_prompt_embeds: Array | None = argument_field(
        _pooled, "the same for the negative prompt", recorded=False, needs="negative_prompt_embeds"
    )
    prompt_attention_mask: Array | None = argument_field(
        _mask, "1 for each token of the text embeddings, 0 for padding", recorded=False, needs="prompt_embeds"
    )
    negative_prompt_attention_mask: Array | None = argument_field(
        _mask, "the same for the negative prompt", recorded=False, needs="negative_prompt_embeds"
    )
    output_type: str | None = argument_field(_output_type, "pil, np or latent")
    callback_on_step_end: Any = argument_field(_callback, "called after each step of the last stage", recorded=False)
    callback_on_step_end_tensor_inputs: Any = argument_field(_callback_inputs, "its tensors", recorded=False)
    prior_callback_on_step_end: Any = argument_field(_callback, "called after each step of the prior", recorded=False)
    prior_callback_on_step_end_tensor_inputs: Any = argument_field(_callback_inputs, "its tensors", recorded=False)

    callback: Any = argument_field(_plain_callback, "called with the step, its time, and the latents", recorded=False)
    callback_steps: int | None = argument_field(_every, "call it in every so many steps", needs="callback")

    @property
    def prompt_count(self) -> int:
        """How many prompts there are, given as texts, as embeddings, or implied by the image embeddings."""
        if self.prompt is not None:
            return len(self.prompt)
        return 1 if self.prompt_embeds is None else len(self.prompt_embeds)

    @property
    def image_count(self) -> int:
        """How many pictures will be drawn."""
        if self.image_embeddings is not None:
            return len(self.image_embeddings) * (self.num_images_per_prompt or 1)
        return self.prompt_count * (self.num_images_per_prompt or 1)

    @property
    def seeds(self) -> tuple[int, ...] | None:
        """The seed of each picture; None where a caller's generators decide."""
        if self.seed is None:
            return None
        return tuple((self.seed + i) % (MAX_SEED + 1) for i in range(self.image_count))

    def noise(self) -> Noise:
        """The source of noise for the whole batch."""
        if self.seeds is None:
            return noise_from_generator(self.generator)
        return noise_from_seeds(self.seeds)

    def record(self) -> dict[str, Any]:
        """The fields that a picture's metadata keeps: JSON values, without arrays and functions."""
        return {
            each.name: getattr(self, each.name)
            for each in dataclasses.fields(self)
            if each.metadata["recorded"] and getattr(self, each.name) is not None
        }


Fields = Mapping[str, dataclasses.Field[Any]]


def fields_of(kind: type[Request]) -> Fields:
    """All arguments that requests of a family have, by name."""
    return MappingProxyType({each.name: each for each in dataclasses.fields(kind)})


FIELDS: Fields = fields_of(Request)
"""The arguments that every family may take."""

OPTIONS: Mapping[str, str] = {
    "negative_prompt": "negative_prompt",
    "seed": "seed",
    "count": "num_images_per_prompt",
    "image": "image",
    "strength": "strength",
}
"""The argument that each option sets, of those that mean the same in every family. Families have more of their own."""


_HINTS = get_type_hints(Request)


def kind_of(argument: str, kind: type[Request] = Request) -> Any:
    """The type of an argument's value: the first of those that its field in a ``kind`` of request may have."""
    hint = _HINTS[argument] if argument in _HINTS else get_type_hints(kind)[argument]
    kinds = get_args(hint)
    return kinds[0] if kinds else hint


def resolve(
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    limits: Limits,
    what: str,
    beside: Mapping[str, Mapping[str, Any]] | None = None,
    steps: str | None = None,
    kind: type[Request] = Request,
) -> Request:
    """Check ``given`` and fill it up from ``defaults``, whose keys are all that ``what`` takes.

    ``beside`` holds, for an argument, the defaults that are others where it is given. ``steps`` names the argument
    that counts the steps of which image to image does a share: its default is raised where it would leave none.
    ``kind`` is the family's own kind of request.

    Raises:
        RequestError: naming the argument, what was given, and what would do.
    """
    for name in given:
        if name not in defaults:
            raise RequestError(_not_taken(name, defaults, what))
    told = {name: value for name, value in given.items() if value is not None}
    others = {name: value for argument in told for name, value in (beside or {}).get(argument, {}).items()}
    fields = fields_of(kind)
    values = {**_applicable({**defaults, **others}, told, fields), **told}
    limits = size_limits(values, limits)
    checked = {
        name: fields[name].metadata["check"](name, value, limits) for name, value in values.items() if value is not None
    }
    if steps is not None and steps not in told and not _TIMES & told.keys():
        checked[steps] = _enough_steps(checked[steps], checked)
    request = kind(**checked)
    _check_together(request, defaults)
    if "seed" in defaults and request.seed is None and request.generator is None:
        request = dataclasses.replace(request, seed=random_seed())
    return _spread_texts(request)


def fewest_steps(share: float) -> int | None:
    """The fewest steps of which ``share`` is at least one, or None where so many can't be asked for."""
    first = math.floor(1 / share) if share > 1 / (MAX_STEPS + 1) else MAX_STEPS + 1
    return next((steps for steps in range(first, MAX_STEPS + 1) if int(steps * share) >= 1), None)


def _enough_steps(default: int, values: Mapping[str, Any]) -> int:
    """The default number of steps, raised to the fewest that leave one of the share that is to be done."""
    if "denoising_start" in values:
        share = 1 - values["denoising_start"]
    elif "strength" in values:
        share = values["strength"]
    else:
        return default
    if "denoising_end" in values:
        share -= 1 - values["denoising_end"]
    fewest = fewest_steps(share) if share > 0 else None
    return default if fewest is None else max(default, fewest)


def size_limits(values: Mapping[str, Any], limits: Limits) -> Limits:
    """The limits of a request with these ``values``: any number of pixels will do where the picture is resized.

    The limit "any_size_with" names the argument that says so, if there is one.
    """
    resized = values.get(limits.get("any_size_with", ""), False)
    return {**limits, "size_multiple": 1} if resized is True else limits


def _applicable(defaults: Mapping[str, Any], told: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    """The defaults that hold beside what was told: a picture brings its own size, and only it has a strength."""

    def holds(name: str) -> bool:
        needs, unless = fields[name].metadata["needs"], fields[name].metadata["unless"]
        return unless not in told and all(each in told for each in needs if each in defaults)

    return {name: value for name, value in defaults.items() if holds(name)}


def _not_taken(name: str, takes: Mapping[str, Any], what: str) -> str:
    close = difflib.get_close_matches(clipped(name), takes, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{what} takes no {clipped(name)}{hint}; it takes {', '.join(sorted(takes))}"


def _check_together(request: Request, takes: Mapping[str, Any]) -> None:
    if "prompt" in takes and "prompt_embeds" in takes and request.prompt is None and request.prompt_embeds is None:
        raise RequestError("give a prompt (an empty one is fine), or prompt_embeds")
    if "image" in takes and "prompt" not in takes and request.image is None:
        raise RequestError("give an image: a path, a PIL picture or an array")
    texts, states = request.prompt, request.prompt_embeds
    if texts is not None and states is not None and len(texts) != len(states):
        raise RequestError(f"prompt has {len(texts)} texts and prompt_embeds has {len(states)}; give as many")
    if request.image_count > _MAX_COUNT:
        raise RequestError(f"that is {request.image_count:,} pictures; one call draws at most {_MAX_COUNT:,}")
    if request.seed is not None and request.generator is not None:
        raise RequestError("give seed or generator, not both")
    if isinstance(request.generator, (list, tuple)) and len(request.generator) not in (1, request.image_count):
        raise RequestError(
            f"generator has {len(request.generator)} generators for {request.image_count} pictures; give one for each"
        )
    fields = fields_of(type(request))
    for name, each in fields.items():
        for needs in each.metadata["needs"]:
            if needs in takes and getattr(request, name) is not None and getattr(request, needs) is None:
                raise RequestError(f"{name} needs {needs}: {fields[needs].metadata['about']}")
    if request.image is not None and (request.height is None) != (request.width is None):
        raise RequestError("give both height and width, or neither: the picture then brings its own size")


def _spread_texts(request: Request) -> Request:
    """One text goes with every prompt."""
    spread: dict[str, Any] = {}
    for name, each in fields_of(type(request)).items():
        texts = getattr(request, name)
        if not each.metadata["each"] or texts is None or len(texts) == request.prompt_count:
            continue
        if len(texts) != 1:
            raise RequestError(
                f"{name} has {len(texts)} texts for {request.prompt_count} prompts; give one, or one for each"
            )
        spread[name] = texts * request.prompt_count
    return dataclasses.replace(request, **spread)


def describe(names: Sequence[str]) -> list[tuple[str, str]]:
    """Name and meaning of arguments, for help texts."""
    return [(name, FIELDS[name].metadata["about"]) for name in names]
