"""A model of the hub to a bundle in the models folder, under a name that ``--model`` takes."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from vinograph.convert import Job, check_weights, convert_checkpoint, explained
from vinograph.convert.assemble import BYTES, space_needed
from vinograph.errors import ModelError, RequestError
from vinograph.models.bundle import Bundle, sha256_of
from vinograph.models.bundle_writer import BundleWriter, check_target
from vinograph.models.catalog import fetch_manifest
from vinograph.models.checkpoint import INDEX_FILE, Checkpoint, NeededFiles, locate, on_hub
from vinograph.models.manifest import MANIFEST_FILE
from vinograph.models.pull import (
    Pull,
    PullPlan,
    check_place,
    check_space,
    companion_file,
    files_needed,
    licences,
    resolve,
    weights_sizes,
)

_WEIGHTS = "f16"


class PullObserver(Protocol):
    """Receives the progress of :func:`pull`."""

    def licences(self, found: Mapping[str, str | None]) -> None:
        """Called first, with the licence of each repository; None where it isn't known."""

    def plan(self, plan: PullPlan) -> None:
        """Called before anything large is fetched."""

    def fetched(self, done: int, total: int) -> None:
        """Called while files are fetched, with the bytes that have arrived and those of all."""

    def converting(self, component: str, number: int, total: int) -> None:
        """Called as work on a component of the bundle begins."""


def pull(
    reference: str,
    observer: PullObserver,
    *,
    name: str | None = None,
    companions: Collection[str] = (),
    sources: Mapping[str, str] = MappingProxyType({}),
    weights: str | None = None,
    revision: str | None = None,
    overwrite: bool = False,
) -> tuple[Bundle, PullPlan]:
    """Fetch a model and write a bundle of it into the models folder.

    Killed at any moment, the same call goes on where it stopped.

    Args:
        reference: a known model's name, the hub id of a repository with a checkpoint or a bundle,
            or a single file, on this disk or in a repository of the hub.
        observer: receives licences and sizes before anything large is fetched, and then the
            progress.
        name: the model's name from then on. Default: the known name, else the last part of the id.
        companions: the names of optional companions to fetch as well.
        sources: other sources that the model is opened with, such as its ``base``.
        weights: how weights are stored, as :func:`vinograph.convert.convert` takes it. Default:
            "f16".
        revision: branch, tag or commit of the repository.
        overwrite: replace a model of that name, which stays until the new one is complete.

    Raises:
        RequestError: an argument is wrong, or there is a model of that name.
        ModelError: the hub can't be reached or has no such model, or it is of an unknown family.
        DamagedModelError: a file of the checkpoint is not what it should be.
        ResourceError: the disk or the memory is too small.
    """
    from vinograph.models import hub

    check_weights(_WEIGHTS if weights is None else weights)
    wanted = resolve(reference, name, companions)
    _check_free(wanted, overwrite)
    with hub.quiet(), explained(wanted.target):
        checkpoint = _located(wanted, revision)
        work = _PullWork(wanted, observer, overwrite, sources)
        if MANIFEST_FILE in checkpoint.listing:
            if weights is not None:
                raise RequestError(f"{checkpoint.id} is a bundle already, whose weights stay as they are: no --weights")
            if sources:
                raise RequestError(
                    f"{checkpoint.id} is a bundle already, whose parts stay as they are: no --vae or --base"
                )
            return work.store(checkpoint)
        _check_is_model(checkpoint)
        return work.convert(checkpoint, _WEIGHTS if weights is None else weights)


def _located(wanted: Pull, revision: str | None) -> Checkpoint:
    if wanted.is_file:
        return locate(wanted.repository, revision, single_file=True)
    return on_hub(wanted.repository, revision)


def _check_free(wanted: Pull, overwrite: bool) -> None:
    """Refuse a name that is taken and a place that can't be written, and say what would do."""
    if not overwrite and (wanted.target / MANIFEST_FILE).is_file():
        raise RequestError(
            f"{wanted.name} is here already, in {wanted.target}: draw with it by --model {wanted.name}, or add "
            "--overwrite to fetch and replace it, or --as NAME to call the new one otherwise"
        )
    check_target(wanted.target, overwrite)
    check_place(wanted.target)


