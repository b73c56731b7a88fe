"""Weighted and long prompts, and learned words, give diffusers' pictures of the reference's embeddings.

The references are compel, and the rules of A1111 and of ComfyUI applied to transformers' encoders.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoints import SDXL_TINY
from tests.parity.pairs import assert_same_pictures
from tests.parity.pixart_pairs import PixArtPair
from tests.parity.sdxl_pairs import SdxlPair, make_pair, mask, picture
from tests.parity.ways import AllWays
from vinograph import Pipeline
from vinograph.families.pixart.captions import cleaned

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from compel import Compel, ReturnedEmbeddingsType
    from compel.embeddings_provider import SplitLongTextMode

BAR = 0.05 / 255  # 2/255 is promised
GUIDED: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 5.0}
KINDS: dict[str, dict[str, Any]] = {
    "text": {},
    "image": {"image": picture(), "strength": 0.7},
    "mask": {"image": picture(), "mask_image": mask(), "strength": 0.8},
}
LONG = "a red house on the hill at night, two trees, a red house at the sea, a lighthouse, and fog over it all, far"

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:compel"),
]

Stretch = tuple[str, float]
Embeds = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture
def small(open_sdxl: Callable[[str], SdxlPair]) -> SdxlPair:
    return open_sdxl("base")


@pytest.fixture(scope="module")
def first_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SdxlPair]:
    """A model whose second encoder looks for the end of the text by its id, and with two widths."""
    shape = replace(SDXL_TINY, eos_rule="first", text_widths=(4, 8))
    pair = make_pair(tmp_path_factory.mktemp("first_end"), shape)
    yield pair
    pair.ours.free()


class Reference:
    """Both text encoders of diffusers' pipeline, and the tools' rules for weights."""

    def __init__(self, pair: SdxlPair) -> None:
        self.encoders = [
            (pair.parts[f"tokenizer{end}"], pair.parts[f"text_encoder{end}"], end == "_2") for end in ("", "_2")
        ]

    def embeds(self, chunks: Sequence[Sequence[Stretch]], rule: str) -> Embeds:
        """States and pooled text of chunks, each of which is a list of texts with weights."""
        states, pooled = [], torch.empty(0)
        for tokenizer, encoder, projects in self.encoders:
            empty, _ = self._encoded(tokenizer, encoder, [], projects)
            parts = []
            for index, chunk in enumerate(chunks):
                pieces = [(self._ids(tokenizer, text), weight) for text, weight in chunk]
                ids = [each for own, _ in pieces for each in own]
                weights = torch.tensor([1.0, *(weight for own, weight in pieces for _ in own)])
                weights = torch.cat([weights, torch.ones(tokenizer.model_max_length - len(weights))])[:, None]
                hidden, text_embeds = self._encoded(tokenizer, encoder, ids, projects)
                if projects and index == 0:
                    pooled = text_embeds
                if rule == "a1111":
                    weighted = hidden * weights
                    parts.append(weighted * (hidden.mean() / weighted.mean()))
                else:
                    parts.append(empty + (hidden - empty) * weights)
            states.append(torch.cat(parts))
        return torch.cat(states, dim=1)[None], pooled

    def _ids(self, tokenizer: Any, text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    def _encoded(self, tokenizer: Any, encoder: Any, ids: list[int], projects: bool) -> tuple[Any, Any]:
        row = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
        row += [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(row))
        with torch.no_grad():
            output = encoder(torch.tensor([row]), output_hidden_states=True)
        return output.hidden_states[-2][0], output.text_embeds if projects else None


def assert_same(pair: SdxlPair, prompt: Any, positive: Embeds, negative: Embeds | None, **given: Any) -> None:
    """Our picture of the prompt is diffusers' of these embeddings."""
    ours = {key: value for key, value in given.items() if key not in ("prompt_2", "negative_prompt")}
    others = {key: given[key] for key in ("prompt_2", "negative_prompt") if key in given}
    embeds: dict[str, Any] = {"prompt_embeds": positive[0], "pooled_prompt_embeds": positive[1]}
    if negative is None:
        negative = (torch.zeros_like(positive[0]), torch.zeros_like(positive[1]))
    embeds |= {"negative_prompt_embeds": negative[0], "negative_pooled_prompt_embeds": negative[1]}
    theirs = {key: each for key, each in ours.items() if key not in ("prompt_weighting", "long_prompt")}
    drawn = pair.draw_ours(prompt, seed=3, **ours, **others)
    theirs["generator"] = [torch.Generator().manual_seed(3 + index) for index in range(len(drawn))]
    assert_same_pictures(drawn, pair.draw_theirs(None, **embeds, **theirs), tolerance=BAR)


