"""Pipelines of bundles: their arguments, results, steps, callbacks and devices."""

import gc
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.bundles import TOKENS, save_bundle, save_pixart_bundle
from tests.cli.conftest import environment
from tests.odd_values import RaisesAlways, small_pipelines
from vinograph import (
    DamagedModelError,
    DeviceError,
    ModelError,
    NumericalError,
    Pipeline,
    RequestError,
    Result,
    Step,
    components,
)
from vinograph.families import registry
from vinograph.families.wuerstchen.request import WuerstchenRequest
from vinograph.runtime.tuning import DEFAULT

PROMPT = "a red house on a snowy hill at night"


def pixels(result: Any) -> Any:
    return np.stack([np.asarray(each) for each in result.images])


@pytest.fixture(scope="module")
def pipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pipeline]:
    """A small model of each family."""
    return small_pipelines(tmp_path_factory.mktemp("three"))


class TestArguments:
    def test_prompt_height_and_width_may_be_positional_as_in_diffusers(self, tiny: Pipeline) -> None:
        by_position = tiny(PROMPT, 256, 128, seed=1)
        by_name = tiny(prompt=PROMPT, height=256, width=128, seed=1)
        assert by_position.images[0].size == (128, 256)
        assert np.array_equal(pixels(by_position), pixels(by_name))

    def test_more_positional_arguments_are_refused(self, tiny: Pipeline) -> None:
        with pytest.raises(
            RequestError, match="generate takes prompt, height, width by position; name the other arguments"
        ):
            tiny(PROMPT, 128, 128, 4)

    def test_an_argument_given_twice_is_refused(self, tiny: Pipeline) -> None:
        with pytest.raises(RequestError, match="prompt was given twice, by position and by name"):
            tiny(PROMPT, prompt=PROMPT)  # type: ignore[misc]

    def test_an_unknown_argument_lists_the_known_ones(self, tiny: Pipeline) -> None:
        with pytest.raises(RequestError) as caught:
            tiny(PROMPT, use_resolution_binning=True)
        message = str(caught.value)
        assert message.startswith(
            "Würstchen (generate) takes no use_resolution_binning; it takes callback_on_step_end, "
        )
        assert all(name in message for name in tiny.calls["generate"].takes)

    def test_an_argument_of_another_call_lists_the_known_ones(self, tiny: Pipeline) -> None:
        with pytest.raises(RequestError, match=r"Würstchen \(encode\) takes no prompt; it takes height, image, width"):
            tiny.encode(Image.new("RGB", (128, 128)), prompt=PROMPT)  # type: ignore[call-arg]

    def test_a_model_has_its_own_defaults(self, tiny: Pipeline) -> None:
        request = tiny(PROMPT, seed=1).request
        assert isinstance(request, WuerstchenRequest)
        assert (request.height, request.prior_num_inference_steps, request.num_inference_steps) == (128, 4, 3)
        assert tiny.calls["generate"].takes["height"] == 128

    def test_an_empty_prompt_gives_a_picture(self, tiny: Pipeline) -> None:
        assert tiny("", seed=1).images[0].size == (128, 128)

    def test_a_familys_calls_are_methods(self, tiny: Pipeline) -> None:
        assert set(tiny.calls) == {"generate", "prior", "decoder", "encode", "reconstruct"}
        embeddings = tiny.prior(PROMPT, height=128, width=128, seed=1).image_embeddings
        assert tiny.decoder(embeddings, PROMPT, seed=1).images[0].size == (128, 128)

    def test_other_families_calls_are_no_methods(self, tiny: Pipeline) -> None:
        for name in ("inpaint", "_private", "__wrapped__"):
            assert not hasattr(tiny, name)
        with pytest.raises(AttributeError, match="Pipeline has no 'inpaint'"):
            tiny.inpaint(PROMPT)  # type: ignore[attr-defined]