def _check_is_model(checkpoint: Checkpoint) -> None:
    """Refuse a repository that holds neither a bundle nor a part of a checkpoint."""
    parts = (name for name in checkpoint.listing if name.rpartition("/")[2] == "config.json")
    if checkpoint.file is None and INDEX_FILE not in checkpoint.listing and not any(parts):
        raise ModelError(
            f"{checkpoint.id} on the hub is no model that Vinograph draws with: it has neither a {MANIFEST_FILE} nor a "
            f"{INDEX_FILE}"
        )


class _PullWork:
    """The work of one call of :func:`pull`."""

    def __init__(self, wanted: Pull, observer: PullObserver, overwrite: bool, sources: Mapping[str, str]) -> None:
        self._wanted, self._observer, self._overwrite, self._sources = wanted, observer, overwrite, sources

    def convert(self, checkpoint: Checkpoint, weights: str) -> tuple[Bundle, PullPlan]:
        """Fetch the files that a checkpoint needs, and write its bundle."""
        options: dict[str, Any] = dict(self._sources)
        files: list[tuple[Checkpoint, list[str]]] = []
        for each in self._wanted.companions:
            if each.file is None:
                options[each.option] = each.repository
            else:
                companion, options[each.option] = companion_file(each)
                files.append((companion, [each.file]))
        plans: list[PullPlan] = []

        def before_fetch(needed: NeededFiles) -> None:
            if not plans:
                plans.append(self._fetch([*needed, *files], weights))

        if checkpoint.file is not None and checkpoint.remote:  # it has to be here before anything of it can be read
            before_fetch([(checkpoint, [checkpoint.file])])
        job = Job(self._wanted.target, weights, self._overwrite, self._observer.converting)
        licence = self._wanted.licence_of(checkpoint.id)
        bundle = convert_checkpoint(checkpoint, options, job, before_fetch, licence)
        return bundle, plans[0]

    def _fetch(self, needed: NeededFiles, weights: str) -> PullPlan:
        """Report what will be fetched, check that there is room for it, and fetch it."""
        found = licences(self._wanted, (checkpoint for checkpoint, _ in needed))
        self._observer.licences(found)
        repositories = files_needed(needed, found)
        sizes = weights_sizes(repositories, BYTES[weights])
        return self._download(PullPlan(repositories, space_needed(sizes)))

    def store(self, checkpoint: Checkpoint) -> tuple[Bundle, PullPlan]:
        """Fetch a bundle, and copy it into the models folder."""
        manifest = fetch_manifest(checkpoint)
        found = {checkpoint.id: manifest.source.licence or licences(self._wanted, [checkpoint])[checkpoint.id]}
        self._observer.licences(found)
        repositories = files_needed([(checkpoint, [*manifest.files])], found)
        size = sum(each.size for each in manifest.files.values())
        plan = self._download(PullPlan(repositories, size))
        return self._copy(Bundle.open(checkpoint.directory)), plan

    def _copy(self, source: Bundle) -> Bundle:
        """Copy a bundle once each of its files is known to be what its manifest says."""
        files = source.manifest.files
        fingerprint = sha256_of(source.path / MANIFEST_FILE)
        with BundleWriter(self._wanted.target, fingerprint, self._overwrite) as writer:
            for number, name in enumerate(source.verify(), 1):
                if writer.done(name) is None:
                    self._observer.converting(name, number, len(files))
                    copy = writer.partial / name
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source.path / name, copy)
                    writer.mark_done(name, True, [copy])
            writer.keep_only(files.keys())
            return writer.finish(source.manifest)

    def _download(self, plan: PullPlan) -> PullPlan:
        """Fetch the missing files of a plan."""
        from vinograph.models import hub

        self._observer.plan(plan)
        check_space(plan, self._wanted.target)
        done = 0
        for each in plan.repositories:
            if each.missing:
                before, commit = done, each.checkpoint.revision
                assert commit is not None, "what is missing is on the hub"

                def report(arrived: int, before: int = before) -> None:
                    self._observer.fetched(before + arrived, plan.download)

                hub.download(each.checkpoint.repository, commit, each.to_fetch, report)
                done += each.download
        return plan
