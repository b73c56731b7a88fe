"""Write docs/api.md from the docstrings and signatures of what `vinograph` exports; with ``--check``, only compare.

python -m scripts.api_docs [--check]
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_ROOT), str(_ROOT / "src")]

from scripts.generated import write_or_compare  # noqa: E402
from vinograph import Pipeline, Request, Result, Step, errors, inputs  # noqa: E402
from vinograph.families import registry  # noqa: E402

_FILE = _ROOT / "docs" / "api.md"
_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises):$", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w[\w, ]*): ", re.MULTILINE)
_LONGEST_TABLE = 20  # rows; a longer one is cut in two
_TITLES = tuple(registry.family(name).title for name in registry.FAMILIES)
_ROLE = re.compile(r":(?:class|meth|attr|func|data|mod):`([^`]+)`")

_HEAD = """\
<!-- Written by python -m scripts.api_docs from docstrings and signatures: change the texts in src/vinograph. -->

# Python

```python
from vinograph import Pipeline

pipe = Pipeline.from_pretrained("storybook-wuerstchen")  # embedded; or a directory, a file, a hub id
result = pipe("a red house on a snowy hill at night", seed=7)
result.images[0].save("house.png")
print(result.seeds, result.timings)
```

The same seed draws the same picture. Without one a random seed is drawn, and `result.seeds` has it. To see the picture
as it forms, draw step by step:

```python
from vinograph import Step

for each in pipe.stream("a red house on a snowy hill at night", seed=7):
    if isinstance(each, Step):
        print(f"{each.stage} {each.index}/{each.total}")
    else:
        each.images[0].save("house.png")
```

An argument that a model doesn't take is refused, and the message names those that it does:

```python
from vinograph import RequestError

try:
    pipe("a red house", clip_skip=1)
except RequestError as error:
    print(error)
```

