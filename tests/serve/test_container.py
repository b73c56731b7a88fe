"""The Dockerfile: what it declares, and its steps as they run where there is no container engine."""

from __future__ import annotations

import base64
import io
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from tests.serve.container import Stage, build, instructions

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "Dockerfile"
_KEY = "a-key-of-the-test"
_PATIENCE = 60


def of(name: str) -> list[str]:
    """The arguments of all instructions of a name, in order."""
    return [rest for each, rest in instructions(DOCKERFILE.read_text(encoding="utf-8")) if each == name]


class TestDeclarations:
    def test_the_process_is_not_roots(self) -> None:
        assert of("USER") == ["10001:10001"]

    def test_the_base_is_slim(self) -> None:
        assert all(each.partition(" ")[0].endswith("-slim") for each in of("FROM"))

    def test_models_and_compiled_models_are_volumes(self) -> None:
        assert json.loads(of("VOLUME")[0]) == ["/models", "/cache"]
        assert {"VINOGRAPH_MODELS=/models", "VINOGRAPH_CACHE=/cache"} <= set(of("ENV"))

    def test_only_the_package_is_copied_into_the_image(self) -> None:
        kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        copied = {word for rest in of("COPY") if "--from" not in rest for word in rest.split()[:-1]}
        assert kept == copied
        assert all((ROOT / name).exists() for name in kept)

    def test_signals_reach_the_server_itself(self) -> None:
        assert json.loads(of("ENTRYPOINT")[0]) == ["vinograph", "serve"]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """The image's last stage."""
    target = tmp_path_factory.mktemp("image")
    for each in (target, *target.parents):  # the container's user walks through them
        if each.owner() == Path.home().owner():
            each.chmod(each.stat().st_mode | 0o011)
    return build(DOCKERFILE, ROOT, target)


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def files_below(folder: Path) -> set[Path]:
    """All files of the image but those in its volumes."""
    return {each for each in folder.rglob("*") if each.relative_to(folder).parts[0] not in ("cache", "models")}


@pytest.mark.long
class TestImage:
    def test_has_no_torch(self, image: Stage) -> None:
        python = image.root / "opt/vinograph/bin/python"
        listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True).stdout
        names = {each["name"].lower() for each in json.loads(listed)}
        assert {"vinograph", "openvino", "starlette"} <= names
        assert not names & {"torch", "diffusers", "transformers", "gradio", "nncf"}

    def test_refuses_to_serve_other_machines_without_a_key(self, image: Stage) -> None:
        process = image.start()
        output = process.communicate(timeout=_PATIENCE)[0].decode()
        assert process.returncode == 2, output
        assert "--api-key" in output

    def test_draws_and_is_healthy_and_writes_into_its_volumes_alone(self, image: Stage, tmp_path: Path) -> None:
        before, port = files_below(image.root), free_port()
        process = image.start(VINOGRAPH_API_KEY=_KEY, VINOGRAPH_PORT=str(port))
        try:
            wait_until_healthy(image, process, port)
            size = draw(port).size
        finally:
            process.terminate()
            output = process.communicate(timeout=_PATIENCE)[0].decode()
        assert size == (256, 256)
        assert process.returncode == 0, output
        assert files_below(image.root) == before


def wait_until_healthy(image: Stage, process: subprocess.Popen[bytes], port: int) -> None:
    """Return once the health check passes."""
    end = time.monotonic() + _PATIENCE
    while not image.is_healthy(port):
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < end, "it never became healthy"
        time.sleep(0.2)


def draw(port: int) -> Image.Image:
    """A picture by the OpenAI API."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/images/generations",
        json.dumps({"prompt": "a red house", "seed": 7}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {_KEY}"},
    )
    with urllib.request.urlopen(asked, timeout=_PATIENCE) as answer:
        (drawn,) = json.load(answer)["data"]
    return Image.open(io.BytesIO(base64.b64decode(drawn["b64_json"])))
