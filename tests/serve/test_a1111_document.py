"""docs/serve-a1111.md names every field, option and route, and its examples draw."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image
from starlette.routing import Route

from tests.serve.serving import QuickService, Running, configured
from vinograph.serve.a1111_api import routes
from vinograph.serve.a1111_fields import IMG2IMG, TXT2IMG, Field
from vinograph.serve.a1111_options import Options

PAGE = (Path(__file__).parents[2] / "docs" / "serve-a1111.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FIELDS: dict[str, Field] = {**TXT2IMG, **IMG2IMG}
OBSOLETE = {"firstphase_width", "firstphase_height"}  # A1111 ignores them itself


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - OBSOLETE))
def test_every_field_is_explained_and_marked_if_its_lack_of_effect_is_told(name: str) -> None:
    assert (f"`{name}`" in PAGE, f"`{name}`*" in PAGE) == (True, FIELDS[name].ignored)


@pytest.mark.parametrize("name", sorted(Options().shown("").keys() - {"sd_checkpoint_hash"}))
def test_every_option_is_explained(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_every_route_is_explained(quick: QuickService) -> None:
    for route in routes(quick, configured()):
        assert isinstance(route, Route)
        name = re.escape(route.path.removeprefix("/sdapi/v1/"))
        assert re.search(rf"`(?:GET |POST )?{name}`", PAGE) or name in ("txt2img", "img2img"), route.path


def test_the_command_draws(server: Running) -> None:
    (command,) = [each for each in EXAMPLES if each.startswith("curl ")]
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = command.replace("http://127.0.0.1:8080", server.address).replace("curl ", "curl --silent ")
    answer = json.loads(subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout)
    assert answer["images"][0].startswith("iVBORw0KGgo")
    assert json.loads(answer["info"])["seed"] == 7


def test_the_example_in_python_draws(server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [each for each in EXAMPLES if "WebUIApi" in each]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code.replace("8080", str(urlsplit(server.address).port)), "docs/serve-a1111.md", "exec"), names)
    names["api"].session.close()  # type: ignore[attr-defined]
    with Image.open("night.png") as picture:
        assert picture.size == (512, 512)