class TestBeforeTheFirstStep:
    """`stream` itself refuses what arguments and manifest rule out; nothing runs before."""

    PICTURE = Image.new("RGB", (128, 128))
    ZEROS: Mapping[str, Any] = {"latents": np.zeros((1, 4, 9, 9))}
    STATES: Mapping[str, Any] = {
        "prompt_embeds": np.zeros((1, 20, 16)),
        "pooled_prompt_embeds": np.zeros((1, 8)),
        "negative_prompt_embeds": np.zeros((1, 7, 16)),
        "negative_pooled_prompt_embeds": np.zeros((1, 8)),
    }
    PIXART: Mapping[str, Any] = {"prompt_embeds": np.zeros((1, 5, 9)), "prompt_attention_mask": np.ones((1, 5))}
    REFUSED: Sequence[tuple[str, str, Mapping[str, Any], str]] = [
        ("wuerstchen", "generate", {"prior_timesteps": [0.1, 0.5]}, "prior_timesteps has to fall"),
        ("wuerstchen", "generate", {"decoder_timesteps": [0.5]}, "decoder's timesteps needs at least two"),
        ("wuerstchen", "generate", ZEROS, "latents have shape"),
        ("wuerstchen", "generate", {"image": PICTURE, **ZEROS}, "latents have shape"),
        ("wuerstchen", "generate", {"image": PICTURE, "strength": 0.1, "prior_num_inference_steps": 2}, "leave none"),
        ("wuerstchen", "generate", {"image": "nowhere.png"}, "there is no file"),
        ("wuerstchen", "generate", {"image": [PICTURE] * 2}, "image holds 2 pictures for 1 to draw"),
        ("wuerstchen", "generate", {"prompt_embeds": np.zeros((1, 7, 5))}, "text embeddings have shape"),
        ("wuerstchen", "prior", {"timesteps": [2.0, 1.0]}, "timesteps has to fall"),
        ("wuerstchen", "prior", ZEROS, "latents have shape"),
        ("wuerstchen", "prior", {"prompt_embeds": np.zeros((1, 7, 5))}, "text embeddings have shape"),
        ("wuerstchen", "decoder", {}, "give image_embeddings"),
        ("wuerstchen", "decoder", {"image_embeddings": np.zeros((1, 16, 4, 4))}, "multiples of 3"),
        ("wuerstchen", "decoder", {"image_embeddings": np.zeros((1, 16, 3, 3)), **ZEROS}, "latents have shape"),
        ("wuerstchen", "decoder", {"image_embeddings": np.zeros((3, 16, 3, 3)), "prompt": ["a", "b"]}, "2 prompts"),
        ("wuerstchen", "reconstruct", {"image": PICTURE, "timesteps": [1.0]}, "at least two times"),
        ("wuerstchen", "encode", {"image": [PICTURE] * 2}, "image holds 2 pictures, and here it can only be one"),
        ("sdxl", "generate", {"timesteps": [1, 2]}, "timesteps have to fall"),
        ("sdxl", "generate", {"sigmas": [1.0, 2.0]}, "sigmas have to fall"),
        ("sdxl", "generate", ZEROS, "latents have shape"),
        ("sdxl", "generate", {"image": PICTURE, **ZEROS}, "latents have shape"),
        ("sdxl", "generate", {"image": PICTURE, "strength": 0.2, "num_inference_steps": 2}, "leave none to do"),
        ("sdxl", "generate", {"image": PICTURE, "denoising_start": 0.6, "denoising_end": 0.5}, "start below the end"),
        ("sdxl", "generate", {"image": PICTURE, "mask_image": "nowhere.png"}, "there is no file"),
        ("sdxl", "generate", {"clip_skip": 100}, "clip_skip is 100"),
        ("sdxl", "generate", {**STATES, "guidance_scale": 5.0}, "give both alike"),
        ("sdxl", "generate", {"negative_target_size": (1, 2)}, "give both negative_original_size"),
        ("sdxl", "encode", {"image": PICTURE, "vae": "none"}, "vae is 'none'"),
        ("sdxl", "reconstruct", {"image": np.zeros((2, 2))}, "give [height, width, 3]"),
        ("pixart", "generate", {"timesteps": [1, 2]}, "timesteps have to fall"),
        ("pixart", "generate", ZEROS, "latents have shape"),
        ("pixart", "generate", {"image": PICTURE, "strength": 0.2, "num_inference_steps": 2}, "leave none to do"),
        ("pixart", "generate", PIXART, "prompt_embeds and its attention mask have shapes"),
        ("pixart", "generate", {"image": [PICTURE] * 3}, "image holds 3 pictures for 1 to draw"),
    ]

    @pytest.mark.parametrize(("family", "call", "given", "words"), REFUSED)
    def test_wrong_arguments_are_refused_before_the_first_step(
        self, pipes: Any, family: str, call: str, given: Mapping[str, Any], words: str
    ) -> None:
        pipe = pipes[family]
        subject = {} if "prompt" not in pipe.calls[call].takes or "prompt_embeds" in given else {"prompt": PROMPT}
        subject = {} if call == "decoder" else subject
        with pytest.raises(RequestError, match=re.escape(words)):
            pipe.stream(call=call, **{**subject, **given})
        assert not pipe._sessions.devices_and_precisions()

    @pytest.mark.parametrize("call", [[], {}, None, 5, "x" * 10**6], ids=["list", "dict", "none", "number", "long"])
    def test_an_unknown_call_is_refused(self, tiny: Pipeline, call: Any) -> None:
        with pytest.raises(RequestError, match=r"^call is .{1,250}; Würstchen does generate, ") as caught:
            tiny.stream(PROMPT, call=call)
        assert len(str(caught.value)) < 400

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"device": RaisesAlways()}, "device is a RaisesAlways without a repr"),
            ({"device": {1: "CPU"}}, "device names the component 1"),
            ({"precision": {"prior": RaisesAlways()}}, "precision is "),
            ({"precision": "f32" * 10**6}, "precision is 'f32f32"),
            ({"memory": RaisesAlways()}, "memory is a RaisesAlways without a repr"),
            ({"memory": np.zeros(3)}, "memory is array"),
        ],
    )
    def test_wrong_device_precision_or_memory_is_refused(self, tiny_bundle: Path, given: Any, words: str) -> None:
        with pytest.raises(RequestError, match=re.escape(words)) as caught:
            Pipeline.from_pretrained(tiny_bundle, **given)
        assert len(str(caught.value)) < 600

    @pytest.mark.parametrize("model", [5, b"tiny", None, RaisesAlways()], ids=["number", "bytes", "none", "broken"])
    def test_a_model_must_be_named_by_text_or_path(self, model: Any) -> None:
        with pytest.raises(RequestError, match=r"^model is "):
            Pipeline.from_pretrained(model)

    @pytest.mark.parametrize("model", ["a" * 300, "a" * 300 + "/b", "a\0b", "/" + "a/" * 5000, "\ud800"])
    def test_an_impossible_path_is_refused(self, model: str) -> None:
        with pytest.raises(ModelError, match="there is no model ") as caught:
            Pipeline.from_pretrained(model)
        assert len(str(caught.value)) < 600


