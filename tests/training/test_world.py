"""The picture-book world: its scenes, their pictures and their captions."""

from __future__ import annotations

import hashlib
import itertools
import random
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from training.world import (
    ATTRIBUTES,
    SPLITS,
    Scene,
    caption,
    full_caption,
    render,
    sample,
    sheet,
    split_of,
    stated_attributes,
)
from training.world.caption import MAX_WORDS, split_words
from training.world.dataset import main as write_dataset
from training.world.dataset import plan
from training.world.scene import UNSEEN_PAIRS


def every_scene() -> list[Scene]:
    sizes = (range(len(values)) for values in ATTRIBUTES.values())
    return [Scene.from_labels(labels) for labels in itertools.product(*sizes)]


def words_of(scene: Scene) -> dict[str, str]:
    return dict(zip(ATTRIBUTES, map(str, astuple(scene)), strict=True))


def test_labels_identify_a_scene() -> None:
    for scene in every_scene():
        assert Scene.from_labels(scene.labels()) == scene


def test_a_wrong_attribute_value_is_named() -> None:
    with pytest.raises(ValueError, match=r"colour can't be 'pink'; it is one of red, blue"):
        Scene("day", "sea", "cat", "pink", 1, "left")


def test_every_combination_is_in_one_split() -> None:
    splits = {name: {s for s in every_scene() if split_of(s) == name} for name in SPLITS}
    assert sum(map(len, splits.values())) == len(every_scene()) == 6912
    assert {(s.kind, s.colour) for s in splits["unseen_pair"]} == UNSEEN_PAIRS
    assert not UNSEEN_PAIRS & {(s.kind, s.colour) for s in splits["train"] | splits["heldout"]}
    share = len(splits["heldout"]) / (len(splits["heldout"]) + len(splits["train"]))
    assert 0.08 < share < 0.12


def test_samples_stay_in_their_split() -> None:
    rng = random.Random(0)
    for split in SPLITS:
        assert {split_of(sample(rng, split)) for _ in range(50)} == {split}
    with pytest.raises(ValueError, match="no split 'test'"):
        sample(rng, "test")


def test_renders_have_the_same_bytes_on_every_machine() -> None:
    rng = random.Random(9)
    digest = hashlib.sha256()
    for _ in range(60):
        digest.update(render(sample(rng, None), rng.randrange(10**6)).tobytes())
    assert digest.hexdigest()[:16] == "9a28544d41f2eb39"


def test_a_render_depends_only_on_scene_and_seed() -> None:
    scene = Scene("day", "meadow", "cat", "black", 2, "left")
    first = render(scene, 1)
    assert first.shape == (256, 256, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, render(scene, 1))
    assert len({render(scene, seed).tobytes() for seed in range(8)}) == 8


