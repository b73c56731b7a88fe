"""A1111's API over a real socket, by its client webuiapi as it is."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from requests.adapters import HTTPAdapter
from webuiapi import HiResUpscaler, WebUIApi

from tests.serve.serving import QuickService, configured, running, serving
from vinograph import Pipeline
from vinograph.infotext import parse_infotext
from vinograph.serve.contract import (
    DeadlineError,
    DrainingError,
    ModelUnavailableError,
    QueueFullError,
    WorkerLostError,
)

ROOT = Path(__file__).parents[2]
PROMPT = "a red house on a snowy hill"
SMALL: dict[str, Any] = {"width": 128, "height": 128, "steps": 2, "cfg_scale": 1.0}
LONG: dict[str, Any] = {"width": 384, "height": 384, "steps": 100, "cfg_scale": 2.0}
READ_AS_A1111: dict[str, Any] = {"prompt_weighting": "a1111", "long_prompt": "chunks"}
MODELS = ("storybook-sdxl", "storybook-wuerstchen")


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with an adapter."""
    models = tmp_path_factory.mktemp("models")
    (models / "adapters").mkdir()
    adapter = ROOT / "training" / "adapters" / "turquoise-sdxl.safetensors"
    shutil.copy(adapter, models / "adapters" / "turquoise.safetensors")
    return models


@pytest.fixture(scope="module")
def address(models_folder: Path) -> Iterator[str]:
    """A server with two models and an adapter."""
    models = [word for name in MODELS for word in ("--model", name)]
    limits = ["--limit", "pictures=4", "--limit", "steps=100"]
    environment = {"VINOGRAPH_MODELS": str(models_folder), "OMP_NUM_THREADS": "1"}
    with running(*models, *limits, "--strict-models", environment=environment) as server:
        yield server.address


@pytest.fixture
def api(address: str) -> Iterator[WebUIApi]:
    """The client, and afterwards options as before."""
    client = WebUIApi(baseurl=f"{address}/sdapi/v1")
    before = client.get_options()
    yield client
    client.set_options(before)
    client.session.close()


