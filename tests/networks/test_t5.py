"""T5's graph computes what transformers' encoder computes, for short and long texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

from tests.checkpoints import PIXART, PIXART_512, PixArtShape, pixart_models
from tests.networks import storybook
from tests.networks.agreement import MemoryTensor, run, tensors_of
from vinograph.errors import DamagedModelError
from vinograph.networks.graph import Network, Weights
from vinograph.networks.t5 import IGNORED, T5Config, distance_buckets, t5_encoder

# Batch and tokens; distances of 128 and more are all the same.
SIZES = [(1, 1), (3, 7), (2, 150)]
TABLE, TIED = "shared.weight", "encoder.embed_tokens.weight"


def published(shape: PixArtShape = PIXART) -> T5EncoderModel:
    return pixart_models(shape).text_encoder


def network_of(module: T5EncoderModel, tensors: dict[str, MemoryTensor] | None = None) -> Network:
    weights = Weights(tensors_of(module) if tensors is None else tensors, "the checkpoint")
    network = t5_encoder(T5Config.from_mapping(module.config.to_dict()), weights)
    weights.check_all_used(IGNORED)
    return network


def texts(batch: int, tokens: int, words: int = 100) -> dict[str, Tensor]:
    ids = torch.randint(0, words, (batch, tokens), generator=torch.Generator().manual_seed(batch * tokens))
    mask = torch.ones(batch, tokens, dtype=torch.int64)
    mask[0, tokens // 2 + 1 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def expected_of(module: T5EncoderModel, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        states: Tensor = module(**inputs).last_hidden_state
    return states


def assert_close(found: Any, expected: Tensor) -> None:
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=5e-5, rtol=2e-4)


@pytest.mark.parametrize("shape", [PIXART, PIXART_512], ids=["wider heads", "as wide heads"])
def test_it_computes_what_transformers_computes(shape: PixArtShape) -> None:
    module = published(shape)
    network = network_of(module)
    assert not network.f16_safe
    for size in SIZES:
        inputs = texts(*size)
        assert_close(run(network, inputs)[0], expected_of(module, inputs))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_used_as_they_are(dtype: torch.dtype) -> None:
    module = published()
    network = network_of(module, tensors_of(module, dtype))
    inputs = texts(*SIZES[1])
    module.load_state_dict({name: each.to(dtype).float() for name, each in module.state_dict().items()})
    assert_close(run(network, inputs)[0], expected_of(module, inputs))
    stored = {node.get_output_element_type(0).get_type_name() for node in network.model.get_ops()}
    assert ("f16" if dtype == torch.float16 else "bf16") in stored


def test_masked_tokens_change_nothing() -> None:
    network = network_of(published())
    long, short = texts(1, 20), texts(1, 6)
    long["input_ids"][:, :6] = short["input_ids"]
    long["attention_mask"][:], short["attention_mask"][:] = 0, 1
    long["attention_mask"][:, :6] = 1
    np.testing.assert_allclose(run(network, long)[0][:, :6], run(network, short)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("count", "longest"), [(32, 128), (4, 128), (8, 20), (16, 64), (64, 128), (64, 200), (128, 37)]
)
def test_buckets_are_those_of_transformers(count: int, longest: int) -> None:
    """Where a logarithm is a whole number, another rounding gives the neighbouring bucket."""
    distances = torch.arange(-200, 201)
    bucket: Any = T5Attention._relative_position_bucket
    theirs = bucket(distances, num_buckets=count, max_distance=longest)
    index = distances.clamp(-longest, longest) + longest
    np.testing.assert_array_equal(distance_buckets(count, longest)[index.numpy()], theirs.numpy())


class TestTheTableOfTokens:
    """Files have the table under either of two names, or both."""

    def test_either_name_will_do(self) -> None:
        module = published()
        tensors, inputs = tensors_of(module), texts(2, 5)
        table = MemoryTensor(module.get_parameter(TABLE))
        rest = {name: each for name, each in tensors.items() if name not in (TABLE, TIED)}
        ways = [{TABLE: table}, {TIED: table}, {TABLE: table, TIED: table}]
        found = [run(network_of(module, rest | way), inputs)[0] for way in ways]
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_array_equal(found[0], found[2])

    def test_without_either_the_shared_one_is_missed(self) -> None:
        module = published()
        tensors = {name: each for name, each in tensors_of(module).items() if name not in (TABLE, TIED)}
        with pytest.raises(DamagedModelError, match=r"lacks the tensor shared\.weight, of shape "):
            network_of(module, tensors)

    def test_the_table_has_its_name_in_the_file(self) -> None:
        module = published()
        tensors = {name: each for name, each in tensors_of(module).items() if name not in (TABLE, TIED)}
        network = network_of(module, tensors | {TIED: MemoryTensor(module.get_parameter(TABLE))})
        assert TIED in {node.get_friendly_name() for node in network.model.get_ops()}


def test_a_decoder_besides_is_ignored() -> None:
    module = published()
    decoder = {"decoder.block.0.layer.0.SelfAttention.q.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    surplus = {name: MemoryTensor(torch.zeros(2, 3)) for name in decoder}
    inputs = texts(2, 5)
    found = run(network_of(module, tensors_of(module) | surplus), inputs)
    np.testing.assert_array_equal(found, run(network_of(module), inputs))


@pytest.mark.parametrize("name", ["storybook-pixart", "storybook-pixart-lcm"])
def test_trained_encoders_compute_what_their_bundle_does(name: str) -> None:
    weights = Weights(storybook.tensors_in(name, "text_encoder"), "the checkpoint")
    network = t5_encoder(T5Config.from_mapping(storybook.config_of(name, "text_encoder")), weights)
    weights.check_all_used(IGNORED)
    inputs = {key: each.numpy() for key, each in texts(2, 150, words=560).items()}
    np.testing.assert_array_equal(run(network, inputs), storybook.run_bundled(name, "text_encoder", inputs))
