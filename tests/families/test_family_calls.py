"""The generators of steps of latent-diffusion families: components' inputs, and the caller's results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.bundles import WIDTH
from tests.families.tiny import FAMILIES, PIXART, PROMPT, SDXL, Tiny, Watched
from vinograph import ModelError, NumericalError, Pipeline, RequestError, Result
from vinograph.families.contract import Step
from vinograph.families.shared import strength_steps

LONG = "a red house on a snowy hill at night " * 6


@pytest.fixture(params=FAMILIES.values(), ids=list(FAMILIES))
def tiny_family(request: pytest.FixtureRequest) -> Tiny:
    found: Tiny = request.param
    return found


class TestPasses:
    @pytest.mark.parametrize(("scale", "passes"), [(0.0, 1), (1.0, 1), (1.01, 2), (1.5, 2)])
    def test_guidance_of_1_or_less_is_one_pass(
        self, tiny_family: Tiny, pipe: Pipeline, watched: Watched, scale: float, passes: int
    ) -> None:
        pipe(PROMPT, guidance_scale=scale, num_images_per_prompt=3, seed=1, num_inference_steps=3)
        shapes = [each["sample"].shape for each in watched.calls[tiny_family.denoiser]]
        assert shapes == [(3 * passes, 4, tiny_family.side // 8, tiny_family.side // 8)] * 3

    def test_pictures_of_a_batch_can_be_drawn_alone(self, tiny_family: Tiny, pipe: Pipeline) -> None:
        arguments: dict[str, Any] = {"image": tiny_family.picture(), "vae": "full", "output_type": "np"}
        batch = pipe(PROMPT, seed=5, num_images_per_prompt=3, **arguments)
        assert batch.seeds == (5, 6, 7)
        assert np.abs(batch.images[2] - pipe(PROMPT, seed=7, **arguments).images[0]).max() < 1e-6


class TestSteps:
    def test_every_step_is_shown(self, tiny_family: Tiny, pipe: Pipeline) -> None:
        *steps, result = list(pipe.stream(PROMPT, seed=1, num_inference_steps=3))
        shown = [(each.stage, each.index, each.total) for each in steps if isinstance(each, Step)]
        assert shown == [("text", 1, 1), *((tiny_family.denoiser, index, 3) for index in (1, 2, 3)), ("vae", 1, 1)]
        assert isinstance(result, Result)
        assert set(result.timings) == {"text", tiny_family.denoiser, "vae"}
        assert result.images[0].size == (tiny_family.side, tiny_family.side)

    def test_previews(self, tiny_family: Tiny, pipe: Pipeline) -> None:
        side = tiny_family.side
        shown = [each.preview() for each in pipe.stream(PROMPT, seed=1, height=side) if isinstance(each, Step)]
        assert [None if each is None else each.size for each in shown] == [None, *[(side, side)] * 5]

    def test_previews_of_a_full_vae_are_small(self, tiny_family: Tiny, tmp_path: Path) -> None:
        full = tiny_family.open(tmp_path, without=("tiny_vae_decoder", "tiny_vae_encoder"))
        width, height = tiny_family.wide
        steps = [each for each in full.stream(PROMPT, seed=1, height=height, width=width) if isinstance(each, Step)]
        for step in steps[1:-1]:
            preview = step.preview()
            assert preview is not None
            assert preview.size == (width // 2, height // 2)

    def test_fewer_from_a_picture(self, tiny_family: Tiny, pipe: Pipeline, watched: Watched) -> None:
        running = pipe.stream(PROMPT, image=tiny_family.picture(), strength=0.5, seed=1, num_inference_steps=4)
        *steps, result = running
        denoiser = tiny_family.denoiser
        assert [each.stage for each in steps if isinstance(each, Step)] == [
            *("text", "vae encoder", denoiser, denoiser, "vae")
        ]
        assert (len(watched.calls[denoiser]), len(watched.calls["tiny_vae_encoder"])) == (2, 1)
        assert isinstance(result, Result)
        assert (result.images[0].size, result.warnings) == ((tiny_family.side, tiny_family.side), ())

    @pytest.mark.parametrize(
        ("steps", "strength", "fewest"), [(3, 0.3, 4), (1, 0.5, 2), (9, 0.1, 10), (1, 0.9999, 2), (4, 0.2, 5)]
    )
    def test_none_left(
        self, tiny_family: Tiny, pipe: Pipeline, watched: Watched, steps: int, strength: float, fewest: int
    ) -> None:
        with pytest.raises(RequestError) as caught:
            pipe(PROMPT, image=tiny_family.picture(), num_inference_steps=steps, strength=strength)
        assert str(caught.value) == (
            f"{steps} steps at strength {strength:g} leave none to do; "
            f"give at least {fewest} steps, or a higher strength"
        )
        assert watched.calls == {}
        assert strength_steps(fewest, strength) == 1

    def test_the_models_own_steps_are_raised_to_leave_one(self, tiny_family: Tiny, pipe: Pipeline) -> None:
        assert pipe(PROMPT, image=tiny_family.picture(), strength=0.2, seed=1).request.num_inference_steps == 5


class TestVaes:
    def test_the_tiny_one_is_the_default(self, pipe: Pipeline, watched: Watched) -> None:
        pipe(PROMPT, seed=1)
        assert "tiny_vae_decoder" in watched.calls
        assert "vae_decoder" not in watched.calls

    def test_either_can_be_had(self, tiny_family: Tiny, pipe: Pipeline, watched: Watched) -> None:
        pipe(PROMPT, image=tiny_family.picture(), strength=0.5, vae="full", seed=1)
        assert {"vae_encoder", "vae_decoder"} <= set(watched.calls)
        assert not {"tiny_vae_encoder", "tiny_vae_decoder"} & set(watched.calls)

    def test_one_picture_at_a_time(self, pipe: Pipeline, watched: Watched) -> None:
        pipe(PROMPT, num_images_per_prompt=3, seed=1)
        assert [len(each["latent_sample"]) for each in watched.calls["tiny_vae_decoder"]] == [1, 1, 1]

    @pytest.mark.parametrize(("gone", "there"), [("tiny", "full"), ("full", "tiny")])
    def test_one_that_is_not_there(self, tiny_family: Tiny, tmp_path: Path, gone: Any, there: str) -> None:
        prefix = {"tiny": "tiny_vae", "full": "vae"}[gone]
        one = tiny_family.open(tmp_path, without=(f"{prefix}_decoder", f"{prefix}_encoder"))
        with pytest.raises(RequestError, match=f"vae is '{gone}'; this model has {there}"):
            one(PROMPT, vae=gone)
        assert one(PROMPT, seed=1).images

    def test_none(self, tiny_family: Tiny, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="this bundle has no VAE"):
            tiny_family.open(tmp_path, without=("vae_decoder", "tiny_vae_decoder"))(PROMPT)

    def test_no_encoder(self, tiny_family: Tiny, tmp_path: Path) -> None:
        blind = tiny_family.open(tmp_path, without=("tiny_vae_encoder",))
        with pytest.raises(ModelError, match="this bundle has no tiny_vae_encoder: convert the model again"):
            blind(PROMPT, image=tiny_family.picture(), strength=0.5)


@pytest.mark.parametrize("component", ["text_encoder", "denoiser"])
def test_what_else_it_needs(tiny_family: Tiny, tmp_path: Path, component: str) -> None:
    name = getattr(tiny_family, component)
    with pytest.raises(ModelError, match=f"has no {name}, which generate needs: convert the model again"):
        tiny_family.open(tmp_path, without=(name,))(PROMPT)


@pytest.mark.parametrize("component", ["text_encoder", "denoiser", "tiny_vae_decoder"])
def test_a_stage_that_computes_no_numbers_draws_no_picture(tiny_family: Tiny, tmp_path: Path, component: str) -> None:
    name = getattr(tiny_family, component, component)
    with pytest.raises(NumericalError, match=f"the {name} stage computed NaN or infinity in f32"):
        tiny_family.open(tmp_path, broken=name)(PROMPT, seed=1)


class TestPictures:
    @pytest.mark.parametrize("given", ["path", "picture", "uint8", "float"])
    def test_what_a_picture_may_be(self, tiny_family: Tiny, pipe: Pipeline, tmp_path: Path, given: str) -> None:
        image = tiny_family.picture()
        image.save(tmp_path / "start.png")
        forms: dict[str, Any] = {
            "path": tmp_path / "start.png",
            "picture": image,
            "uint8": np.asarray(image),
            "float": np.asarray(image, np.float32) / 255,
        }
        usual, other = (
            pipe(PROMPT, image=each, strength=0.5, seed=1, output_type="np").images for each in (image, forms[given])
        )
        assert np.array_equal(usual, other)

    def test_rotation_by_exif_is_honoured(self, tiny_family: Tiny, pipe: Pipeline, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        width, height = tiny_family.wide
        tiny_family.picture(height, width).save(tmp_path / "turned.jpg", exif=exif)
        drawn = pipe(PROMPT, image=tmp_path / "turned.jpg", strength=0.5, seed=1)
        assert drawn.images[0].size == (width, height)

    def test_each_picture_starts_from_its_own(self, tiny_family: Tiny, pipe: Pipeline) -> None:
        images = [tiny_family.picture(), tiny_family.picture().rotate(180)]
        given: dict[str, Any] = {"strength": 0.5, "output_type": "np", "vae": "full"}
        both = pipe(PROMPT, image=images, num_images_per_prompt=2, seed=3, **given).images
        for index, image in enumerate(images):
            alone = pipe(PROMPT, image=image, seed=3 + index, **given).images
            assert np.abs(both[index] - alone[0]).max() < 1e-5

    def test_reconstruct(self, tiny_family: Tiny, pipe: Pipeline) -> None:
        size = (tiny_family.side + 16, tiny_family.side)
        flat = Image.new("RGB", size, (100, 150, 200))
        for vae in ("tiny", "full"):
            result = pipe.reconstruct(flat, vae=vae)
            assert result.images[0].size == size
            assert result.seeds is None
            assert result.report["spatial_compression"] == 8
            assert result.report["values_compression"] == 48
            assert result.report["psnr"] > 5
            assert set(result.timings) == {"vae encoder", "vae"}

    def test_reconstruct_gives_no_latents(self, tiny_family: Tiny, pipe: Pipeline) -> None:
        """Those are what `encode` gives."""
        assert pipe.reconstruct(tiny_family.picture(), output_type="np").images.shape[3] == 3
        with pytest.raises(RequestError, match=r"output_type is 'latent'; give one of pil, np$"):
            pipe.reconstruct(tiny_family.picture(), output_type="latent")

    def test_reconstruct_takes_no_seed(self, tiny_family: Tiny, pipe: Pipeline) -> None:
        with pytest.raises(RequestError, match=r"\(reconstruct\) takes no seed; it takes height, image, output_type"):
            pipe.reconstruct(tiny_family.picture(), seed=1)


SIZES_OF_SDXL: dict[str, dict[str, Any]] = {
    "plain": {},
    "several": {"guidance_scale": 5.0, "num_images_per_prompt": 2, "height": 64, "width": 128},
    "image": {"image": Image.new("RGB", (96, 64)), "strength": 0.5},
}
SIZES_OF_PIXART: dict[str, dict[str, Any]] = {
    "plain": {},
    "several": {"prompt": [PROMPT, LONG], "guidance_scale": 1.0, "num_images_per_prompt": 2},
    "long": {"negative_prompt": LONG, "height": 200, "width": 500, "max_sequence_length": 50},
    "image": {"image": PIXART.picture(300, 200), "strength": 0.5},
    "embeddings": {
        "prompt": None,
        "prompt_embeds": np.ones((2, 3, WIDTH)),
        "prompt_attention_mask": np.ones((2, 3)),
    },
}


@pytest.mark.parametrize(
    ("tiny_family", "given", "changes"),
    [
        *(pytest.param(SDXL, given, {}, id=f"sdxl-{name}") for name, given in SIZES_OF_SDXL.items()),
        *(
            pytest.param(PIXART, given, {"size_conditions": count}, id=f"pixart-{name}-{count}")
            for name, given in SIZES_OF_PIXART.items()
            for count in (0, 1)
        ),
    ],
    indirect=["tiny_family"],
)
def test_components_are_prepared_for_what_they_are_given(
    tiny_family: Tiny, tmp_path: Path, given: dict[str, Any], changes: dict[str, Any]
) -> None:
    prepared: dict[str, Mapping[str, tuple[int, ...]]] = {}
    pipe = tiny_family.open(tmp_path, **changes)
    watched = Watched.of(pipe, prepare=prepared.__setitem__)
    pipe(**{"prompt": PROMPT, "num_inference_steps": 2, "seed": 0, **given})
    assert prepared == {
        component: {name: value.shape for name, value in watched.calls[component][0].items()}
        for component in (tiny_family.denoiser, "tiny_vae_decoder")
    }
