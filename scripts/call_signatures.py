"""Write src/vinograph/_calls.py, the signatures of all families' calls; with ``--check``, only compare.

They come from what the families declare.

python -m scripts.call_signatures [--check]
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_ROOT), str(_ROOT / "src")]

from scripts.generated import write_or_compare  # noqa: E402
from vinograph import inputs  # noqa: E402
from vinograph.families import registry  # noqa: E402
from vinograph.families.contract import Call, Family  # noqa: E402
from vinograph.request import Argument, Request, arguments_of  # noqa: E402

_FILE = _ROOT / "src" / "vinograph" / "_calls.py"
_WIDTH = 100  # of prose
_INDENT = " " * 8
# No model is at hand, and what sizes one draws changes no type.
_SIZES = {"size_multiple": 1, "minimum_size": 1, "maximum_size": 1}

_HEAD = '''\
"""The signatures of all families' calls.

Written by scripts/call_signatures.py from what the families declare: change it there.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Literal

from vinograph.dispatch import dispatched, dispatched_call
from vinograph.families.contract import Step
from vinograph.inputs import {inputs}
from vinograph.result import Result


class Calls:
    """The calls of all families, as methods; a pipeline has those that its model's family makes.

    A method's signature has the arguments of all families. An argument that the model's family
    doesn't take is refused, with a message that lists those that it takes. None means the default:
    the model's own, or else the family's, which the signature shows.
    """
