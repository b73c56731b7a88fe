"""Both published layouts, and the forms in which their parts come, give the same bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints import PRIOR_ID, TINY, save_wuerstchen, write_card
from tests.convert.conftest import VQGAN, edit_json, edit_tensors, files_of
from tests.models.open_model import networks, open_model, sums, total
from tests.networks.agreement import tensors_of
from training.wuerstchen.modules import ImageEncoder
from vinograph.convert import convert
from vinograph.errors import DamagedModelError, ModelError, RequestError
from vinograph.families.wuerstchen.network_config import ImageEncoderConfig
from vinograph.families.wuerstchen.network_image_encoder import image_encoder
from vinograph.models.bundle import Bundle
from vinograph.models.manifest import Manifest
from vinograph.networks.graph import Weights


def graphs_of(bundle: Bundle) -> dict[str, bytes]:
    """What the bundle computes: graphs, weights and tokenizers."""
    return {
        name: content for name, content in files_of(bundle.path).items() if name not in ("README.md", "bundle.json")
    }


def test_the_bundle_has_both_tokenizers(undisturbed: Bundle) -> None:
    assert {name: each.file for name, each in undisturbed.manifest.tokenizers.items()} == {
        "prior_tokenizer": "prior_tokenizer.json",
        "tokenizer": "tokenizer.json",
    }
    assert undisturbed.manifest.source.licence == "mit"
    assert "license: mit" in (undisturbed.path / "README.md").read_text()


def test_the_split_layout_with_the_prior_named(undisturbed: Bundle, split: tuple[Path, Path], tmp_path: Path) -> None:
    decoder, prior = split
    bundle = convert(decoder, tmp_path / "bundle", prior=str(prior))
    assert graphs_of(bundle) == graphs_of(undisturbed)
    assert bundle.manifest.config == undisturbed.manifest.config
    assert bundle.manifest.source.also == {"prior": prior.name}


def assert_the_same(one: Path, other: Path) -> None:
    """Two checkpoints, whose components must hold the same weights."""
    assert sums(open_model(one)) == sums(open_model(other))


def test_weights_in_several_files(combined: Path, checkpoint: Path) -> None:
    file = checkpoint / VQGAN
    tensors = load_file(file)
    file.unlink()
    names = [f"diffusion_pytorch_model-0000{index}-of-00002.safetensors" for index in (1, 2)]
    placed = {name: names[index % 2] for index, name in enumerate(tensors)}
    for name in names:
        save_file({key: each for key, each in tensors.items() if placed[key] == name}, file.with_name(name))
    index_file = file.with_name(file.name + ".index.json")
    index_file.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    assert_the_same(combined, checkpoint)


def test_classes_under_their_older_library(combined: Path, checkpoint: Path) -> None:
    edit_json(
        checkpoint / "model_index.json",
        decoder=["wuerstchen", "WuerstchenDiffNeXt"],
        vqgan=["wuerstchen", "PaellaVQModel"],
        prior_prior=["wuerstchen", "WuerstchenPrior"],
        prior_tokenizer=["transformers", "CLIPTokenizerFast"],
        text_encoder=["transformers", "CLIPTextModelWithProjection"],
    )
    assert_the_same(combined, checkpoint)


def test_batch_norms_without_their_counters(combined: Path, checkpoint: Path) -> None:
    edit_tensors(
        checkpoint / VQGAN,
        lambda tensors: [tensors.pop(name) for name in list(tensors) if name.endswith("num_batches_tracked")],
    )
    assert_the_same(combined, checkpoint)


class TestPrior:
    """Which prior is converted."""

    @pytest.fixture
    def other(self, tmp_path: Path) -> Path:
        """A combined checkpoint with other weights."""
        return save_wuerstchen(tmp_path / "other", TINY, seed=1).decoder

    def changed(self, checkpoint: Path, prior: Path) -> set[str]:
        """The components that are others with that prior."""
        own, named = sums(open_model(checkpoint)), sums(open_model(checkpoint, prior=str(prior)))
        return {name for name in own if own[name] != named[name]}

    def test_a_combined_repository(self, combined: Path, other: Path) -> None:
        assert self.changed(combined, other) == {"prior_text_encoder", "prior_text", "prior"}

    def test_a_fine_tuned_prior_alone(self, combined: Path, other: Path, tmp_path: Path) -> None:
        alone = tmp_path / "tuned"
        shutil.copytree(other / "prior_prior", alone)
        (alone / "diffusion_pytorch_model.safetensors").rename(alone / "tuned.safetensors")
        assert self.changed(combined, alone) == {"prior_text", "prior"}

    def test_none_is_named(self, split: tuple[Path, Path], tmp_path: Path) -> None:
        decoder = shutil.copytree(split[0], tmp_path / "decoder")
        write_card(decoder, "license: mit")
        with pytest.raises(ModelError, match="names no prior: name one with --prior"):
            convert(decoder, tmp_path / "bundle")

    def test_the_card_is_garbled(self, split: tuple[Path, Path], tmp_path: Path) -> None:
        decoder = shutil.copytree(split[0], tmp_path / "decoder")
        write_card(decoder, "prior: [", "license: }")
        with pytest.raises(ModelError, match="names no prior"):
            convert(decoder, tmp_path / "bundle")

    def test_it_is_a_decoder(self, split: tuple[Path, Path], tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="WuerstchenDecoderPipeline, which has no prior"):
            convert(split[0], tmp_path / "bundle", prior=str(split[0]))

    def test_it_is_nothing_of_the_kind(self, split: tuple[Path, Path], tmp_path: Path) -> None:
        (tmp_path / "nothing").mkdir()
        with pytest.raises(ModelError, match=r"neither a model_index\.json nor a config\.json"):
            convert(split[0], tmp_path / "bundle", prior=str(tmp_path / "nothing"))

    def test_it_is_of_another_width(self, combined: Path, tmp_path: Path) -> None:
        alone = tmp_path / "tuned"
        shutil.copytree(combined / "prior_prior", alone)
        edit_json(alone / "config.json", c_cond=32)
        edit_tensors(
            alone / "diffusion_pytorch_model.safetensors",
            lambda tensors: tensors.update({"cond_mapper.0.weight": torch.ones(TINY.prior_width, 32)}),
        )
        with pytest.raises(ModelError, match="encoder gives 24 channels, the prior takes 32"):
            convert(combined, tmp_path / "bundle", prior=str(alone))

    def test_a_prior_is_no_model_by_itself(self, split: tuple[Path, Path], tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="WuerstchenPriorPipeline"):
            convert(split[1], tmp_path / "bundle")
        assert PRIOR_ID in (split[0] / "README.md").read_text()


class TestImageEncoder:
    """The image encoder: in the checkpoint, or in a file that is named."""

    SMALL_CONFIG = {  # noqa: RUF012
        "stem": 8,
        "stages": [
            {"kind": "fused", "expand_ratio": 2, "kernel": 3, "stride": 4, "c_out": 8, "layers": 1},
            {"kind": "plain", "expand_ratio": 2, "kernel": 3, "stride": 4, "c_out": 8, "layers": 2},
        ],
        "head": 12,
    }

    def test_in_the_checkpoint(self, checkpoint: Path, tmp_path: Path) -> None:
        import numpy as np
        import openvino as ov

        torch.manual_seed(0)
        encoder = ImageEncoder.from_config(self.SMALL_CONFIG).eval()
        folder = checkpoint / "image_encoder"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(self.SMALL_CONFIG))
        save_file(encoder.state_dict(), folder / "model.safetensors")
        bundle = convert(checkpoint, tmp_path / "bundle", weights="f32")
        component = bundle.manifest.components["image_encoder"]
        compiled = ov.Core().compile_model(
            bundle.path / component.file, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        )
        for size in ((1, 3, 96, 192), (2, 3, 100, 64)):
            picture = torch.rand(size)
            ours = compiled({"image": picture.numpy()})["embeddings"]
            with torch.no_grad():
                np.testing.assert_allclose(ours, encoder(picture).numpy(), atol=1e-4)

    @pytest.mark.parametrize("name", ["model_v2_stage_b.pt", "encoder.safetensors"])
    def test_the_published_one(self, combined: Path, tmp_path: Path, name: str) -> None:
        encoder = ImageEncoder(ImageEncoderConfig()).requires_grad_(False)
        file = tmp_path / name
        if name.endswith(".pt"):
            torch.save({"state_dict": {"x": torch.ones(1)}, "effnet_state_dict": encoder.state_dict()}, file)
        else:
            save_file(encoder.state_dict(), file)
        network = networks(open_model(combined, image_encoder=file))["image_encoder"]
        expected = image_encoder(ImageEncoderConfig(), Weights(tensors_of(encoder), "the module"))
        assert total(network) == total(expected)

    def test_of_another_model(self, combined: Path, tmp_path: Path) -> None:
        file = tmp_path / "encoder.pt"
        torch.save({"effnet_state_dict": {"backbone.0.0.weight": torch.ones(1)}}, file)
        with pytest.raises(DamagedModelError, match=r"encoder\.pt: the tensor backbone\.0\.0\.weight"):
            convert(combined, tmp_path / "bundle", image_encoder=file)

    def test_not_there(self, combined: Path, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match=r"--image-encoder .*none\.pt is not a file"):
            convert(combined, tmp_path / "bundle", image_encoder=tmp_path / "none.pt")


class TestSettings:
    """What a checkpoint's own vinograph.json sets."""

    def manifest(self, checkpoint: Path, **settings: object) -> Manifest:
        (checkpoint / "vinograph.json").write_text(json.dumps(settings))
        return open_model(checkpoint).manifest

    def test_they_override(self, checkpoint: Path) -> None:
        manifest = self.manifest(
            checkpoint,
            name="storybook",
            defaults={"generate": {"height": 256, "prior_num_inference_steps": 20}, "prior": {"height": 384}},
            limits={"maximum_size": 512},
        )
        assert manifest.name == "storybook"
        defaults, limits = manifest.defaults, manifest.limits
        assert (defaults["generate"]["height"], defaults["prior"]["height"]) == (256, 384)
        assert defaults["generate"]["prior_num_inference_steps"] == 20
        assert defaults["generate"]["num_inference_steps"] == 12
        assert (limits["maximum_size"], limits["minimum_size"]) == (512, 128)
