"""Trains the embedded models' CLIP tokenizer, on the grammar's words and everyday English.

    python -m training.tokenizer --out FOLDER

It is a byte-level BPE (Sennrich et al., arXiv 1508.07909, over bytes as in GPT-2), so it can encode
any text. Every word of the picture-book grammar is one token. The folder gets the files of
published CLIP tokenizers, among them `vocab.json` and `merges.txt`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from training.world.caption import caption, split_words
from training.world.scene import sample

START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"
LENGTH: Final = 32
"""Length of a prompt in tokens, with its start and end tokens."""

VOCABULARY: Final = 1536

_SPLIT: Final = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""

EVERYDAY: Final = tuple((Path(__file__).parent / "world" / "everyday.txt").read_text(encoding="utf-8").split())
"""English words about pictures, so that prompts outside the grammar take few tokens too."""

Pair = tuple[str, str]


def byte_letters() -> dict[int, str]:
    """The visible letter for each byte, in the order of GPT-2's and CLIP's vocabularies."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {byte: chr(byte) for byte in plain}
    for byte in range(256):
        letters.setdefault(byte, chr(256 + len(letters) - len(plain)))
    return letters


@cache
def grammar_words(captions: int = 60000) -> tuple[str, ...]:
    """Every word that the grammar uses, the most frequent first."""
    rng, counts = random.Random("vocabulary"), Counter[str]()
    for _ in range(captions):
        counts.update(split_words(caption(sample(rng, None), rng, dropout=0.2)))
    return tuple(sorted(counts, key=lambda word: (-counts[word], word)))


def merges_for(words: Iterable[str], most: int, known: Sequence[Pair] = ()) -> list[Pair]:
    """``known`` merges and new ones up to ``most``, learned from equally weighted ``words``."""
    letters = byte_letters()
    merges = list(known)
    rest = []
    for word in dict.fromkeys(words):
        symbols = [letters[byte] for byte in word.encode()]
        rest.append([*symbols[:-1], symbols[-1] + "</w>"])
    for pair in merges:
        rest = _merged(rest, pair)
    while len(merges) < most:
        counts = Counter(pair for symbols in rest for pair in pairwise(symbols))
        if not counts:
            break
        pair = min(counts, key=lambda candidate: (-counts[candidate], candidate))
        merges.append(pair)
        rest = _merged(rest, pair)
    return merges


def _merged(words: Iterable[list[str]], pair: Pair) -> list[list[str]]:
    """The symbols of each word with ``pair`` merged; most words have no such symbol, and stay as they are."""
    return [_merge(symbols, pair) if pair[0] in symbols else symbols for symbols in words]


def _merge(symbols: list[str], pair: Pair) -> list[str]:
    """``symbols`` with every occurrence of ``pair`` merged into one."""
    out: list[str] = []
    i = 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


@cache
def train(size: int = VOCABULARY) -> tuple[dict[str, int], list[Pair]]:
    """The vocabulary and the merges: first those of the grammar, then those of everyday English. For reading only."""
    letters = byte_letters()
    tokens = [*letters.values(), *(letter + "</w>" for letter in letters.values())]
    most = size - len(tokens) - 2
    words = grammar_words()
    merges = merges_for(words, most)
    merges = merges_for(EVERYDAY, most, merges)
    tokens += [a + b for a, b in merges]
    tokens += [START, END]
    return {token: i for i, token in enumerate(tokens)}, merges


def build(vocabulary: dict[str, int], merges: list[Pair]) -> Tokenizer:
    """The tokenizer, equal to the Rust tokenizer of transformers' ``CLIPTokenizer``."""
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=END
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, vocabulary[END]), (START, vocabulary[START]), trim_offsets=False, add_prefix_space=False
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (START, END)])
    return tokenizer


def write(folder: Path, size: int = VOCABULARY, pad: str = END, length: int = LENGTH) -> None:
    """Train a tokenizer and write it in the published layout; SDXL's second one pads with ``!``."""
    vocabulary, merges = train(size)
    folder.mkdir(parents=True, exist_ok=True)

    def save(name: str, content: object) -> None:
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    def added(token: str) -> dict[str, object]:
        return {"content": token, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}

    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    build(vocabulary, merges).save(str(folder / "tokenizer.json"))
    special_tokens = {"bos_token": added(START), "eos_token": added(END), "pad_token": pad, "unk_token": added(END)}
    save("special_tokens_map.json", special_tokens)
    decoder = {str(vocabulary[t]): {**added(t), "normalized": False, "special": True} for t in (START, END)}
    save(
        "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": decoder,
            "bos_token": START,
            "clean_up_tokenization_spaces": False,
            "do_lower_case": True,
            "eos_token": END,
            "errors": "replace",
            "model_max_length": length,
            "pad_token": pad,
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": END,
        },
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `python -m training.tokenizer`."""
    parser = argparse.ArgumentParser(prog="python -m training.tokenizer", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the tokenizer")
    parser.add_argument("--size", type=int, default=VOCABULARY, help="tokens in the vocabulary")
    parser.add_argument("--pad", default=END, help="the token that fills up short prompts")
    options = parser.parse_args(arguments)
    write(options.out, options.size, options.pad)


if __name__ == "__main__":
    main()