def compel_embeds(pair: SdxlPair, prompt: str) -> Embeds:
    """What compel makes of a prompt, in chunks that are filled to their end."""
    kind = ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
    parts, pooled = [], torch.empty(0)
    for end in ("", "_2"):
        compel = Compel(
            tokenizer=pair.parts[f"tokenizer{end}"],
            text_encoder=pair.parts[f"text_encoder{end}"],
            returned_embeddings_type=kind,
            truncate_long_prompts=False,
            requires_pooled=end == "_2",
            split_long_text_mode=SplitLongTextMode.BRUTAL,
        )
        with torch.no_grad():
            made = compel([prompt])
        states, pooled = made if end == "_2" else (made, pooled)
        parts.append(states)
    return torch.cat(parts, dim=2), pooled


class TestAgainstCompel:
    @pytest.mark.parametrize("kind", KINDS)
    def test_long_prompts(self, small: SdxlPair, kind: str) -> None:
        given = {**GUIDED, **KINDS[kind], "long_prompt": "chunks"}
        assert_same(small, LONG, compel_embeds(small, LONG), None, **given)

    def test_weights_above_one_in_the_first_chunk(self, small: SdxlPair) -> None:
        """compel takes the pooled text with spaces between its pieces, so ours is given that text, too."""
        states, _ = compel_embeds(small, "a (red house)1.4 at night")
        _, pooled = compel_embeds(small, "a red house at night")
        ours = "a (red house:1.4) at night"
        assert_same(small, ours, (states, pooled), None, **GUIDED, prompt_weighting="comfyui")


class TestRules:
    """Weights up and down, negative ones and zero, in both encoders."""

    @pytest.mark.parametrize("rule", ["a1111", "comfyui"])
    def test_weights(self, small: SdxlPair, rule: str) -> None:
        prompt = "a (red:1.5) ((house)) (at night:0.3), (fog:-0.4)(x:0) sea"
        chunk = [("a ", 1), ("red", 1.5), (" ", 1), ("house", 1.21), (" ", 1), ("at night", 0.3), (", ", 1)]
        chunk += [("fog", -0.4), ("x", 0), (" sea", 1)]
        assert_same(small, prompt, Reference(small).embeds([chunk], rule), None, **GUIDED, prompt_weighting=rule)

    def test_square_brackets_and_nesting_as_in_a1111(self, small: SdxlPair) -> None:
        prompt = r"[red] (a (house:1.2) sea:1.3) \(fog\)"
        chunk = [("red", 1 / 1.1), (" ", 1), ("a ", 1.3), ("house", 1.56), (" sea", 1.3), (" (fog)", 1)]
        assert_same(small, prompt, Reference(small).embeds([chunk], "a1111"), None, **GUIDED, prompt_weighting="a1111")

    def test_square_brackets_and_nesting_as_in_comfyui(self, small: SdxlPair) -> None:
        prompt = r"[red] (a (house:1.2) sea:1.3) \(fog\)"
        chunk = [("[red] ", 1), ("a ", 1.3), ("house", 1.2), (" sea", 1.3), (" (fog)", 1)]
        embeds = Reference(small).embeds([chunk], "comfyui")
        assert_same(small, prompt, embeds, None, **GUIDED, prompt_weighting="comfyui")

    @pytest.mark.parametrize("kind", KINDS)
    def test_breaks_and_a_shorter_negative_prompt(self, small: SdxlPair, kind: str) -> None:
        reference = Reference(small)
        positive = reference.embeds([[("a ", 1), ("red", 1.3), (" house", 1)], [("night", 1)], [("sea", 0.5)]], "a1111")
        negative = reference.embeds([[("fog", 1.2)], [], []], "a1111")
        given = {**GUIDED, **KINDS[kind], "prompt_weighting": "a1111", "long_prompt": "chunks"}
        prompt = "a (red:1.3) house BREAK night BREAK (sea:0.5)"
        assert_same(small, prompt, positive, negative, negative_prompt="(fog:1.2)", **given)

    def test_what_follows_a_comma_moves_as_in_a1111(self, small: SdxlPair) -> None:
        first, second = f"{'a ' * 65}, ", "red house at sea at night and fog"
        reference = Reference(small)
        positive = reference.embeds([[(first, 1)], [(second, 1)]], "a1111")
        given = {**GUIDED, "prompt_weighting": "a1111", "long_prompt": "chunks"}
        assert_same(small, first + second, positive, None, **given)

    def test_a_list_of_prompts_of_different_lengths(self, small: SdxlPair) -> None:
        reference = Reference(small)
        rows: list[list[list[Stretch]]] = [[[("red", 1.4)], []], [[("sea", 1)], [("fog", 0.6)]]]
        states, pooled = zip(*(reference.embeds(row, "comfyui") for row in rows), strict=True)
        prompts = ["(red:1.4)", "sea BREAK (fog:0.6)"]
        given = {**GUIDED, "prompt_weighting": "comfyui", "long_prompt": "chunks"}
        assert_same(small, prompts, (torch.cat(states), torch.cat(pooled)), None, **given)

    def test_a_prompt_without_syntax_is_drawn_as_ever(self, small: SdxlPair) -> None:
        plain = small.draw_ours("a red house", seed=3, **GUIDED)
        for rule, long_prompt in (("a1111", "chunks"), ("comfyui", "truncate")):
            given = {**GUIDED, "prompt_weighting": rule, "long_prompt": long_prompt}
            assert np.abs(small.draw_ours("a red house", seed=3, **given) - plain).max() < 1e-5


