"""Glyphs of the machine's own fonts as a data set: letters and digits, one image for each family.

`python -m tests.benchmarks.glyphs OUT.npz [--families N]`

Nothing is downloaded: the fonts are those that fontconfig knows (Debian packages ``fonts-*``), so
the set differs between machines; the number of families and the digest of the images are printed.
"""

from __future__ import annotations

import argparse
import string
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CLASSES = string.ascii_uppercase + string.digits
SIDE, _DRAWN = 28, 96


def families() -> Iterator[tuple[str, Path]]:
    """Names and files of scalable Latin fonts, the plainest style of each family, by name."""
    listed = subprocess.run(
        [
            "fc-list",
            "--format",
            "%{family[0]}\t%{weight}\t%{slant}\t%{file}\n",
            ":lang=en:scalable=true",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = [row.split("\t") for row in listed.splitlines()]
    found: dict[str, tuple[float, float, str]] = {}
    for family, weight, slant, file in rows:
        if not (weight.isdigit() and slant.isdigit()):
            continue
        style = (int(slant), abs(int(weight) - 80), file)
        found[family] = min(style, found.get(family, style))
    for family in sorted(found):
        yield family, Path(found[family][2])


def drawn(font: Path) -> np.ndarray | None:
    """(36, 28, 28) uint8, all classes in one font; None where it lacks some of them."""
    try:
        face = ImageFont.truetype(str(font), _DRAWN)
        glyphs = np.stack([glyph(face, letter) for letter in CLASSES])
    except (OSError, ValueError):
        return None
    distinct = np.unique(glyphs.reshape(len(glyphs), -1), axis=0)
    # Empty boxes, and fonts without figures or with capitals in place of everything.
    return glyphs if len(distinct) == len(glyphs) and glyphs.max((1, 2)).min() > 0 else None


def glyph(face: ImageFont.FreeTypeFont, letter: str) -> np.ndarray:
    """(28, 28) uint8, one letter in the middle, white on black, its longer side 22 pixels."""
    left, top, right, bottom = face.getbbox(letter)
    size = (max(1, round(right - left)), max(1, round(bottom - top)))
    image = Image.new("L", size)
    ImageDraw.Draw(image).text((-left, -top), letter, fill=255, font=face)
    scale = 22 / max(size)
    image = image.resize([max(1, round(scale * side)) for side in size], Image.Resampling.LANCZOS)
    whole = Image.new("L", (SIDE, SIDE))
    whole.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return np.asarray(whole)


def main() -> None:
    """Draws the set and writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--families", type=int, default=250, help="families at most")
    chosen = parser.parse_args()
    images: dict[bytes, np.ndarray] = {}
    for _, font in families():
        if len(images) == chosen.families:
            break
        if (one := drawn(font)) is not None:
            # Some families are another's under a second name.
            images.setdefault(sha256(one.tobytes()).digest(), one)
    x = np.concatenate(list(images.values()))
    np.savez_compressed(chosen.out, x=x, y=np.tile(np.arange(len(CLASSES)), len(images)))
    print(
        f"{len(images)} families, {len(x)} images, SHA-256 {sha256(x.tobytes()).hexdigest()[:16]}"
    )


if __name__ == "__main__":
    main()
