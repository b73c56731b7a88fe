"""Any object as any argument gives a picture, or an error of ours on one short line."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.odd_values import CALLS, ODD, answer, odd_arguments, small_pipelines
from vinograph import Pipeline
from vinograph.families import registry

BOUNDED = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=80,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

# An odd number may overflow to infinity, which is then reported as an error.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(scope="module")
def pipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pipeline]:
    return small_pipelines(tmp_path_factory.mktemp("any"))


@pytest.mark.parametrize(("family", "call"), CALLS)
class TestEveryCall:
    def test_any_object_for_any_argument_is_answered_by_a_picture_or_our_error(
        self, pipes: Any, family: str, call: str
    ) -> None:
        pipe = pipes[family]
        usual = usual_arguments(pipe, call)
        for (kind, odd), name in itertools.product(ODD.items(), pipe.calls[call].takes):
            try:
                answer(pipe, call, {**usual, name: odd()}, make=False)
            except Exception as error:
                raise AssertionError(f"{name}={kind} raises {type(error).__name__}") from error

    @BOUNDED
    @given(seed=st.integers(0, 2**32))
    def test_several_odd_arguments_at_once_are_answered_by_a_picture_or_our_error(
        self, pipes: Any, family: str, call: str, seed: int
    ) -> None:
        pipe = pipes[family]
        answer(pipe, call, odd_arguments(pipe.calls[call], Random(seed), registry.family(family).request), make=True)


def usual_arguments(pipe: Pipeline, call: str) -> dict[str, Any]:
    """Valid and cheap arguments of a call, for a test to change one of them."""
    takes = pipe.calls[call].takes
    usual: dict[str, Any] = {name: 1 for name in takes if name.endswith("inference_steps")}
    if "image" in takes and "prompt" not in takes:
        usual["image"] = Image.new("RGB", (64, 64))
    elif "image_embeddings" in takes:
        usual["image_embeddings"] = [[[[0.0] * 3] * 3] * 16]
    else:
        usual["prompt"] = "a red house"
    return usual