'''

_RAISES = """\
Raises:
    RequestError: an argument is not one that the family takes, or is out of range.
    NumericalError: a stage computed NaN or infinity.
"""

_POSITIONAL = "more, in the order of the family's diffusers pipeline: :attr:`Pipeline.calls` has it."
_RETURN_DICT = "False (not typed) returns a tuple with the images alone, as in diffusers."

_STREAM = '''\
"""Draw step by step: yield each finished :class:`Step`, then the :class:`Result`.

Closing the generator stops the work after the current step. The arguments are those of the
call, and are checked before this returns.

Args:
    positional: the call's positional arguments, such as the prompt.
    call: which of :attr:`Pipeline.calls` to make, such as "reconstruct".

Raises:
    RequestError: an argument is not one that the call takes, or is out of range.
    ModelError: the model lacks a component that the call takes.
    NumericalError: a stage computed NaN or infinity; the generator raises it.
"""
'''


@dataclass(frozen=True)
class Taken:
    """An argument as one family's call takes it."""

    family: Family
    call: Call
    name: str

    @property
    def argument(self) -> Argument:
        """What is known of it."""
        return arguments_of(self.family.request)[self.name]

    @property
    def accepts(self) -> tuple[str, ...]:
        """The types that it may have, as the alternatives of an annotation."""
        return self.argument.check.accepts(self.call.limits(_SIZES, {}))

    @property
    def default(self) -> Any:
        """The family's default."""
        return self.call.takes[self.name]


def families() -> list[Family]:
    """All families that there are."""
    return [registry.family(name) for name in registry.FAMILIES]


def calls() -> dict[str, list[tuple[Family, Call]]]:
    """Each call that some family makes, with all families that do."""
    found: dict[str, list[tuple[Family, Call]]] = {}
    for family in families():
        for name, call in family.calls.items():
            found.setdefault(name, []).append((family, call))
    return found


def taken(made: Iterable[tuple[Family, Call]]) -> dict[str, list[Taken]]:
    """The arguments of a call in all families that make it: the shared ones first, as requests have them."""
    found: dict[str, list[Taken]] = {}
    for family, call in made:
        for name in call.takes:
            found.setdefault(name, []).append(Taken(family, call, name))
    order = list(arguments_of(Request))
    for family in families():
        order += [name for name in arguments_of(family.request) if name not in order]
    return dict(sorted(found.items(), key=lambda item: order.index(item[0])))


def annotation(takers: Sequence[Taken]) -> str:
    """The type of an argument, as source text."""
    alternatives = list(dict.fromkeys(each for taker in takers for each in taker.accepts))
    texts = [each for each in alternatives if each.startswith('"')]
    types = [each for each in alternatives if each not in texts]
    return " | ".join([*types, *([f"Literal[{', '.join(texts)}]"] if texts else []), "None"])


def parameter(name: str, takers: Sequence[Taken]) -> str:
    """An argument with its type, and with its default where all families have the same one."""
    defaults = {repr(taker.default).replace("'", '"') for taker in takers}
    return f"{name}: {annotation(takers)} = {defaults.pop() if len(defaults) == 1 else None}"


def meaning(takers: Sequence[Taken], makers: int) -> str:
    """What an argument means, which families take it, and where they have different defaults."""
    text = "; or ".join(dict.fromkeys(taker.argument.about for taker in takers))
    if len(takers) < makers:
        text = f"{', '.join(taker.family.title for taker in takers)}: {text}"
    defaults: dict[str, list[str]] = {}
    for taker in takers:
        defaults.setdefault(_default(taker), []).append(taker.family.title)
    if len(defaults) == 1:
        return f"{text}."
    own = [f"{default} ({', '.join(titles)})" for default, titles in defaults.items()]
    return f"{text}. Default: {', '.join(own)}."


def _default(taker: Taken) -> str:
    """A family's default, and those that replace it where another argument is given."""
    conditional = [
        f"{defaults[taker.name]!r} with {argument}"
        for argument, defaults in taker.call.conditional_defaults.items()
        if taker.name in defaults
    ]
    return " or ".join(["none" if taker.default is None else repr(taker.default), *conditional])


def by_position(made: Sequence[tuple[Family, Call]]) -> list[str]:
    """The arguments that go by position in all families that make the call."""
    same = []
    for names in zip(*(call.positional for _, call in made), strict=False):
        if len(set(names)) > 1:
            break
        same.append(names[0])
    return same


def method(name: str, made: Sequence[tuple[Family, Call]]) -> str:
    """A call as a method."""
    arguments, first = taken(made), by_position(made)
    more = any(len(call.positional) > len(first) for _, call in made)
    keywords = [each for each in arguments if each not in first]
    lines = [
        "self",
        *(parameter(each, arguments[each]) for each in first),
        "*positional: Any" if more else "*",
        *(parameter(each, arguments[each]) for each in keywords),
        "return_dict: Literal[True] = True",
    ]
    decorator = "dispatched" if name == "generate" else "dispatched_call"
    title = "__call__" if name == "generate" else name
    return _method(decorator, title, lines, "Result", documentation(made, arguments, first, more))


def documentation(
    made: Sequence[tuple[Family, Call]], arguments: Mapping[str, list[Taken]], first: Sequence[str], more: bool
) -> str:
    """The text of a call's docstring."""
    abouts: dict[str, list[str]] = {}
    for family, call in made:
        abouts.setdefault(call.about, []).append(family.title)
    head = [f"{about[0].upper()}{about[1:]}." for about in abouts]
    if len(made) < len(families()):
        head.append(f"{', '.join(family.title for family, _ in made)} alone.")
    entries = [(each, meaning(arguments[each], len(made))) for each in first]
    if more:
        entries.append(("positional", _POSITIONAL))
    entries += [(each, meaning(takers, len(made))) for each, takers in arguments.items() if each not in first]
    entries.append(("return_dict", _RETURN_DICT))
    body = "\n".join(_wrapped(f"{each}: {text}", "    ", "        ") for each, text in entries)
    return f'"""{_wrapped(" ".join(head), "", "")}\n\nArgs:\n{body}\n\n{_RAISES}"""\n'


def _wrapped(text: str, first: str, rest: str) -> str:
    width = _WIDTH - len(_INDENT)
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _method(decorator: str, name: str, parameters: Sequence[str], result: str, text: str) -> str:
    signature = "".join(f"{_INDENT}{each},\n" for each in parameters)
    return (
        f"    @{decorator}\n    def {name}(\n{signature}    ) -> {result}:\n"
        f"{textwrap.indent(text, _INDENT)}{_INDENT}raise NotImplementedError\n"
    )


def stream() -> str:
    """The method that makes any call step by step."""
    arguments = taken([each for made in calls().values() for each in made])
    parameters = ["self", "*positional: Any", 'call: str = "generate"']
    parameters += [parameter(name, takers) for name, takers in arguments.items()]
    return _method("dispatched", "stream", parameters, "Generator[Step | Result, None, None]", _STREAM)


def _sections() -> Iterator[str]:
    made = calls()
    yield method("generate", made["generate"])
    yield "    generate = __call__\n"
    yield stream()
    yield from (method(name, makers) for name, makers in made.items() if name != "generate")


def source() -> str:
    """The whole of src/vinograph/_calls.py."""
    methods = "\n".join(_sections())
    used = [name for name in inputs.__all__ if f": {name} |" in methods]
    return f"{_HEAD.format(inputs=', '.join(used))}\n{methods}"


if __name__ == "__main__":
    sys.exit(write_or_compare(_FILE, source(), sys.argv[1:]))
