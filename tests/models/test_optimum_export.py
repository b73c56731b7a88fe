"""What optimum-intel exported becomes a bundle without converting again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import openvino as ov
import pytest
import torch

from tests.checkpoints import SDXL_TINY, SavedSdxl, save_sdxl, unet_inputs
from tests.convert.conftest import edit_json, once
from tests.convert.running import assert_equal, compile_all, run
from tests.convert.test_sdxl_components import of_diffusers
from tests.models.exported import XML, export_as_optimum, put_tiny_vae_in_place
from vinograph.convert import convert
from vinograph.errors import DamagedModelError, ModelError
from vinograph.models.bundle import Bundle

TOLERANCES = {"f32": 1e-5, "f16": 2e-2, "int8": 0.2}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> SavedSdxl:
    return save_sdxl(tmp_path_factory.mktemp("saved"), SDXL_TINY)


def _exported(tmp_path_factory: pytest.TempPathFactory, saved: SavedSdxl, weights: str) -> Path:
    return once(
        tmp_path_factory,
        f"exported-{weights}",
        lambda folder: export_as_optimum(saved, SDXL_TINY, folder, weights),
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, saved: SavedSdxl) -> Path:
    """An export in f32, for reading only."""
    return _exported(tmp_path_factory, saved, "f32")


@pytest.fixture
def damaged(exported: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return shutil.copytree(exported, tmp_path / "exported")


@pytest.mark.parametrize("weights", TOLERANCES)
def test_components_compute_what_the_models_do(
    saved: SavedSdxl, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, weights: str
) -> None:
    torch.manual_seed(7)
    bundle = convert(_exported(tmp_path_factory, saved, weights), tmp_path / "bundle")
    sessions, tolerance = compile_all(bundle), TOLERANCES[weights]
    components = bundle.manifest.components
    assert {name: each.f16_safe for name, each in components.items()} == {
        "text_encoder": True,
        "text_encoder_2": True,
        "unet": True,
        "vae_decoder": False,
        "vae_encoder": False,
    }
    assert {each.weights for each in components.values()} == {weights}
    assert list(bundle.verify())
    models = saved.models

    ids = torch.randint(500, (2, 77))
    ids[:, 9:] = models.tokenizer.eos_token_id
    for name in ("text_encoder", "text_encoder_2"):
        theirs = getattr(models, name)(ids, output_hidden_states=True)
        ours = run(sessions[name], {"input_ids": ids})
        assert_equal(ours["hidden_states"], torch.stack(theirs.hidden_states[:-1], dim=1), tolerance)
        assert ours.keys() == components[name].outputs.keys()
        if name == "text_encoder_2":
            assert_equal(ours["text_embeds"], theirs.text_embeds, tolerance)
    for batch, height, width in ((1, 8, 8), (2, 12, 6)):
        inputs = unet_inputs(SDXL_TINY, batch, height, width, tokens=77)
        assert inputs.keys() == components["unet"].inputs.keys()
        inputs["timestep"] = inputs["timestep"].round() + (0.25 if weights == "f32" else 0)
        assert_equal(run(sessions["unet"], inputs)["out_sample"], of_diffusers(models, inputs), tolerance)
        latents = 7 * torch.randn(batch, 4, height, width)
        decoded = run(sessions["vae_decoder"], {"latent_sample": latents})["sample"]
        assert_equal(decoded, models.vae.decode(latents).sample, tolerance)
        moments = run(sessions["vae_encoder"], {"sample": decoded})["latent_parameters"]
        assert_equal(moments, models.vae.encode(decoded).latent_dist.parameters, tolerance)


def test_the_manifest_is_that_of_the_checkpoint(saved: SavedSdxl, exported: Path, tmp_path: Path) -> None:
    """But for the sizes: an export doubles on its way up whatever it halved."""
    theirs = convert(saved.home, tmp_path / "theirs").manifest
    ours = convert(exported, tmp_path / "ours").manifest
    assert (ours.config, ours.scheduler, ours.defaults, ours.tokenizers) == (
        theirs.config,
        theirs.scheduler,
        theirs.defaults,
        theirs.tokenizers,
    )
    assert theirs.limits["size_multiple"] == 8
    assert ours.limits == {**theirs.limits, "size_multiple": 16}
    assert ours.components.keys() == theirs.components.keys()


def test_a_tiny_vae_beside_it(saved: SavedSdxl, exported: Path, tmp_path: Path) -> None:
    bundle = convert(exported, tmp_path / "bundle", tiny_vae=str(saved.tiny_vae))
    latents = torch.randn(1, 4, 8, 8)
    session = compile_all(bundle)["tiny_vae_decoder"]
    theirs = saved.models.tiny_vae.decode(latents).sample
    assert_equal(run(session, {"latent_sample": latents})["sample"], theirs, 5e-3)


@pytest.mark.parametrize("latents_name", ["latents", "latent_sample"])
def test_a_tiny_vae_in_the_place_of_the_full_one(
    saved: SavedSdxl, exported: Path, tmp_path: Path, latents_name: str
) -> None:
    notebook = shutil.copytree(exported, tmp_path / "notebook")
    put_tiny_vae_in_place(saved, notebook, latents_name)
    bundle = convert(notebook, tmp_path / "bundle")
    assert bundle.manifest.components.keys() == {
        *("text_encoder", "text_encoder_2", "unet", "tiny_vae_decoder", "tiny_vae_encoder")
    }
    assert bundle.manifest.components["tiny_vae_decoder"].f16_safe
    sessions, vae = compile_all(bundle), saved.models.tiny_vae
    latents, picture = torch.randn(2, 4, 9, 6), 2 * torch.rand(2, 3, 72, 48) - 1
    decoded = run(sessions["tiny_vae_decoder"], {"latent_sample": latents})["sample"]
    assert_equal(decoded, vae.decode(latents).sample)
    assert_equal(run(sessions["tiny_vae_encoder"], {"sample": picture})["latents"], vae.encode(picture).latents)


def test_the_same_export_gives_the_same_bytes(exported: Path, tmp_path: Path) -> None:
    one, other = (convert(exported, tmp_path / name / "model") for name in ("one", "other"))
    assert one.manifest.files == other.manifest.files


class TestSavedPipeline:
    """optimum-intel's pipelines write their own classes in place of those that were exported."""

    @pytest.mark.parametrize("pipeline", ["", "Img2Img", "Inpaint"])
    @pytest.mark.parametrize(
        ("library", "vae"),
        [
            ("optimum", {"vae_decoder": "OVModelVaeDecoder", "vae_encoder": "OVModelVaeEncoder"}),
            ("optimum.intel.openvino.modeling_diffusion", {"vae": "OVModelVae"}),
        ],
    )
    def test_it_is_an_export(
        self, exported: Path, damaged: Path, tmp_path: Path, pipeline: str, library: str, vae: dict[str, str]
    ) -> None:
        self._save(damaged, f"OVStableDiffusionXL{pipeline}Pipeline", library, vae)
        ours, theirs = convert(damaged, tmp_path / "ours"), convert(exported, tmp_path / "theirs")
        assert ours.manifest.components == theirs.manifest.components
        assert ours.manifest.config == theirs.manifest.config
        for name in ours.manifest.components:
            assert ours.manifest.files[f"{name}.bin"] == theirs.manifest.files[f"{name}.bin"]

    def test_without_an_encoder(self, damaged: Path, tmp_path: Path) -> None:
        self._save(damaged, "OVStableDiffusionXLPipeline", "optimum", {"vae_decoder": "OVModelVaeDecoder"})
        shutil.rmtree(damaged / "vae_encoder")
        with pytest.raises(ModelError, match=r"lacks vae_encoder/config\.json, vae_encoder/openvino_model\.bin"):
            convert(damaged, tmp_path / "bundle")

    def test_without_a_vae(self, damaged: Path, tmp_path: Path) -> None:
        self._save(damaged, "OVStableDiffusionXLPipeline", "optimum", {})
        with pytest.raises(ModelError, match="names no vae"):
            convert(damaged, tmp_path / "bundle")

    def _save(self, home: Path, pipeline: str, library: str, vae: dict[str, str]) -> None:
        file = home / "model_index.json"
        index = json.loads(file.read_text(encoding="utf-8"))
        del index["vae"]
        parts = {
            **dict.fromkeys(("text_encoder", "text_encoder_2"), "OVModelTextEncoder"),
            "unet": "OVModelUnet",
            **vae,
        }
        index |= {"_class_name": pipeline, **{part: [library, name] for part, name in parts.items()}}
        file.write_text(json.dumps(index), encoding="utf-8")


