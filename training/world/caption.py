"""Captions: English sentences that say what a scene shows, and the reading of them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Final

from training.world.scene import ATTRIBUTES, Scene
from training.world.words import (
    ADJECTIVES,
    COLOUR,
    COUNT,
    DOING,
    GROUND,
    GROUND_SCENES,
    ISLAND,
    KIND,
    MEANING,
    PLACE,
    PREFIXES,
    SAILING,
    SKY,
    SKY_SCENES,
    SUFFIXES,
    TAGS,
)  # fmt: skip

LONGEST: Final = 28
"""The most words and marks a caption has, so that a tokenizer of length 32 cuts none."""

_NUMBER: Final = {1: "one", 2: "two", 3: "three"}


def caption(scene: Scene, rng: random.Random, drop: float = 0.0) -> str:
    """A caption in lower case. `drop` is how likely sky, ground and place are each left unsaid.

    Colour and count are left unsaid half as often. The kind always is said.
    """
    return caption_and_attributes(scene, rng, drop)[0]


def caption_and_attributes(scene: Scene, rng: random.Random, drop: float = 0.0) -> tuple[str, frozenset[str]]:
    """A caption, and the names of the attributes that it tells."""
    said = {"kind"}
    for name in ATTRIBUTES:
        chance = drop / 2 if name in ("colour", "count") else drop
        if rng.random() >= chance:
            said.add(name)
    while True:
        text = _sentence(scene, said, rng)
        if len(split_words(text)) <= LONGEST:
            return text, frozenset(said)


def full_caption(scene: Scene, rng: random.Random) -> str:
    """A caption that says all six attributes."""
    return caption(scene, rng)


def split_words(text: str) -> list[str]:
    """The words and marks of a text, as a tokenizer of CLIP's kind splits it."""
    return re.findall(r"'s|[a-z]+|[0-9]|[^\sa-z0-9]+", text)


def _sentence(scene: Scene, said: set[str], rng: random.Random) -> str:
    shape = rng.random()
    if shape < 0.10:
        text = _tags(scene, said, rng)
    elif shape < 0.22:
        text = _view(scene, said, rng)
    else:
        text = _statement(scene, said, rng)
    if shape > 0.30 and rng.random() < 0.06:
        text = f"{text}, {rng.choice(SUFFIXES)}"
    return f"{text}." if rng.random() < 0.05 else text


def _statement(scene: Scene, said: set[str], rng: random.Random) -> str:
    """A thing and where it is, in any order; now and then what it does."""
    around = [_around(name, scene, rng) for name in ("ground", "sky", "place") if name in said]
    things = _things(scene, said, rng)
    if "ground" in said:
        if rng.random() < 0.6:  # most people say the ground first, then the sky
            pass
        else:
            rng.shuffle(around)
        if rng.random() < 0.2:
            things = f"{things} {rng.choice(_doing(scene))}"
    else:
        rng.shuffle(around)
    roll = rng.random()
    if around and roll < 0.22:
        first = around.pop(rng.randrange(len(around)))
        start = " there is" if scene.count == 1 else " there are"
        if "count" not in said or rng.random() < 0.7:
            return " ".join([f"{first},", things, *around])
        return " ".join([f"{first}{start}", things, *around])
    if roll < 0.28 and "count" in said:
        return " ".join(["there is" if scene.count == 1 else "there are", things, *around])
    text = things
    for part in around:
        text += (", " if rng.random() < 0.12 else " ") + part
    return f"{rng.choice(PREFIXES)} {text}" if rng.random() < 0.22 else text


def _view(scene: Scene, said: set[str], rng: random.Random) -> str:
    """A landscape "with" the thing in it."""
    things, place = _things(scene, said, rng), [_around("place", scene, rng)] if "place" in said else []
    sky = "sky" in said
    if "ground" in said and rng.random() < 0.6:
        parts = [rng.choice(GROUND_SCENES[scene.ground]), *([_around("sky", scene, rng)] if sky else [])]
    elif sky:
        parts = [rng.choice(SKY_SCENES[scene.sky])]
        if "ground" in said:
            parts.append(rng.choice(GROUND[scene.ground]))
    else:
        return _statement(scene, said, rng)
    return " ".join([*parts, "with", things, *place])


