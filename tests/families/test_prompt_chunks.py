"""Where chunks of a prompt end, by each tool's rule, and what is said of syntax without effect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import clip_tokenizer
from vinograph import RequestError
from vinograph.families.contract import Output
from vinograph.families.prompts import (
    MOST_CHUNKS,
    PromptOptions,
    WeightedTokens,
    empty_tokens,
    keep_mean,
    weighted_tokens,
)
from vinograph.text import FIRST_LEARNED_ID, Tokenizer

LENGTH = 30  # of a chunk, with its start and end
ROOM = LENGTH - 2


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer of which each lone letter is a token."""
    folder = tmp_path_factory.mktemp("tokenizer")
    theirs = clip_tokenizer(LENGTH, pad="!")
    theirs.save_pretrained(folder)
    return Tokenizer(Path(folder) / "tokenizer.json", LENGTH, theirs.pad_token_id)


def read(tokenizer: Tokenizer, prompt: str, weighting: str = "none", *, chunks: bool = True) -> WeightedTokens:
    options = PromptOptions(weighting, chunks)
    return weighted_tokens(tokenizer, options.read(prompt), options)


def counts(tokens: WeightedTokens) -> list[int]:
    """Tokens of each chunk, without its start, its end and padding."""
    return [each - 2 for each in tokens.counts]


class TestChunks:
    def test_each_has_its_start_its_end_and_padding(self, tokenizer: Tokenizer) -> None:
        tokens = read(tokenizer, "a " * (ROOM + 3))
        (start,), (end,) = tokenizer.marks
        (letter,) = tokenizer.tokens("a")[0].ids
        assert tokens.ids.tolist() == [
            [start, *[letter] * ROOM, end],
            [start, *[letter] * 3, end, *[tokenizer.pad_id] * (ROOM - 3)],
        ]
        assert (tokens.weights == 1).all()
        assert tokens.dropped == ""

    @pytest.mark.parametrize("weighting", ["none", "a1111", "comfyui"])
    @pytest.mark.parametrize(
        ("prompt", "expected"),
        [
            ("", [0]),
            ("a BREAK b", [1, 1]),
            ("BREAK a", [0, 1]),
            ("a BREAK", [1]),
            ("a BREAK BREAK b", [1, 0, 1]),
            ("a " * ROOM, [ROOM]),
            ("a " * ROOM + "BREAK b", [ROOM, 1]),
        ],
    )
    def test_breaks(self, tokenizer: Tokenizer, weighting: str, prompt: str, expected: list[int]) -> None:
        assert counts(read(tokenizer, prompt, weighting)) == expected

    @pytest.mark.parametrize(
        ("after", "expected"),
        [
            (0, [ROOM, 5]),  # the comma is the last token
            (5, [ROOM - 5, 10]),
            (19, [ROOM - 19, 24]),
            (20, [ROOM, 5]),  # too far back
        ],
    )
    def test_a1111_ends_a_chunk_after_a_near_comma(self, tokenizer: Tokenizer, after: int, expected: list[int]) -> None:
        prompt = "a " * (ROOM - after - 1) + ", " + "b " * (after + 5)
        assert counts(read(tokenizer, prompt, "a1111")) == expected
        assert counts(read(tokenizer, prompt)) == [ROOM, 5]

    def test_a_comma_that_begins_a_chunk_ends_none(self, tokenizer: Tokenizer) -> None:
        assert counts(read(tokenizer, "a " * ROOM + ", b", "a1111")) == [ROOM, 2]

    def test_comfyui_divides_no_short_stretch(self, tokenizer: Tokenizer) -> None:
        start = "a " * (ROOM - 2)
        assert counts(read(tokenizer, f"{start}(b b b b b b b:1.2)", "comfyui")) == [ROOM - 2, 7]
        assert counts(read(tokenizer, f"{start}(b b b b b b b b:1.2)", "comfyui")) == [ROOM, 6]
        assert counts(read(tokenizer, f"{start}(b b b b b b b:1.2)", "a1111")) == [ROOM, 5]

    def test_weights_go_with_their_tokens(self, tokenizer: Tokenizer) -> None:
        tokens = read(tokenizer, "a (b:1.5) BREAK [c:-2)", "a1111")
        assert tokens.weights[0, :4].tolist() == pytest.approx([1, 1, 1.5, 1])
        tokens = read(tokenizer, "(a:0) b", "comfyui")
        assert tokens.weights[0, :4].tolist() == [1, 0, 1, 1]

    def test_too_many_are_refused(self, tokenizer: Tokenizer) -> None:
        assert len(read(tokenizer, "a BREAK " * MOST_CHUNKS).ids) == MOST_CHUNKS
        with pytest.raises(RequestError, match=f"the prompt has 33 chunks of {ROOM} tokens; give at most 32"):
            read(tokenizer, "a BREAK " * MOST_CHUNKS + "b")

    def test_padded_with_empty_ones(self, tokenizer: Tokenizer) -> None:
        empty = empty_tokens(tokenizer)
        padded = read(tokenizer, "(a:1.5)", "a1111").padded(3, empty)
        assert padded.ids.shape == padded.weights.shape == (3, LENGTH)
        assert np.array_equal(padded.ids[2], empty.ids[0])
        assert padded.counts == (3, 2, 2)

    def test_what_is_cut_off_without_them(self, tokenizer: Tokenizer) -> None:
        tokens = read(tokenizer, "a " * ROOM + "b (c:1.2) d", "a1111", chunks=False)
        assert (counts(tokens), tokens.dropped) == ([ROOM], "b c d")
        plain = tokenizer(["a " * ROOM + "b"])
        assert np.array_equal(read(tokenizer, "a " * ROOM + "b", "a1111", chunks=False).ids, plain.ids)


