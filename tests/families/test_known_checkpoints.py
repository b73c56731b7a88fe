"""The tables of published models that are known by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vinograph.families import registry
from vinograph.families.known import KnownModel
from vinograph.models import catalog
from vinograph.models.opening import checkpoint_module

ALL = {name: known for name, (_, known) in registry.known_models().items()}
FAMILY = {name: family for name, (family, _) in registry.known_models().items()}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]+")  # as model cards write them
DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


def tables() -> list[KnownModel]:
    return [known for family in registry.FAMILIES for known in registry.module(family, "known").KNOWN]


def test_each_family_has_one() -> None:
    assert set(FAMILY.values()) == set(registry.FAMILIES)


def test_names_and_repositories_are_unique_across_families() -> None:
    names = [known.name for known in tables()]
    repositories = [known.repository for known in tables()]
    assert len(set(names)) == len(names) == len(ALL)
    assert len(set(repositories)) == len(repositories)
    assert not set(names) & {each.name for each in catalog.embedded()}


@pytest.mark.parametrize("known", ALL.values(), ids=list(ALL))
class TestEntries:
    def test_it_can_be_named_and_found(self, known: KnownModel) -> None:
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", known.name)
        assert HUB_ID.fullmatch(known.repository)

    def test_licence_size_and_purpose_are_stated(self, known: KnownModel) -> None:
        assert LICENCE.fullmatch(known.licence)
        assert 10**9 < known.download < 10**11
        assert 10 < len(known.about) <= 100
        assert "\n" not in known.about

    def test_its_defaults_are_arguments_that_are_taken(self, known: KnownModel) -> None:
        assert set(known.defaults) <= set(registry.family(FAMILY[known.name]).calls["generate"].takes)

    def test_its_companions_are_options_of_its_family(self, known: KnownModel) -> None:
        options = [each.option for each in known.companions]
        assert len(set(options)) == len(options)
        assert set(options) <= set(checkpoint_module(FAMILY[known.name]).OPTIONS)
        for each in known.companions:
            assert HUB_ID.fullmatch(each.repository)
            assert LICENCE.fullmatch(each.licence)
            assert each.about
        assert {*known.required, *known.optional} == set(known.companions)


def test_the_document_has_the_same_table() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    assert rows == [
        [
            f"`{known.name}`",
            ", ".join(f"`{each}`" for each in (known.repository, *(one.repository for one in known.required))),
            f"{known.download / 1e9:.1f} GB",
            known.licence,
            known.about,
        ]
        for known in tables()
    ]
