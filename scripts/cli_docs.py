"""Write docs/cli.md from what every command's ``--help`` prints; with ``--check``, only compare.

python -m scripts.cli_docs [--check]
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

_ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_ROOT), str(_ROOT / "src")]

import typer  # noqa: E402

from scripts.generated import write_or_compare  # noqa: E402
from vinograph.cli import main as vinograph  # noqa: E402
from vinograph.cli.application import application  # noqa: E402

_FILE = _ROOT / "docs" / "cli.md"
_COLUMNS = "100"

_HEAD = """\
<!-- Written by python -m scripts.cli_docs from what --help prints: change the texts there or in src/vinograph/cli. -->

# The command line

`vinograph COMMAND --help` says what a command takes; the same is below.

```console
$ vinograph generate "a red house on a snowy hill at night" --seed 7 --output house.png
```

This prints the file, its seed, and the seconds that each stage took.

- Results go to standard output, progress and warnings to standard error: bars on a terminal, plain lines elsewhere.
- `--json` prints one JSON object on standard output and nothing else there. An error is an object with the one key
  `error`, which has `type`, `message` and `exit_code`; its message is on standard error as well.
- `--model` takes an embedded model's name, the name of a bundle in the models folder (`$VINOGRAPH_MODELS`, or
  `~/.local/share/vinograph/models`), a bundle's directory, or a hub id. `vinograph models` lists the first two.
- `--device` and `--precision` take one value for all components, or one for each: `--device prior=GPU,vqgan=CPU`.
  Components that are left out run on the CPU, in `auto`. A device's own commas stay with it:
  `prior=HETERO:GPU,CPU,vqgan=CPU`. `vinograph inspect` lists the components, `vinograph devices` the devices.
- Files are written under a temporary name and renamed, so that none is ever half-written. `generate` and
  `reconstruct` replace the picture that `--output` names. Without `--output` they take a free name: `picture.png`,
  then `picture-2.png`. `pull`, `convert` and `quantize` refuse a bundle that exists without `--overwrite`.
- `vinograph generate @prompts.txt` draws each line of a file, and `vinograph generate -` each line of standard
  input. Blank lines and lines that begin with `#` are skipped. All prompts are checked before the first is drawn.
  The pictures are numbered in the order of the lines, and so are the seeds.
- `--count` and lists are drawn by several calls: up to eight pictures at once, as far as they fit into half of the
  free memory. A picture is written when its call is done. In f32, it differs by at most 1/255 from the same seed
  drawn alone.
- `vinograph --install-completion` makes bash, zsh or fish complete commands, options, and the names of models,
  adapters and schedulers. `vinograph --show-completion` prints the script instead.
- Ctrl-C stops after the step under way. Pictures that were written stay.

## Exit codes

| exit | when |
| --- | --- |
| 0 | done |
| 1 | a stage computed NaN or infinity; or a defect of ours: the traceback and how to report it |
| 2 | the call is wrong: the message names the option, what was given and what would do |
| 3 | the model can't be used: unknown family, unsafe or missing weights |
| 4 | the model is damaged: a file missing, short, or altered |
| 5 | the disk, or memory, is not enough |
| 130 | interrupted by Ctrl-C |
| 141 | whatever was reading standard output closed it |
| 143 | ended by SIGTERM |
"""


def main(argv: Sequence[str]) -> int:
    """Write the page, or with ``--check`` print how it differs. Returns the exit code."""
    return write_or_compare(_FILE, page(), argv)


def page() -> str:
    """The whole of docs/cli.md."""
    group = typer.main.get_command(application())
    commands = list(getattr(group, "commands"))  # noqa: B009  # typer's class for a group has no public name
    sections = [f"## {name}\n\n```text\n{_help(name)}\n```\n" for name in commands]
    return "\n".join([_HEAD, *sections])


def _help(command: str) -> str:
    printed = io.StringIO()
    with mock.patch.dict(os.environ, {"COLUMNS": _COLUMNS}), contextlib.redirect_stdout(printed):
        code = vinograph([command, "--help"])
    if code:
        raise RuntimeError(f"vinograph {command} --help ended with {code}")
    return "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
