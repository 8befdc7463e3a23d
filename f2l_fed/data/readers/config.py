"""Settings of the reading of users' own data: the section ``[data]``."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field

from f2l_fed.core.validation import choice, require
from f2l_fed.errors import UsageError

MODES = {"": "", "grey": "L", "gray": "L", "l": "L", "rgb": "RGB", "colour": "RGB", "color": "RGB"}
"""Pillow's name of each colour mode that may be asked for."""

SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}
"""Words for separators that are hard to write."""

GAPS = ("indicator", "median", "leave-out", "refuse")
"""Ways to treat values that are missing."""

STANDARD, AGREED = "standard", "agreed"
SCALES = ("", STANDARD, AGREED)
"""Ways to scale numbers."""

_LARGEST_SIDE = 4096
_MOST_BYTES = 2**15


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingConfig:
    """The settings of a reader; what is empty is found out from the file.

    Args:
        label: Name of the column, or of the array in an ``.npz``, that holds the labels.
        ignore: Columns that are no features, such as a running number.
        group: Column (or array) whose rows of one value are kept on one side of a split, such as
            several images of one part; "folder" takes the folders inside the class folders.
        separator: Separator of a text file's columns; "tab" for a tab.
        decimal: Decimal mark of a text file, "." or ",".
        encoding: Encoding of a text file, such as "windows-1252".
        resize: Width and height of every image, pixels; [n] for both. The middle is kept.
        mode: "grey" or "rgb" for every image.
        unlabelled: Labels that mark rows without one, such as "-1"; those are left out.
        gaps: Treatment of missing numbers: "indicator" fills in the training rows' median and adds
            a feature that tells where, "median" only fills in, "leave-out" drops the rows,
            "refuse" ends.
        categories: Values of text columns, by column and in the order of their features; by
            default those that occur, sorted.
        columns: Columns of a table that are features, in their order; others are left out. By
            default all in which there is something to learn from.
        indicators: Columns with a feature that tells where values are missing; by default, where
            ``gaps`` asks for such, those in which some are.
        scale: "standard" gives every number of a table or vector mean 0 and standard deviation 1
            over the training rows, "agreed" scales it as the federation has agreed, "" leaves it as
            it is.
        scales: Mean and spread of columns of numbers, by column, as all sites have agreed on them
            instead of each one's own.
        text: Column of texts that are the inputs, for a backbone that takes them; all other columns
            but that of labels are left out.
        text_bytes: Length that every text is brought to, bytes of UTF-8: longer ones are cut.
        image_scale: The same as ``scale`` for the channels of images; with "" they stay in [0, 1].

    Raises:
        ConfigError: If a value is out of range.
    """

    label: str = ""
    ignore: tuple[str, ...] = ()
    group: str = ""
    separator: str = ""
    decimal: str = ""
    encoding: str = ""
    resize: tuple[int, ...] = ()
    mode: str = ""
    unlabelled: tuple[str, ...] = ()
    gaps: str = "indicator"
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    columns: tuple[str, ...] = ()
    indicators: tuple[str, ...] = ()
    scale: str = ""
    scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict, hash=False)
    image_scale: str = ""
    text: str = ""
    text_bytes: int = 512

    def __post_init__(self) -> None:
        separator = SEPARATORS.get(self.separator, self.separator)
        require(len(separator) <= 1, self, "separator", 'one character, or "tab"')
        choice(self, "decimal", ("", ".", ","))
        require(self.mode.lower() in MODES, self, "mode", '"grey", "rgb" or ""')
        choice(self, "gaps", GAPS)
        choice(self, "scale", SCALES)
        choice(self, "image_scale", ("", STANDARD))
        pairs = all(len(pair) == 2 and pair[1] > 0 for pair in self.scales.values())
        require(pairs, self, "scales", "a mean and a spread above 0 for each column")
        told = not self.indicators or self.gaps == "indicator"
        require(told, self, "indicators", 'none unless gaps = "indicator"')
        alone = not self.text or not self.columns
        require(alone, self, "columns", "none where text names the column")
        length = 0 < self.text_bytes <= _MOST_BYTES
        require(length, self, "text_bytes", f"from 1 to {_MOST_BYTES}")
        require(_is_encoding(self.encoding), self, "encoding", 'a name such as "windows-1252"')
        sides = all(0 < side <= _LARGEST_SIDE for side in self.resize)
        require(
            len(self.resize) <= 2 and sides,
            self,
            "resize",
            f"width and height, each from 1 to {_LARGEST_SIDE}",
        )

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height that every image gets; None for its own."""
        return (self.resize[0], self.resize[-1]) if self.resize else None

    @property
    def pillow_mode(self) -> str:
        """Pillow's name of the mode; "" where it is found out."""
        return MODES[self.mode.lower()]


def sizes_of(text: str, option: str) -> tuple[int, ...]:
    """The width and height in an option such as ``64,64`` or ``64``; none in an empty one.

    Raises:
        UsageError: If it is neither.

    >>> sizes_of("64, 48", "--resize"), sizes_of("64", "--resize"), sizes_of("", "--resize")
    ((64, 48), (64,), ())
    """
    parts = [part.strip() for part in text.lower().replace("x", ",").split(",")] if text else []
    whole = all(part.isascii() and part.isdecimal() for part in parts)
    if not whole or len(parts) > 2 or not all(0 < int(part) <= _LARGEST_SIDE for part in parts):
        raise UsageError(
            "not a size of images",
            where=option,
            expected=f"width and height such as 64,64, each from 1 to {_LARGEST_SIDE}",
            got=text,
        )
    return tuple(map(int, parts))


def _is_encoding(name: str) -> bool:
    try:
        return not name or bool(codecs.lookup(name)._is_text_encoding)
    except (LookupError, ValueError):
        return False
