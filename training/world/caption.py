"""Writes captions, English sentences that state a scene's attributes, and reads them back."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Set
from typing import Final

from training.world.scene import ATTRIBUTES, Scene
from training.world.words import (
    ACTIONS,
    ADJECTIVES,
    COLOUR,
    COUNT,
    GROUND,
    GROUND_SCENES,
    ISLAND,
    KIND,
    PHRASES,
    PLACE,
    PREFIXES,
    SAILING,
    SKY,
    SKY_SCENES,
    SUFFIXES,
    TAGS,
)  # fmt: skip

MAX_WORDS: Final = 28
"""The most words and marks of a caption, so that a tokenizer of length 32 truncates none."""


def caption(scene: Scene, rng: random.Random, dropout: float = 0.0) -> str:
    """A caption of ``scene``, in lower case, which may omit attributes.

    Sky, ground and place are each omitted with the probability ``dropout``, colour and count with
    half of it. The kind is always stated.
    """
    return caption_and_attributes(scene, rng, dropout)[0]


def caption_and_attributes(scene: Scene, rng: random.Random, dropout: float = 0.0) -> tuple[str, frozenset[str]]:
    """A caption as :func:`caption` gives it, and the names of the attributes that it states."""
    stated = {"kind"}
    for name in ATTRIBUTES:
        chance = dropout / 2 if name in ("colour", "count") else dropout
        if rng.random() >= chance:
            stated.add(name)
    return caption_of(scene, stated, rng), frozenset(stated)


def caption_of(scene: Scene, stated: Set[str], rng: random.Random) -> str:
    """A caption that states these attributes of ``scene``, among them its kind, and no others."""
    while True:
        text = _sentence(scene, stated, rng)
        if len(split_words(text)) <= MAX_WORDS:
            return text


def full_caption(scene: Scene, rng: random.Random) -> str:
    """A caption that states all six attributes."""
    return caption(scene, rng)


def split_words(text: str) -> list[str]:
    """The words and punctuation marks of ``text``, as CLIP's tokenizers split it."""
    return re.findall(r"'s|[a-z]+|[0-9]|[^\sa-z0-9]+", text)


def _sentence(scene: Scene, stated: Set[str], rng: random.Random) -> str:
    shape = rng.random()
    if shape < 0.10:
        text = _tag_list(scene, stated, rng)
    elif shape < 0.22:
        text = _view(scene, stated, rng)
    else:
        text = _statement(scene, stated, rng)
    if shape > 0.30 and rng.random() < 0.06:
        text = f"{text}, {rng.choice(SUFFIXES)}"
    return f"{text}." if rng.random() < 0.05 else text


def _statement(scene: Scene, stated: Set[str], rng: random.Random) -> str:
    """A subject and its surroundings, in any order, at times with what the subject does."""
    surroundings = [_surroundings(name, scene, rng) for name in ("ground", "sky", "place") if name in stated]
    subject = _subject_phrase(scene, stated, rng)
    if "ground" in stated:
        if rng.random() >= 0.6:  # most people state the ground first, then the sky
            rng.shuffle(surroundings)
        if rng.random() < 0.2:
            subject = f"{subject} {rng.choice(_actions(scene))}"
    else:
        rng.shuffle(surroundings)
    roll = rng.random()
    if surroundings and roll < 0.22:
        first = surroundings.pop(rng.randrange(len(surroundings)))
        start = " there is" if scene.count == 1 else " there are"
        if "count" not in stated or rng.random() < 0.7:
            return " ".join([f"{first},", subject, *surroundings])
        return " ".join([f"{first}{start}", subject, *surroundings])
    if roll < 0.28 and "count" in stated:
        return " ".join(["there is" if scene.count == 1 else "there are", subject, *surroundings])
    text = subject
    for part in surroundings:
        text += (", " if rng.random() < 0.12 else " ") + part
    return f"{rng.choice(PREFIXES)} {text}" if rng.random() < 0.22 else text


