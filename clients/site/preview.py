"""A preview of a site's data: examples as they reach the network, balance of classes, split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.site.site_examples import SiteExamples, read_site_examples
from clients.site.site_folder import SiteFolder
from f2l_fed.core.text_bytes import texts_of

SHOWN = 10
"""Number of examples in a preview."""

_SHADES = " .:-=+*#%@"
_BLOCKS = " ░▒▓█"
_WIDTH = 28
_FEATURES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewExample:
    """One example.

    Args:
        place: Its place in the data.
        label: Its label.
        x: Its input, float32, an image in [0, 1].
        text: The text that the input is, as far as it is not cut; "" for other inputs.
    """

    place: str
    label: str
    x: Tensor
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPreview:
    """The preview of a site's data.

    Args:
        site: Name of the site.
        input_shape: Shape of one input.
        features: Names of a vector's features; empty for images and texts.
        parts: Number of examples of each part: train, validation, test.
        per_class: The same for each class, by its label.
        examples: A few of the examples to learn from, the classes in turn.
        remarks: What was converted or left out, as sentences.
    """

    site: str
    input_shape: tuple[int, ...]
    features: tuple[str, ...]
    parts: dict[str, int]
    per_class: dict[str, dict[str, int]]
    examples: tuple[PreviewExample, ...]
    remarks: tuple[str, ...]


def preview(folder: SiteFolder, shown: int = SHOWN) -> DataPreview:
    """Makes a preview; raises DataError if the data can't be used."""
    examples = read_site_examples(folder.path, folder.config)
    parts = {"train": examples.train, "validation": examples.validation}
    if examples.test is not None:
        parts["test"] = examples.test
    classes = max(len(examples.labels), *(int(part.y.max()) + 1 for part in parts.values()))
    counts = {name: part.y.bincount(minlength=classes).tolist() for name, part in parts.items()}
    return DataPreview(
        site=folder.config.name,
        input_shape=tuple(examples.train.x.shape[1:]),
        features=() if examples.encoding.text_bytes else examples.encoding.features,
        parts={name: len(part.y) for name, part in parts.items()},
        per_class={
            _label(examples, number): {name: counts[name][number] for name in parts}
            for number in range(classes)
            if any(counts[name][number] for name in parts)
        },
        examples=_chosen(examples, shown),
        remarks=examples.remarks,
    )


def picture_text(x: Tensor, *, blocks: bool) -> str:
    """An image as lines of characters.

    Args:
        x: (C, H, W) in [0, 1].
        blocks: Whether block characters can be shown; else letters stand for shades.

    >>> print(picture_text(torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]), blocks=False) + "|")
    @ |
    """
    shades = _BLOCKS if blocks else _SHADES
    _, height, width = x.shape
    columns = min(width, _WIDTH)
    # A character is about twice as high as it is wide.
    lines = max(round(height * columns / width / 2), 1)
    grey = torch.nn.functional.adaptive_avg_pool2d(x.mean(0)[None], (lines, columns))[0]
    places = (grey.clamp(0, 1) * (len(shades) - 1)).round().long().tolist()
    return "\n".join("".join(shades[place] for place in line) for line in places)


def example_text(example: PreviewExample, features: Sequence[str]) -> str:
    """The example as a text, or the first features of a vector with their names."""
    if example.text:
        return example.text
    numbers = example.x.tolist()
    values = [f"{name}={value:.4g}" for name, value in zip(features, numbers, strict=False)]
    more = f" and {len(values) - _FEATURES} more" if len(values) > _FEATURES else ""
    return ", ".join(values[:_FEATURES]) + more


def _chosen(examples: SiteExamples, shown: int) -> tuple[PreviewExample, ...]:
    """Examples of the classes in turn, in the order of the data."""
    y = examples.train.y.numpy()
    members = [np.flatnonzero(y == label).tolist() for label in np.unique(y)]
    turns = [rows[turn] for turn in range(shown) for rows in members if turn < len(rows)]
    return tuple(
        PreviewExample(
            place=examples.places[row],
            label=_label(examples, int(y[row])),
            x=_shown(examples, row),
            text=_written(examples, row),
        )
        for row in turns[:shown]
    )


def _shown(examples: SiteExamples, row: int) -> Tensor:
    """An example to learn from as its input; an image as the picture that it is."""
    x = examples.train.x[row : row + 1]
    if x.ndim == 4:
        x = torch.from_numpy(examples.encoding.pictures(x.numpy()))
    return x[0]


def _written(examples: SiteExamples, row: int) -> str:
    texts = bool(examples.encoding.text_bytes)
    return texts_of(examples.train.x[row : row + 1].numpy())[0] if texts else ""


def _label(examples: SiteExamples, number: int) -> str:
    return examples.labels[number] if examples.labels else str(number)
