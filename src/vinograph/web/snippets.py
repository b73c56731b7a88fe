"""The code that draws a picture again, in Python and as a shell command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from vinograph.arguments import SWITCH
from vinograph.pipeline import Pipeline
from vinograph.request import OPTIONS

Device = str | Mapping[str, str]
Arguments = Mapping[str, Any]

ADAPTERS = "adapters"
"""The key of the adapters among the arguments, though it is the pipeline that takes them."""

_SIDES = ("width", "height")


def reproduction_arguments(pipe: Pipeline, call: str, arguments: Arguments, seed: int | None) -> Arguments:
    """Arguments that draw the picture of ``seed`` again, without the model's defaults.

    With an init image every argument is kept, because some defaults change then.
    """
    single = {name: value for name, value in arguments.items() if name not in ("seed", "num_images_per_prompt")}
    if seed is not None:
        single["seed"] = seed
    takes = pipe.calls[call].takes
    if "image" in single:
        return single
    changed = {name for name, value in single.items() if name == "prompt" or value != takes[name]}
    if changed & set(_SIDES):
        changed |= set(_SIDES)
    return {name: value for name, value in single.items() if name in changed}


def python(model: str, device: Device, call: str, arguments: Arguments, output: str) -> str:
    """Python code that draws a picture and writes it to ``output``."""
    subject = next(name for name in ("prompt", "image") if name in arguments)
    keywords = [f"{name}={value!r}" for name, value in arguments.items() if name not in (subject, ADAPTERS)]
    where = "" if device == "CPU" else f", device={device!r}"
    where += f", adapters={arguments[ADAPTERS]!r}" if ADAPTERS in arguments else ""
    method = "" if call == "generate" else f".{call}"
    return (
        "from vinograph import Pipeline\n\n"
        f"pipe = Pipeline.from_pretrained({model!r}{where})\n"
        f"pipe{method}({', '.join([repr(arguments[subject]), *keywords])}).images[0].save({output!r})"
    )


def shell(pipe: Pipeline, model: str, device: Device, call: str, arguments: Arguments, output: str) -> str:
    """The command line that draws a picture and writes it to ``output``."""
    subject = next(name for name in ("prompt", "image") if name in arguments)
    option_of = {argument: name for name, argument in {**OPTIONS, **pipe.options}.items()}
    options = {
        option_of[name]: _text(value) for name, value in arguments.items() if name in option_of and name != subject
    }
    if "width" in arguments:
        options["size"] = f"{arguments['width']}x{arguments['height']}"
    if device != "CPU":
        options["device"] = device if isinstance(device, str) else ",".join(f"{k}={v}" for k, v in device.items())
    words = ["--model", model]
    for name, text in options.items():
        words += [f"--{name.replace('_', '-')}", text]
    for name, weight in arguments.get(ADAPTERS, {}).items():
        words += ["--adapter", f"{name}:{weight:g}"]
    words += ["--output", output]
    positional = str(arguments[subject])
    # A prompt that begins with a dash would be read as an option, unless "--" comes before it.
    command = [*words, "--", positional] if positional.startswith("-") else [positional, *words]
    return shlex.join(["vinograph", call, *command])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return next(word for word, meaning in SWITCH.items() if meaning is value)
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
