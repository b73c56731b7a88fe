"""The words of prompts that a model has not seen, for models that know a closed vocabulary."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache

MOST_NAMED = 8
"""How many unseen words a warning names."""

# A number beside a point or a colon is a weight, such as in (word:1.2).
_WORD = re.compile(r"[^\W\d_]+|(?<![\w.:])\d+(?![\w.:])")
_POSSESSIVE = re.compile(r"(?<=\w)['’]s\b")
_VOWEL = re.compile(r"[aeiouy]")


def warnings(prompts: Iterable[str], vocabulary: Sequence[str], learned: Collection[str] = ()) -> list[str]:
    """A warning that names the words of ``prompts`` outside the ``vocabulary``, if there are any.

    Where the vocabulary is empty, every word counts as known. ``learned`` are words that were
    taught to the model besides.
    """
    unseen = list(dict.fromkeys(word for text in prompts for word in unseen_words(text, vocabulary, learned)))
    if not unseen:
        return []
    more = f" and {len(unseen) - MOST_NAMED} more" if len(unseen) > MOST_NAMED else ""
    return [f"the model has not seen: {', '.join(unseen[:MOST_NAMED])}{more}"]


def unseen_words(text: str, vocabulary: Sequence[str], learned: Collection[str] = ()) -> list[str]:
    """The words of ``text`` outside the ``vocabulary``, in lower case and in their order.

    A word that differs from one of the vocabulary by its ending alone, as "sailed" differs from
    "sailing", is within it.
    """
    if not vocabulary:
        return []
    known = _stems_of(tuple(vocabulary))
    for word in sorted(learned, key=len, reverse=True):
        text = re.sub(re.escape(word), " ", text, flags=re.IGNORECASE)
    return [word for word in _words(text) if word not in known and stem(word) not in known]


def stem(word: str) -> str:
    """``word`` without the ending of a plural, a past or a participle."""
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    for ending in ("ing", "ed"):
        base = word.removesuffix(ending)
        if base != word and len(base) > 2 and _VOWEL.search(base):
            word = base[:-1] if base[-1] == base[-2] and base[-1] not in "ls" else base
            break
    return word.removesuffix("e") if len(word) > 3 else word


@lru_cache(maxsize=8)
def _stems_of(vocabulary: tuple[str, ...]) -> frozenset[str]:
    return frozenset(vocabulary) | {stem(word) for word in vocabulary}


def _words(text: str) -> Iterator[str]:
    text = _POSSESSIVE.sub("", unicodedata.normalize("NFC", text).replace("BREAK", " "))
    for match in _WORD.finditer(text.lower()):
        yield match[0]
