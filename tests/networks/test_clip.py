"""CLIP's graph computes what transformers' text encoder computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.checkpoints import SDXL_TINY, randomise, sdxl_models
from tests.networks import storybook
from tests.networks.agreement import MemoryTensor, run, tensors_of
from vinograph.networks.clip import IGNORED, ClipConfig, clip_hidden_states, clip_text_encoder, network_name
from vinograph.networks.graph import Network, Weights

END = 29
# Batch and tokens; 16 is as many as the models below take.
SIZES = [(1, 1), (2, 7), (3, 16)]


def config_of(**settings: Any) -> CLIPTextConfig:
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 3}
    words = {"vocab_size": 30, "max_position_embeddings": 16, "eos_token_id": END, "bos_token_id": 1, "pad_token_id": 0}
    return CLIPTextConfig(**{**sizes, **words, "projection_dim": 10, "layer_norm_eps": 1e-4, **settings})


def published(projects: bool = False, seed: int = 0, **settings: Any) -> torch.nn.Module:
    kind: type[torch.nn.Module] = CLIPTextModelWithProjection if projects else CLIPTextModel
    module = kind(config_of(**settings))
    randomise(module, torch.Generator().manual_seed(seed))
    return module


def weights_of(tensors: dict[str, MemoryTensor]) -> Weights:
    return Weights({network_name(name): each for name, each in tensors.items()}, "the checkpoint")


def config(module: torch.nn.Module) -> ClipConfig:
    return ClipConfig.from_mapping(module.config.to_dict())  # type: ignore[operator, union-attr]


def encoder(module: torch.nn.Module, tensors: dict[str, MemoryTensor] | None = None) -> Network:
    weights = weights_of(tensors_of(module) if tensors is None else tensors)
    network = clip_text_encoder(config(module), weights)
    weights.check_all_used(IGNORED)
    return network


def states(module: torch.nn.Module, tensors: dict[str, MemoryTensor] | None = None) -> Network:
    weights = weights_of(tensors_of(module) if tensors is None else tensors)
    projects = isinstance(module, CLIPTextModelWithProjection)
    network = clip_hidden_states(config(module), weights, projects=projects)
    weights.check_all_used(IGNORED)
    return network


def texts(batch: int, tokens: int) -> dict[str, Tensor]:
    """Ids with an end somewhere, and masks that are 0 from somewhere on, or in the middle."""
    generator = torch.Generator().manual_seed(batch * tokens)
    ids = torch.randint(0, END, (batch, tokens), generator=generator)
    ids[0, tokens // 2] = END
    ids[-1, -1] = END
    mask = torch.ones(batch, tokens, dtype=torch.int64)
    mask[0, tokens // 2 + 1 :] = 0
    mask[-1, 2:4] = 0
    return {"input_ids": ids, "attention_mask": mask}


def assert_close(found: Any, expected: Tensor) -> None:
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=2e-5, rtol=2e-4)


class TestLastHiddenStates:
    @pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
    def test_hidden_states_are_those_of_transformers(self, activation: str) -> None:
        module = published(hidden_act=activation)
        network = encoder(module)
        for size in SIZES:
            inputs = texts(*size)
            with torch.no_grad():
                expected = module(**inputs).last_hidden_state
            assert_close(run(network, inputs)[0], expected)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_weights_in_half_precision_are_used_as_they_are(self, dtype: torch.dtype) -> None:
        module = published()
        network = encoder(module, tensors_of(module, dtype))
        inputs = texts(2, 7)
        with torch.no_grad():
            expected = module.to(dtype).float()(**inputs).last_hidden_state
        assert_close(run(network, inputs)[0], expected)
        stored = {node.get_output_element_type(0).get_type_name() for node in network.model.get_ops()}
        assert ("f16" if dtype == torch.float16 else "bf16") in stored

    def test_files_of_every_class(self) -> None:
        """Names may have a prefix; whole models hold the image encoder, too."""
        module = published(projects=True)
        alone = {network_name(name): each for name, each in tensors_of(module).items()}
        whole = {"vision_model.encoder.layers.0.mlp.fc1.weight": MemoryTensor(torch.zeros(3, 2))}
        whole |= {name: MemoryTensor(torch.zeros(3, 2)) for name in ("visual_projection.weight", "logit_scale")}
        whole |= {"text_model.embeddings.position_ids": MemoryTensor(torch.zeros(1, 16, dtype=torch.int64))}
        inputs = texts(2, 7)
        found = [run(encoder(module, each), inputs)[0] for each in (tensors_of(module), alone, alone | whole)]
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_array_equal(found[0], found[2])


class TestAllHiddenStates:
    def test_hidden_states_are_those_of_transformers(self) -> None:
        module = published()
        network = states(module)
        for size in SIZES:
            ids = texts(*size)["input_ids"]
            with torch.no_grad():
                expected = module(ids, output_hidden_states=True).hidden_states
            (found,) = run(network, {"input_ids": ids})
            assert_close(found, torch.stack(expected[:-1], dim=1))

    @pytest.mark.parametrize("eos", [END, 2], ids=["first", "highest"])
    def test_the_pooled_text_is_that_of_transformers(self, eos: int) -> None:
        """With one end, several and none, by the rules of new and of old configurations."""
        module = published(projects=True, hidden_act="gelu", eos_token_id=eos)
        network = states(module)
        ids = torch.randint(3, END, (5, 9), generator=torch.Generator().manual_seed(1))
        ids[0, 4], ids[1, 0], ids[2, -1] = END, END, END
        ids[3, [2, 6]] = END
        with torch.no_grad():
            expected = module(ids, output_hidden_states=True)
        found, pooled = run(network, {"input_ids": ids})
        assert_close(found, torch.stack(expected.hidden_states[:-1], dim=1))
        assert_close(pooled, expected.text_embeds)

    @pytest.mark.parametrize("batch", [1, 2])
    def test_the_pooled_text_with_a_fixed_shape(self, batch: int) -> None:
        """Drawing fixes the shape, and OpenVINO compiles such graphs differently."""
        module = sdxl_models(SDXL_TINY).text_encoder_2
        network = states(module)
        network.model.reshape({"input_ids": [batch, 77]})
        ids = torch.randint(500, (batch, 77), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            assert_close(run(network, {"input_ids": ids})[1], module(ids).text_embeds)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_weights_in_half_precision_are_used_as_they_are(self, dtype: torch.dtype) -> None:
        module = published(projects=True)
        network = states(module, tensors_of(module, dtype))
        ids = texts(2, 7)["input_ids"]
        with torch.no_grad():
            expected = module.to(dtype).float()(ids).text_embeds
        assert_close(run(network, {"input_ids": ids})[1], expected)


@pytest.mark.parametrize("component", ["prior_text_encoder", "text_encoder"])
def test_trained_encoders_of_wuerstchen_compute_what_their_bundle_does(component: str) -> None:
    name = "storybook-wuerstchen"
    weights = weights_of(storybook.tensors_in(name, component))
    network = clip_text_encoder(ClipConfig.from_mapping(storybook.config_of(name, component)), weights)
    weights.check_all_used(IGNORED)
    inputs = {key: each.numpy() for key, each in texts(3, 16).items()}
    np.testing.assert_array_equal(run(network, inputs), storybook.run_bundled(name, component, inputs))


@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2"])
def test_trained_encoders_of_sdxl_compute_what_their_bundle_does(component: str) -> None:
    name, projects = "storybook-sdxl", component == "text_encoder_2"
    weights = weights_of(storybook.tensors_in(name, component))
    settings = ClipConfig.from_mapping(storybook.config_of(name, component))
    network = clip_hidden_states(settings, weights, projects=projects)
    weights.check_all_used(IGNORED)
    ids = texts(3, 16)["input_ids"].numpy()
    ids[ids == END] = settings.eos_token_id
    found, expected = run(network, {"input_ids": ids}), storybook.run_bundled(name, component, {"input_ids": ids})
    assert len(found) == len(expected) == 1 + projects
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