class FromElsewhere(HTTPAdapter):
    """Sends requests from another address of this machine."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, source_address=("127.0.0.2", 0))


@pytest.fixture
def other(address: str) -> Iterator[WebUIApi]:
    """A client on another machine, as the server sees it."""
    client = WebUIApi(baseurl=f"{address}/sdapi/v1")
    client.session.mount("http://", FromElsewhere())
    yield client
    client.session.close()


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained("storybook-sdxl")


@pytest.fixture(scope="module")
def house(pipe: Pipeline) -> Image.Image:
    picture: Image.Image = pipe(PROMPT, seed=3).images[0]
    return picture


def test_a_picture_is_the_pipelines_bit_for_bit(api: WebUIApi, pipe: Pipeline) -> None:
    found = api.txt2img(prompt=f"{PROMPT} at (night:1.2)", negative_prompt="green", seed=7, **SMALL)
    drawn = pipe(
        f"{PROMPT} at (night:1.2)",
        negative_prompt="green",
        seed=7,
        width=128,
        height=128,
        num_inference_steps=2,
        guidance_scale=1.0,
        scheduler="Euler a",
        **READ_AS_A1111,
    )
    assert equal(found.image, drawn.images[0])


def test_info_and_parameters_say_how_it_was_drawn(api: WebUIApi) -> None:
    found = api.txt2img(prompt=PROMPT, negative_prompt="green", seed=7, sampler_name="DPM++ 2M", **SMALL)
    assert found.parameters["prompt"] == PROMPT
    assert (found.parameters["width"], found.parameters["hr_scale"]) == (128, 2.0)
    info = found.info
    assert (info["seed"], info["all_seeds"], info["all_prompts"]) == (7, [7], [PROMPT])
    assert (info["width"], info["height"], info["steps"], info["cfg_scale"]) == (128, 128, 2, 1.0)
    assert (info["sampler_name"], info["sd_model_name"]) == ("DPM++ 2M", "storybook-sdxl")
    text = parse_infotext(info["infotexts"][0])
    assert (text.prompt, text.negative_prompt, text.fields["Seed"]) == (PROMPT, "green", "7")


def test_a_prompt_alone_is_drawn_by_the_models_defaults(address: str, pipe: Pipeline) -> None:
    answer = requests.post(f"{address}/sdapi/v1/txt2img", json={"prompt": PROMPT, "seed": "7"}, timeout=60).json()
    assert (answer["parameters"]["steps"], answer["parameters"]["width"]) == (1, 256)
    assert equal(opened(answer["images"][0]), pipe(PROMPT, seed=7, **READ_AS_A1111).images[0])


def equal(one: Any, other: Any) -> bool:
    """Whether two pictures have the same pixels."""
    return np.array_equal(one, other)


def encoded(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_several_pictures_take_the_seeds_that_follow(api: WebUIApi) -> None:
    found = api.txt2img(prompt=PROMPT, seed=5, batch_size=2, n_iter=2, **SMALL)
    assert found.info["all_seeds"] == [5, 6, 7, 8]
    assert len(found.images) == len(found.info["infotexts"]) == 4
    alone = api.txt2img(prompt=PROMPT, seed=7, **SMALL)
    assert equal(found.images[2], alone.image)


def test_minus_one_is_a_random_seed_that_draws_the_same_again(api: WebUIApi) -> None:
    found = api.txt2img(prompt=PROMPT, seed=-1, **SMALL)
    again = api.txt2img(prompt=PROMPT, seed=found.info["seed"], **SMALL)
    assert equal(found.image, again.image)
    assert api.txt2img(prompt=PROMPT, seed=-1, **SMALL).info["seed"] != found.info["seed"]


def test_image_to_image_is_the_pipelines_bit_for_bit(api: WebUIApi, pipe: Pipeline, house: Image.Image) -> None:
    found = api.img2img([house], prompt="a blue house", seed=7, denoising_strength=0.5, **{**SMALL, "steps": 4})
    drawn = pipe(
        "a blue house",
        image=house.resize((128, 128), Image.Resampling.LANCZOS),
        strength=0.5,
        seed=7,
        width=128,
        height=128,
        num_inference_steps=4,
        guidance_scale=1.0,
        scheduler="Euler a",
        **READ_AS_A1111,
    )
    assert equal(found.image, drawn.images[0])
    assert found.info["denoising_strength"] == 0.5
    assert found.parameters["init_images"] is None
    body: dict[str, Any] = {
        "init_images": [encoded(house)],
        "mask": None,
        "include_init_images": True,
        "send_images": False,
        **SMALL,
    }
    answer = requests.post(f"{api.baseurl}/img2img", json=body, timeout=60).json()
    assert answer["parameters"]["init_images"] == body["init_images"]


@pytest.mark.parametrize(("full", "most"), [(True, 0), (False, 5)])
def test_a_mask_keeps_what_is_black(api: WebUIApi, house: Image.Image, full: bool, most: float) -> None:
    """To the bit where its surroundings are drawn alone; else what is kept passes through the VAE."""
    mask = Image.new("L", house.size, 0)
    mask.paste(255, (128, 0, 256, 256))
    size = {"width": 256, "height": 256, "steps": 4, "cfg_scale": 1.0}
    found = api.img2img(
        [house], mask_image=mask, mask_blur=0, inpaint_full_res=full, prompt="a field", seed=7, **size
    ).image
    change = np.abs(np.asarray(found, int) - np.asarray(house))
    assert change[:, :120].mean() <= most
    assert change[:, 136:].mean() > 15


def test_hires_draws_twice(api: WebUIApi, pipe: Pipeline) -> None:
    options = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": HiResUpscaler.Lanczos, "denoising_strength": 0.5}
    found = api.txt2img(prompt=PROMPT, seed=7, **options, **SMALL)
    drawn = pipe(
        PROMPT,
        hires=1.5,
        hires_strength=0.5,
        seed=7,
        width=128,
        height=128,
        num_inference_steps=2,
        guidance_scale=1.0,
        scheduler="Euler a",
        **READ_AS_A1111,
    )
    assert found.image.size == (192, 192)
    assert equal(found.image, drawn.images[0])
    assert (found.info["width"], found.info["denoising_strength"]) == (192, 0.5)


def test_a_tag_draws_with_an_adapter(api: WebUIApi, pipe: Pipeline, models_folder: Path) -> None:
    assert [each["name"] for each in api.get_loras()] == ["turquoise"]
    found = api.txt2img(prompt="a turquoise house <lora:turquoise:0.8>", seed=7, **SMALL)
    plain = api.txt2img(prompt="a turquoise house", seed=7, **SMALL)
    pipe.set_adapters({models_folder / "adapters" / "turquoise.safetensors": 0.8})
    arguments: dict[str, Any] = {
        "width": 128,
        "height": 128,
        "num_inference_steps": 2,
        "guidance_scale": 1.0,
        "scheduler": "Euler a",
    }
    drawn = pipe("a turquoise house", seed=7, **arguments, **READ_AS_A1111).images[0]
    pipe.set_adapters({})
    assert equal(found.image, drawn)
    assert not equal(found.image, plain.image)
    assert "<lora:turquoise:0.8>" in found.info["infotexts"][0]


def test_a_tag_of_an_unknown_adapter_is_a_warning(api: WebUIApi) -> None:
    found = api.txt2img(prompt=f"{PROMPT}<lora:lost:1>", seed=7, **SMALL)
    assert found.info["warnings"] == ["there is no adapter 'lost': its tag has no effect"]
    assert equal(found.image, api.txt2img(prompt=PROMPT, seed=7, **SMALL).image)


def test_pictures_that_are_not_wanted_are_not_sent(api: WebUIApi) -> None:
    found = api.txt2img(prompt=PROMPT, seed=7, send_images=False, **SMALL)
    assert (found.images, found.info["all_seeds"]) == ([], [7])


# As these clients send them, apart from the sizes and steps.
OF_CLIENTS: dict[str, dict[str, Any]] = {
    "sillytavern": {
        "url": "http://127.0.0.1:8080",
        "auth": "",
        "prompt": PROMPT,
        "negative_prompt": "",
        "sampler_name": "DDIM",
        "scheduler": "normal",
        "steps": 2,
        "cfg_scale": 7,
        "width": 128,
        "height": 128,
        "restore_faces": False,
        "enable_hr": False,
        "hr_upscaler": "Latent",
        "hr_scale": 2,
        "hr_additional_modules": [],
        "denoising_strength": 0.7,
        "hr_second_pass_steps": 0,
        "override_settings": {"CLIP_stop_at_last_layers": 1},
        "override_settings_restore_afterwards": True,
        "clip_skip": 1,
        "save_images": True,
        "send_images": True,
        "do_not_save_grid": False,
        "do_not_save_samples": False,
    },
    "open-webui": {"prompt": PROMPT, "batch_size": 1, "width": 128, "height": 128, "steps": 2},
}


@pytest.mark.parametrize("client", OF_CLIENTS)
def test_other_clients_requests_are_drawn_as_they_are(address: str, client: str) -> None:
    answer = requests.post(f"{address}/sdapi/v1/txt2img", json=OF_CLIENTS[client], timeout=60)
    assert answer.status_code == 200, answer.text
    assert opened(answer.json()["images"][0]).size == (128, 128)
    assert json.loads(answer.json()["info"])["warnings"] == []


class TestOptions:
    def test_all_of_them_can_be_sent_back(self, api: WebUIApi) -> None:
        options = api.get_options()
        assert options["sd_model_checkpoint"] == "storybook-sdxl"
        assert api.set_options(options) is None
        assert api.get_options() == options

    def test_the_checkpoint_switches_the_model_of_later_requests(self, api: WebUIApi) -> None:
        api.util_set_model("storybook-wuerstchen")
        assert api.util_get_current_model() == "storybook-wuerstchen"
        assert "Heun" not in api.util_get_sampler_names()
        size = {"width": 128, "height": 128, "steps": 2, "cfg_scale": 1.0}
        assert api.txt2img(prompt=PROMPT, seed=7, **size).info["sd_model_name"] == "storybook-wuerstchen"

    def test_an_override_holds_for_one_request_unless_told_otherwise(self, api: WebUIApi) -> None:
        override = {"sd_model_checkpoint": "storybook-wuerstchen"}
        found = api.txt2img(prompt=PROMPT, override_settings=override, **SMALL)
        assert found.info["sd_model_name"] == "storybook-wuerstchen"
        assert api.util_get_current_model() == "storybook-sdxl"
        api.txt2img(prompt=PROMPT, override_settings=override, override_settings_restore_afterwards=False, **SMALL)
        assert api.util_get_current_model() == "storybook-wuerstchen"

    def test_an_unknown_checkpoint_is_404_and_changes_nothing(self, api: WebUIApi, address: str) -> None:
        lost = {"sd_model_checkpoint": "lost", "enable_pnginfo": True}
        bodies: dict[str, Any] = {"options": lost, "txt2img": {"prompt": "", "override_settings": lost}}
        for path, body in bodies.items():
            answer = requests.post(f"{address}/sdapi/v1/{path}", json=body, timeout=60)
            assert (answer.status_code, answer.json()["error"]) == (404, "model_not_found")
        assert (api.get_options()["sd_model_checkpoint"], api.get_options()["enable_pnginfo"]) == (MODELS[0], False)

    def test_pictures_hold_their_request_only_where_that_is_asked_for(self, api: WebUIApi) -> None:
        found = api.txt2img(prompt=PROMPT, seed=7, **SMALL)
        assert not found.image.info
        assert api.png_info(found.image).info == ""
        found = api.txt2img(prompt=PROMPT, seed=7, override_settings={"enable_pnginfo": True}, **SMALL)
        told = requests.post(f"{api.baseurl}/png-info", json={"image": found.json["images"][0]}, timeout=60).json()
        assert told["info"] == found.info["infotexts"][0]
        assert told["parameters"]["Prompt"] == PROMPT
        assert (told["parameters"]["Size-1"], told["parameters"]["Seed"]) == ("128", "7")
        assert "vinograph" in told["items"]

    def test_the_format_of_samples_can_be_chosen(self, api: WebUIApi) -> None:
        found = api.txt2img(prompt=PROMPT, override_settings={"samples_format": "webp"}, **SMALL)
        assert found.image.format == "WEBP"


class TestListings:
    def test_models_samplers_and_schedules_are_those_that_work(self, api: WebUIApi) -> None:
        assert api.util_get_model_names() == ["storybook-sdxl", "storybook-wuerstchen"]
        samplers, schedules = api.util_get_sampler_names(), api.util_get_scheduler_names()
        assert {"Euler a", "DPM++ 2M", "UniPC"} <= set(samplers)
        assert {"automatic", "karras", "align_your_steps"} <= set(schedules)
        tried = [(sampler, "karras") for sampler in samplers] + [("Euler", schedule) for schedule in schedules]
        for sampler, schedule in tried:
            found = api.txt2img(prompt="", sampler_name=sampler, scheduler=schedule, **SMALL)
            assert found.image.size == (128, 128)

    def test_every_upscaler_that_is_listed_works(self, api: WebUIApi) -> None:
        names = [each["name"] for each in (*api.get_upscalers(), *api.get_latent_upscale_modes())]
        assert names == ["None", "Lanczos", "Latent"]
        for name in names:
            found = api.txt2img(prompt="", enable_hr=True, hr_scale=1.5, hr_upscaler=name, **SMALL)
            assert found.image.size == (192, 192)

    def test_every_vae_that_is_listed_works(self, api: WebUIApi) -> None:
        for each in api.get_sd_vae():
            api.txt2img(prompt="", override_settings={"sd_vae": each["model_name"]}, **SMALL)

    def test_nothing_is_listed_that_is_not_there(self, api: WebUIApi) -> None:
        assert api.get_hypernetworks() == api.get_prompt_styles() == api.get_face_restorers() == []
        assert api.get_realesrgan_models() == []
        assert api.get_embeddings() == {"loaded": {}, "skipped": {}}
        assert api.get_scripts() == {"txt2img": [], "img2img": []}
        assert (api.has_controlnet, api.has_adetailer) == (False, False)

    def test_memory_is_the_machines(self, api: WebUIApi) -> None:
        ram = api.get_memory()["ram"]
        assert 0 < ram["free"] < ram["total"] == ram["free"] + ram["used"]

    @pytest.mark.parametrize("name", ["extensions", "script-info", "sd-modules", "cmd-flags"])
    def test_what_other_clients_get_is_there(self, address: str, name: str) -> None:
        assert requests.get(f"{address}/sdapi/v1/{name}", timeout=60).status_code == 200

    @pytest.mark.parametrize("name", ["refresh-checkpoints", "refresh-loras", "refresh-vae", "unload-checkpoint"])
    def test_what_has_nothing_to_do_answers(self, address: str, name: str) -> None:
        assert requests.post(f"{address}/sdapi/v1/{name}", timeout=60).status_code == 200

    def test_the_page_of_a1111_can_be_pinged(self, address: str) -> None:
        assert requests.get(f"{address}/internal/ping", timeout=60).json() == {}

    def test_no_list_holds_a_path_of_the_server(self, api: WebUIApi, models_folder: Path) -> None:
        assert str(models_folder) not in str((api.get_loras(), api.get_sd_models(), api.get_options()))


class InBackground:
    """A request in a thread."""

    def __init__(self, draw: Callable[[], Any]) -> None:
        self.result: Any = None

        def run() -> None:
            self.result = draw()

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def join(self) -> Any:
        self._thread.join()
        return self.result


def until(condition: Callable[[], Any]) -> Any:
    """Wait for a true value; returned is that value."""
    while not (value := condition()):
        time.sleep(0.02)
    return value


def under_way(api: WebUIApi, picture: int = 0) -> Callable[[], Any]:
    """Whether a step of that picture was done and there is a preview; then the progress."""

    def look() -> Any:
        found = api.get_progress()
        state = found["state"]
        return found["current_image"] and state["sampling_step"] and state["job_no"] >= picture and found

    return look


class TestWhileDrawing:
    def test_progress_shows_the_step_and_the_picture(self, api: WebUIApi, address: str) -> None:
        drawing = InBackground(lambda: api.txt2img(prompt=PROMPT, seed=7, **LONG))
        try:
            found = until(under_way(api))
            state = found["state"]
            assert 0 < found["progress"] < 1
            assert (state["job_count"], state["job_no"], state["sampling_steps"]) == (1, 0, 100)
            assert 0 < state["sampling_step"] <= 100
            assert opened(found["current_image"]).format == "PNG"
            url = f"{address}/sdapi/v1/progress?skip_current_image=true"
            assert requests.get(url, timeout=60).json()["current_image"] is None
            later = until(lambda: (now := api.get_progress())["progress"] > found["progress"] and now)
            assert state["sampling_step"] < later["state"]["sampling_step"]
            assert later["eta_relative"] > 0
        finally:
            api.interrupt()
            drawing.join()

    def test_an_interrupt_answers_with_the_preview_where_no_picture_is_done(self, api: WebUIApi) -> None:
        drawing = InBackground(lambda: api.txt2img(prompt=PROMPT, seed=7, **LONG))
        until(under_way(api))
        assert api.interrupt() == {}
        found = drawing.join()
        assert found.info["interrupted"]
        assert found.image.format == "PNG"
        idle = api.get_progress()
        assert (idle["progress"], idle["state"]["job_count"], idle["current_image"]) == (0.0, 0, None)

    def test_an_interrupt_answers_with_the_pictures_that_are_done(self, api: WebUIApi) -> None:
        drawing = InBackground(lambda: api.txt2img(prompt=PROMPT, seed=7, n_iter=4, **{**LONG, "steps": 4}))
        until(under_way(api, picture=1))
        api.interrupt()
        found = drawing.join()
        assert found.info["interrupted"]
        assert 1 <= len(found.images) < 4
        assert found.info["all_seeds"] == [7, 8, 9][: len(found.images)]
        assert {each.size for each in found.images} == {(384, 384)}

    def test_a_client_sees_and_ends_its_own_drawings_alone(self, api: WebUIApi, other: WebUIApi) -> None:
        first = InBackground(lambda: api.txt2img(prompt=PROMPT, seed=7, **LONG))
        try:
            until(under_way(api))
            second = InBackground(lambda: other.txt2img(prompt=PROMPT, seed=8, **LONG))
            found = until(lambda: (now := other.get_progress())["state"]["job_count"] and now)
            assert (found["progress"], found["current_image"]) == (0.0, None)
            assert (found["state"]["queue_place"], found["textinfo"]) == (1, "waiting for 1 before this one")
            other.interrupt()
            ended = second.join()
            assert (ended.images, ended.info["interrupted"]) == ([], True)
            assert api.get_progress()["state"]["interrupted"] is False
        finally:
            assert api.skip() is None
            assert first.join().info["interrupted"]

    def test_a_client_that_goes_away_frees_its_place(self, api: WebUIApi, address: str) -> None:
        with pytest.raises(requests.exceptions.ReadTimeout):
            requests.post(f"{address}/sdapi/v1/txt2img", json={"prompt": PROMPT, **LONG}, timeout=(60, 0.5))
        until(lambda: api.get_progress()["state"]["job_count"] == 0)
        assert api.txt2img(prompt=PROMPT, seed=7, **SMALL).info["seed"] == 7


class TestErrors:
    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({"steps": 0}, "steps is 0; give a whole number from 1 to"),
            ({"steps": "many"}, "steps is 'many'; give a whole number"),
            ({"cfg_scale": -1}, "cfg_scale is -1"),
            ({"width": 100}, "width is 100; this model draws multiples of 8"),
            ({"seed": -2}, "seed is -2; give a whole number from 0"),
            ({"n_iter": 3, "batch_size": 2}, "batch_size × n_iter"),
            ({"prompt": 3}, "prompt is 3; give a text"),
            ({"sampler_name": "Restart"}, "sampler_name is 'Restart'"),
            ({"enable_hr": True, "hr_scale": 9}, "hr_scale is 9"),
            ({"override_settings": {"sd_vae": "ft-mse"}}, "sd_vae is 'ft-mse'"),
        ],
    )
    def test_a_bad_value_is_400_and_named_by_its_field(self, address: str, body: dict[str, Any], message: str) -> None:
        answer = requests.post(f"{address}/sdapi/v1/txt2img", json={"prompt": "", **body}, timeout=60)
        assert answer.status_code == 400
        assert answer.json().keys() == {"error", "detail", "body", "errors"}
        assert answer.json()["detail"].startswith(message)

    def test_webuiapi_raises_it(self, api: WebUIApi) -> None:
        with pytest.raises(RuntimeError, match="steps is 0"):
            api.txt2img(prompt="", **{**SMALL, "steps": 0})

    def test_a_family_names_what_it_does_not_take(self, address: str) -> None:
        body: dict[str, Any] = {"enable_hr": True, "override_settings": {"sd_model_checkpoint": "storybook-wuerstchen"}}
        answer = requests.post(f"{address}/sdapi/v1/txt2img", json=body, timeout=60)
        assert (answer.status_code, "takes no hr_scale" in answer.json()["detail"]) == (400, True)

    def test_a_body_that_is_no_json_is_400(self, address: str) -> None:
        headers = {"content-type": "application/json"}
        answer = requests.post(f"{address}/sdapi/v1/txt2img", data="{", headers=headers, timeout=60)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_json")

    def test_a_body_of_another_type_is_415(self, address: str) -> None:
        answer = requests.post(f"{address}/sdapi/v1/txt2img", data={"prompt": "x"}, timeout=60)
        assert (answer.status_code, answer.json()["error"]) == (415, "unsupported_media_type")

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (QueueFullError("32 requests wait", 5), 429),
            (DrainingError("it ends"), 503),
            (ModelUnavailableError("no such file"), 503),
            (WorkerLostError("killed"), 500),
            (DeadlineError("over 600 s"), 504),
        ],
    )
    @pytest.mark.parametrize("while_drawing", [False, True])
    def test_what_the_service_refuses_has_its_status(
        self, quick: QuickService, error: Exception, status: int, while_drawing: bool
    ) -> None:
        quick.fail, quick.refuse = (error, None) if while_drawing else (None, error)
        with serving(quick, configured()) as place:
            answer = requests.post(f"{place}/sdapi/v1/txt2img", json={"prompt": ""}, timeout=60)
        assert answer.status_code == status
        assert answer.json()["detail"] == answer.json()["errors"] == str(error)
        assert answer.headers.get("Retry-After") == {429: "5"}.get(status, answer.headers.get("Retry-After"))

    def test_a_model_that_cannot_be_opened_answers_503_with_the_reason(self, quick: QuickService) -> None:
        quick.info = dataclasses.replace(quick.info, family="", takes={}, problem="unet.bin is missing")
        with serving(quick, configured()) as place:
            answer = requests.post(f"{place}/sdapi/v1/txt2img", json={"prompt": ""}, timeout=60)
            assert requests.get(f"{place}/sdapi/v1/sd-models", timeout=60).status_code == 200
        assert (answer.status_code, "unet.bin is missing" in answer.json()["detail"]) == (503, True)

    def test_a_key_is_the_password_of_http_basic(self, quick: QuickService) -> None:
        with serving(quick, configured(keys=("secret",))) as place:
            assert requests.get(f"{place}/sdapi/v1/options", timeout=60).status_code == 401
            client = WebUIApi(baseurl=f"{place}/sdapi/v1", username="anybody", password="secret")
            assert client.get_options()["sd_model_checkpoint"] == MODELS[0]
            assert client.txt2img(prompt="").info["all_seeds"] == [7]
            client.session.close()

    @pytest.mark.parametrize(("path", "status"), [("lost", 404), ("txt2img", 405)])
    def test_an_unknown_path_or_method_has_the_same_shape(self, address: str, path: str, status: int) -> None:
        answer = requests.get(f"{address}/sdapi/v1/{path}", timeout=60)
        assert (answer.status_code, answer.json().keys()) == (status, {"error", "detail", "body", "errors"})
