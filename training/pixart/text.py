"""A small tokenizer and text encoder of T5's architecture.

The tokenizer is a sentencepiece unigram model (Kudo, arXiv 1804.10959), trained on the grammar's
captions and on everyday English words.
"""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import sentencepiece
import torch
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from training.diffusers_layout import write_json
from training.pixart.config import LENGTH, TEXT
from training.tokenizer import EVERYDAY
from training.world import caption, sample
from vinograph.models.sentencepiece import read_sentencepiece

VOCABULARY: Final = 1200
PUBLISHED_LENGTH: Final = 120
"""Maximum length in tokens that PixArt's published tokenizers declare."""

_PAD, _END = 0, 1
_CAPTIONS = 20000
_EVERYDAY_REPEATS = 20
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()-&/"
# Capital letters become lower case, and typographic quotes plain ones.
_NORMALIZATION = {
    **{chr(code).upper(): chr(code) for code in range(ord("a"), ord("z") + 1)},
    "’": "'",
    "“": '"',
    "”": '"',
}


def write_tokenizer(folder: Path) -> None:
    """Train the tokenizer and write it in the layout of T5's published tokenizers."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random("sentencepiece")
    captions = [caption(sample(rng, None), rng, dropout=0.2).lower() for _ in range(_CAPTIONS)]
    rules, model = folder / "rules.tsv", io.BytesIO()
    rules.write_text("".join(f"{ord(a):x}\t{ord(b):x}\n" for a, b in _NORMALIZATION.items()), encoding="utf-8")
    with contextlib.chdir(folder):  # the model stores the path of its rules, which should have no folder
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([*captions, *(EVERYDAY * _EVERYDAY_REPEATS), *_CHARACTERS]),
            model_writer=model,
            model_type="unigram",
            vocab_size=VOCABULARY,
            hard_vocab_limit=False,
            required_chars=_CHARACTERS,
            normalization_rule_tsv=rules.name,
            pad_id=_PAD,
            eos_id=_END,
            unk_id=2,
            bos_id=-1,
            pad_piece="<pad>",
            num_threads=1,
            minloglevel=2,
        )
    rules.unlink()
    (folder / "spiece.model").write_bytes(model.getvalue())
    config = {"eos_token": "</s>", "extra_ids": 0, "pad_token": "<pad>", "unk_token": "<unk>"}
    write_json(folder / "tokenizer_config.json", {**config, "model_max_length": PUBLISHED_LENGTH})
    _write_tokenizer_json(folder)


def _write_tokenizer_json(folder: Path) -> None:
    """Write ``tokenizer.json``, which newer libraries read, from ``spiece.model``."""
    model = read_sentencepiece(folder / "spiece.model")
    pieces = [(piece.text, piece.score) for piece in model.pieces]
    tokenizer = T5Tokenizer(
        pieces,
        _spm_precompiled_charsmap=model.charsmap or None,
        extra_ids=0,
        model_max_length=PUBLISHED_LENGTH,
    )
    tokenizer.save_pretrained(folder)


class UnigramTokenizer:
    """The unigram tokenizer in ``folder``; it is trained first if it isn't there."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "spiece.model").exists():
            write_tokenizer(folder)
        self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens in the vocabulary."""
        return int(self._pieces.get_piece_size())

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids (int16) and mask (bool) [texts, LENGTH], with T5's end token and padding."""
        ids = torch.full((len(texts), LENGTH), _PAD, dtype=torch.int16)
        mask = torch.zeros(len(texts), LENGTH, dtype=torch.bool)
        for row, tokens in enumerate(self._pieces.encode(list(texts))):
            sequence = [*tokens[: LENGTH - 1], _END]
            ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.int16)
            mask[row, : len(sequence)] = True
        return ids, mask


class TextEncoder(nn.Module):
    """A T5 encoder: hidden states [n, length, 128] of token ids."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        config = T5Config(vocab_size=vocabulary, pad_token_id=_PAD, eos_token_id=_END, is_encoder_decoder=False, **TEXT)
        self.model = T5EncoderModel(config)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states of ``ids`` and ``mask`` [n, length]."""
        states: Tensor = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return states


def text_encoder(work: Path) -> TextEncoder:
    """The text encoder with initial weights, for the tokenizer in ``work``."""
    return TextEncoder(UnigramTokenizer(work / "tokenizer").vocabulary_size)