class TestResult:
    def test_a_result_has_the_picture_and_its_record(self, tiny: Pipeline) -> None:
        result = tiny(PROMPT, seed=7)
        assert isinstance(result, Result)
        assert [each.size for each in result.images] == [(128, 128)]
        assert result.seeds == (7,)
        assert result.request.prompt == (PROMPT,)
        assert result.warnings == ()
        assert result.model == "tiny"
        assert set(result.timings) == {"text", "prior", "decoder", "vqgan"}
        assert all(seconds >= 0 for seconds in result.timings.values())

    def test_the_same_seed_gives_the_same_picture(self, tiny: Pipeline) -> None:
        one, same, other = (pixels(tiny(PROMPT, seed=seed)) for seed in (1, 1, 2))
        assert np.array_equal(one, same)
        assert not np.array_equal(one, other)

    def test_without_a_seed_a_random_one_is_reported(self, tiny: Pipeline) -> None:
        result = tiny(PROMPT)
        assert result.seeds is not None
        assert np.array_equal(pixels(result), pixels(tiny(PROMPT, seed=result.seeds[0])))

    def test_any_picture_of_a_batch_can_be_drawn_alone(self, tiny: Pipeline) -> None:
        batch = tiny([PROMPT, "two boats"], num_images_per_prompt=2, negative_prompt=["cats", "dogs"], seed=5)
        assert batch.seeds == (5, 6, 7, 8)
        for index, picture in enumerate(batch.images):
            request = batch.metadata(index)["request"]
            assert request["seed"] == 5 + index
            alone = tiny(**request).images
            assert len(alone) == 1
            assert np.array_equal(np.asarray(alone[0]), np.asarray(picture)), request

    def test_metadata_is_json(self, tiny: Pipeline) -> None:
        metadata = json.loads(json.dumps(tiny(PROMPT, seed=2**64 - 1, prior_timesteps=[1.0, 0.5, 0.0]).metadata(0)))
        assert (metadata["model"], metadata["request"]["prompt"]) == ("tiny", PROMPT)
        assert metadata["request"]["seed"] == 2**64 - 1
        assert metadata["request"]["prior_timesteps"] == [1.0, 0.5, 0.0]
        assert metadata["vinograph"]

    def test_output_types(self, tiny: Pipeline) -> None:
        arrays, latents = (tiny(PROMPT, seed=1, output_type=kind).images for kind in ("np", "latent"))
        assert arrays.shape == (1, 128, 128, 3)
        assert arrays.dtype == np.float32
        assert latents.shape == (1, 4, 32, 32)
        assert np.array_equal((arrays * 255).round(), pixels(tiny(PROMPT, seed=1)))

    def test_a_result_can_be_a_tuple(self, tiny: Pipeline) -> None:
        drawn: Any = tiny(PROMPT, seed=1, return_dict=False)  # type: ignore[arg-type]
        (images,) = drawn
        assert np.array_equal(np.asarray(images[0]), pixels(tiny(PROMPT, seed=1, return_dict=True))[0])
        drawn = tiny.prior(PROMPT, 128, 128, seed=1, return_dict=False)  # type: ignore[arg-type]
        (embeddings,) = drawn
        assert embeddings.shape == (1, 16, 3, 3)

    def test_truncated_text_is_reported_once(self, tiny: Pipeline) -> None:
        """Both text encoders truncate it at the same place."""
        result = tiny("house " * (TOKENS - 2) + "at Night", seed=1)
        assert result.warnings == (f"the text encoder reads {TOKENS} tokens; cut off: 'at Night'",)

    def test_an_ignored_negative_prompt_is_reported(self, tiny: Pipeline) -> None:
        result = tiny(PROMPT, negative_prompt="cats", prior_guidance_scale=1.0, seed=1)
        assert result.warnings == ("the negative prompt was ignored: it takes a guidance scale above 1",)
        assert tiny(PROMPT, negative_prompt="cats", seed=1).warnings == ()
        assert tiny(PROMPT, negative_prompt="", prior_guidance_scale=0.0, seed=1).warnings == ()


