"""One image file as pixels: upright, in the mode and of the size that all share."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from f2l_fed.core.wording import file_fault
from f2l_fed.data.array_checks import AnyArray
from f2l_fed.errors import DataError

_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"}
_ORIENTATION = 0x0112
_TURNED = range(5, 9)
_STILL = ("MPO",)
"""Formats whose further images are previews of the first one."""

_UNKNOWN = (".heic", ".heif", ".svg", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".jxl")
"""Suffixes of images that Pillow does not read, or only their previews."""

DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""The errors by which Pillow answers a damaged file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFacts:
    """The description of an image file, found without its pixels.

    Args:
        mode: Pillow's mode of the file.
        shared: The mode that fits without loss of colour, "L" or "RGB".
        size: Width and height once it is upright, pixels.
        turned: Whether the camera's note asks for a rotation.
        clear: Whether parts may be transparent.
        top: Value of white in an image of floats, 1 or 255 by its brightest pixel; 0 for others,
            and for black ones.
    """

    mode: str
    shared: str
    size: tuple[int, int]
    turned: bool
    clear: bool
    top: float = 0.0


def is_image_name(path: Path) -> bool:
    """Whether a file's suffix is that of an image."""
    suffix = path.suffix.lower()
    return Image.registered_extensions().get(suffix) in Image.OPEN or suffix in _UNKNOWN


def picture_facts(path: Path) -> PictureFacts | None:
    """The facts of an image file; None for a file of another kind.

    Raises:
        DataError: If it is an image that can't be used; ``what`` and ``got`` say why.
    """
    if path.suffix.lower() in _UNKNOWN:
        raise DataError(
            "images are in a format that can't be read",
            remedy="Save them as JPEG or PNG.",
        )
    try:
        with _opened(path) as image:
            frames = int(getattr(image, "n_frames", 1))
            if frames > 1 and image.format not in _STILL:
                raise DataError(
                    "image files hold several frames or pages",
                    got=str(frames),
                    remedy="Save one image a file.",
                )
            orientation = image.getexif().get(_ORIENTATION, 1)
            width, height = image.size
            return PictureFacts(
                mode=image.mode,
                shared="L" if image.mode in _GREY or _is_grey_palette(image) else "RGB",
                size=(height, width) if orientation in _TURNED else (width, height),
                turned=orientation in range(2, 9),
                clear=image.has_transparency_data,
                top=_white(float(np.asarray(image).max())) if image.mode == "F" else 0.0,
            )
    except UnidentifiedImageError:
        if is_image_name(path):
            raise _damaged("not an image inside") from None
        return None
    except DAMAGED as error:
        raise _damaged(_fault(error)) from error


def read_pixels(
    path: Path, mode: str, size: tuple[int, int] | None, *, white: float = 0.0
) -> AnyArray:
    """The pixels of an image file.

    Args:
        path: A file that `picture_facts` has found usable.
        mode: "L" or "RGB".
        size: Width and height to bring it to, its middle kept; None for its own.
        white: Value of white in an image of floats; 0 to go by its brightest pixel.

    Returns:
        (C, H, W) uint8.

    Raises:
        DataError: If the file is damaged; ``what`` and ``got`` say why.
    """
    try:
        with _opened(path) as image:
            if size is not None and image.format in ("JPEG", "MPO"):
                longest = 2 * max(size)
                image.draft(mode, (longest, longest))
            upright = _flat(ImageOps.exif_transpose(image), mode, white)
            if size is not None and upright.size != size:
                upright = ImageOps.fit(upright, size, Image.Resampling.BILINEAR)
            pixels = np.asarray(upright)
    except DAMAGED as error:
        raise _damaged(_fault(error)) from error
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        # Large photos and odd notes of cameras are no problem by themselves.
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            yield image


def _flat(image: Image.Image, mode: str, white: float) -> Image.Image:
    """The image in a mode of 8 bits, transparent parts laid on white."""
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image, white).convert(mode)
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        ground = Image.new("RGBA", clear.size, "white")
        return Image.alpha_composite(ground, clear).convert("RGB").convert(mode)
    if image.mode == "1":
        return image.convert("L").convert(mode)
    return (
        image.convert("RGB").convert(mode)
        if image.mode not in ("L", "RGB")
        else image.convert(mode)
    )


def _eight_bits(image: Image.Image, white: float) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F":
        top = white or _white(high) or 1.0
    else:
        top = 65535.0
    if not (low >= 0 and high <= top):
        raise DataError(
            "images have values out of range",
            got=f"{low:g} to {high:g}",
            remedy="Save them with 8 or 16 bits a channel.",
        )
    return Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8))


def _white(brightest: float) -> float:
    """Value of white in an image of floats by its brightest pixel; 0 where that is black."""
    return 0.0 if brightest == 0 else 1.0 if brightest <= 1 else 255.0


def _is_grey_palette(image: Image.Image) -> bool:
    if image.mode != "P" or not (palette := image.getpalette("RGB")):
        return False
    colours = np.array(palette).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _fault(error: Exception) -> str:
    """The fault of an image file in words; Pillow's own are about its inner workings."""
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels"
    if isinstance(error, EOFError) or "truncated" in str(error):
        return "cut off"
    return file_fault(error)


def _damaged(fault: str) -> DataError:
    return DataError(
        "images can't be read", got=fault, remedy="Repair or remove them; save them as JPEG or PNG."
    )
