"""Images as addresses that a page holds in itself."""

from __future__ import annotations

import io
from base64 import b64encode

import numpy as np
from PIL import Image

from f2l_fed.data.array_checks import AnyArray

__all__ = ["picture_address"]


def picture_address(x: AnyArray, side: int) -> str:
    """An image as a PNG inside of a ``data:`` address.

    Args:
        x: (C, H, W) in [0, 1], C 1 or 3.
        side: Length of the picture's longer side, pixels.
    """
    pixels = np.rint(x * 255).astype(np.uint8)
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2))
    scale = side / max(image.size)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    file = io.BytesIO()
    image.resize(size, Image.Resampling.NEAREST if scale > 1 else None).save(file, "PNG")
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()