class TestDamaged:
    """What can't be used is named, and nothing is written."""

    def refused(self, damaged: Path, kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message):
            convert(damaged, damaged.parent / "bundle")
        assert not (damaged.parent / "bundle").exists()

    @pytest.mark.parametrize("content", [b"", b"<net>", b"rubbish"])
    def test_a_graph_that_is_none(self, damaged: Path, content: bytes) -> None:
        (damaged / "unet" / XML).write_bytes(content)
        self.refused(damaged, DamagedModelError, r"OpenVINO can't read .*unet/openvino_model\.xml")

    def test_weights_that_are_cut_short(self, damaged: Path) -> None:
        file = damaged / "vae_decoder" / "openvino_model.bin"
        file.write_bytes(file.read_bytes()[:-100])
        self.refused(damaged, DamagedModelError, r"OpenVINO can't read .*vae_decoder")

    def test_weights_that_are_missing(self, damaged: Path) -> None:
        (damaged / "unet" / "openvino_model.bin").unlink()
        self.refused(damaged, ModelError, r"lacks unet/openvino_model\.bin")

    def test_a_part_that_was_not_exported(self, damaged: Path, saved: SavedSdxl) -> None:
        for file in (XML, "openvino_model.bin"):
            (damaged / "text_encoder" / file).unlink()
        shutil.copy(saved.home / "text_encoder" / "model.safetensors", damaged / "text_encoder")
        self.refused(damaged, ModelError, r"lacks text_encoder/openvino_model\.bin, text_encoder/openvino_model\.xml")

    def test_a_unet_beside_it_that_was_not(self, damaged: Path, saved: SavedSdxl) -> None:
        """It is then a checkpoint without weights, as OpenVINO's own files are no pickles."""
        shutil.copy(saved.home / "unet" / "diffusion_pytorch_model.safetensors", damaged / "unet")
        shutil.copytree(saved.home / "vae", damaged / "vae")
        self.refused(damaged, ModelError, r"lacks text_encoder/model\.safetensors, text_encoder_2/model\.safetensors$")

    @pytest.mark.parametrize(
        ("part", "change", "message"),
        [
            ("text_encoder", {"num_hidden_layers": 10**12}, "num_hidden_layers is 1000000000000, which is beyond"),
            ("vae_decoder", {"block_out_channels": [], "down_block_types": [], "up_block_types": []}, "is empty"),
            ("unet", {"block_out_channels": [], "down_block_types": [], "up_block_types": []}, "is empty"),
            ("unet", {"sample_size": "8"}, "sample_size is '8', where a whole number should be"),
        ],
    )
    def test_a_configuration_that_makes_no_sense(
        self, damaged: Path, part: str, change: dict[str, object], message: str
    ) -> None:
        edit_json(damaged / part / "config.json", **change)
        self.refused(damaged, ModelError, f"{part}/config.json describes no model that Vinograph has: .*{message}")

    def test_hidden_states_that_were_not_exported(self, damaged: Path) -> None:
        self._rename(damaged / "text_encoder" / XML, "hidden_states.1", "other")
        self.refused(damaged, ModelError, r"text_encoder/.*has no output hidden_states\.1, but .*newer optimum-intel")

    def test_an_encoder_that_samples(self, damaged: Path) -> None:
        self._rename(damaged / "vae_encoder" / XML, "latent_parameters", "latent_sample")
        self.refused(damaged, ModelError, "vae_encoder/.*has no output latent_parameters, but latent_sample")

    def test_another_input(self, damaged: Path) -> None:
        self._rename(damaged / "unet" / XML, "time_ids", "class_labels")
        self.refused(damaged, ModelError, "unet/.*takes class_labels, .*, not .*time_ids")

    def test_of_another_width_than_its_configuration(self, damaged: Path) -> None:
        for part, key in (("text_encoder", "hidden_size"), ("unet", "cross_attention_dim")):
            edit_json(damaged / part / "config.json", **{key: 8 if part == "text_encoder" else 12})
        self.refused(damaged, DamagedModelError, r"text_encoder/.*the output hidden_states is")

    def test_a_fixed_size(self, damaged: Path) -> None:
        file = damaged / "unet" / XML
        model = ov.Core().read_model(file)
        model.reshape({"sample": [1, 4, 8, 8], "text_embeds": [1, 4], "time_ids": [1, 6]})
        self._write(model, file)
        done = convert(damaged, damaged.parent / "bundle")
        assert done.manifest.components["unet"].inputs["sample"].shape == ("b", 4, "h", "w")

    def test_halves_of_two_vaes(self, damaged: Path, saved: SavedSdxl) -> None:
        shutil.copy(saved.tiny_vae / "config.json", damaged / "vae_encoder")
        self.refused(damaged, ModelError, "halves of two VAEs: vae_decoder is an AutoencoderKL, .* --tiny-vae")

    @pytest.mark.parametrize("half", ["vae_decoder", "vae_encoder"])
    def test_a_half_that_does_not_say_of_what(self, damaged: Path, half: str) -> None:
        file = damaged / half / "config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        del config["_class_name"]
        file.write_text(json.dumps(config), encoding="utf-8")
        self.refused(damaged, ModelError, rf"{half}/config\.json has no _class_name, which says what VAE")

    def test_a_tiny_vae_of_several_outputs(self, damaged: Path, saved: SavedSdxl) -> None:
        for half in ("vae_decoder", "vae_encoder"):
            shutil.copy(saved.tiny_vae / "config.json", damaged / half)
        shutil.copy(damaged / "text_encoder" / XML, damaged / "vae_decoder")
        shutil.copy(damaged / "text_encoder" / "openvino_model.bin", damaged / "vae_decoder")
        self.refused(damaged, ModelError, "vae_decoder/.*takes input_ids, not latent_sample")

    def test_a_tiny_vae_that_was_exported(self, damaged: Path) -> None:
        edit_json(damaged / "model_index.json", vae=["diffusers", "AutoencoderTiny"])
        self.refused(damaged, ModelError, "export with a tiny VAE")

    def _rename(self, file: Path, old: str, new: str) -> None:
        model = ov.Core().read_model(file)
        for port in (*model.inputs, *model.outputs):
            if old in port.get_names():
                port.get_tensor().set_names({new})
        self._write(model, file)

    def _write(self, model: ov.Model, file: Path) -> None:
        ov.save_model(model, file.with_name("new.xml"), compress_to_fp16=False)
        file.with_name("new.xml").replace(file)
        file.with_name("new.bin").replace(file.with_suffix(".bin"))


def test_graphs_beside_safetensors_are_left_alone(saved: SavedSdxl, exported: Path, tmp_path: Path) -> None:
    """SDXL base is published with both in every folder."""
    both = shutil.copytree(saved.home, tmp_path / "both")
    for part in ("text_encoder", "text_encoder_2", "unet"):
        for file in (XML, "openvino_model.bin"):
            shutil.copy(exported / part / file, both / part)
    ours, theirs = convert(both, tmp_path / "ours"), convert(saved.home, tmp_path / "theirs")
    assert ours.manifest.limits == theirs.manifest.limits
    for name in ("unet.bin", "text_encoder.bin"):
        assert (ours.path / name).read_bytes() == (theirs.path / name).read_bytes()


def test_of_a_bundle(exported: Path, tmp_path: Path) -> None:
    """It opens as any other."""
    assert Bundle.open(convert(exported, tmp_path / "bundle").path).manifest.family == "sdxl"
