"""``vinograph cache``, and the cache's effect on ``vinograph generate``."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run, in_process
from vinograph.models.bundle import Bundle
from vinograph.runtime.cache import Cache, Description


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VINOGRAPH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def few_bits(bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle whose manifest says that its prior has int8 weights, so that settings are used."""
    copy = shutil.copytree(bundle.path, tmp_path / "few")
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["components"]["prior"]["weights"] = "int8"
    (copy / "bundle.json").write_text(json.dumps(manifest))
    return copy


def draw(vinograph: Run, bundle: Bundle) -> None:
    done = vinograph("generate", "a red house", "--model", bundle.path, "--seed", 7)
    assert (done.code, "warning" in done.err) == (0, False)


class TestShowing:
    def test_an_empty_cache_is_reported(self, vinograph: Run, tmp_path: Path) -> None:
        done = vinograph("cache")
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(f"{tmp_path / 'cache'}: 0 kB of at most ")
        assert not (tmp_path / "cache").exists()

    def test_compiled_models_are_listed(self, vinograph: Run, bundle: Bundle) -> None:
        draw(vinograph, bundle)
        done = vinograph("cache")
        for word in (bundle.manifest.name, "prior", "vqgan", "last used", "shapes"):
            assert word in done.out
        assert re.search(r"\w+ 1x\d+x\d+", done.out)
        record = vinograph("cache", "--json").record
        assert record["size"] == sum(each["size"] for each in record["compiled"]) > 0
        components = {each["component"] for each in record["compiled"]}
        assert components >= {"prior", "decoder", "vqgan"}
        assert {each["model"] for each in record["compiled"]} == {bundle.manifest.name}
        assert record["settings"] == record["warnings"] == []

    def test_compiled_models_with_weights_are_listed(self, vinograph: Run) -> None:
        cache, description = Cache(), Description("sdxl", "unet", "sample 1x4x64x64")
        cache.put_with_weights("key", lambda stream: stream.write(bytes(3_000_000)), description)
        cache.put("another", bytes(1_000_000), description)
        done = vinograph("cache")
        (line,) = (each for each in done.out.splitlines() if "with weights" in each and "sdxl" in each)
        assert "3.0 MB" in line
        assert done.out.splitlines()[-1].startswith(f"{cache.folder}: 1.0 MB of at most ")
        assert ", and with weights 3.0 MB of at most " in done.out.splitlines()[-1]
        record = vinograph("cache", "--json").record
        assert [each["with_weights"] for each in record["compiled"]] == [False, True]
        assert record["with_weights"]["size"] == record["compiled"][1]["size"] > 3_000_000
        assert record["with_weights"]["limit"] == cache.limit_with_weights

    def test_measured_settings_are_listed(self, vinograph: Run) -> None:
        description = {"model": "few", "component": "unet", "shapes": "sample 1x4x64x64"}
        chosen = {
            "chosen": {"group": 64, "precision": None},
            "setting": "groups of 64",
            "seconds": {"groups of 64": 0.8},
        }
        cache = Cache()
        cache.remember("a", lambda _: {**description, **chosen})
        cache.remember("b", lambda _: {**description, "component": "text_encoder"})
        done = vinograph("cache")
        assert "unet" in done.out
        assert "groups of 64 0.8" in done.out
        assert "text_encoder" not in done.out
        expected = {**description, "setting": "groups of 64", "seconds": {"groups of 64": 0.8}}
        assert vinograph("cache", "--json").record["settings"] == [expected]

    def test_a_garbled_file_is_reported(self, vinograph: Run, tmp_path: Path) -> None:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "settings.json").write_text("{")
        done = vinograph("cache")
        assert done.code == 0
        assert "settings have to be measured again" in done.err


class TestChanging:
    def test_clear_removes_models_and_settings(self, vinograph: Run, bundle: Bundle) -> None:
        draw(vinograph, bundle)
        Cache().remember("a", lambda _: {"spent": 1})
        record = vinograph("cache", "--clear", "--json").record
        assert (record["size"], record["compiled"]) == (0, [])
        assert Cache().settings() == {}
        draw(vinograph, bundle)

    def test_a_limit_is_observed(self, vinograph: Run, bundle: Bundle) -> None:
        draw(vinograph, bundle)
        largest = max(each.size for each in Cache().entries())
        record = vinograph("cache", "--limit", f"{largest}B", "--json").record
        assert record["limit"] == largest
        assert 0 < record["size"] <= largest
        draw(vinograph, bundle)
        assert vinograph("cache", "--json").record["size"] <= largest

    def test_a_limit_counts_models_with_weights(self, vinograph: Run) -> None:
        cache, description = Cache(), Description("sdxl", "unet", "sample 1x4x64x64")
        for key in "ab":
            cache.put_with_weights(key, lambda stream: stream.write(bytes(3_000_000)), description)
        record = vinograph("cache", "--limit", "4MB", "--json").record
        assert (record["limit"], len(record["compiled"])) == (4_000_000, 1)
        assert vinograph("cache", "--clear", "--json").record["compiled"] == []
        assert list((cache.folder / "compiled").iterdir()) == []

    def test_a_limit_of_zero_turns_the_cache_off(self, vinograph: Run, bundle: Bundle) -> None:
        assert vinograph("cache", "--limit", 0).code == 0
        draw(vinograph, bundle)
        assert vinograph("cache", "--json").record["compiled"] == []

    @pytest.mark.parametrize("size", ["much", "-1GB", ""])
    def test_a_limit_that_is_no_size_is_refused(self, vinograph: Run, size: str) -> None:
        vinograph("cache", "--limit", size).fails(2, "give one such as 5GB")

    def test_the_limit_can_be_an_environment_variable(
        self, vinograph: Run, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VINOGRAPH_CACHE_LIMIT", "lots")
        vinograph("generate", "a house", "--model", bundle.path).fails(2, "VINOGRAPH_CACHE_LIMIT", "'lots'")

    def test_an_unwritable_cache_is_refused(
        self, vinograph: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("no folder")
        monkeypatch.setenv("VINOGRAPH_CACHE", str(tmp_path / "file"))
        vinograph("cache", "--limit", "1GB").fails(2, str(tmp_path / "file"))


def test_a_process_reads_what_another_compiled(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        done = in_process(
            *("generate", "a red house", "--model", bundle.path, "--seed", 7, "--output", name, "--no-metadata"),
            VINOGRAPH_CACHE=str(tmp_path / "cache"),
        )
        assert done.code == 0, done.err
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    assert len(list((tmp_path / "cache" / "compiled").iterdir())) >= 5


class TestDamage:
    """Whatever the folder contains, ``generate`` warns and goes on."""

    def test_a_blob_with_a_deeply_nested_header_is_a_warning(self, vinograph: Run, bundle: Bundle) -> None:
        draw(vinograph, bundle)
        for entry in Cache().entries():
            entry.file.write_bytes(b"[" * 100_000 + b"\n" + entry.file.read_bytes())
        done = vinograph("generate", "a red house", "--model", bundle.path, "--seed", 7)
        assert done.code == 0, done.err
        assert "was of no use: it was damaged; compiled anew" in done.err
        draw(vinograph, bundle)

    def test_deeply_nested_settings_are_a_warning(self, vinograph: Run, few_bits: Path, tmp_path: Path) -> None:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "settings.json").write_text('{"format": 1, "settings": ' + '{"a":' * 100_000)
        done = vinograph("generate", "a red house", "--model", few_bits, "--seed", 7)
        assert done.code == 0, done.err
        assert "settings.json can't be read" in done.err
        assert "settings have to be measured again" in done.err
