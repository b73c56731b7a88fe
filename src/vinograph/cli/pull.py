"""The command ``pull``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vinograph.cli import completion, options, output, progress
from vinograph.cli.convert import record
from vinograph.cli.options import AsJson

if TYPE_CHECKING:
    from vinograph.models.pull import PullPlan

EXAMPLE = "a red house on a snowy hill at night"


def pull(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME|HUB-ID|FILE",
            help="a known model's name, a hub id, or a single file of SDXL, here or on the hub",
            autocompletion=completion.completing(completion.known_models),
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="NAME", help="the model's name here; default: the known name, or the id's last part"
        ),
    ] = None,
    companions: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="COMPANION", help="an optional companion of a known model; again for more"),
    ] = None,
    vae: options.Vae = None,
    base: options.Base = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="W",
            help="how weights are stored: f16 (the default), f32 (unchanged) or int8; PixArt's text encoder also int4",
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="R", help="a branch, tag or commit of the repository")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace a model of that name, once the new one is complete")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch a model from the Hugging Face hub, and convert it to a bundle in the models folder.

    A single file that is on this disk is converted without a download.

    `vinograph models` lists the models that are known by name. Licences and sizes are printed
    before the download, which includes only the files that the model needs. If the command is
    stopped, running it again resumes the work.
    """
    from vinograph.convert.pull import pull as run

    with ExitStack() as stack:
        observer = _Observer(stack)
        written, plan = run(
            model,
            observer,
            name=name,
            companions=companions or (),
            sources=options.named_sources(vae, base),
            weights=weights,
            revision=revision,
            overwrite=overwrite,
        )
    manifest = written.manifest
    for note in manifest.notes:
        output.warn(note)
    if as_json:
        output.print_json(
            {
                **record(written),
                "name": written.path.name,
                "fetched": plan.download,
                "repositories": _repositories(plan),
            }
        )
        return
    output.say(f"{written.path}  {written.path.name}, {manifest.family}, {output.size(written.size)}")
    output.say(f'draw with it: vinograph generate "{EXAMPLE}" --model {written.path.name}')


def _repositories(plan: PullPlan) -> list[dict[str, Any]]:
    return [
        {
            "id": each.checkpoint.id,
            "revision": each.checkpoint.revision,
            "licence": each.licence,
            "files": sorted(each.files),
            "size": each.size,
        }
        for each in plan.repositories
    ]


class _Observer:
    """Shows the progress of a pull on standard error, until ``stack`` is closed."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._transfer: progress.ShowBytes | None = None
        self._components: progress.Show | None = None

    def licences(self, found: Mapping[str, str | None]) -> None:
        """Print the licence of each repository."""
        from vinograph.models.hub_errors import address

        for repository, licence in found.items():
            place = f" ({address(repository)})" if "/" in repository else ""  # a file on this disk has none
            output.note(f"licence of {repository}: {licence or 'not stated'}{place}")

    def plan(self, plan: PullPlan) -> None:
        """Print the size of the download, and the disk space for the bundle."""
        missing, total = output.size(plan.download), output.size(plan.size)
        already = f", of {total}: the rest is in the hub's cache" if missing != total else ""
        output.note(f"to fetch: {missing}{already}")
        output.note(f"room for the bundle: at most {output.size(plan.bundle)}, while it is written")

    def fetched(self, done: int, total: int) -> None:
        """Show the progress of the download."""
        if self._transfer is None:
            self._transfer = self._stack.enter_context(progress.transfer("fetching"))
        self._transfer(done, total)

    def converting(self, component: str, number: int, total: int) -> None:
        """Show which component is being written."""
        if self._components is None:
            self._stack.close()  # one display at a time
            self._components = self._stack.enter_context(progress.items("converting"))
        self._components(component, number, total)
