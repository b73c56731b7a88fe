"""Captions cleaned of what training sets scraped from the web have in them: addresses, markup, file names, numbers.

The rules and their order are those by which DeepFloyd IF's training captions were cleaned and which PixArt was trained
with (arXiv 2310.00426); diffusers applies the same ones twice to each prompt, and so does this.
"""

from __future__ import annotations

import html
import importlib
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any

_PACKAGES = {"bs4": "beautifulsoup4", "ftfy": "ftfy"}
_DOMAINS = r"[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b\/?(?!@)"
_SUFFIXES = "(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)"
_DASHES = (
    r"\-\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40"
    r"\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d"
)
# Strokes, phonetic extensions, enclosed letters, compatibility, extension A, hexagrams, and the ideographs themselves.
_IDEOGRAPHS = (
    *(r"\u31c0-\u31ef", r"\u31f0-\u31ff", r"\u3200-\u32ff", r"\u3300-\u33ff"),
    *(r"\u3400-\u4dbf", r"\u4dc0-\u4dff", r"\u4e00-\u9fff"),
)

Rules = Sequence[tuple[re.Pattern[str], str]]


def _rules(told: Iterable[tuple[str, str]]) -> Rules:
    return [(re.compile(pattern), replacement) for pattern, replacement in told]


_ADDRESSES = _rules(
    [
        ("<person>", "person"),
        (rf"\b((?:https?:(?:\/{{1,3}}|[a-zA-Z0-9%])|{_DOMAINS}))", ""),
        (rf"\b((?:www:(?:\/{{1,3}}|[a-zA-Z0-9%])|{_DOMAINS}))", ""),
    ]
)

_SIGNS = _rules(
    [
        (r"@[\w\d]+\b", ""),  # names of users
        *((f"[{span}]+", "") for span in _IDEOGRAPHS),
        (f"[{_DASHES}]+", "-"),
        ("[`´«»“”¨]", '"'),
        ("[‘’]", "'"),
        ("&quot;?", ""),
        ("&amp", ""),
        (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),  # internet addresses
        (r"\d:\d\d\s+$", ""),  # numbers of articles
        (r"\\n", " "),
        (r"#\d{1,3}\b", ""),
        (r"#\d{5,}\b", ""),
        (r"\b\d{6,}\b", ""),
        (rf"[\S]+\.{_SUFFIXES}", ""),  # names of files
        (r"[\"\']{2,}", '"'),
        (r"[\.]{2,}", " "),
        (r"[#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*]+", " "),
        (r"\s+\.\s+", " "),
    ]
)

_WORDS = _rules(
    [
        (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),  # codes of wares, such as jc6640, jc6640vc, and 6640vc231
        (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),
        (r"\b\d+[a-zA-Z]+\d+\b", ""),
        (r"(worldwide\s+)?(free\s+)?shipping", ""),
        (r"(free\s)?download(\sfree)?", ""),
        (r"\bclick\b\s(?:for|on)\s\w+", ""),
        (rf"\b{_SUFFIXES}(\simage[s]?)?", ""),
        (r"\bpage\s+\d+\b", ""),
        (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),
        (r"\b\d+\.?\d*[xх×]\d+\.?\d*\b", ""),  # sizes
        (r"\b\s+\:\s+", ": "),
        (r"(\D[,\./])\b", r"\1 "),
        (r"\s+", " "),
        (r"^[\"\']([\w\W]+)[\"\']$", r"\1"),
        (r"^[\'\_,\-\:;]", ""),
        (r"[\'\_,\-\:\-\+]$", ""),
        (r"^\.\S+$", ""),
    ]
)

_JOINTS = re.compile("[-_]")
_MOST_JOINTS = 3  # in a caption that keeps them; more join-its-words-like-this


def plain(caption: str) -> str:
    """The caption in lower case, without space around it."""
    return caption.lower().strip()


def cleaned(caption: str) -> str:
    """The caption, cleaned.

    Raises:
        ModuleNotFoundError: it has markup, or letters that may be garbled, and the package that reads those is absent.
    """
    return _cleaned_once(_cleaned_once(caption))


def cleaned_or_plain(captions: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """All captions, cleaned; or, where a package is absent that one of them takes, all plain, and a warning of that."""
    try:
        return tuple(cleaned(each) for each in captions), None
    except ModuleNotFoundError as error:
        return tuple(plain(each) for each in captions), str(error)


def _cleaned_once(caption: str) -> str:
    caption = urllib.parse.unquote_plus(caption).strip().lower()
    caption = _without_markup(_applied(_ADDRESSES, caption))
    caption = _applied(_SIGNS, caption)
    if len(_JOINTS.findall(caption)) > _MOST_JOINTS:
        caption = _JOINTS.sub(" ", caption)
    caption = html.unescape(html.unescape(_mended(caption)))
    return _applied(_WORDS, caption).strip()


def _applied(rules: Rules, caption: str) -> str:
    for pattern, replacement in rules:
        caption = pattern.sub(replacement, caption)
    return caption


def _without_markup(caption: str) -> str:
    """The text of HTML. Without an angle bracket or an ampersand, all is text."""
    if not set("<&") & set(caption):
        return caption
    return str(_package("bs4").BeautifulSoup(caption, features="html.parser").text)


def _mended(caption: str) -> str:
    """Letters put right that were read in the wrong encoding. Those of ASCII never are."""
    if caption.isascii() and all(each.isprintable() or each in "\t\n" for each in caption):
        return caption
    return str(_package("ftfy").fix_text(caption))


def _package(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the prompt was not cleaned: that takes {_PACKAGES[module]}, which is not installed; "
            "`pip install 'vinograph[captions]'` does, and clean_caption off (--clean-caption off) draws it as it is",
            name=module,
        ) from error
