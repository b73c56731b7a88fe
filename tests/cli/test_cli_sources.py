"""Every command takes any source: a checkpoint's directory, an export, the hub's cache."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub as hf
import numpy as np
import pytest
from PIL import Image

from tests.bundles import comparable
from tests.checkpoints import (
    PIXART_TINY,
    SDXL_TINY,
    TINY,
    save_pixart,
    save_sdxl,
    save_wuerstchen,
)
from tests.cli.conftest import Run, command, files_here, running, wait_for
from tests.hub_cache import COMMIT, save_cache
from tests.models.exported import export_as_optimum
from vinograph.convert import convert
from vinograph.quantize import component, quantize
from vinograph.runtime import tuning
from vinograph.web.model_pool import ModelPool

pytestmark = pytest.mark.usefixtures("compiled_once")

CACHED = "someone/small-sdxl"
SOURCES = ("wuerstchen", "sdxl", "pixart", "export", "cached")
# A directory of SDXL's is quantized with its activations, too; and the cached one is that directory.
WEIGHTS_QUANTIZED = [
    pytest.param(name, marks=pytest.mark.long) if name in ("sdxl", "cached") else name for name in SOURCES
]
FAMILIES = {"export": "sdxl", "cached": "sdxl"}

Place = Mapping[str, Path]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A read-only directory of each kind of source; "cached" is a cache of the hub."""
    folder = tmp_path_factory.mktemp("sources")
    sdxl = save_sdxl(folder, SDXL_TINY)
    wuerstchen = save_wuerstchen(folder, TINY).decoder
    small = {"limits": {"native_size": 128}, "defaults": {"generate": {"height": 128, "width": 128}}}
    (wuerstchen / "vinograph.json").write_text(json.dumps(small))
    (folder / "export").mkdir()
    return {
        "wuerstchen": wuerstchen,
        "sdxl": sdxl.home,
        "pixart": save_pixart(folder, PIXART_TINY).home,
        "export": export_as_optimum(sdxl, SDXL_TINY, folder / "export"),
        "cached": save_cache(folder / "hub", CACHED, sdxl.home),
    }


@pytest.fixture
def source_of(places: Place, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The command line's argument for a source by its name in :data:`SOURCES`."""
    monkeypatch.setattr(hf.constants, "HF_HUB_CACHE", str(places["cached"]))
    monkeypatch.setattr(hf.constants, "HF_HUB_OFFLINE", True)
    return lambda name: CACHED if name == "cached" else str(places[name])


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, source_of: Callable[[str], str]) -> str:
    """The command line's argument for each source."""
    return source_of(request.param)


@pytest.mark.parametrize("name", SOURCES)
def test_inspect_describes_any_source(vinograph: Run, source_of: Callable[[str], str], name: str) -> None:
    done = vinograph("inspect", source_of(name))
    assert done.code == 0, done.err
    words = " ".join(done.out.split())
    assert f"family {FAMILIES.get(name, name)}" in words
    assert "of weights, as published" in words
    record = vinograph("inspect", source_of(name), "--json").record
    assert record["components"].keys() >= {"text_encoder"}
    assert all(each["inputs"] for each in record["components"].values())