def _view(scene: Scene, stated: Set[str], rng: random.Random) -> str:
    """A landscape "with" the subject in it."""
    subject, place = (
        _subject_phrase(scene, stated, rng),
        [_surroundings("place", scene, rng)] if "place" in stated else [],
    )
    sky = "sky" in stated
    if "ground" in stated and rng.random() < 0.6:
        parts = [rng.choice(GROUND_SCENES[scene.ground]), *([_surroundings("sky", scene, rng)] if sky else [])]
    elif sky:
        parts = [rng.choice(SKY_SCENES[scene.sky])]
        if "ground" in stated:
            parts.append(rng.choice(GROUND[scene.ground]))
    else:
        return _statement(scene, stated, rng)
    return " ".join([*parts, "with", subject, *place])


def _tag_list(scene: Scene, stated: Set[str], rng: random.Random) -> str:
    """The subject and single words for the rest, joined by commas."""
    words = [
        rng.choice(TAGS[name][value])
        for name, value in (("ground", scene.ground), ("sky", scene.sky), ("place", scene.place))
        if name in stated
    ]
    rng.shuffle(words)
    subject = _subject_phrase(scene, stated, rng)
    if "count" in stated and scene.count == 1 and rng.random() < 0.5:
        subject = re.sub(r"^an? (single )?", "one ", subject)
    return ", ".join([subject, *words])


def _surroundings(name: str, scene: Scene, rng: random.Random) -> str:
    if name == "sky":
        return rng.choice(SKY[scene.sky])
    if name == "place":
        return rng.choice(PLACE[scene.place])
    if scene.ground == "sea" and scene.kind != "boat" and rng.random() < 0.35:
        return rng.choice(ISLAND)
    return rng.choice(GROUND[scene.ground])


def _actions(scene: Scene) -> tuple[str, ...]:
    return SAILING if (scene.kind, scene.ground) == ("boat", "sea") else ACTIONS[scene.kind]


def _subject_phrase(scene: Scene, stated: Set[str], rng: random.Random) -> str:
    """The subject with its count and colour, such as "three little red houses"."""
    one, many = rng.choice(KIND[scene.kind])
    noun = one if scene.count == 1 else many
    if "colour" in stated:
        colour = rng.choice(COLOUR[scene.colour])
        if rng.random() < 0.06:
            noun = f"{noun} with {colour} fur" if scene.kind == "cat" else f"{noun} painted {colour}"
        else:
            noun = f"{colour} {noun}"
    if rng.random() < 0.15:
        noun = f"{rng.choice(ADJECTIVES)} {noun}"
    if "count" not in stated:
        return noun if scene.count == 1 or rng.random() < 0.5 else f"some {noun}"
    number = rng.choice(COUNT[scene.count])
    if number == "a" and noun[0] in "aeiou":
        number = "an"
    return f"{number} {noun}"


def _phrases() -> Iterator[tuple[str, str, str]]:
    for name, values in PHRASES.items():
        for value, phrases in values.items():
            for phrase in phrases:
                yield phrase, name, value
    for value, forms in KIND.items():
        for form in sorted({word for pair in forms for word in pair}):
            yield form, "kind", value


_PHRASES: Final = sorted(_phrases(), key=lambda reading: -len(reading[0]))
_SINGULAR: Final = {pair[0] for forms in KIND.values() for pair in forms}


def stated_attributes(text: str) -> dict[str, str]:
    """The attributes that ``text`` states in the world's vocabulary, by the first mention of each.

    An article states the count: "a house" is one house. "houses" and "house" state no count.
    """
    rest, found = text.lower(), dict[str, tuple[int, str]]()
    subject = -1
    for phrase, name, value in _PHRASES:
        for match in re.finditer(rf"(?<![a-z]){re.escape(phrase)}(?![a-z])", rest):
            at = match.start()
            rest = rest[:at] + "·" * len(phrase) + rest[match.end() :]
            if name not in found or at < found[name][0]:
                found[name] = (at, value)
                if name == "kind":
                    subject = at if phrase in _SINGULAR else -1
    if "count" not in found and subject >= 0:
        # The nearest article before the subject, with nothing but the subject's adjectives between.
        plain = "|".join([*ADJECTIVES, "bright", "dark"])
        if re.search(rf"(?:^|[^a-z])an? (?:(?:{plain})[ -]|·+ )*$", rest[:subject]):
            found["count"] = (subject, "1")
    return {name: found[name][1] for name in ATTRIBUTES if name in found}
