"""The lines that draw a picture again: of Python, and of shell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from vinograph.arguments import SWITCH
from vinograph.pipeline import Pipeline
from vinograph.request import OPTIONS

Device = str | Mapping[str, str]
Arguments = Mapping[str, Any]

_SIDES = ("width", "height")


def arguments_again(pipe: Pipeline, call: str, arguments: Arguments, seed: int | None) -> Arguments:
    """What has to be said to draw the one picture of ``seed`` again: ``arguments`` that aren't the model's defaults.

    Beside a picture all are kept, as some defaults are others then.
    """
    told = {name: value for name, value in arguments.items() if name not in ("seed", "num_images_per_prompt")}
    if seed is not None:
        told["seed"] = seed
    takes = pipe.calls[call].takes
    if "image" in told:
        return told
    changed = {name for name, value in told.items() if name == "prompt" or value != takes[name]}
    if changed & set(_SIDES):
        changed |= set(_SIDES)
    return {name: value for name, value in told.items() if name in changed}


def python(model: str, device: Device, call: str, again: Arguments, output: str) -> str:
    """The lines of Python that draw it and write it to ``output``."""
    subject = next(name for name in ("prompt", "image") if name in again)
    told = [repr(again[subject]), *(f"{name}={value!r}" for name, value in again.items() if name != subject)]
    where = "" if device == "CPU" else f", device={device!r}"
    method = "" if call == "generate" else f".{call}"
    return (
        "from vinograph import Pipeline\n\n"
        f"pipe = Pipeline.from_pretrained({model!r}{where})\n"
        f"pipe{method}({', '.join(told)}).images[0].save({output!r})"
    )


def shell(pipe: Pipeline, model: str, device: Device, call: str, again: Arguments, output: str) -> str:
    """The same as a command."""
    subject = next(name for name in ("prompt", "image") if name in again)
    options = {argument: name for name, argument in {**OPTIONS, **pipe.options}.items()}
    told = {options[name]: _text(value) for name, value in again.items() if name in options and name != subject}
    if "width" in again:
        told["size"] = f"{again['width']}x{again['height']}"
    if device != "CPU":
        told["device"] = device if isinstance(device, str) else ",".join(f"{k}={v}" for k, v in device.items())
    words = ["--model", model]
    for name, text in told.items():
        words += [f"--{name.replace('_', '-')}", text]
    words += ["--output", output]
    about = str(again[subject])
    position = [*words, "--", about] if about.startswith("-") else [about, *words]
    return shlex.join(["vinograph", call, *position])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return next(word for word, meaning in SWITCH.items() if meaning is value)
    return str(value)
