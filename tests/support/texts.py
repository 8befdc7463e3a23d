"""Texts on several topics, and the folder of a small transformer that takes them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

TOPICS, WORDS, HIDDEN, TOKENS = 8, 12, 16, 10


def topic_texts(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """So many different texts of each topic, with its name: a few of its words between others."""
    rng = np.random.default_rng(seed)
    found: dict[str, str] = {}
    for topic in range(TOPICS):
        while sum(name == f"topic {topic}" for name in found.values()) < count:
            own = rng.choice([f"t{topic}w{number}" for number in range(WORDS)], 4)
            other = rng.choice([f"common{number}" for number in range(WORDS)], 3)
            found[" ".join(rng.permutation([*own, *other]))] = f"topic {topic}"
    return list(found.items())


def write_table(path: Path, count: int, seed: int = 0) -> Path:
    """A table of texts ("words") and topics ("topic"), beside a column of numbers."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("number", "words", "topic"))
        rows = enumerate(topic_texts(count, seed))
        writer.writerows((number, text, topic) for number, (text, topic) in rows)
    return path


def transformer_folder(folder: Path, *, pad: int | None = 0, lower: bool = False) -> Path:
    """The folder of a BERT of two layers with random weights, as its library writes it.

    Args:
        folder: The new folder.
        pad: Id of the token for padding that its config names.
        lower: Whether the tokenizer takes capitals for small letters.
    """
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words += [f"t{topic}w{number}" for topic in range(TOPICS) for number in range(WORDS)]
    words += [f"common{number}" for number in range(WORDS)]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if lower:
        tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=2 * TOKENS,
        pad_token_id=pad,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.BertModel(config)
    # Words of random embeddings this far apart are told apart by their mean.
    model.embeddings.word_embeddings.weight.data.mul_(20)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
