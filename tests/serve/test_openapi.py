"""The OpenAPI document: it has every route, and the server answers as it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Route

from tests.serve.serving import QuickService, ask, configured, serving
from vinograph.request import Request, arguments_of
from vinograph.serve import a1111_api, openai_images
from vinograph.serve.a1111_fields import IMG2IMG, TXT2IMG
from vinograph.serve.configuration import Limits
from vinograph.serve.contract import ModelInfo
from vinograph.serve.openapi import document

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
KEY = "sk-0123456789abcdef"


def described(**values: Any) -> dict[str, Any]:
    return document(configured(**values))


def test_every_route_is_in_it_and_nothing_else(quick: QuickService) -> None:
    routes = [*openai_images.routes(quick, configured()), *a1111_api.routes(quick, configured())]
    own = {("/livez", "get"), ("/readyz", "get"), ("/metrics", "get"), ("/openapi.json", "get"), ("/", "get")}
    expected = own | {
        (re.sub(r":\w+}", "}", each.path), method.lower())
        for each in routes
        if isinstance(each, Route)
        for method in (each.methods or set()) - {"HEAD"}
    }
    assert {(path, method) for path, methods in described()["paths"].items() for method in methods} == expected
    assert "/" not in described(page=True)["paths"]


def test_the_fields_are_those_that_are_read() -> None:
    paths = described()["paths"]

    def properties(path: str, kind: str = "application/json") -> set[str]:
        return {*paths[path]["post"]["requestBody"]["content"][kind]["schema"]["properties"]}

    assert properties("/sdapi/v1/txt2img") == {*TXT2IMG}
    assert properties("/sdapi/v1/img2img") == {*IMG2IMG}
    shared = {name for name, each in arguments_of(Request).items() if each.recorded} - {"output_type"}
    named = {"num_images_per_prompt": "n"}
    assert {named.get(name, name) for name in shared} <= properties("/v1/images/generations")
    assert {"image", "mask", "prompt", "size"} <= properties("/v1/images/edits", "multipart/form-data")


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_it_says_whether_a_key_is_asked_for(keys: tuple[str, ...]) -> None:
    found = described(keys=keys)
    draw = found["paths"]["/v1/images/generations"]["post"]
    assert ("security" in draw, "401" in draw["responses"], "securitySchemes" in found["components"]) == (
        bool(keys),
    ) * 3
    assert "security" not in found["paths"]["/livez"]["get"]


@pytest.fixture(scope="module")
def api(model_info: ModelInfo) -> Iterator[Any]:
    """The document as the server gives it, ready to be tried out."""
    with serving(QuickService(model_info), configured(limits=Limits(deadline=20))) as address:
        loaded = schemathesis.openapi.from_dict(ask(address, "/openapi.json").json)
        loaded.config.update(base_url=address)
        yield loaded


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(
    ("path", "method"),
    [(path, method) for path, methods in described()["paths"].items() for method in methods],
)
def test_the_server_answers_as_it_says(api: Any, path: str, method: str, mode: GenerationMode) -> None:
    """Right and wrong requests: none is a 5xx, and none gets what the document doesn't have."""
    operation = api[path][method.upper()]
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
        return  # any text is a path, so there is nothing wrong to send
    examples = 25 if operation.body else 4 if operation.path_parameters or operation.query else 1

    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[*HealthCheck],
        derandomize=True,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def answered(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    answered()