class TestLearnedWords:
    @pytest.fixture
    def learned(self, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Tokenizer:
        for name in ("_words", "_pattern"):
            monkeypatch.setattr(tokenizer, name, getattr(tokenizer, name))
        tokenizer.add_words({"fog": range(FIRST_LEARNED_ID, FIRST_LEARNED_ID + 9), "<x>": [FIRST_LEARNED_ID + 9]})
        return tokenizer

    def test_are_found_where_they_stand_alone(self, learned: Tokenizer) -> None:
        def found(text: str) -> list[int]:
            return [token.begin for token in learned.tokens(text) if token.is_learned]

        assert found("fog, FOG (fog) fogs afog fog") == [0, 5, 10, 25]
        assert found("a<x>b <X>") == [1, 6]
        learned.add_words({"miss": [FIRST_LEARNED_ID]})
        assert found("mi\u017fs") == [0]  # the long s, which differs from s in its case alone

    @pytest.mark.parametrize("weighting", ["none", "a1111", "comfyui"])
    def test_are_not_divided(self, learned: Tokenizer, weighting: str) -> None:
        assert counts(read(learned, "a " * (ROOM - 3) + "fog b", weighting)) == [ROOM - 3, 10]

    def test_take_a_token_for_each_vector(self, learned: Tokenizer) -> None:
        (start,), (end,) = learned.marks
        tokens = learned(["fog <x>"])
        vectors = [*range(FIRST_LEARNED_ID, FIRST_LEARNED_ID + 10)]
        assert tokens.ids[0, :12].tolist() == [start, *vectors, end]
        assert tokens.mask[0].sum() == 12
        assert learned(["a " * ROOM + "fog"]).dropped == ("fog",)
        assert np.array_equal(read(learned, "fog <x>").ids, tokens.ids)


class TestWarnings:
    @pytest.mark.parametrize(
        ("options", "prompt", "words"),
        [
            (PromptOptions(), "a (red:1.2) house", "prompt_weighting a1111 or comfyui (--prompt-weighting)"),
            (PromptOptions(chunks=True), "a (red:1.2) house", "were read as text"),
            (PromptOptions("a1111"), "a BREAK b", "BREAK had no effect"),
            (PromptOptions("a1111"), "a [b|c]", "[from:to:when] and [one|other]"),
            (PromptOptions("a1111"), "a (red:1.2) house", None),
            (PromptOptions("comfyui"), "a [b|c]", None),
            (PromptOptions(), "a BREAK (b) [c]", None),
        ],
    )
    def test_syntax_without_effect(self, options: PromptOptions, prompt: str, words: str | None) -> None:
        out = Output()
        options.note_unread([prompt, prompt], out)
        assert len(out.warnings) == (words is not None)
        assert words is None or words in out.warnings[0]

    def test_weights_that_cancel_each_other_out_are_refused(self) -> None:
        states = np.ones((2, 3), np.float32)
        with pytest.raises(RequestError, match="cancel each other out"):
            keep_mean(states, np.array([1, -1], np.float32), lambda: states)

    @pytest.mark.parametrize("prompt", ["(a:1001)", "(a:-1e3000)", "(" * 99 + "a" + ")" * 99, "(a:nan)"])
    def test_weights_out_of_range_are_refused(self, prompt: str) -> None:
        with pytest.raises(RequestError, match=r"the prompt gives 'a' the weight .*; give weights from -1000 to 1000"):
            PromptOptions("comfyui").read(prompt)
