"""The words that the embedded models know: those of the captions, and words that carry no picture."""

from __future__ import annotations

import random
from functools import cache
from typing import Final

from training.world import words
from training.world.caption import caption, split_words
from training.world.scene import sample

# English words that hold a sentence together. A model that has not seen them loses nothing.
_PLAIN: Final = (
    "a about all also am an and are as at be been being but by can could do does draw each for from has have he her "
    "here him his how i if in into is it its just let like made make may me more most much my no not of off on one "
    "only or other our out own please really scene shall she should show shows so some such than that the their them "
    "then there these they this those to too up us very was we were what when where which while who will with would "
    "you your"
)


def vocabulary() -> list[str]:
    """The words in alphabetical order, in lower case; digits are among them."""
    return sorted({*_PLAIN.split(), *_listed(), *_written()})


def _listed() -> set[str]:
    """Every word of the tables of phrases."""
    return {word for name, value in vars(words).items() if name.isupper() for word in _split(value)}


def _split(value: object) -> set[str]:
    if isinstance(value, str):
        return {word for word in split_words(value) if word.isalnum()}
    if isinstance(value, dict):
        return {word for each in value.values() for word in _split(each)}
    return {word for each in value for word in _split(each)} if isinstance(value, tuple) else set()


@cache
def _written(captions: int = 5000) -> frozenset[str]:
    """The words of many captions, among them those that join the phrases."""
    rng = random.Random("words")
    texts = (caption(sample(rng, None), rng, dropout=0.2) for _ in range(captions))
    return frozenset(word for text in texts for word in split_words(text) if word.isalnum())