@contextmanager
def hooked(encoder: Any, word: int, vectors: torch.Tensor) -> Iterator[None]:
    """Let an encoder of transformers see ``vectors`` where the ids have ``word``."""

    def replace(_module: Any, inputs: Any, output: Any) -> Any:
        output = output.clone()
        output[inputs[0] == word] = vectors.repeat(len(inputs[0]), 1)
        return output

    table = encoder.get_input_embeddings()
    handle = table.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


class TestTextualInversion:
    """Vectors of two widths, in each layout that files have, in a directory's model and in a bundle."""

    @pytest.fixture
    def vectors(self, first_end: SdxlPair) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        widths = {key: first_end.parts[name].config.hidden_size for key, name in NAMES.items()}
        return {key: torch.randn(2, width) for key, width in widths.items()}

    def test_diffusers_draws_the_same(
        self, first_end: SdxlPair, vectors: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        """One file for each encoder, as diffusers saves them, with the word inside."""
        pipe = first_end.theirs("text", "full")
        pipe.text_encoder, pipe.text_encoder_2, pipe.tokenizer, pipe.tokenizer_2 = copy.deepcopy(
            (pipe.text_encoder, pipe.text_encoder_2, pipe.tokenizer, pipe.tokenizer_2)
        )
        files = []
        for end, own in zip(("", "_2"), vectors.values(), strict=True):
            files.append(tmp_path / f"learned_embeds{end}.safetensors")
            save_file({"<fog>": own}, files[-1])
            encoder, tokenizer = getattr(pipe, f"text_encoder{end}"), getattr(pipe, f"tokenizer{end}")
            pipe.load_textual_inversion(files[-1], text_encoder=encoder, tokenizer=tokenizer)
        given: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 0.0, "output_type": "np"}
        ours = opened(first_end, files)("a red <fog> house", seed=3, vae="full", **given).images
        theirs = pipe("a red <fog> house", generator=torch.Generator().manual_seed(3), **given).images
        assert_same_pictures(ours, theirs, tolerance=BAR)
        plain = first_end.draw_ours("a red <fog> house", seed=3, **given)
        assert np.abs(ours - plain).max() > 0.01

    def test_the_name_of_the_file_is_the_word(
        self, first_end: SdxlPair, vectors: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        save_file({key: own.half() for key, own in vectors.items()}, tmp_path / "foggy.safetensors")
        pipe = opened(first_end, [tmp_path / "foggy.safetensors"])
        given: dict[str, Any] = {"seed": 3, "output_type": "np", "vae": "full"}
        drawn = pipe("a (Foggy:1.3) house", prompt_weighting="a1111", **given).images
        as_comfyui = pipe("a (embedding:foggy:1.3) house", prompt_weighting="a1111", **given).images
        assert np.array_equal(drawn, as_comfyui)
        assert (
            np.abs(drawn - first_end.draw_ours("a (foggy:1.3) house", prompt_weighting="a1111", **given)).max() > 0.01
        )
        longer = pipe("a foggyish house", **given).images
        assert np.array_equal(longer, first_end.draw_ours("a foggyish house", **given)), "part of a longer word"

    def test_the_end_of_the_text_is_still_found_by_the_highest_id(
        self, open_sdxl: Callable[[str], SdxlPair], tmp_path: Path
    ) -> None:
        """The published second encoder is so; an id beyond the vocabulary would be taken for the end."""
        small = open_sdxl("base")
        torch.manual_seed(1)
        own = {key: torch.randn(1, small.parts[name].config.hidden_size) for key, name in NAMES.items()}
        save_file(own, tmp_path / "fog.safetensors")
        encoder, tokenizer = small.parts["text_encoder_2"], small.parts["tokenizer_2"]
        ids = [tokenizer.bos_token_id, *tokenizer("a", add_special_tokens=False).input_ids, 5, tokenizer.eos_token_id]
        ids += [tokenizer.pad_token_id] * (77 - len(ids))
        with torch.no_grad(), hooked(encoder, 5, own["clip_g"]):
            expected = encoder(torch.tensor([ids]))
        pipe = opened(small, [tmp_path / "fog.safetensors"])
        found = pipe._components.sessions["text_encoder_2"](
            {"input_ids": pipe._components.tokenizers["tokenizer_2"](["a fog"]).ids}
        )
        assert np.allclose(found["text_embeds"], expected.text_embeds.numpy(), atol=2e-5)


NAMES = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}