def _tags(scene: Scene, said: set[str], rng: random.Random) -> str:
    """Words strung together with commas."""
    words = [
        rng.choice(TAGS[name][value])
        for name, value in (("ground", scene.ground), ("sky", scene.sky), ("place", scene.place))
        if name in said
    ]
    rng.shuffle(words)
    things = _things(scene, said, rng)
    if "count" in said and scene.count == 1 and rng.random() < 0.5:
        things = re.sub(r"^an? (single )?", "one ", things)
    return ", ".join([things, *words])


def _around(name: str, scene: Scene, rng: random.Random) -> str:
    if name == "sky":
        return rng.choice(SKY[scene.sky])
    if name == "place":
        return rng.choice(PLACE[scene.place])
    if scene.ground == "sea" and scene.kind != "boat" and rng.random() < 0.35:
        return rng.choice(ISLAND)
    return rng.choice(GROUND[scene.ground])


def _doing(scene: Scene) -> tuple[str, ...]:
    return SAILING if (scene.kind, scene.ground) == ("boat", "sea") else DOING[scene.kind]


def _things(scene: Scene, said: set[str], rng: random.Random) -> str:
    """The thing with its number and colour: "three little red houses"."""
    one, many = rng.choice(KIND[scene.kind])
    noun = one if scene.count == 1 else many
    if "colour" in said:
        colour = rng.choice(COLOUR[scene.colour])
        if rng.random() < 0.06:
            noun = f"{noun} with {colour} fur" if scene.kind == "cat" else f"{noun} painted {colour}"
        else:
            noun = f"{colour} {noun}"
    if rng.random() < 0.15:
        noun = f"{rng.choice(ADJECTIVES)} {noun}"
    if "count" not in said:
        return noun if scene.count == 1 or rng.random() < 0.5 else f"some {noun}"
    number = rng.choice(COUNT[scene.count])
    if number == "a" and noun[0] in "aeiou":
        number = "an"
    return f"{number} {noun}"


def _readings() -> Iterator[tuple[str, str, str]]:
    for name, values in MEANING.items():
        for value, phrases in values.items():
            for phrase in phrases:
                yield phrase, name, value
    for value, forms in KIND.items():
        for form in sorted({word for pair in forms for word in pair}):
            yield form, "kind", value


_READINGS: Final = sorted(_readings(), key=lambda reading: -len(reading[0]))
_SINGULAR: Final = {pair[0] for forms in KIND.values() for pair in forms}


def stated_attributes(text: str) -> dict[str, str]:
    """The attributes that a text states, as far as the world's words say. The first mention of each counts.

    An article counts as one: "a house" is one house. "houses" and "house" state no count.
    """
    rest, found = text.lower(), dict[str, tuple[int, str]]()
    subject = -1
    for phrase, name, value in _READINGS:
        for match in re.finditer(rf"(?<![a-z]){re.escape(phrase)}(?![a-z])", rest):
            at = match.start()
            rest = rest[:at] + "·" * len(phrase) + rest[match.end() :]
            if name not in found or at < found[name][0]:
                found[name] = (at, value)
                if name == "kind":
                    subject = at if phrase in _SINGULAR else -1
    if "count" not in found and subject >= 0:
        # The article nearest before the thing, with nothing but its own adjectives between.
        plain = "|".join([*ADJECTIVES, "bright", "dark"])
        if re.search(rf"(?:^|[^a-z])an? (?:(?:{plain})[ -]|·+ )*$", rest[:subject]):
            found["count"] = (subject, "1")
    return {name: found[name][1] for name in ATTRIBUTES if name in found}
