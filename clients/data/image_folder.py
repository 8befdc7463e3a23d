"""A folder of images with one sub-folder per class, as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from f2l_fed.data.array_checks import AnyArray
from f2l_fed.errors import DataError

_MODES = {"1": "L", "L": "L", "RGB": "RGB"}


def read_folder(path: Path) -> tuple[AnyArray, AnyArray]:
    """Reads every image below the class folders; hidden files and folders are left out.

    Args:
        path: The folder; files beside the class folders don't matter.

    Returns:
        x (n, C, H, W) uint8 with C 1 or 3, and y (n,) strings, the names of the class folders.

    Raises:
        DataError: If there are no images, one can't be read, or one differs from the
            first in size or colour.
    """
    classes = [entry for entry in _visible(path) if entry.is_dir()]
    files = [(folder.name, file) for folder in classes for file in _visible(folder)]
    if empty := [folder for folder in classes if not _visible(folder)]:
        raise DataError(
            "the class folder has no images",
            where=str(empty[0]),
            remedy="Add images of that class or remove the folder.",
        )
    if not files:
        raise DataError(
            "there are no class folders",
            where=str(path),
            expected="one sub-folder with images for each class",
        )
    first = _read(files[0][1])
    x = np.empty((len(files), *first.shape), np.uint8)
    for row, (_, file) in enumerate(files):
        image = _read(file)
        if image.shape != first.shape:
            raise DataError(
                "the image has another size or colour",
                where=str(file),
                expected=f"{_show(first)} as {files[0][1].name}",
                got=_show(image),
                remedy="Bring all images to one size, and all to grey or all to RGB.",
            )
        x[row] = image
    return x, np.array([name for name, _ in files])


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(
            "the folder can't be read", where=str(folder), got=error.strerror or ""
        ) from error


def _read(file: Path) -> AnyArray:
    pillow = _pillow()
    try:
        with pillow.open(file) as image:
            if image.mode not in _MODES:
                raise DataError(
                    "the image is neither grey nor RGB",
                    where=str(file),
                    got=f"mode {image.mode}",
                    remedy="Convert the image.",
                )
            pixels = np.asarray(image.convert(_MODES[image.mode]))
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise DataError(
            "the image can't be read",
            where=str(file),
            got=type(error).__name__,
            remedy="Repair or remove the image.",
        ) from error
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "image folders need the package Pillow", remedy="Install it: pip install pillow."
        ) from error
    return Image


def _show(image: AnyArray) -> str:
    channels, height, width = image.shape
    return f"{'RGB' if channels == 3 else 'grey'} of {width}x{height} pixels"