class TestSteps:
    """`stream` yields each finished step, and the result at the end."""

    def test_stream_yields_every_step_in_order(self, tiny: Pipeline) -> None:
        *steps, result = tiny.stream(PROMPT, seed=1)
        assert isinstance(result, Result)
        assert [(each.stage, each.index, each.total) for each in steps if isinstance(each, Step)] == [
            ("text", 1, 1),
            *[("prior", index, 4) for index in (1, 2, 3, 4)],
            *[("decoder", index, 3) for index in (1, 2, 3)],
            ("vqgan", 1, 1),
        ]
        assert np.array_equal(pixels(result), pixels(tiny(PROMPT, seed=1)))

    def test_arguments_are_checked_before_the_first_step(self, tiny: Pipeline) -> None:
        with pytest.raises(RequestError):
            tiny.stream(PROMPT, height=100)

    def test_steps_have_previews(self, tiny: Pipeline) -> None:
        """They are small pictures of the batch's first, from any step but that of the text."""
        for step in tiny.stream([PROMPT, "a boat"], 128, 256, seed=1):
            if isinstance(step, Step):
                preview = step.preview()
                assert (preview is None) == (step.stage == "text")
                assert preview is None or (preview.mode, preview.size) == ("RGB", (256, 128))

    def test_a_preview_of_a_large_picture_is_small(self, tiny: Pipeline) -> None:
        for step in tiny.stream(PROMPT, 512, 1024, seed=1, prior_num_inference_steps=1, num_inference_steps=1):
            if isinstance(step, Step) and step.stage in ("prior", "decoder"):
                preview = step.preview()
                assert preview is not None
                assert preview.size == (256, 128)

    def test_a_preview_does_not_change_the_picture(self, tiny: Pipeline) -> None:
        result: Any = None
        for result in tiny.stream(PROMPT, seed=1):
            if isinstance(result, Step):
                result.preview()
        assert np.array_equal(pixels(result), pixels(tiny(PROMPT, seed=1)))

    def test_closing_the_stream_stops_the_work(self, tiny: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[str] = []
        for name in ("prior", "decoder"):
            monkeypatch.setitem(tiny._sessions._opened, name, noting(name, calls, tiny._sessions[name]))
        stream = tiny.stream(PROMPT, seed=1)
        assert isinstance(stream, Generator)
        for step in stream:
            if isinstance(step, Step) and step.stage == "prior" and step.index == 2:
                break
        stream.close()
        gc.collect()
        assert calls == ["prior", "prior"]
        assert next(stream, None) is None

    def test_another_call_can_be_streamed(self, tiny: Pipeline) -> None:
        picture = Image.new("RGB", (128, 128), "red")
        *steps, result = tiny.stream(picture, call="reconstruct", seed=1)
        assert isinstance(result, Result)
        assert [each.stage for each in steps if isinstance(each, Step)] == ["image encoder", *["decoder"] * 12, "vqgan"]
        assert np.array_equal(pixels(result), pixels(tiny.reconstruct(picture, seed=1)))

    def test_streaming_an_unknown_call_is_refused(self, tiny: Pipeline) -> None:
        with pytest.raises(
            RequestError, match="call is 'upscale'; Würstchen does generate, prior, decoder, encode, reconst"
        ):
            tiny.stream(PROMPT, call="upscale")

    def test_a_stream_computes_nothing_ahead(self, tiny: Pipeline) -> None:
        started = time.monotonic()
        tiny.stream(PROMPT, 2048, 2048, seed=1, prior_num_inference_steps=1000)
        assert time.monotonic() - started < 0.5


def noting(name: str, calls: list[str], session: Any) -> Any:
    class Noting:
        execution_devices = ("CPU",)
        precision = "f32"
        setting = DEFAULT

        def __call__(self, inputs: Any) -> Any:
            calls.append(name)
            return session(inputs)

        settings_used = ()

        def begin_drawing(self) -> None:
            pass

    return Noting()


class TestCallbacks:
    """Callbacks are diffusers': pipeline, step from 0, timestep, and a dictionary of tensors."""

    def test_a_callback_is_called_after_each_step(self, tiny: Pipeline) -> None:
        seen: list[Any] = []

        def callback(pipeline: Any, step: int, when: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            assert pipeline is tiny
            seen.append((step, round(float(when), 4), tensors["latents"].shape))
            return tensors

        tiny(PROMPT, seed=1, callback_on_step_end=callback, prior_callback_on_step_end=callback)
        assert seen[:4] == [
            (0, 1.0, (1, 16, 3, 3)),
            (1, 0.75, (1, 16, 3, 3)),
            (2, 0.5, (1, 16, 3, 3)),
            (3, 0.25, (1, 16, 3, 3)),
        ]
        assert seen[4:] == [(0, 1.0, (1, 4, 32, 32)), (1, 0.6667, (1, 4, 32, 32)), (2, 0.3333, (1, 4, 32, 32))]

    def test_latents_that_a_callback_returns_are_used(self, tiny: Pipeline) -> None:
        def zero(pipeline: Any, step: int, when: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            return {"latents": np.zeros(tensors["latents"].shape)}

        result = tiny(PROMPT, seed=1, callback_on_step_end=zero, callback_on_step_end_tensor_inputs=["latents"])
        assert np.ptp(pixels(result)) == 0

    @pytest.mark.parametrize("returned", [None, {}])
    def test_a_callback_need_not_return_latents(self, tiny: Pipeline, returned: Any) -> None:
        result = tiny(PROMPT, seed=1, callback_on_step_end=lambda *_: returned)
        assert np.array_equal(pixels(result), pixels(tiny(PROMPT, seed=1)))

    def test_latents_of_another_shape_are_refused(self, tiny: Pipeline) -> None:
        with pytest.raises(
            RequestError, match=r"the callback returned latents of shape \(2,\); \(1, 4, 32, 32\) are wanted"
        ):
            tiny(PROMPT, seed=1, callback_on_step_end=lambda *_: {"latents": [0, 1]})

    def test_errors_of_a_callback_pass_unchanged(self, tiny: Pipeline) -> None:
        def stop(*_: Any) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            tiny(PROMPT, seed=1, prior_callback_on_step_end=stop)


class TestDevices:
    def test_the_result_names_the_devices_that_ran(self, tiny_bundle: Path) -> None:
        pipe = Pipeline.from_pretrained(tiny_bundle, "CPU", "f32")
        assert pipe.prior(PROMPT, 128, 128, seed=1).devices == {
            "prior_text_encoder": "CPU f32",
            "prior_text": "CPU f32",
            "prior": "CPU f32",
        }

    def test_a_device_and_a_precision_for_each_component(self, tiny_bundle: Path) -> None:
        pipe = Pipeline.from_pretrained(
            tiny_bundle, device={"prior": "HETERO:CPU", "vqgan": "AUTO"}, precision={"prior": "f32", "decoder": "f32"}
        )
        ran = pipe(PROMPT, seed=1).devices
        assert ran["prior"] == "CPU f32"
        assert ran["decoder"] == "CPU f32"
        assert ran["vqgan"] == "CPU auto"
        assert ran["text_encoder"].startswith("CPU ")

    @pytest.mark.parametrize("device", ["NPU", {"prior": "NPU"}])
    def test_an_absent_device_is_an_error_at_once(self, tiny_bundle: Path, device: Any) -> None:
        with pytest.raises(DeviceError, match="device 'NPU' is not on this machine; there is"):
            Pipeline.from_pretrained(tiny_bundle, device)

    def test_a_device_for_an_unknown_component_is_refused(self, tiny_bundle: Path) -> None:
        with pytest.raises(RequestError, match=r"device names the component 'unet'; this model has .*prior"):
            Pipeline.from_pretrained(tiny_bundle, device={"unet": "CPU"})
        with pytest.raises(RequestError, match="precision names the component 'vae'"):
            Pipeline.from_pretrained(tiny_bundle, precision={"vae": "f32"})

    @pytest.mark.parametrize("given", [7, None, ["CPU"], {"prior": ["CPU"]}, {"prior": None}])
    def test_a_device_of_another_type_is_refused(self, tiny_bundle: Path, given: Any) -> None:
        for name in ("device", "precision"):
            with pytest.raises(RequestError, match=f"{name} is .*; give a text, or a mapping from component to one"):
                Pipeline.from_pretrained(tiny_bundle, **{name: given})

    def test_an_unknown_precision_is_refused(self, tiny_bundle: Path) -> None:
        with pytest.raises(RequestError, match="precision is 'fp16'; give one of auto, f32, bf16, f16"):
            Pipeline.from_pretrained(tiny_bundle, precision="fp16")

    def test_an_unsupported_precision_is_reported(self, tiny_bundle: Path) -> None:
        result = Pipeline.from_pretrained(tiny_bundle, precision={"vqgan": "f16"})(PROMPT, seed=1)
        ran = result.devices["vqgan"].split()[1]
        warning = f"precision f16 was asked for, which this device doesn't compute; vqgan ran in {ran}"
        assert result.warnings == (() if ran == "f16" else (warning,))


def test_ctrl_c_works_after_the_last_model_is_deleted(tiny_bundle: Path, tmp_path: Path) -> None:
    """Each OpenVINO core installs a stack for signal handlers, and removes it again."""
    code = """
import gc, os, signal, sys
from pathlib import Path
from vinograph import Pipeline

for _ in range(2):
    Pipeline.from_pretrained(sys.argv[1])("a house", seed=1)
    gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(10**8):
        pass
except KeyboardInterrupt:
    Path(sys.argv[2]).write_text("heard")
"""
    heard = tmp_path / "heard"
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)" + code  # a shell's & ignores it
    done = subprocess.run([sys.executable, "-c", code, str(tiny_bundle), str(heard)], env=environment(), check=False)
    assert (done.returncode, heard.exists()) == (0, True)


class TestModels:
    def test_an_unknown_family_is_refused(self, tiny_bundle: Path, tmp_path: Path) -> None:
        shutil.copytree(tiny_bundle, tmp_path / "other")
        file = tmp_path / "other" / "bundle.json"
        file.write_text(
            json.dumps({**json.loads(file.read_text(encoding="utf-8")), "family": "kandinsky"}), encoding="utf-8"
        )
        with pytest.raises(
            ModelError, match="the family 'kandinsky' is not one that Vinograph draws; it draws wuerstchen"
        ):
            Pipeline.from_pretrained(tmp_path / "other")

    def test_every_registered_family_exists(self) -> None:
        for name in registry.FAMILIES:
            found = registry.family(name)
            assert found.name == name
            assert "generate" in found.calls
            assert set(found.options.values()) <= set(found.calls["generate"].takes)

    def test_a_call_without_its_components_is_refused(self, tmp_path: Path) -> None:
        save_bundle(tmp_path / "blind", image_encoder=False, name="blind")
        pipe = Pipeline.from_pretrained(tmp_path / "blind")
        for call in (pipe.encode, pipe.reconstruct):
            with pytest.raises(
                ModelError, match=r"blind has no image_encoder, which .* needs: convert the model again"
            ):
                call(Image.new("RGB", (128, 128)))
        with pytest.raises(ModelError, match="this bundle has no image encoder: convert the model again"):
            pipe(PROMPT, image=Image.new("RGB", (128, 128)))
        assert pipe(PROMPT, seed=1).images

    @pytest.mark.parametrize("stage", ["prior_text_encoder", "prior", "decoder", "vqgan"])
    def test_a_stage_that_computes_nan_gives_no_picture(self, tmp_path: Path, stage: str) -> None:
        save_bundle(tmp_path / "broken", broken=stage)
        with pytest.raises(NumericalError, match=f"the {stage} stage computed NaN or infinity in f32"):
            Pipeline.from_pretrained(tmp_path / "broken", precision="f32")(PROMPT, seed=1)

    def test_a_model_is_opened_without_reading_its_weights(self, tiny_bundle: Path) -> None:
        pipe = Pipeline.from_pretrained(tiny_bundle)
        assert pipe._sessions._opened == {}
        pipe.prior(PROMPT, 128, 128, seed=1)
        assert set(pipe._sessions._opened) == {"prior_text_encoder", "prior_text", "prior"}


class TestDamagedManifest:
    @pytest.mark.parametrize("part", ["config", "limits"])
    @pytest.mark.parametrize("value", [None, "many", [1, "two"], True])
    def test_a_manifests_wrong_number_is_named_at_opening(
        self, tiny_bundle: Path, tmp_path: Path, part: str, value: Any
    ) -> None:
        """It is reported when the model is opened, before anything runs."""
        copy = shutil.copytree(tiny_bundle, tmp_path / "copy")
        manifest = json.loads((copy / "bundle.json").read_text(encoding="utf-8"))
        name = {"config": "scale_factor", "limits": "native_size"}[part]
        manifest[part][name] = value
        (copy / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
        with pytest.raises(DamagedModelError, match=rf"bundle.json lacks or garbles a field: {part}.{name} is"):
            Pipeline.from_pretrained(copy)


@pytest.mark.parametrize(("share", "kept"), [(3, 0), (5, 1)])
def test_a_component_of_a_quarter_of_the_memory_is_freed_after_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: int, kept: int
) -> None:
    bundle = save_pixart_bundle(tmp_path / "bundle")
    weights = bundle.manifest.files["text_encoder.bin"].size
    monkeypatch.setattr(components, "memory_installed", lambda: share * weights)
    pipe = Pipeline.from_pretrained(str(bundle.path))
    pipe("a house", seed=1)
    opened: Any = pipe._sessions._opened
    assert {name: len(opened[name]._compiled) for name in ("text_encoder", "transformer")} == {
        "text_encoder": kept,
        "transformer": 1,
    }