@pytest.mark.parametrize("kind", ATTRIBUTES["kind"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_subjects_are_separate_and_whole(kind: str, count: int) -> None:
    """A black and a white picture differ in ``count`` subjects, apart from each other and the edge."""
    for seed, move_module in itertools.product(range(4), ATTRIBUTES["place"]):
        black, white = (
            render(Scene("sunset", "sea", kind, colour, count, move_module), seed).astype(int)
            for colour in ("black", "white")
        )
        columns = (np.abs(black - white).max(axis=2) > 60).any(axis=0)
        runs = np.flatnonzero(np.diff(np.concatenate([[0], columns.astype(int), [0]])))
        assert len(runs) == 2 * count
        assert runs[0] >= 2
        assert runs[-1] <= 254
        assert all(right - left >= 6 for left, right in zip(runs[1:-1:2], runs[2::2], strict=True))
        centre = (runs[0] + runs[-1]) / 2
        assert {"left": centre < 110, "middle": 118 < centre < 138, "right": centre > 146}[move_module]


def test_full_captions_state_all_attributes() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        scene = sample(rng, None)
        text = full_caption(scene, rng)
        assert stated_attributes(text) == words_of(scene), text
        assert len(split_words(text)) <= MAX_WORDS
        assert text == text.lower()


def test_partial_captions_state_nothing_wrong() -> None:
    rng = random.Random(2)
    said = dict.fromkeys(ATTRIBUTES, 0)
    for _ in range(3000):
        scene = sample(rng, None)
        text = caption(scene, rng, dropout=0.4)
        found = stated_attributes(text)
        assert found.items() <= words_of(scene).items(), text
        for name in found:
            said[name] += 1
    assert said["kind"] == 3000
    assert all(1650 < said[name] < 1950 for name in ("sky", "ground", "place"))
    assert all(2250 < said[name] < 2550 for name in ("colour", "count"))


def test_captions_vary_and_are_reproducible() -> None:
    scene = Scene("night", "snow", "house", "red", 1, "left")
    texts = {full_caption(scene, random.Random(seed)) for seed in range(300)}
    assert len(texts) > 290
    assert full_caption(scene, random.Random(5)) == full_caption(scene, random.Random(5))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "a red house on a snowy hill at night",
            {"sky": "night", "ground": "snow", "kind": "house", "colour": "red", "count": "1"},
        ),
        ("An orange cat, sitting by the sea", {"ground": "sea", "kind": "cat", "colour": "orange", "count": "1"}),
        ("under a blue sky, three cars", {"sky": "day", "kind": "car", "count": "3"}),
        ("yellow boats on a green hill", {"ground": "meadow", "kind": "boat", "colour": "yellow"}),
        ("a snow-white kitten in the grass", {"ground": "meadow", "kind": "cat", "colour": "white", "count": "1"}),
        ("two lighthouses at sunset", {"sky": "sunset", "kind": "lighthouse", "count": "2"}),
        ("the theory of relativity", {}),
    ],
)
def test_stated_attributes_of_free_text(text: str, found: dict[str, str]) -> None:
    assert stated_attributes(text) == found


def test_the_grammar_contains_the_readmes_prompt() -> None:
    scene = Scene("night", "snow", "house", "red", 1, "left")
    rng = random.Random(0)
    texts = (caption(scene, rng, dropout=0.3) for _ in range(60000))
    assert "a red house on a snowy hill at night" in texts


def test_a_sheet_has_pictures_in_rows() -> None:
    pictures = [np.full((4, 5, 3), i, np.uint8) for i in range(5)]
    page = np.asarray(sheet(pictures, columns=3))
    assert page.shape == (8, 15, 3)
    assert (page[4:, 5:10] == 4).all()
    assert (page[4:, 10:] == 255).all()
    with pytest.raises(ValueError, match="one picture"):
        sheet([])


def test_a_longer_plan_starts_with_the_shorter_one() -> None:
    labels, seeds = plan("heldout", 30)
    longer, more = plan("heldout", 50)
    assert np.array_equal(labels, longer[:30])
    assert np.array_equal(seeds, more[:30])
    assert {split_of(Scene.from_labels(tuple(map(int, row)))) for row in labels} == {"heldout"}


def test_a_dataset_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = ["--train", "3", "--val", "2", "--heldout", "2", "--unseen-pair", "2", "--workers", "1"]
    write_dataset(["--out", str(tmp_path), *counts])
    labels, seeds = np.load(tmp_path / "train_labels.npy"), np.load(tmp_path / "train_seeds.npy")
    images, small = np.load(tmp_path / "train_images.npy"), np.load(tmp_path / "train_192.npy")
    assert labels.shape == (3, 6)
    assert labels.dtype == np.int64
    assert images.shape == (3, 256, 256, 3)
    assert small.shape == (3, 192, 192, 3)
    for row, seed, image in zip(labels, seeds, images, strict=True):
        assert np.array_equal(render(Scene.from_labels(tuple(map(int, row))), int(seed)), image)
    assert not list(tmp_path.glob("*.p*"))
    capsys.readouterr()
    write_dataset(["--out", str(tmp_path), *counts])
    assert capsys.readouterr().err.count("already there") == 4