def opened(pair: SdxlPair, files: Sequence[Path]) -> AllWays:
    """The pair's checkpoint and its bundle with learned words; no command line has the second."""
    pipes = [
        Pipeline.from_pretrained(path, precision="f32", embeddings=files)
        for path in (pair.ours.model.path, pair.ours.bundle)
    ]
    ways = AllWays(*pipes)
    ways._compares_commands = False
    return ways


SMALL: dict[str, Any] = {"height": 96, "width": 128, "use_resolution_binning": False, "num_inference_steps": 3}


class TestPixArt:
    @pytest.mark.parametrize("clean", [True, False])
    @pytest.mark.parametrize("rule", ["a1111", "comfyui"])
    def test_weights(self, open_pixart: Callable[[str], PixArtPair], rule: str, clean: bool) -> None:
        pair = open_pixart("1024")
        prompt = "a (red:1.5) house [at night] ((fog))"
        chunk = [("a", 1), ("red", 1.5), ("house", 1), ("at night", 1 / 1.1), ("fog", 1.21)]
        if rule == "comfyui":
            night = "at night" if clean else "[at night]"
            chunk = [("a", 1), ("red", 1.5), (f"house {night}", 1), ("fog", 1.21)]
        if clean:
            chunk = [(cleaned(text), weight) for text, weight in chunk]
        embeds, attention = self._embeds(pair, chunk, rule)
        negative, negative_mask = self._embeds(pair, [("sea", 0.5)], rule)
        given = {**SMALL, "guidance_scale": 4.5, "clean_caption": clean}
        ours = pair.result(prompt, negative_prompt="(sea:0.5)", prompt_weighting=rule, seed=3, **given).images
        theirs = pair.draw_theirs(
            None,
            seed=3,
            prompt_embeds=embeds,
            prompt_attention_mask=attention,
            negative_prompt=None,
            negative_prompt_embeds=negative,
            negative_prompt_attention_mask=negative_mask,
            **given,
        )
        assert_same_pictures(np.asarray(ours), theirs, tolerance=BAR)

    def _embeds(self, pair: PixArtPair, chunk: Sequence[Stretch], rule: str) -> Embeds:
        tokenizer, encoder = pair.models.tokenizer, pair.models.text_encoder
        pieces = [(list(tokenizer(text, add_special_tokens=False).input_ids), weight) for text, weight in chunk]
        ids = [*(each for own, _ in pieces for each in own), tokenizer.eos_token_id]
        weights = torch.tensor([*(weight for own, weight in pieces for _ in own), 1.0])[:, None]
        hidden, empty = self._states(encoder, ids, len(ids)), self._states(encoder, ids[-1:], len(ids))
        if rule == "a1111":
            weighted = hidden * weights
            weighted = weighted * (hidden.mean() / weighted.mean())
        else:
            weighted = empty + (hidden - empty) * weights
        more = 120 - len(ids)
        padded = torch.nn.functional.pad(weighted, (0, 0, 0, more))
        attention = torch.tensor([1] * len(ids) + [0] * more)
        return padded[None], attention[None]

    def _states(self, encoder: Any, ids: list[int], length: int) -> torch.Tensor:
        row = torch.tensor([ids + [0] * (length - len(ids))])
        attention = torch.tensor([[1] * len(ids) + [0] * (length - len(ids))])
        with torch.no_grad():
            states: torch.Tensor = encoder(row, attention_mask=attention).last_hidden_state[0]
        return states