class TestVerify:
    def test_a_whole_source_verifies(self, vinograph: Run, source: str) -> None:
        done = vinograph("verify", source)
        assert done.code == 0, done.err
        assert "is whole: " in done.out
        files = len(vinograph("verify", source, "--json").record["files"])
        assert done.err.splitlines()[-1].endswith(f" {files}/{files}")
        assert ("have no hash to compare with" in done.out) is (source != CACHED)

    def test_hashes_of_the_hub_are_used(self, vinograph: Run, source_of: Callable[[str], str]) -> None:
        record = vinograph("verify", source_of("cached"), "--json").record
        assert (record["whole"], record["without_hash"]) == (True, 0)
        record = vinograph("verify", source_of("sdxl"), "--json").record
        assert record["without_hash"] == len(record["files"])

    @pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer.json"])
    def test_an_altered_file_of_the_cache_is_found(
        self, vinograph: Run, places: Place, source_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        source_of("cached")
        save_cache(Path("altered"), CACHED, places["sdxl"])
        monkeypatch.setattr(hf.constants, "HF_HUB_CACHE", str(Path("altered").absolute()))
        file = Path("altered") / "models--someone--small-sdxl" / "snapshots" / COMMIT / name
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        vinograph("verify", CACHED).fails(4, "was altered", "hub's", f"hf download {CACHED} --force-download")

    @pytest.mark.parametrize("name", ["wuerstchen", "sdxl", "pixart"])
    def test_a_truncated_file_is_found(self, vinograph: Run, places: Place, name: str) -> None:
        shutil.copytree(places[name], "copy")
        weights = max(Path("copy").rglob("*.safetensors"), key=lambda each: each.stat().st_size)
        weights.write_bytes(weights.read_bytes()[:-2])
        vinograph("verify", "copy").fails(4, weights.name)

    def test_a_broken_tokenizer_is_found(self, vinograph: Run, places: Place) -> None:
        """Opening doesn't read a tokenizer, but generating and verifying do."""
        shutil.copytree(places["sdxl"], "copy")
        Path("copy/tokenizer_2/tokenizer.json").write_text("{}")
        vinograph("verify", "copy").fails(4, "tokenizer_2")


def test_reconstruct_works_with_any_source(vinograph: Run, source_of: Callable[[str], str]) -> None:
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save("picture.png")
    for name in ("sdxl", "pixart", "export", "cached"):
        done = vinograph("reconstruct", "picture.png", "--model", source_of(name), "--output", f"{name}.png")
        assert done.code == 0, done.err
    assert Path("sdxl.png").read_bytes() == Path("cached.png").read_bytes()


def test_the_page_offers_any_source(source: str) -> None:
    """It names them as it was given them, also in its lines of code."""
    models = ModelPool({source: {}}, "CPU")
    assert models.references[0] == source
    pipe = models.acquire(source)
    takes = pipe.calls["generate"].takes
    options = [argument for option, argument in pipe.options.items() if option.endswith("steps")]
    few: dict[str, Any] = {argument: 1 for argument in options if takes[argument] is not None}
    side = pipe.model.manifest.limits["minimum_size"]
    assert pipe("a red house", seed=1, output_type="latent", width=side, height=side, **few).images.size


@pytest.fixture(scope="module")
def _quick_quantization() -> Iterator[None]:
    """Quantization times only the default setting, by one call, and leaves garbage: files don't depend on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(component, "gc", SimpleNamespace(collect=lambda: 0))
        patch.setattr(tuning, "SHORTEST_CALL", math.inf)
        patch.setattr(tuning, "_RUNS", 1)
        patch.setattr(tuning, "_ENOUGH_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def undisturbed(places: Place, _quick_quantization: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of SDXL, quantized with its activations."""
    return quantize(places["sdxl"], tmp_path_factory.mktemp("undisturbed") / "out", mode="full").path


@pytest.mark.usefixtures("_quick_quantization")
class TestQuantize:
    @pytest.mark.parametrize("name", WEIGHTS_QUANTIZED)
    def test_a_source_and_its_bundle_give_the_same_quantized_bundle(
        self, vinograph: Run, source_of: Callable[[str], str], places: Place, name: str
    ) -> None:
        """All files are equal, but for timings in the manifest."""
        done = vinograph("quantize", source_of(name), "out", "--mode", "weights")
        assert done.code == 0, done.err
        assert "components converted" in done.err
        bundle = convert(source_of(name), Path("bundle"))
        expected = quantize(bundle.path, Path("expected/out"), mode="weights")
        assert comparable(Path("out")) == comparable(expected.path)
        assert files_here() == ["bundle", "expected", "out"]
        drawn = vinograph("generate", "a red house", "--model", "out", "--seed", 7)
        assert drawn.code == 0, drawn.err

    def test_the_same_with_quantized_activations(self, undisturbed: Path, places: Place) -> None:
        """Calibration uses the weights that are written, not the checkpoint's."""
        expected = quantize(convert(places["sdxl"], Path("bundle")).path, Path("expected/out"), mode="full")
        assert comparable(undisturbed) == comparable(expected.path)

    def test_a_killed_quantization_run_again_gives_the_same_bundle(
        self, vinograph: Run, places: Place, source_of: Callable[[str], str], undisturbed: Path
    ) -> None:
        """It is killed while converting components, calibrating and quantizing segments."""
        source_of("sdxl")
        line = command("quantize", places["sdxl"], "out", "--mode", "full", warnings="default")
        for moment in ("components converted 3/", "pictures to calibrate with 1/", "segments quantized 1/"):
            with running(line) as process:
                wait_for(process, moment)
                process.kill()
            assert not Path("out").exists()
        done = vinograph("quantize", places["sdxl"], "out", "--mode", "full")
        assert done.code == 0, done.err
        assert "components converted" not in done.err, "what was converted is there"
        assert comparable(Path("out")) == comparable(undisturbed)
        assert files_here() == ["out"]

    def test_a_changed_checkpoint_starts_over(self, vinograph: Run, places: Place) -> None:
        shutil.copytree(places["sdxl"], "copy")
        with running(command("quantize", "copy", "out", "--mode", "weights", warnings="default")) as process:
            wait_for(process, "segments quantized 0/")
            process.kill()
        settings = Path("copy/vinograph.json")
        settings.write_text(json.dumps({"name": "another"}))
        done = vinograph("quantize", "copy", "out", "--mode", "weights", "--json")
        assert done.code == 0, done.err
        assert done.record["name"] == "out"
        assert "components converted 0/" in done.err

    def test_a_wuerstchen_that_names_no_prior_has_to_be_converted_first(self, vinograph: Run, tmp_path: Path) -> None:
        """Only convert has an option for a prior that the decoder's card doesn't name."""
        saved = save_wuerstchen(tmp_path / "split", TINY, "split")
        (saved.decoder / "README.md").unlink()
        for arguments in (("quantize", saved.decoder, "out", "--mode", "full"), ("inspect", saved.decoder)):
            done = vinograph(*arguments)
            done.fails(3, "holds the decoder alone", f"vinograph convert {saved.decoder} BUNDLE --prior")
        assert vinograph("convert", saved.decoder, "bundle", "--prior", saved.prior).code == 0
        assert vinograph("inspect", "bundle").code == 0

    def test_a_disk_that_is_too_small_is_reported_before_writing(
        self, vinograph: Run, places: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = shutil.disk_usage(Path())._replace(free=10_000_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        vinograph("quantize", places["sdxl"], "out", "--mode", "weights").fails(5, "GB free")
        assert not [each for each in files_here() if each.startswith((".", "out"))]

    def test_an_export_with_low_bit_weights_is_refused(
        self, vinograph: Run, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
    ) -> None:
        saved = save_sdxl(tmp_path_factory.mktemp("few"), SDXL_TINY)
        (tmp_path / "export").mkdir()
        export_as_optimum(saved, SDXL_TINY, tmp_path / "export", "int8")
        vinograph("quantize", "export", "out", "--mode", "full").fails(2, "has low-bit weights already")


class TestBenchmark:
    FEW = ("--runs", 1, "--rounds", 1, "--steps", 2, "--no-reference")

    def test_several_sources_are_compared(self, vinograph: Run, source_of: Callable[[str], str]) -> None:
        done = vinograph("benchmark", *map(source_of, ("sdxl", "export", "pixart")), *self.FEW, "--json")
        assert done.code == 0, done.err
        for row in done.record["rows"]:
            assert row["failure"] is None
            assert row["size"] > 0
            assert row["load"]["whole"] > 0
            assert row["seconds_per_picture"] > 0

    def test_a_cached_checkpoint_equals_its_bundle(self, vinograph: Run, source_of: Callable[[str], str]) -> None:
        """Both give the same picture, by the distance in the table."""
        convert(source_of("cached"), Path("bundle"), weights="f32")
        few = [each for each in self.FEW if each != "--no-reference"]
        done = vinograph("benchmark", source_of("cached"), "bundle", *few, "--precision", "f32", "--json")
        assert done.code == 0, done.err
        assert [row["name"] for row in done.record["rows"]] == ["small-sdxl", "bundle"]
        assert [row["failure"] for row in done.record["rows"]] == [None, None]
        assert [row["ssim"] for row in done.record["rows"]] == [1.0, 1.0]

    def test_other_systems_use_the_checkpoint(self, vinograph: Run, source_of: Callable[[str], str]) -> None:
        """Without --checkpoint, which is for bundles."""
        done = vinograph("benchmark", source_of("sdxl"), *self.FEW, "--against", "diffusers", "--json")
        assert done.code == 0, done.err
        assert [row["failure"] for row in done.record["rows"]] == [None, None]
