"""Cleaning of captions: addresses, markup, file names and numbers are removed, as in training.

The rules and their order are those that cleaned the training captions of DeepFloyd IF and of PixArt
(arXiv 2310.00426). diffusers applies them twice to each prompt, and so does this.

Every rule takes time in proportion to the caption's length. The published patterns try each letter
of a long word as the start of a match, also where none can match. Those here try the first letter
alone, or don't backtrack.
"""

from __future__ import annotations

import html
import importlib
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any

from vinograph.errors import RequestError

MAX_TAGS = 256  # and other angle brackets in one caption

_PACKAGES = {"bs4": "beautifulsoup4", "ftfy": "ftfy"}
_SUFFIXES = "(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)"
_DASHES = (
    r"\-\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40"
    r"\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d"
)
# Strokes, phonetic extensions, enclosed letters, compatibility, extension A, hexagrams, and the
# ideographs themselves.
_IDEOGRAPHS = (
    *(r"\u31c0-\u31ef", r"\u31f0-\u31ff", r"\u3200-\u32ff", r"\u3300-\u33ff"),
    *(r"\u3400-\u4dbf", r"\u4dc0-\u4dff", r"\u4e00-\u9fff"),
)

Rules = Sequence[tuple[re.Pattern[str], str]]


def _rules(patterns: Iterable[tuple[str, str]]) -> Rules:
    return [(re.compile(pattern), replacement) for pattern, replacement in patterns]


# What begins an address by its scheme, and by its domain; a domain's letters, and what may end one.
_SCHEMES = [re.compile(rf"\b{scheme}:(?:/{{1,3}}|[a-zA-Z0-9%])") for scheme in ("https?", "www")]
_DOMAIN_LETTERS = re.compile(r"\b[a-zA-Z0-9.\-]+")
_DOMAIN_END = re.compile(r"[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)")

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
        (rf"(?<!\S)\S+\.{_SUFFIXES}", ""),  # names of files
        (r"[\"\']{2,}", '"'),
        (r"[\.]{2,}", " "),
        (r"[#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*]+", " "),
        (r"(?<!\s)\s++\.\s+", " "),
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
        (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d[a-zA-Z\d]*+\b", " "),
        (r"\b\d++(?:\.\d*+)?[xх×]\d++(?:\.\d*)?\b", ""),  # sizes
        (r"\b\s+\:\s+", ": "),
        (r"(\D[,\./])\b", r"\1 "),
        (r"\s+", " "),
        (r"^[\"\']([\w\W]+)[\"\']$", r"\1"),
        (r"^[\'\_,\-\:;]", ""),
        (r"[\'\_,\-\:\-\+]$", ""),
        (r"^\.\S+$", ""),
    ]
)

_HALF_LETTERS = re.compile("[\ud800-\udfff]")  # of which "&#xd800;" makes one
_PADDED_REFERENCE = re.compile(r"&#0+(?=[0-9])")
_HUGE_REFERENCE = re.compile(r"&#[0-9]{8,}")
_JOINTS = re.compile("[-_]")
_MOST_JOINTS = 3  # in a caption that keeps them; more join-its-words-like-this


def plain(caption: str) -> str:
    """The caption in lower case, without space around it."""
    return caption.lower().strip()


def cleaned(caption: str) -> str:
    """Clean the caption.

    Raises:
        RequestError: it has more than :data:`MAX_TAGS` angle brackets.
        ModuleNotFoundError: it has markup, or letters that may be garbled, and the package that
            reads those is absent.
    """
    return _cleaned_once(_cleaned_once(caption))


def cleaned_or_plain(captions: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """Clean all captions, or return them plain with a warning where a package is absent."""
    try:
        return tuple(cleaned(each) for each in captions), None
    except ModuleNotFoundError as error:
        return tuple(plain(each) for each in captions), str(error)


def _cleaned_once(caption: str) -> str:
    caption = urllib.parse.unquote_plus(caption).strip().lower().replace("<person>", "person")
    for scheme in _SCHEMES:
        caption = _without_addresses(caption, scheme)
    caption = _without_markup(caption)
    caption = _applied(_SIGNS, caption)
    if len(_JOINTS.findall(caption)) > _MOST_JOINTS:
        caption = _JOINTS.sub(" ", caption)
    caption = _unescaped(_unescaped(_mended(caption)))
    return _applied(_WORDS, caption).strip()


def _applied(rules: Rules, caption: str) -> str:
    for pattern, replacement in rules:
        caption = pattern.sub(replacement, caption)
    return caption


def _without_addresses(caption: str, scheme: re.Pattern[str]) -> str:
    """Remove every address that ``scheme`` or a domain begins, up to the next space.

    One pattern for both would begin anew at each dot of a word that has no domain in it.
    """
    pieces: list[str] = []
    copied = position = 0
    by_scheme = scheme.search(caption)
    while True:
        if by_scheme is not None and by_scheme.start() < position:
            by_scheme = scheme.search(caption, position)
        letters = _DOMAIN_LETTERS.search(caption, position)
        if by_scheme is not None and (letters is None or by_scheme.start() <= letters.start()):
            start, end = by_scheme.span()
        elif letters is not None:
            start, end = letters.start(), _end_of_domain(caption, *letters.span())
            if end < 0:
                position = letters.end() if by_scheme is None else min(letters.end(), by_scheme.start())
                continue
        else:
            return "".join([*pieces, caption[copied:]])
        pieces.append(caption[copied:start])
        copied = position = end


def _end_of_domain(caption: str, start: int, end_of_letters: int) -> int:
    """End of the longest domain from ``start`` whose last dot is among the letters, or -1."""
    dot = end_of_letters
    while (dot := caption.rfind(".", start + 1, dot)) >= 0:
        if end := _DOMAIN_END.match(caption, dot):
            return end.end()
    return -1


def _unescaped(caption: str) -> str:
    """Replace HTML's entities by their letters. The number of no letter gives U+FFFD."""
    return html.unescape(_bounded_references(caption))


def _bounded_references(caption: str) -> str:
    """Shorten numeric references: Python reads no integer of more than 4300 digits."""
    return _HUGE_REFERENCE.sub("&#9999999", _PADDED_REFERENCE.sub("&#", caption))


def _without_markup(caption: str) -> str:
    """The text of HTML: the whole caption where it has no markup or can't be parsed.

    Raises:
        RequestError: there are more tags than the parser, which may look for the end of each, gets
            done soon.
    """
    if not set("<&") & set(caption):
        return caption
    if caption.count("<") > MAX_TAGS:
        raise RequestError(
            f'the prompt has {caption.count("<"):,} times "<"; with clean_caption it may have {MAX_TAGS}: '
            "leave some out, or turn clean_caption off (--clean-caption off)"
        )
    bs4 = _package("bs4")
    try:
        text = str(bs4.BeautifulSoup(_bounded_references(caption), features="html.parser").text)
    except bs4.builder.ParserRejectedMarkup:
        return caption
    return _HALF_LETTERS.sub("\ufffd", text)


def _mended(caption: str) -> str:
    """Repair letters that were read in the wrong encoding, which those of ASCII never are."""
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
