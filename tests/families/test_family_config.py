"""A family's configuration: what a manifest says, as the family's own type."""

import json
from pathlib import Path
from typing import Any

import pytest

import vinograph
from tests.bundles import save_pixart_bundle, save_sdxl_bundle
from vinograph import DamagedModelError
from vinograph.families.autoencoder import LatentScaling
from vinograph.families.pixart.config import PixArtConfig
from vinograph.families.sdxl.config import SDXLConfig
from vinograph.families.sizes import SizeLimits
from vinograph.families.wuerstchen.config import WuerstchenConfig
from vinograph.images import Size
from vinograph.models.manifest import Manifest

EMBEDDED = sorted(Path(vinograph.__file__).parent.glob("embedded/*/bundle.json"))
TYPES = {"sdxl": SDXLConfig, "pixart": PixArtConfig, "wuerstchen": WuerstchenConfig}


@pytest.mark.parametrize("file", EMBEDDED, ids=lambda file: file.parent.name)
class TestEmbedded:
    def test_each_is_read_into_its_familys_type(self, file: Path) -> None:
        manifest = Manifest.from_json(file.read_bytes(), str(file))
        assert type(manifest.family_config) is TYPES[manifest.family]
        assert manifest.sizes.native_size == 256

    def test_it_is_read_once(self, file: Path) -> None:
        manifest = Manifest.from_json(file.read_bytes(), str(file))
        assert manifest.family_config is manifest.family_config

    def test_it_is_written_as_it_was(self, file: Path) -> None:
        text = file.read_text(encoding="utf-8")
        assert Manifest.from_json(text, str(file)).to_json() == text

    def test_what_a_later_version_added_is_passed_over_and_written_again(self, file: Path) -> None:
        data = json.loads(file.read_text(encoding="utf-8"))
        data["config"]["later"] = data["limits"]["later"] = 1
        manifest = Manifest.from_json(json.dumps(data), str(file))
        written = json.loads(manifest.to_json())
        assert (written["config"]["later"], written["limits"]["later"]) == (1, 1)
        assert manifest.family_config == Manifest.from_json(file.read_bytes(), str(file)).family_config


def test_flags_are_numbers_in_the_file_and_booleans_in_the_type(tmp_path: Path) -> None:
    sdxl = save_sdxl_bundle(tmp_path / "sdxl", force_zeros_for_empty_prompt=0).manifest
    assert sdxl.config["force_zeros_for_empty_prompt"] == 0
    assert sdxl.family_config.force_zeros_for_empty_prompt is False
    pixart = save_pixart_bundle(tmp_path / "pixart", size_conditions=1).manifest
    assert pixart.config["size_conditions"] == 1
    assert pixart.family_config.size_conditions is True


def test_the_latents_of_the_full_vae_have_a_mean_and_a_deviation(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {"vae_latents_mean": [1, 2, 3, 4], "vae_latents_std": [0.5] * 4}
    latents = save_sdxl_bundle(tmp_path / "sdxl", **numbers).manifest.family_config.latents
    assert latents.vae == LatentScaling(0.13025, (1, 2, 3, 4), (0.5,) * 4)
    assert latents.tiny_vae == LatentScaling(1.0)
    assert latents.shape(2, Size(height=64, width=96)) == (2, 4, 8, 12)


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("config", {"pooled_width": 0}, r"config.pooled_width is 0, where a whole number from 1 to 65536 should be"),
        ("config", {"force_zeros_for_empty_prompt": True}, r"config.force_zeros_for_empty_prompt is True"),
        ("config", {"unet_channels": 5}, r"config.unet_channels is 5; give 4, or 9 of a model for inpainting"),
        ("config", {"vae_latents_mean": [0.0]}, r"config.vae_latents_mean has 1 numbers and vae_latents_std 0"),
        ("scheduler", {"class": 3}, r"scheduler.class is 3, where one of .* should be"),
        ("limits", {"minimum_size": 1024}, r"limits.minimum_size is 1024, which is above maximum_size 512"),
        ("limits", {"maximum_size": 500}, r"limits.maximum_size is 500, which is no multiple of size_multiple 8"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, section: str, values: dict[str, Any], words: str) -> None:
    data = json.loads(save_sdxl_bundle(tmp_path / "sdxl").manifest.to_json())
    data[section] |= values
    with pytest.raises(DamagedModelError, match=words):
        Manifest.from_json(json.dumps(data), "bundle.json")


@pytest.mark.parametrize(
    ("size", "allowed"), [((64, 72), True), ((512, 64), True), ((60, 64), False), ((520, 64), False)]
)
def test_sizes_that_are_allowed(size: tuple[int, int], allowed: bool) -> None:
    sizes = SizeLimits(size_multiple=8, minimum_size=64, maximum_size=512, native_size=256)
    assert sizes.allows(Size(*size)) is allowed


def test_a_size_says_its_width_first() -> None:
    assert f"{Size(height=256, width=512)}" == "512x256"