The package is typed: an editor shows what is below, and a type checker finds a wrong argument. `dir(pipe)` lists what
the model at hand does, and `help(pipe.reconstruct)` prints what a call takes.
"""

_CALL = """\
Every argument may be None, which stands for its default: the model's own, or else the family's, which is the one below.
The types are [at the end](#types).
"""


def page() -> str:
    """The whole of docs/api.md."""
    return "\n".join(
        [
            _HEAD,
            "## Opening a model\n",
            *_callable(Pipeline.from_pretrained, "Pipeline.from_pretrained"),
            "## Drawing\n",
            _CALL,
            *_callable(Pipeline.__call__, "pipe"),
            "## Step by step\n",
            *_callable(Pipeline.stream, "pipe.stream", ("positional", "call")),
            "## What else models do\n",
            *(
                line
                for name in ("reconstruct", "encode", "prior", "decoder")
                for line in (f"### {name}\n", *_callable(getattr(Pipeline, name), f"pipe.{name}"))
            ),
            "## What a model takes\n",
            *_members(Pipeline, ("from_pretrained",)),
            *_class(Result),
            *_class(Step),
            *_class(Request, ("prompt_count", "step_share", "noise")),
            *_errors(),
            *_types(),
        ]
    )


def _callable(function: Callable[..., Any], name: str, only: tuple[str, ...] = ()) -> list[str]:
    """A function: what it does, its arguments in a table, and what it raises. Of some, ``only`` these arguments."""
    text, sections = _parsed(function)
    meanings = sections.get("Args", {})
    rows = [
        [f"`{_stars(each)}{name}`", _type(each), _default(each), meanings[name]]
        for name, each in inspect.signature(function).parameters.items()
        if name in meanings and (not only or name in only)
    ]
    head = ["argument", "type", "default", "meaning"]
    some = [row for row in rows if row[-1].startswith(_TITLES)]
    several = some and len(rows) > _LONGEST_TABLE
    raises = "; ".join(f"`{error}`: {meaning.rstrip('.')}" for error, meaning in sections.get("Raises", {}).items())
    return [
        f"`{name}(...)`: {text[0].lower()}{text[1:]}\n",
        _table(head, [row for row in rows if row not in some] if several else rows),
        *(["Some families take more, each of these only those that its meaning begins with:\n"] if several else []),
        *([_table(head, some)] if several else []),
        *([f"Raises {raises}.\n"] if raises else []),
    ]


def _parsed(thing: Any) -> tuple[str, dict[str, dict[str, str]]]:
    """A docstring: its text as Markdown, and the entries of its sections by name."""
    text, *rest = _SECTION.split(inspect.getdoc(thing) or "")
    sections = {}
    for title, content in zip(rest[::2], rest[1::2], strict=True):
        _, *entries = _ENTRY.split(content)
        sections[title] = {
            name: _markdown(" ".join(meaning.split()))
            for name, meaning in zip(entries[::2], entries[1::2], strict=True)
        }
    return _markdown(text.strip()), sections


def _markdown(text: str) -> str:
    return _ROLE.sub(r"`\1`", text).replace("``", "`")


def _stars(parameter: inspect.Parameter) -> str:
    return "*" if parameter.kind is parameter.VAR_POSITIONAL else ""


def _type(parameter: inspect.Parameter) -> str:
    """A type as a table shows it, without None: that stands for the default everywhere."""
    return f"`{parameter.annotation.removesuffix(' | None')}`".replace("|", "\\|")


def _default(parameter: inspect.Parameter) -> str:
    return "" if parameter.default in (None, parameter.empty) else f"`{parameter.default!r}`".replace("'", '"')


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def _members(kind: type[Any], skipped: tuple[str, ...] = ()) -> list[str]:
    """The properties and methods of a class, each with what it is or does."""
    lines = []
    for name, member in vars(kind).items():
        if name.startswith("_") or name in skipped:
            continue
        if isinstance(member, property):
            lines.append(f"- `{name}`: {_sentence(member.fget)}")
        elif inspect.isfunction(member):
            arguments = ", ".join(each for each in inspect.signature(member).parameters if each != "self")
            lines.append(f"- `{name}({arguments})`: {_sentence(member)}")
    return ["\n".join(lines) + "\n"]


def _sentence(thing: Any) -> str:
    """What a member is or does, in lower case after its name, with all that its docstring says."""
    text, _ = _parsed(thing)
    return f"{text[0].lower()}{text[1:]}".replace("\n\n", " ").replace("\n", " ")


def _class(kind: type[Any], skipped: tuple[str, ...] = ()) -> list[str]:
    """A class: what it is, and its attributes and methods, without those that only the families use."""
    text, sections = _parsed(kind)
    attributes = [[f"`{name}`", meaning] for name, meaning in sections.get("Attributes", {}).items()]
    table = [_table(["attribute", "meaning"], attributes)] if attributes else []
    return [f"## {kind.__name__}\n", f"{text}\n", *table, *_members(kind, skipped)]


def _errors() -> list[str]:
    """The tree of errors, as the docstring of their module draws it."""
    text = inspect.getdoc(errors) or ""
    first, rest = text.split("\n\n::\n\n")
    tree, _, last = rest.rpartition("\n\n")
    return ["## Errors\n", f"{first}\n", f"```text\n{textwrap.dedent(tree)}\n```\n", f"{last}\n"]


def _types() -> list[str]:
    """What the names of types stand for."""
    source = inspect.getsource(inputs)
    rows = []
    for name in inputs.__all__:
        found = re.search(rf'^{name}: TypeAlias = (.+)\n"""(.+)"""$', source, re.MULTILINE)
        assert found is not None, name
        rows.append([f"`{name}`", found[2]])
    return ["## Types\n", _table(["type", "what may be given"], rows)]


if __name__ == "__main__":
    sys.exit(write_or_compare(_FILE, page(), sys.argv[1:]))
