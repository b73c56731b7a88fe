"""Würstchen's generator of steps, on sessions that are plain functions: a family never sees OpenVINO."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vinograph import Pipeline, RequestError
from vinograph.families.contract import Components, Output, Step
from vinograph.families.sizes import SizeLimits
from vinograph.families.wuerstchen.arguments import FAMILY
from vinograph.families.wuerstchen.conditioning import WuerstchenComponents, resize_bicubic
from vinograph.families.wuerstchen.config import WuerstchenConfig
from vinograph.families.wuerstchen.drawing import _last_steps
from vinograph.families.wuerstchen.sampling import _lerp
from vinograph.images import Size
from vinograph.noise import TorchNoise
from vinograph.request import resolve
from vinograph.schedulers import WuerstchenSampler
from vinograph.text import Tokens

LIMITS = {"size_multiple": 128, "minimum_size": 128, "maximum_size": 2048, "native_size": 1024}
SIZES = SizeLimits(**LIMITS)
WIDTH = 4


class Models:
    """The components as functions that note what they were given. Every output is made of zeros, but for the text's."""

    def __init__(self, levels: tuple[int, ...] = (1, 2, 3)) -> None:
        self.calls: dict[str, list[dict[str, Any]]] = {}
        self.levels = levels

    def components(self, *without: str) -> WuerstchenComponents:
        names = (
            "prior_text_encoder",
            "prior_text",
            "prior",
            "text_encoder",
            "decoder_text",
            "decoder",
            "vqgan",
            "image_encoder",
        )
        config = WuerstchenConfig(
            prior_sampler=WuerstchenSampler(),
            decoder_sampler=WuerstchenSampler(),
            prior_channels=16,
            prior_text_width=WIDTH,
            resolution_multiple=42.67,
            latent_mean=42.0,
            latent_std=1.0,
            latent_channels=4,
            latent_dim_scale=10.67,
            scale_factor=0.5,
            decoder_patch_size=2,
            decoder_level_count=4,
            effnet_levels=self.levels,
        )
        return Components(
            sessions={name: self.session(name) for name in names if name not in without},
            tokenizers={"prior_tokenizer": Letters(), "tokenizer": Letters()},  # type: ignore[dict-item]
            config=config,
            sizes=SIZES,
        )

    def session(self, name: str) -> Any:
        def call(inputs: Mapping[str, Any]) -> dict[str, Any]:
            self.calls.setdefault(name, []).append({key: value.copy() for key, value in inputs.items()})
            return {key: np.asarray(value, np.float32) for key, value in getattr(self, name)(inputs).items()}

        return call

    def prior_text_encoder(self, given: Mapping[str, Any]) -> Any:
        return {"hidden_states": np.repeat(given["input_ids"][..., None], WIDTH, axis=2)}

    text_encoder = prior_text_encoder

    def prior_text(self, given: Mapping[str, Any]) -> Any:
        return {"keys": given["hidden_states"][:, None], "values": given["hidden_states"][:, None]}

    def decoder_text(self, given: Mapping[str, Any]) -> Any:
        return {"keys_0": given["hidden_states"], "values_0": given["hidden_states"]}

    def prior(self, given: Mapping[str, Any]) -> Any:
        return {"noise": np.zeros_like(given["x"])}

    decoder = prior

    def vqgan(self, given: Mapping[str, Any]) -> Any:
        count, _, height, width = given["latents"].shape
        return {"image": np.zeros((count, 3, 4 * height, 4 * width))}

    def image_encoder(self, given: Mapping[str, Any]) -> Any:
        count, _, height, width = given["image"].shape
        return {"embeddings": np.zeros((count, 16, height // 32, width // 32))}


class Letters:
    """A tokenizer: one token, the prompt's length."""

    max_length = 1

    def __call__(self, prompts: Any) -> Tokens:
        ids = np.array([[len(each)] for each in prompts], np.int64)
        return Tokens(ids, np.ones_like(ids), ("",) * len(prompts))


def draw(
    name: str, models: Models | None = None, components: WuerstchenComponents | None = None, **given: Any
) -> tuple[list[Step], Output]:
    call = FAMILY.calls[name]
    few = {"prior_num_inference_steps": 2, "num_inference_steps": 2, "height": 128, "width": 128}
    few = {key: value for key, value in few.items() if key in call.takes and "image" not in given}
    request = resolve({**few, **given}, call, LIMITS, name, FAMILY.request)
    steps, running = [], call.run(components or (models or Models()).components(), request)
    while True:
        try:
            steps.append(next(running))
        except StopIteration as stop:
            return steps, stop.value


def first_of(calls: list[dict[str, Any]], name: str) -> list[float]:
    """One value of each row of an input of the first call."""
    return [float(row.flat[0]) for row in calls[0][name]]


class TestResizing:
    """The decoder resizes the embeddings to each level's grid as torch does: bicubic, antialiased, corners aligned."""

    @pytest.mark.parametrize("size", [(1, 1), (3, 3), (3, 6), (6, 3), (9, 12), (24, 24), (48, 48), (24, 48), (5, 7)])
    @pytest.mark.parametrize(
        "target", [(1, 1), (2, 2), (4, 4), (8, 8), (8, 16), (12, 4), (32, 32), (64, 48), (128, 128), (5, 31)]
    )
    def test_it_is_torchs(self, size: tuple[int, int], target: tuple[int, int]) -> None:
        maps = TorchNoise(0).normal((2, 16, *size)) * 30
        ours = resize_bicubic(maps, *target)
        assert ours.dtype == np.float32
        # In f32 torch rounds the weights too, and is further from its own f64 than we are.
        for theirs, tolerance in ((torch.from_numpy(maps), 6e-6), (torch.from_numpy(maps).double(), 5e-7)):
            expected = torch.nn.functional.interpolate(
                theirs, size=target, mode="bicubic", antialias=True, align_corners=True
            ).numpy()
            assert ours.shape == expected.shape
            assert np.abs(ours - expected).max() <= tolerance * np.abs(maps).max()

    def test_the_same_size_is_the_same(self) -> None:
        maps = TorchNoise(0).normal((1, 16, 6, 9))
        assert np.abs(resize_bicubic(maps, 6, 9) - maps).max() < 1e-6


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0, 1.5, 4.0, 8.0])
def test_guidance_interpolates_as_torch_does(weight: float) -> None:
    start, end = TorchNoise(0).normal((1000,)), TorchNoise(1).normal((1000,))
    theirs = torch.lerp(torch.from_numpy(start), torch.from_numpy(end), weight).numpy()
    assert np.abs(_lerp(start, end, weight) - theirs).max() <= 1e-6 * max(weight, 1)


class TestPasses:
    """What the models are asked, and how often."""

    @pytest.mark.parametrize(("scale", "rows"), [(0.0, 2), (1.0, 2), (1.01, 4)])
    def test_guidance_of_1_or_less_is_one_pass(self, scale: float, rows: int) -> None:
        models = Models()
        draw("generate", models, prompt="house", num_images_per_prompt=2, prior_guidance_scale=scale)
        assert [len(each["x"]) for each in models.calls["prior"]] == [rows, rows]
        assert [len(each["x"]) for each in models.calls["decoder"]] == [2, 2]
        assert len(models.calls["prior_text_encoder"]) == rows // 2

    def test_pictures_first_then_the_unconditional_rows(self) -> None:
        models = Models()
        given: dict[str, Any] = {
            "num_images_per_prompt": 2,
            "negative_prompt": ["x", "yy"],
            "decoder_guidance_scale": 2.0,
        }
        draw("generate", models, prompt=["cat", "house"], **given)
        for name, keys in (("prior", "keys"), ("decoder", "keys_0")):
            assert first_of(models.calls[name], keys) == [3, 3, 5, 5, 1, 1, 2, 2]
            x = models.calls[name][0]["x"]
            assert np.array_equal(x[:4], x[4:])

    def test_the_unconditional_rows_of_the_decoder_have_no_picture(self) -> None:
        models = Models()
        draw("generate", models, prompt="house", num_images_per_prompt=2, decoder_guidance_scale=2.0)
        for level in (1, 2, 3):
            maps = models.calls["decoder"][0][f"effnet_{level}"]
            assert maps.shape == (4, 16, 16 // 2**level, 16 // 2**level)
            assert maps[:2].any()
            assert not maps[2:].any()

    def test_only_the_levels_that_inject_get_maps(self) -> None:
        models = Models(levels=(0, 2))
        draw("generate", models, prompt="house")
        assert {name for name in models.calls["decoder"][0] if name.startswith("effnet")} == {"effnet_0", "effnet_2"}

    def test_the_text_is_encoded_once(self) -> None:
        models = Models()
        draw(
            "generate",
            models,
            prompt="house",
            prior_guidance_scale=0.0,
            prior_num_inference_steps=5,
            num_inference_steps=5,
        )
        text = ("prior_text_encoder", "prior_text", "text_encoder", "decoder_text")
        assert [len(models.calls[name]) for name in (*text, "prior", "decoder")] == [1, 1, 1, 1, 5, 5]

    def test_a_decoder_without_attention_reads_no_text(self) -> None:
        models = Models()
        draw("generate", models, models.components("decoder_text"), prompt="house")
        assert "text_encoder" not in models.calls
        assert not [name for name in models.calls["decoder"][0] if name.startswith("keys")]

    def test_pixels_are_decoded_one_picture_at_a_time(self) -> None:
        models = Models()
        draw("generate", models, prompt="house", num_images_per_prompt=3)
        assert [len(each["latents"]) for each in models.calls["vqgan"]] == [1, 1, 1]

    def test_latents_alone_are_not_decoded(self) -> None:
        models = Models()
        steps, drawing = draw("generate", models, prompt="house", output_type="latent")
        assert "vqgan" not in models.calls
        assert steps[-1].stage == "decoder"
        assert drawing.images is None

    def test_times_go_to_the_models(self) -> None:
        models = Models()
        draw("generate", models, prompt="house", prior_timesteps=[0.9, 0.3, 0.1], decoder_timesteps=[1.0, 0.7])
        assert [each["r"].tolist() for each in models.calls["prior"]] == [pytest.approx([t] * 2) for t in (0.9, 0.3)]
        assert [each["r"].tolist() for each in models.calls["decoder"]] == [[1.0]]


class TestShapes:
    @pytest.mark.parametrize("size", range(128, 2049, 128))
    def test_every_size_comes_out_as_asked(self, size: int) -> None:
        models = Models()
        _, drawing = draw(
            "generate",
            models,
            prompt="house",
            height=size,
            width=128,
            prior_num_inference_steps=1,
            num_inference_steps=1,
        )
        assert drawing.images is not None
        assert drawing.images.shape == (1, size, 128, 3)
        assert models.calls["prior"][0]["x"].shape[2:] == (3 * size // 128, 3)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((1, 8, 3, 3), r"image embeddings have shape \(1, 8, 3, 3\); give \[n, 16, height, width\]"),
            ((1, 16, 4, 3), "which the decoder can't draw; give a grid whose sides are multiples of 3"),
        ],
    )
    def test_embeddings_that_the_decoder_cannot_draw(self, shape: tuple[int, ...], message: str) -> None:
        with pytest.raises(RequestError, match=message):
            draw("decoder", image_embeddings=np.zeros(shape, np.float32))

    def test_latents_of_another_shape(self) -> None:
        with pytest.raises(
            RequestError, match=r"latents have shape \(1, 16, 6, 6\); this request needs \(1, 16, 3, 3\)"
        ):
            draw("generate", prompt="house", latents=np.zeros((1, 16, 6, 6)))
        with pytest.raises(
            RequestError, match=r"latents have shape \(1, 4, 32, 32\); this request needs \(1, 4, 64, 32\)"
        ):
            draw("decoder", image_embeddings=np.zeros((1, 16, 6, 3)), latents=np.zeros((1, 4, 32, 32)))

    @pytest.mark.parametrize(
        ("positive", "negative"), [((1, 7, 5), None), ((1, 7, 4), (1, 6, 4)), ((1, 7, 4), (2, 7, 4))]
    )
    def test_text_embeddings_of_another_shape(self, positive: Any, negative: Any) -> None:
        given: dict[str, Any] = {
            "prompt_embeds": np.zeros(positive),
            "negative_prompt_embeds": None if negative is None else np.zeros(negative),
        }
        with pytest.raises(
            RequestError, match=r"text embeddings have shape .*; give \[prompts, tokens, 4\], all alike"
        ):
            draw("generate", **given)

    def test_as_many_prompts_as_embeddings_or_one(self) -> None:
        embeddings = np.zeros((3, 16, 3, 3), np.float32)
        draw("decoder", image_embeddings=embeddings, prompt="house")
        draw("decoder", image_embeddings=embeddings)
        with pytest.raises(
            RequestError, match="2 prompts were given for 3 image embeddings; give one, or one for each"
        ):
            draw("decoder", image_embeddings=embeddings, prompt=["a", "b"])

    def test_the_decoder_needs_embeddings(self) -> None:
        with pytest.raises(RequestError, match="give image_embeddings: what the prior or the image encoder made"):
            draw("decoder", prompt="house")

    @pytest.mark.parametrize("name", ["prior_timesteps", "decoder_timesteps"])
    def test_times_have_to_fall(self, name: str) -> None:
        given: dict[str, Any] = {name: [0.2, 0.8]}
        with pytest.raises(RequestError, match="timesteps has to fall"):
            draw("generate", prompt="house", **given)


class TestPictures:
    """Image to image, encoding and reconstruction."""

    @pytest.mark.parametrize(
        ("picture", "drawn"),
        [
            ((256, 128), (256, 128)),
            ((300, 500), (256, 512)),
            ((50, 50), (128, 128)),
            ((1, 1), (128, 128)),
            ((1024, 1024), (1024, 1024)),
            ((4000, 3000), (1152, 896)),
            ((6000, 200), (2048, 128)),
            ((1, 60000), (128, 2048)),
        ],
    )
    def test_a_picture_brings_its_own_size(self, picture: tuple[int, int], drawn: tuple[int, int]) -> None:
        """As near to it as the model draws; one larger than the model's native area is scaled down to that."""
        width, height = drawn
        assert SIZES.nearest(Size(width=picture[0], height=picture[1])) == Size(height, width)

    def test_that_it_was_resized_is_reported(self) -> None:
        _, drawing = draw("encode", image=Image.new("RGB", (300, 150)))
        assert drawing.warnings == ["the picture was resized from 300x150 to 256x128"]
        assert drawing.image_embeddings is not None
        assert drawing.image_embeddings.shape == (1, 16, 3, 6)
        assert draw("encode", image=Image.new("RGB", (256, 128)))[1].warnings == []

    def test_a_size_that_was_asked_for_goes_first(self) -> None:
        _, drawing = draw(
            "generate",
            prompt="house",
            image=Image.new("RGB", (256, 128)),
            width=128,
            height=256,
            prior_num_inference_steps=2,
        )
        assert drawing.images is not None
        assert drawing.images.shape == (1, 256, 128, 3)

    def test_the_encoder_sees_three_quarters_of_it(self) -> None:
        models = Models()
        pixels = np.full((128, 256, 3), 255, np.uint8)
        draw("encode", models, image=pixels)
        assert models.calls["image_encoder"][0]["image"].shape == (1, 3, 96, 192)
        assert models.calls["image_encoder"][0]["image"].min() == 1

    def test_exif_is_honoured(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (256, 128)).save(tmp_path / "turned.jpg", exif=exif)
        models = Models()
        draw("encode", models, image=tmp_path / "turned.jpg")
        assert models.calls["image_encoder"][0]["image"].shape == (1, 3, 192, 96)

    @pytest.mark.parametrize(("strength", "steps"), [(1.0, 10), (0.8, 8), (0.55, 5), (0.1, 1)])
    def test_strength_is_the_share_of_the_steps_that_are_done(self, strength: float, steps: int) -> None:
        times = np.linspace(1, 0, 11).astype(np.float32)
        assert np.array_equal(_last_steps(times, strength), times[10 - steps :])

    @pytest.mark.parametrize(("strength", "least"), [(0.09, 12), (0.01, 100), (0.05, 20)])
    def test_less_than_one_step_gets_the_fewest_that_do(self, strength: float, least: int) -> None:
        times = np.linspace(1, 0, 11).astype(np.float32)
        with pytest.raises(
            RequestError, match=rf"10 steps at strength .* leave none to do; give at least {least} steps"
        ):
            _last_steps(times, strength)
        _last_steps(np.linspace(1, 0, least + 1).astype(np.float32), strength)

    def test_every_picture_of_the_batch_starts_from_it(self) -> None:
        models = Models()
        _, drawing = draw(
            "generate",
            models,
            prompt=["a", "b"],
            image=np.zeros((128, 128, 3), np.uint8),
            num_images_per_prompt=2,
            prior_num_inference_steps=4,
        )
        assert len(models.calls["image_encoder"]) == 1
        assert [len(each["x"]) for each in models.calls["prior"]] == [8, 8, 8]
        assert drawing.images is not None
        assert len(drawing.images) == 4

    def test_several_pictures_repeat_in_their_order(self) -> None:
        models = Models()
        images = [np.full((128, 128, 3), value, np.uint8) for value in (0, 255)]
        draw("generate", models, prompt=["a", "b"], image=images, num_images_per_prompt=2, prior_num_inference_steps=4)
        assert [each["image"].mean() for each in models.calls["image_encoder"]] == [0, 1]
        assert [len(each["x"]) for each in models.calls["prior"]] == [8, 8, 8]

    def test_each_picture_starts_from_its_own(self, tiny: Pipeline) -> None:
        images = [Image.new("RGB", (128, 128), colour) for colour in ("red", "blue")]
        given: dict[str, Any] = {"strength": 0.5, "output_type": "np"}
        both = tiny("a house", image=images, num_images_per_prompt=2, seed=3, **given).images
        for index, image in enumerate(images):
            alone = tiny("a house", image=image, seed=3 + index, **given).images
            assert np.abs(both[index] - alone[0]).max() < 1e-5

    def test_a_reconstruction_is_measured(self, tiny: Pipeline) -> None:
        picture = Image.fromarray(np.random.RandomState(0).randint(0, 256, (128, 256, 3)).astype(np.uint8))
        result = tiny.reconstruct(picture, seed=1, num_images_per_prompt=2)
        assert [each.size for each in result.images] == [(256, 128)] * 2
        assert set(result.report) == {"psnr", "spatial_compression", "values_compression"}
        assert result.report["spatial_compression"] == pytest.approx(42.67, abs=0.01)
        assert result.image_embeddings is not None
        assert result.image_embeddings.shape == (2, 16, 3, 6)
        assert result.seeds == (1, 2)
